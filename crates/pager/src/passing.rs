//! What passes by: pages that came because their program reads on go first, the oldest of them before the others ("drop behind").
//!
//! Which they are, the core says ([`vswap_core::insertion`]), and each block knows its own (`Heat::passing`); here is the order in which blocks were read
//! through. The last of them stay for a while, since a program may look back, and to be moved in few calls.

use crate::block::BLOCK_BYTES;
use crate::evict::{Among, Effort, Tools};
use crate::pager::Shared;
use crate::space::Space;
use parking_lot::Mutex;
use std::collections::VecDeque;
use vswap_core::{Bitmap512, Insertion};

/// The part of the limit that what was read through last may have for a while.
const STAYS: u64 = 32;

/// Programs and threads that may read on side by side, each with one entry for a block.
const SIDE_BY_SIDE: usize = 8;

/// Runs of pages of one block.
#[derive(Clone, Copy, Debug)]
struct Runs {
    /// Number of the space.
    space: u64,
    base: u64,
    pages: u64,
}

#[derive(Debug, Default)]
struct Queue {
    runs: VecDeque<Runs>,
    /// In all.
    pages: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    queue: Mutex<Queue>,
    pub insertion: Insertion,
}

impl Passing {
    /// Has room for an entry of each of so many blocks: nothing is allocated when a page comes in.
    pub fn reserve(&self, blocks: usize) {
        let runs = &mut self.queue.lock().runs;
        runs.reserve(blocks.saturating_sub(runs.len()));
    }

    /// `pages` of the block at `base` came last. `false` if there is no room to note it.
    fn add(&self, space: u64, base: u64, pages: u64) -> bool {
        let mut queue = self.queue.lock();
        let same = |runs: &&mut Runs| (runs.space, runs.base) == (space, base);
        let room = queue.runs.len() < queue.runs.capacity();
        match queue.runs.iter_mut().rev().take(SIDE_BY_SIDE).find(same) {
            Some(runs) => runs.pages += pages,
            None if room => queue.runs.push_back(Runs { space, base, pages }),
            None => return false,
        }
        queue.pages += pages;
        true
    }

    /// Takes what came first, if there are more than `stay` pages.
    fn next(&self, stay: u64) -> Option<Runs> {
        let mut queue = self.queue.lock();
        let runs = (queue.pages > stay).then(|| queue.runs.pop_front()).flatten()?;
        queue.pages -= runs.pages;
        Some(runs)
    }

    /// Puts back what could not be moved yet.
    fn put_back(&self, runs: Runs) {
        let mut queue = self.queue.lock();
        if queue.runs.len() < queue.runs.capacity() {
            queue.runs.push_back(runs);
            queue.pages += runs.pages;
        }
    }
}

impl Shared {
    /// Whether `pages` of the block at `base`, which came because the program reads on, are to pass by.
    pub(crate) fn passes_by(&self, space: &Space, base: u64, pages: &Bitmap512) -> bool {
        let block = (base / BLOCK_BYTES) ^ space.id.rotate_right(20);
        !self.passing.insertion.keeps(block, self.terms.now())
            && self.passing.add(space.id, base, pages.count() as u64)
    }

    /// Moves out one block's worth of what passes by, but for the last of it. `false` if there is no more, or nothing of it can be moved now.
    pub(crate) fn drop_behind(&self, tools: &mut Tools) -> bool {
        let tries = self.passing.queue.lock().runs.len();
        for _ in 0..tries {
            let Some(runs) = self.passing.next(self.budget.limit() / STAYS) else { return false };
            let Some(space) = self.space(runs.space) else { continue };
            let Some(block) = space.block(runs.base) else { continue };
            let passing = || {
                let state = block.state.lock();
                ((state.heat.passing() & state.resident).count() as u64, state.window.is_some())
            };
            match passing() {
                (0, _) => continue,
                (pages, true) => {
                    self.passing.put_back(Runs { pages, ..runs });
                    continue;
                }
                _ => {}
            }
            // What cannot be moved now is left to the hand.
            if self.evict_from(&space, &block, Effort::Any, (self.batch(), Among::Passing), tools) {
                let (pages, _) = passing();
                if pages > 0 {
                    self.passing.put_back(Runs { pages, ..runs });
                }
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{Passing, Runs};

    fn take(passing: &Passing, stay: u64) -> Option<(u64, u64, u64)> {
        passing.next(stay).map(|Runs { space, base, pages }| (space, base, pages))
    }

    #[test]
    fn what_came_first_goes_first_and_the_last_of_it_stays() {
        let passing = Passing::default();
        assert!(!passing.add(1, 0, 32), "there is no room to note it");
        passing.reserve(3);
        // Two that read side by side.
        for (space, base) in [(1, 0), (2, 0), (1, 0), (2, 0), (1, 4096)] {
            assert!(passing.add(space, base, 32));
        }
        assert!(passing.queue.lock().runs.len() == 3);
        assert_eq!(take(&passing, 160), None);
        assert_eq!(take(&passing, 159), Some((1, 0, 64)));
        assert_eq!(take(&passing, 95), Some((2, 0, 64)));
        passing.put_back(Runs { space: 2, base: 0, pages: 8 });
        assert_eq!(take(&passing, 40), None);
        assert_eq!([take(&passing, 0), take(&passing, 0)], [Some((1, 4096, 32)), Some((2, 0, 8))]);
        assert_eq!(take(&passing, 0), None);
        assert_eq!(passing.queue.lock().pages, 0);
    }

    #[test]
    fn nothing_is_allocated_when_pages_come_in() {
        let passing = Passing::default();
        passing.reserve(4);
        let room = passing.queue.lock().runs.capacity();
        for base in 0..1000 {
            passing.add(1, base, 1);
        }
        assert_eq!(passing.queue.lock().runs.capacity(), room);
        passing.reserve(room + 10);
        assert!(passing.queue.lock().runs.capacity() >= room + 10);
    }
}
