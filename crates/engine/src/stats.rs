//! What operations report and the engine counts.

use std::sync::atomic::{AtomicU64, Ordering};
use vswap_core::{ByteCount, PageCount};

/// Where a slot's bytes are, seen from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BackingKind {
    /// Nowhere: the slot holds no page.
    Empty,
    /// In the slot itself.
    Fill,
    /// In the pool (also while on the way to a segment).
    Pool,
    /// In a segment.
    Segment,
    /// Lost.
    Poisoned,
}

/// Where a load found the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LoadedFrom {
    /// The slot holds no page: the buffer was zeroed.
    Empty,
    /// The slot's pattern.
    Fill,
    /// The pool.
    Pool,
    /// A segment: one read of the device.
    Segment,
}

/// What a store made of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StoredAs {
    /// A pattern in the slot: no memory taken.
    Fill,
    /// A pool entry.
    Pool {
        /// Its length; 4096 when stored raw.
        length: usize,
    },
}

/// What a writeback did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WritebackReport {
    /// Pages that went from the pool to a segment.
    pub pages: PageCount,
    /// Bytes written to the device.
    pub written: ByteCount,
    /// Pool payload freed.
    pub freed: ByteCount,
    /// Whether it stopped because the disk had no room: the caller must push back.
    pub disk_full: bool,
    /// Whether it stopped because the groups whose pages are left may have no more of the tiers that have room.
    pub limited: bool,
}

/// Counts since the engine was made, and what is held now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EngineStats {
    /// Stores that became a pattern.
    pub stored_fill: u64,
    /// Stores that were compressed.
    pub stored_compressed: u64,
    /// Stores that did not compress and were kept raw.
    pub stored_raw: u64,
    /// Bytes of pool entries made (compressed and raw).
    pub stored_bytes: ByteCount,
    /// Loads of empty slots.
    pub loaded_empty: u64,
    /// Loads from a pattern.
    pub loaded_fill: u64,
    /// Loads from the pool.
    pub loaded_pool: u64,
    /// Loads from a segment.
    pub loaded_segment: u64,
    /// Loads that found the page lost.
    pub lost: u64,
    /// Pages written back.
    pub written_pages: PageCount,
    /// Pages moved from sparse segments to others.
    pub cleaned_pages: PageCount,
    /// Bytes copied from tiers with hardly any room left to those of lower priority.
    pub demoted_bytes: ByteCount,
    /// Bytes written to the device, cleaning included.
    pub written_bytes: ByteCount,
    /// Bytes read from the device.
    pub read_bytes: ByteCount,
    /// Segments written, by cleaning too.
    pub written_segments: u64,
    /// Reads of the device by how many segments had been written since: `a` more count at `log2(a + 1)` rounded down.
    pub reads_by_age: [u64; vswap_segment::AGES],
    /// Pages whose bytes are in the pool now.
    pub pool_pages: PageCount,
    /// Pages whose bytes are in segments now.
    pub segment_pages: PageCount,
    /// Clusters in use now.
    pub clusters: u64,
    /// Memory of the pool now.
    pub pool_bytes: ByteCount,
    /// Payload of the pool now.
    pub pool_payload: ByteCount,
    /// Memory of slots and private lists now.
    pub metadata_bytes: ByteCount,
    /// Memory of tiers with nothing behind them now.
    pub ghost_bytes: ByteCount,
    /// Bytes of the segments in use now.
    pub disk_bytes: ByteCount,
}

/// The counters behind [`EngineStats`]. Relaxed: they order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) stored_fill: AtomicU64,
    pub(crate) stored_compressed: AtomicU64,
    pub(crate) stored_raw: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    pub(crate) loaded_empty: AtomicU64,
    pub(crate) loaded_fill: AtomicU64,
    pub(crate) loaded_pool: AtomicU64,
    pub(crate) loaded_segment: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) written_pages: AtomicU64,
    pub(crate) cleaned_pages: AtomicU64,
    pub(crate) demoted_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> EngineStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EngineStats {
            stored_fill: of(&self.stored_fill),
            stored_compressed: of(&self.stored_compressed),
            stored_raw: of(&self.stored_raw),
            stored_bytes: ByteCount::new(of(&self.stored_bytes)),
            loaded_empty: of(&self.loaded_empty),
            loaded_fill: of(&self.loaded_fill),
            loaded_pool: of(&self.loaded_pool),
            loaded_segment: of(&self.loaded_segment),
            lost: of(&self.lost),
            written_pages: PageCount::new(of(&self.written_pages)),
            cleaned_pages: PageCount::new(of(&self.cleaned_pages)),
            demoted_bytes: ByteCount::new(of(&self.demoted_bytes)),
            ..EngineStats::default()
        }
    }
}
