//! [`Named`]: a regular file or a block device with a name, opened for one user alone.
//!
//! Nothing here writes before it is asked to, so whoever opens one may look at what is on it and leave it as it was.
//!
//! # Invariants
//! - Nobody else has it: a device is opened with `O_EXCL`, which the kernel refuses for one that is mounted, a swap area, part of
//!   another device, or opened so by somebody else; a file is locked (`flock`), which a second user of ours does as well. What is
//!   behind a loop device is had with it; what is behind one, whoever has that, is refused.
//! - A file on tmpfs, ramfs or hugetlbfs is refused.
//!
//! # Safety
//! Calls of libc and two `ioctl`s on a descriptor that this type owns, with pointers to locals.
#![allow(unsafe_code)]

use super::file::{open, refuses_direct};
use super::locks::LockHolder;
use super::loops::{self, Identity};
use super::place::{c_path, memory_file_system};
use super::{AlignedBuf, BLOCK, DirectFile};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a device: `_IOR(0x12, 114, size_t)` (`linux/fs.h`).
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
/// Discards a range of a device, two u64: `_IO(0x12, 119)`.
const BLKDISCARD: libc::c_ulong = 0x1277;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A block device.
    Device,
    /// Anything else.
    Other,
}

impl NameKind {
    /// What `path` stands for, symbolic links followed.
    ///
    /// # Errors
    /// If it cannot be examined.
    pub fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|found| Self::of_type(found.file_type()))
    }

    fn of_type(found: std::fs::FileType) -> Self {
        match () {
            () if found.is_dir() => Self::Directory,
            () if found.is_file() => Self::File,
            () if found.is_block_device() => Self::Device,
            () => Self::Other,
        }
    }

    /// With its article.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Directory => "a directory",
            Self::File => "a regular file",
            Self::Device => "a block device",
            Self::Other => "neither a directory, a regular file nor a block device",
        }
    }
}

/// Why a file or device cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamedError {
    /// A call failed.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// The file or device.
        path: PathBuf,
        /// What was tried.
        act: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Somebody else has the device.
    #[error("{} is in use: mounted, a swap area, part of another device, or another vswap's", path.display())]
    DeviceInUse {
        /// The device.
        path: PathBuf,
    },
    /// Somebody else has locked the file.
    #[error("{} is in use: {holder} has locked it", path.display())]
    FileInUse {
        /// The file.
        path: PathBuf,
        /// Who has.
        holder: LockHolder,
    },
    /// It is behind a loop device, so its bytes have two names.
    #[error("{} is behind {}: name that one, or detach it (losetup --detach)", path.display(), over.display())]
    Behind {
        /// The file or device.
        path: PathBuf,
        /// The loop device.
        over: PathBuf,
    },
    /// It is something else.
    #[error("{} is {}, not {}", path.display(), found.name(), wanted.name())]
    Kind {
        /// The name.
        path: PathBuf,
        /// What it stands for.
        found: NameKind,
        /// What was wanted.
        wanted: NameKind,
    },
    /// The file is on a file system that keeps its files in memory.
    #[error("{} is on {kind}, which is memory: swapping to it would save nothing", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// The file system's name.
        kind: &'static str,
    },
}

/// A file or device that is this value's alone.
#[derive(Debug)]
pub struct Named {
    file: Arc<DirectFile>,
    path: PathBuf,
    kind: NameKind,
    len: u64,
    /// The device has said that it cannot discard.
    keeps: AtomicBool,
    /// What is behind it if it is a loop device: had so that nobody else has it.
    _behind: Option<Box<Named>>,
}

impl Named {
    /// Opens a block device.
    ///
    /// # Errors
    /// [`NamedError`]; `DeviceInUse` if the kernel lets nobody else have it, `FileInUse` if somebody has locked what is behind it.
    pub fn open_device(path: &Path) -> Result<Self, NamedError> {
        Self::device_alone(path)?.not_behind()
    }

    fn device_alone(path: &Path) -> Result<Self, NamedError> {
        let failed = |act| move |source| Self::failed(path, act, source);
        Self::must_be(path, NameKind::Device)?;
        let fd = open_named(path, libc::O_EXCL)?.map_err(|source| match source.raw_os_error() {
            Some(libc::EBUSY) => NamedError::DeviceInUse { path: path.to_owned() },
            _ => Self::failed(path, "open", source),
        })?;
        // The name may have become another thing's.
        let found = Self::metadata(&fd.0).map_err(failed("examine"))?;
        let found = NameKind::of_type(found.file_type());
        if found != NameKind::Device {
            return Err(NamedError::Kind { path: path.to_owned(), found, wanted: NameKind::Device });
        }
        change_flags(&fd.0, 0, libc::O_NONBLOCK).map_err(failed("examine"))?;
        let mut len = 0_u64;
        // SAFETY: (1) the descriptor is open; (2) this request writes one u64 (`size_t` here), to a live local.
        let got = unsafe { libc::ioctl(fd.0.as_raw_fd(), BLKGETSIZE64 as _, &raw mut len) };
        if got != 0 {
            return Err(Self::failed(path, "tell the size of", io::Error::last_os_error()));
        }
        let behind = Self::behind(path, &fd.0)?.map(Box::new);
        Ok(Self { _behind: behind, ..Self::new(path, NameKind::Device, fd, len) })
    }

    /// What is behind a device that is a loop device. `None` also if that has no name here, so that nobody else can open it either.
    fn behind(path: &Path, fd: &OwnedFd) -> Result<Option<Self>, NamedError> {
        let failed = |source| Self::failed(path, "examine", source);
        let Some(name) = loops::behind(&Self::metadata(fd).map_err(failed)?) else { return Ok(None) };
        let wanted = loops::identity_behind(fd.as_fd()).map_err(failed)?;
        let found = match std::fs::metadata(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(|source| Self::failed(&name, "examine", source))?,
        };
        if Identity::of(&found) != wanted {
            return Ok(None);
        }
        match NameKind::of_type(found.file_type()) {
            NameKind::Device => Self::device_alone(&name),
            _ => Self::file_alone(&name),
        }
        .map(Some)
    }

    /// It, unless there is a loop device over it. Asked when it is had already: whoever comes later finds it so.
    fn not_behind(self) -> Result<Self, NamedError> {
        let found = Self::metadata(self.file.as_fd());
        let found = found.map_err(|source| Self::failed(&self.path, "examine", source))?;
        match loops::over(Identity::of(&found)) {
            Some(over) => Err(NamedError::Behind { path: self.path.clone(), over }),
            None => Ok(self),
        }
    }

    /// Opens and locks a regular file.
    ///
    /// # Errors
    /// [`NamedError`]; `FileInUse` if somebody has locked it.
    pub fn open_file(path: &Path) -> Result<Self, NamedError> {
        Self::must_be(path, NameKind::File)?;
        Self::no_memory(path, path)?;
        Self::file_alone(path)?.not_behind()
    }

    fn file_alone(path: &Path) -> Result<Self, NamedError> {
        let fd = open_named(path, 0)?.map_err(|source| Self::failed(path, "open", source))?;
        Self::lock(path, &fd.0)?;
        Self::of_locked(path, fd)
    }

    /// Makes a regular file of `len` bytes, which take no room yet, and locks it.
    ///
    /// # Errors
    /// [`NamedError`]; `AlreadyExists` if there is one.
    pub fn create_file(path: &Path, len: u64) -> Result<Self, NamedError> {
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::no_memory(path, parent)?;
        let made = c_path(path).and_then(|name| {
            open(&name, libc::O_RDWR | libc::O_CLOEXEC | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW)
        });
        Self::of_made(path, made.map_err(|source| Self::failed(path, "make", source))?, len)
    }

    /// A file that was made just now, and somebody may have locked since: then it is theirs.
    fn of_made(path: &Path, fd: OwnedFd, len: u64) -> Result<Self, NamedError> {
        Self::lock(path, &fd)?;
        let failed = |source| Self::failed(path, "open", source);
        // With its lock, until the name is gone if it comes to that.
        let held = fd.try_clone().map_err(failed)?;
        let made = make_direct(&fd).map_err(failed).and_then(|direct| {
            let mut file = Self::of_locked(path, (fd, direct))?;
            file.grow(len).map(|()| file)
        });
        if made.is_err() && names(path, &held) {
            let _ = std::fs::remove_file(path);
        }
        made
    }

    /// Makes an empty file `len` bytes long, which take no room yet.
    ///
    /// # Errors
    /// [`NamedError`], also if it is not empty.
    pub fn grow(&mut self, len: u64) -> Result<(), NamedError> {
        if self.len != 0 || self.kind != NameKind::File {
            return Err(Self::failed(&self.path, "make longer", io::ErrorKind::InvalidInput.into()));
        }
        self.file.set_len(len).map_err(|source| Self::failed(&self.path, "make longer", source))?;
        self.len = len;
        Ok(())
    }

    fn lock(path: &Path, fd: &OwnedFd) -> Result<(), NamedError> {
        // SAFETY: `flock` only needs an open descriptor.
        if unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        let source = io::Error::last_os_error();
        Err(match source.raw_os_error() {
            Some(libc::EWOULDBLOCK) => {
                let found = Self::metadata(fd);
                let holder = found.map(|found| LockHolder::of(&found)).unwrap_or_default();
                NamedError::FileInUse { path: path.to_owned(), holder }
            }
            _ => Self::failed(path, "lock", source),
        })
    }

    fn of_locked(path: &Path, (fd, direct): (OwnedFd, bool)) -> Result<Self, NamedError> {
        let failed = |source| Self::failed(path, "examine", source);
        let found = Self::metadata(&fd).map_err(failed)?;
        let kind = NameKind::of_type(found.file_type());
        if kind != NameKind::File {
            return Err(NamedError::Kind { path: path.to_owned(), found: kind, wanted: NameKind::File });
        }
        change_flags(&fd, 0, libc::O_NONBLOCK).map_err(failed)?;
        Ok(Self::new(path, NameKind::File, (fd, direct), found.len()))
    }

    fn new(path: &Path, kind: NameKind, (fd, direct): (OwnedFd, bool), len: u64) -> Self {
        let file = Arc::new(DirectFile::of(fd, direct));
        Self { file, path: path.to_owned(), kind, len, keeps: AtomicBool::new(false), _behind: None }
    }

    fn must_be(path: &Path, wanted: NameKind) -> Result<(), NamedError> {
        let found = NameKind::of(path).map_err(|source| Self::failed(path, "examine", source))?;
        let path = path.to_owned();
        if found == wanted { Ok(()) } else { Err(NamedError::Kind { path, found, wanted }) }
    }

    fn no_memory(path: &Path, on: &Path) -> Result<(), NamedError> {
        match memory_file_system(on) {
            Ok(None) => Ok(()),
            Ok(Some(kind)) => Err(NamedError::Memory { path: path.to_owned(), kind }),
            Err(source) => Err(Self::failed(on, "examine", source)),
        }
    }

    fn metadata(fd: impl AsFd) -> io::Result<std::fs::Metadata> {
        std::fs::File::from(fd.as_fd().try_clone_to_owned()?).metadata()
    }

    fn failed(path: &Path, act: &'static str, source: io::Error) -> NamedError {
        NamedError::Io { path: path.to_owned(), act, source }
    }

    /// For reads and writes of whole blocks.
    #[must_use]
    pub fn file(&self) -> &Arc<DirectFile> {
        &self.file
    }

    /// Its name, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or a device.
    #[must_use]
    pub fn kind(&self) -> NameKind {
        self.kind
    }

    /// Its bytes when it was opened.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tells a device that the bytes of a range are of no use any more.
    ///
    /// # Errors
    /// As the device; `Unsupported` if it is a file, or has said before that it cannot.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        // Relaxed: a device that is asked once more says so once more.
        if self.kind != NameKind::Device || self.keeps.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let range = [offset, len];
        // SAFETY: (1) the descriptor is open; (2) this request reads two u64, from a live local.
        let done = unsafe { libc::ioctl(self.file.as_fd().as_raw_fd(), BLKDISCARD as _, range.as_ptr()) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOTTY)) {
            self.keeps.store(true, Ordering::Relaxed);
        }
        Err(error)
    }

    /// Overwrites a range, to its last byte, with zeroes, and waits until they are on the disk. Not for what is much: it goes through the page cache.
    ///
    /// # Errors
    /// As the device.
    pub fn wipe(&self, offset: u64, len: u64) -> io::Result<()> {
        let again = format!("/proc/self/fd/{}", self.file.as_fd().as_raw_fd());
        let file = std::fs::OpenOptions::new().write(true).open(again)?;
        let zeroes = [0; BLOCK];
        let end = offset.saturating_add(len).min(self.len);
        let mut at = offset;
        while at < end {
            let part = (end - at).min(BLOCK as u64) as usize;
            file.write_all_at(&zeroes[..part], at)?;
            at += part as u64;
        }
        file.sync_all()
    }
}

/// Opens for reading and writing, directly if that works, and never makes a file. Tells whether it is direct. The outer error is of the name,
/// the inner one the kernel's.
fn open_named(path: &Path, more: libc::c_int) -> Result<io::Result<(OwnedFd, bool)>, NamedError> {
    let name = c_path(path).map_err(|source| Named::failed(path, "open", source))?;
    // What became a pipe meanwhile is not waited for. Cleared once it is known to be none.
    let flags = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NONBLOCK | more;
    Ok(match open(&name, flags | libc::O_DIRECT) {
        Ok(fd) if reads(&fd) => Ok((fd, true)),
        Ok(fd) => {
            // Before the other is opened: a device is given to one at a time.
            drop(fd);
            open(&name, flags).map(|fd| (fd, false))
        }
        Err(error) if refuses_direct(&error) => open(&name, flags).map(|fd| (fd, false)),
        Err(error) => Err(error),
    })
}

/// Sets `O_DIRECT` if that works, and tells whether it does. Not when a file is made: who refuses it then has made the file.
fn make_direct(fd: &OwnedFd) -> io::Result<bool> {
    match change_flags(fd, libc::O_DIRECT, 0) {
        Ok(()) if reads(fd) => Ok(true),
        Ok(()) => change_flags(fd, 0, libc::O_DIRECT).map(|()| false),
        Err(error) if refuses_direct(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn change_flags(fd: &OwnedFd, set: libc::c_int, clear: libc::c_int) -> io::Result<()> {
    // SAFETY: this request of `fcntl` only needs an open descriptor.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: as above, and its argument is an int.
    if flags < 0 || unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags & !clear | set) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether the name is still that of the open file.
fn names(path: &Path, fd: &OwnedFd) -> bool {
    let (named, open) = (std::fs::symlink_metadata(path), Named::metadata(fd));
    named.is_ok_and(|named| open.is_ok_and(|open| Identity::of(&named) == Identity::of(&open)))
}

/// Some file systems take `O_DIRECT` and refuse the transfer.
fn reads(fd: &OwnedFd) -> bool {
    let mut block = AlignedBuf::zeroed(BLOCK);
    let Ok(copy) = fd.try_clone() else { return false };
    let read = DirectFile::of(copy, true).read_at(0, &mut block);
    !matches!(read, Err(error) if refuses_direct(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    const LEN: u64 = 4 << 20;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir_in("/var/tmp").unwrap()
    }

    /// As between the two calls of [`Named::create_file`].
    fn made(path: &Path) -> OwnedFd {
        File::options().read(true).write(true).create_new(true).open(path).unwrap().into()
    }

    #[test]
    fn a_new_file_that_somebody_else_has_locked_first_is_theirs_and_keeps_its_name() {
        let dir = directory();
        let path = dir.path().join("new");
        let ours = made(&path);
        let theirs = Named::open_file(&path).unwrap();
        let error = Named::of_made(&path, ours, LEN).unwrap_err();
        let NamedError::FileInUse { holder, .. } = error else { panic!("{error}") };
        assert_eq!(holder.pid(), Some(std::process::id()));
        assert!(path.exists());
        drop(theirs);
        Named::open_file(&path).unwrap();
    }

    #[test]
    fn a_new_file_that_cannot_be_as_long_as_wanted_is_removed_if_the_name_is_still_its() {
        let dir = directory();
        let path = dir.path().join("new");
        assert!(Named::create_file(&path, u64::MAX).is_err() && !path.exists());
        let ours = made(&path);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        assert!(Named::of_made(&path, ours, u64::MAX).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"another");
    }

    #[test]
    fn a_new_file_is_locked_and_as_direct_as_one_that_is_opened() {
        let dir = directory();
        let path = dir.path().join("new");
        let new = Named::create_file(&path, LEN).unwrap();
        assert_eq!((new.len(), fs::metadata(&path).unwrap().len()), (LEN, LEN));
        assert!(matches!(Named::open_file(&path), Err(NamedError::FileInUse { .. })));
        new.file().write_at(0, &AlignedBuf::zeroed(BLOCK)).unwrap();
        let direct = new.file().is_direct();
        drop(new);
        assert_eq!(Named::open_file(&path).unwrap().file().is_direct(), direct);
    }

    #[test]
    fn reads_and_writes_wait_since_nothing_is_left_of_how_it_was_opened() {
        let dir = directory();
        let path = dir.path().join("file");
        let flags = |named: Named| {
            let about = format!("/proc/self/fdinfo/{}", named.file().as_fd().as_raw_fd());
            let about = fs::read_to_string(about).unwrap();
            let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            libc::c_int::from_str_radix(flags.trim(), 8).unwrap()
        };
        let made = flags(Named::create_file(&path, LEN).unwrap());
        let opened = flags(Named::open_file(&path).unwrap());
        assert_eq!((made & libc::O_NONBLOCK, opened & libc::O_NONBLOCK), (0, 0));
        assert_eq!(made & libc::O_DIRECT, opened & libc::O_DIRECT);
    }
}
