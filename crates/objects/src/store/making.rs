//! Making a store's directory, so that what a crash leaves of that is made anew.
//!
//! The index has another name until the store is whole, one that nobody else gives a file. So a directory has a store if it has an index; and one that has an index of that other name, and no index, has
//! what was left of one that was never whole. A file of segments that is none, and has ever been written to, is somebody's and stays.

use super::{DATA, INDEX};
use crate::store::error::NamedError;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use vswap_segment::{Area, AreaError};

const UNFINISHED: &str = ".vswap-index.unfinished";

/// A store that is being made. Nobody else makes one in the directory.
pub(super) struct Making {
    dir: PathBuf,
    /// Locked.
    dir_file: File,
}

impl Making {
    /// Makes the directory, and removes what was left of a store that was never whole.
    pub(super) fn begin(dir: &Path) -> Result<Self, NamedError> {
        let io = |act| move |source| NamedError::Io { path: dir.to_owned(), act, source };
        fs::create_dir_all(dir).map_err(io("make the directory"))?;
        let lock = File::open(dir).map_err(io("open"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io("make a store in")(io::Error::other("somebody else is making one there")));
            }
            Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
        }
        let making = Self { dir: dir.to_owned(), dir_file: lock };
        let (index, left, data) = (dir.join(INDEX), dir.join(UNFINISHED), dir.join(DATA));
        let exists = |path| NamedError::Io { path, act: "make", source: io::ErrorKind::AlreadyExists.into() };
        if index.exists() {
            return Err(exists(index));
        }
        if left.exists() && (!data.exists() || is_ours(&data)) {
            for path in [&data, &left] {
                match fs::remove_file(path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(NamedError::Io { path: path.clone(), act: "remove", source });
                    }
                    _ => {}
                }
            }
        }
        // Somebody's.
        if data.exists() {
            return Err(exists(data));
        }
        // There before the other file is, also after a power cut.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(UNFINISHED));
        made.map_err(|source| NamedError::Io { path: dir.join(UNFINISHED), act: "make", source })?;
        making.dir_file.sync_all().map_err(io("sync"))?;
        Ok(making)
    }

    /// The index's file, empty. As the other file: keys are as private as bytes.
    pub(super) fn index(&self) -> Result<File, NamedError> {
        let path = self.dir.join(UNFINISHED);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        opened.map_err(|source| NamedError::Io { path, act: "open", source })
    }

    /// The store is whole.
    pub(super) fn done(self) -> Result<(), NamedError> {
        let path = self.dir.join(INDEX);
        fs::rename(self.dir.join(UNFINISHED), &path).map_err(|source| NamedError::Io {
            path,
            act: "name",
            source,
        })
    }
}

/// Whether a file is one of segments, or was about to be made one: then nothing of it was ever written.
fn is_ours(path: &Path) -> bool {
    match Area::open_durable(path) {
        Ok(_) => true,
        Err(AreaError::Named(_)) => false,
        Err(_) => fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.blocks() == 0),
    }
}
