//! [`Object`]: reading and changing.

use crate::dirty::{Dirty, DirtyRanges};
use crate::error::ObjectError;
use crate::fetch::Flights;
use crate::hands::{Hands, RUN, Spare};
use crate::presence::{Presence, common, page_range, pages_of};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PAGES_PER_CLUSTER, Page, PageIndex, Resource, SlotId};
use vswap_engine::{Engine, EngineError, OwnerBlock, SEGMENT_BYTES, StoreError, WritebackError};

const PAGE: u64 = PAGE_SIZE as u64;
const PAGES: u64 = PAGES_PER_CLUSTER as u64;
/// How often room is made for one page before the write gives up: others may take what was made.
const ATTEMPTS: usize = 16;
/// Chunks of the pool that are packed at once to make room.
const CHUNKS_AT_ONCE: usize = 8;

/// The longest that an object can be: what a file can be (`loff_t`), in whole pages.
pub const MAX_LEN: u64 = i64::MAX as u64 / PAGE * PAGE;

/// Where objects are made: a group of an engine.
pub struct Objects {
    engine: Arc<Engine>,
    /// An empty block of the group: others are made of it, also when the group was removed and all of it is its parent's.
    first: Mutex<OwnerBlock>,
    spare: Spare,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("group", &self.first.lock().group()).finish_non_exhaustive()
    }
}

/// What a read gave.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Read {
    /// Bytes of the buffer that lie before the object's end; the rest of it is untouched.
    pub len: usize,
    /// Which of these are not there, as ranges of the object's bytes, in order; they were read as zeroes.
    pub missing: Vec<Range<u64>>,
}

/// A sparse sequence of bytes that ends with whoever holds it. Any number of threads may read it at once; a change waits for reads, and
/// reads for it.
#[derive(Debug)]
pub struct Object {
    of: Arc<Objects>,
    content: RwLock<Content>,
    flights: Flights,
}

#[derive(Debug, Default)]
pub(crate) struct Content {
    len: u64,
    /// By number of 2 MiB.
    blocks: BTreeMap<u64, OwnerBlock>,
    presence: Presence,
    dirty: DirtyRanges,
}

/// Whether what is written is to be stored elsewhere too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Clean,
    Dirty,
}

fn place(page: u64) -> (u64, PageIndex) {
    let index = PageIndex::new((page % PAGES) as usize).expect("below the pages of a cluster");
    (page / PAGES, index)
}

impl Objects {
    /// Objects whose pages are charged to this group. Somebody else calls [`Engine::maintain`] now and then.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn new(engine: Arc<Engine>, group: GroupId) -> Result<Arc<Self>, EngineError> {
        let first = Mutex::new(engine.owner_block(group)?);
        Ok(Arc::new(Self { engine, first, spare: Spare::default() }))
    }

    /// An object of no bytes.
    pub fn create(self: &Arc<Self>) -> Object {
        self.holding(Content::default())
    }

    fn holding(self: &Arc<Self>, content: Content) -> Object {
        Object { of: Arc::clone(self), content: RwLock::new(content), flights: Flights::default() }
    }

    fn new_block(&self) -> OwnerBlock {
        self.first.lock().fork(&self.engine)
    }

    /// Makes room for a page that found none. Tells whether something was done.
    fn make_room(&self, full: &StoreError, hands: &mut Hands) -> Result<bool, WritebackError> {
        let group = match full {
            StoreError::PoolFull { .. } => GroupId::ROOT,
            StoreError::GroupFull { full, .. } if full.resource == Resource::Pool => full.group,
            // More pages in the swap space than it may have: no writeback helps.
            _ => return Ok(false),
        };
        // What goes leaves holes of its own size class; only whole chunks are room for every page.
        if group == GroupId::ROOT && self.engine.compact(CHUNKS_AT_ONCE, 2) > 0 {
            return Ok(true);
        }
        if !self.engine.has_tiers() {
            return Ok(false);
        }
        let want = ByteCount::new(SEGMENT_BYTES as u64);
        Ok(!self.engine.writeback_of(group, want, &mut hands.scratch)?.pages.is_zero())
    }
}

impl Object {
    /// Bytes that it has, there or not.
    pub fn len(&self) -> u64 {
        self.content.read().len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads what is there from byte `offset` on; what is not reads as zeroes and is named. Pages that were written next to each other come
    /// with one read of a device.
    ///
    /// # Errors
    /// When a page cannot be read back; the buffer's content means nothing then.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Read, ObjectError> {
        let content = self.content.read();
        let wanted = offset..offset.saturating_add(buf.len() as u64).min(content.len).max(offset);
        let buf = &mut buf[..(wanted.end - offset) as usize];
        let mut missing = Vec::new();
        buf.fill(0);
        self.of.spare.lend(&self.of.engine, |hands| {
            let pages = pages_of(&wanted);
            let mut first = pages.start;
            while first < pages.end {
                let run = first..(first + RUN as u64).min(pages.end);
                content.load_run(&self.of.engine, run.clone(), &wanted, hands, |page, bytes| {
                    for there in content.there(page, &wanted) {
                        let from = (there.start - page * PAGE) as usize;
                        let length = (there.end - there.start) as usize;
                        buf[(there.start - offset) as usize..][..length]
                            .copy_from_slice(&bytes[from..from + length]);
                    }
                })?;
                first = run.end;
            }
            Ok(())
        })?;
        content.each_missing(&self.of.engine, &wanted, |range| missing.push(range));
        Ok(Read { len: buf.len(), missing })
    }

    /// Writes bytes from `offset` on; the object is as long as it needs to be afterwards. They need not be stored elsewhere: if they were dirty, they are not any more.
    ///
    /// # Errors
    /// [`ObjectError::TooLong`], with nothing written. When there is no room, or a page of which a part is to be written cannot be read back: the
    /// error names the first byte that was not written, and those before it were.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), ObjectError> {
        self.write_as(Written::Clean, offset, bytes)
    }

    /// As [`Object::write`]; what is written is dirty until the object's owner has stored it elsewhere and says so by [`Object::cleaned`].
    ///
    /// # Errors
    /// As there.
    pub fn write_dirty(&self, offset: u64, bytes: &[u8]) -> Result<(), ObjectError> {
        self.write_as(Written::Dirty, offset, bytes)
    }

    fn write_as(&self, how: Written, offset: u64, bytes: &[u8]) -> Result<(), ObjectError> {
        let end = offset.saturating_add(bytes.len() as u64);
        if end > MAX_LEN {
            return Err(ObjectError::TooLong { end });
        }
        let mut content = self.content.write();
        self.of.spare.lend(&self.of.engine, |hands| content.write(&self.of, how, offset, bytes, hands))
    }

    /// Writes, where bytes are missing, what `bytes` has for them, if `valid` says so at the moment at which nobody else changes anything.
    pub(crate) fn change_missing<'b>(
        &self,
        range: Range<u64>,
        valid: impl FnOnce(&Self) -> bool,
        bytes: impl Fn(&Range<u64>) -> &'b [u8],
    ) -> Result<(), ObjectError> {
        let mut content = self.content.write();
        if !valid(self) {
            return Ok(());
        }
        let (mut gaps, range) = (Vec::new(), common(&range, &(0..content.len)));
        content.each_missing(&self.of.engine, &range, |gap| gaps.push(gap));
        self.of.spare.lend(&self.of.engine, |hands| {
            let mut fill =
                |gap: Range<u64>| content.write(&self.of, Written::Clean, gap.start, bytes(&gap), hands);
            gaps.into_iter().try_for_each(&mut fill)
        })
    }

    /// What is missing of a range, and what `also` gives before anything can change.
    pub(crate) fn look_at_missing<T>(
        &self,
        range: &Range<u64>,
        also: impl FnOnce() -> T,
    ) -> (T, Vec<Range<u64>>) {
        let content = self.content.read();
        let (mut gaps, range) = (Vec::new(), common(range, &(0..content.len)));
        content.each_missing(&self.of.engine, &range, |gap| gaps.push(gap));
        (also(), gaps)
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.flights
    }

    /// The ranges that are dirty, in order.
    pub fn dirty(&self) -> Vec<Dirty> {
        self.content.write().dirty.ask()
    }

    /// Whether anything is dirty.
    pub fn is_dirty(&self) -> bool {
        !self.content.read().dirty.is_empty()
    }

    /// What was dirty has been stored elsewhere, as it was read after [`Object::dirty`] told of it. What was written to that range since then stays dirty.
    pub fn cleaned(&self, stored: &Dirty) {
        self.content.write().dirty.clean(stored);
    }

    /// Ends the object there: what lies behind is cut off, or what is new is not there.
    ///
    /// # Errors
    /// [`ObjectError::TooLong`], with nothing changed.
    pub fn set_len(&self, len: u64) -> Result<(), ObjectError> {
        if len > MAX_LEN {
            return Err(ObjectError::TooLong { end: len });
        }
        let mut content = self.content.write();
        self.flights.void(&(len..u64::MAX));
        content.set_len(&self.of.engine, len);
        Ok(())
    }

    /// Gives up the bytes of a range, dirty ones too. The object is as long as before.
    pub fn punch(&self, range: Range<u64>) {
        let mut content = self.content.write();
        self.flights.void(&range);
        let range = common(&range, &(0..content.len));
        content.punch(&self.of.engine, &range);
    }

    /// The ranges of bytes that are there, of those in `range`; neighbours are one.
    pub fn present(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let content = self.content.read();
        let mut found = Joined::default();
        content.each_present(&self.of.engine, &range, |range| found.add(range));
        found.0
    }

    /// The ranges of bytes before its end that are not there, of those in `range`.
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.look_at_missing(&range, || ()).1
    }

    /// A second object of the same bytes, none of them dirty, at a cost of some words for each 2 MiB (4 KiB for one that was changed since an
    /// earlier snapshot); each byte is kept once until one of the two changes it.
    #[must_use]
    pub fn snapshot(&self) -> Object {
        let mut content = self.content.write();
        let Content { len, blocks, presence, .. } = &mut *content;
        let blocks =
            blocks.iter_mut().map(|(number, block)| (*number, block.fork(&self.of.engine))).collect();
        self.of.holding(Content { len: *len, blocks, presence: presence.clone(), ..Content::default() })
    }

    /// Looks whether what is known of its bytes fits together. For tests, and for whoever doubts.
    ///
    /// # Errors
    /// What does not.
    pub fn audit(&self) -> Result<(), String> {
        let content = self.content.read();
        content.presence.audit(content.len, |page| content.slot(&self.of.engine, page).is_some())
    }

    /// Does something with what it has now.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Engine, &Content) -> T) -> T {
        look(&self.of.engine, &self.content.read())
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        for block in std::mem::take(&mut self.content.get_mut().blocks).into_values() {
            block.dispose(&self.of.engine);
        }
    }
}

/// Ranges in order, of which neighbours are one.
#[derive(Default)]
struct Joined(Vec<Range<u64>>);

impl Joined {
    fn add(&mut self, range: Range<u64>) {
        match self.0.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.0.push(range),
        }
    }
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The slot of a page that has bytes.
    pub(crate) fn slot(&self, engine: &Engine, page: u64) -> Option<SlotId> {
        let (block, index) = place(page);
        let block = self.blocks.get(&block)?;
        block.slot(index).filter(|_| block.has_backing(engine, index))
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
                if let Some(slot) = block.slot(index).filter(|_| block.has_backing(engine, index)) {
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
    fn each_missing(&self, engine: &Engine, range: &Range<u64>, mut each: impl FnMut(Range<u64>)) {
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
    fn there(&self, page: u64, range: &Range<u64>) -> Vec<Range<u64>> {
        self.presence.there(&common(&page_range(page, self.len), range))
    }

    /// Loads the pages of a run that have bytes of what is wanted, at most [`RUN`], and gives each to `each`, in any order.
    fn load_run(
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
    fn write(
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
        let engine = &of.engine;
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

    fn set_len(&mut self, engine: &Engine, len: u64) {
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
    fn punch(&mut self, engine: &Engine, range: &Range<u64>) {
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
    let engine = &of.engine;
    // Others have it too, since a snapshot: a slot of its own takes the place of theirs, which is kept until that has its bytes.
    let shared = block.slot(index).filter(|slot| {
        block.has_backing(engine, index) && !block.is_sole(engine, index) && {
            engine.keep_slot(*slot);
            true
        }
    });
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
        block.slot_for_store(&of.engine, index).map_err(|source| ObjectError::NoSlot { offset, source })?;
    let mut stored = of.engine.store(slot, bytes, &mut hands.scratch);
    for _ in 0..ATTEMPTS {
        let Err(full) = &stored else { return Ok(()) };
        let made = of.make_room(full, hands).map_err(|source| ObjectError::Writeback { offset, source })?;
        // Also if nothing could be done: others may have made room.
        stored = of.engine.store(slot, bytes, &mut hands.scratch);
        if !made {
            break;
        }
    }
    stored.map(drop).map_err(|source| ObjectError::NoRoom { offset, source })
}
