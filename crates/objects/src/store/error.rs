//! What can go wrong with a store of named objects.

use crate::error::{FetchError, ObjectError};
use std::path::{Path, PathBuf};
use vswap_core::ByteCount;
use vswap_engine::{DurableError, EngineError, WritebackError};
use vswap_segment::{AreaError, SegmentId};

/// An operation on a store, or on an object of it, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamedError {
    /// A key is too long.
    #[error("a key of {len} bytes: {most} are the most")]
    KeyTooLong {
        /// Bytes that it has.
        len: usize,
        /// The most.
        most: usize,
    },
    /// What an owner wants to keep beside an object is too long.
    #[error("{len} bytes of auxiliary data: {most} are the most")]
    AuxTooLong {
        /// Bytes that it has.
        len: usize,
        /// The most.
        most: usize,
    },
    /// A newer version is there.
    #[error("version {wanted} is wanted of an object that has version {has}: what is older is gone")]
    Older {
        /// What the caller wants.
        wanted: u64,
        /// What the store has.
        has: u64,
    },
    /// It has been removed or replaced by a newer version.
    #[error("the object was removed, or replaced by a newer version")]
    Gone,
    /// The tier is full of what is wanted.
    #[error("the store is full: remove something, or make a larger one")]
    Full,
    /// More would be pinned than may be.
    #[error("{pinned} are pinned, and {most} may be: unpin something, or allow more")]
    PinnedFull {
        /// What is.
        pinned: ByteCount,
        /// The most.
        most: ByteCount,
    },
    /// A sync failed: what was written before it may be on the tier or not.
    #[error(
        "the tier could not say that it has what was written: open the store anew, which finds it as it was at the last commit"
    )]
    Unsure,
    /// A fault of this program: a segment was listed whose entries are not known.
    #[error("the entries of {segment} are not known")]
    NoEntries {
        /// Which.
        segment: SegmentId,
    },
    /// There are as many volumes as can be.
    #[error("no other volume can be made: 2^32 have been")]
    TooManyVolumes,
    /// The directory cannot be used.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        act: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A store that cannot be opened.
    #[error("the store in {}: {source}", dir.display())]
    Store {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        source: Box<NamedError>,
    },
    /// The index is of another version.
    #[error(
        "the store's index is of version {found}, this program knows {known}: use the program that made it, or make a new store"
    )]
    Version {
        /// Its version.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// It is not the index of a store.
    #[error("the index is not that of a store: it lacks {what}")]
    NoStore {
        /// What is not there.
        what: &'static str,
    },
    /// The file of segments is another store's.
    #[error("the file of segments is not the one that the index is of: put back the one that is")]
    OtherFile,
    /// A line of the index cannot be read.
    #[error("line {key} of the index's table \"{table}\" is damaged")]
    Record {
        /// The table.
        table: &'static str,
        /// The line.
        key: u64,
    },
    /// Slots are nobody's, or two objects'.
    #[error("the store's index does not fit together: {what}")]
    Slots {
        /// What.
        what: String,
    },
    /// The index failed. After an error of its device it does nothing more until the store is opened anew.
    #[error("the store's index: {0}")]
    Index(#[from] redb::Error),
    /// The file of segments cannot be used.
    #[error(transparent)]
    Area(#[from] AreaError),
    /// The engine cannot be made.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What a former run has left cannot be found, or what is to be kept not be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A write failed.
    #[error(transparent)]
    Write(#[from] WritebackError),
    /// The object itself.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

impl NamedError {
    /// Of the store in this directory, where what went wrong does not name it.
    pub(super) fn within(self, dir: &Path) -> Self {
        match self {
            Self::Io { .. } | Self::Area(_) | Self::Store { .. } => self,
            other => Self::Store { dir: dir.to_owned(), source: Box::new(other) },
        }
    }
}

/// The same for what is fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamedFetchError<E> {
    /// What the source says, or the object.
    #[error(transparent)]
    Fetch(#[from] FetchError<E>),
    /// No room could be made.
    #[error(transparent)]
    Store(#[from] NamedError),
}

impl<E> From<ObjectError> for NamedFetchError<E> {
    fn from(error: ObjectError) -> Self {
        Self::Fetch(error.into())
    }
}

macro_rules! index_errors {
    ($($kind:ident),*) => {$(
        impl From<redb::$kind> for NamedError {
            fn from(error: redb::$kind) -> Self {
                Self::Index(error.into())
            }
        }
    )*};
}

index_errors!(DatabaseError, TransactionError, TableError, StorageError, CommitError);
