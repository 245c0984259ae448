//! [`Scratch`]: one thread's buffers and contexts, made at its start so that moving a page allocates nothing.

use vswap_codec::{Chooser, Decompressor};
use vswap_segment::{AlignedBuf, BLOCK};

/// Blocks that one read with neighbours takes at most: 32 pages that do not compress, with their headers, wherever they begin. 64 KiB
/// cost little more than 4, 128 less than one and a half times as much.
pub(crate) const RUN_BLOCKS: usize = 34;

/// The same where memory is dear.
pub(crate) const LEAN_RUN_BLOCKS: usize = 16;

/// One thread's codec contexts and its aligned buffer for reading. Made by
/// [`Engine::scratch`](crate::Engine::scratch).
#[derive(Debug)]
pub struct Scratch {
    pub(crate) compressor: Chooser,
    /// What is stored is to be read by whoever has no dictionary.
    pub(crate) plain: bool,
    pub(crate) decompressor: Decompressor,
    /// Room for the blocks of one entry, or of a run of them.
    pub(crate) io: AlignedBuf,
}

impl Scratch {
    pub(crate) fn new(compressor: Chooser, blocks: usize) -> Self {
        let io = AlignedBuf::zeroed(blocks * BLOCK);
        Self { compressor, plain: false, decompressor: Decompressor::new(), io }
    }

    /// Memory that it holds.
    pub fn memory(&self) -> usize {
        self.compressor.memory() + self.decompressor.memory() + self.io.len()
    }
}
