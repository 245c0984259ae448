//! Lending room: others of this user have tiers in the store's file (`vswap run --disk-path STORE`, `Region::builder(..).store(..)`), and what the store need not keep gives way to them.

use crate::store::Store;
use crate::store::commit::Promise;
use crate::store::error::NamedError;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vswap_core::{ByteCount, PageCount};
use vswap_engine::SEGMENT_BYTES;
use vswap_segment::{Extent, Lender, Lending};

const SEGMENT: u64 = SEGMENT_BYTES as u64;
/// Bytes of room that a segment to be lent wants as a promise.
const LENT: u64 = {
    let promised = Store::at_worst(SEGMENT_BYTES);
    promised + promised / 64 + 1
};
/// For so long after one could not be lent a segment only what is free is said to be there.
const WARY: Duration = Duration::from_secs(10);

impl Store {
    /// Lends the store's room to others of this user, and to root. Nobody new comes when what this gives is dropped; who is there then is served as long as the store is open, and keeps what it has until it ends. As long as anybody is
    /// connected, or this is kept, nobody opens the store anew.
    ///
    /// What is lent is taken from what the store may give up, the oldest first as with any want of room ([`Store::reclaim`]): what is pinned or dirty stays, and a store
    /// without [`StoreConfig::marks`](crate::StoreConfig) lends only what is free. No more than a part of the store is lent ([`StoreConfig::lent`](crate::StoreConfig)). Room comes back when the borrower has no use for it, or ends. `dir` is the store's directory.
    ///
    /// # Errors
    /// When the store is not in a file, or there can be no socket in its directory.
    pub fn lend(self: &Arc<Self>, dir: &Path) -> Result<Lending, NamedError> {
        let io = |act| move |source| NamedError::Io { path: dir.to_owned(), act, source };
        let storage = self.engine().durable_storage();
        let file = storage.as_ref().and_then(|storage| Some((storage.file()?, storage)));
        let (file, storage) =
            file.ok_or_else(|| std::io::ErrorKind::Unsupported.into()).map_err(io("lend room of"))?;
        let file = Arc::clone(file);
        let lender: Arc<dyn Lender> = Arc::<Self>::clone(self);
        let segments = u32::try_from((storage.start() + storage.capacity()) / SEGMENT).unwrap_or(u32::MAX);
        Lending::start(dir, (file, segments), &lender).map_err(io("make a socket in"))
    }

    /// What is lent.
    pub fn lent(&self) -> ByteCount {
        self.engine().lent_durable()
    }

    /// Segments that may be lent beside those that are.
    fn may_lend(&self) -> u64 {
        (self.most_lent / SEGMENT).saturating_sub(self.lent().get() / SEGMENT)
    }

    /// Nothing is given up for others, or there was nothing a moment ago.
    fn is_wary(&self) -> bool {
        self.marks.is_none() || self.refused.lock().is_some_and(|when| when.elapsed() < WARY)
    }

    /// Room for others beside what is promised to writers, bytes.
    fn free_to_lend(&self) -> u64 {
        self.engine().durable_room().get().saturating_sub(self.owed())
    }
}

impl Lender for Store {
    fn lend_segments(&self, most: u32) -> Vec<Extent> {
        let most = u64::from(most).min(self.may_lend());
        if most == 0 {
            return Vec::new();
        }
        // As many, unless that was in vain a moment ago, or as few as there are.
        let all = (!self.is_wary()).then_some(most);
        let lent = all.into_iter().map(Some).chain([None]).find_map(|want| {
            let want = want.unwrap_or_else(|| most.min(self.free_to_lend() / LENT));
            // What is promised to nobody else is there until it is taken.
            let promise = (want > 0).then(|| self.promise(want as usize * SEGMENT_BYTES))?.ok()?;
            let lent = self.engine().lend_durable(want.min(self.may_lend()) as u32);
            promise.take_back();
            (!lent.is_empty()).then_some(lent)
        });
        if lent.is_none() {
            *self.refused.lock() = Some(Instant::now());
        }
        lent.unwrap_or_default()
    }

    fn prepare(&self, most: u32) {
        let most = u64::from(most).min(self.may_lend());
        if most > 0 && !self.is_wary() && self.free_to_lend() < most * LENT {
            // Nothing is to be written for it; what was won stays.
            let _ = self.promise(most as usize * SEGMENT_BYTES).map(Promise::take_back);
        }
    }

    fn take_back(&self, lent: &[Extent]) {
        self.engine().take_back_durable(lent);
    }

    fn spare(&self) -> u32 {
        // A commit may have the books for a while; then what is pinned shows when it is wanted.
        let pinned = || self.books.try_lock().map_or(0, |books| books.pins.pages());
        let could = || {
            let kept = PageCount::new(pinned()).bytes().get() + self.lent().get() + self.owed();
            self.size.saturating_sub(kept)
        };
        let segments = if self.is_wary() { self.free_to_lend() / LENT } else { could() / SEGMENT };
        u32::try_from(segments.min(self.may_lend())).unwrap_or(u32::MAX)
    }
}
