//! What keeps a directory from being shown.

use std::io;
use std::path::{Path, PathBuf};
use vswap_objects::NamedError;

/// A mount failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// A path cannot be used.
    #[error("cannot {act} {}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        act: &'static str,
        /// The system's answer.
        error: io::Error,
    },
    /// The source cannot be asked, and nothing of it is in the store.
    #[error("{} does not answer ({fault}), and nothing of it is in the store", path.display())]
    NoSource {
        /// The source.
        path: PathBuf,
        /// Its answer.
        fault: rustix::io::Errno,
    },
    /// One of the two is in the other.
    #[error("{} and {} are to lie apart: neither may be in the other", directory.display(), point.display())]
    Within {
        /// The source.
        directory: PathBuf,
        /// The mount point.
        point: PathBuf,
    },
    /// The store would be hidden.
    #[error("the store {} is within {}: it would be hidden by the mount", store.display(), point.display())]
    Hidden {
        /// The store's directory.
        store: PathBuf,
        /// The mount point.
        point: PathBuf,
    },
    /// The kernel refuses.
    #[error("cannot mount on {}: {}", point.display(), said(error))]
    Mount {
        /// The mount point.
        point: PathBuf,
        /// Its answer, or that of `fusermount3`.
        error: io::Error,
    },
    /// It ended otherwise than by being unmounted.
    #[error("serving {} ended: {error}", point.display())]
    Serve {
        /// The mount point.
        point: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] NamedError),
}

impl MountError {
    pub(crate) fn io(path: &Path, act: &'static str, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), act, error }
    }
}

/// With the remedy, if there is one.
fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{error}: is there /dev/fuse, and fusermount3 (package fuse3) for who is not root?")
        }
        io::ErrorKind::PermissionDenied if error.raw_os_error().is_some() => {
            format!("{error}: who is not root needs access to /dev/fuse (mode 0666) and to the directory")
        }
        _ => error.to_string().trim().to_owned(),
    }
}
