//! [`Engine`]: the whole, and what little it does itself: making, asking, counting.

use crate::config::{CodecChoice, EngineConfig};
use crate::disk::Disk;
use crate::error::EngineError;
use crate::owner::{LIST_BYTES, OwnerBlock};
use crate::scratch::{LEAN_RUN_BLOCKS, RUN_BLOCKS, Scratch};
use crate::share::LargeCounts;
use crate::space::Space;
use crate::stats::{BackingKind, Counters, EngineStats};
use crate::train::Trainer;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vswap_codec::{Chooser, Compressor, Dictionaries, Method};
use vswap_core::{
    Backing, ByteCount, Generations, Group, GroupId, Groups, Moving, PageCount, PoolHandle, SlotId, SlotWord,
};
use vswap_pool::{Pool, PoolConfig};
use vswap_segment::{MAX_ENTRY_BLOCKS, Storage};

/// Groups that an engine has room for.
const GROUPS: usize = 64;

/// The virtual swap space with its backings. All methods take `&self`; it has no thread of its own.
#[derive(Debug)]
pub struct Engine {
    pub(crate) space: Space,
    pub(crate) large_counts: LargeCounts,
    /// Private lists alive: a count for the books.
    pub(crate) lists: AtomicU64,
    pub(crate) pool: Pool,
    pub(crate) generations: Generations,
    /// As configured.
    lean: bool,
    pub(crate) disk: Disk,
    pub(crate) dictionaries: Dictionaries,
    pub(crate) trainer: Trainer,
    pub(crate) counters: Counters,
    /// Calls of `maintain` for which the pool is left as it is.
    pub(crate) rest: AtomicU64,
    /// One compaction at a time.
    pub(crate) compacting: Mutex<()>,
    codec: CodecChoice,
    groups: Box<[Group]>,
    /// Groups made so far; the root is there from the start.
    group_count: AtomicU64,
}

impl Engine {
    /// Makes an engine.
    ///
    /// # Errors
    /// When a tier cannot be made.
    pub fn new(config: EngineConfig) -> Result<Arc<Self>, EngineError> {
        let engine = Self::without_tiers(&config);
        for tier in &config.tiers {
            engine.add_tier(tier)?;
        }
        Ok(engine)
    }

    /// Makes an engine with one tier more than the configuration says, of priority 0.
    ///
    /// # Errors
    /// When a tier cannot be made.
    pub fn with_storage(config: EngineConfig, storage: Arc<dyn Storage>) -> Result<Arc<Self>, EngineError> {
        let engine = Self::new(config)?;
        engine.add_storage(storage, 0)?;
        Ok(engine)
    }

    fn without_tiers(config: &EngineConfig) -> Arc<Self> {
        Arc::new(Self {
            space: Space::new(),
            large_counts: LargeCounts::default(),
            lists: AtomicU64::new(0),
            pool: Pool::new(PoolConfig { limit: config.pool_limit, ..PoolConfig::default() }),
            generations: Generations::default(),
            disk: Disk::new(config.lean),
            dictionaries: Dictionaries::default(),
            lean: config.lean,
            trainer: Trainer::new(config.codec != CodecChoice::Lz4 && !config.lean),
            counters: Counters::default(),
            rest: AtomicU64::new(0),
            compacting: Mutex::new(()),
            codec: config.codec,
            groups: (0..GROUPS).map(|_| Group::default()).collect(),
            group_count: AtomicU64::new(1),
        })
    }

    /// A block of 512 positions for an owner; costs nothing until something is stored. Its clusters are
    /// charged to `group`.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn owner_block(&self, group: GroupId) -> Result<OwnerBlock, EngineError> {
        match self.groups().exists(group) {
            true => Ok(OwnerBlock::new(group)),
            false => Err(EngineError::NoGroup { group }),
        }
    }

    /// Makes a group below `parent` that may have `limit` pages of slots.
    ///
    /// # Errors
    /// When there is no such parent or no room for another group.
    pub fn new_group(&self, parent: GroupId, limit: PageCount) -> Result<GroupId, EngineError> {
        // Relaxed: hands out distinct numbers, guards nothing.
        let number = self.group_count.fetch_add(1, Ordering::Relaxed);
        let group = GroupId::new(number as u32);
        self.groups().make(group, parent, limit)?;
        Ok(group)
    }

    pub(crate) fn groups(&self) -> Groups<'_> {
        Groups::new(&self.groups)
    }

    /// Pages of slots charged to a group and those below it.
    pub fn group_usage(&self, group: GroupId) -> PageCount {
        self.groups().usage(group)
    }

    /// Makes one thread's buffers and contexts; allocates, so at the thread's start.
    pub fn scratch(&self) -> Scratch {
        Scratch::new(self.chooser(), MAX_ENTRY_BLOCKS)
    }

    /// [`Engine::scratch`] of a thread that reads runs of pages ([`Engine::load_run`]), with a larger buffer: a tier may still come.
    pub fn scratch_for_runs(&self) -> Scratch {
        Scratch::new(self.chooser(), if self.lean { LEAN_RUN_BLOCKS } else { RUN_BLOCKS })
    }

    /// One thread's choice of compressors, for as long as it lives. Where there is no device, room is all that counts.
    fn chooser(&self) -> Chooser {
        match self.codec {
            CodecChoice::Auto if self.disk.has_tiers() => Chooser::between(self.compressor()),
            _ => Chooser::fixed(self.compressor()),
        }
    }

    /// A compressor as new stores want it: with the newest dictionary.
    pub(crate) fn compressor(&self) -> Compressor {
        let dictionary = self.trainer.current().and_then(|id| self.dictionaries.get(id));
        match (self.codec, dictionary) {
            (CodecChoice::Lz4, _) => Compressor::new(Method::Lz4, None),
            (CodecChoice::Auto | CodecChoice::Zstd, _) if self.lean => {
                Compressor::new(Method::ZSTD_SMALL, None)
            }
            (CodecChoice::Auto | CodecChoice::Zstd, _) => Compressor::new(Method::ZSTD_FAST, dictionary),
        }
    }

    pub(crate) fn word(&self, slot: SlotId) -> SlotWord {
        self.space.slot(slot).map_or(SlotWord::EMPTY, |cell| cell.load())
    }

    pub(crate) fn has_page(&self, slot: SlotId) -> bool {
        !self.word(slot).is_empty()
    }

    /// Where the slot's bytes are now; it may change at any moment between pool and segment.
    pub fn backing(&self, slot: SlotId) -> BackingKind {
        match self.word(slot).backing() {
            Backing::Empty => BackingKind::Empty,
            Backing::Fill(_) => BackingKind::Fill,
            Backing::Pool(_) | Backing::Moving(_) => BackingKind::Pool,
            Backing::Segment(_) => BackingKind::Segment,
            Backing::Poisoned => BackingKind::Poisoned,
        }
    }

    /// The slot's word as it is now: what a simulation compares with the table of transitions. Nothing else should want to know.
    #[doc(hidden)]
    pub fn peek(&self, slot: SlotId) -> SlotWord {
        self.word(slot)
    }

    /// Frees the bytes of a word that the caller alone took out of its slot.
    pub(crate) fn free_backing(&self, slot: SlotId, old: SlotWord) {
        match old.backing() {
            Backing::Pool(handle) | Backing::Moving(Moving { source: handle, .. }) => {
                self.free_entry(slot, handle, old);
            }
            Backing::Segment(addr) => self.release_segment_entry(addr),
            Backing::Empty | Backing::Fill(_) | Backing::Poisoned => {}
        }
    }

    /// Frees the pool entry of such a word; gives its length.
    pub(crate) fn free_entry(&self, slot: SlotId, handle: PoolHandle, old: SlotWord) -> usize {
        self.generations.left(old.age());
        let length = self.pool.remove(handle, slot);
        debug_assert!(length.is_some(), "{slot}: its pool entry was gone");
        length.unwrap_or(0)
    }

    /// Memory that the pool really holds: touched pages of chunks, headers, tables.
    pub fn pool_bytes(&self) -> ByteCount {
        self.pool.held()
    }

    /// Bytes of the entries in the pool.
    pub fn pool_payload(&self) -> ByteCount {
        self.pool.stats().payload
    }

    /// Memory of slots, private lists, dictionaries and the books of the disk.
    pub fn metadata_bytes(&self) -> ByteCount {
        let lists = self.lists.load(Ordering::Relaxed) * LIST_BYTES as u64;
        // A line of the table of large counts is about three words with its share of empty ones.
        let counts = self.large_counts.len() * 3 * size_of::<u64>();
        let others = counts + self.dictionaries.memory() + self.disk.metadata_bytes();
        ByteCount::new(self.space.memory() + lists + others as u64)
    }

    /// Counts since the start and what is held now.
    pub fn stats(&self) -> EngineStats {
        let mut stats = self.counters.snapshot();
        let pool = self.pool.stats();
        stats.pool_pages = PageCount::new(pool.entries);
        stats.pool_bytes = pool.held;
        stats.pool_payload = pool.payload;
        stats.clusters = self.space.clusters();
        stats.metadata_bytes = self.metadata_bytes();
        self.disk.add_stats(&mut stats);
        stats
    }
}
