//! Lending room: others of this user have tiers in the store's file (`vswap run --disk-path STORE`, `Region::builder(..).store(..)`), and what the store need not keep gives way to them.

use crate::store::Store;
use crate::store::error::NamedError;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vswap_core::{ByteCount, PageCount};
use vswap_engine::SEGMENT_BYTES;
use vswap_segment::{Extent, Lender, Lending};

const SEGMENT: u64 = SEGMENT_BYTES as u64;
/// For so long after one could not be lent a segment only what is free is said to be there.
const WARY: Duration = Duration::from_secs(5);

impl Store {
    /// Lends the store's room to others of this user, and to root, until what this gives is dropped; who has some then keeps it until it ends, and so long nobody opens the store anew.
    ///
    /// What is lent is taken from what the store may give up, the oldest first as with any want of room ([`Store::reclaim`]): what is pinned or dirty stays, and a store
    /// without [`StoreConfig::marks`](crate::StoreConfig) lends only what is free. Room comes back when the borrower has no use for it, or ends. `dir` is the store's directory.
    ///
    /// # Errors
    /// When the store is not in a file, or there can be no socket in its directory.
    pub fn lend(self: &Arc<Self>, dir: &Path) -> Result<Lending, NamedError> {
        let io = |act| move |source| NamedError::Io { path: dir.to_owned(), act, source };
        let storage = self.engine().durable_storage();
        let file = storage.as_ref().and_then(|storage| storage.file());
        let file = file.ok_or_else(|| std::io::ErrorKind::Unsupported.into()).map_err(io("lend room of"))?;
        let file = file.as_fd().try_clone_to_owned().map_err(io("lend room of"))?;
        let lender: Arc<dyn Lender> = Arc::<Self>::clone(self);
        let segments = u32::try_from(self.size / SEGMENT).unwrap_or(u32::MAX);
        Lending::start(dir, (file, segments), &lender).map_err(io("make a socket in"))
    }

    /// What is lent.
    pub fn lent(&self) -> ByteCount {
        self.engine().lent_durable()
    }

    /// Room for others beside what is promised to writers, bytes.
    fn free_to_lend(&self) -> u64 {
        self.engine().durable_room().get().saturating_sub(self.owed())
    }
}

impl Lender for Store {
    fn lend_segments(&self, most: u32) -> Vec<Extent> {
        // One, if there are not as many: a borrower that has to wait for the last of them might have none.
        for want in [most, 1] {
            // What is promised to nobody else is there until it is taken.
            let Ok(promise) = self.promise(want as usize * SEGMENT_BYTES) else { continue };
            let lent = self.engine().lend_durable(want);
            promise.take_back();
            if !lent.is_empty() {
                return lent;
            }
        }
        *self.refused.lock() = Some(Instant::now());
        Vec::new()
    }

    fn take_back(&self, lent: &[Extent]) {
        self.engine().take_back_durable(lent);
    }

    fn spare(&self) -> u32 {
        let wary = self.marks.is_none() || self.refused.lock().is_some_and(|when| when.elapsed() < WARY);
        // A commit may have the books for a while; then what is pinned shows when it is wanted.
        let pinned = || self.books.try_lock().map_or(0, |books| books.pins.pages());
        let could = || {
            let kept = PageCount::new(pinned()).bytes().get() + self.lent().get() + self.owed();
            self.size.saturating_sub(kept)
        };
        let bytes = if wary { self.free_to_lend() } else { could() };
        u32::try_from(bytes / SEGMENT).unwrap_or(u32::MAX)
    }
}
