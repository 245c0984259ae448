//! The table of chunks: grows without moving, so that a chunk is found without a lock.
//!
//! Segment `k` holds `64 * 2^k` cells, so 19 of them hold all that a handle can name, and a small pool has a
//! small table.

use crate::chunk::Chunk;
use crate::source::ChunkSource;
use parking_lot::{Mutex, RwLock};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use vswap_core::sparse::Located;
use vswap_core::{PoolHandle, Sparse};

/// A place for a chunk. Its lock is the chunk's lock.
pub(crate) type Cell<S> = RwLock<Option<Box<Chunk<S>>>>;

const FIRST: usize = 64;
const SEGMENTS: usize = (PoolHandle::CHUNKS / FIRST).trailing_zeros() as usize + 1;

#[derive(Debug)]
pub(crate) struct ChunkTable<S: ChunkSource> {
    segments: [OnceLock<Box<[Cell<S>]>>; SEGMENTS],
    /// Cells made so far: a count for the books, so relaxed.
    made: AtomicUsize,
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    next: usize,
    returned: Vec<u32>,
}

const LAYOUT: Sparse = Sparse::new(FIRST.trailing_zeros());

impl<S: ChunkSource> ChunkTable<S> {
    pub(crate) fn new() -> Self {
        let segments = [const { OnceLock::new() }; SEGMENTS];
        Self { segments, made: AtomicUsize::new(0), numbers: Mutex::default() }
    }

    /// The cell of a chunk's number, if it was ever handed out.
    pub(crate) fn cell(&self, number: usize) -> Option<&Cell<S>> {
        let Located { segment, at } = LAYOUT.locate(u32::try_from(number).ok()?);
        self.segments.get(segment)?.get()?.get(at)
    }

    /// A number that no chunk has, with its cell; `None` when all are in use.
    pub(crate) fn take_number(&self) -> Option<(u32, &Cell<S>)> {
        let number = {
            let mut numbers = self.numbers.lock();
            match numbers.returned.pop() {
                Some(number) => number,
                None if numbers.next == PoolHandle::CHUNKS => return None,
                None => {
                    numbers.next += 1;
                    (numbers.next - 1) as u32
                }
            }
        };
        let Located { segment, at } = LAYOUT.locate(number);
        let cells = self.segments[segment].get_or_init(|| {
            self.made.fetch_add(FIRST << segment, Ordering::Relaxed);
            (0..FIRST << segment).map(|_| RwLock::new(None)).collect()
        });
        Some((number, &cells[at]))
    }

    /// Gives a number back; its cell is empty.
    pub(crate) fn return_number(&self, number: u32) {
        self.numbers.lock().returned.push(number);
    }

    /// Every cell that may hold a chunk, with its number.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (usize, &Cell<S>)> {
        let next = self.numbers.lock().next;
        (0..next).filter_map(|number| Some((number, self.cell(number)?)))
    }

    /// Memory of the table itself.
    pub(crate) fn memory(&self) -> usize {
        self.made.load(Ordering::Relaxed) * size_of::<Cell<S>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_segment() {
        assert!(LAYOUT.locate(PoolHandle::CHUNKS as u32 - 1).segment < SEGMENTS);
    }
}
