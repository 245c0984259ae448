//! Whose segments a store's are, and what each may have of a tier.

use super::SegmentStore;
use crate::classes::{ClassId, Share};
use crate::extents::TierId;
use crate::{SEGMENT_BYTES, SegmentId, TierError};

impl SegmentStore {
    /// Makes a class below `above`, without limits; the classes `below`, which were directly below that one, are below the new one from now on, with
    /// all that they have. `None` if there are as many as can be.
    #[must_use]
    pub fn add_class(&self, above: ClassId, below: &[ClassId]) -> Option<ClassId> {
        self.table.write().classes_mut().add(above, below)
    }

    /// A class has no limits any more; what it has, and the classes below it, are its parent's from now on. Looks at no segment.
    pub fn give_class_up(&self, class: ClassId) {
        self.table.write().classes_mut().give_up(class);
    }

    /// Sets what a class may have of a tier, in bytes: whole segments, so what is beyond the last of these counts for nothing. `None` is no limit. One
    /// below what it has takes nothing away.
    ///
    /// # Errors
    /// When there is no such tier.
    pub fn limit_class(&self, class: ClassId, tier: TierId, bytes: Option<u64>) -> Result<(), TierError> {
        let mut table = self.table.write();
        table.tiers().state(tier).ok_or(TierError::NoTier { tier })?;
        let extents = |bytes: u64| u32::try_from(bytes / SEGMENT_BYTES as u64).unwrap_or(u32::MAX);
        let known = table.classes_mut().limit(class, tier, bytes.map(extents));
        debug_assert!(known, "class {} has been given up", class.get());
        Ok(())
    }

    /// What a class has and may have of each tier.
    #[must_use]
    pub fn shares(&self, class: ClassId) -> Vec<Share> {
        let table = self.table.read();
        table.tiers().all().map(|tier| table.classes().share(class, tier)).collect()
    }

    /// Whether there is room for a segment of a class now, without cleaning.
    #[must_use]
    pub fn has_room(&self, class: ClassId) -> bool {
        self.ask_for_room();
        self.table.read().has_room(class)
    }

    /// Where a segment is.
    #[must_use]
    pub fn tier_of(&self, segment: SegmentId) -> Option<TierId> {
        self.table.read().place(segment).map(|place| place.tier)
    }

    /// Counts what each class has anew, segment by segment. No segment may be on its way between tiers.
    ///
    /// # Errors
    /// What is counted wrongly.
    pub fn audit_classes(&self) -> Result<(), String> {
        self.table.read().audit_classes()
    }
}
