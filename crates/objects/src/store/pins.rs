//! Pinned objects: nothing of them is given up, and all together have no more than the store's owner allows.

use crate::presence::pages_of;
use crate::store::Store;
use crate::store::books::Books;
use crate::store::error::NamedError;
use crate::store::keeping::changing;
use crate::store::named::{Known, NamedObject};
use std::collections::BTreeMap;
use std::ops::Range;
use vswap_core::{ByteCount, PageCount};

/// By number of the object, the pages of those that are pinned: as of the last commit, and what was written to them since, where what was there already may count twice.
#[derive(Debug, Default)]
pub(super) struct Pins(pub(super) BTreeMap<u64, u64>);

impl Pins {
    fn pages(&self) -> u64 {
        self.0.values().sum()
    }
}

impl NamedObject {
    /// Nothing of it is given up from now on, whatever else is wanted.
    ///
    /// # Errors
    /// When what is pinned would be more than may be ([`StoreConfig::pinned`](crate::StoreConfig)); when it is gone.
    pub fn pin(&self) -> Result<(), NamedError> {
        let _changing = changing(self);
        let keeping = self.keeping().filter(|keeping| !keeping.is_gone()).ok_or(NamedError::Gone)?;
        let mut books = self.store().books.lock();
        if !keeping.claim.is_pinned() {
            let pages = self.look(|engine, content| content.pages(engine, &(0..content.len())));
            books.pin(keeping.claim.id, pages, self.store().most_pinned)?;
            keeping.claim.set_pinned(true);
        }
        Ok(())
    }

    /// It may be given up like any other.
    pub fn unpin(&self) {
        let _changing = changing(self);
        let Some(keeping) = self.keeping() else { return };
        self.store().books.lock().pins.0.remove(&keeping.claim.id);
        keeping.claim.set_pinned(false);
    }

    /// Whether it is pinned.
    pub fn is_pinned(&self) -> bool {
        self.keeping().is_some_and(|keeping| keeping.claim.is_pinned())
    }

    /// Before a range of it is written: what it will have more counts, if it is pinned.
    pub(super) fn count_pinned(&self, range: &Range<u64>) -> Result<(), NamedError> {
        let Some(keeping) = self.keeping().filter(|keeping| keeping.claim.is_pinned()) else { return Ok(()) };
        let there = self.look(|engine, content| content.pages(engine, range));
        let pages = pages_of(range);
        let more = (pages.end - pages.start).saturating_sub(there);
        let mut books = self.store().books.lock();
        // It may have been removed or unpinned meanwhile.
        match books.pins.0.contains_key(&keeping.claim.id) {
            true => books.pin(keeping.claim.id, more, self.store().most_pinned),
            false => Ok(()),
        }
    }
}

impl Store {
    /// What is pinned, and the most that may be.
    pub fn pinned(&self) -> (ByteCount, ByteCount) {
        let bytes = |pages| PageCount::new(pages).bytes();
        (bytes(self.books.lock().pins.pages()), bytes(self.most_pinned))
    }
}

impl Books {
    fn pin(&mut self, id: u64, pages: u64, most: u64) -> Result<(), NamedError> {
        let pinned = self.pins.pages();
        if pages > 0 && pinned + pages > most {
            let bytes = |pages| PageCount::new(pages).bytes();
            return Err(NamedError::PinnedFull { pinned: bytes(pinned), most: bytes(most) });
        }
        *self.pins.0.entry(id).or_default() += pages;
        Ok(())
    }

    /// At a commit: what it has now.
    pub(super) fn recount_pinned(&mut self, known: &Known) {
        let Some(keeping) = known.object().keeping() else { return };
        if let Some(pages) = self.pins.0.get_mut(&keeping.claim.id) {
            *pages = known.object().look(|engine, content| content.pages(engine, &(0..content.len())));
        }
    }
}
