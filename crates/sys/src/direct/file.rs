//! [`DirectFile`]: an unlinked file for block-aligned reads and writes.
//!
//! It has no name from the start (`O_TMPFILE`), or loses it at once, so that nothing is left behind
//! however the process ends. Reads use `pread`: no lock, no allocation, any thread.
//!
//! # Safety
//! Calls of libc on a descriptor that this type owns, with pointers from live slices.
#![allow(unsafe_code)]

use super::place::{self, PlaceError, c_path};
use super::{AlignedBuf, BLOCK, is_block_multiple};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How often a fresh name is tried where `O_TMPFILE` does not exist.
const NAME_TRIES: u32 = 64;

/// A file without a name, on a disk, read and written in whole blocks.
#[derive(Debug)]
pub struct DirectFile {
    fd: OwnedFd,
    direct: bool,
    /// Reads that were begun.
    reads: AtomicU64,
}

impl DirectFile {
    /// Makes an unlinked file in `dir`, with `O_DIRECT` if the file system takes it.
    ///
    /// # Errors
    /// [`PlaceError::Memory`] on tmpfs, ramfs and hugetlbfs; [`PlaceError::Io`] if no file can be made.
    pub fn create(dir: &Path) -> Result<Self, PlaceError> {
        place::check(dir)?;
        match Self::open(dir, true) {
            Err(e) if refuses_direct(&e) => Self::create_buffered(dir),
            result => result.map_err(|e| PlaceError::io(dir, "make and write a file in", e)),
        }
    }

    /// As [`create`](Self::create), and what is written there comes back. [`create`](Self::create) takes the file system's word for
    /// that where it gives it.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_tried(dir: &Path) -> Result<Self, PlaceError> {
        let file = Self::create(dir)?;
        file.probe().map_err(|e| PlaceError::io(dir, "make and write a file in", e))?;
        Ok(file)
    }

    /// As [`create`](Self::create), through the page cache in any case: what is done where `O_DIRECT`
    /// is refused.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_buffered(dir: &Path) -> Result<Self, PlaceError> {
        place::check(dir)?;
        let file = Self::open(dir, false).map_err(|e| PlaceError::io(dir, "make and write a file in", e))?;
        // Reading ahead is the caller's affair, who knows what belongs together.
        file.advise(libc::POSIX_FADV_RANDOM, 0, 0);
        Ok(file)
    }

    /// What is open already, with `O_DIRECT` or not.
    pub(super) fn of(fd: OwnedFd, direct: bool) -> Self {
        let file = Self { fd, direct, reads: AtomicU64::new(0) };
        if !direct {
            file.advise(libc::POSIX_FADV_RANDOM, 0, 0);
        }
        file
    }

    /// A file that somebody else has opened and has given us, read and written as it was opened.
    ///
    /// # Errors
    /// `InvalidInput` if it is no regular file; else as `fcntl`.
    pub fn received(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: `F_GETFL` only needs an open descriptor, and gives a number.
        let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
        check(flags.min(0))?;
        let file = std::fs::File::from(fd);
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self::of(file.into(), flags & libc::O_DIRECT != 0))
    }

    fn open(dir: &Path, direct: bool) -> io::Result<Self> {
        let file = Self { fd: open_unlinked(dir, direct)?, direct, reads: AtomicU64::new(0) };
        // Some file systems take the flag and refuse the transfer: believe only a write, or who tells how to align one. A write to
        // the disk is the longest step of a start.
        if !direct || !file.promises_direct() {
            file.probe()?;
        }
        Ok(file)
    }

    /// Whether reads and writes bypass the page cache. Where not, each write is pushed out and both
    /// are dropped from the cache afterwards.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Sets the file's length. Growing makes a hole that takes no room.
    ///
    /// # Errors
    /// As `ftruncate`.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        let len = offset_arg(len)?;
        // SAFETY: `ftruncate` only needs an open descriptor, which self owns.
        check(unsafe { libc::ftruncate(self.fd.as_raw_fd(), len) })
    }

    /// Bytes of disk that the file takes now.
    ///
    /// # Errors
    /// As `fstat`.
    pub fn allocated(&self) -> io::Result<u64> {
        let mut data = std::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: (1) the descriptor is open; (2) `data` is writable for a whole stat; (3) it was
        // zeroed and holds integers only.
        let data = unsafe {
            check(libc::fstat(self.fd.as_raw_fd(), data.as_mut_ptr()))?;
            data.assume_init()
        };
        Ok(u64::try_from(data.st_blocks).unwrap_or(0) * 512)
    }

    /// Reads at `offset` into `into`; returns the bytes read, fewer only at the end of the file.
    ///
    /// # Errors
    /// `InvalidInput` unless offset, length and address are multiples of [`BLOCK`]; else as `pread`.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        check_aligned(offset, into)?;
        // Relaxed: a hint for the writers.
        self.reads.fetch_add(1, Relaxed);
        let mut done = 0;
        while done < into.len() {
            let rest = &mut into[done..];
            let at = offset_arg(offset + done as u64)?;
            // SAFETY: (1) the descriptor is open; (2) `rest` is writable for `rest.len()` bytes.
            let n = unsafe { libc::pread(self.fd.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len(), at) };
            match retry_or_count(n)? {
                None => {}
                // A part that is not whole blocks is the file's end: nothing to align a next try on.
                Some(0) => break,
                Some(n) => {
                    done += n;
                    if !is_block_multiple(n as u64) {
                        break;
                    }
                }
            }
        }
        if !self.direct {
            self.advise(libc::POSIX_FADV_DONTNEED, offset, into.len() as u64);
        }
        Ok(done)
    }

    /// Writes all of `from` at `offset`.
    ///
    /// # Errors
    /// `InvalidInput` unless offset, length and address are multiples of [`BLOCK`]; `WriteZero` if
    /// the kernel takes nothing; else as `pwrite` (`ENOSPC` when the disk is full).
    pub fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        check_aligned(offset, from)?;
        self.write_rest(offset, from, 0)?;
        self.written(offset, from.len() as u64);
        Ok(())
    }

    /// How many reads were begun, by anybody.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// Writes what follows the first `done` bytes of `from`, which belongs at `offset`.
    pub(super) fn write_rest(&self, offset: u64, from: &[u8], done: usize) -> io::Result<()> {
        // A short direct write may end inside a block; the whole block is written again.
        let mut done = done - done % BLOCK;
        while done < from.len() {
            let rest = &from[done..];
            let at = offset_arg(offset + done as u64)?;
            // SAFETY: (1) the descriptor is open; (2) `rest` is readable for `rest.len()` bytes.
            let n = unsafe { libc::pwrite(self.fd.as_raw_fd(), rest.as_ptr().cast(), rest.len(), at) };
            match retry_or_count(n)? {
                None => {}
                Some(n) if n < BLOCK && n < rest.len() => {
                    return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk took less than a block"));
                }
                Some(n) => done += n - n % BLOCK,
            }
        }
        Ok(())
    }

    /// After a buffered write: push it out and drop it from the page cache, which is memory too.
    pub(super) fn written(&self, offset: u64, len: u64) {
        if self.direct {
            return;
        }
        let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        if let (Ok(at), Ok(len)) = (offset_arg(offset), offset_arg(len)) {
            // SAFETY: `sync_file_range` only needs an open descriptor. Its failure only means that
            // the pages stay cached a little longer.
            unsafe { libc::sync_file_range(self.fd.as_raw_fd(), at, len, flags) };
        }
        self.advise(libc::POSIX_FADV_DONTNEED, offset, len);
    }

    /// Gives the disk blocks of a range back; it reads as zeroes afterwards.
    ///
    /// # Errors
    /// As `fallocate` (`EOPNOTSUPP` on a file system that cannot).
    pub fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let (at, len) = (offset_arg(offset)?, offset_arg(len)?);
        loop {
            // SAFETY: `fallocate` only needs an open descriptor, which self owns.
            match check(unsafe { libc::fallocate(self.fd.as_raw_fd(), mode, at, len) }) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Waits until what was written is on the device.
    ///
    /// # Errors
    /// As `fdatasync`.
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: `fdatasync` only needs an open descriptor, which self owns.
        check(unsafe { libc::fdatasync(self.fd.as_raw_fd()) })
    }

    /// Whether the file system says that it transfers whole blocks directly (`STATX_DIOALIGN`, Linux 6.1).
    fn promises_direct(&self) -> bool {
        let mut data = std::mem::MaybeUninit::<libc::statx>::zeroed();
        let (fd, mask) = (self.fd.as_raw_fd(), libc::STATX_DIOALIGN);
        // SAFETY: (1) the descriptor is open and the path empty, as `AT_EMPTY_PATH` wants; (2) `data` is writable for a whole statx;
        // (3) it was zeroed and holds integers only.
        let data = unsafe {
            if libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, mask, data.as_mut_ptr()) != 0 {
                return false;
            }
            data.assume_init()
        };
        let fits = |align: u32| align != 0 && (BLOCK as u32).is_multiple_of(align);
        data.stx_mask & mask != 0 && fits(data.stx_dio_mem_align) && fits(data.stx_dio_offset_align)
    }

    fn probe(&self) -> io::Result<()> {
        let mut block = AlignedBuf::zeroed(BLOCK);
        self.write_at(0, &block)?;
        if self.read_at(0, &mut block)? != BLOCK {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file does not keep what is written",
            ));
        }
        self.set_len(0)
    }

    fn advise(&self, advice: libc::c_int, offset: u64, len: u64) {
        if let (Ok(at), Ok(len)) = (offset_arg(offset), offset_arg(len)) {
            // SAFETY: `posix_fadvise` only needs an open descriptor; it is a hint, so its answer is
            // of no use.
            unsafe { libc::posix_fadvise(self.fd.as_raw_fd(), at, len, advice) };
        }
    }
}

impl AsFd for DirectFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens a file without a name: `O_TMPFILE`, or a random name that is removed at once.
fn open_unlinked(dir: &Path, direct: bool) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_CLOEXEC | if direct { libc::O_DIRECT } else { 0 };
    match open(&c_path(dir)?, flags | libc::O_TMPFILE | libc::O_EXCL) {
        Ok(fd) => return Ok(fd),
        // What file systems and kernels without O_TMPFILE say.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) => {}
        Err(e) => return Err(e),
    }
    let mut last = io::Error::from_raw_os_error(libc::EEXIST);
    for _ in 0..NAME_TRIES {
        let path = dir.join(format!(".vswap-{:016x}", random_u64()));
        match open(&c_path(&path)?, flags | libc::O_CREAT | libc::O_EXCL) {
            Ok(fd) => {
                std::fs::remove_file(&path)?;
                return Ok(fd);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => last = e,
            Err(e) => {
                // Linux may have made the file before it refused O_DIRECT: leave nothing behind.
                if e.raw_os_error() == Some(libc::EINVAL) {
                    let _ = std::fs::remove_file(&path);
                }
                return Err(e);
            }
        }
    }
    Err(last)
}

pub(super) fn open(path: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    loop {
        // SAFETY: (1) `path` is NUL-terminated; (2) a mode is passed, as O_CREAT and O_TMPFILE need.
        let fd = unsafe { libc::open(path.as_ptr(), flags, 0o600 as libc::c_uint) };
        if fd >= 0 {
            // SAFETY: `fd` was just opened and nobody else knows it.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        let e = io::Error::last_os_error();
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
}

pub(super) fn refuses_direct(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

fn random_u64() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

fn check_aligned(offset: u64, slice: &[u8]) -> io::Result<()> {
    if is_block_multiple(offset)
        && is_block_multiple(slice.len() as u64)
        && is_block_multiple(slice.as_ptr().addr() as u64)
    {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "direct I/O needs block-aligned offset, length and memory",
    ))
}

fn offset_arg(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "offset or length past the largest file"))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `None`: interrupted, try again.
fn retry_or_count(n: libc::ssize_t) -> io::Result<Option<usize>> {
    match usize::try_from(n) {
        Ok(n) => Ok(Some(n)),
        Err(_) => {
            let e = io::Error::last_os_error();
            if e.kind() == io::ErrorKind::Interrupted { Ok(None) } else { Err(e) }
        }
    }
}
