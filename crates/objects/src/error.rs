//! What can go wrong with an object.

use std::ops::Range;
use vswap_core::ByteCount;
use vswap_engine::{EngineError, LoadError, StoreError, WritebackError};

/// An operation on an object failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// An object cannot be so long.
    #[error("an object has at most {most}: byte {end:#x} is beyond", most = ByteCount::new(crate::MAX_LEN))]
    TooLong {
        /// The byte behind the last one that was asked for, held at the greatest value.
        end: u64,
    },
    /// It is an object of a store.
    #[error("an object of a store has no snapshots")]
    Kept,
    /// A page of it cannot be read back. Writing all that it has, or punching it, makes that good.
    #[error("the page of byte {offset:#x} of the object cannot be read: {source}")]
    Unreadable {
        /// Of a write, the first byte that was not written; those before it were. Of a read, where the page begins.
        offset: u64,
        /// Why.
        source: LoadError,
    },
    /// There is no room for more.
    #[error("no room for byte {offset:#x} of the object: {source}")]
    NoRoom {
        /// The first byte that was not written; those before it were.
        offset: u64,
        /// What is full.
        source: StoreError,
    },
    /// Room could not be made: a tier failed.
    #[error("no room for byte {offset:#x} of the object, and none can be made: {source}")]
    Writeback {
        /// The first byte that was not written; those before it were.
        offset: u64,
        /// What the tier said.
        source: WritebackError,
    },
    /// There are no slots for more.
    #[error("no slot for byte {offset:#x} of the object: {source}")]
    NoSlot {
        /// The first byte that was not written; those before it were.
        offset: u64,
        /// Why.
        source: EngineError,
    },
}

/// Something that was missing could not be brought.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError<E> {
    /// Whoever was to bring it says this.
    #[error("what is missing could not be fetched: {0}")]
    Source(E),
    /// An asynchronous source brought too few bytes, or too many.
    #[error("{got} bytes were brought for byte {} up to {}", wanted.start, wanted.end)]
    Length {
        /// The bytes that were asked for.
        wanted: Range<u64>,
        /// How many came.
        got: usize,
    },
    /// It could not be read or kept.
    #[error(transparent)]
    Object(#[from] ObjectError),
}
