//! The tiers of a store: added, looked at, drained, removed.
//!
//! Lock order as in the store: the tiers' storage, then the table.

use super::{Behind, SCAN_ROWS, SegmentStore};
use crate::classes::ClassId;
use crate::extents::TierId;
use crate::fit::Fit;
use crate::storage::{Storage, TierKind};
use crate::table::{Burdens, Candidate, Purpose, Room};
use crate::tiers::{MAX_TIERS, TierState, TierStatus, extents_to_move};
use crate::{EntryAddr, SEGMENT_BYTES, SegmentId, TierError};
use std::collections::{BTreeMap, BinaryHeap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl SegmentStore {
    /// Adds a tier. The one of the highest priority that has room gets the next segment; those of one priority take turns.
    ///
    /// # Errors
    /// When there are [`MAX_TIERS`](crate::MAX_TIERS).
    pub fn add_tier(&self, storage: Arc<dyn Storage>, priority: i16) -> Result<TierId, TierError> {
        let mut all = self.storage.write();
        let tier = self.table.write().add_tier(storage.as_ref(), priority);
        let in_memory = storage.kind().is_memory();
        let tier = tier.ok_or(TierError::TooMany { most: MAX_TIERS })?;
        let at = usize::from(tier.0);
        if all.len() <= at {
            all.resize_with(at + 1, || None);
        }
        let name = storage.path().map(Arc::from);
        all[at] = Some(Behind { storage, name });
        // Relaxed: who does not see it yet only does what could have been left out.
        self.has_ghosts.fetch_or(in_memory, Ordering::Relaxed);
        Ok(tier)
    }

    /// Removes a tier on which nothing is.
    ///
    /// # Errors
    /// When there is no such tier or something is on it, or its room is just being given back.
    pub fn remove_tier(&self, tier: TierId) -> Result<(), TierError> {
        let mut all = self.storage.write();
        let mut table = self.table.write();
        table.tiers().state(tier).ok_or(TierError::NoTier { tier })?;
        if !table.remove_tier(tier) {
            return Err(TierError::InUse { tier });
        }
        all[usize::from(tier.0)] = None;
        Ok(())
    }

    /// From now on the tier takes no segments, since it is to be emptied: those of which less than `sparse` (0 to 1) lives by packing them.
    /// Gives what it did before, and whether the others have room for that; if not, all have to be packed, and what does not fit then has to be
    /// taken into memory, `memory` bytes at most.
    ///
    /// # Errors
    /// When there is no such tier or it is being emptied already; or what lives on it does not fit the others and memory: then it goes on as
    /// before.
    pub fn drain_tier(&self, tier: TierId, sparse: f64, memory: u64) -> Result<(TierState, bool), TierError> {
        if self.table.read().durable_tier() == Some(tier) {
            return Err(TierError::Durable { tier });
        }
        let before = self.set_state(tier, TierState::Draining)?;
        if before == TierState::Draining {
            return Err(TierError::Draining { tier });
        }
        let burdens = self.burdens(tier, sparse);
        self.table.write().tiers_mut().pass_nobody_over();
        self.ask_for_room();
        // Packing leaves a little of every segment unused.
        let packed = |live: u64| (live + live / 16).div_ceil(SEGMENT_BYTES as u64);
        let all = burdens.iter().map(|(class, burden)| (*class, packed(burden.live))).collect();
        let mostly = burdens.iter().map(|(class, burden)| (*class, burden.whole + packed(burden.sparse)));
        let mostly = mostly.collect();
        let fit = self.fit(all);
        let holds = burdens.values().map(|burden| burden.live).sum();
        // Nothing is packed in memory: it takes no more than what lives.
        let in_memory = if holds <= memory { fit.lacks } else { memory / SEGMENT_BYTES as u64 };
        if fit.lacks > in_memory {
            self.set_state(tier, before)?;
            let bytes = |segments: u64| segments * SEGMENT_BYTES as u64;
            let needs = bytes(extents_to_move(fit.lacks - in_memory));
            return Err(TierError::NoRoom { tier, holds, room: bytes(fit.room), memory, needs });
        }
        Ok((before, self.fit(mostly).lacks == 0))
    }

    /// Whose segments are on a tier, those who have least room elsewhere first: others would take that, and have room where these have not.
    #[must_use]
    pub fn classes_on(&self, tier: TierId) -> Vec<ClassId> {
        let wanted = self.burdens(tier, 0.0).into_keys().map(|class| (class, 0)).collect();
        self.fit(wanted).order
    }

    fn fit(&self, wanted: Vec<(ClassId, u64)>) -> Fit {
        let table = self.table.read();
        Fit::of(&table.tiers().free(), table.classes(), wanted)
    }

    fn burdens(&self, tier: TierId, sparse: f64) -> Burdens {
        let (mut from, mut all) = (0, Burdens::new());
        loop {
            let table = self.table.read();
            if from >= table.rows() {
                return all;
            }
            table.add_burden(tier, from, from + SCAN_ROWS, sparse, &mut all);
            from += SCAN_ROWS;
        }
    }

    /// A tier that failed takes segments again; an open one goes on.
    ///
    /// # Errors
    /// When there is no such tier, or it is being emptied.
    pub fn reopen_tier(&self, tier: TierId) -> Result<(), TierError> {
        let mut table = self.table.write();
        match table.tiers().state(tier) {
            None => Err(TierError::NoTier { tier }),
            Some(TierState::Draining) => Err(TierError::Draining { tier }),
            Some(TierState::Open | TierState::Failing) => {
                table.tiers_mut().set_state(tier, TierState::Open);
                Ok(())
            }
        }
    }

    /// The tier takes segments again, or is left as failing.
    ///
    /// # Errors
    /// When there is no such tier.
    pub fn set_state(&self, tier: TierId, state: TierState) -> Result<TierState, TierError> {
        self.table.write().tiers_mut().set_state(tier, state).ok_or(TierError::NoTier { tier })
    }

    /// Every tier, by number. Looks at every segment.
    #[must_use]
    pub fn tiers(&self) -> Vec<TierStatus> {
        self.ask_for_room();
        let mut tiers = self.table.read().tiers().statuses();
        let mut from = 0;
        loop {
            let table = self.table.read();
            if from >= table.rows() {
                return tiers;
            }
            table.add_live(from, from + SCAN_ROWS, &mut tiers);
            from += SCAN_ROWS;
        }
    }

    /// Whether there is any tier.
    #[must_use]
    pub fn has_tiers(&self) -> bool {
        self.table.read().tiers().any()
    }

    /// How many tiers the next segments go to in turn.
    #[must_use]
    pub fn stripes(&self) -> usize {
        self.table.read().tiers().stripes()
    }

    /// Segments that have an extent on a tier, written or being written.
    #[must_use]
    pub fn segments_on(&self, tier: TierId) -> u64 {
        self.table.read().tiers().in_use_on(tier)
    }

    /// The first live segment on a tier whose number is `from` or more.
    #[must_use]
    pub fn next_on(&self, tier: TierId, mut from: usize) -> Option<Candidate> {
        loop {
            let table = self.table.read();
            if from >= table.rows() {
                return None;
            }
            if let Some(found) = table.next_on(tier, from, from + SCAN_ROWS) {
                return Some(found);
            }
            from += SCAN_ROWS;
        }
    }

    /// Where a tier is, for people.
    #[must_use]
    pub fn path(&self, tier: TierId) -> Option<PathBuf> {
        self.name(tier).map(|name| name.to_path_buf())
    }

    /// The same, to keep. Allocates nothing.
    #[must_use]
    pub fn name(&self, tier: TierId) -> Option<Arc<Path>> {
        self.storage.read().get(usize::from(tier.0))?.as_ref()?.name.clone()
    }

    /// A segment of a class on a tier of which at most so much (0 to 1) lives, marked as by [`pick_to_clean`](Self::pick_to_clean).
    #[must_use]
    pub fn pick_sparse_on(&self, tier: TierId, class: ClassId, max_live: f64) -> Option<Candidate> {
        let mut from = 0;
        loop {
            let found = self.next_on(tier, from)?;
            from = found.segment.get() as usize + 1;
            let sparse = found.class == class
                && !found.damaged
                && found.live_bytes as f64 <= max_live * SEGMENT_BYTES as f64;
            if sparse && self.table.write().start_cleaning(found.segment) {
                return Some(found);
            }
        }
    }

    /// Marks a segment as [`pick_to_clean`](Self::pick_to_clean) does, whatever lives in it. `None` if it is gone or is being cleaned.
    #[must_use]
    pub fn pick(&self, segment: SegmentId) -> Option<Candidate> {
        let mut table = self.table.write();
        let found = table.usage(segment)?;
        table.start_cleaning(segment).then_some(found)
    }

    pub(crate) fn storage(&self, tier: TierId) -> Option<Arc<dyn Storage>> {
        Some(Arc::clone(&self.storage.read().get(usize::from(tier.0))?.as_ref()?.storage))
    }

    /// What a tier is.
    #[must_use]
    pub fn kind(&self, tier: TierId) -> Option<TierKind> {
        Some(self.storage(tier)?.kind())
    }

    /// Whether there is a tier that is not memory.
    #[must_use]
    pub fn has_disks(&self) -> bool {
        self.storage.read().iter().flatten().any(|behind| !behind.storage.kind().is_memory())
    }

    /// Whether an address is on a tier that is memory, from which there is nothing to read in advance.
    #[must_use]
    pub fn is_in_memory(&self, addr: EntryAddr) -> bool {
        self.has_ghosts.load(Ordering::Relaxed)
            && self.table.read().place(addr.segment()).is_some_and(|place| place.in_memory)
    }

    /// Gives the memory of dead segments back. For those who come often: mostly this does nothing.
    pub fn give_memory_back(&self) -> u64 {
        if !self.has_ghosts.load(Ordering::Relaxed) {
            return 0;
        }
        let ghosts = (0..MAX_TIERS).map(|number| TierId(number as u8)).filter(|tier| {
            let table = self.table.read();
            table.tiers().in_memory(*tier) && table.tiers().state(*tier) != Some(TierState::Draining)
        });
        ghosts.map(|tier| self.trim_tier(tier, false)).sum()
    }

    /// Asks every storage that may have less room than its size promises.
    pub(crate) fn ask_for_room(&self) {
        self.give_memory_back();
        for tier in (0..MAX_TIERS).map(|number| TierId(number as u8)) {
            // No lock is held while a file system is asked, which may be far away and silent.
            let Some(room) = self.storage(tier).and_then(|storage| storage.room()) else { continue };
            let segments = u32::try_from(room.bytes / SEGMENT_BYTES as u64).unwrap_or(u32::MAX);
            self.table.write().tiers_mut().set_room(tier, segments, room.of);
        }
    }

    /// Tiers with hardly any room left while one of lower priority has some, with their priorities, the lowest first: what is coldest there is to
    /// sink.
    #[must_use]
    pub fn crowded(&self) -> Vec<(TierId, i16)> {
        {
            let table = self.table.read();
            // Mostly there is one priority; and who writes asks for room often enough to tell that there is some.
            if !table.tiers().has_levels() || table.tiers().crowded().is_empty() {
                return Vec::new();
            }
        }
        self.ask_for_room();
        self.table.read().tiers().crowded()
    }

    /// The segments of a tier that were neither written nor read for the longest time, of those that may go to one of lower priority than
    /// `below`: coldest first, at most so many. Looks at every row.
    #[must_use]
    pub fn coldest_on(&self, tier: TierId, below: i16, most: usize) -> Vec<SegmentId> {
        let mut coldest = BinaryHeap::new();
        let mut may_sink: BTreeMap<ClassId, bool> = BTreeMap::new();
        let mut from = 0;
        loop {
            let table = self.table.read();
            if from >= table.rows() {
                return coldest.into_sorted_vec().into_iter().map(|(_, segment)| segment).collect();
            }
            for (used, segment, class) in table.last_used_on(tier, from, from + SCAN_ROWS) {
                if !*may_sink.entry(class).or_insert_with(|| table.may_sink(class, below)) {
                    continue;
                }
                coldest.push((used, segment));
                if coldest.len() > most {
                    coldest.pop();
                }
            }
            from += SCAN_ROWS;
        }
    }

    /// Others are to be chosen before this one: it was wanted, or could not be read just now.
    pub fn touch(&self, segment: SegmentId) {
        self.table.read().touch(segment, self.now());
    }

    pub(crate) fn room(&self, purpose: Purpose, class: ClassId) -> Option<Room> {
        self.ask_for_room();
        Room::take(&self.table, purpose, class)
    }

    /// [`trim`](Self::trim) of one tier, also of one that is being emptied, which is left alone by that.
    pub fn trim_tier(&self, tier: TierId, keep_some: bool) -> u64 {
        let Some(storage) = self.storage(tier) else { return 0 };
        let mut given = 0;
        let keep = if keep_some { storage.keeps_free() } else { 0 };
        loop {
            let taken = self.table.write().tiers_mut().extents_mut(tier).and_then(|e| e.take_to_punch(keep));
            let Some(extent) = taken else { return given };
            if storage.punch(extent.offset(), SEGMENT_BYTES as u64).is_ok() {
                given += SEGMENT_BYTES as u64;
            }
            if let Some(extents) = self.table.write().tiers_mut().extents_mut(tier) {
                extents.punched(extent);
            }
        }
    }
}
