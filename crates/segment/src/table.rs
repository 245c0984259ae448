//! [`SegmentTable`]: which segment is where, how much of it lives, which to clean. No I/O.
//!
//! A row's life: `Vacant` -> reserve -> `Writing` -> commit -> `Live` (-> being cleaned) -> last release
//! -> `Vacant`; or `Writing` -> abandon -> `Vacant`. Relations: a row that is not vacant owns exactly one
//! extent; `live <= entries`; a `Live` row has `live > 0`. Sequence numbers are never used twice.
//!
//! Live *entries* are counted exactly. Live *bytes* are the mean of the segment times that: an address
//! does not say its length, and a length per entry in RAM would cost what segments are there to save.

use crate::classes::{ClassId, Classes, Help};
use crate::extents::{Extent, Extents, TierId};
use crate::format::{SUMMARY_ENTRY_BYTES, padded};
use crate::storage::Storage;
use crate::tiers::{MAX_TIERS, TierStatus, Tiers};
use crate::{EntryAddr, Full, ReleaseError, SEGMENT_BYTES, SegmentId};
use durable::Durable;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

mod durable;

pub use durable::KeptSegment;

/// What a new segment is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Pool entries that go to disk.
    Writeback,
    /// Live entries of sparse segments: may use the last extents.
    Cleaning,
    /// What is to leave a tier that is being emptied.
    Migration,
    /// What is coldest on a tier that has hardly any room left, and goes to one of lower priority.
    Demotion {
        /// The priority of the former.
        below: i16,
    },
}

/// Where a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its number.
    pub segment: SegmentId,
    /// Whose it is.
    pub class: ClassId,
    /// The tier.
    pub tier: TierId,
    /// The tier is in memory, so its entries are not encrypted.
    pub in_memory: bool,
    /// Where on the tier.
    pub extent: Extent,
    /// Which writing of this number: part of every checksum in it.
    pub sequence: u64,
    /// How often it has been moved since: it may come back to a place where it was.
    pub moves: u32,
    /// Where its entries end, in bytes; 0 while it is being written.
    pub entries_end: u32,
    /// How many entries it was written with.
    pub entries: u32,
    /// How many segments had been written by then, itself included.
    pub born: u64,
}

impl Place {
    /// Bytes that were written: entries and summary, in whole blocks.
    pub(crate) fn written(&self) -> usize {
        padded(self.entries_end as usize + self.entries as usize * SUMMARY_ENTRY_BYTES)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Vacant,
    Writing,
    Live { cleaning: bool },
}

#[derive(Debug, Clone, Copy)]
struct Row {
    state: State,
    class: ClassId,
    tier: TierId,
    extent: Extent,
    sequence: u64,
    entries_end: u32,
    entries: u32,
    live: u32,
    born: u64,
    moves: u32,
    /// Something in it cannot be read: of no use to clean, since it would not die of it.
    damaged: bool,
}

impl Row {
    const VACANT: Self = Self {
        state: State::Vacant,
        class: ClassId::COMMON,
        tier: TierId::new(0),
        extent: Extent(0),
        sequence: 0,
        entries_end: 0,
        entries: 0,
        live: 0,
        born: 0,
        moves: 0,
        damaged: false,
    };
}

// What 2 MiB on a tier costs in memory; `docs/segment-format.md` says so.
const _: () = assert!(size_of::<Row>() == 40);

/// A segment worth cleaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The segment.
    pub segment: SegmentId,
    /// Whose it is.
    pub class: ClassId,
    /// Entries that live.
    pub live: u32,
    /// Entries that it was written with.
    pub entries: u32,
    /// Bytes that live, from the mean.
    pub live_bytes: u64,
    /// Something in it cannot be read.
    pub damaged: bool,
}

/// Which segments may be chosen to be cleaned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Who lacks room: only what is of use to them.
    pub by: ClassId,
    /// Those of this class only.
    pub of: Option<ClassId>,
    /// None of these.
    pub but: &'a [ClassId],
    /// Nor these.
    pub not: &'a [SegmentId],
}

impl Wanted<'_> {
    fn takes(&self, class: ClassId) -> bool {
        self.of.is_none_or(|of| class == of) && !self.but.contains(&class)
    }
}

/// What a class has on a tier that is to be emptied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Burden {
    /// Segments that go whole.
    pub(crate) whole: u64,
    /// Bytes that live in the others.
    pub(crate) sparse: u64,
    /// Bytes that live in all of them.
    pub(crate) live: u64,
}

/// Of each class.
pub(crate) type Burdens = BTreeMap<ClassId, Burden>;

/// Rows of all segments and the free extents of all tiers.
#[derive(Debug, Default)]
pub struct SegmentTable {
    rows: Vec<Row>,
    /// When an entry of each row was read last, by the caller's clock; it only steers choices, so it is changed without the table's lock for writing.
    read_at: Vec<AtomicU32>,
    vacant: Vec<u32>,
    tiers: Tiers,
    classes: Classes,
    last_sequence: u64,
    live_entries: u64,
    durable: Option<Durable>,
}

impl SegmentTable {
    /// Adds a tier over a storage. `None` if there are as many as can be.
    pub(crate) fn add_tier(&mut self, storage: &dyn Storage, priority: i16) -> Option<TierId> {
        let extents = Extents::new(storage.capacity(), storage.start());
        self.tiers.add(extents, priority, storage.kind().is_memory())
    }

    pub(crate) fn tiers(&self) -> &Tiers {
        &self.tiers
    }

    pub(crate) fn tiers_mut(&mut self) -> &mut Tiers {
        &mut self.tiers
    }

    pub(crate) fn classes(&self) -> &Classes {
        &self.classes
    }

    pub(crate) fn classes_mut(&mut self) -> &mut Classes {
        &mut self.classes
    }

    /// Forgets a tier on which nothing is, and what anybody may have of it. Tells whether it did.
    pub(crate) fn remove_tier(&mut self, tier: TierId) -> bool {
        let removed = self.tiers.remove(tier);
        if removed {
            self.classes.forget_tier(tier);
        }
        removed
    }

    /// Takes an extent for a segment of a class where that may have one.
    fn take_extent(&mut self, purpose: Purpose, class: ClassId) -> Option<(TierId, Extent)> {
        let Self { tiers, classes, .. } = self;
        let taken = tiers.take(purpose, &|tier| classes.room(class, tier, purpose) > 0)?;
        classes.charge(class, taken.0);
        Some(taken)
    }

    fn give_back(&mut self, class: ClassId, (tier, extent): (TierId, Extent)) {
        self.tiers.give_back(tier, extent);
        self.classes.uncharge(class, tier);
    }

    /// Takes a number and an extent for a segment of a class to be written.
    ///
    /// # Errors
    /// [`Full`] when no tier has a free extent (beyond the reserve for cleaning) that the class may have.
    pub fn reserve(&mut self, purpose: Purpose, class: ClassId) -> Result<Place, Full> {
        let next = match self.vacant.last() {
            Some(number) => Some(*number),
            None => u32::try_from(self.rows.len()).ok(),
        };
        let Some((segment, next)) = next.and_then(|next| Some((SegmentId::new(next)?, next))) else {
            return Err(self.full(purpose, class));
        };
        let Some((tier, extent)) = self.take_extent(purpose, class) else {
            return Err(self.full(purpose, class));
        };
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        let row = Row { state: State::Writing, class, tier, extent, sequence, ..Row::VACANT };
        if self.vacant.pop().is_some() {
            self.rows[next as usize] = row;
        } else {
            self.rows.push(row);
            self.read_at.push(AtomicU32::new(0));
        }
        let in_memory = self.tiers.in_memory(tier);
        let (moves, entries_end, entries, born) = (0, 0, 0, 0);
        Ok(Place { segment, class, tier, in_memory, extent, sequence, moves, entries_end, entries, born })
    }

    /// Whether a class that may have no more of a tier is all that keeps a segment from it: one that is full itself is nobody's limit.
    fn full(&self, purpose: Purpose, class: ClassId) -> Full {
        let limited = self.tiers.roomy().any(|tier| self.classes.room(class, tier, purpose) == 0);
        Full { segments: self.segments(), capacity: self.capacity(), limited }
    }

    /// Whether there is room for a segment of a class now.
    pub(crate) fn has_room(&self, class: ClassId) -> bool {
        self.tiers.roomy().any(|tier| self.classes.room(class, tier, Purpose::Writeback) > 0)
    }

    /// The write has succeeded: all `entries` live from now on. `now` is the caller's clock for ages.
    pub(crate) fn commit(&mut self, segment: SegmentId, entries_end: u32, entries: u32, now: u64) {
        let Some(row) = self.row_mut(segment) else { return };
        debug_assert!(row.state == State::Writing && entries > 0);
        *row = Row {
            state: State::Live { cleaning: false },
            entries_end,
            entries,
            live: entries,
            born: now,
            ..*row
        };
        self.live_entries += u64::from(entries);
        self.touch(segment, 0);
    }

    /// The write has failed or was given up.
    pub(crate) fn abandon(&mut self, segment: SegmentId) {
        if self.row_mut(segment).is_some_and(|row| row.state == State::Writing) {
            let row = self.empty_row(segment);
            // It was never on any list.
            self.give_back(row.class, (row.tier, row.extent));
        }
    }

    /// Where a sealed segment is; `None` if there is none of this number.
    #[must_use]
    pub fn place(&self, segment: SegmentId) -> Option<Place> {
        let row = self.rows.get(segment.get() as usize)?;
        let State::Live { .. } = row.state else { return None };
        let Row { class, tier, extent, sequence, moves, entries_end, entries, born, .. } = *row;
        let in_memory = self.tiers.in_memory(tier);
        Some(Place { segment, class, tier, in_memory, extent, sequence, moves, entries_end, entries, born })
    }

    /// An entry is no longer wanted. Returns whether its segment died of it.
    ///
    /// # Errors
    /// [`ReleaseError`] if nothing lives there.
    pub fn release(&mut self, addr: EntryAddr) -> Result<bool, ReleaseError> {
        let error = ReleaseError { addr };
        let row = self.row_mut(addr.segment()).ok_or(error)?;
        if !matches!(row.state, State::Live { .. }) || addr.offset() >= row.entries_end as usize {
            return Err(error);
        }
        row.live -= 1;
        let died = row.live == 0;
        self.live_entries -= 1;
        if died {
            self.vacate(addr.segment());
        }
        Ok(died)
    }

    /// The best segment to clean among rows `from..to`: the one that gives most room back for what
    /// must be copied, weighted by age (the log-structured file system's `(1 - u) * age / (1 + u)`). Only
    /// those on open tiers and at most `max_live` (0 to 1) alive count, of these `wanted`, and none that is being cleaned.
    #[must_use]
    pub fn emptiest(
        &self,
        from: usize,
        to: usize,
        now: u64,
        max_live: f64,
        wanted: &Wanted<'_>,
    ) -> Option<(f64, Candidate)> {
        let rows = self.rows.get(from..to.min(self.rows.len()))?;
        let help = self.help(wanted.by)?;
        let mut best: Option<(f64, Candidate)> = None;
        for (row, number) in rows.iter().zip(from..) {
            let Some(alive) = alive_to_clean(row, number, max_live, wanted) else { continue };
            if self.is_durable(row.class) && wanted.of != Some(row.class) {
                // Its room is not free when it dies.
                continue;
            }
            let age = now.saturating_sub(row.born) as f64 + 1.0;
            let score = (1.0 - alive) * age / (1.0 + alive);
            if best.is_some_and(|(other, _)| score <= other)
                || !wanted.takes(row.class)
                || !self.classes.helps(help[usize::from(row.tier.0)], row.class)
            {
                continue;
            }
            let Some(segment) = SegmentId::new(number as u32) else { continue };
            best = Some((score, row.candidate(segment)));
        }
        best
    }

    /// Adds to each class's sum how much of those segments of rows `from..to` is dead that [`SegmentTable::emptiest`] chooses from, in segments.
    pub(crate) fn add_dead(
        &self,
        from: usize,
        to: usize,
        max_live: f64,
        wanted: &Wanted<'_>,
        sums: &mut BTreeMap<ClassId, f64>,
    ) {
        let Some(help) = self.help(wanted.by) else { return };
        let rows = self.rows.get(from..to.min(self.rows.len())).unwrap_or_default();
        for (row, number) in rows.iter().zip(from..) {
            if let Some(alive) = alive_to_clean(row, number, max_live, wanted)
                && (!self.is_durable(row.class) || wanted.of == Some(row.class))
                && wanted.takes(row.class)
                && self.classes.helps(help[usize::from(row.tier.0)], row.class)
            {
                *sums.entry(row.class).or_default() += 1.0 - alive;
            }
        }
    }

    /// Whose segments are of use to a class if they die, by tier; `None` if nobody's are. Once for all rows: for each of them the classes would be gone through.
    fn help(&self, by: ClassId) -> Option<[Help; MAX_TIERS]> {
        let mut help = [Help::OfNone; MAX_TIERS];
        self.tiers.open().for_each(|tier| help[usize::from(tier.0)] = self.classes.help(by, tier));
        (help != [Help::OfNone; MAX_TIERS]).then_some(help)
    }

    /// Marks a segment as being cleaned; false if it is gone or already marked.
    pub fn start_cleaning(&mut self, segment: SegmentId) -> bool {
        match self.row_mut(segment) {
            Some(row) if row.state == (State::Live { cleaning: false }) => {
                row.state = State::Live { cleaning: true };
                true
            }
            _ => false,
        }
    }

    /// Takes the mark back from a segment that still has live entries.
    pub fn stop_cleaning(&mut self, segment: SegmentId) {
        if let Some(row) = self.row_mut(segment)
            && row.state == (State::Live { cleaning: true })
        {
            row.state = State::Live { cleaning: false };
        }
    }

    /// A segment is not to be chosen for cleaning any more, because something in it is damaged.
    pub fn leave_damaged(&mut self, segment: SegmentId) {
        if let Some(row) = self.row_mut(segment)
            && let State::Live { .. } = row.state
        {
            row.damaged = true;
        }
    }

    /// A copy of a live segment is where `to` says: from now on it is read there, and its former extent is free. False if the
    /// segment is no longer what was copied; the caller then gives the copy's extent back.
    pub(crate) fn relocate(&mut self, copied: Place, to: (TierId, Extent)) -> bool {
        if self.place(copied.segment) != Some(copied) {
            return false;
        }
        let row = &mut self.rows[copied.segment.get() as usize];
        (row.tier, row.extent) = to;
        row.moves = row.moves.wrapping_add(1);
        self.give_back(copied.class, (copied.tier, copied.extent));
        true
    }

    /// An entry of the segment is wanted, at `now` of the caller's clock. Tells whether that was news: mostly it is not, and then
    /// nothing is written that readers on other CPUs have in their caches.
    pub(crate) fn touch(&self, segment: SegmentId, now: u64) -> bool {
        let now = u32::try_from(now).unwrap_or(u32::MAX);
        let Some(at) = self.read_at.get(segment.get() as usize) else { return false };
        // Relaxed: a hint.
        let news = at.load(Ordering::Relaxed) != now;
        if news {
            at.store(now, Ordering::Relaxed);
        }
        news
    }

    /// Live segments of a tier among rows `from..to` with the time at which each was written or, if that is later, read last.
    pub(crate) fn last_used_on(
        &self,
        tier: TierId,
        from: usize,
        to: usize,
    ) -> impl Iterator<Item = (u64, SegmentId, ClassId)> + '_ {
        let to = to.min(self.rows.len());
        let rows = self.rows.get(from..to).unwrap_or_default().iter().zip(from..);
        let here =
            move |row: &Row| row.state == State::Live { cleaning: false } && row.tier == tier && !row.damaged;
        rows.filter(move |(row, _)| here(row)).filter_map(|(row, number)| {
            let read = u64::from(self.read_at[number].load(Ordering::Relaxed));
            Some((row.born.max(read), SegmentId::new(number as u32)?, row.class))
        })
    }

    /// Whether a class may have more on a tier of lower priority than `below` that has room.
    pub(crate) fn may_sink(&self, class: ClassId, below: i16) -> bool {
        let purpose = Purpose::Demotion { below };
        self.tiers.roomy_below(below).any(|tier| self.classes.room(class, tier, purpose) > 0)
    }

    /// The first live segment on a tier among rows `from..to`.
    pub(crate) fn next_on(&self, tier: TierId, from: usize, to: usize) -> Option<Candidate> {
        let rows = self.rows.get(from..to.min(self.rows.len()))?;
        let here = |row: &Row| matches!(row.state, State::Live { .. }) && row.tier == tier;
        let at = from + rows.iter().position(here)?;
        self.usage(SegmentId::new(at as u32)?)
    }

    /// Adds what moving the live segments of rows `from..to` of a tier takes, by class.
    pub(crate) fn add_burden(&self, tier: TierId, from: usize, to: usize, sparse: f64, all: &mut Burdens) {
        let rows = self.rows.get(from..to.min(self.rows.len())).unwrap_or_default();
        let here = |row: &&Row| matches!(row.state, State::Live { .. }) && row.tier == tier;
        for row in rows.iter().filter(here) {
            let (burden, live) = (all.entry(row.class).or_default(), row.live_bytes());
            burden.live += live;
            match live as f64 >= sparse * SEGMENT_BYTES as f64 {
                true => burden.whole += 1,
                false => burden.sparse += live,
            }
        }
    }

    /// Counts the extents of all classes anew. Nothing may be on its way between tiers.
    pub(crate) fn audit_classes(&self) -> Result<(), String> {
        let rows = self.rows.iter().filter(|row| row.state != State::Vacant);
        self.classes.agree(rows.map(|row| (row.class, row.tier)).chain(self.beside_rows()))
    }

    /// Adds what lives in rows `from..to` to the tiers' figures.
    pub(crate) fn add_live(&self, from: usize, to: usize, tiers: &mut [TierStatus]) {
        let rows = self.rows.get(from..to.min(self.rows.len())).unwrap_or_default();
        for row in rows.iter().filter(|row| matches!(row.state, State::Live { .. })) {
            if let Some(tier) = tiers.iter_mut().find(|tier| tier.tier == row.tier) {
                tier.live += row.live_bytes();
            }
        }
    }

    /// Live and written entries of a segment.
    #[must_use]
    pub fn usage(&self, segment: SegmentId) -> Option<Candidate> {
        let row = self.rows.get(segment.get() as usize)?;
        let State::Live { .. } = row.state else { return None };
        Some(row.candidate(segment))
    }

    /// Segments that have an extent, written or being written.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.tiers.in_use()
    }

    /// Segments that fit on all tiers.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.tiers.capacity()
    }

    /// Entries that live, in all segments.
    #[must_use]
    pub fn live_entries(&self) -> u64 {
        self.live_entries
    }

    /// Numbers in use are below this.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of memory that the table takes.
    #[must_use]
    pub fn metadata_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.read_at.capacity() * size_of::<AtomicU32>()
            + self.vacant.capacity() * size_of::<u32>()
            + self.tiers.metadata_bytes()
            + self.classes.metadata_bytes()
    }

    fn row_mut(&mut self, segment: SegmentId) -> Option<&mut Row> {
        self.rows.get_mut(segment.get() as usize)
    }

    /// A live segment has died.
    fn vacate(&mut self, segment: SegmentId) {
        let row = self.empty_row(segment);
        match &mut self.durable {
            Some(durable) if durable.class == row.class => durable.put_in_limbo(row.extent),
            _ => self.give_back(row.class, (row.tier, row.extent)),
        }
    }

    /// The number is free again; gives what it stood for.
    fn empty_row(&mut self, segment: SegmentId) -> Row {
        self.vacant.push(segment.get());
        std::mem::replace(&mut self.rows[segment.get() as usize], Row::VACANT)
    }
}

/// How much of a segment lives (0 to 1), if that makes it one to be cleaned.
fn alive_to_clean(row: &Row, number: usize, max_live: f64, wanted: &Wanted<'_>) -> Option<f64> {
    if row.state != (State::Live { cleaning: false }) || row.damaged {
        return None;
    }
    // What a part-filled segment does not use is given back too, so use counts against 2 MiB.
    let alive = row.live_bytes() as f64 / SEGMENT_BYTES as f64;
    let named = wanted.not.iter().any(|segment| segment.get() as usize == number);
    (alive <= max_live && !named).then_some(alive)
}

impl Row {
    fn candidate(&self, segment: SegmentId) -> Candidate {
        let Self { class, live, entries, damaged, .. } = *self;
        Candidate { segment, class, live, entries, live_bytes: self.live_bytes(), damaged }
    }

    fn live_bytes(&self) -> u64 {
        u64::from(self.entries_end) * u64::from(self.live) / u64::from(self.entries.max(1))
    }
}

/// An extent that is taken for a copy of a segment; dropped unused, it is given back.
#[derive(Debug)]
pub(crate) struct Room {
    table: Arc<RwLock<SegmentTable>>,
    class: ClassId,
    at: (TierId, Extent),
    used: bool,
}

impl Room {
    pub(crate) fn take(table: &Arc<RwLock<SegmentTable>>, purpose: Purpose, class: ClassId) -> Option<Self> {
        let at = table.write().take_extent(purpose, class)?;
        Some(Self { table: Arc::clone(table), class, at, used: false })
    }

    pub(crate) fn at(&self) -> (TierId, Extent) {
        self.at
    }

    /// Whether the copy is for a tier in memory.
    pub(crate) fn in_memory(&self) -> bool {
        self.table.read().tiers.in_memory(self.at.0)
    }

    /// The copy is complete. Tells whether it is now the segment; if not, that has changed or died meanwhile.
    pub(crate) fn commit(mut self, copied: Place) -> bool {
        self.used = self.table.write().relocate(copied, self.at);
        self.used
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.used {
            self.table.write().give_back(self.class, self.at);
        }
    }
}

/// A number and an extent that are taken; dropped, it gives them back.
#[derive(Debug)]
pub struct Reservation {
    table: Arc<RwLock<SegmentTable>>,
    place: Place,
    committed: bool,
}

impl Reservation {
    pub(crate) fn take(
        table: &Arc<RwLock<SegmentTable>>,
        purpose: Purpose,
        class: ClassId,
    ) -> Result<Self, Full> {
        let place = table.write().reserve(purpose, class)?;
        Ok(Self { table: Arc::clone(table), place, committed: false })
    }

    /// Where the segment will be.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn commit(mut self, entries_end: u32, entries: u32, now: u64) {
        self.committed = true;
        self.table.write().commit(self.place.segment, entries_end, entries, now);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.committed {
            self.table.write().abandon(self.place.segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::TierState;

    fn table(segments: u64) -> SegmentTable {
        let mut table = SegmentTable::default();
        table.tiers.add(Extents::new(segments * SEGMENT_BYTES as u64, 0), 0, false).unwrap();
        table
    }

    fn written(table: &mut SegmentTable, class: ClassId) -> SegmentId {
        let place = table.reserve(Purpose::Writeback, class).unwrap();
        table.commit(place.segment, 4096, 1, 1);
        place.segment
    }

    /// Each read of an entry wrote to memory that all readers have in their caches.
    #[test]
    fn a_segment_that_is_read_again_at_once_is_not_noted_again() {
        let mut table = table(4);
        let segment = written(&mut table, ClassId::COMMON);
        assert!(table.touch(segment, 7) && !table.touch(segment, 7) && table.touch(segment, 8));
        assert_eq!(table.last_used_on(TierId(0), 0, 1).next(), Some((8, segment, ClassId::COMMON)));
    }

    /// What helps is asked once for each tier, before any row is looked at.
    #[test]
    fn nothing_is_cleaned_for_who_may_have_nothing() {
        let mut table = table(4);
        let class = table.classes.add(ClassId::COMMON, &[]).unwrap();
        written(&mut table, ClassId::COMMON);
        let pick = |table: &SegmentTable, by| {
            table.emptiest(0, MAX_TIERS, 5, 0.5, &Wanted { by, ..Wanted::default() })
        };
        assert!(pick(&table, class).is_some());
        table.classes.limit(class, TierId(0), Some(0));
        assert!(pick(&table, class).is_none() && pick(&table, ClassId::COMMON).is_some());
        table.tiers.set_state(TierId(0), TierState::Draining);
        assert!(pick(&table, ClassId::COMMON).is_none(), "it gives no room to anybody");
    }
}
