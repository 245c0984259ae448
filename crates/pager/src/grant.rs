//! Grants: new mappings that are left to the kernel while there is room.
//!
//! What is granted is not registered, so the kernel answers its first touches itself, with huge pages if it may; a program
//! that fits pays nothing. All of a grant is charged in advance, so the limit holds whatever the program does with it. Once
//! room is short, grants are *called in*: their ranges are put under management, and what was never touched is given back.
//!
//! The kernel tells nothing of what becomes of a range that is not registered. A grant that was unmapped stays charged
//! until it is called in or its addresses are mapped anew; what is there now, not what was granted, is then managed.

use crate::block::{BLOCK_BYTES, PAGE_BYTES};
use crate::pager::Shared;
use crate::space::Space;
use parking_lot::MutexGuard;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use vswap_core::{Bitmap512, PageIndex};
use vswap_sys::{call, process};

/// Times that the maps are read again because they changed meanwhile.
const TRIES: u32 = 3;
/// How long to wait for a hint to be taken.
const HINT_WITHIN: Duration = Duration::from_millis(20);

fn holds_huge_page(range: &Range<u64>) -> bool {
    // One is as large as a block.
    range.start.next_multiple_of(BLOCK_BYTES).saturating_add(BLOCK_BYTES) <= range.end
}

impl Space {
    /// Takes a new mapping, which nobody has touched or only the kernel served: grants it if there is plenty of room, else
    /// manages it. `huge`: most of it will be touched, so huge pages are welcome, if they are at all.
    ///
    /// # Errors
    /// As [`Space::manage`].
    ///
    /// # Panics
    /// If the range is not of whole pages.
    pub fn take(self: &Arc<Self>, range: Range<u64>, huge: bool) -> io::Result<()> {
        let granted = self.grant(&range)?;
        if !granted {
            self.manage(range.clone())?;
        }
        if granted && huge && self.shared.asks_for_huge_pages() {
            self.advise_huge(&range, true);
        } else if !granted && self.shared.gets_huge_pages_unasked() {
            self.advise_huge(&range, false);
        }
        Ok(())
    }

    /// Sees to it that all of `range` is managed or granted.
    ///
    /// # Errors
    /// As [`Space::manage`].
    ///
    /// # Panics
    /// If the range is not of whole pages.
    pub fn cover(self: &Arc<Self>, range: Range<u64>, huge: bool) -> io::Result<()> {
        let (mut granted, mut mapped) = (0, 0);
        self.for_blocks(&range, |block, pages| {
            let state = block.state.lock();
            granted += (state.granted & pages).count() as u64;
            mapped += (state.mapped & pages).count() as u64;
        });
        if (granted + mapped) * PAGE_BYTES == range.end - range.start {
            Ok(())
        } else if granted == 0 && self.is_unknown(&range) {
            self.take(range, huge)
        } else {
            self.manage(range)
        }
    }

    /// Pages of `range` that are granted.
    pub fn granted_in(&self, range: &Range<u64>) -> u64 {
        let mut granted = 0;
        self.for_blocks(range, |block, pages| granted += (block.state.lock().granted & pages).count());
        granted as u64
    }

    /// Pages granted now.
    pub fn granted_pages(&self) -> u64 {
        self.granted.load(Relaxed)
    }

    /// Whether nothing of `range` is managed.
    pub(crate) fn is_unknown(&self, range: &Range<u64>) -> bool {
        let mut known = false;
        self.for_blocks(range, |block, pages| {
            let state = block.state.lock();
            known |= !((state.mapped | state.joining) & pages).is_empty();
        });
        !known
    }

    /// Grants a mapping that is new or about to be made, if there is plenty of room. What was granted there before is not
    /// any more. Afterwards no eviction is in flight that was meant for what was at these addresses before: it would take the
    /// pages, from a range that is not registered too.
    ///
    /// # Errors
    /// `Other` if memory is short.
    pub fn grant(self: &Arc<Self>, range: &Range<u64>) -> io::Result<bool> {
        let grants = self.grants.lock();
        self.drop_grants(range);
        let count = (range.end.saturating_sub(range.start) / PAGE_BYTES) as usize;
        let plenty = !self.shared.records()
            && self.shared.budget.has_plenty(count)
            && self.shared.group_has_plenty(self.charged.get().group(), count);
        if !plenty {
            return Ok(false);
        }
        let gate = self.gate.read();
        // Whoever lets the space go says so first and takes the blocks under the gate afterwards.
        if self.is_dead() {
            return Ok(false);
        }
        self.make_blocks(range)?;
        if !self.is_unknown(range) {
            return Ok(false);
        }
        self.shared.budget.change_granted(count as i64);
        if !self.charge(count) {
            self.shared.budget.change_granted(-(count as i64));
            return Ok(false);
        }
        self.for_blocks(range, |block, pages| block.state.lock().granted |= pages);
        self.granted.fetch_add(count as u64, Relaxed);
        self.shared.counters.granted.fetch_add(count as u64, Relaxed);
        drop(gate);
        drop(grants);
        self.barrier_for_mapping();
        Ok(true)
    }

    /// If all of `range` is granted, forgets that and returns `true`: what becomes of it is the caller's affair.
    pub fn release_grant(&self, range: &Range<u64>) -> bool {
        let _grants = self.grants.lock();
        let all = !range.is_empty() && self.granted_in(range) * PAGE_BYTES == range.end - range.start;
        if all {
            self.drop_grants(range);
        }
        all
    }

    /// `range` is no more what it was when it was granted, if it was.
    pub fn forget_grants(&self, range: &Range<u64>) {
        let _grants = self.grants.lock();
        self.drop_grants(range);
    }

    /// [`Space::forget_grants`], with `grants` held or the gate alone.
    pub(crate) fn drop_grants(&self, range: &Range<u64>) {
        self.for_blocks(range, |block, pages| {
            let mut state = block.state.lock();
            let gone = state.granted & pages;
            state.granted = state.granted.and_not(&gone);
            drop(state);
            self.uncharge(gone.count());
            self.ungranted(gone.count());
        });
    }

    /// So many pages are granted no more.
    pub(crate) fn ungranted(&self, pages: usize) {
        self.granted.fetch_sub(pages as u64, Relaxed);
        self.shared.budget.change_granted(-(pages as i64));
    }

    /// Calls in all grants. `false` if there was none, or none could be.
    pub fn call_in(&self) -> bool {
        self.call_in_with(self.grants.lock())
    }

    fn call_in_with(&self, grants: MutexGuard<'_, ()>) -> bool {
        let mut managed = Vec::new();
        let mut tries = TRIES;
        loop {
            let granted = self.granted_ranges();
            if granted.is_empty() {
                break;
            }
            if tries == 0 || self.is_dead() {
                // What cannot be managed is counted with the rest of the tree.
                granted.iter().for_each(|range| self.drop_grants(range));
                self.missed.store(true, Relaxed);
                break;
            }
            tries -= 1;
            let maps = match process::maps(self.pid()) {
                Ok(maps) => maps,
                Err(error) => {
                    tracing::warn!(pid = self.pid, %error, "what it has mapped cannot be read: grants stay");
                    return false;
                }
            };
            let there: Vec<_> = maps.iter().filter(|map| map.is_manageable()).map(|map| &map.range).collect();
            for range in &granted {
                self.call_in_range(range, &there, &mut managed);
            }
        }
        drop(grants);
        // A fault in what is registered gets no huge page, but the kernel would clear one first. A stub that does not answer is not
        // asked again.
        let _ = managed.iter().all(|range| self.advise_huge(range, false));
        !managed.is_empty() || tries < TRIES
    }

    fn call_in_range(&self, range: &Range<u64>, there: &[&Range<u64>], managed: &mut Vec<Range<u64>>) {
        let mut at = range.start;
        let miss = |gap: Range<u64>| {
            if !gap.is_empty() {
                self.drop_grants(&gap);
                // Unmapped since, or about to be mapped: then somebody has to look.
                self.missed.store(true, Relaxed);
            }
        };
        for map in there {
            let part = range.start.max(map.start)..range.end.min(map.end);
            if part.is_empty() {
                continue;
            }
            miss(at..part.start);
            at = part.end;
            match self.manage_locked(part.clone()) {
                Ok(()) => managed.push(part),
                Err(error) => tracing::debug!(?part, %error, "a grant cannot be managed"),
            }
        }
        miss(at..range.end);
    }

    /// Whether something was granted that was not there when it was called in, since this was asked last.
    pub fn take_missed(&self) -> bool {
        self.missed.load(Relaxed) && self.missed.swap(false, Relaxed)
    }

    fn granted_ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for block in self.blocks.read().values() {
            let granted: Bitmap512 = block.state.lock().granted;
            for (first, count) in granted.runs() {
                let first: PageIndex = first;
                let (start, len) = (block.address(first), count as u64 * PAGE_BYTES);
                match ranges.last_mut() {
                    Some(last) if last.end == start => last.end += len,
                    _ => ranges.push(start..start + len),
                }
            }
        }
        ranges
    }

    /// Asks for huge pages in `range`, or against them, if any would fit; a hint. `false` if the stub does not answer.
    fn advise_huge(&self, range: &Range<u64>, wanted: bool) -> bool {
        let advice = if wanted { call::HUGEPAGE } else { call::NOHUGEPAGE };
        let Some(link) = self.link().filter(|_| holds_huge_page(range)) else { return true };
        let args = [range.start, range.end - range.start, advice, 0, 0, 0];
        let asked = link.syscall_within(HINT_WITHIN, call::MADVISE, args);
        !asked.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }
}

impl Shared {
    /// Calls in the grants of all spaces but those at which somebody else is. `false` if there was none.
    pub(crate) fn call_in_grants(&self) -> bool {
        self.call_in_grants_of(&self.spaces_where(|space| space.granted_pages() > 0))
    }

    /// Calls in the grants of these.
    pub(crate) fn call_in_grants_of(&self, spaces: &[Arc<Space>]) -> bool {
        let granted = spaces.iter().filter(|space| space.granted_pages() > 0);
        let called =
            |space: &&Arc<Space>| space.grants.try_lock().is_some_and(|grants| space.call_in_with(grants));
        let any = granted.filter(called).count() > 0;
        if any {
            self.room_came();
        }
        any
    }
}
