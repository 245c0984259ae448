//! [`SegmentStore`]: the table and its tiers' storage together. Reads, releases, cleaning.
//!
//! Lock order: the tiers' storage, then the table. Both are held for a look-up or a count and never over I/O; a read takes one after the
//! other.

mod classes;
mod durable;
mod tiers;

use crate::builder::SegmentBuilder;
use crate::classes::ClassId;
use crate::extents::TierId;
use crate::mover::SegmentMover;
use crate::storage::{Storage, is_full};
use crate::table::{Candidate, Place, Purpose, Reservation, SegmentTable, Wanted};
use crate::tiers::{MAX_TIERS, TierState};
use crate::view::{Entry, Expected, Run, SegmentView};
use crate::writer::SegmentWriter;
use crate::{
    AlignedBuf, BLOCK, EntryAddr, FormatError, Full, Keys, ReadError, ReleaseError, SEGMENT_BYTES, SegmentId,
};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use vswap_core::SlotId;

/// Rows that [`SegmentStore::pick_to_clean`] looks at under one lock hold: some 20 us.
const SCAN_ROWS: usize = 4096;

/// Counters of a store, since its start unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Segments that have an extent now.
    pub segments: u64,
    /// Segments that fit.
    pub capacity: u64,
    /// Entries that live now.
    pub live_entries: u64,
    /// Segments written.
    pub segments_written: u64,
    /// Segments that went from one tier to another.
    pub segments_moved: u64,
    /// Bytes written, for segments that moved too.
    pub bytes_written: u64,
    /// Segments whose write failed.
    pub write_errors: u64,
    /// Reads made.
    pub reads: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Reads that failed or brought damaged bytes.
    pub read_errors: u64,
    /// Reads by the age of what they read: how many of a segment behind which `a` more had been written by then, at `log2(a + 1)`
    /// rounded down; the last counts all that were older. What cleaning has written anew counts as new.
    pub reads_by_age: [u64; AGES],
}

/// Ages that [`StoreStats::reads_by_age`] tells apart.
pub const AGES: usize = 20;

#[derive(Debug, Default)]
struct Counters {
    segments_written: AtomicU64,
    segments_moved: AtomicU64,
    bytes_written: AtomicU64,
    write_errors: AtomicU64,
    reads: AtomicU64,
    bytes_read: AtomicU64,
    read_errors: AtomicU64,
    reads_by_age: [AtomicU64; AGES],
}

/// Counts; nothing is ordered by a counter, so relaxed is enough.
fn bump(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What is behind a tier.
#[derive(Debug)]
struct Behind {
    storage: Arc<dyn Storage>,
    /// Where it is. Whoever remembers it is no user of the storage, whose file may be gone with its last.
    name: Option<Arc<Path>>,
}

/// Segments on their tiers.
#[derive(Debug)]
pub struct SegmentStore {
    table: Arc<RwLock<SegmentTable>>,
    /// By the number of the tier.
    storage: RwLock<Vec<Option<Behind>>>,
    keys: Keys,
    /// For tiers that are memory: checksums in the place of seals.
    in_memory: Keys,
    /// What outlives the run, and what guards it.
    durable: OnceLock<(ClassId, Keys)>,
    /// There is, or was, a tier that is memory.
    has_ghosts: AtomicBool,
    clock: AtomicU64,
    counters: Counters,
}

impl SegmentStore {
    /// A store over one tier. The keys are for this store alone.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, keys: impl Into<Keys>) -> Arc<Self> {
        let store = Self::without_tiers(keys);
        store.add_tier(storage, 0).expect("there is room for the first tier");
        store
    }

    /// A store that has no tier yet.
    #[must_use]
    pub fn without_tiers(keys: impl Into<Keys>) -> Arc<Self> {
        let keys = keys.into();
        Arc::new(Self {
            table: Arc::default(),
            storage: RwLock::default(),
            in_memory: keys.in_memory(),
            keys,
            durable: OnceLock::new(),
            has_ghosts: AtomicBool::new(false),
            clock: AtomicU64::new(0),
            counters: Counters::default(),
        })
    }

    /// Starts a segment of a class, in `buf` (allocated anew unless it is [`SEGMENT_BYTES`] long).
    ///
    /// # Errors
    /// [`Full`], with the buffer.
    pub fn begin(
        &self,
        purpose: Purpose,
        class: ClassId,
        buf: AlignedBuf,
    ) -> Result<SegmentBuilder, (Full, AlignedBuf)> {
        self.ask_for_room();
        match Reservation::take(&self.table, purpose, class) {
            Ok(reservation) => {
                let keys = self.keys_of(class, reservation.place().in_memory).clone();
                Ok(SegmentBuilder::new(keys, reservation, buf))
            }
            Err(full) => Err((full, buf)),
        }
    }

    /// A writer with `depth` segments in flight to each tier (2 keeps a disk busy).
    #[must_use]
    pub fn writer(self: &Arc<Self>, depth: usize) -> SegmentWriter {
        SegmentWriter::new(Arc::clone(self), depth)
    }

    /// Takes segments to other tiers, with `depth` in flight.
    #[must_use]
    pub fn mover(self: &Arc<Self>, depth: usize) -> SegmentMover {
        SegmentMover::new(Arc::clone(self), depth)
    }

    /// Reads one entry: one aligned read of the blocks that hold it. `buf` needs
    /// [`MAX_ENTRY_BLOCKS`](crate::MAX_ENTRY_BLOCKS) blocks. Allocates nothing.
    ///
    /// # Errors
    /// See [`ReadError`]; the bytes are `slot`'s own, or there is an error.
    pub fn read_entry<'b>(
        &self,
        addr: EntryAddr,
        slot: SlotId,
        buf: &'b mut AlignedBuf,
    ) -> Result<Entry<'b>, ReadError> {
        let len = addr.blocks() * BLOCK;
        let base = addr.first_block() * BLOCK;
        let from = addr.offset() - base;
        let (place, got, header) = self.read_checked(addr, base, len, buf, |expected, bytes| {
            expected.open_of(slot, bytes, base, from)
        })?;
        let guard = self.keys_of(place.class, place.in_memory).guard();
        Ok(Entry::new(header, guard, addr, &buf[from..got]))
    }

    /// Reads an entry and what lies behind it, `len` bytes from the beginning of its first block but no more than fit `buf`: the
    /// wanted entry and its neighbours, which were evicted together with it.
    ///
    /// # Errors
    /// As [`read_entry`](Self::read_entry), for the wanted entry only.
    pub fn read_run<'b>(
        &'b self,
        addr: EntryAddr,
        slot: SlotId,
        len: usize,
        buf: &'b mut AlignedBuf,
    ) -> Result<Run<'b>, ReadError> {
        let base = addr.first_block() * BLOCK;
        let from = addr.offset() - base;
        let most = len.min(buf.len()).max(addr.blocks() * BLOCK);
        let (place, got, header) = self.read_checked(addr, base, most, buf, |expected, bytes| {
            expected.open_of(slot, bytes, base, from)
        })?;
        let end = got.min((place.entries_end as usize).saturating_sub(base));
        Ok(Run::new(self.expected(place), header, addr, &mut buf[..got], from, end))
    }

    /// Where an entry is now: its tier, and the offset in that.
    #[must_use]
    pub fn whereabouts(&self, addr: EntryAddr) -> Option<(TierId, u64)> {
        let place = self.table.read().place(addr.segment())?;
        Some((place.tier, place.extent.offset() + addr.offset() as u64))
    }

    /// Reads a whole segment, to clean it. `buf` needs [`SEGMENT_BYTES`]. One whose header or summary is
    /// damaged is not chosen again by [`pick_to_clean`](Self::pick_to_clean).
    ///
    /// # Errors
    /// As [`read_entry`](Self::read_entry), for header and summary only.
    pub fn read_segment<'b>(
        &'b self,
        segment: SegmentId,
        buf: &'b mut AlignedBuf,
    ) -> Result<SegmentView<'b>, ReadError> {
        let first = EntryAddr::new(segment, 0, 1).expect("every segment has a first byte");
        let read = self.read_checked(first, 0, SEGMENT_BYTES, buf, |expected, bytes| {
            SegmentView::check(*expected, bytes)
        });
        let (place, got, header) = read.inspect_err(|error| {
            if let ReadError::Damaged { .. } = error {
                self.leave_damaged(segment);
            }
        })?;
        Ok(SegmentView::checked(self.expected(place), header, &mut buf[..got]))
    }

    /// Reads a whole segment and checks everything in it, dead entries too; it stays encrypted. Gives where it was read.
    pub(crate) fn read_whole(&self, segment: SegmentId, buf: &mut AlignedBuf) -> Result<Place, ReadError> {
        let first = EntryAddr::new(segment, 0, 1).expect("every segment has a first byte");
        let (place, ..) = self.read_checked(first, 0, SEGMENT_BYTES, buf, |expected, bytes| {
            SegmentView::check_all(*expected, bytes)
        })?;
        Ok(place)
    }

    /// An entry is no longer wanted. Returns whether its segment died of it.
    ///
    /// # Errors
    /// [`ReleaseError`] if nothing lives there: the caller's count is wrong.
    pub fn release(&self, addr: EntryAddr) -> Result<bool, ReleaseError> {
        self.table.write().release(addr)
    }

    /// Chooses the segment whose cleaning pays best among those `wanted` that are at most `max_live` (0 to 1) alive,
    /// and marks it. The caller copies what lives into a builder of its class begun for [`Purpose::Cleaning`],
    /// releases the old addresses, and calls [`stop_cleaning`](Self::stop_cleaning) in any case.
    #[must_use]
    pub fn pick_to_clean(&self, max_live: f64, wanted: &Wanted<'_>) -> Option<Candidate> {
        let now = self.now();
        let mut best: Option<(f64, Candidate)> = None;
        let mut from = 0;
        loop {
            let table = self.table.read();
            if from >= table.rows() {
                break;
            }
            if let Some(found) = table.emptiest(from, from + SCAN_ROWS, now, max_live, wanted)
                && best.is_none_or(|(score, _)| found.0 > score)
            {
                best = Some(found);
            }
            from += SCAN_ROWS;
        }
        let (_, candidate) = best?;
        self.table.write().start_cleaning(candidate.segment).then_some(candidate)
    }

    /// How many segments could be won at most by packing those that [`pick_to_clean`](Self::pick_to_clean) chooses from: what is dead in those of one
    /// class, rounded down to whole segments, of the class that has most.
    #[must_use]
    pub fn dead_to_win(&self, max_live: f64, wanted: &Wanted<'_>) -> u64 {
        self.dead_of(max_live, wanted).into_values().fold(0.0, f64::max) as u64
    }

    /// How much is dead in the segments of each class that could be cleaned, in segments.
    fn dead_of(&self, max_live: f64, wanted: &Wanted<'_>) -> BTreeMap<ClassId, f64> {
        let mut sums = BTreeMap::new();
        let mut from = 0;
        loop {
            let table = self.table.read();
            if from >= table.rows() {
                return sums;
            }
            table.add_dead(from, from + SCAN_ROWS, max_live, wanted, &mut sums);
            from += SCAN_ROWS;
        }
    }

    /// Something in a live segment is damaged: it is not chosen for cleaning again, since it could not be
    /// emptied. It dies with its last entry like any other.
    pub fn leave_damaged(&self, segment: SegmentId) {
        self.table.write().leave_damaged(segment);
    }

    /// Ends the cleaning of a segment, done or not.
    pub fn stop_cleaning(&self, segment: SegmentId) {
        self.table.write().stop_cleaning(segment);
    }

    /// Gives the room of free extents back to the file system, but for a few to be written next
    /// (all of them if `keep_some` is false). Returns the bytes. An error of the device is left for the
    /// next time: the extent stays usable.
    pub fn trim(&self, keep_some: bool) -> u64 {
        let open = |tier: &TierId| self.table.read().tiers().state(*tier) != Some(TierState::Draining);
        let tiers = (0..MAX_TIERS).map(|number| TierId(number as u8)).filter(open);
        tiers.map(|tier| self.trim_tier(tier, keep_some)).sum()
    }

    /// Live and written entries of a segment.
    #[must_use]
    pub fn usage(&self, segment: SegmentId) -> Option<Candidate> {
        self.table.read().usage(segment)
    }

    /// Counters now.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let (segments, capacity, live_entries) = {
            let table = self.table.read();
            (table.segments(), table.capacity(), table.live_entries())
        };
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        StoreStats {
            segments,
            capacity,
            live_entries,
            segments_written: of(&counters.segments_written),
            segments_moved: of(&counters.segments_moved),
            bytes_written: of(&counters.bytes_written),
            write_errors: of(&counters.write_errors),
            reads: of(&counters.reads),
            bytes_read: of(&counters.bytes_read),
            read_errors: of(&counters.read_errors),
            reads_by_age: std::array::from_fn(|age| of(&counters.reads_by_age[age])),
        }
    }

    /// Bytes of memory that the bookkeeping takes.
    #[must_use]
    pub fn metadata_bytes(&self) -> usize {
        self.table.read().metadata_bytes()
    }

    /// The age clock: one tick for each segment written.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Counts a write, and takes a tier that failed out of use, one that is full for a while.
    pub(crate) fn count_write(&self, tier: TierId, result: &io::Result<()>, len: usize) {
        match result {
            Ok(()) => {
                bump(&self.clock, 1);
                bump(&self.counters.segments_written, 1);
                bump(&self.counters.bytes_written, len as u64);
            }
            Err(error) => {
                bump(&self.counters.write_errors, 1);
                self.write_failed(tier, error);
            }
        }
    }

    fn write_failed(&self, tier: TierId, error: &io::Error) {
        let mut table = self.table.write();
        let tiers = table.tiers_mut();
        if is_full(error) {
            tiers.pass_over(tier);
        } else if tiers.state(tier) == Some(TierState::Open) {
            // One that is being emptied stays so.
            tiers.set_state(tier, TierState::Failing);
        }
    }

    /// Counts a segment that went to another tier.
    pub(crate) fn count_move(&self, to: TierId, result: &io::Result<()>, len: usize) {
        match result {
            Ok(()) => {
                bump(&self.counters.segments_moved, 1);
                bump(&self.counters.bytes_written, len as u64);
            }
            Err(error) => {
                bump(&self.counters.write_errors, 1);
                self.write_failed(to, error);
            }
        }
    }

    fn count_age(&self, place: Place) {
        let age = self.now().saturating_sub(place.born).saturating_add(1).ilog2() as usize;
        bump(&self.counters.reads_by_age[age.min(AGES - 1)], 1);
    }

    /// What guards the entries of segments of a class in memory, or elsewhere. Both lay them out alike, but for what outlives the run, which stays
    /// where it is.
    fn keys_of(&self, class: ClassId, in_memory: bool) -> &Keys {
        match self.durable.get() {
            Some((durable, keys)) if *durable == class => keys,
            _ if in_memory => &self.in_memory,
            _ => &self.keys,
        }
    }

    /// Seals the entries of a segment that was read whole, or opens them, if it goes from where they are the one to where they are the other.
    pub(crate) fn reseal(&self, from: Place, in_memory: bool, bytes: &mut [u8]) -> Result<(), ReadError> {
        if from.in_memory == in_memory {
            return Ok(());
        }
        let resealed = SegmentView::reseal(self.expected(from), self.keys_of(from.class, in_memory), bytes);
        resealed.map_err(|fault| self.damaged(from, fault))
    }

    fn expected(&self, place: Place) -> Expected<'_> {
        let keys = self.keys_of(place.class, place.in_memory);
        Expected { keys, segment: place.segment, sequence: place.sequence }
    }

    fn damaged(&self, place: Place, fault: FormatError) -> ReadError {
        ReadError::Damaged { segment: place.segment, tier: place.tier, at: place.extent.offset(), fault }
    }

    /// Reads `len` bytes (no more than the segment has) from `base` of the segment of `addr`, and
    /// checks them, which may decrypt some of them. If they are wrong and the segment has moved or died meanwhile, reads again where it
    /// is now. Returns where it was read, how many bytes came, and what the check found.
    fn read_checked<T>(
        &self,
        addr: EntryAddr,
        base: usize,
        len: usize,
        buf: &mut AlignedBuf,
        check: impl Fn(&Expected<'_>, &mut [u8]) -> Result<T, FormatError>,
    ) -> Result<(Place, usize, T), ReadError> {
        let segment = addr.segment();
        let gone = || ReadError::NotThere { segment, offset: addr.offset() };
        let mut place = {
            let table = self.table.read();
            let place = table.place(segment).ok_or_else(gone)?;
            // Those who clean read whole segments, and want nothing of them.
            if len < SEGMENT_BYTES {
                table.touch(segment, self.now());
            }
            place
        };
        loop {
            if addr.offset() >= place.entries_end as usize {
                return Err(gone());
            }
            let result = self.read_once(place, base, len.min(place.written() - base), buf).and_then(|got| {
                let found = check(&self.expected(place), &mut buf[..got]);
                Ok((place, got, found.map_err(|fault| self.damaged(place, fault))?))
            });
            let error = match result {
                Ok(found) => {
                    if len < SEGMENT_BYTES {
                        self.count_age(place);
                    }
                    return Ok(found);
                }
                Err(error) => error,
            };
            let now = self.table.read().place(segment).ok_or_else(gone)?;
            if now == place || matches!(error, ReadError::Buffer { .. }) {
                bump(&self.counters.read_errors, 1);
                return Err(error);
            }
            place = now;
        }
    }

    fn read_once(
        &self,
        place: Place,
        base: usize,
        len: usize,
        buf: &mut AlignedBuf,
    ) -> Result<usize, ReadError> {
        let have = buf.len();
        let into = buf.get_mut(..len).ok_or(ReadError::Buffer { have, needed: len })?;
        let offset = place.extent.offset() + base as u64;
        let io = |source| ReadError::Io { segment: place.segment, tier: place.tier, offset, len, source };
        let storage = self.storage(place.tier);
        let storage =
            storage.ok_or_else(|| io(io::Error::new(io::ErrorKind::NotFound, "the tier is not there")))?;
        let got = storage.read_at(offset, into).map_err(io)?.min(len);
        bump(&self.counters.reads, 1);
        bump(&self.counters.bytes_read, got as u64);
        Ok(got)
    }
}
