//! Grants: new mappings that are left to the kernel while there is room.
//!
//! What is granted is not registered, so the kernel answers its first touches itself, with huge pages if it may; a program
//! that fits pays nothing. All of a grant is charged in advance, so the limit holds whatever the program does with it. Once
//! room is short, grants are *called in*: their ranges are put under management, and what was never touched is given back.
//!
//! The kernel tells nothing of what becomes of a range that is not registered. A grant that was unmapped stays charged
//! until it is called in or its addresses are mapped anew; what is there now, not what was granted, is then managed.

use crate::block::PAGE_BYTES;
use crate::pager::Shared;
use crate::space::Space;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use vswap_core::{Bitmap512, PageIndex};
use vswap_sys::{call, process};

/// Bytes of a huge page.
const HUGE: u64 = 2 << 20;
/// Times that the maps are read again because they changed meanwhile.
const TRIES: u32 = 3;
/// How long to wait for a hint to be taken.
const HINT_WITHIN: Duration = Duration::from_millis(20);

fn holds_huge_page(range: &Range<u64>) -> bool {
    range.start.next_multiple_of(HUGE).saturating_add(HUGE) <= range.end
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
    pub fn take(&self, range: Range<u64>, huge: bool) -> io::Result<()> {
        let granted = self.grant(&range)?;
        if !granted {
            let _grants = self.grants.lock();
            self.manage(range.clone())?;
        }
        if granted && huge && self.shared.config.huge_pages {
            self.advise_huge(&range, true);
        } else if !granted && self.shared.always_huge {
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
    pub fn cover(&self, range: Range<u64>, huge: bool) -> io::Result<()> {
        let granted = self.granted_in(&range);
        if granted * PAGE_BYTES == range.end - range.start {
            Ok(())
        } else if granted == 0 && self.is_unknown(&range) {
            self.take(range, huge)
        } else {
            let _grants = self.grants.lock();
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

    fn is_unknown(&self, range: &Range<u64>) -> bool {
        let mut known = false;
        self.for_blocks(range, |block, pages| known |= !(block.state.lock().mapped & pages).is_empty());
        !known
    }

    /// Grants a mapping that is new or about to be made, if there is plenty of room. What was granted there before is not
    /// any more.
    ///
    /// # Errors
    /// `Other` if memory is short.
    pub fn grant(&self, range: &Range<u64>) -> io::Result<bool> {
        let _grants = self.grants.lock();
        self.forget_grants(range);
        let count = ((range.end - range.start) / PAGE_BYTES) as usize;
        if !self.shared.budget.has_plenty(count) {
            return Ok(false);
        }
        let _gate = self.gate.read();
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
        Ok(true)
    }

    /// `range` is no more what it was when it was granted, if it was.
    pub fn forget_grants(&self, range: &Range<u64>) {
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

    /// Calls in all grants. `false` if there was none.
    pub fn call_in(&self) -> bool {
        if self.granted_pages() == 0 {
            return false;
        }
        let _grants = self.grants.lock();
        for _ in 0..TRIES {
            let granted = self.granted_ranges();
            if granted.is_empty() {
                break;
            }
            let Ok(maps) = process::maps(self.pid) else { break };
            let there: Vec<_> = maps.iter().filter(|map| map.is_manageable()).map(|map| &map.range).collect();
            for range in granted {
                self.call_in_range(&range, &there);
            }
        }
        // What cannot be managed is counted with the rest of the tree.
        for range in self.granted_ranges() {
            self.forget_grants(&range);
        }
        true
    }

    fn call_in_range(&self, range: &Range<u64>, there: &[&Range<u64>]) {
        let mut at = range.start;
        for map in there {
            let part = range.start.max(map.start)..range.end.min(map.end);
            if part.is_empty() {
                continue;
            }
            self.forget_grants(&(at..part.start));
            at = part.end;
            match self.manage(part.clone()) {
                // A fault in what is registered gets no huge page, but the kernel would clear one first.
                Ok(()) => self.advise_huge(&part, false),
                Err(error) => tracing::debug!(?part, %error, "a grant cannot be managed"),
            }
        }
        self.forget_grants(&(at..range.end));
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

    /// Asks for huge pages in `range`, or against them, if any would fit; a hint.
    fn advise_huge(&self, range: &Range<u64>, wanted: bool) {
        let advice = if wanted { call::HUGEPAGE } else { call::NOHUGEPAGE };
        if let Some(link) = self.link()
            && holds_huge_page(range)
        {
            let args = [range.start, range.end - range.start, advice, 0, 0, 0];
            let _ = link.syscall_within(HINT_WITHIN, call::MADVISE, args);
        }
    }
}

impl Shared {
    /// Calls in the grants of all spaces. `false` if there was none.
    pub(crate) fn call_in_grants(&self) -> bool {
        let spaces = self.spaces_where(|space| space.granted_pages() > 0);
        let any = spaces.iter().filter(|space| space.call_in()).count() > 0;
        if any {
            self.room_came();
        }
        any
    }
}
