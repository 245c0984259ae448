//! Pinned objects: nothing of them is given up, and all together have no more than the store's owner allows.

use crate::presence::{common, pages_of};
use crate::store::Store;
use crate::store::books::Books;
use crate::store::error::NamedError;
use crate::store::keeping::changing;
use crate::store::named::{Known, NamedObject};
use std::collections::BTreeMap;
use std::ops::Range;
use vswap_core::{ByteCount, PageCount};

/// By number of the object, those that are pinned.
#[derive(Debug, Default)]
pub(super) struct Pins(pub(super) BTreeMap<u64, Pin>);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pin {
    /// Its pages, as of the last commit, and what was written to it since; what both have may count twice until the next one.
    pub(super) pages: u64,
    /// What those who are writing to it may add.
    coming: u64,
}

impl Pin {
    pub(super) fn of(pages: u64) -> Self {
        Self { pages, coming: 0 }
    }
}

impl Pins {
    pub(super) fn pages(&self) -> u64 {
        self.0.values().map(|pin| pin.pages + pin.coming).sum()
    }
}

impl NamedObject {
    /// Nothing of it is given up from now on, whatever else is wanted.
    ///
    /// # Errors
    /// When what is pinned would be more than may be ([`StoreConfig::pinned`](crate::StoreConfig)); when it is gone.
    pub fn pin(&self) -> Result<(), NamedError> {
        let _changing = changing(self);
        let mut books = self.store().books.lock();
        // With the books: whoever removes it has them.
        let keeping = self.keeping().filter(|keeping| !keeping.is_gone()).ok_or(NamedError::Gone)?;
        if !keeping.claim.is_pinned() {
            let pages = self.look(|engine, content| content.pages(engine, &(0..content.len())));
            let (id, most) = (keeping.claim.id, self.store().most_pinned);
            books.pins.have_room(pages, most)?;
            books.pins.0.insert(id, Pin::of(pages));
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

    /// Before a range of it is written: what it will have more counts, if it is pinned; what it does not have after all counts no more when that ends.
    pub(super) fn count_pinned(&self, range: Range<u64>) -> Result<Option<Counted<'_>>, NamedError> {
        let Some(keeping) = self.keeping().filter(|keeping| keeping.claim.is_pinned()) else {
            return Ok(None);
        };
        let (there, pages) = (self.pages(&range), pages_of(&range));
        let more = (pages.end - pages.start).saturating_sub(there);
        let (id, most) = (keeping.claim.id, self.store().most_pinned);
        let mut books = self.store().books.lock();
        if books.pins.have_room(more, most).is_err() {
            // Something of it may have been cut off since it was counted.
            books.recount_pinned(self.known());
            books.pins.have_room(more, most)?;
        }
        // If there is none, it has been removed or unpinned meanwhile.
        Ok(books.pins.0.get_mut(&id).map(|pin| {
            pin.coming += more;
            Counted { object: self, range, there, more }
        }))
    }

    fn pages(&self, range: &Range<u64>) -> u64 {
        self.look(|engine, content| content.pages(engine, &common(range, &(0..content.len()))))
    }
}

/// Pages of a pinned object that count before they are written.
pub(super) struct Counted<'o> {
    object: &'o NamedObject,
    range: Range<u64>,
    there: u64,
    more: u64,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let came = self.object.pages(&self.range).saturating_sub(self.there);
        let Some(keeping) = self.object.keeping() else { return };
        // A commit may have counted it already: the next one counts it again.
        let _changing = (came > 0).then(|| keeping.changing());
        if let Some(pin) = self.object.store().books.lock().pins.0.get_mut(&keeping.claim.id) {
            pin.coming = pin.coming.saturating_sub(self.more);
            pin.pages += came;
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

impl Pins {
    fn have_room(&self, more: u64, most: u64) -> Result<(), NamedError> {
        let pinned = self.pages();
        let bytes = |pages| PageCount::new(pages).bytes();
        match more > 0 && pinned + more > most {
            true => Err(NamedError::PinnedFull { pinned: bytes(pinned), most: bytes(most) }),
            false => Ok(()),
        }
    }
}

impl Books {
    /// At a commit: what it has now.
    pub(super) fn recount_pinned(&mut self, known: &Known) {
        let Some(keeping) = known.object().keeping() else { return };
        if let Some(pin) = self.pins.0.get_mut(&keeping.claim.id) {
            pin.pages = known.object().look(|engine, content| content.pages(engine, &(0..content.len())));
        }
    }
}
