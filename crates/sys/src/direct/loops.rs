//! Loop devices: what is behind one, and which one is over a file or device.
//!
//! They are two names for the same bytes, and the kernel keeps them apart: `O_EXCL` on the one does not know of `flock` on the other.
//!
//! # Safety
//! One `ioctl` on an open descriptor, with a pointer to a local.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is behind a loop device: `LOOP_GET_STATUS64` (`linux/loop.h`).
const LOOP_GET_STATUS64: libc::c_ulong = 0x4c05;
/// Words of `struct loop_info64`: device and inode of what is behind, its number if it is a device itself, and others.
const INFO_WORDS: usize = 29;

/// What has the same bytes has the same one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Identity {
    Inode { device: u64, inode: u64 },
    Device(u64),
}

impl Identity {
    pub(super) fn of(found: &Metadata) -> Self {
        if found.file_type().is_block_device() {
            return Self::Device(found.rdev());
        }
        Self::Inode { device: found.dev(), inode: found.ino() }
    }
}

/// The loop device that is over a file or device. Without `/sys` there is none to be seen.
pub(super) fn over(wanted: Identity) -> Option<PathBuf> {
    let names = fs::read_dir("/sys/block").ok()?.flatten().map(|entry| entry.file_name());
    names.filter(|name| name.as_bytes().starts_with(b"loop")).find_map(|name| {
        let behind = name_behind(&Path::new("/sys/block").join(&name))?;
        let device = Path::new("/dev").join(&name);
        // The name is another thing's if it was given elsewhere, or is gone; the device may be nobody's to ask but root's.
        let named = || fs::metadata(&behind).is_ok_and(|found| Identity::of(&found) == wanted);
        let told = || told_by(&device).is_ok_and(|behind| behind == wanted);
        (named() || told()).then_some(device)
    })
}

/// The name of what is behind a block device, or the one that it is a part of; `None` if that is no loop device.
pub(super) fn behind(device: &Metadata) -> Option<PathBuf> {
    let (major, minor) = (libc::major(device.rdev()), libc::minor(device.rdev()));
    let block = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    name_behind(&block).or_else(|| name_behind(&block.join("..")))
}

/// What is behind the loop device that is open there.
pub(super) fn identity_behind(device: BorrowedFd<'_>) -> io::Result<Identity> {
    let mut info = [0_u64; INFO_WORDS];
    // SAFETY: (1) the descriptor is open; (2) a loop device writes a `loop_info64`, 232 bytes, to a live local of that size.
    let got = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, info.as_mut_ptr()) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(match info {
        [device, inode, 0, ..] => Identity::Inode { device, inode },
        [_, _, number, ..] => Identity::Device(number),
    })
}

fn name_behind(block: &Path) -> Option<PathBuf> {
    let told = fs::read(block.join("loop/backing_file")).ok()?;
    Some(OsStr::from_bytes(told.strip_suffix(b"\n").unwrap_or(&told)).into())
}

fn told_by(path: &Path) -> io::Result<Identity> {
    let device = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let found = device.metadata()?;
    if !found.file_type().is_block_device() || behind(&found).is_none() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    identity_behind(device.as_fd())
}
