//! Compaction: the entries of sparse chunks of the pool move together, so that whole chunks go back to the
//! system.
//!
//! Each entry moves as in writeback, with the pool as the destination and a batch number of its own, one
//! entry at a time: the word is marked `Moving(h, BATCH)`, the bytes are copied to a new entry, and the word
//! is flipped to it if it still bears the mark.
//!
//! Lock order: the compaction's own, then class, then chunk.

use crate::engine::Engine;
use crate::writeback::{moving_from, turn_back};
use vswap_core::{Backing, MoveId, Moving, PAGE_SIZE, PoolHandle, SlotId};

/// The batch number that compaction has for itself; writeback uses those below.
pub(crate) const BATCH: u8 = (1 << MoveId::BITS) - 1;

impl Engine {
    /// Empties up to `most` chunks of the pool that are at most so many quarters full (what is moved costs time, at three quarters
    /// three times what a chunk gives back). Gives how many entries were moved; 0 when nothing is
    /// sparse enough. Some hundred microseconds a chunk; does not wait for anything.
    pub fn compact(&self, most: usize, quarters: usize) -> usize {
        let Some(_alone) = self.compacting.try_lock() else { return 0 };
        let mut buffer = [0; PAGE_SIZE];
        let (mut moved, mut chunks) = (0, 0);
        for class in 0..self.pool.classes().count() {
            while chunks < most
                && let Some(sparse) = self.pool.take_sparse(class, quarters)
            {
                chunks += 1;
                let before = moved;
                for (handle, header) in &sparse.entries {
                    moved += usize::from(self.move_entry(header.slot, *handle, &mut buffer));
                }
                self.pool.put_back(sparse);
                if moved == before {
                    break;
                }
            }
        }
        moved
    }

    /// Moves one entry within the pool. False if its slot changed, or there is no room.
    fn move_entry(&self, slot: SlotId, source: PoolHandle, buffer: &mut [u8; PAGE_SIZE]) -> bool {
        let batch = MoveId::new(BATCH).expect("five bits");
        let Some(cell) = self.space.slot(slot) else { return false };
        let moving = Backing::Moving(Moving { source, batch });
        let marked =
            cell.update(|word| (word.backing() == Backing::Pool(source)).then(|| word.moved_to(moving)));
        if marked.is_err() {
            return false;
        }
        let copied = self.pool.read(source, slot, |tag, bytes| {
            buffer[..bytes.len()].copy_from_slice(bytes);
            (tag, bytes.len())
        });
        // Gone: stored or released since, and the mark with it.
        let Some((tag, length)) = copied else { return false };
        let Ok(target) = self.pool.insert(slot, tag, &buffer[..length]) else {
            turn_back(cell, batch);
            return false;
        };
        let flipped =
            cell.update(|word| moving_from(word, batch).map(|_| word.moved_to(Backing::Pool(target))));
        // Of the two entries one is of no use now.
        self.pool.remove(if flipped.is_ok() { source } else { target }, slot);
        flipped.is_ok()
    }
}
