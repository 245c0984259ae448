//! Where chunks come from.

use std::fmt;
use std::io;
use vswap_sys::mapping::Mapping;

/// A giver of chunk memory. The memory goes back when it is dropped.
pub trait ChunkSource: fmt::Debug + Send + Sync {
    /// The memory of one chunk.
    type Memory: fmt::Debug + Send + Sync;

    /// Gives `bytes` bytes, which cost nothing until they are touched, if possible.
    ///
    /// # Errors
    /// When the system has no memory.
    fn get(&self, bytes: usize) -> io::Result<Self::Memory>;

    /// The bytes of a chunk.
    fn bytes(memory: &Self::Memory) -> &[u8];

    /// The bytes of a chunk, to write.
    fn bytes_mut(memory: &mut Self::Memory) -> &mut [u8];
}

/// Anonymous mappings: given back to the system one by one, without huge pages, which would hold memory that
/// the pool does not count.
#[derive(Debug, Default, Clone, Copy)]
pub struct MappedSource;

impl ChunkSource for MappedSource {
    type Memory = Mapping;

    fn get(&self, bytes: usize) -> io::Result<Mapping> {
        let memory = Mapping::anonymous(bytes)?;
        memory.huge_pages(false);
        Ok(memory)
    }

    fn bytes(memory: &Mapping) -> &[u8] {
        memory.as_slice()
    }

    fn bytes_mut(memory: &mut Mapping) -> &mut [u8] {
        memory.as_mut_slice()
    }
}

/// The heap: for models and for Miri, which cannot map.
#[derive(Debug, Default, Clone, Copy)]
pub struct HeapSource;

impl ChunkSource for HeapSource {
    type Memory = Box<[u8]>;

    fn get(&self, bytes: usize) -> io::Result<Box<[u8]>> {
        Ok(vec![0; bytes].into_boxed_slice())
    }

    fn bytes(memory: &Box<[u8]>) -> &[u8] {
        memory
    }

    fn bytes_mut(memory: &mut Box<[u8]>) -> &mut [u8] {
        memory
    }
}
