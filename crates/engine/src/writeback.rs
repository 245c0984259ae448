//! Writeback: what does not compress and the coldest pool entries go, still compressed, into segments.
//!
//! One writer at a time. For each slot that the clock hand takes: its word changes from `Pool(h)` to
//! `Moving(h, batch)`, the entry is copied into the segment's buffer, and when the segment is written the
//! word changes to `Segment(address)` and the pool entry is freed - if the word is still the same. A store or
//! a release in between has replaced the word (and freed the entry): then the copy in the segment is dead.
//! That the batch is part of the word makes this safe even if the same handle comes back to the same slot
//! meanwhile; within a batch, the slot's last entry is the one that counts. A failed write turns the words
//! back; the pages never left.
//!
//! Where groups have limits of tiers, a segment is filled with pages of one class (`classes.rs`): the hand passes over clusters of others, and the classes
//! have their turns as their parts of the pool say. One that has nothing old enough, or no room on any tier, leaves its turn to the next.
//!
//! Lock order: the writer, then a chunk (shared, for the copy) or the segment table; when a segment has been written, the writer, then a
//! cluster for each of its slots.

use crate::ages::Ages;
use crate::disk::{Disk, Hand, Writing, locator};
use crate::engine::Engine;
use crate::error::WritebackError;
use crate::movement::segment_tag;
use crate::scratch::Scratch;
use crate::stats::{Counters, WritebackReport};
use std::io;
use vswap_core::age::{Verdict, judge};
use vswap_core::{
    Backing, ByteCount, ClusterId, Event, GroupId, Load, MoveId, Moving, PAGE_SIZE, PageCount, PageIndex,
    PoolHandle, SlotCell, SlotId, SlotWord,
};
use vswap_segment::{Appended, ClassId, Purpose, SegmentBuilder, Written};

/// Rounds of the hand in one filling: the first for what is old enough, the second after the marks of the
/// first, the last for anything.
const ROUNDS: usize = 3;

/// How a segment has begun.
enum Begun {
    Builder(SegmentBuilder),
    /// What is under way has to end first; the caller waits for it and comes back.
    Wait,
    Full {
        /// Some tier has room, but not for them.
        limited: bool,
    },
}

/// What came of filling a segment of whoever's turn it is.
enum Filled {
    /// So much payload is under way.
    With(usize),
    Wait,
    /// There is nothing to write, or nowhere.
    Nothing,
}

/// A segment to be filled.
#[derive(Clone, Copy)]
struct Filling {
    class: ClassId,
    want: usize,
    /// If nothing is old enough, it is filled with what there is.
    anything: bool,
    /// What is cold is judged among their own pages, not among all.
    apart: bool,
}

/// What became of a slot that the hand took.
enum Packed {
    In(usize),
    /// Changed or gone meanwhile.
    Lost,
    NoRoom,
}

impl Engine {
    /// Moves about `want` bytes of the coldest pool entries to segments; rounded up to whole segments as long
    /// as there are entries to fill them. Waits for the device. Concurrent calls take turns.
    ///
    /// # Errors
    /// When there is no tier or a write failed for another reason than lack of room (which the report tells);
    /// the pages concerned stay in the pool.
    pub fn writeback(
        &self,
        want: ByteCount,
        _scratch: &mut Scratch,
    ) -> Result<WritebackReport, WritebackError> {
        self.writeback_within(GroupId::ROOT, want)
    }

    /// As [`Engine::writeback`], of the pages of a group and those below it.
    ///
    /// # Errors
    /// As there.
    pub fn writeback_of(
        &self,
        group: GroupId,
        want: ByteCount,
        _scratch: &mut Scratch,
    ) -> Result<WritebackReport, WritebackError> {
        self.writeback_within(group, want)
    }

    /// Whether there is somewhere to write to.
    pub fn has_tiers(&self) -> bool {
        self.disk.has_tiers()
    }

    pub(crate) fn writeback_within(
        &self,
        group: GroupId,
        want: ByteCount,
    ) -> Result<WritebackReport, WritebackError> {
        let disk = &self.disk;
        if !disk.has_tiers() {
            return Err(WritebackError::NoTier);
        }
        let mut writing = disk.writing();
        writing.all = false;
        self.write_of(&mut writing, group, want)
    }

    /// As [`Engine::writeback_of`], of all pages, those that were loaded a moment ago too.
    pub(crate) fn write_all_of(
        &self,
        group: GroupId,
        want: ByteCount,
    ) -> Result<WritebackReport, WritebackError> {
        let mut writing = self.disk.writing();
        writing.all = true;
        self.write_of(&mut writing, group, want)
    }

    fn write_of(
        &self,
        writing: &mut Writing,
        group: GroupId,
        want: ByteCount,
    ) -> Result<WritebackReport, WritebackError> {
        let disk = &self.disk;
        let mut report = WritebackReport::default();
        writing.within = group;
        writing.ages.clear();
        let result = self.write_segments(disk, writing, want.get() as usize, &mut report);
        if result.is_err() {
            self.turn_all_back();
            // What is written in spite of that is dead: who takes it in later is not to take it for a batch of his own of the same number.
            writing.batches.clear();
        }
        disk.put_buffers_away(writing);
        result.map(|()| report)
    }

    fn write_segments(
        &self,
        disk: &Disk,
        writing: &mut Writing,
        want: usize,
        report: &mut WritebackReport,
    ) -> Result<(), WritebackError> {
        let mut planned = 0;
        let mut failed = None;
        loop {
            while planned < want
                && failed.is_none()
                && !report.disk_full
                && writing.writer.outstanding() < disk.most_under_way()
            {
                match self.fill_next(disk, writing, want - planned, report)? {
                    Filled::With(taken) => planned += taken,
                    Filled::Wait => break,
                    Filled::Nothing => planned = want,
                }
            }
            disk.count_buffers(writing);
            let Some(written) = writing.writer.wait()? else { break };
            match self.settle(disk, writing, written, report) {
                Ok(()) => {}
                Err(error) if vswap_segment::is_full(&error) => report.disk_full = true,
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), |source| Err(WritebackError::Io { source }))
    }

    /// Fills a segment of the class whose turn it is, or of the next that has what to fill one with, and room for it.
    fn fill_next(
        &self,
        disk: &Disk,
        writing: &mut Writing,
        want: usize,
        report: &mut WritebackReport,
    ) -> Result<Filled, WritebackError> {
        let all = writing.turns(self.pool_by_class(writing.within));
        let mut turns = all.clone();
        let (mut wait, mut full, mut limited) = (false, false, false);
        let alone = all.len() == 1;
        // What is stuck gets older than all else, and nothing would be old beside it.
        let stuck = all.iter().any(|turn| disk.is_stuck(turn.class));
        // Before something is written that was used a moment ago, others are asked for what is old.
        for anything in if alone || stuck { &[true][..] } else { &[false, true] } {
            let mut has_room = Vec::new();
            for turn in turns {
                let class = turn.class;
                let builder = match self.begin(disk, writing, class)? {
                    Begun::Builder(builder) => builder,
                    Begun::Wait => {
                        wait = true;
                        continue;
                    }
                    Begun::Full { limited: only_for_them } => {
                        disk.set_stuck(class, true);
                        (full, limited) = (full || !only_for_them, limited || only_for_them);
                        continue;
                    }
                };
                disk.set_stuck(class, false);
                has_room.push(turn);
                let stuck = disk.stuck();
                let apart = *anything && !(alone && stuck.is_empty());
                let taken =
                    self.fill(builder, writing, Filling { class, want, anything: *anything, apart })?;
                if taken > 0 {
                    writing.had_turn(class, &all);
                    // If nobody has room, all may stay as it is: nothing goes, and when something does, it is to be the coldest.
                    self.rejuvenate(&stuck);
                    return Ok(Filled::With(taken));
                }
            }
            turns = has_room;
        }
        if wait {
            return Ok(Filled::Wait);
        }
        (report.disk_full, report.limited) = (report.disk_full || full, report.limited || limited);
        Ok(Filled::Nothing)
    }

    /// Starts a segment of a class, cleaning others if there is no room.
    fn begin(&self, disk: &Disk, writing: &mut Writing, class: ClassId) -> Result<Begun, WritebackError> {
        loop {
            let buf = writing.buffer();
            let full = match disk.store().begin(Purpose::Writeback, class, buf) {
                Ok(builder) => return Ok(Begun::Builder(builder)),
                Err((full, buf)) => {
                    writing.give_buffer(buf);
                    full
                }
            };
            if writing.writer.outstanding() > 0 {
                return Ok(Begun::Wait);
            }
            let won = match self.clean(disk, writing, class) {
                Err(WritebackError::Io { source }) if vswap_segment::is_full(&source) => false,
                won => won?,
            };
            if !won {
                return Ok(Begun::Full { limited: full.limited });
            }
        }
    }

    /// Fills a segment with the coldest entries and starts its write. Gives the payload that is under way.
    fn fill(
        &self,
        mut builder: SegmentBuilder,
        writing: &mut Writing,
        filling: Filling,
    ) -> Result<usize, WritebackError> {
        let Filling { class, want, anything, apart } = filling;
        let batch = writing.new_batch();
        let mut hand = writing.hands.get(&class).copied().unwrap_or_default();
        // Whose they are is not noted: if only some groups' are wanted, the hand finds them.
        let all = writing.within == GroupId::ROOT;
        let mut ages = writing.ages.remove(&class).unwrap_or_default();
        let mut counted = false;
        let (mut taken, full) =
            if all { self.fill_with_raw(&mut builder, batch, class, &mut ages) } else { (0, false) };
        let end = self.space.end();
        let pool = self.pool.stats();
        // As many pages as fill a segment, at the pool's mean length, or as the caller wants if that is more.
        let mean = pool.payload.get().div_ceil(pool.entries.max(1)).max(1);
        let pages = (want.max(vswap_segment::SEGMENT_BYTES) as u64).div_ceil(mean);
        'filling: for round in 0..ROUNDS {
            let last = round + 1 == ROUNDS;
            if full || last && (taken >= want || taken == 0 && !anything) {
                break;
            }
            let threshold = match apart {
                _ if writing.all => None,
                _ if last => Some(0),
                true => {
                    // What was counted for a segment before this one is out of date if it has not been filled at once.
                    if !counted && (round > 0 || !ages.are_of(self.generations.now())) {
                        (ages, counted) = (self.ages_among(writing.within, class), true);
                    }
                    Some(ages.threshold(pages))
                }
                // What came just now is not old, however little there is.
                false => Some(self.generations.threshold(pages).max(usize::from(!anything))),
            };
            // One cluster more than there are, to come back to the part of the first one that the hand had
            // passed.
            for _ in 0..=end {
                let within = (writing.within, class);
                match self.fill_from_cluster(&mut builder, &mut hand, within, (batch, threshold), &mut ages) {
                    Ok(bytes) => taken += bytes,
                    Err(bytes) => {
                        taken += bytes;
                        break 'filling;
                    }
                }
                let next = hand.cluster.get() + 1;
                let cluster = ClusterId::new(if next >= end { 0 } else { next });
                hand = Hand { cluster, page: PageIndex::default() };
            }
        }
        writing.hands.insert(class, hand);
        writing.ages.insert(class, ages);
        if builder.is_empty() {
            writing.give_buffer(builder.discard());
            return Ok(0);
        }
        writing.batches.push_back((builder.segment(), batch));
        writing.writer.submit(builder)?;
        Ok(taken)
    }

    /// Takes pages that do not compress, as many as fit: no look at the hand or at ages is needed to tell that they are to go. One that
    /// was loaded meanwhile is left to the hand. Gives the payload taken, and whether the segment is full.
    fn fill_with_raw(
        &self,
        builder: &mut SegmentBuilder,
        batch: MoveId,
        class: ClassId,
        ages: &mut Ages,
    ) -> (usize, bool) {
        let mut taken = 0;
        if self.raw.is_the_hands_turn(class, vswap_segment::SEGMENT_BYTES / PAGE_SIZE) {
            return (taken, false);
        }
        while let Some(slot) = self.raw.take(class) {
            let Some(cell) = self.space.slot(slot) else { continue };
            let word = cell.load();
            let Backing::Pool(handle) = word.backing() else { continue };
            let length = self.pool.read(handle, slot, |_, bytes| bytes.len());
            if word.accessed() || length != Some(PAGE_SIZE) {
                continue;
            }
            let of = self.class_of_cluster(slot.cluster());
            if of != class {
                // Its owner has been moved to another group since.
                self.raw.note(of, slot);
                continue;
            }
            match self.pack((slot, class), cell, word, batch, builder) {
                Packed::In(bytes) => {
                    taken += bytes;
                    ages.left(word.age());
                }
                Packed::Lost => {}
                Packed::NoRoom => {
                    self.raw.put_back(class, slot);
                    return (taken, true);
                }
            }
        }
        (taken, false)
    }

    /// Takes what the hand finds in its cluster from its page on, of the age of the threshold; without one, all. `Err` when the segment is full; the hand
    /// then stands at the page that did not fit. Both give the payload taken.
    fn fill_from_cluster(
        &self,
        builder: &mut SegmentBuilder,
        hand: &mut Hand,
        (within, class): (GroupId, ClassId),
        (batch, threshold): (MoveId, Option<usize>),
        ages: &mut Ages,
    ) -> Result<usize, usize> {
        let Hand { cluster, page: from } = *hand;
        let mut taken = 0;
        let has_some = || self.space.charge_of(cluster).load().pool > 0;
        if !self.is_cluster_of(cluster, within, class) || !has_some() {
            return Ok(taken);
        }
        let now = self.generations.now();
        for (page, cell) in self.space.slots_of(cluster, from) {
            let slot = cluster.slot(page);
            let word = cell.load();
            let verdict = match threshold {
                Some(threshold) => judge(word, now, threshold),
                None if word.is_pool() => Verdict::Take,
                None => Verdict::Leave,
            };
            match verdict {
                Verdict::Leave => {}
                Verdict::SecondChance => self.stamp_among(ages, cell, word, now),
                Verdict::Take => match self.pack((slot, class), cell, word, batch, builder) {
                    Packed::In(bytes) => {
                        taken += bytes;
                        ages.left(word.age());
                    }
                    Packed::Lost => {}
                    Packed::NoRoom => {
                        hand.page = page;
                        return Err(taken);
                    }
                },
            }
        }
        Ok(taken)
    }

    fn pack(
        &self,
        (slot, class): (SlotId, ClassId),
        cell: SlotCell<'_>,
        seen: SlotWord,
        batch: MoveId,
        builder: &mut SegmentBuilder,
    ) -> Packed {
        let Backing::Pool(source) = seen.backing() else { return Packed::Lost };
        let moving = seen.moved_to(Backing::Moving(Moving { source, batch }));
        if cell.compare_exchange(seen, moving).is_err() {
            return Packed::Lost;
        }
        // It may have gone to another group since its cluster was looked at; if it does so from here on, it was written before.
        if self.class_of_cluster(slot.cluster()) != class {
            turn_back(cell, batch);
            return Packed::Lost;
        }
        let appended = self
            .pool
            .read(source, slot, |tag, bytes| (builder.append(slot, segment_tag(tag), bytes), bytes.len()));
        match appended {
            Some((Appended::At(_), length)) => Packed::In(length),
            Some((Appended::NoRoom | Appended::TooLong, _)) => {
                turn_back(cell, batch);
                Packed::NoRoom
            }
            // Stored or released since the word was marked: whoever did it has replaced the word.
            None => Packed::Lost,
        }
    }

    /// Takes over a write that has ended: flips the words of its slots, or turns them back.
    fn settle(
        &self,
        disk: &Disk,
        writing: &mut Writing,
        written: Written,
        report: &mut WritebackReport,
    ) -> io::Result<()> {
        let at = writing.batches.iter().position(|(segment, _)| *segment == written.segment);
        if let Some((_, batch)) = at.and_then(|at| writing.batches.remove(at)) {
            let ok = written.result.is_ok();
            if ok {
                self.note_unlisted(writing, &written);
            }
            // Backwards: a slot that was stored anew and taken again while its segment was filled is in it
            // twice, and only its last entry is what the word is on its way with.
            let entries: Vec<_> = written.entries().collect();
            for (slot, addr) in entries.into_iter().rev() {
                let Some(cell) = self.space.slot(slot) else { continue };
                if !ok {
                    turn_back(cell, batch);
                    continue;
                }
                let backing = Backing::Segment(locator(addr));
                // Its owners may all leave once the word has changed; the cluster is to be there until the charge is right again.
                let cluster = self.space.lock(slot.cluster());
                let flipped = cell.update(|word| moving_from(word, batch).map(|_| word.moved_to(backing)));
                match flipped.ok().and_then(|old| Some((old, moving_from(old, batch)?))) {
                    Some((old, source)) => {
                        let freed = self.free_entry(slot, source, old) as u64;
                        self.uncharge(slot, Load { pages: 0, pool: freed as u32 });
                        self.count_event(slot, Event::Zswpwb);
                        drop(cluster);
                        report.freed = report.freed.saturating_add(ByteCount::new(freed));
                        report.pages = report.pages.saturating_add(PageCount::new(1));
                        Counters::add(&self.counters.written_pages, 1);
                    }
                    // Replaced meanwhile: the copy is dead.
                    None => {
                        drop(cluster);
                        let released = disk.store().release(addr);
                        debug_assert!(released.is_ok(), "{addr}: dead before it was ever alive");
                    }
                }
            }
            if ok {
                report.written = report.written.saturating_add(ByteCount::new(written.bytes as u64));
            }
        } else if written.result.is_ok() {
            // What cleaning had left behind when the queue broke down under it: the pages are where they were.
            written.entries().for_each(|(_, addr)| self.release_segment_entry(locator(addr)));
        }
        writing.give_buffer(written.buf);
        written.result
    }

    /// Becomes the one writer, for as long as it takes to take in what a broken queue has left behind: until then it takes room on its tier.
    ///
    /// # Errors
    /// If the queue breaks again: the rest is left to the next who comes by.
    pub(crate) fn take_in_what_was_left(&self) -> io::Result<()> {
        let mut writing = self.disk.writing();
        let ended = loop {
            match writing.writer.wait() {
                // Nobody waits for it, so nobody is to know how it ended.
                Ok(Some(written)) => {
                    let _ = self.settle(&self.disk, &mut writing, written, &mut WritebackReport::default());
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.disk.put_buffers_away(&mut writing);
        ended
    }

    /// After the writer itself broke: no page may stay on its way for ever.
    fn turn_all_back(&self) {
        for cluster in (0..self.space.end()).map(ClusterId::new) {
            for (_, cell) in self.space.slots_of(cluster, PageIndex::default()) {
                let _ = cell.update(|word| match word.backing() {
                    Backing::Moving(moving) => Some(word.moved_to(Backing::Pool(moving.source))),
                    _ => None,
                });
            }
        }
    }
}

/// The pool entry that this batch moves, if the word is still on its way with it.
pub(crate) fn moving_from(word: SlotWord, batch: MoveId) -> Option<PoolHandle> {
    match word.backing() {
        Backing::Moving(moving) if moving.batch == batch => Some(moving.source),
        _ => None,
    }
}

/// The move is given up: the page is where it was.
pub(crate) fn turn_back(cell: SlotCell<'_>, batch: MoveId) {
    let _ = cell.update(|word| moving_from(word, batch).map(|source| word.moved_to(Backing::Pool(source))));
}
