//! Fork: the child's half of an address space.
//!
//! The parent is held, so each page is resident or out, nothing in between. Resident pages are shared by the kernel (copy
//! on write) and counted once (see [`sharing`](crate::sharing)); out pages are shared by the engine, cluster by cluster,
//! by count. A fork drops write protection in the child, so what is clean or shared there is protected again before it runs.

use crate::block::{BlockState, PAGE_BYTES};
use crate::space::{Hold, Space, pages_of};
use std::io;
use std::ops::Range;
use vswap_core::{Bitmap512, PageIndex};

/// Times that the space is thawed to read an event that keeps its pages from being protected.
const TRIES: u32 = 10;

impl Hold {
    /// Freezes the space, with all of its resident pages ready to be shared but those that hold the words of four bytes at
    /// `written`: the kernel writes to them while it forks, when nobody answers.
    ///
    /// What cannot be protected because the program keeps changing its mappings is charged to both owners.
    pub fn freeze_to_share(&self, written: &[u64]) {
        for _ in 0..TRIES {
            self.freeze();
            let mut whole = self.space.prepare_to_share();
            for word in written {
                whole &= self.space.unprotect(&pages_of(*word, 4));
            }
            if whole {
                break;
            }
            self.thaw();
            self.space.drain();
        }
        self.freeze();
    }

    /// Makes `range` of `child` what it is here.
    ///
    /// # Errors
    /// What registering and protecting say.
    pub(crate) fn fork_range(&self, child: &Space, range: &Range<u64>) -> io::Result<()> {
        let parent = &self.space;
        child.make_blocks(range)?;
        child.uffd.register(range.start, range.end - range.start, true)?;
        let mut result = Ok(());
        parent.for_blocks(range, |block, pages| {
            let Some(twin) = child.block(block.base) else { return };
            let mut state = block.state.lock();
            let mut copy = twin.state.lock();
            parent.share_slots(&mut state, &mut copy);
            let pages = state.mapped & pages;
            copy.mapped |= pages;
            copy.resident |= state.resident & pages;
            copy.backed |= state.backed & pages;
            copy.pinned |= state.pinned & pages;
            let now = parent.shared.clock_ms();
            let discarded = state.may_be_dropped(now) & pages;
            if !discarded.is_empty() {
                match child.present_at(block.base) {
                    Some(there) => copy.settle_dropped(&parent.shared.engine, &discarded, &there),
                    None => copy.note_removed(&discarded, now),
                }
            }
            copy.heat = state.heat.inherited();
            for page in (pages & copy.pinned & copy.resident & copy.backed).iter() {
                // The kernel writes there when nobody can answer, in the child too: never to be protected.
                copy.release_slot(&parent.shared.engine, page);
            }
            let shared = state.share_with(child.id, &twin, &mut copy, &pages);
            let resident = copy.resident & pages;
            let protect = (resident & copy.backed) | shared;
            // Before anybody can move them out of the child again.
            child.charge_shared(resident.count(), shared.count());
            drop(copy);
            drop(state);
            if let Err(error) = child.protect_all(block.base, &protect) {
                result = Err(error);
            }
        });
        result
    }
}

impl Space {
    /// Write-protects what is resident and counts it as shared, by one owner so far. `false` if an event must be read first.
    fn prepare_to_share(&self) -> bool {
        let mut whole = true;
        self.for_blocks(&(0..u64::MAX), |block, pages| {
            let mut state = block.state.lock();
            let fresh = state.prepare_to_share(self.id, block, &pages);
            // Clean ones are protected already; again does no harm, and makes few calls of many.
            let shut = fresh | (state.resident & state.backed);
            if !fresh.is_empty() && self.protect_all(block.base, &shut).is_err() {
                state.leave(&self.shared.engine, &fresh);
                whole = false;
            }
        });
        whole
    }

    /// Gives the child's block the same slots, the first time that the block is met.
    fn share_slots(&self, state: &mut BlockState, copy: &mut BlockState) {
        if !copy.mapped.is_empty() {
            return;
        }
        let engine = &self.shared.engine;
        let shared = state.owner.as_mut().map(|owner| owner.fork(engine));
        if let Some(unused) = std::mem::replace(&mut copy.owner, shared) {
            unused.dispose(engine);
        }
    }

    fn protect_all(&self, base: u64, pages: &Bitmap512) -> io::Result<()> {
        for (start, len) in pages.runs() {
            let start: PageIndex = start;
            self.uffd.protect(base + start.byte_offset(), len as u64 * PAGE_BYTES, true)?;
        }
        Ok(())
    }
}
