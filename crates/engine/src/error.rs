//! What can go wrong, by family of operations.

use std::path::PathBuf;
use vswap_core::{ByteCount, SlotId};

/// An engine could not be made, or could not give another cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Every cluster is in use.
    #[error("the virtual swap space is full: all {clusters} clusters of 2 MiB are in use")]
    SpaceFull {
        /// How many there are.
        clusters: u64,
    },
    /// The system gave no memory for slots.
    #[error("no memory for another {wanted} of slots: {source}; lower --memory or free memory")]
    NoMemory {
        /// What was asked for.
        wanted: ByteCount,
        /// What the system said.
        source: std::io::Error,
    },
    /// The segment file could not be made.
    #[error("segment file in {dir}: {source}; choose another directory with --disk-path, or --disk none", dir = dir.display())]
    Disk {
        /// The directory of the file.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A page could not be read back. Its bytes are not to be trusted; the reader must not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes that came back are not those that were written.
    #[error("{slot}: checksum mismatch at byte {file_offset} of the segment file: the page is lost")]
    Corrupt {
        /// The page.
        slot: SlotId,
        /// Where in the segment file its entry is.
        file_offset: u64,
    },
    /// The device did not give the bytes.
    #[error("{slot}: reading byte {file_offset} of the segment file: {source}")]
    Io {
        /// The page.
        slot: SlotId,
        /// Where in the segment file its entry is.
        file_offset: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// An earlier load found the bytes lost.
    #[error("{slot}: the page was found lost before")]
    Poisoned {
        /// The page.
        slot: SlotId,
    },
    /// A pool entry did not decompress.
    #[error("{slot}: its compressed bytes in memory are damaged: the page is lost")]
    Damaged {
        /// The page.
        slot: SlotId,
    },
}

/// A page could not be stored; it stays with its owner.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The pool is at its limit, or the system gave it no memory.
    #[error("{slot}: no room for {length} bytes in the pool, which holds {held}; write back first")]
    PoolFull {
        /// The page.
        slot: SlotId,
        /// Its compressed length.
        length: usize,
        /// What the pool holds now.
        held: ByteCount,
    },
}

/// Pages could not be written to the disk; they stay in the pool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WritebackError {
    /// The engine was made without a disk.
    #[error("writeback without a disk: this engine has none (--disk none)")]
    NoDisk,
    /// The write failed.
    #[error("writing a segment at byte {file_offset}: {source}; the pages stay in memory")]
    Io {
        /// Where in the segment file.
        file_offset: u64,
        /// What the system said.
        source: std::io::Error,
    },
}
