//! Reading several pages with at most one read of the device.

use crate::disk::locator;
use crate::engine::Engine;
use crate::error::LoadError;
use crate::movement::{decodes, entry_addr, from_segment_tag};
use crate::scratch::Scratch;
use crate::stats::{Counters, LoadedFrom};
use std::ops::Range;
use vswap_core::{Backing, Event, Page, SlotId};
use vswap_segment::{BLOCK, EntryAddr};

/// What became of a page of a run; `None`: it was not loaded, because that would have taken another read.
pub type Loaded = Option<Result<LoadedFrom, LoadError>>;

impl Engine {
    /// Loads the slot at `asked` of some slots as [`Engine::load`] does, and of the others what comes without another
    /// read of the device: patterns, pool entries, and those that were written next to that one. Pages
    /// that are neighbours in a cluster are packed side by side, so one read of up to 136 KiB brings a good part of
    /// a sequential scan, upwards or downwards. Allocates nothing.
    ///
    /// `slots`, `pages` and `loaded` go together; a position without a slot gives `None`.
    ///
    /// # Panics
    /// If `pages` or `loaded` is shorter than `slots`.
    pub fn load_run(
        &self,
        slots: &[Option<SlotId>],
        asked: usize,
        pages: &mut [Page],
        loaded: &mut [Loaded],
        scratch: &mut Scratch,
    ) {
        assert!(pages.len() >= slots.len() && loaded.len() >= slots.len(), "one page and one result a slot");
        loaded.fill_with(|| None);
        if slots.get(asked).is_none_or(Option::is_none) {
            return;
        }
        self.load_neighbours(slots, asked, pages, loaded, scratch);
        for (at, slot) in slots.iter().enumerate() {
            let Some(slot) = slot.filter(|_| loaded[at].is_none()) else { continue };
            // Only the one asked for is worth a read. If its place changed meanwhile, or an entry before it is damaged, this is
            // its second read, as in `load`.
            if at == asked || self.on_device(slots, at).is_none() {
                loaded[at] = Some(self.load(slot, &mut pages[at], scratch));
            }
        }
    }

    /// Reads around the entry of the slot asked for, if it is in a segment, and takes what belongs to any of the slots. What
    /// fails here is left to [`Engine::load`], which knows whom to believe.
    fn load_neighbours(
        &self,
        slots: &[Option<SlotId>],
        asked: usize,
        pages: &mut [Page],
        loaded: &mut [Loaded],
        scratch: &mut Scratch,
    ) {
        let Some(span) = self.span(slots, asked, scratch.io.len()) else { return };
        let Scratch { io, decompressor, .. } = scratch;
        let Ok(run) = self.disk.store().read_run(span.addr, span.slot, span.bytes, io) else { return };
        let mut expected = span.start;
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
                self.count_event(entry.slot, Event::Pswpin);
                loaded[at] = Some(Ok(LoadedFrom::Segment));
                expected = at + 1;
            }
        }
    }

    /// What to read so that the slot asked for comes, and as many of the others as one read of `most` bytes can bring: from the first
    /// before it that lies close enough before it on the device, or itself, to the last behind that. `None` if it is in no segment.
    fn span(&self, slots: &[Option<SlotId>], asked: usize, most: usize) -> Option<Span> {
        let place = |at: usize| self.on_device(slots, at).map(|(slot, addr)| (at, slot, addr));
        let wanted = place(asked)?;
        let fits = |first: EntryAddr, last: EntryAddr| {
            let ordered = first.segment() == last.segment() && first.offset() <= last.offset();
            ordered && (end_of(last) - first.first_block()) * BLOCK <= most
        };
        let (start, slot, addr) =
            (0..asked).filter_map(place).find(|(_, _, addr)| fits(*addr, wanted.2)).unwrap_or(wanted);
        let others = (0..slots.len()).filter_map(place).map(|(_, _, other)| other);
        let end = others.filter(|other| fits(addr, *other)).map(end_of).max()?;
        Some(Span { start, slot, addr, bytes: (end - addr.first_block()) * BLOCK })
    }

    /// Where the entry of the slot at `at` is, if in a segment on a device. In memory each is read by itself: there is no read to share.
    fn on_device(&self, slots: &[Option<SlotId>], at: usize) -> Option<(SlotId, EntryAddr)> {
        let slot = slots[at]?;
        let Backing::Segment(addr) = self.word(slot).backing() else { return None };
        let addr = entry_addr(addr)?;
        (!self.disk.store().is_in_memory(addr)).then_some((slot, addr))
    }

    /// Those of `slots` around `asked` that [`Engine::load_run`] would bring as things stand. Who waits for another would have to wait
    /// for one read of the device in vain.
    ///
    /// # Panics
    /// If there is no position `asked`.
    pub fn come_together(&self, slots: &[Option<SlotId>], asked: usize, scratch: &Scratch) -> Range<usize> {
        let span = self.span(slots, asked, scratch.io.len());
        let comes = |at: &usize| match (self.on_device(slots, *at), &span) {
            (Some((_, addr)), Some(span)) => span.holds(addr),
            (Some(_), None) => false,
            (None, _) => true,
        };
        let below = (0..asked).rev().take_while(comes).count();
        let above = (asked + 1..slots.len()).take_while(comes).count();
        asked - below..asked + 1 + above
    }
}

fn end_of(addr: EntryAddr) -> usize {
    addr.first_block() + addr.blocks()
}

/// One read of the device that brings several entries.
struct Span {
    /// Position of the slot whose entry comes first.
    start: usize,
    slot: SlotId,
    addr: EntryAddr,
    /// From the beginning of that entry's first block.
    bytes: usize,
}

impl Span {
    fn holds(&self, addr: EntryAddr) -> bool {
        let end = self.addr.first_block() + self.bytes / BLOCK;
        addr.segment() == self.addr.segment() && addr.offset() >= self.addr.offset() && end_of(addr) <= end
    }
}

fn position(slots: &[Option<SlotId>], slot: SlotId, expected: usize) -> Option<usize> {
    if slots.get(expected) == Some(&Some(slot)) {
        return Some(expected);
    }
    slots.iter().position(|other| *other == Some(slot))
}
