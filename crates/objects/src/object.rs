//! [`Object`]: reading and changing.

use crate::content::{Content, Written};
use crate::dirty::Dirty;
use crate::error::ObjectError;
use crate::fetch::Flights;
use crate::hands::{Hands, RUN, Spare};
use crate::presence::{PAGE, common, pages_of};
use crate::slots::Hot;
use crate::slots::shelves::Shelves;
use crate::store::keeping::{Keeping, changing};
use parking_lot::{Mutex, RwLock};
use std::fmt;
use std::num::NonZero;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::thread;
use vswap_core::{ByteCount, GroupId, Resource, SlotId};
use vswap_engine::{Engine, EngineError, OwnerBlock, SEGMENT_BYTES, StoreError, WritebackError};

/// Chunks of the pool that are packed at once to make room.
const CHUNKS_AT_ONCE: usize = 8;

/// The longest that an object can be: what a file can be (`loff_t`), in whole pages.
pub const MAX_LEN: u64 = i64::MAX as u64 / PAGE * PAGE;

/// Where objects are made: a group of an engine.
pub struct Objects {
    engine: Arc<Engine>,
    /// Where those that outlive the run have their slots.
    shelves: Option<Shelves>,
    /// Those of them that are read often.
    hot: Hot,
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
    /// Of one that outlives the run.
    keeping: Option<Keeping>,
}

impl Objects {
    /// Objects whose pages are charged to this group. Somebody else calls [`Engine::maintain`] now and then.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn new(engine: Arc<Engine>, group: GroupId) -> Result<Arc<Self>, EngineError> {
        Self::of(engine, group, None, Hot::default())
    }

    /// The same, of objects that outlive the run.
    pub(crate) fn kept(
        engine: Arc<Engine>,
        group: GroupId,
        shelves: Shelves,
        hot: Hot,
    ) -> Result<Arc<Self>, EngineError> {
        Self::of(engine, group, Some(shelves), hot)
    }

    fn of(
        engine: Arc<Engine>,
        group: GroupId,
        shelves: Option<Shelves>,
        hot: Hot,
    ) -> Result<Arc<Self>, EngineError> {
        let first = Mutex::new(engine.owner_block(group)?);
        Ok(Arc::new(Self { engine, shelves, hot, first, spare: Spare::default() }))
    }

    /// An object of no bytes.
    pub fn create(self: &Arc<Self>) -> Object {
        self.holding(Content::default(), None)
    }

    pub(crate) fn holding(self: &Arc<Self>, content: Content, keeping: Option<Keeping>) -> Object {
        let (of, content) = (Arc::clone(self), RwLock::new(content));
        Object { of, content, flights: Flights::default(), keeping }
    }

    pub(crate) fn group(&self) -> GroupId {
        self.first.lock().group()
    }

    /// Does something with a pair of hands.
    fn lend<T>(&self, work: impl FnOnce(&mut Hands) -> T) -> T {
        self.spare.lend(&self.engine, self.shelves.is_some(), work)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Of a store's.
    pub(crate) fn shelves(&self) -> &Shelves {
        self.shelves.as_ref().expect("only objects that outlive the run have slots on shelves")
    }

    pub(crate) fn hot(&self) -> &Hot {
        &self.hot
    }

    /// Lets the page of a slot of a store's go.
    pub(crate) fn empty_kept(&self, slot: SlotId) {
        self.engine.empty_kept(slot);
        self.hot.forget(slot);
    }

    pub(crate) fn new_block(&self) -> OwnerBlock {
        self.first.lock().fork(&self.engine)
    }

    /// Makes room for a page that found none, `attempt` times before. Tells whether something was done.
    pub(crate) fn make_room(
        &self,
        full: &StoreError,
        attempt: usize,
        hands: &mut Hands,
    ) -> Result<bool, WritebackError> {
        let group = match full {
            StoreError::PoolFull { .. } => GroupId::ROOT,
            StoreError::GroupFull { full, .. } if full.resource == Resource::Pool => full.group,
            // More pages in the swap space than it may have: no writeback helps.
            _ => return Ok(false),
        };
        // What goes leaves holes of its own size class; only whole chunks are room for every page. In turns, since what was packed may have given
        // none: the last entries of a chunk find no place elsewhere.
        if attempt.is_multiple_of(2) && group == GroupId::ROOT && self.engine.compact(CHUNKS_AT_ONCE, 2) > 0 {
            return Ok(true);
        }
        if !self.engine.has_tiers() {
            return Ok(false);
        }
        let want = ByteCount::new(SEGMENT_BYTES as u64);
        Ok(!self.engine.writeback_of(group, want, &mut hands.scratch)?.pages.is_zero())
    }
}

/// Bytes that are worth a thread.
const PART: usize = 256 << 10;

/// Threads that read so many bytes.
fn parts(bytes: usize) -> usize {
    static CPUS: OnceLock<usize> = OnceLock::new();
    let cpus = || CPUS.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get));
    if bytes < 2 * PART { 1 } else { (bytes / PART).min(*cpus()) }
}

impl Object {
    /// Bytes that it has, there or not.
    pub fn len(&self) -> u64 {
        self.content.read().len()
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
        let wanted = offset..offset.saturating_add(buf.len() as u64).min(content.len()).max(offset);
        let buf = &mut buf[..(wanted.end - offset) as usize];
        let parts = match parts(buf.len()) {
            // What is in memory is as fast alone.
            2.. if !content.is_on_a_device(&self.of, offset / PAGE) => 1,
            parts => parts,
        };
        self.read_parts(&content, wanted.clone(), buf, parts)?;
        let mut missing = Vec::new();
        content.each_missing(&self.of.engine, &wanted, |range| {
            buf[(range.start - offset) as usize..(range.end - offset) as usize].fill(0);
            missing.push(range);
        });
        Ok(Read { len: buf.len(), missing })
    }

    /// Reads what is there of a range, by as many threads as there are parts: while one waits for the device, another unpacks.
    fn read_parts(
        &self,
        content: &Content,
        wanted: Range<u64>,
        buf: &mut [u8],
        parts: usize,
    ) -> Result<(), ObjectError> {
        if parts < 2 {
            return self.read_part(content, &wanted, buf);
        }
        // Before the object's end, so it is no overflow.
        let middle = (wanted.start + (buf.len() / parts) as u64).next_multiple_of(PAGE);
        if middle >= wanted.end {
            return self.read_part(content, &wanted, buf);
        }
        let (first, rest) = buf.split_at_mut((middle - wanted.start) as usize);
        let both = thread::scope(|scope| {
            let read = || self.read_part(content, &(wanted.start..middle), first);
            let other = thread::Builder::new().name("read".into()).spawn_scoped(scope, read).ok()?;
            let rest = self.read_parts(content, middle..wanted.end, rest, parts - 1);
            let first = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Some(first.and(rest))
        });
        // Where there can be no other thread, this one reads all.
        both.unwrap_or_else(|| self.read_part(content, &wanted, buf))
    }

    fn read_part(&self, content: &Content, wanted: &Range<u64>, buf: &mut [u8]) -> Result<(), ObjectError> {
        self.of.lend(|hands| {
            let pages = pages_of(wanted);
            let mut first = pages.start;
            while first < pages.end {
                let run = first..(first + RUN as u64).min(pages.end);
                content.load_run(&self.of, run.clone(), wanted, hands, |page, bytes| {
                    for there in content.there(page, wanted) {
                        let from = (there.start - page * PAGE) as usize;
                        let length = (there.end - there.start) as usize;
                        buf[(there.start - wanted.start) as usize..][..length]
                            .copy_from_slice(&bytes[from..from + length]);
                    }
                })?;
                first = run.end;
            }
            Ok(())
        })
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
        let _changing = changing(self);
        let mut content = self.content.write();
        let written = self.of.lend(|hands| content.write(&self.of, how, offset, bytes, hands));
        self.note_dirty(&content);
        written
    }

    /// Writes, where bytes are missing, what `bytes` has for them, if `valid` says so at the moment at which nobody else changes anything.
    pub(crate) fn change_missing<'b>(
        &self,
        range: Range<u64>,
        valid: impl FnOnce(&Self) -> bool,
        bytes: impl Fn(&Range<u64>) -> &'b [u8],
    ) -> Result<(), ObjectError> {
        let _changing = changing(self);
        let mut content = self.content.write();
        if !valid(self) {
            return Ok(());
        }
        let (mut gaps, range) = (Vec::new(), common(&range, &(0..content.len())));
        content.each_missing(&self.of.engine, &range, |gap| gaps.push(gap));
        self.of.lend(|hands| {
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
        let (mut gaps, range) = (Vec::new(), common(range, &(0..content.len())));
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
        let _changing = changing(self);
        let mut content = self.content.write();
        content.dirty.clean(stored);
        self.note_dirty(&content);
    }

    /// Ends the object there: what lies behind is cut off, or what is new is not there.
    ///
    /// # Errors
    /// [`ObjectError::TooLong`], with nothing changed.
    pub fn set_len(&self, len: u64) -> Result<(), ObjectError> {
        if len > MAX_LEN {
            return Err(ObjectError::TooLong { end: len });
        }
        let _changing = changing(self);
        let mut content = self.content.write();
        self.flights.void(&(len..u64::MAX));
        content.set_len(&self.of, len);
        self.note_dirty(&content);
        Ok(())
    }

    /// Gives up the bytes of a range, dirty ones too. The object is as long as before.
    pub fn punch(&self, range: Range<u64>) {
        let _changing = changing(self);
        let mut content = self.content.write();
        self.flights.void(&range);
        let range = common(&range, &(0..content.len()));
        content.punch(&self.of, &range);
        self.note_dirty(&content);
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
    ///
    /// # Errors
    /// [`ObjectError::Kept`] for an object of a store: what is shared cannot be kept.
    pub fn snapshot(&self) -> Result<Object, ObjectError> {
        let content = self.content.write().snapshot(&self.of.engine);
        content.map(|content| self.of.holding(content, None)).ok_or(ObjectError::Kept)
    }

    /// What is dirty may have changed.
    fn note_dirty(&self, content: &Content) {
        if let Some(keeping) = &self.keeping {
            keeping.claim.set_dirty(!content.dirty.is_empty());
        }
    }

    /// Gives up a page that is not dirty, if nobody is busy with the object and it `may` still. Tells whether it has.
    pub(crate) fn give_up(&self, page: u64, may: impl FnOnce() -> bool) -> bool {
        let Some(mut content) = self.content.try_write() else { return false };
        let given = may() && content.give_up(&self.of, page);
        if given {
            // What was asked for before this page was written is older than what it had.
            self.flights.void(&(page * PAGE..(page + 1) * PAGE));
        }
        given
    }

    pub(crate) fn keeping(&self) -> Option<&Keeping> {
        self.keeping.as_ref()
    }

    /// Looks whether what is known of its bytes fits together. For tests, and for whoever doubts.
    ///
    /// # Errors
    /// What does not.
    pub fn audit(&self) -> Result<(), String> {
        let content = self.content.read();
        content.audit(&self.of.engine)
    }

    /// Does something with what it has now.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Engine, &Content) -> T) -> T {
        look(&self.of.engine, &self.content.read())
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let content = std::mem::take(self.content.get_mut());
        // What is found again is not let go of.
        match self.keeping.as_ref().is_none_or(Keeping::is_gone) {
            true => content.dispose(&self.of),
            false => content.let_out(&self.of),
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
