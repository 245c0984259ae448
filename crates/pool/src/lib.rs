//! The pool: encoded pages in memory, in size classes.
//!
//! - [`Pool`]: insert, read, remove by [`vswap_core::PoolHandle`].
//! - [`EntryHeader`]: 8 bytes beside each entry: slot (the reverse map), codec tag, length. It is all the
//!   metadata that an entry has; the links of the free list live in the headers of free entries.
//! - [`ChunkSource`]: where chunks come from; [`MappedSource`] maps anonymous memory and gives it back.
//!
//! # Invariants
//! - A chunk is one size class for its life; `used <= high <= capacity`, where `high` is how many entries
//!   were ever handed out. Memory is touched up to `high` only, so what the pool counts is what it really
//!   holds.
//! - An entry is read, written and freed under its chunk's lock: a reader that holds it (for the time of one
//!   decompression) cannot see it torn, freed or reused. A handle that is out of date is found out by the
//!   slot in the header.
//! - Reading allocates nothing.
//!
//! # Lock order
//! class, then chunk. A reader takes the chunk's alone, shared. [`Pool::remove`] never holds both unless it
//! gives an empty chunk back.
#![forbid(unsafe_code)]

mod chunk;
mod class;
mod header;
mod pool;
mod source;
mod table;

pub use class::ClassTable;
pub use header::{EntryHeader, EntryTag};
pub use pool::{Pool, PoolConfig, PoolError, PoolStats, SparseChunk};
pub use source::{ChunkSource, HeapSource, MappedSource};
