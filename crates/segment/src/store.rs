//! [`SegmentStore`]: the table and its tiers' storage together. Reads, releases, cleaning.
//!
//! Lock order: the tiers' storage, then the table. Both are held for a look-up or a count and never over I/O; a read takes one after the
//! other.

use crate::builder::SegmentBuilder;
use crate::extents::TierId;
use crate::format::RunKey;
use crate::mover::SegmentMover;
use crate::storage::Storage;
use crate::table::{Candidate, Place, Purpose, Reservation, Room, SegmentTable};
use crate::tiers::{MAX_TIERS, TierState, TierStatus};
use crate::view::{Entry, Expected, Run, SegmentView};
use crate::writer::SegmentWriter;
use crate::{
    AlignedBuf, BLOCK, EntryAddr, FormatError, Full, ReadError, ReleaseError, SEGMENT_BYTES, SegmentId,
    TierError,
};
use parking_lot::RwLock;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Segments on their tiers.
#[derive(Debug)]
pub struct SegmentStore {
    table: Arc<RwLock<SegmentTable>>,
    /// By the number of the tier.
    storage: RwLock<Vec<Option<Arc<dyn Storage>>>>,
    key: RunKey,
    clock: AtomicU64,
    counters: Counters,
}

impl SegmentStore {
    /// A store over one tier.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, key: RunKey) -> Arc<Self> {
        let store = Self::without_tiers(key);
        store.add_tier(storage, 0).expect("there is room for the first tier");
        store
    }

    /// A store that has no tier yet.
    #[must_use]
    pub fn without_tiers(key: RunKey) -> Arc<Self> {
        Arc::new(Self {
            table: Arc::default(),
            storage: RwLock::default(),
            key,
            clock: AtomicU64::new(0),
            counters: Counters::default(),
        })
    }

    /// Adds a tier. The one of the highest priority that has room gets the next segment; those of one priority take turns.
    ///
    /// # Errors
    /// When there are [`MAX_TIERS`](crate::MAX_TIERS).
    pub fn add_tier(&self, storage: Arc<dyn Storage>, priority: i16) -> Result<TierId, TierError> {
        let mut all = self.storage.write();
        let tier = self.table.write().add_tier(storage.capacity(), priority);
        let tier = tier.ok_or(TierError::TooMany { most: MAX_TIERS })?;
        let at = usize::from(tier.0);
        if all.len() <= at {
            all.resize_with(at + 1, || None);
        }
        all[at] = Some(storage);
        Ok(tier)
    }

    /// Removes a tier on which nothing is.
    ///
    /// # Errors
    /// When there is no such tier or something is on it, or its room is just being given back.
    pub fn remove_tier(&self, tier: TierId) -> Result<(), TierError> {
        let mut all = self.storage.write();
        let mut table = self.table.write();
        table.tiers().state(tier).ok_or(TierError::NoTier { tier })?;
        if !table.tiers_mut().remove(tier) {
            return Err(TierError::InUse { tier });
        }
        all[usize::from(tier.0)] = None;
        Ok(())
    }

    /// From now on the tier takes no segments, since it is to be emptied: those of which less than `sparse` (0 to 1) lives by packing them.
    /// Gives what it did before, and whether the others have room for that; if not, all have to be packed.
    ///
    /// # Errors
    /// When there is no such tier or it is being emptied already; or what lives on it does not fit the others: then it goes on as
    /// before.
    pub fn drain_tier(&self, tier: TierId, sparse: f64) -> Result<(TierState, bool), TierError> {
        let before = self.set_state(tier, TierState::Draining)?;
        if before == TierState::Draining {
            return Err(TierError::Draining { tier });
        }
        let (whole, rest) = self.load_of(tier, sparse);
        let (_, holds) = self.load_of(tier, f64::INFINITY);
        self.table.write().tiers_mut().pass_nobody_over();
        let room = self.table.read().tiers().free();
        // Packing leaves a little of every segment unused.
        let packed = |live: u64| (live + live / 16).div_ceil(SEGMENT_BYTES as u64);
        if packed(holds) > room {
            self.set_state(tier, before)?;
            return Err(TierError::NoRoom { tier, holds, room: room * SEGMENT_BYTES as u64 });
        }
        Ok((before, whole + packed(rest) <= room))
    }

    fn load_of(&self, tier: TierId, sparse: f64) -> (u64, u64) {
        let (mut from, mut load) = (0, (0, 0));
        loop {
            let table = self.table.read();
            if from >= table.rows() {
                return load;
            }
            let (whole, bytes) = table.load_of(tier, from, from + SCAN_ROWS, sparse);
            load = (load.0 + whole, load.1 + bytes);
            from += SCAN_ROWS;
        }
    }

    /// A tier that failed takes segments again; an open one goes on.
    ///
    /// # Errors
    /// When there is no such tier, or it is being emptied.
    pub fn reopen_tier(&self, tier: TierId) -> Result<(), TierError> {
        let mut table = self.table.write();
        match table.tiers().state(tier) {
            None => Err(TierError::NoTier { tier }),
            Some(TierState::Draining) => Err(TierError::Draining { tier }),
            Some(TierState::Open | TierState::Failing) => {
                table.tiers_mut().set_state(tier, TierState::Open);
                Ok(())
            }
        }
    }

    /// The tier takes segments again, or is left as failing.
    ///
    /// # Errors
    /// When there is no such tier.
    pub fn set_state(&self, tier: TierId, state: TierState) -> Result<TierState, TierError> {
        self.table.write().tiers_mut().set_state(tier, state).ok_or(TierError::NoTier { tier })
    }

    /// Every tier, by number. Looks at every segment.
    #[must_use]
    pub fn tiers(&self) -> Vec<TierStatus> {
        let mut tiers = self.table.read().tiers().statuses();
        let mut from = 0;
        loop {
            let table = self.table.read();
            if from >= table.rows() {
                return tiers;
            }
            table.add_live(from, from + SCAN_ROWS, &mut tiers);
            from += SCAN_ROWS;
        }
    }

    /// Whether there is any tier.
    #[must_use]
    pub fn has_tiers(&self) -> bool {
        self.table.read().tiers().any()
    }

    /// How many tiers the next segments go to in turn.
    #[must_use]
    pub fn stripes(&self) -> usize {
        self.table.read().tiers().stripes()
    }

    /// Segments that have an extent on a tier, written or being written.
    #[must_use]
    pub fn segments_on(&self, tier: TierId) -> u64 {
        self.table.read().tiers().in_use_on(tier)
    }

    /// The first live segment on a tier whose number is `from` or more.
    #[must_use]
    pub fn next_on(&self, tier: TierId, mut from: usize) -> Option<Candidate> {
        loop {
            let table = self.table.read();
            if from >= table.rows() {
                return None;
            }
            if let Some(found) = table.next_on(tier, from, from + SCAN_ROWS) {
                return Some(found);
            }
            from += SCAN_ROWS;
        }
    }

    /// Where a tier is, for people.
    #[must_use]
    pub fn path(&self, tier: TierId) -> Option<PathBuf> {
        self.storage(tier)?.path().map(Path::to_owned)
    }

    /// A segment on a tier of which at most so much (0 to 1) lives, marked as by [`pick_to_clean`](Self::pick_to_clean).
    #[must_use]
    pub fn pick_sparse_on(&self, tier: TierId, max_live: f64) -> Option<Candidate> {
        let mut from = 0;
        loop {
            let found = self.next_on(tier, from)?;
            from = found.segment.get() as usize + 1;
            let sparse = !found.damaged && found.live_bytes as f64 <= max_live * SEGMENT_BYTES as f64;
            if sparse && self.table.write().start_cleaning(found.segment) {
                return Some(found);
            }
        }
    }

    /// Marks a segment as [`pick_to_clean`](Self::pick_to_clean) does, whatever lives in it. `None` if it is gone or is being cleaned.
    #[must_use]
    pub fn pick(&self, segment: SegmentId) -> Option<Candidate> {
        let mut table = self.table.write();
        let found = table.usage(segment)?;
        table.start_cleaning(segment).then_some(found)
    }

    pub(crate) fn storage(&self, tier: TierId) -> Option<Arc<dyn Storage>> {
        self.storage.read().get(usize::from(tier.0))?.clone()
    }

    pub(crate) fn room(&self) -> Option<Room> {
        Room::take(&self.table)
    }

    /// Starts a segment, in `buf` (allocated anew unless it is [`SEGMENT_BYTES`] long).
    ///
    /// # Errors
    /// [`Full`], with the buffer.
    pub fn begin(&self, purpose: Purpose, buf: AlignedBuf) -> Result<SegmentBuilder, (Full, AlignedBuf)> {
        match Reservation::take(&self.table, purpose) {
            Ok(reservation) => Ok(SegmentBuilder::new(self.key, reservation, buf)),
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
        let (_, got, header) = self.read_checked(addr, base, len, buf, |expected, bytes| {
            expected.header_of(slot, bytes, base, from)
        })?;
        Ok(Entry::new(header, addr, &buf[..got], from))
    }

    /// Reads an entry and what lies behind it, `len` bytes from the beginning of its first block but no more than fit `buf`: the
    /// wanted entry and its neighbours, which were evicted together with it.
    ///
    /// # Errors
    /// As [`read_entry`](Self::read_entry), for the wanted entry only.
    pub fn read_run<'b>(
        &self,
        addr: EntryAddr,
        slot: SlotId,
        len: usize,
        buf: &'b mut AlignedBuf,
    ) -> Result<Run<'b>, ReadError> {
        let base = addr.first_block() * BLOCK;
        let from = addr.offset() - base;
        let most = len.min(buf.len()).max(addr.blocks() * BLOCK);
        let (place, got, header) = self.read_checked(addr, base, most, buf, |expected, bytes| {
            expected.header_of(slot, bytes, base, from)
        })?;
        let bytes = &buf[..got.min((place.entries_end as usize).saturating_sub(base))];
        Ok(Run::new(self.expected(place), Entry::new(header, addr, bytes, from), bytes, base, from))
    }

    /// Reads a whole segment, to clean it. `buf` needs [`SEGMENT_BYTES`]. One whose header or summary is
    /// damaged is not chosen again by [`pick_to_clean`](Self::pick_to_clean).
    ///
    /// # Errors
    /// As [`read_entry`](Self::read_entry), for header and summary only.
    pub fn read_segment<'b>(
        &self,
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
        Ok(SegmentView::checked(self.expected(place), header, &buf[..got]))
    }

    /// Reads a whole segment and checks everything in it, dead entries too. Gives where it was read.
    pub(crate) fn read_whole(&self, segment: SegmentId, buf: &mut AlignedBuf) -> Result<Place, ReadError> {
        let first = EntryAddr::new(segment, 0, 1).expect("every segment has a first byte");
        let (place, ..) = self.read_checked(first, 0, SEGMENT_BYTES, buf, |expected, bytes| {
            let header = SegmentView::check(*expected, bytes)?;
            SegmentView::checked(*expected, header, bytes).entries().try_for_each(|entry| entry.map(drop))
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

    /// Chooses the segment whose cleaning pays best among those at most `max_live` (0 to 1) alive,
    /// and marks it. The caller copies what lives into a builder begun for [`Purpose::Cleaning`],
    /// releases the old addresses, and calls [`stop_cleaning`](Self::stop_cleaning) in any case.
    #[must_use]
    pub fn pick_to_clean(&self, max_live: f64) -> Option<Candidate> {
        let now = self.now();
        let mut best: Option<(f64, Candidate)> = None;
        let mut from = 0;
        loop {
            let table = self.table.read();
            if from >= table.rows() {
                break;
            }
            if let Some(found) = table.emptiest(from, from + SCAN_ROWS, now, max_live)
                && best.is_none_or(|(score, _)| found.0 > score)
            {
                best = Some(found);
            }
            from += SCAN_ROWS;
        }
        let (_, candidate) = best?;
        self.table.write().start_cleaning(candidate.segment).then_some(candidate)
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

    /// [`trim`](Self::trim) of one tier, also of one that is being emptied, which is left alone by that.
    pub fn trim_tier(&self, tier: TierId, keep_some: bool) -> u64 {
        let Some(storage) = self.storage(tier) else { return 0 };
        let mut given = 0;
        loop {
            let taken =
                self.table.write().tiers_mut().extents_mut(tier).and_then(|e| e.take_to_punch(keep_some));
            let Some(extent) = taken else { return given };
            if storage.punch(extent.offset(), SEGMENT_BYTES as u64).is_ok() {
                given += SEGMENT_BYTES as u64;
            }
            if let Some(extents) = self.table.write().tiers_mut().extents_mut(tier) {
                extents.punched(extent);
            }
        }
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
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => tiers.pass_over(tier),
            // One that is being emptied stays so.
            _ if tiers.state(tier) == Some(TierState::Open) => {
                tiers.set_state(tier, TierState::Failing);
            }
            _ => {}
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

    fn expected(&self, place: Place) -> Expected {
        Expected { key: self.key, segment: place.segment, sequence: place.sequence }
    }

    fn damaged(&self, place: Place, fault: FormatError) -> ReadError {
        ReadError::Damaged { segment: place.segment, tier: place.tier, at: place.extent.offset(), fault }
    }

    /// Reads `len` bytes (no more than the segment has) from `base` of the segment of `addr`, and
    /// checks them. If they are wrong and the segment has moved or died meanwhile, reads again where it
    /// is now. Returns where it was read, how many bytes came, and what the check found.
    fn read_checked<T>(
        &self,
        addr: EntryAddr,
        base: usize,
        len: usize,
        buf: &mut AlignedBuf,
        check: impl Fn(&Expected, &[u8]) -> Result<T, FormatError>,
    ) -> Result<(Place, usize, T), ReadError> {
        let segment = addr.segment();
        let gone = || ReadError::NotThere { segment, offset: addr.offset() };
        let mut place = self.table.read().place(segment).ok_or_else(gone)?;
        loop {
            if addr.offset() >= place.entries_end as usize {
                return Err(gone());
            }
            let result = self.read_once(place, base, len.min(place.written() - base), buf).and_then(|got| {
                let found = check(&self.expected(place), &buf[..got]);
                Ok((place, got, found.map_err(|fault| self.damaged(place, fault))?))
            });
            let error = match result {
                Ok(found) => {
                    // Those who clean read whole segments, and want nothing of them.
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
