//! [`Hot`]: pages of a store that are read often, in memory as they are.
//!
//! A page of a store is on its tier from the next commit on, so each read of it would be one of the device. A slot's page is put here by whoever writes it or reads it
//! from the tier, and goes when its slot is stored anew or let go. All that is done with the object locked: to read, for who reads; alone, for who changes.
//!
//! # Invariants
//! - What is here of a slot is what the slot has.

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::Arc;
use vswap_core::{ByteCount, PAGE_SIZE, Page, SlotId};
use vswap_engine::Engine;

/// What a page takes beside its bytes: counters of the pointer, the line in the table, and marks of pages that have gone.
const BESIDES: u64 = 96;

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<SlotId, Arc<Page>> for Weight {
    fn weight(&self, _slot: &SlotId, _page: &Arc<Page>) -> u64 {
        PAGE_SIZE as u64 + BESIDES
    }
}

/// The least recently used go first, but what was used once only goes before (`quick_cache`, an S3-FIFO of shards).
#[derive(Debug, Default)]
pub(crate) struct Hot(Option<Cache<SlotId, Arc<Page>, Weight>>);

impl Hot {
    /// For about so many bytes; for less than some pages, nothing is kept.
    pub(crate) fn new(most: ByteCount) -> Self {
        let pages = most.get() / (PAGE_SIZE as u64 + BESIDES);
        Self((pages >= 64).then(|| Cache::with_weighter(pages as usize, most.get(), Weight)))
    }

    /// The page, if it is here, which counts as a use of its slot.
    pub(crate) fn get(&self, engine: &Engine, slot: SlotId) -> Option<Arc<Page>> {
        let found = self.0.as_ref()?.get(&slot)?;
        engine.note_use(slot);
        Some(found)
    }

    /// Whether it is here, without its being used.
    pub(crate) fn has(&self, slot: SlotId) -> bool {
        self.0.as_ref().is_some_and(|cache| cache.contains_key(&slot))
    }

    pub(crate) fn put(&self, slot: SlotId, page: &Page) {
        if let Some(cache) = &self.0 {
            cache.insert(slot, Arc::new(*page));
        }
    }

    pub(crate) fn forget(&self, slot: SlotId) {
        if let Some(cache) = &self.0 {
            cache.remove(&slot);
        }
    }
}
