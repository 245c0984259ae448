//! The clock: every block of every address space, in one ring that the evictors' hand goes round.
//!
//! Blocks that are gone (their space dropped them) are weeded out when the hand meets them.

use crate::block::Block;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

#[derive(Debug, Default)]
struct Ring {
    entries: Vec<(u64, Weak<Block>)>,
    hand: usize,
}

/// The ring of blocks.
#[derive(Debug, Default)]
pub struct Clock(Mutex<Ring>);

impl Clock {
    /// Adds blocks of the space `id` behind the hand, so that they are visited last.
    pub fn add(&self, id: u64, blocks: &[Arc<Block>]) {
        let mut ring = self.0.lock();
        let hand = ring.hand;
        let fresh = blocks.iter().map(|block| (id, Arc::downgrade(block)));
        let count = blocks.len();
        if count <= 64 {
            // Splicing costs a move of the tail; big batches go to the end, where they are visited as late or later.
            ring.entries.splice(hand..hand, fresh);
            ring.hand += count;
        } else {
            ring.entries.extend(fresh);
        }
    }

    /// The next block and its space's id; `None` if there is no block at all.
    pub fn next(&self) -> Option<(u64, Arc<Block>)> {
        let mut ring = self.0.lock();
        loop {
            if ring.entries.is_empty() {
                return None;
            }
            if ring.hand >= ring.entries.len() {
                ring.hand = 0;
            }
            let at = ring.hand;
            if let Some(block) = ring.entries[at].1.upgrade() {
                ring.hand += 1;
                return Some((ring.entries[at].0, block));
            }
            ring.entries.swap_remove(at);
        }
    }

    /// Blocks in the ring.
    pub fn len(&self) -> usize {
        self.0.lock().entries.len()
    }
}
