//! [`Source`]: the directory that is shown, by its path.
//!
//! Nothing of it is kept open but what a program has open, so that it can be unmounted, and it is seen at once when it is there no more. A path below it is
//! walked without symbolic links (`openat2`), and whoever opens a file looks whether it is the one that was meant.

use crate::attr::Attr;
use crate::fault::{Fault, Res};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The longest path that is walked in one call; the kernel takes 4095 bytes.
const AT_ONCE: usize = 3000;

/// File systems of other machines, and FUSE (sshfs, rclone): `statfs(2)`, and `linux/magic.h`.
const REMOTE: &[u64] = &[
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB 2 and 3
    0x6573_5546, // FUSE
    0x0102_1997, // 9P
    0x00c3_6400, // Ceph
    0x5346_414f, // AFS
    0x6b41_4653, // AFS
    0x7375_7245, // Coda
    0x564c,      // NCP
    0x0bd0_0bd0, // Lustre
    0x786f_4256, // VirtualBox
];

/// A directory that others change, and that may go and come back.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    /// Something is mounted there, so that the directory below it is not what is meant.
    mounted: AtomicBool,
    /// The number of its device when it was last looked which file system it is, and whether that is one of other machines'.
    kind: Mutex<Option<(u64, bool)>>,
}

/// The directory itself, opened for one operation.
#[derive(Debug)]
pub struct Root {
    pub fd: OwnedFd,
    pub device: u64,
}

impl Source {
    /// `mounted`: it is known from before that it is where something is mounted.
    pub fn new(path: PathBuf, mounted: bool) -> Self {
        Self { path, mounted: AtomicBool::new(mounted), kind: Mutex::default() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has been seen to be where something is mounted.
    pub fn is_mounted(&self) -> bool {
        // Relaxed, as below: a flag that guards nothing.
        self.mounted.load(Ordering::Relaxed)
    }

    /// Whether it is the file system of another machine, or of a program, each call of which may take milliseconds. By its kind: how long calls take changes all the time.
    pub fn is_remote(&self) -> bool {
        self.kind.lock().is_some_and(|(_, remote)| remote)
    }

    pub fn root(&self) -> Res<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&self.path, flags, Mode::empty()).map_err(Fault::of_root)?;
        let found =
            rustix::fs::statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::INO).map_err(Fault::of_root)?;
        let mounted = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        if self.is_mounted() && !mounted {
            return Err(Fault::Gone(Errno::IO));
        }
        if mounted {
            self.mounted.store(true, Ordering::Relaxed);
        }
        let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
        let mut kind = self.kind.lock();
        if kind.is_none_or(|(known, _)| known != device) {
            let stat = rustix::fs::fstatfs(&fd).map_err(Fault::of_root)?;
            *kind = Some((device, REMOTE.contains(&(stat.f_type as u64 & 0xffff_ffff))));
        }
        drop(kind);
        Ok(Root { fd, device })
    }
}

impl Root {
    /// What lies at this path, not opened for reading or writing.
    pub fn walk(&self, mut path: &[u8]) -> Res<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at: Option<OwnedFd> = None;
        loop {
            let cut = if path.len() > AT_ONCE {
                path[..AT_ONCE].iter().rposition(|byte| *byte == b'/')
            } else {
                None
            };
            let (part, rest) = cut.map_or((path, &b""[..]), |cut| (&path[..cut], &path[cut + 1..]));
            let part = if part.is_empty() { b"." } else { part };
            let from = at.as_ref().unwrap_or(&self.fd);
            let found = loop {
                // A rename somewhere in the system at the same time.
                match openat2(from, part, flags, Mode::empty(), resolve) {
                    Err(Errno::AGAIN) => std::thread::yield_now(),
                    found => break found?,
                }
            };
            if rest.is_empty() {
                return Ok(found);
            }
            (at, path) = (Some(found), rest);
        }
    }

    pub fn attr(&self, of: impl AsFd) -> Res<Attr> {
        Ok(Attr::new(&rustix::fs::fstat(of)?, self.device))
    }

    /// Of a name in a directory.
    pub fn attr_at(&self, dir: impl AsFd, name: &[u8]) -> Res<Attr> {
        Ok(Attr::new(&rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?, self.device))
    }
}

/// The path by which what a descriptor stands for is had again, whatever it is called by now.
pub fn magic(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Opens what a descriptor stands for, for use.
pub fn reopen(fd: &impl AsFd, flags: OFlags) -> Res<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(rustix::fs::openat(CWD, magic(fd), flags, Mode::empty())?))
}
