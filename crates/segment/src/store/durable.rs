//! Segments that outlive the run; see `table/durable.rs` for what is kept of them.

use super::SegmentStore;
use crate::classes::ClassId;
use crate::extents::{Extent, TierId};
use crate::storage::Storage;
use crate::table::{KeptSegment, Wanted};
use crate::{Candidate, EntryAddr, KeptError, Keys, SegmentId};
use std::io;
use std::sync::Arc;

impl SegmentStore {
    /// Segments of this class are to outlive the run, and go to this tier only. `keys` guard them, and sequence numbers go on after `after`, which no former
    /// run with these keys has reached. `kept` are the segments that former runs have left and whose list was kept; nothing lives in them until
    /// [`revive`](Self::revive) says so. To be done before anything is written.
    ///
    /// # Errors
    /// When there are segments already, or those that are kept cannot be where they are said to be: then nothing has changed.
    pub fn make_durable(
        &self,
        at: (ClassId, TierId),
        keys: Keys,
        after: u64,
        kept: &[KeptSegment],
    ) -> Result<(), KeptError> {
        let mut table = self.table.write();
        table.make_durable(at, after, kept)?;
        // One table, one such class: nobody was here before.
        let _ = self.durable.set((at.0, keys));
        Ok(())
    }

    /// So many more entries of a segment that was kept live.
    ///
    /// # Errors
    /// When it has not been kept, or had fewer.
    pub fn revive(&self, segment: SegmentId, entries: u32) -> Result<(), KeptError> {
        let known = self.table.write().revive(segment, entries);
        if known { Ok(()) } else { Err(KeptError::Unknown { segment }) }
    }

    /// Segments that were kept and of which nothing has been revived are dead. Gives how many.
    pub fn bury(&self) -> usize {
        self.table.write().bury()
    }

    /// The segments that outlive the run, and how many extents of dead ones wait for a list without them to be kept: as many as may be given to
    /// [`free_limbo`](Self::free_limbo) then.
    #[must_use]
    pub fn to_keep(&self) -> (Vec<KeptSegment>, usize) {
        let table = self.table.read();
        (table.to_keep(), table.limbo())
    }

    /// A list of [`to_keep`](Self::to_keep) has been kept: what was in limbo then is free.
    pub fn free_limbo(&self, many: usize) {
        self.table.write().free_limbo(many);
    }

    /// Segments for which there is room on the tier.
    #[must_use]
    pub fn durable_room(&self) -> u64 {
        self.ask_for_room();
        self.table.read().durable_room()
    }

    /// The tier takes segments again if a write to it has failed.
    pub fn reopen_durable(&self) {
        let tier = self.table.read().durable_tier();
        // It is there, and is never emptied.
        let _ = tier.map(|tier| self.reopen_tier(tier));
    }

    /// Extents in limbo now.
    #[must_use]
    pub fn limbo(&self) -> usize {
        self.table.read().limbo()
    }

    /// Takes up to `most` free extents of the tier for somebody else, who reads and writes there without us until they are taken back.
    #[must_use]
    pub fn lend(&self, most: u32) -> Vec<Extent> {
        self.table.write().lend(most)
    }

    /// Extents that were lent are free: nobody reads or writes there any more. What was not lent is left as it is.
    pub fn take_back(&self, lent: &[Extent]) {
        let mut table = self.table.write();
        for extent in lent {
            table.take_back(*extent);
        }
    }

    /// How many are lent.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.table.read().lent()
    }

    /// What the tier is made of.
    #[must_use]
    pub fn durable_storage(&self) -> Option<Arc<dyn Storage>> {
        let tier = self.table.read().durable_tier()?;
        self.storage(tier)
    }

    /// All that was written of the class outlives a power cut once this has returned.
    ///
    /// # Errors
    /// As the device.
    pub fn sync_durable(&self) -> io::Result<()> {
        self.durable_storage().map_or(Ok(()), |storage| storage.sync())
    }

    /// Whether segments of a class outlive the run.
    #[must_use]
    pub fn is_durable(&self, class: ClassId) -> bool {
        self.durable.get().is_some_and(|(durable, _)| *durable == class)
    }

    /// Whether an entry's segment outlives the run.
    #[must_use]
    pub fn is_kept(&self, addr: EntryAddr) -> bool {
        let of = || self.table.read().place(addr.segment()).map(|place| place.class);
        self.durable.get().is_some() && of().is_some_and(|class| self.is_durable(class))
    }

    /// [`pick_to_clean`](Self::pick_to_clean), of the segments that outlive the run.
    #[must_use]
    pub fn pick_durable(&self, max_live: f64) -> Option<Candidate> {
        self.pick_to_clean(max_live, &self.wanted_durable()?)
    }

    /// [`dead_to_win`](Self::dead_to_win), of the segments that outlive the run, less a quarter of one for what stays unused at the ends of those that are packed.
    #[must_use]
    pub fn durable_to_win(&self, max_live: f64) -> u64 {
        let Some(wanted) = self.wanted_durable() else { return 0 };
        let dead = self.dead_of(max_live, &wanted).into_values().fold(0.0, f64::max);
        (dead - 0.25).max(0.0) as u64
    }

    fn wanted_durable(&self) -> Option<Wanted<'static>> {
        let (class, _) = self.durable.get()?;
        Some(Wanted { by: *class, of: Some(*class), ..Wanted::default() })
    }
}
