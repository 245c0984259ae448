//! A chunk: one run of memory cut into entries of one size class.

use crate::header::{EntryHeader, HeaderWord};
use crate::source::ChunkSource;
use vswap_core::PAGE_SIZE;

/// Entries of one class in one piece of memory, with their headers beside.
#[derive(Debug)]
pub(crate) struct Chunk<S: ChunkSource> {
    pub(crate) class: u8,
    /// Tells this life of the chunk's number from others.
    pub(crate) serial: u32,
    size: usize,
    used: u16,
    /// Entries handed out at least once; those past it were never touched.
    high: u16,
    free: Option<u16>,
    /// The memory was a chunk before: all of it was touched.
    reused: bool,
    headers: Box<[HeaderWord]>,
    memory: S::Memory,
}

impl<S: ChunkSource> Chunk<S> {
    pub(crate) fn new(class: u8, serial: u32, size: usize, memory: S::Memory, reused: bool) -> Self {
        let capacity = S::bytes(&memory).len() / size;
        let headers = vec![HeaderWord::free(None); capacity].into_boxed_slice();
        Self { class, serial, size, used: 0, high: 0, free: None, reused, headers, memory }
    }

    pub(crate) fn into_memory(self) -> S::Memory {
        self.memory
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        usize::from(self.used) == self.headers.len()
    }

    /// Entries that it can hold.
    pub(crate) fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Entries that could still be put in.
    pub(crate) fn room(&self) -> usize {
        self.headers.len() - usize::from(self.used)
    }

    /// Memory that is really held: touched pages, and the headers.
    pub(crate) fn held(&self) -> usize {
        self.touched() + self.headers.len() * size_of::<HeaderWord>() + size_of::<Self>()
    }

    fn touched(&self) -> usize {
        let bytes = if self.reused { self.headers.len() } else { usize::from(self.high) } * self.size;
        bytes.next_multiple_of(PAGE_SIZE)
    }

    /// The header of an entry in use.
    pub(crate) fn header(&self, index: usize) -> Option<EntryHeader> {
        self.headers.get(index)?.entry()
    }

    /// The bytes of an entry.
    pub(crate) fn payload(&self, index: usize, length: usize) -> &[u8] {
        &S::bytes(&self.memory)[index * self.size..][..length]
    }

    /// Puts an entry in; the caller saw that the chunk is not full. Gives its index.
    pub(crate) fn insert(&mut self, header: EntryHeader, bytes: &[u8]) -> usize {
        let index = match self.free {
            Some(index) => {
                self.free = self.headers[usize::from(index)].next_free();
                index
            }
            None => {
                self.high += 1;
                self.high - 1
            }
        };
        let index = usize::from(index);
        self.used += 1;
        self.headers[index] = header.to_word();
        S::bytes_mut(&mut self.memory)[index * self.size..][..bytes.len()].copy_from_slice(bytes);
        index
    }

    /// Takes an entry out; the caller saw that it is in use.
    pub(crate) fn remove(&mut self, index: usize) {
        self.headers[index] = HeaderWord::free(self.free);
        self.free = Some(index as u16);
        self.used -= 1;
    }

    /// The entries in use with their indices.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (usize, EntryHeader)> {
        let handed_out = &self.headers[..usize::from(self.high)];
        handed_out.iter().enumerate().filter_map(|(index, word)| Some((index, word.entry()?)))
    }
}
