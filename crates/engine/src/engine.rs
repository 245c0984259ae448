//! [`Engine`]: the whole, and what little it does itself: making, asking, counting.

use crate::config::{CodecChoice, EngineConfig};
use crate::disk::Disk;
use crate::error::EngineError;
use crate::groups::Tree;
use crate::losses::Losses;
use crate::owner::{LIST_BYTES, OwnerBlock};
use crate::raw::RawSlots;
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
    Backing, ByteCount, Generations, GroupId, Load, Moving, PageCount, PoolHandle, SlotId, SlotWord,
};
use vswap_pool::{Pool, PoolConfig};
use vswap_segment::{MAX_ENTRY_BLOCKS, Storage};

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
    pub(crate) raw: RawSlots,
    pub(crate) trainer: Trainer,
    pub(crate) counters: Counters,
    pub(crate) losses: Losses,
    /// Calls of `maintain` for which the pool is left as it is.
    pub(crate) rest: AtomicU64,
    /// One compaction at a time.
    pub(crate) compacting: Mutex<()>,
    codec: CodecChoice,
    pub(crate) tree: Tree,
}

impl Engine {
    /// Makes an engine.
    ///
    /// # Errors
    /// When a tier cannot be made.
    pub fn new(config: EngineConfig) -> Result<Arc<Self>, EngineError> {
        let engine = Self::without_tiers(&config)?;
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

    fn without_tiers(config: &EngineConfig) -> Result<Arc<Self>, EngineError> {
        let disk = Disk::new(config.lean, config.encryption).map_err(|source| EngineError::Key { source })?;
        Ok(Arc::new(Self {
            space: Space::new(),
            large_counts: LargeCounts::default(),
            lists: AtomicU64::new(0),
            pool: Pool::new(PoolConfig { limit: config.pool_limit, ..PoolConfig::default() }),
            generations: Generations::default(),
            disk,
            dictionaries: Dictionaries::default(),
            lean: config.lean,
            trainer: Trainer::new(config.codec != CodecChoice::Lz4 && !config.lean),
            raw: RawSlots::default(),
            counters: Counters::default(),
            losses: Losses::default(),
            rest: AtomicU64::new(0),
            compacting: Mutex::new(()),
            codec: config.codec,
            tree: Tree::new(),
        }))
    }

    /// A block of 512 positions for an owner; costs nothing until something is stored. Its clusters are
    /// charged to `group`.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn owner_block(&self, group: GroupId) -> Result<OwnerBlock, EngineError> {
        self.existing(group).map(OwnerBlock::new)
    }

    /// Makes one thread's buffers and contexts; allocates, so at the thread's start.
    pub fn scratch(&self) -> Scratch {
        Scratch::new(self.chooser(), MAX_ENTRY_BLOCKS)
    }

    /// [`Engine::scratch`] of a thread that reads runs of pages ([`Engine::load_run`]), with a larger buffer: a tier may still come.
    pub fn scratch_for_runs(&self) -> Scratch {
        Scratch::new(self.chooser(), if self.lean { LEAN_RUN_BLOCKS } else { RUN_BLOCKS })
    }

    /// [`Engine::scratch_for_runs`] of a thread that stores pages which outlive the run: it uses no dictionary, since these end with it.
    pub fn scratch_for_kept(&self) -> Scratch {
        let compressor = match self.codec {
            CodecChoice::Lz4 => Compressor::new(Method::Lz4, None),
            CodecChoice::Auto | CodecChoice::Zstd => Compressor::new(Method::ZSTD_FAST, None),
        };
        let chooser = match self.codec {
            CodecChoice::Auto => Chooser::between(compressor),
            CodecChoice::Lz4 | CodecChoice::Zstd => Chooser::fixed(compressor),
        };
        Scratch { plain: true, ..Scratch::new(chooser, if self.lean { LEAN_RUN_BLOCKS } else { RUN_BLOCKS }) }
    }

    /// One thread's choice of compressors, for as long as it lives. Where there is no device, room is all that counts.
    fn chooser(&self) -> Chooser {
        match self.codec {
            CodecChoice::Auto if self.disk.store().has_disks() => Chooser::between(self.compressor()),
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

    /// Frees what was a slot's whole page, and takes its charge off. The caller alone took the word out of the slot, and keeps the
    /// cluster in use.
    pub(crate) fn free_page(&self, slot: SlotId, old: SlotWord) {
        let pool = self.free_backing(slot, old) as u32;
        self.uncharge(slot, Load { pages: u16::from(!old.is_empty()), pool });
    }

    pub(crate) fn word(&self, slot: SlotId) -> SlotWord {
        self.space.slot(slot).map_or(SlotWord::EMPTY, |cell| cell.load())
    }

    /// Whether a slot has bytes.
    pub fn has_page(&self, slot: SlotId) -> bool {
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

    /// The system gives no more memory from now on, or does again: for a simulation. What is there already is used on.
    #[doc(hidden)]
    pub fn starve(&self, starving: bool) {
        self.space.starve(starving);
        self.pool.starve(starving);
    }

    /// Frees the bytes of a word that the caller alone took out of its slot. Gives those that were in the pool, which are still charged.
    pub(crate) fn free_backing(&self, slot: SlotId, old: SlotWord) -> usize {
        match old.backing() {
            Backing::Pool(handle) | Backing::Moving(Moving { source: handle, .. }) => {
                self.free_entry(slot, handle, old)
            }
            Backing::Segment(addr) => {
                self.release_segment_entry(addr);
                0
            }
            Backing::Empty | Backing::Fill(_) | Backing::Poisoned => 0,
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

    /// Memory of tiers with nothing behind them. It is neither in [`pool_bytes`](Self::pool_bytes) nor in [`metadata_bytes`](Self::metadata_bytes).
    pub fn ghost_bytes(&self) -> ByteCount {
        ByteCount::new(self.disk.ghosts.held())
    }

    /// What the memory of tiers with nothing behind them may come to: from there on they have no room. No limit at first.
    pub fn set_ghost_limit(&self, limit: ByteCount) {
        self.disk.ghosts.set_limit(limit.get());
    }

    /// Memory of slots, private lists, groups, dictionaries and the books of the disk.
    pub fn metadata_bytes(&self) -> ByteCount {
        let lists = self.lists.load(Ordering::Relaxed) * LIST_BYTES as u64;
        // A line of the table of large counts is about three words with its share of empty ones.
        let counts = self.large_counts.len() * 3 * size_of::<u64>();
        let others = counts + self.dictionaries.memory() + self.disk.metadata_bytes();
        ByteCount::new(self.space.memory() + lists + self.tree.memory() + others as u64)
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
