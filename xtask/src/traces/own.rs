//! vswap's order for residents, which sees faults alone: the core's [`Heat`] and [`Terms`] as the pager uses them, on blocks of 512
//! pages, with what is staged to be taken back, and room kept free. One evictor, which is done before the next touch.

use std::collections::VecDeque;

use vswap_core::trail::READAHEAD;
use vswap_core::{Back, Bitmap512, Heat, Insertion, PAGES_PER_CLUSTER, PageIndex, Terms, Trail};

use super::peers::Order;

struct Block {
    heat: Heat,
    resident: Bitmap512,
    staged: Bitmap512,
    /// Moved out at some time, and not come back yet.
    out: Bitmap512,
    trail: Trail,
    /// Pages that came to pass by since it was queued for that; 0: it is not.
    queued: usize,
}

/// How hard the evictor looks (`pager/src/evict.rs`).
#[derive(Clone, Copy, PartialEq)]
enum Effort {
    Plenty,
    Any,
    Forced,
}

pub struct Own {
    blocks: Vec<Block>,
    terms: Terms,
    limit: usize,
    charged: usize,
    staged: VecDeque<usize>,
    staged_pages: usize,
    evicted: u64,
    hand: usize,
    insertion: Insertion,
    passing: VecDeque<usize>,
    passing_pages: usize,
}

impl Own {
    pub fn new(limit: usize, pages: u32) -> Own {
        let cold = || Block {
            heat: Heat::COLD,
            resident: Bitmap512::EMPTY,
            staged: Bitmap512::EMPTY,
            out: Bitmap512::EMPTY,
            trail: Trail::default(),
            queued: 0,
        };
        Own {
            blocks: (0..(pages as usize).div_ceil(PAGES_PER_CLUSTER)).map(|_| cold()).collect(),
            terms: Terms::default(),
            limit,
            charged: 0,
            staged: VecDeque::new(),
            staged_pages: 0,
            evicted: 0,
            hand: 0,
            insertion: Insertion::default(),
            passing: VecDeque::new(),
            passing_pages: 0,
        }
    }

    /// As the budget's.
    fn reserve(&self) -> usize {
        (self.limit / 64).clamp(32, 1024)
    }

    fn make_room(&mut self) {
        if self.limit - self.charged >= self.reserve() / 2 {
            return;
        }
        while self.limit - self.charged < self.reserve() {
            if self.drop_behind() {
                continue;
            }
            let moved = [Effort::Plenty, Effort::Any, Effort::Any, Effort::Forced]
                .into_iter()
                .any(|effort| self.evict_some(effort) || self.write_down());
            assert!(moved, "nothing to move out of {} pages", self.charged);
        }
    }

    /// As the pager's, but for all of a block at once: what was read through last stays for a while.
    fn drop_behind(&mut self) -> bool {
        for _ in 0..self.passing.len() {
            if self.passing_pages <= self.limit / 32 {
                break;
            }
            let at = self.passing.pop_front().expect("as many");
            let block = &mut self.blocks[at];
            if !block.staged.is_empty() {
                self.passing.push_back(at);
                continue;
            }
            self.passing_pages -= std::mem::take(&mut block.queued);
            let victims = block.heat.passing() & block.resident;
            if !victims.is_empty() {
                self.go(at, victims);
                return true;
            }
        }
        false
    }

    fn go(&mut self, at: usize, victims: Bitmap512) {
        let block = &mut self.blocks[at];
        block.resident = block.resident.and_not(&victims);
        block.staged = victims;
        self.evicted += victims.count() as u64;
        self.staged_pages += victims.count();
        self.staged.push_back(at);
        while self.staged_pages > self.limit / 32 {
            self.write_down();
        }
    }

    fn evict_some(&mut self, effort: Effort) -> bool {
        let batch = self.reserve().clamp(32, 512);
        let least = if effort == Effort::Plenty { 16 } else { 1 };
        for _ in 0..self.blocks.len() {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.blocks.len();
            let block = &mut self.blocks[at];
            if !block.staged.is_empty() {
                continue;
            }
            let victims = match effort {
                Effort::Forced => block.resident.lowest(batch),
                _ => block.heat.choose(block.resident, &Bitmap512::FULL, batch),
            };
            if victims.count() < least {
                continue;
            }
            self.go(at, victims);
            return true;
        }
        false
    }

    fn write_down(&mut self) -> bool {
        let Some(at) = self.staged.pop_front() else { return false };
        self.terms.advance(self.evicted, self.charged as u64);
        let block = &mut self.blocks[at];
        let gone = std::mem::take(&mut block.staged);
        let now = self.terms.now();
        self.insertion.went(block.heat.go(gone, now), now);
        block.out |= gone;
        self.staged_pages -= gone.count();
        self.charged -= gone.count();
        // A block of which all was taken back leaves an empty window.
        true
    }
}

impl Order for Own {
    fn hits(&mut self, page: u32) -> bool {
        let at = page as usize / PAGES_PER_CLUSTER;
        let page = PageIndex::new(page as usize % PAGES_PER_CLUSTER).expect("below 512");
        let block = &mut self.blocks[at];
        if block.resident.get(page) {
            return true;
        }
        let back = block.staged.get(page);
        if back {
            block.staged.clear(page);
            self.staged_pages -= 1;
        } else {
            self.make_room();
            self.charged += 1;
        }
        let block = &mut self.blocks[at];
        let (now, one) = (self.terms.now(), Bitmap512::single(page));
        let reach = block.trail.reach(page, &block.resident, READAHEAD);
        block.resident.set(page);
        block.heat.install(one);
        if back {
            block.heat.come_back(page, Back::Soon);
        } else if block.out.get(page) {
            block.trail.went(page.get()..page.get() + 1, reach);
            block.out.clear(page);
            let since = block.heat.since_gone(page, now);
            let (soon, late) = block.heat.returned(one, now);
            self.insertion.came_back(soon, late, now);
            block.heat.come_back(page, since);
            if reach.reads_on() && !self.insertion.keeps(at as u64, now) {
                block.heat.pass_by(one);
                if block.queued == 0 {
                    self.passing.push_back(at);
                }
                block.queued += 1;
                self.passing_pages += 1;
            }
        }
        back
    }
}
