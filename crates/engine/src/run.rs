//! Reading several pages with at most one read of the device.

use crate::disk::locator;
use crate::engine::Engine;
use crate::error::LoadError;
use crate::movement::{decodes, entry_addr, from_segment_tag};
use crate::scratch::Scratch;
use crate::stats::{Counters, LoadedFrom};
use vswap_core::{Backing, Page, SegmentAddr, SlotId};

/// What became of a page of a run; `None`: it was not loaded, because that would have taken another read.
pub type Loaded = Option<Result<LoadedFrom, LoadError>>;

impl Engine {
    /// Loads the first of some slots as [`Engine::load`] does, and of the others what comes without another
    /// read of the device: patterns, pool entries, and those that were written next to the first one. Pages
    /// that are neighbours in a cluster are packed side by side, so one read of 64 KiB brings a good part of
    /// a sequential scan. Allocates nothing.
    ///
    /// `slots`, `pages` and `loaded` go together; a position without a slot gives `None`.
    ///
    /// # Panics
    /// If `pages` or `loaded` is shorter than `slots`.
    pub fn load_run(
        &self,
        slots: &[Option<SlotId>],
        pages: &mut [Page],
        loaded: &mut [Loaded],
        scratch: &mut Scratch,
    ) {
        assert!(pages.len() >= slots.len() && loaded.len() >= slots.len(), "one page and one result a slot");
        loaded.fill_with(|| None);
        let Some(Some(first)) = slots.first() else { return };
        if let Backing::Segment(addr) = self.word(*first).backing() {
            self.load_neighbours(addr, slots, pages, loaded, scratch);
        }
        for (at, slot) in slots.iter().enumerate() {
            let Some(slot) = slot.filter(|_| loaded[at].is_none()) else { continue };
            // Only the first is worth a read. If its place changed meanwhile, this is its second read, as in
            // `load`.
            if at == 0 || !matches!(self.word(slot).backing(), Backing::Segment(_)) {
                loaded[at] = Some(self.load(slot, &mut pages[at], scratch));
            }
        }
    }

    /// Reads around the first slot's entry and takes what belongs to any of the slots. What fails here is
    /// left to [`Engine::load`], which knows whom to believe.
    fn load_neighbours(
        &self,
        addr: SegmentAddr,
        slots: &[Option<SlotId>],
        pages: &mut [Page],
        loaded: &mut [Loaded],
        scratch: &mut Scratch,
    ) {
        let (Some(disk), Some(addr), Some(Some(first))) = (&self.disk, entry_addr(addr), slots.first())
        else {
            return;
        };
        let Scratch { io, decompressor, .. } = scratch;
        let Ok(run) = disk.store().read_run(addr, *first, io) else { return };
        let mut expected = 0;
        for entry in std::iter::once(run.first()).chain(run.neighbours()) {
            // Neighbours come in the order of their slots, so the next one is mostly where it is expected.
            let Some(at) = position(slots, entry.slot, expected) else { continue };
            let Some(cell) = self.space.slot(entry.slot) else { continue };
            let word = cell.load();
            if word.backing() != Backing::Segment(locator(entry.addr)) || loaded[at].is_some() {
                continue;
            }
            let tag = from_segment_tag(entry.tag);
            if decodes(decompressor, tag, entry.bytes, &self.dictionaries, &mut pages[at]) {
                cell.mark_accessed(word);
                Counters::add(&self.counters.loaded_segment, 1);
                loaded[at] = Some(Ok(LoadedFrom::Segment));
                expected = at + 1;
            }
        }
    }
}

fn position(slots: &[Option<SlotId>], slot: SlotId, expected: usize) -> Option<usize> {
    if slots.get(expected) == Some(&Some(slot)) {
        return Some(expected);
    }
    slots.iter().position(|other| *other == Some(slot))
}
