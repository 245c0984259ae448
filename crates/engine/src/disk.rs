//! [`Disk`]: the segment store of an engine, over whatever tiers there are, with what its one writer at a time keeps.

use crate::ages::Ages;
use crate::config::Encryption;
use crate::durable::Unlisted;
use crate::engine::Engine;
use crate::movement::entry_addr;
use crate::stats::EngineStats;
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use vswap_core::{ByteCount, ClusterId, GroupId, MoveId, PageCount, PageIndex, SegmentAddr};
use vswap_segment::{
    AlignedBuf, ClassId, EntryAddr, GhostMemory, Keys, SegmentId, SegmentStore, SegmentWriter,
};

/// Segments written at a time: the next is packed while one is under way.
const DEPTH: usize = 2;

/// Tiers that are written at a time; more than that many in turn only wait for each other.
const MOST_STRIPES: usize = 4;

/// Segments that may be due to a class, or that it may be ahead.
const MOST_DUE: f64 = 2.0;

/// The room of dead segments goes back to the file system at one call in so many of those that could do it.
const TIDY_EVERY: u64 = 256;

/// Where a clock hand stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hand {
    pub(crate) cluster: ClusterId,
    pub(crate) page: PageIndex,
}

impl Default for Hand {
    fn default() -> Self {
        Self { cluster: ClusterId::new(0), page: PageIndex::default() }
    }
}

/// A class that may have the next segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) class: ClassId,
    due: f64,
}

/// What the thread that writes back holds.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) writer: SegmentWriter,
    /// One for each class, since it passes over what is of others.
    pub(crate) hands: BTreeMap<ClassId, Hand>,
    /// Segments that are due to a class: the one with most is next.
    dues: BTreeMap<ClassId, f64>,
    /// What is in the pool of each class, by age, where that had to be counted in the present writeback.
    pub(crate) ages: BTreeMap<ClassId, Ages>,
    /// Whose pages are written: those of this group and below it.
    pub(crate) within: GroupId,
    /// Whether all pages are written, whatever their age.
    pub(crate) all: bool,
    /// Batches under way, by segment. Their numbers differ, since few are under way.
    pub(crate) batches: VecDeque<(SegmentId, MoveId)>,
    /// What no list that was kept names yet.
    pub(crate) unlisted: Unlisted,
    next_batch: u8,
    spare: Vec<AlignedBuf>,
}

/// All that is below the pool.
#[derive(Debug)]
pub(crate) struct Disk {
    store: Arc<SegmentStore>,
    /// The memory of tiers that have nothing behind them.
    pub(crate) ghosts: Arc<GhostMemory>,
    /// Segments written at a time to each of the tiers that take turns.
    pub(crate) depth: usize,
    /// One tier is added at a time: the number that is free when it is made is free when it is in the table.
    pub(crate) adding: Mutex<()>,
    /// One tier is emptied at a time.
    pub(crate) removing: Mutex<()>,
    /// One takes segments from a crowded tier at a time. Taken before the writer.
    pub(crate) demoting: Mutex<()>,
    writing: Mutex<Writing>,
    /// Classes that had no room anywhere when they were asked last. A leaf.
    stuck: RwLock<BTreeSet<ClassId>>,
    buffers: AtomicUsize,
    lent: AtomicUsize,
    /// Calls of [`Disk::tidy`].
    calls: AtomicU64,
}

impl Disk {
    pub(crate) fn new(lean: bool, encryption: Encryption) -> std::io::Result<Self> {
        let depth = if lean { 1 } else { DEPTH };
        let store = SegmentStore::without_tiers(Keys::random(encryption == Encryption::On)?);
        let writing = Writing {
            writer: store.writer(depth),
            hands: BTreeMap::new(),
            dues: BTreeMap::new(),
            ages: BTreeMap::new(),
            within: GroupId::ROOT,
            all: false,
            batches: VecDeque::new(),
            unlisted: Unlisted::default(),
            next_batch: 0,
            spare: Vec::new(),
        };
        Ok(Self {
            store,
            ghosts: Arc::default(),
            depth,
            adding: Mutex::new(()),
            removing: Mutex::new(()),
            demoting: Mutex::new(()),
            writing: Mutex::new(writing),
            stuck: RwLock::default(),
            buffers: AtomicUsize::new(0),
            lent: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
        })
    }

    /// Gives the room of dead segments back to the file system, but for a few that will be written next, and their memory at once. For
    /// a caller that comes often: mostly this does nothing. Tells whether it did something.
    pub(crate) fn tidy(&self) -> bool {
        let memory = self.store.give_memory_back() > 0;
        // Relaxed: a pace, nothing more.
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        calls % TIDY_EVERY == TIDY_EVERY - 1 && self.store.trim(true) > 0 || memory
    }

    pub(crate) fn has_tiers(&self) -> bool {
        self.store.has_tiers()
    }

    /// Segments that may be under way at once.
    pub(crate) fn most_under_way(&self) -> usize {
        // Lean means one buffer.
        self.depth * if self.depth > 1 { self.store.stripes().clamp(1, MOST_STRIPES) } else { 1 }
    }

    pub(crate) fn store(&self) -> &Arc<SegmentStore> {
        &self.store
    }

    /// Becomes the one writer, waiting for the present one to finish.
    pub(crate) fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock()
    }

    /// The same; `None` if that one takes longer than this.
    pub(crate) fn writing_within(&self, time: Duration) -> Option<MutexGuard<'_, Writing>> {
        self.writing.try_lock_for(time)
    }

    /// Classes that had no room anywhere when they were asked last.
    pub(crate) fn stuck(&self) -> BTreeSet<ClassId> {
        self.stuck.read().clone()
    }

    pub(crate) fn is_stuck(&self, class: ClassId) -> bool {
        self.stuck.read().contains(&class)
    }

    pub(crate) fn set_stuck(&self, class: ClassId, is: bool) {
        if self.is_stuck(class) != is {
            let mut stuck = self.stuck.write();
            if is {
                stuck.insert(class)
            } else {
                stuck.remove(&class)
            };
        }
    }

    pub(crate) fn metadata_bytes(&self) -> usize {
        // Relaxed: for the books only.
        let buffers = self.buffers.load(Ordering::Relaxed) + self.lent.load(Ordering::Relaxed);
        self.store.metadata_bytes() + buffers
    }

    /// Counts buffers of somebody else's, for as long as they are there.
    pub(crate) fn lend(&self, bytes: usize) -> Lent<'_> {
        self.lent.fetch_add(bytes, Ordering::Relaxed);
        Lent { disk: self, bytes }
    }

    /// Lets go of all buffers but one, which the next writeback will want.
    pub(crate) fn put_buffers_away(&self, writing: &mut Writing) {
        writing.spare.truncate(1);
        self.count_buffers(writing);
    }

    pub(crate) fn count_buffers(&self, writing: &Writing) {
        let bytes = writing.spare.iter().map(|buf| buf.len()).sum();
        self.buffers.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_stats(&self, stats: &mut EngineStats) {
        let disk = self.store.stats();
        stats.written_bytes = ByteCount::new(disk.bytes_written);
        stats.ghost_bytes = ByteCount::new(self.ghosts.held());
        stats.read_bytes = ByteCount::new(disk.bytes_read);
        stats.segment_pages = PageCount::new(disk.live_entries);
        stats.written_segments = disk.segments_written;
        stats.reads_by_age = disk.reads_by_age;
        stats.disk_bytes = ByteCount::new(disk.segments * vswap_segment::SEGMENT_BYTES as u64);
    }
}

/// See [`Disk::lend`].
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    disk: &'a Disk,
    bytes: usize,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.disk.lent.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Writing {
    /// A number for a batch that is about to start.
    pub(crate) fn new_batch(&mut self) -> MoveId {
        self.next_batch = (self.next_batch + 1) % crate::compact::BATCH;
        MoveId::new(self.next_batch).expect("below 32")
    }

    /// The classes that have something in the pool, and how much, in the order of their turns.
    pub(crate) fn turns(&self, pool: Vec<(ClassId, u64)>) -> Vec<Turn> {
        let sum: u64 = pool.iter().map(|(_, bytes)| *bytes).sum();
        let turn = |(class, bytes): (ClassId, u64)| {
            let before = self.dues.get(&class).copied().unwrap_or(0.0);
            // Who could not be written for long does not get all turns for as long afterwards.
            let due = (before + bytes as f64 / sum.max(1) as f64).clamp(-MOST_DUE, MOST_DUE);
            Turn { class, due }
        };
        let mut turns: Vec<Turn> = pool.into_iter().map(turn).collect();
        turns.sort_by(|a, b| b.due.total_cmp(&a.due));
        turns
    }

    /// A class has had a segment; `turns` are those that were due.
    pub(crate) fn had_turn(&mut self, class: ClassId, turns: &[Turn]) {
        self.dues.extend(turns.iter().map(|turn| (turn.class, turn.due)));
        *self.dues.entry(class).or_default() -= 1.0;
    }

    /// A buffer for a segment.
    pub(crate) fn buffer(&mut self) -> AlignedBuf {
        self.spare.pop().unwrap_or_else(|| AlignedBuf::zeroed(vswap_segment::SEGMENT_BYTES))
    }

    pub(crate) fn give_buffer(&mut self, buf: AlignedBuf) {
        self.spare.push(buf);
    }
}

/// The segment's address as a locator's bits.
pub(crate) fn locator(addr: EntryAddr) -> SegmentAddr {
    const { assert!(EntryAddr::BITS <= SegmentAddr::BITS) };
    SegmentAddr::new(addr.to_bits()).expect("46 bits fit in 48")
}

impl Engine {
    /// An entry that the caller alone took out of its slot is dead.
    pub(crate) fn release_segment_entry(&self, addr: SegmentAddr) {
        let Some(addr) = entry_addr(addr) else { return };
        let released = self.disk.store.release(addr);
        debug_assert!(released.is_ok(), "{addr}: released twice");
    }
}
