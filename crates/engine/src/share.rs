//! Counting: who refers to a cluster and to its slots. Exact, under the cluster's lock.
//!
//! A slot's owners are the direct owners of its cluster plus its swap count. Whoever takes the last one away
//! changes (backing, count 1) to (empty, 0) in *one* compare-and-swap and then alone frees the backing: so a
//! slot that shows no count and no backing can be used again at once, and no backing is freed twice, whatever
//! writeback does meanwhile.
//!
//! Lock order: cluster, then the table of large counts, or what a backing is freed under. The last owner of a slot frees its backing, and
//! takes its charge off, with the cluster's lock held: the cluster is in use until both are done.

use crate::engine::Engine;
use crate::error::EngineError;
use crate::space::LockedCluster;
use parking_lot::Mutex;
use std::collections::HashMap;
use vswap_core::{
    Age, Backing, ClusterId, ClusterState, GroupId, PageIndex, SlotCell, SlotId, SlotWord, SwapCount,
};

/// Counts that do not fit their slot's word: 255 and up.
#[derive(Debug, Default)]
pub(crate) struct LargeCounts(Mutex<HashMap<SlotId, u64>>);

impl LargeCounts {
    pub(crate) fn get(&self, slot: SlotId, word: SlotWord) -> u64 {
        match word.count() {
            SwapCount::Exact(count) => count.into(),
            SwapCount::Overflowed => self.0.lock().get(&slot).copied().unwrap_or(SwapCount::OVERFLOW),
        }
    }

    fn set(&self, slot: SlotId, count: u64) {
        let mut table = self.0.lock();
        if count < SwapCount::OVERFLOW {
            table.remove(&slot);
        } else {
            table.insert(slot, count);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Engine {
    /// A fresh cluster in this state, charged to the group.
    pub(crate) fn new_cluster(&self, state: ClusterState, group: GroupId) -> Result<ClusterId, EngineError> {
        self.space.allocate(state, group)
    }

    /// Frees the cluster if nobody is left.
    fn free_if_abandoned(&self, cluster: LockedCluster<'_>) {
        if cluster.state().is_abandoned() {
            self.space.free(cluster);
        }
    }

    fn cell(&self, slot: SlotId) -> SlotCell<'_> {
        self.space.slot(slot).expect("slots are handed out with their cluster made")
    }

    /// Changes a slot's count by `change` under its cluster's lock, keeping the cluster's sum of listed
    /// slots.
    fn set_count(
        &self,
        cluster: &mut LockedCluster<'_>,
        slot: SlotId,
        cell: SlotCell<'_>,
        from: u64,
        to: u64,
    ) {
        if from >= SwapCount::OVERFLOW || to >= SwapCount::OVERFLOW {
            self.large_counts.set(slot, to);
        }
        let _ = cell.update(|word| Some(word.with_count(to)));
        let state = cluster.state();
        let state = match (from, to) {
            (0, 1) => state.list_slot(),
            (1, 0) => state.unlist_slot(),
            _ => return,
        };
        cluster.set(state.expect("listed slots are counted exactly"));
    }

    /// One list more names the slot.
    pub(crate) fn list_slot(&self, cluster: &mut LockedCluster<'_>, slot: SlotId) {
        let cell = self.cell(slot);
        let count = self.large_counts.get(slot, cell.load());
        self.set_count(cluster, slot, cell, count, count + 1);
    }

    /// One owner more for a slot that has one already, who is not storing to it or letting it go meanwhile. To be handed over
    /// to [`OwnerBlock::adopt`](crate::OwnerBlock::adopt) or given back by [`Engine::let_slot_go`].
    pub fn keep_slot(&self, slot: SlotId) {
        let mut cluster = self.space.lock(slot.cluster());
        self.list_slot(&mut cluster, slot);
    }

    /// Ends an ownership of [`Engine::keep_slot`]. The last owner's end frees the bytes.
    pub fn let_slot_go(&self, slot: SlotId) {
        self.unlist_slot(slot);
    }

    /// One list less names the slot. If it was the last owner, the slot is emptied and its backing freed.
    pub(crate) fn unlist_slot(&self, slot: SlotId) {
        let cell = self.cell(slot);
        let mut cluster = self.space.lock(slot.cluster());
        let count = self.large_counts.get(slot, cell.load());
        if count == 1 && cluster.state().direct_owners() == 0 {
            // One step: see the module's header.
            let last = cell.update(|_| Some(SlotWord::EMPTY)).unwrap_or_default();
            self.free_page(slot, last);
            let state = cluster.state().unlist_slot();
            cluster.set(state.expect("listed slots are counted exactly"));
        } else {
            self.set_count(&mut cluster, slot, cell, count, count.saturating_sub(1));
        }
        self.free_if_abandoned(cluster);
    }

    /// Whether a slot that a list names has no other owner. If true it stays true until that owner forks.
    pub(crate) fn is_exclusive_listed(&self, slot: SlotId) -> bool {
        let cluster = self.space.lock(slot.cluster());
        cluster.state().direct_owners() == 0 && self.cell(slot).load().count() == SwapCount::Exact(1)
    }

    /// Whether a slot of a direct owner's cluster has no other owner. If true it stays true until that owner
    /// forks.
    pub(crate) fn is_exclusive_direct(&self, slot: SlotId) -> bool {
        // The state first, with acquire: an owner that went to its own list counted its slots before it left.
        self.space.state(slot.cluster()).is_sole_direct()
            && self.cell(slot).load().count() == SwapCount::Exact(0)
    }

    /// Whether a direct owner's cluster is its alone, as a whole.
    pub(crate) fn is_unshared(&self, id: ClusterId) -> bool {
        let state = self.space.state(id);
        state.is_sole_direct() && state.listed_slots() == 0
    }

    /// Whether these slots, which one list names, are all of the cluster's that anybody has, and nobody but perhaps that list's owner
    /// (`fresh`) holds it for others.
    pub(crate) fn are_all(&self, id: ClusterId, slots: impl Iterator<Item = SlotId>, fresh: bool) -> bool {
        let cluster = self.space.lock(id);
        let state = cluster.state();
        let alone = |slot: SlotId| self.cell(slot).load().count() == SwapCount::Exact(1);
        let mut own = 0;
        for slot in slots {
            if !alone(slot) {
                return false;
            }
            own += 1;
        }
        let held = state != state.let_go();
        state.direct_owners() == 0 && state.listed_slots() == own && (fresh || !held)
    }

    /// One direct owner more. `false` if there are 2^32 - 1: the next one must have a private list, whose counts end at 2^64.
    pub(crate) fn share_cluster(&self, id: ClusterId) -> bool {
        let mut cluster = self.space.lock(id);
        let state = cluster.state().share();
        state.map(|state| cluster.set(state)).is_some()
    }

    /// Counts a list with the slots of a shared cluster, which keeps its direct owners. Gives the slots to `each`.
    pub(crate) fn list_shared_cluster(&self, id: ClusterId, mut each: impl FnMut(PageIndex, SlotId)) {
        let mut cluster = self.space.lock(id);
        for page in PageIndex::all() {
            let slot = id.slot(page);
            // Nobody fills or empties a slot of a shared cluster.
            if !self.cell(slot).load().is_empty() {
                self.list_slot(&mut cluster, slot);
                each(page, slot);
            }
        }
    }

    /// A direct owner goes: slots that nobody else has are emptied.
    pub(crate) fn unshare_cluster(&self, id: ClusterId) {
        let mut cluster = self.space.lock(id);
        let state = cluster.state().unshare().expect("direct owners are counted exactly");
        if state.direct_owners() > 0 {
            return cluster.set(state);
        }
        // The last one. The cluster stays held by this call until its slots are empty; it was no owner's
        // fresh cluster, so none of them can be used again meanwhile.
        cluster.set(ClusterState::from_word(state.to_word() | ClusterState::held().to_word()));
        drop(cluster);
        for page in PageIndex::all() {
            let slot = id.slot(page);
            let cell = self.cell(slot);
            let unowned = |word: SlotWord| word.count() == SwapCount::Exact(0) && !word.is_empty();
            if unowned(cell.load())
                && let Ok(old) = cell.update(|word| unowned(word).then_some(SlotWord::EMPTY))
            {
                self.free_page(slot, old);
            }
        }
        self.let_go(id);
    }

    /// An owner no longer holds the cluster for its new slots.
    pub(crate) fn let_go(&self, id: ClusterId) {
        let mut cluster = self.space.lock(id);
        let state = cluster.state().let_go();
        cluster.set(state);
        self.free_if_abandoned(cluster);
    }

    /// A direct owner goes over to a private list: each slot with a page is counted for it, then it leaves
    /// the cluster. Gives the slots to `each`. An owner that is alone takes the empty ones along: it may be about to
    /// store to some.
    pub(crate) fn list_cluster(&self, id: ClusterId, mut each: impl FnMut(PageIndex, SlotId)) {
        let mut cluster = self.space.lock(id);
        let alone = cluster.state().direct_owners() == 1;
        for page in PageIndex::all() {
            let slot = id.slot(page);
            // Nobody fills or empties a slot of a shared cluster.
            if alone || !self.cell(slot).load().is_empty() {
                self.list_slot(&mut cluster, slot);
                each(page, slot);
            }
        }
        let state = cluster.state().unshare().expect("direct owners are counted exactly");
        cluster.set(state);
        self.free_if_abandoned(cluster);
    }

    /// Takes a slot of a cluster that the caller holds for its new slots, if no list names it yet.
    pub(crate) fn take_slot(&self, slot: SlotId) -> bool {
        let mut cluster = self.space.lock(slot.cluster());
        if self.cell(slot).load() != SlotWord::EMPTY {
            return false;
        }
        self.list_slot(&mut cluster, slot);
        true
    }

    /// Empties a slot that is exclusively the caller's, keeping its count.
    pub(crate) fn empty_slot(&self, slot: SlotId) {
        let old = self.cell(slot).update(|word| Some(word.with_backing(Backing::Empty, Age::default())));
        self.free_page(slot, old.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineConfig;
    use vswap_core::{PAGE_SIZE, PageCount};

    const AT: PageIndex = PageIndex::of_addr(0);

    /// An owner with a page, and its slot.
    fn owner(engine: &Engine) -> (crate::OwnerBlock, SlotId) {
        let mut block = engine.owner_block(GroupId::ROOT).unwrap();
        let slot = block.slot_for_store(engine, AT).unwrap();
        let bytes = std::array::from_fn::<u8, PAGE_SIZE, _>(|at| (at * at % 251) as u8);
        engine.store(slot, &bytes, &mut engine.scratch()).unwrap();
        (block, slot)
    }

    /// As if so many direct owners were there.
    fn pretend_owners(engine: &Engine, slot: SlotId, owners: u32) {
        let mut cluster = engine.space.lock(slot.cluster());
        let word = cluster.state().to_word();
        cluster.set(ClusterState::from_word(word & !u64::from(u32::MAX) | u64::from(owners)));
    }

    /// As if so many lists named the slot.
    fn pretend_lists(engine: &Engine, slot: SlotId, from: u64, lists: u64) {
        let mut cluster = engine.space.lock(slot.cluster());
        engine.set_count(&mut cluster, slot, engine.cell(slot), from, lists);
    }

    fn lists(engine: &Engine, slot: SlotId) -> u64 {
        engine.large_counts.get(slot, engine.cell(slot).load())
    }

    fn nothing_is_left(engine: &Engine) {
        let stats = engine.stats();
        assert_eq!((stats.pool_pages, stats.clusters, engine.large_counts.len()), (PageCount::ZERO, 0, 0));
    }

    #[test]
    fn an_owner_past_the_last_that_a_cluster_counts_has_a_list_and_all_counts_stay_exact() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let (mut block, slot) = owner(&engine);
        pretend_owners(&engine, slot, u32::MAX - 1);
        let last = block.fork(&engine);
        assert_eq!(engine.space.state(slot.cluster()).direct_owners(), u32::MAX);
        let mut beyond = block.fork(&engine);
        let another = beyond.fork(&engine);
        assert_eq!(engine.space.state(slot.cluster()).direct_owners(), u32::MAX);
        assert_eq!((beyond.slot(AT), another.slot(AT), lists(&engine, slot)), (Some(slot), Some(slot), 2));
        assert!(!beyond.is_sole(&engine, AT) && !block.is_sole(&engine, AT));
        pretend_owners(&engine, slot, 2);
        last.dispose(&engine);
        block.dispose(&engine);
        assert!(engine.has_page(slot));
        another.dispose(&engine);
        assert!(beyond.is_sole(&engine, AT));
        beyond.dispose(&engine);
        nothing_is_left(&engine);
    }

    #[test]
    fn lists_that_name_a_slot_are_counted_exactly_past_the_word_and_past_2_to_the_32() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let (mut block, slot) = owner(&engine);
        let mut listed = block.fork(&engine);
        // The store makes a list of it, and leaves the slot to the other owner and the counts below.
        listed.slot_for_store(&engine, PageIndex::of_addr(4096)).unwrap();
        assert_eq!(lists(&engine, slot), 1);
        let mut now = 1;
        for many in [254, 255, u64::from(u32::MAX), 1 << 32, (1 << 40) + 7] {
            pretend_lists(&engine, slot, now, many);
            let more = listed.fork(&engine);
            let most = listed.fork(&engine);
            assert_eq!(lists(&engine, slot), many + 2);
            more.dispose(&engine);
            most.dispose(&engine);
            assert_eq!(lists(&engine, slot), many);
            now = many;
        }
        pretend_lists(&engine, slot, now, 1);
        block.dispose(&engine);
        assert!(engine.has_page(slot));
        listed.dispose(&engine);
        nothing_is_left(&engine);
    }
}
