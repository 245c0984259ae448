//! Removing a tier: what is on it goes to the others while everything runs.
//!
//! Segments go as they are ([`SegmentMover`]): a copy is written elsewhere and one row of the table changes, whoever and how many own the
//! pages. So the cost is that of the bytes. Those of which hardly anything lives are packed together instead, as in cleaning; and so are the
//! readable entries of those that cannot be copied whole. What no other tier takes comes back to the pool (`comeback.rs`), as far as the caller has memory for
//! that. Pages go on being read, released and written back to the other tiers meanwhile.
//! Until a segment has arrived it is read where it was, so the removal may end at any moment, by an error or because it is
//! cancelled: the tier then goes on with what is left.

use crate::clean::Gathered;
use crate::disk::locator;
use crate::engine::Engine;
use crate::error::{RemoveTierError, WritebackError};
use crate::losses::Reason;
use std::ops::ControlFlow;
use std::time::Duration;
use vswap_core::{Backing, ByteCount, ClusterId, PageIndex, SlotCell, SlotId};
use vswap_segment::{
    AlignedBuf, Appended, BLOCK, Candidate, ClassId, MAX_ENTRY_BLOCKS, Purpose, ReadError, SEGMENT_BYTES,
    SegmentId, SegmentMover, Started, TierId,
};

/// Segments of which less than this lives are packed together.
pub(crate) const SPARSE: f64 = 0.5;
/// How often a removal waits for room that is just being given back to the file system, a moment each time.
const PATIENCE: usize = 1000;
const A_MOMENT: Duration = Duration::from_millis(1);
/// How long a removal waits for others before it asks whether it is to go on.
const OTHERS: Duration = Duration::from_millis(20);

/// How far the removal of a tier has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Emptying {
    /// Bytes of segments that have left.
    pub moved: ByteCount,
    /// Bytes of segments that are still on it.
    pub left: ByteCount,
    /// What goes next comes back to the pool.
    pub to_memory: bool,
}

/// What a removal has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Emptied {
    /// Segments that went as they are.
    pub segments: u64,
    /// Bytes copied for that, those of pages that came back to the pool among them.
    pub bytes: ByteCount,
    /// Pages that came back to the pool.
    pub came_back: u64,
    /// Pages lost with it: only if that was wanted.
    pub lost: u64,
}

/// What becomes of pages that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// They stay where they are, and with them the tier: its device may get better.
    Keep,
    /// They are lost, each for its readers only: SIGBUS, never other bytes.
    Lose,
}

/// How a tier is removed.
#[derive(Clone, Copy)]
pub struct Removing<'a> {
    /// What becomes of pages that cannot be read.
    pub unreadable: Unreadable,
    /// How much the pool may grow by, as things stand, for what no other tier takes: asked at the beginning, and before each segment that comes back.
    /// Whoever watches has room made for it meanwhile.
    pub memory: &'a dyn Fn() -> ByteCount,
}

impl From<Unreadable> for Removing<'_> {
    /// Nothing comes back to the pool.
    fn from(unreadable: Unreadable) -> Self {
        Self { unreadable, memory: &|| ByteCount::ZERO }
    }
}

/// One removal.
struct Removal<'a> {
    engine: &'a Engine,
    tier: TierId,
    watch: &'a mut dyn FnMut(Emptying) -> ControlFlow<()>,
    done: Emptied,
    /// What the pool may still grow by.
    memory: &'a dyn Fn() -> ByteCount,
    /// No other tier takes any more.
    full: bool,
    /// What could not be read at the first attempt.
    unreadable: Option<ReadError>,
    /// What another tier said that did not take a copy.
    failed: Option<std::io::Error>,
    /// The same, though whatever could be read has found a place since: why there is no room, if that is wanted later.
    said: Option<std::io::Error>,
}

impl Engine {
    /// Empties a tier and removes it (swapoff). `watch` is called before each segment (2 MiB) and may end it.
    ///
    /// # Errors
    /// [`RemoveTierError`]: refused at once if the others, and memory, have no room for what lives there. What has been moved by then stays moved, the tier goes
    /// on with the rest.
    pub fn remove_tier<'h>(
        &self,
        tier: TierId,
        how: impl Into<Removing<'h>>,
        watch: &mut dyn FnMut(Emptying) -> ControlFlow<()>,
    ) -> Result<Emptied, RemoveTierError> {
        let Removing { unreadable, memory } = how.into();
        let Some(_alone) = self.disk.removing.try_lock() else { return Err(RemoveTierError::Busy) };
        let (before, roomy) = self.disk.store().drain_tier(tier, SPARSE, memory().get())?;
        let mut removal = Removal {
            engine: self,
            tier,
            watch,
            done: Emptied::default(),
            memory,
            full: false,
            unreadable: None,
            failed: None,
            said: None,
        };
        let result = removal
            .wait_for_others()
            .and_then(|()| removal.empty(unreadable, if roomy { SPARSE } else { f64::INFINITY }))
            .and_then(|()| removal.finish());
        match result {
            Ok(()) => Ok(removal.done),
            Err(error) => {
                self.disk.store().set_state(tier, before)?;
                Err(error)
            }
        }
    }

    /// Every page that is in this segment of a tier is lost. Looks at every slot there is.
    fn lose_segment(&self, tier: TierId, segment: SegmentId) -> u64 {
        // Numbers are given out by the one writer. Without him none that dies of this is another segment's before all slots were looked at.
        let _alone = self.disk.writing();
        let store = self.disk.store();
        let mut lost = 0;
        for cluster in (0..self.space.end()).map(ClusterId::new) {
            if store.tier_of(segment) != Some(tier) {
                break;
            }
            for slot in PageIndex::all().map(|page| cluster.slot(page)) {
                lost += self.space.slot(slot).map_or(0, |cell| u64::from(self.lose(slot, cell, segment)));
            }
        }
        lost
    }

    fn lose(&self, slot: SlotId, cell: SlotCell<'_>, segment: SegmentId) -> bool {
        let Some(addr) = self.place_in(slot, segment) else { return false };
        // As long as it lives there, and before the word says that it is lost: whoever sees that finds why.
        self.losses.remember(slot, self.lost_at(Some(addr), Reason::GivenUp));
        let (here, now) = (Backing::Segment(locator(addr)), self.generations.now());
        let changed =
            cell.update(|word| (word.backing() == here).then(|| word.with_backing(Backing::Poisoned, now)));
        if let Ok(old) = changed {
            self.free_backing(slot, old);
            crate::stats::Counters::add(&self.counters.lost, 1);
        }
        changed.is_ok()
    }
}

impl Removal<'_> {
    /// Who had begun a segment on the tier, or was taking one there from a tier above, has written it when this returns.
    fn wait_for_others(&mut self) -> Result<(), RemoveTierError> {
        let disk = &self.engine.disk;
        while disk.demoting.try_lock_for(OTHERS).is_none() {
            self.go_on()?;
        }
        while disk.writing_within(OTHERS).is_none() {
            self.go_on()?;
        }
        // Nobody else begins anything there.
        let _ = self.engine.take_in_what_was_left();
        Ok(())
    }

    fn empty(&mut self, unreadable: Unreadable, sparse: f64) -> Result<(), RemoveTierError> {
        let depth = self.engine.disk.depth;
        let _lent = self.engine.disk.lend((depth + 1) * SEGMENT_BYTES);
        self.pack_sparse(sparse)?;
        let mut mover = self.engine.disk.store().mover(depth);
        // A destination that failed takes no more, so another pass finds another.
        while self.pass(&mut mover)? {}
        if !self.full && self.left() > ByteCount::ZERO {
            self.salvage()?;
        }
        for segment in self.segments() {
            if !self.full {
                self.rescue(segment)?;
            }
        }
        if self.full && self.left() > ByteCount::ZERO {
            self.take_back()?;
        }
        // What was full, or failed, is of no matter where memory took the rest.
        let failed = self.failed.take().filter(|_| !self.full);
        match (self.unreadable.take(), failed) {
            _ if self.left() == ByteCount::ZERO => Ok(()),
            (_, Some(source)) => Err(self.io(source)),
            (Some(source), None) if unreadable == Unreadable::Keep => Err(self.give_up(source)),
            (Some(_), None) => {
                self.lose_the_rest();
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    fn left(&self) -> ByteCount {
        ByteCount::new(self.engine.disk.store().segments_on(self.tier) * SEGMENT_BYTES as u64)
    }

    fn go_on(&mut self) -> Result<(), RemoveTierError> {
        let now = Emptying { moved: self.done.bytes, left: self.left(), to_memory: self.full };
        match (self.watch)(now) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(self.cancelled()),
        }
    }

    fn cancelled(&self) -> RemoveTierError {
        RemoveTierError::Cancelled { tier: self.tier, left: self.left() }
    }

    fn io(&self, source: std::io::Error) -> RemoveTierError {
        RemoveTierError::Io { tier: self.tier, left: self.left(), source }
    }

    /// No tier takes any: since one has failed, or has said that it is full, if one has.
    fn no_room(&mut self) -> RemoveTierError {
        match self.failed.take().or(self.said.take()) {
            Some(source) => self.io(source),
            None => RemoveTierError::NoRoom { tier: self.tier, left: self.left() },
        }
    }

    /// Those that are left, in the order in which they go: who has least room elsewhere first.
    fn segments(&self) -> Vec<SegmentId> {
        let store = self.engine.disk.store();
        let order = store.classes_on(self.tier);
        let next = |from: usize| store.next_on(self.tier, from);
        let all = std::iter::successors(next(0), |last| next(last.segment.get() as usize + 1));
        let mut all: Vec<Candidate> = all.collect();
        all.sort_by_key(|found| order.iter().position(|class| *class == found.class));
        all.into_iter().map(|found| found.segment).collect()
    }

    /// Packs what lives in the segments of which less than `sparse` lives, as long as that gets on: what cannot be read, or finds no
    /// room, may still be moved whole.
    fn pack_sparse(&mut self, sparse: f64) -> Result<(), RemoveTierError> {
        let (disk, tier) = (&self.engine.disk, self.tier);
        for class in disk.store().classes_on(tier) {
            while let Some(first) = disk.store().pick_sparse_on(tier, class, sparse) {
                disk.store().stop_cleaning(first.segment);
                self.go_on()?;
                let gathered = self.gather(|_| disk.store().pick_sparse_on(tier, class, sparse));
                if gathered.is_none_or(|gathered| gathered.copied == 0) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// See [`Engine::gather`]. If it could not be written either, the next may find another tier.
    fn gather(&mut self, next: impl FnMut(Option<ClassId>) -> Option<Candidate>) -> Option<Gathered> {
        let disk = &self.engine.disk;
        let mut writing = disk.writing();
        let gathered = self.engine.gather(disk, &mut writing, Purpose::Migration, next);
        disk.put_buffers_away(&mut writing);
        drop(writing);
        disk.store().trim_tier(self.tier, false);
        gathered.unwrap_or_else(|error| {
            self.note(error);
            Some(Gathered::default())
        })
    }

    fn note(&mut self, error: WritebackError) {
        if let WritebackError::Io { source } = error {
            self.failed = Some(source);
        }
    }

    /// Starts to move every segment once. Tells whether another pass may do more: a tier has failed and takes no more, so others are asked.
    fn pass(&mut self, mover: &mut SegmentMover) -> Result<bool, RemoveTierError> {
        let mut failed = None;
        let mut no_room = false;
        let mut stopped = Ok(());
        for segment in self.segments() {
            stopped = self.go_on();
            if stopped.is_err() || no_room {
                break;
            }
            if !mover.has_room() {
                self.settle(mover, &mut failed)?;
            }
            match mover.start(segment, Purpose::Migration).map_err(|error| self.io(error))? {
                Started::UnderWay | Started::Gone => {}
                Started::NoRoom => no_room = true,
                Started::Unreadable(error) => drop(self.unreadable.get_or_insert(error)),
            }
        }
        while self.settle(mover, &mut failed)? {}
        // What was under way then has arrived by now.
        stopped.map_err(|_| self.cancelled())?;
        if self.left() == ByteCount::ZERO {
            return Ok(false);
        }
        self.full = no_room;
        match failed {
            // Full before its time: it is passed over from now on, and there may be others. If not, that is why.
            Some(source) => {
                self.failed = Some(source);
                Ok(!no_room)
            }
            None if no_room => Ok(false),
            None => {
                self.said = self.failed.take().or(self.said.take());
                Ok(false)
            }
        }
    }

    /// Waits for one move. False if none is under way.
    fn settle(
        &mut self,
        mover: &mut SegmentMover,
        failed: &mut Option<std::io::Error>,
    ) -> Result<bool, RemoveTierError> {
        let Some(moved) = mover.wait().map_err(|error| self.io(error))? else { return Ok(false) };
        match moved.result {
            Ok(true) => {
                // The destination may be on the same file system.
                self.engine.disk.store().trim_tier(self.tier, false);
                self.done.segments += 1;
                self.done.bytes = self.done.bytes.saturating_add(ByteCount::new(moved.bytes as u64));
            }
            // It died, which is as good.
            Ok(false) => {}
            Err(error) => *failed = Some(error),
        }
        Ok(true)
    }

    /// Copies what can be read of a segment whose own list of entries cannot be: whoever has a page in it knows where. Looks at every slot
    /// there is.
    fn rescue(&mut self, segment: SegmentId) -> Result<(), RemoveTierError> {
        let (engine, disk) = (self.engine, &self.engine.disk);
        let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
        let mut slots = (0..engine.space.end())
            .map(ClusterId::new)
            .flat_map(|c| PageIndex::all().map(move |p| c.slot(p)))
            .peekable();
        loop {
            self.go_on()?;
            let mut writing = disk.writing();
            let Some(found) = disk.store().usage(segment) else { return Ok(()) };
            let begun = disk.store().begin(Purpose::Migration, found.class, writing.buffer());
            let Ok(mut builder) = begun else {
                self.full = true;
                return Ok(());
            };
            let mut moved = Vec::new();
            while let Some(&slot) = slots.peek() {
                if let Some(addr) = engine.place_in(slot, segment)
                    && let Ok(entry) = disk.store().read_entry(addr, slot, &mut buf)
                {
                    match builder.append(slot, entry.tag, entry.bytes) {
                        Appended::At(_) => moved.push(addr),
                        Appended::NoRoom | Appended::TooLong => break,
                    }
                }
                slots.next();
            }
            let full = slots.peek().is_some();
            let written = engine.write_cleaned(&mut writing, builder, &moved);
            disk.put_buffers_away(&mut writing);
            drop(writing);
            if let Err(error) = written {
                self.note(error);
            }
            if !full || moved.is_empty() {
                return Ok(());
            }
        }
    }

    /// Copies entry by entry what can be read of segments that could not be read whole.
    fn salvage(&mut self) -> Result<(), RemoveTierError> {
        let store = self.engine.disk.store();
        let mut rest = self.segments().into_iter().peekable();
        while rest.peek().is_some() {
            self.go_on()?;
            // One at a time: what is in one fits one.
            let mut taken = 0;
            let copied = self.gather(|_| {
                taken += 1;
                (taken == 1).then(|| rest.by_ref().find_map(|segment| store.pick(segment)))?
            });
            if copied.is_none() {
                self.full = true;
                break;
            }
        }
        Ok(())
    }

    /// Takes what is left into the pool, a segment at a time, as far as there is memory for that.
    fn take_back(&mut self) -> Result<(), RemoveTierError> {
        let (engine, disk) = (self.engine, &self.engine.disk);
        let _lent = disk.lend(SEGMENT_BYTES);
        let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
        for segment in self.segments() {
            self.go_on()?;
            let lives = disk.store().usage(segment).map_or(0, |found| found.live_bytes);
            if lives > (self.memory)().get() {
                return Err(self.no_room());
            }
            let came = engine.take_back(segment, &mut buf);
            self.done.came_back += came.pages;
            self.done.bytes = self.done.bytes.saturating_add(ByteCount::new(came.bytes));
            disk.store().trim_tier(self.tier, false);
            if came.full {
                return Err(self.no_room());
            }
            self.unreadable = self.unreadable.take().or(came.unread);
        }
        Ok(())
    }

    fn give_up(&self, source: ReadError) -> RemoveTierError {
        let store = self.engine.disk.store();
        let left = self.segments();
        let pages =
            left.iter().filter_map(|segment| store.usage(*segment)).map(|found| u64::from(found.live)).sum();
        RemoveTierError::Unreadable { tier: self.tier, segments: left.len() as u64, pages, source }
    }

    fn lose_the_rest(&mut self) {
        for segment in self.segments() {
            self.done.lost += self.engine.lose_segment(self.tier, segment);
        }
    }

    /// Nothing is on it any more, but its room may just be given back, or a write be under way that a broken queue has left behind.
    fn finish(&mut self) -> Result<(), RemoveTierError> {
        let disk = &self.engine.disk;
        let mut queue = None;
        for _ in 0..PATIENCE {
            // A file or device stays, and others can use the room.
            disk.store().trim_tier(self.tier, false);
            if disk.store().remove_tier(self.tier).is_ok() {
                disk.writing().writer.forget_removed();
                return Ok(());
            }
            queue = self.engine.take_in_what_was_left().err();
            std::thread::sleep(A_MOMENT);
        }
        Err(match queue {
            Some(source) => self.io(source),
            None => RemoveTierError::NoRoom { tier: self.tier, left: self.left() },
        })
    }
}
