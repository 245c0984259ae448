//! What an object has: its length, its slots and which of their bytes are there; reading, writing and giving up, with the object's lock held.

use crate::dirty::DirtyRanges;
use crate::error::ObjectError;
use crate::hands::{Hands, RUN};
use crate::object::Objects;
use crate::presence::{PAGE, Presence, common, page_range, pages_of};
use crate::slots::{Put, Runs, Slots};
use crate::store::records::ObjectRecord;
use std::ops::Range;
use vswap_core::{PAGE_SIZE, Page, SlotId};
use vswap_engine::{BackingKind, Engine, LoadedFrom};

#[derive(Debug, Default)]
pub(crate) struct Content {
    len: u64,
    slots: Slots,
    presence: Presence,
    pub(crate) dirty: DirtyRanges,
}

/// Whether what is written is to be stored elsewhere too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Clean,
    Dirty,
}

impl Content {
    /// As it was kept.
    pub(crate) fn found(engine: &Engine, record: &ObjectRecord, runs: Runs) -> Self {
        let slots = Slots::Runs(runs);
        let presence = Presence::found(&record.some, |page| slots.slot(engine, page).is_some());
        Self { len: record.len, slots, presence, dirty: DirtyRanges::found(&record.dirty) }
    }

    /// Gives up a page, if nothing of it is dirty. Tells whether there was something.
    pub(crate) fn give_up(&mut self, of: &Objects, page: u64) -> bool {
        let goes =
            !self.dirty.touches(&(page * PAGE..(page + 1) * PAGE)) && self.slot(of.engine(), page).is_some();
        if goes {
            self.slots.release(of, &(page..page + 1));
            self.presence.forget(page..page + 1);
        }
        goes
    }

    /// Pages that have bytes, of those with a byte in the range.
    pub(crate) fn pages(&self, engine: &Engine, range: &Range<u64>) -> u64 {
        let mut count = 0;
        self.each_page(engine, range, |_, _| count += 1);
        count
    }

    /// What is to be kept of it.
    pub(crate) fn kept(&self) -> ObjectRecord {
        let runs = match &self.slots {
            Slots::Blocks(_) => Vec::new(),
            Slots::Runs(runs) => runs.iter().map(|(page, run)| (page, run.pages, run.first.get())).collect(),
        };
        let (some, dirty) = (self.presence.ranges(), self.dirty.ranges());
        ObjectRecord { len: self.len, runs, some, dirty, ..ObjectRecord::default() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The same bytes, none of them dirty, for another owner; `None` if they are kept.
    pub(crate) fn snapshot(&mut self, engine: &Engine) -> Option<Content> {
        let Slots::Blocks(blocks) = &mut self.slots else { return None };
        let slots = Slots::Blocks(blocks.snapshot(engine));
        Some(Content { len: self.len, slots, presence: self.presence.clone(), dirty: DirtyRanges::default() })
    }

    /// The owner is gone.
    pub(crate) fn dispose(self, of: &Objects) {
        self.slots.dispose(of);
    }

    /// It goes out of memory, and what it has stays.
    pub(crate) fn let_out(self, of: &Objects) {
        if let Slots::Runs(runs) = self.slots {
            runs.let_out(of.shelves());
        }
    }

    pub(crate) fn audit(&self, engine: &Engine) -> Result<(), String> {
        self.presence.audit(self.len, |page| self.slot(engine, page).is_some())
    }

    /// The slot of a page that has bytes.
    pub(crate) fn slot(&self, engine: &Engine, page: u64) -> Option<SlotId> {
        self.slots.slot(engine, page)
    }

    /// Pages that have bytes, of those with a byte in the range, in order, with their slots.
    pub(crate) fn each_page(&self, engine: &Engine, range: &Range<u64>, each: impl FnMut(u64, SlotId)) {
        self.slots.each(engine, &pages_of(range), each);
    }

    pub(crate) fn each_present(&self, engine: &Engine, range: &Range<u64>, mut each: impl FnMut(Range<u64>)) {
        let range = common(range, &(0..self.len));
        self.each_page(engine, &range, |page, _| {
            let there = self.presence.there(&common(&page_range(page, self.len), &range));
            there.into_iter().for_each(&mut each);
        });
    }

    /// What `each_present` leaves out of a range before the end.
    pub(crate) fn each_missing(&self, engine: &Engine, range: &Range<u64>, mut each: impl FnMut(Range<u64>)) {
        let mut known = range.start;
        self.each_present(engine, range, |there| {
            if there.start > known {
                each(known..there.start);
            }
            known = there.end;
        });
        if known < range.end {
            each(known..range.end);
        }
    }

    /// The bytes of `range` that page `page`, which has some, has.
    pub(crate) fn there(&self, page: u64, range: &Range<u64>) -> Vec<Range<u64>> {
        self.presence.there(&common(&page_range(page, self.len), range))
    }

    /// Whether a page has to be read from a device.
    pub(crate) fn is_on_a_device(&self, of: &Objects, page: u64) -> bool {
        let on_device = |slot: &SlotId| of.engine().backing(*slot) == BackingKind::Segment;
        self.slot(of.engine(), page).filter(on_device).is_some_and(|slot| !of.hot().has(slot))
    }

    /// Loads the pages of a run that have bytes of what is wanted, at most [`RUN`], and gives each to `each`, in any order.
    pub(crate) fn load_run(
        &self,
        of: &Objects,
        run: Range<u64>,
        wanted: &Range<u64>,
        hands: &mut Hands,
        mut each: impl FnMut(u64, &Page),
    ) -> Result<(), ObjectError> {
        let (engine, Hands { scratch, pages, loaded }) = (of.engine(), hands);
        let mut slots = [None; RUN];
        for (slot, page) in slots.iter_mut().zip(run.clone()) {
            *slot = self.slot(engine, page).filter(|_| !self.there(page, wanted).is_empty());
            if let Some(found) = slot.and_then(|slot| of.hot().get(engine, slot)) {
                each(page, &found);
                *slot = None;
            }
        }
        while let Some(asked) = slots.iter().position(Option::is_some) {
            engine.load_run(&slots, asked, pages, loaded, scratch);
            for (at, page) in run.clone().enumerate() {
                match loaded[at].take() {
                    None => {}
                    Some(Ok(from)) => {
                        each(page, &pages[at]);
                        let slot = slots[at].take().filter(|_| from == LoadedFrom::Segment);
                        slot.into_iter().for_each(|slot| of.hot().put(slot, &pages[at]));
                    }
                    Some(Err(source)) => {
                        return Err(ObjectError::Unreadable { offset: page * PAGE, source });
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes page by page, until one cannot be.
    pub(crate) fn write(
        &mut self,
        of: &Objects,
        how: Written,
        offset: u64,
        bytes: &[u8],
        hands: &mut Hands,
    ) -> Result<(), ObjectError> {
        let wanted = offset..offset + bytes.len() as u64;
        let until = pages_of(&(0..wanted.end.max(self.len))).end;
        pages_of(&wanted).try_for_each(|page| {
            let part = common(&(page * PAGE..(page + 1) * PAGE), &wanted);
            let from = (part.start - offset) as usize;
            let new = &bytes[from..from + (part.end - part.start) as usize];
            self.write_page(of, (page, until), part.clone(), new, hands)?;
            match how {
                Written::Clean => self.dirty.remove(part),
                Written::Dirty => self.dirty.add(part),
            }
            Ok(())
        })
    }

    /// Writes `new` to the bytes of `part`, which lie in `page`. The object has `until` pages soon.
    fn write_page(
        &mut self,
        of: &Objects,
        (page, until): (u64, u64),
        part: Range<u64>,
        new: &[u8],
        hands: &mut Hands,
    ) -> Result<(), ObjectError> {
        let engine = of.engine();
        let former = self.slot(engine, page);
        let mut bytes = [0; PAGE_SIZE];
        // Nothing of what it has stays if that is all in the part: what it has beyond the end does not count.
        let stays = |there: &Range<u64>| there.start < part.start || there.end > part.end;
        let all = page_range(page, self.len);
        if let Some(slot) = former.filter(|_| self.there(page, &all).iter().any(stays)) {
            match of.hot().get(engine, slot) {
                Some(found) => bytes.copy_from_slice(&found[..]),
                None => {
                    let loaded = engine.load(slot, &mut bytes, &mut hands.scratch);
                    loaded.map_err(|source| ObjectError::Unreadable { offset: part.start, source })?;
                }
            }
        }
        bytes[(part.start - page * PAGE) as usize..][..new.len()].copy_from_slice(new);

        self.slots.store(of, &Put { page, bytes: &bytes, offset: part.start, until }, hands)?;
        if part.end > self.len {
            self.lengthen(engine, part.end, Some((page, former.is_some())));
        }
        self.presence.add(part, former.is_some(), self.len);
        Ok(())
    }

    /// The object ends later. A page of it has just been written, and `written` tells whether it had bytes before.
    fn lengthen(&mut self, engine: &Engine, len: u64, written: Option<(u64, bool)>) {
        if let Some(last) = pages_of(&(0..self.len)).last() {
            let had = match written {
                Some((page, had)) if page == last => had,
                _ => self.slot(engine, last).is_some(),
            };
            if had {
                self.presence.lengthen(last, self.len);
            }
        }
        self.len = len;
    }

    pub(crate) fn set_len(&mut self, of: &Objects, len: u64) {
        let engine = of.engine();
        if len > self.len {
            return self.lengthen(engine, len, None);
        }
        let kept = pages_of(&(0..len)).end;
        let gone = kept..pages_of(&(0..self.len)).end;
        self.slots.release(of, &gone);
        self.presence.forget(gone);
        self.dirty.remove(len..self.len);
        self.len = len;
        if let Some(last) = kept.checked_sub(1).filter(|last| self.slot(engine, *last).is_some())
            && !self.presence.shorten(last, len)
        {
            self.slots.release(of, &(last..kept));
        }
    }

    /// `range` lies before the end.
    pub(crate) fn punch(&mut self, of: &Objects, range: &Range<u64>) {
        let engine = of.engine();
        let pages = pages_of(range);
        let Some(last) = pages.end.checked_sub(1).filter(|_| !pages.is_empty()) else { return };
        let goes = |page| common(&page_range(page, self.len), range) == page_range(page, self.len);
        let start = pages.start + u64::from(!goes(pages.start));
        let whole = start..(pages.end - u64::from(!goes(last))).max(start);
        self.slots.release(of, &whole);
        self.presence.forget(whole.clone());
        self.dirty.remove(range.clone());
        // Of the first and the last page a part may stay.
        for page in [Some(pages.start), (last != pages.start).then_some(last)].into_iter().flatten() {
            let part = common(&page_range(page, self.len), range);
            if !whole.contains(&page)
                && self.slot(engine, page).is_some()
                && !self.presence.take(part, self.len)
            {
                self.slots.release(of, &(page..page + 1));
            }
        }
    }
}
