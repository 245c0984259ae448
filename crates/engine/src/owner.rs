//! What an owner remembers for 2 MiB of itself.

use crate::{Engine, EngineError};
use vswap_core::{PAGES_PER_CLUSTER, PageIndex, SlotId};

/// An owner's 512 positions. Plain data: its owner keeps it behind its own lock.
#[must_use = "dispose of it, or its slots leak"]
#[derive(Debug)]
pub struct OwnerBlock {
    list: Box<[Option<SlotId>; PAGES_PER_CLUSTER]>,
}

impl OwnerBlock {
    pub(crate) fn empty() -> Self {
        Self { list: Box::new([None; PAGES_PER_CLUSTER]) }
    }

    /// Where the page's bytes are, if it has a slot.
    pub fn slot(&self, page: PageIndex) -> Option<SlotId> {
        self.list[page.get()]
    }

    /// A slot that is exclusively this owner's, to store the page into.
    ///
    /// # Errors
    /// When the space is full.
    pub fn slot_for_store(&mut self, engine: &Engine, page: PageIndex) -> Result<SlotId, EngineError> {
        if let Some(slot) = self.list[page.get()] {
            if engine.count(slot) <= 1 {
                return Ok(slot);
            }
            engine.unshare(slot);
        }
        let slot = engine.new_slot();
        self.list[page.get()] = Some(slot);
        Ok(slot)
    }

    /// The page's backing is no longer wanted by this owner.
    pub fn release(&mut self, engine: &Engine, page: PageIndex) {
        if let Some(slot) = self.list[page.get()].take() {
            engine.unshare(slot);
        }
    }

    /// A second owner of the same pages; both share until one changes.
    pub fn fork(&mut self, engine: &Engine) -> OwnerBlock {
        for slot in self.list.iter_mut() {
            if let Some(id) = *slot {
                if engine.count(id) == 0 {
                    *slot = None;
                } else {
                    engine.share(id);
                }
            }
        }
        Self { list: self.list.clone() }
    }

    /// Tells whether the page has bytes here.
    pub fn has_backing(&self, engine: &Engine, page: PageIndex) -> bool {
        self.slot(page).is_some_and(|slot| engine.count(slot) > 0)
    }

    /// The owner is gone: everything it referred to is let go.
    pub fn dispose(mut self, engine: &Engine) {
        for page in PageIndex::all() {
            self.release(engine, page);
        }
    }
}
