//! A first engine behind the final interface: pages raw in a map. To be replaced.

use crate::*;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, Page, SlotId};

/// The virtual swap space with its backings.
#[derive(Debug)]
pub struct Engine {
    pages: Mutex<HashMap<SlotId, (u32, Box<Page>)>>,
    next: AtomicU64,
}

/// One thread's buffers.
#[derive(Debug, Default)]
pub struct Scratch(());

impl Engine {
    /// Makes an engine.
    ///
    /// # Errors
    /// When the segment file cannot be made, or there is no memory.
    pub fn new(_config: EngineConfig) -> Result<Arc<Self>, EngineError> {
        Ok(Arc::new(Self { pages: Mutex::default(), next: AtomicU64::new(0) }))
    }

    /// A block of 512 positions for an owner; costs nothing until something is stored.
    ///
    /// # Errors
    /// When the group is unknown.
    pub fn owner_block(&self, _group: GroupId) -> Result<OwnerBlock, EngineError> {
        Ok(OwnerBlock::empty())
    }

    /// Reads the page of a slot.
    ///
    /// # Errors
    /// When the bytes cannot be had: the reader must not go on.
    pub fn load(
        &self,
        slot: SlotId,
        page: &mut Page,
        _scratch: &mut Scratch,
    ) -> Result<LoadedFrom, LoadError> {
        match self.pages.lock().get(&slot) {
            Some((_, bytes)) => {
                page.copy_from_slice(&bytes[..]);
                Ok(LoadedFrom::Pool)
            }
            None => {
                page.fill(0);
                Ok(LoadedFrom::Empty)
            }
        }
    }

    /// Stores a page into a slot that is exclusively the caller's, replacing what it held.
    ///
    /// # Errors
    /// When there is no room; the slot then keeps what it held.
    pub fn store(&self, slot: SlotId, page: &Page, _scratch: &mut Scratch) -> Result<StoredAs, StoreError> {
        self.pages.lock().insert(slot, (1, Box::new(*page)));
        Ok(StoredAs::Pool { length: PAGE_SIZE })
    }

    /// Where the slot's bytes are now.
    pub fn backing(&self, slot: SlotId) -> BackingKind {
        match self.pages.lock().contains_key(&slot) {
            true => BackingKind::Pool,
            false => BackingKind::Empty,
        }
    }

    /// Moves about `want` bytes of the coldest pool entries to segments.
    ///
    /// # Errors
    /// When there is no disk or the write failed; the pages stay in the pool.
    pub fn writeback(
        &self,
        _want: ByteCount,
        _scratch: &mut Scratch,
    ) -> Result<WritebackReport, WritebackError> {
        Err(WritebackError::NoDisk)
    }

    /// Memory that the pool really holds.
    pub fn pool_bytes(&self) -> ByteCount {
        ByteCount::new((self.pages.lock().len() * PAGE_SIZE) as u64)
    }

    /// Bytes of the entries in the pool.
    pub fn pool_payload(&self) -> ByteCount {
        self.pool_bytes()
    }

    /// Memory of slots and private lists.
    pub fn metadata_bytes(&self) -> ByteCount {
        ByteCount::ZERO
    }

    /// Counts since the start and what is held now.
    pub fn stats(&self) -> EngineStats {
        EngineStats::default()
    }

    /// Makes one thread's buffers; allocates, so at the thread's start.
    pub fn scratch(&self) -> Scratch {
        Scratch::default()
    }

    pub(crate) fn new_slot(&self) -> SlotId {
        SlotId::new(self.next.fetch_add(1, Ordering::Relaxed)).expect("below 2^41")
    }

    pub(crate) fn share(&self, slot: SlotId) {
        if let Some((count, _)) = self.pages.lock().get_mut(&slot) {
            *count += 1;
        }
    }

    pub(crate) fn count(&self, slot: SlotId) -> u32 {
        self.pages.lock().get(&slot).map_or(0, |(count, _)| *count)
    }

    pub(crate) fn unshare(&self, slot: SlotId) {
        let mut pages = self.pages.lock();
        if let Some((count, _)) = pages.get_mut(&slot) {
            *count -= 1;
            if *count == 0 {
                pages.remove(&slot);
            }
        }
    }
}
