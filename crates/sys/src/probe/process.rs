//! What this process is allowed: user, limits, capabilities, kernel.
//!
//! # Safety
//! Calls that fill a live, zeroed structure, or take no pointer.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;

/// "No limit" in [`OpenFiles`].
pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

/// The limits of open descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// In force; the process may raise it to `hard`.
    pub soft: u64,
    /// Raised by root only.
    pub hard: u64,
}

/// `RLIMIT_NOFILE`.
///
/// # Errors
/// What `getrlimit` says.
pub fn open_files() -> io::Result<OpenFiles> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(OpenFiles { soft: limit.rlim_cur, hard: limit.rlim_max })
}

/// The effective user's number; 0 is root.
pub fn effective_user() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() }
}

/// The effective capabilities as a bit set (`CapEff` of `/proc/self/status`).
pub fn effective_capabilities() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?.trim().to_owned();
            u64::from_str_radix(&line, 16).ok()
        })
        .unwrap_or(0)
}

/// The kernel's release (`uname -r`) and machine (`uname -m`).
pub fn kernel_release() -> (String, String) {
    // SAFETY: a zeroed `utsname` is valid; the kernel fills it with strings that end in NUL.
    unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        libc::uname(&raw mut name);
        let text = |field: &[libc::c_char]| CStr::from_ptr(field.as_ptr()).to_string_lossy().into_owned();
        (text(&name.release), text(&name.machine))
    }
}
