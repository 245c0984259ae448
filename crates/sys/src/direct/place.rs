//! Where the segment file may be: choice of a directory, refusal of memory file systems, free space.
//!
//! # Safety
//! `statfs` and `statvfs` on a C string of ours into a zeroed struct of ours.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Magic numbers of file systems whose files are memory (`linux/magic.h`).
const MEMORY_FILE_SYSTEMS: [(u32, &str); 3] =
    [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs"), (0x9584_58f6, "hugetlbfs")];

/// Why a directory cannot hold the segment file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The directory is on a file system that keeps its files in memory.
    #[error(
        "{} is on {kind}, which is memory: swapping to it would save nothing; name a directory on a disk (--disk-path)",
        dir.display()
    )]
    Memory {
        /// The refused directory.
        dir: PathBuf,
        /// The file system's name.
        kind: &'static str,
    },
    /// A call on the directory failed.
    #[error("cannot {act} {}: {source}; name a directory on a disk that you may write (--disk-path)", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What was tried.
        act: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// None of the default directories will do.
    #[error("no directory for the segment file: {}; name one with --disk-path, or use --disk none", reasons.join("; "))]
    NoDefault {
        /// Why each candidate was refused.
        reasons: Vec<String>,
    },
}

impl PlaceError {
    pub(crate) fn io(dir: &Path, act: &'static str, source: io::Error) -> Self {
        Self::Io { dir: dir.to_owned(), act, source }
    }
}

pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "path holds a NUL byte"))
}

/// The name of the memory file system that `dir` is on, or `None` on any other.
///
/// An overlay whose upper layer is a tmpfs shows itself as an overlay and is not seen through.
///
/// # Errors
/// If `dir` cannot be examined.
pub fn memory_file_system(dir: &Path) -> io::Result<Option<&'static str>> {
    let path = c_path(dir)?;
    let mut data = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: (1) `path` is NUL-terminated and lives through the call; (2) `data` is writable for a
    // whole statfs; (3) it was zeroed, and every bit pattern of its integer fields is valid.
    let data = unsafe {
        if libc::statfs(path.as_ptr(), data.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        data.assume_init()
    };
    let magic = data.f_type as u32; // the magics are 32-bit; libc widens them per target
    Ok(MEMORY_FILE_SYSTEMS.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name))
}

/// Bytes of the file system of `dir` that an ordinary user can still fill.
///
/// # Errors
/// If `dir` cannot be examined.
pub fn free_space(dir: &Path) -> io::Result<u64> {
    let data = statvfs(dir)?;
    Ok(data.f_bavail.saturating_mul(data.f_frsize))
}

/// Bytes of the file system of `dir`, used or not.
///
/// # Errors
/// If `dir` cannot be examined.
pub fn size(dir: &Path) -> io::Result<u64> {
    let data = statvfs(dir)?;
    Ok(data.f_blocks.saturating_mul(data.f_frsize))
}

fn statvfs(dir: &Path) -> io::Result<libc::statvfs> {
    let path = c_path(dir)?;
    let mut data = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: as in `memory_file_system`, for a statvfs.
    unsafe {
        if libc::statvfs(path.as_ptr(), data.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(data.assume_init())
    }
}

/// Refuses a directory that is on a memory file system or cannot be examined.
///
/// # Errors
/// [`PlaceError::Memory`] or [`PlaceError::Io`].
pub fn check(dir: &Path) -> Result<(), PlaceError> {
    let meta = std::fs::metadata(dir).map_err(|e| PlaceError::io(dir, "examine", e))?;
    if !meta.is_dir() {
        return Err(PlaceError::io(dir, "use", io::Error::from_raw_os_error(libc::ENOTDIR)));
    }
    match memory_file_system(dir) {
        Ok(None) => Ok(()),
        Ok(Some(kind)) => Err(PlaceError::Memory { dir: dir.to_owned(), kind }),
        Err(e) => Err(PlaceError::io(dir, "examine", e)),
    }
}

/// The first of `candidates` where an unlinked file can be made on something that is not memory.
///
/// # Errors
/// [`PlaceError::NoDefault`] with the reason for each.
pub fn first_usable<I: IntoIterator<Item = PathBuf>>(candidates: I) -> Result<PathBuf, PlaceError> {
    let mut reasons = Vec::new();
    for dir in candidates {
        match check(&dir).and_then(|()| super::DirectFile::create(&dir).map(drop)) {
            Ok(()) => return Ok(dir),
            Err(error) => reasons.push(match error {
                PlaceError::Memory { dir, kind } => format!("{} is on {kind}", dir.display()),
                PlaceError::Io { dir, act, source } => format!("cannot {act} {}: {source}", dir.display()),
                other => other.to_string(),
            }),
        }
    }
    Err(PlaceError::NoDefault { reasons })
}

/// `$TMPDIR` if it is set, absolute and on a disk, else `/var/tmp`.
///
/// # Errors
/// [`PlaceError::NoDefault`] when neither will do.
pub fn default_dir() -> Result<PathBuf, PlaceError> {
    let from_env = std::env::var_os("TMPDIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    first_usable(from_env.into_iter().chain([PathBuf::from("/var/tmp")]))
}

/// The greatest length that this process may give a file (`RLIMIT_FSIZE`); more would kill it by `SIGXFSZ`.
#[must_use]
pub fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is a live, writable rlimit. Failure leaves it as set above: no limit known.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    // Offsets are signed in the kernel.
    limit.rlim_cur.min(i64::MAX as u64)
}
