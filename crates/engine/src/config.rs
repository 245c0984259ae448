//! What an engine is made from.

use std::path::PathBuf;
use vswap_core::ByteCount;
use vswap_segment::TierKind;

/// How pages are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum CodecChoice {
    /// zstd; with a tier below, lz4 while zstd saves less than a tenth of a page on those stored last.
    #[default]
    Auto,
    /// lz4: fastest.
    Lz4,
    /// zstd at its fast level: holds about half as many pages again.
    Zstd,
}

/// Whether pages are encrypted before they leave memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encryption {
    /// With a random key that is kept in locked memory and nowhere else.
    #[default]
    On,
    /// Not: whoever can read the disk can read the pages.
    Off,
}

/// A place for segments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TierConfig {
    /// What it is.
    pub kind: TierKind,
    /// The directory in which the (unlinked) segment file is made, or the file or device that is used. Of no use for a ghost.
    pub path: PathBuf,
    /// The most bytes that it may take. Without it, all of a file or device, and in a directory what the file system can spare at any moment, and for a ghost what memory
    /// there is. A file
    /// that is not there is made that long.
    pub size: Option<ByteCount>,
    /// The tier of the highest priority that has room is written first; those of one priority take turns.
    pub priority: i16,
    /// What is on a file or device is overwritten, whoever's it is.
    pub force: bool,
}

impl TierConfig {
    /// A tier in a directory, of priority 0.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, size: ByteCount) -> Self {
        Self { size: Some(size), ..Self::of(TierKind::Directory, dir) }
    }

    /// A tier of priority 0 that may take all there is.
    #[must_use]
    pub fn of(kind: TierKind, path: impl Into<PathBuf>) -> Self {
        Self { kind, path: path.into(), size: None, priority: 0, force: false }
    }
}

/// What an engine is made from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EngineConfig {
    /// How pages are compressed.
    pub codec: CodecChoice,
    /// Where segments go at first; without any, all stays in memory. See [`Engine::add_tier`](crate::Engine::add_tier).
    pub tiers: Vec<TierConfig>,
    /// Whether what goes there is encrypted. One answer for all tiers, those of memory too: a segment moves to another as it is.
    pub encryption: Encryption,
    /// The most memory that the pool may hold; `None` is no limit (the caller watches
    /// [`Engine::pool_bytes`](crate::Engine::pool_bytes) and calls writeback).
    pub pool_limit: Option<ByteCount>,
    /// Whether to save on buffers, for limits so small that they count: one of a segment (2 MiB) instead of three, so
    /// nothing is packed while a segment is written; no dictionary is trained, which takes 12 MiB for a moment; and pages are
    /// compressed smaller, if slower.
    pub lean: bool,
}
