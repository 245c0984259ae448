//! Fork: the child's half of an address space.
//!
//! The parent is held, so each page is resident or out, nothing in between. Resident pages are shared by the kernel (copy
//! on write); out pages are shared by the engine, cluster by cluster, by count. A fork drops write protection in
//! the child, so what is clean there is protected again before it runs.

use crate::block::{BlockState, PAGE_BYTES};
use crate::space::Space;
use std::io;
use std::ops::Range;
use vswap_core::{Bitmap512, PageIndex};

impl Space {
    /// Makes `range` of `child` what it is here.
    pub(crate) fn fork_range(&self, child: &Space, range: &Range<u64>) -> io::Result<()> {
        child.make_blocks(range)?;
        child.uffd.register(range.start, range.end - range.start, true)?;
        let mut result = Ok(());
        self.for_blocks(range, |block, pages| {
            let Some(twin) = child.block(block.base) else { return };
            let mut state = block.state.lock();
            let mut copy = twin.state.lock();
            self.share_slots(&mut state, &mut copy);
            let pages = state.mapped & pages;
            copy.mapped |= pages;
            copy.resident |= state.resident & pages;
            copy.backed |= state.backed & pages;
            copy.pinned |= state.pinned & pages;
            copy.heat = state.heat;
            let clean = copy.resident & copy.backed & pages;
            let resident = (copy.resident & pages).count();
            drop(copy);
            drop(state);
            child.charge_forced(resident);
            if let Err(error) = child.protect_all(block.base, &clean) {
                result = Err(error);
            }
        });
        result
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
