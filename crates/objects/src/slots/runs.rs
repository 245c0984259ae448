//! [`Runs`]: neighbouring pages of an object have neighbouring slots of a cluster, in which others may have runs too; so an object of one page takes one slot.

use super::shelves::Shelves;
use super::{PAGES, Put, store_in};
use crate::error::ObjectError;
use crate::hands::Hands;
use crate::object::Objects;
use crate::presence::common;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use vswap_core::{PageIndex, SlotId};
use vswap_engine::Engine;

/// Slots that follow each other in one cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) first: SlotId,
    pub(crate) pages: u16,
}

impl Run {
    pub(crate) fn slot(self, at: u64) -> SlotId {
        let index = PageIndex::new(self.first.index().get() + at as usize);
        self.first.cluster().slot(index.expect("a run lies in one cluster"))
    }

    fn pages(self) -> u64 {
        self.pages.into()
    }
}

/// Whose a run is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claim {
    /// The object's number.
    pub(crate) id: u64,
    is: Arc<AtomicU8>,
}

/// Nobody finds it any more: its bytes end with its last user.
const GONE: u8 = 1;
/// It is pinned.
const PINNED: u8 = 2;
/// Something of it is to be stored elsewhere.
const DIRTY: u8 = 4;

impl Claim {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, is: Arc::default() }
    }

    fn has(&self, what: u8) -> bool {
        // Relaxed, here and below: whoever relies on it holds the gate, the books or the object.
        self.is.load(Ordering::Relaxed) & what != 0
    }

    fn set(&self, what: u8, is: bool) {
        match is {
            true => self.is.fetch_or(what, Ordering::Relaxed),
            false => self.is.fetch_and(!what, Ordering::Relaxed),
        };
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.has(GONE)
    }

    pub(crate) fn go(&self) {
        self.set(GONE, true);
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.has(PINNED)
    }

    pub(crate) fn set_pinned(&self, is: bool) {
        self.set(PINNED, is);
    }

    pub(crate) fn set_dirty(&self, is: bool) {
        self.set(DIRTY, is);
    }

    /// Whether nothing of it may be given up while it is not in memory.
    pub(crate) fn is_held(&self) -> bool {
        self.has(PINNED | DIRTY)
    }
}

/// By first page. None reaches over a border of 2 MiB of the object.
#[derive(Debug)]
pub(crate) struct Runs {
    runs: BTreeMap<u64, Run>,
    claim: Claim,
}

impl Runs {
    /// As they were kept; `None` if some of them cannot be this object's.
    pub(crate) fn found(shelves: &Shelves, runs: &[(u64, Run)], claim: Claim) -> Option<Self> {
        let mut found = Self { runs: BTreeMap::new(), claim };
        for (page, run) in runs {
            if !shelves.claim(*page, *run, &found.claim) {
                found.let_out(shelves);
                return None;
            }
            found.runs.insert(*page, *run);
        }
        Some(found)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, Run)> + '_ {
        self.runs.iter().map(|(page, run)| (*page, *run))
    }

    /// The object goes out of memory, and its runs stay.
    pub(crate) fn let_out(self, shelves: &Shelves) {
        self.runs.into_values().for_each(|run| shelves.let_out(run));
    }

    /// The slot of a page, whether it has bytes or not.
    pub(super) fn place(&self, page: u64) -> Option<SlotId> {
        let (first, run) = self.runs.range(..=page).next_back()?;
        (page - first < run.pages()).then(|| run.slot(page - first))
    }

    pub(super) fn each(&self, engine: &Engine, pages: &Range<u64>, mut each: impl FnMut(u64, SlotId)) {
        for (first, run) in self.of(pages) {
            for page in common(&(first..first + run.pages()), pages) {
                let slot = run.slot(page - first);
                if engine.has_page(slot) {
                    each(page, slot);
                }
            }
        }
    }

    /// Runs with a page among these.
    fn of(&self, pages: &Range<u64>) -> impl Iterator<Item = (u64, Run)> + '_ {
        let before = self.runs.range(..=pages.start).next_back();
        let start = before.map_or(pages.start, |(first, run)| match first + run.pages() > pages.start {
            true => *first,
            false => pages.start,
        });
        self.runs.range(start..pages.end.max(start)).map(|(first, run)| (*first, *run))
    }

    pub(super) fn store(
        &mut self,
        of: &Objects,
        put: &Put<'_>,
        hands: &mut Hands,
    ) -> Result<(), ObjectError> {
        if let Some(slot) = self.place(put.page) {
            store_in(of, slot, put, hands)?;
            of.hot().put(slot, put.bytes);
            return Ok(());
        }
        let pages = self.wanted(put.page, put.until);
        let taken = of.shelves().take(of, &pages, &self.claim);
        let run = taken.map_err(|source| ObjectError::NoSlot { offset: put.offset, source })?;
        let slot = run.slot(put.page - pages.start);
        let stored = store_in(of, slot, put, hands);
        match stored {
            Ok(()) => {
                of.hot().put(slot, put.bytes);
                self.runs.insert(pages.start, run);
            }
            Err(_) => of.shelves().free(of.engine(), run),
        }
        stored
    }

    /// The pages that get slots when one of them is to be stored and has none: those before it, and as many behind it as the object is known to have soon, or as
    /// there are before, so that one that grows page by page has few runs.
    fn wanted(&self, page: u64, until: u64) -> Range<u64> {
        let block = page / PAGES * PAGES;
        let before = self.runs.range(..=page).next_back().map_or(0, |(first, run)| first + run.pages());
        let after = self.runs.range(page..).next().map_or(u64::MAX, |(first, _)| *first);
        let (start, end) = (block.max(before), (block + PAGES).min(after));
        start..end.min(until.max(start + (start - block))).max(page + 1)
    }

    pub(super) fn release(&mut self, of: &Objects, pages: &Range<u64>) {
        let runs: Vec<_> = self.of(pages).collect();
        for (first, run) in runs {
            let all = first..first + run.pages();
            let part = common(&all, pages);
            let has = |at: &u64| of.engine().has_page(run.slot(*at));
            let within = part.start - first..part.end - first;
            within.filter(has).for_each(|at| of.empty_kept(run.slot(at)));
            // Pages that had been let go before at its end go with the last one.
            let left = match (0..run.pages()).rev().find(has) {
                None => 0,
                Some(last) if part.end == all.end => last as u16 + 1,
                Some(_) => continue,
            };
            self.runs.remove(&first);
            let rest = of.shelves().cut(of.engine(), run, left);
            self.runs.extend(rest.map(|rest| (first, rest)));
        }
    }

    pub(super) fn dispose(self, of: &Objects) {
        let engine = of.engine();
        for run in self.runs.into_values() {
            let slots = (0..run.pages()).map(|at| run.slot(at));
            slots.filter(|slot| engine.has_page(*slot)).for_each(|slot| of.empty_kept(slot));
            of.shelves().free(engine, run);
        }
    }
}
