//! What an object has: its length, its blocks and which of their bytes are there; reading, writing and giving up, with the object's lock held.

use crate::dirty::DirtyRanges;
use crate::error::ObjectError;
use crate::hands::{Hands, RUN};
use crate::object::Objects;
use crate::presence::{PAGE, Presence, common, page_range, pages_of};
use crate::store::records::ObjectRecord;
use std::collections::BTreeMap;
use std::ops::Range;
use vswap_core::{PAGE_SIZE, PAGES_PER_CLUSTER, Page, PageIndex, SlotId};
use vswap_engine::{DurableError, Engine, KeptCluster, OwnerBlock};

const PAGES: u64 = PAGES_PER_CLUSTER as u64;
/// How often room is made for one page before the write gives up: others may take what was made.
const ATTEMPTS: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Content {
    len: u64,
    /// By number of 2 MiB.
    blocks: BTreeMap<u64, OwnerBlock>,
    presence: Presence,
    pub(crate) dirty: DirtyRanges,
}

/// Whether what is written is to be stored elsewhere too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Clean,
    Dirty,
}

fn place(page: u64) -> (u64, PageIndex) {
    let index = PageIndex::new((page % PAGES) as usize).expect("below the pages of a cluster");
    (page / PAGES, index)
}

impl Content {
    /// As it was kept.
    pub(crate) fn found(
        len: u64,
        blocks: BTreeMap<u64, OwnerBlock>,
        presence: Presence,
        dirty: &[Range<u64>],
    ) -> Self {
        Self { len, blocks, presence, dirty: DirtyRanges::found(dirty) }
    }

    /// What is to be kept, once all its pages have been written down.
    pub(crate) fn kept(&self, engine: &Engine) -> Result<(ObjectRecord, Vec<KeptCluster>), DurableError> {
        let (mut blocks, mut clusters) = (Vec::new(), Vec::new());
        for (number, block) in &self.blocks {
            if let Some(kept) = engine.kept_cluster(block)? {
                blocks.push((*number, kept.cluster.get()));
                clusters.push(kept);
            }
        }
        let (some, dirty) = (self.presence.ranges(), self.dirty.ranges());
        Ok((ObjectRecord { len: self.len, blocks, some, dirty, ..ObjectRecord::default() }, clusters))
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The same bytes, none of them dirty, for another owner.
    pub(crate) fn snapshot(&mut self, engine: &Engine) -> Content {
        let blocks = self.blocks.iter_mut().map(|(number, block)| (*number, block.fork(engine))).collect();
        Content { len: self.len, blocks, presence: self.presence.clone(), dirty: DirtyRanges::default() }
    }

    /// The owner is gone.
    pub(crate) fn dispose(self, engine: &Engine) {
        self.blocks.into_values().for_each(|block| block.dispose(engine));
    }

    pub(crate) fn audit(&self, engine: &Engine) -> Result<(), String> {
        self.presence.audit(self.len, |page| self.slot(engine, page).is_some())
    }

    /// The slot of a page that has bytes.
    pub(crate) fn slot(&self, engine: &Engine, page: u64) -> Option<SlotId> {
        let (block, index) = place(page);
        backed(engine, self.blocks.get(&block)?, index)
    }

    /// Pages that have bytes, of those with a byte in the range, in order, with their slots.
    pub(crate) fn each_page(&self, engine: &Engine, range: &Range<u64>, mut each: impl FnMut(u64, SlotId)) {
        let pages = pages_of(range);
        if pages.is_empty() {
            return;
        }
        for (number, block) in self.blocks.range(pages.start / PAGES..=(pages.end - 1) / PAGES) {
            for page in common(&(number * PAGES..(number + 1) * PAGES), &pages) {
                let (_, index) = place(page);
                if let Some(slot) = backed(engine, block, index) {
                    each(page, slot);
                }
            }
        }
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

    /// Loads the pages of a run that have bytes of what is wanted, at most [`RUN`], and gives each to `each`, in any order.
    pub(crate) fn load_run(
        &self,
        engine: &Engine,
        run: Range<u64>,
        wanted: &Range<u64>,
        hands: &mut Hands,
        mut each: impl FnMut(u64, &Page),
    ) -> Result<(), ObjectError> {
        let Hands { scratch, pages, loaded } = hands;
        let mut slots = [None; RUN];
        for (slot, page) in slots.iter_mut().zip(run.clone()) {
            *slot = self.slot(engine, page).filter(|_| !self.there(page, wanted).is_empty());
        }
        while let Some(asked) = slots.iter().position(Option::is_some) {
            engine.load_run(&slots, asked, pages, loaded, scratch);
            for (at, page) in run.clone().enumerate() {
                match loaded[at].take() {
                    None => {}
                    Some(Ok(_)) => {
                        each(page, &pages[at]);
                        slots[at] = None;
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
        pages_of(&wanted).try_for_each(|page| {
            let part = common(&(page * PAGE..(page + 1) * PAGE), &wanted);
            let from = (part.start - offset) as usize;
            let new = &bytes[from..from + (part.end - part.start) as usize];
            self.write_page(of, page, part.clone(), new, hands)?;
            match how {
                Written::Clean => self.dirty.remove(part),
                Written::Dirty => self.dirty.add(part),
            }
            Ok(())
        })
    }

    /// Writes `new` to the bytes of `part`, which lie in one page.
    fn write_page(
        &mut self,
        of: &Objects,
        page: u64,
        part: Range<u64>,
        new: &[u8],
        hands: &mut Hands,
    ) -> Result<(), ObjectError> {
        let engine = of.engine();
        let (number, index) = place(page);
        let former = self.slot(engine, page);
        let mut bytes = [0; PAGE_SIZE];
        // Nothing of what it has stays if that is all in the part: what it has beyond the end does not count.
        let stays = |there: &Range<u64>| there.start < part.start || there.end > part.end;
        let all = page_range(page, self.len);
        if let Some(slot) = former.filter(|_| self.there(page, &all).iter().any(stays)) {
            engine
                .load(slot, &mut bytes, &mut hands.scratch)
                .map_err(|source| ObjectError::Unreadable { offset: part.start, source })?;
        }
        bytes[(part.start - page * PAGE) as usize..][..new.len()].copy_from_slice(new);

        let block = self.blocks.entry(number).or_insert_with(|| of.new_block());
        if let Err(error) = store(of, block, index, part.start, &bytes, hands) {
            if is_empty(engine, block) {
                self.drop_blocks(engine, &[number]);
            }
            return Err(error);
        }
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

    pub(crate) fn set_len(&mut self, engine: &Engine, len: u64) {
        if len > self.len {
            return self.lengthen(engine, len, None);
        }
        let kept = pages_of(&(0..len)).end;
        let gone = kept..pages_of(&(0..self.len)).end;
        self.release(engine, gone.clone());
        self.presence.forget(gone);
        self.dirty.remove(len..self.len);
        self.len = len;
        if let Some(last) = kept.checked_sub(1).filter(|last| self.slot(engine, *last).is_some())
            && !self.presence.shorten(last, len)
        {
            self.release(engine, last..kept);
        }
    }

    /// `range` lies before the end.
    pub(crate) fn punch(&mut self, engine: &Engine, range: &Range<u64>) {
        let pages = pages_of(range);
        let Some(last) = pages.end.checked_sub(1).filter(|_| !pages.is_empty()) else { return };
        let goes = |page| common(&page_range(page, self.len), range) == page_range(page, self.len);
        let start = pages.start + u64::from(!goes(pages.start));
        let whole = start..(pages.end - u64::from(!goes(last))).max(start);
        self.release(engine, whole.clone());
        self.presence.forget(whole.clone());
        self.dirty.remove(range.clone());
        // Of the first and the last page a part may stay.
        for page in [Some(pages.start), (last != pages.start).then_some(last)].into_iter().flatten() {
            let part = common(&page_range(page, self.len), range);
            if !whole.contains(&page)
                && self.slot(engine, page).is_some()
                && !self.presence.take(part, self.len)
            {
                self.release(engine, page..page + 1);
            }
        }
    }

    /// Lets these pages go, and their blocks if nothing is left in them.
    fn release(&mut self, engine: &Engine, pages: Range<u64>) {
        if pages.is_empty() {
            return;
        }
        let numbers = pages.start / PAGES..=(pages.end - 1) / PAGES;
        let mut empty = Vec::new();
        for (number, block) in self.blocks.range_mut(numbers) {
            let all = number * PAGES..(number + 1) * PAGES;
            let part = common(&all, &pages);
            if part == all {
                empty.push(*number);
                continue;
            }
            part.for_each(|page| block.release(engine, place(page).1));
            if is_empty(engine, block) {
                empty.push(*number);
            }
        }
        self.drop_blocks(engine, &empty);
    }

    fn drop_blocks(&mut self, engine: &Engine, numbers: &[u64]) {
        for block in numbers.iter().filter_map(|number| self.blocks.remove(number)) {
            block.dispose(engine);
        }
    }
}

/// The slot of a page that has bytes.
fn backed(engine: &Engine, block: &OwnerBlock, index: PageIndex) -> Option<SlotId> {
    block.slot(index).filter(|_| block.has_backing(engine, index))
}

/// Whether no page of it has bytes.
fn is_empty(engine: &Engine, block: &OwnerBlock) -> bool {
    !PageIndex::all().any(|index| block.has_backing(engine, index))
}

/// Puts a page into the swap space. If that fails, what the page had is as it was.
fn store(
    of: &Objects,
    block: &mut OwnerBlock,
    index: PageIndex,
    offset: u64,
    bytes: &Page,
    hands: &mut Hands,
) -> Result<(), ObjectError> {
    let engine = of.engine();
    // Others have it too, since a snapshot: a slot of its own takes the place of theirs, which is kept until that has its bytes.
    let shared = backed(engine, block, index).filter(|_| !block.is_sole(engine, index));
    if let Some(slot) = shared {
        engine.keep_slot(slot);
    }
    let done = stored(of, block, index, offset, bytes, hands);
    match shared {
        Some(slot) if done.is_err() => block.adopt(engine, index, slot),
        Some(slot) => engine.let_slot_go(slot),
        None => {}
    }
    done
}

fn stored(
    of: &Objects,
    block: &mut OwnerBlock,
    index: PageIndex,
    offset: u64,
    bytes: &Page,
    hands: &mut Hands,
) -> Result<(), ObjectError> {
    let slot =
        block.slot_for_store(of.engine(), index).map_err(|source| ObjectError::NoSlot { offset, source })?;
    let mut stored = of.engine().store(slot, bytes, &mut hands.scratch);
    for attempt in 0..ATTEMPTS {
        let Err(full) = &stored else { return Ok(()) };
        let made =
            of.make_room(full, attempt, hands).map_err(|source| ObjectError::Writeback { offset, source })?;
        // Also if nothing could be done: others may have made room.
        stored = of.engine().store(slot, bytes, &mut hands.scratch);
        // In every other attempt all is tried.
        if !made && attempt.is_multiple_of(2) {
            break;
        }
    }
    stored.map(drop).map_err(|source| ObjectError::NoRoom { offset, source })
}
