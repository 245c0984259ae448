//! The clock: every block of every address space, in one ring that the evictors' hand goes round.
//!
//! Blocks that are gone (their space dropped them) are weeded out when the hand meets them, and before the ring grows: their memory
//! is held for as long as they are named here.

use crate::block::Block;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

#[derive(Debug, Default)]
struct Ring {
    entries: Vec<(u64, Weak<Block>)>,
    hand: usize,
}

impl Ring {
    /// Forgets the blocks that are gone.
    fn weed(&mut self) {
        let mut at = 0;
        let (hand, mut passed) = (self.hand, 0);
        self.entries.retain(|(_, block)| {
            let stays = block.strong_count() > 0;
            passed += usize::from(stays && at < hand);
            at += 1;
            stays
        });
        self.hand = passed;
    }
}

/// The ring of blocks.
#[derive(Debug, Default)]
pub struct Clock(Mutex<Ring>);

impl Clock {
    /// Adds blocks of the space `id` behind the hand, so that they are visited last.
    pub fn add(&self, id: u64, blocks: &[Arc<Block>]) {
        let mut ring = self.0.lock();
        if ring.entries.len() + blocks.len() > ring.entries.capacity() {
            ring.weed();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use vswap_core::GroupId;
    use vswap_engine::{Engine, EngineConfig};

    /// A parent whose children come and go without any eviction: the memory of their blocks was never given back.
    #[test]
    fn blocks_that_are_gone_are_forgotten_without_a_turn_of_the_hand() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let block = |base| Arc::new(Block::new(base, engine.owner_block(GroupId::ROOT).unwrap()));
        let clock = Clock::default();
        let stay: Vec<_> = (0..10).map(block).collect();
        clock.add(1, &stay);
        let next = || clock.next().map(|(_, block)| block.base).unwrap();
        assert_eq!([next(), next(), next()], [0, 1, 2]);
        for child in 0..1000 {
            let gone: Vec<_> = (100..110).map(block).collect();
            clock.add(2 + child, &gone);
        }
        assert!(clock.len() < 100, "{}", clock.len());
        // The hand is where it was: what was visited comes last.
        assert_eq!([next(), next(), next()], [3, 4, 5]);
    }
}
