//! What an engine is made from.

use std::path::PathBuf;
use vswap_core::ByteCount;

/// How pages are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum CodecChoice {
    /// zstd; with a disk below, lz4 while zstd saves less than a tenth of a page on those stored last.
    #[default]
    Auto,
    /// lz4: fastest.
    Lz4,
    /// zstd at its fast level: holds about half as many pages again.
    Zstd,
}

/// Where segments go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskConfig {
    /// The directory in which the (unlinked) segment file is made.
    pub dir: PathBuf,
    /// The most bytes that the file may take.
    pub capacity: ByteCount,
}

/// What an engine is made from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EngineConfig {
    /// How pages are compressed.
    pub codec: CodecChoice,
    /// Where segments go; `None` keeps all in memory.
    pub disk: Option<DiskConfig>,
    /// The most memory that the pool may hold; `None` is no limit (the caller watches
    /// [`Engine::pool_bytes`](crate::Engine::pool_bytes) and calls writeback).
    pub pool_limit: Option<ByteCount>,
    /// Whether to save on buffers, for limits so small that they count: one of a segment (2 MiB) instead of three, so
    /// nothing is packed while a segment is written; no dictionary is trained, which takes 12 MiB for a moment; and pages are
    /// compressed smaller, if slower.
    pub lean: bool,
}
