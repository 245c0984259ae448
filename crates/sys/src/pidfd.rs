//! Process descriptors: a process or thread that cannot be mistaken for a later one of the same number.
//!
//! # Safety
//! Plain calls on descriptors; no memory of ours is passed.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `PIDFD_THREAD` of `include/uapi/linux/pidfd.h` (Linux 6.9).
const PIDFD_THREAD: libc::c_int = libc::O_EXCL;

/// A process or thread. Readable once it has ended.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

fn owned(result: i64) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the callers pass what a call that makes a descriptor returned.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

impl PidFd {
    /// Opens process `pid`.
    ///
    /// # Errors
    /// `ESRCH` if there is none, `EINVAL` if `pid` is a thread but no process.
    pub fn open(pid: i32) -> io::Result<PidFd> {
        // SAFETY: no pointers.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(PidFd)
    }

    /// Opens thread `tid`: readable when that thread has ended.
    ///
    /// # Errors
    /// `ESRCH` if there is none, `EINVAL` on kernels before 6.9.
    pub fn open_thread(tid: i32) -> io::Result<PidFd> {
        // SAFETY: no pointers.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_open, tid, PIDFD_THREAD) }).map(PidFd)
    }

    /// Copies descriptor `fd` of the process (of the thread's own table, for a thread) to this one.
    ///
    /// # Errors
    /// `EBADF` if it is not open there, `EPERM` without the right to trace the process, `ESRCH`.
    pub fn get(&self, fd: i32) -> io::Result<OwnedFd> {
        // SAFETY: no pointers.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.0.as_raw_fd(), fd, 0) })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `ESRCH` if it has been reaped, `EPERM`.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: a null `siginfo` asks for the default one.
        let n = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
        };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Tells whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live `pollfd`.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    /// Waits until it has ended, `timeout_ms` at most (for ever if negative). Tells whether it has.
    pub fn wait_end(&self, timeout_ms: i32) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live `pollfd`.
        unsafe { libc::poll(&raw mut poll, 1, timeout_ms) == 1 }
    }

    /// Collects an ended child of ours, so that it does not stay a zombie; does nothing for others.
    pub fn reap(&self) {
        // SAFETY: an all-zero `siginfo_t` is valid, and it is live.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(
                libc::P_PIDFD,
                self.0.as_raw_fd() as libc::id_t,
                &raw mut info,
                libc::WEXITED | libc::WNOHANG,
            );
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Tells whether two processes share one address space (`kcmp` with `KCMP_VM`).
///
/// # Errors
/// `ESRCH`, `EPERM`, `ENOSYS` on kernels built without it.
pub fn same_memory(a: i32, b: i32) -> io::Result<bool> {
    const KCMP_VM: i32 = 1;
    // SAFETY: no pointers.
    let n = unsafe { libc::syscall(libc::SYS_kcmp, a, b, KCMP_VM, 0, 0) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n == 0) }
}
