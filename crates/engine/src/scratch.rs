//! [`Scratch`]: one thread's buffers and contexts, made at its start so that moving a page allocates nothing.

use vswap_codec::{Compressor, Decompressor};
use vswap_segment::{AlignedBuf, BLOCK, MAX_ENTRY_BLOCKS};

/// One thread's codec contexts and its aligned buffer for reading. Made by [`Engine::scratch`](crate::Engine::scratch).
#[derive(Debug)]
pub struct Scratch {
    pub(crate) compressor: Compressor,
    pub(crate) decompressor: Decompressor,
    /// Room for the blocks of one entry.
    pub(crate) io: AlignedBuf,
}

impl Scratch {
    pub(crate) fn new(compressor: Compressor) -> Self {
        Self {
            compressor,
            decompressor: Decompressor::new(),
            io: AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK),
        }
    }

    /// Memory that it holds.
    pub fn memory(&self) -> usize {
        self.compressor.memory() + self.decompressor.memory() + self.io.len()
    }
}
