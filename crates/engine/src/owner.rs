//! [`OwnerBlock`]: what an owner remembers for 2 MiB of itself.
//!
//! One cluster, shared by count after a fork. The first change by an owner in a shared cluster gives it a
//! private list of slots (8 bytes a page, only there) and a fresh cluster for what it stores from then on;
//! each slot in a list counts its owners. The list is allocated at that first change, which is the only
//! allocation here.

use crate::engine::Engine;
use crate::error::EngineError;
use std::sync::atomic::Ordering;
use vswap_core::{ClusterId, ClusterState, GroupId, PAGES_PER_CLUSTER, PageIndex, SlotId};

/// An owner's 512 positions. Plain data: its owner keeps it behind its own lock.
#[must_use = "dispose of it, or its slots leak"]
#[derive(Debug)]
pub struct OwnerBlock {
    group: GroupId,
    slots: Slots,
}

#[derive(Debug)]
enum Slots {
    /// Nothing was ever stored.
    None,
    /// Position = place in this cluster.
    Direct(ClusterId),
    /// Each position has its own slot or none.
    Listed(Box<List>),
}

#[derive(Clone, Debug)]
struct List {
    slots: [Listed; PAGES_PER_CLUSTER],
    /// Held for new slots.
    fresh: Option<ClusterId>,
}

/// Memory of a private list.
pub(crate) const LIST_BYTES: usize = size_of::<List>();

/// A slot or none, in 8 bytes.
#[derive(Clone, Copy, Debug)]
struct Listed(u64);

impl Listed {
    const NONE: Self = Self(u64::MAX);

    fn slot(self) -> Option<SlotId> {
        SlotId::new(self.0)
    }
}

impl OwnerBlock {
    pub(crate) fn new(group: GroupId) -> Self {
        Self { group, slots: Slots::None }
    }

    /// Where the page's bytes are, if it has a slot. An unshared block has one for every page once anything
    /// was stored; [`OwnerBlock::has_backing`] tells whether it holds bytes.
    pub fn slot(&self, page: PageIndex) -> Option<SlotId> {
        match &self.slots {
            Slots::None => None,
            Slots::Direct(cluster) => Some(cluster.slot(page)),
            Slots::Listed(list) => list.slots[page.get()].slot(),
        }
    }

    /// Whether the page's slot is this owner's alone.
    pub fn is_sole(&self, engine: &Engine, page: PageIndex) -> bool {
        match &self.slots {
            Slots::None => false,
            Slots::Direct(cluster) => engine.is_exclusive_direct(cluster.slot(page)),
            Slots::Listed(list) => {
                list.slots[page.get()].slot().is_some_and(|slot| engine.is_exclusive_listed(slot))
            }
        }
    }

    /// A slot that is exclusively this owner's, to store the page into. It holds what it held before if it
    /// was this owner's alone; else the page has a new, empty one and its former bytes are released.
    ///
    /// # Errors
    /// When the space or the group is full, or the system has no memory for slots; the page's bytes are then
    /// where they were.
    pub fn slot_for_store(&mut self, engine: &Engine, page: PageIndex) -> Result<SlotId, EngineError> {
        if let Slots::None = self.slots {
            self.slots = Slots::Direct(engine.new_cluster(ClusterState::direct(), self.group)?);
        }
        if let Slots::Direct(cluster) = self.slots {
            let slot = cluster.slot(page);
            if engine.is_exclusive_direct(slot) {
                return Ok(slot);
            }
        }
        let group = self.group;
        let list = self.listed(engine);
        let former = list.slots[page.get()].slot();
        if let Some(slot) = former.filter(|slot| engine.is_exclusive_listed(*slot)) {
            return Ok(slot);
        }
        let slot = list.new_slot(engine, page, group)?;
        if let Some(former) = former {
            engine.unlist_slot(former);
        }
        Ok(slot)
    }

    /// The page's backing is no longer wanted by this owner. The last owner's release frees it.
    pub fn release(&mut self, engine: &Engine, page: PageIndex) {
        if !self.has_backing(engine, page) {
            return;
        }
        if let Slots::Direct(cluster) = self.slots {
            let slot = cluster.slot(page);
            if engine.is_exclusive_direct(slot) {
                return engine.empty_slot(slot);
            }
        }
        let entry = &mut self.listed(engine).slots[page.get()];
        if let Some(slot) = std::mem::replace(entry, Listed::NONE).slot() {
            engine.unlist_slot(slot);
        }
    }

    /// A second owner of the same pages: both share until one changes.
    pub fn fork(&mut self, engine: &Engine) -> OwnerBlock {
        let slots = match &self.slots {
            Slots::None => Slots::None,
            Slots::Direct(cluster) if engine.share_cluster(*cluster) => Slots::Direct(*cluster),
            Slots::Direct(cluster) => {
                let mut list = Box::new(List { slots: [Listed::NONE; PAGES_PER_CLUSTER], fresh: None });
                let each = |page: PageIndex, slot: SlotId| list.slots[page.get()] = Listed(slot.get());
                engine.list_shared_cluster(*cluster, each);
                engine.lists.fetch_add(1, Ordering::Relaxed);
                Slots::Listed(list)
            }
            Slots::Listed(list) => {
                list.share(engine);
                engine.lists.fetch_add(1, Ordering::Relaxed);
                Slots::Listed(Box::new(List { slots: list.slots, fresh: None }))
            }
        };
        OwnerBlock { group: self.group, slots }
    }

    /// The page's backing goes to position `to` of another block of the same owner (memory that was
    /// remapped), without any byte being moved; what was there is released. Both blocks have private lists
    /// from then on: to move a whole block, move the `OwnerBlock`.
    pub fn move_page(&mut self, engine: &Engine, page: PageIndex, other: &mut OwnerBlock, to: PageIndex) {
        other.release(engine, to);
        if !self.has_backing(engine, page) {
            return;
        }
        let moved = std::mem::replace(&mut self.listed(engine).slots[page.get()], Listed::NONE);
        let former = std::mem::replace(&mut other.listed(engine).slots[to.get()], moved);
        // An empty slot that was made for a store which never came.
        if let Some(slot) = former.slot() {
            engine.unlist_slot(slot);
        }
    }

    /// The page's bytes are from now on those of `slot`. The caller hands over an ownership of it, which it has by
    /// [`Engine::keep_slot`]; what the page had is released.
    pub fn adopt(&mut self, engine: &Engine, page: PageIndex, slot: SlotId) {
        let former = std::mem::replace(&mut self.listed(engine).slots[page.get()], Listed(slot.get()));
        if let Some(former) = former.slot() {
            engine.unlist_slot(former);
        }
    }

    /// From now on the owner is of another group, and with it what it alone has; what it shares stays with the group of the first. A group that has
    /// more than its limit by that takes no more until enough has gone.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn move_to_group(&mut self, engine: &Engine, group: GroupId) -> Result<(), EngineError> {
        engine.existing(group)?;
        match &self.slots {
            Slots::None => {}
            Slots::Direct(cluster) if engine.is_unshared(*cluster) => {
                engine.regroup_cluster(*cluster, group)?
            }
            Slots::Direct(_) => {}
            Slots::Listed(list) => list.move_to_group(engine, group)?,
        }
        self.group = group;
        Ok(())
    }

    /// The group that what it stores is charged to.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Tells whether the page has bytes here.
    pub fn has_backing(&self, engine: &Engine, page: PageIndex) -> bool {
        self.slot(page).is_some_and(|slot| engine.has_page(slot))
    }

    /// The owner is gone: everything that it referred to is let go.
    pub fn dispose(self, engine: &Engine) {
        match self.slots {
            Slots::None => {}
            Slots::Direct(cluster) => engine.unshare_cluster(cluster),
            Slots::Listed(list) => {
                for slot in list.slots.iter().filter_map(|entry| entry.slot()) {
                    engine.unlist_slot(slot);
                }
                if let Some(fresh) = list.fresh {
                    engine.let_go(fresh);
                }
                engine.lists.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// The private list, made now if there is none.
    fn listed(&mut self, engine: &Engine) -> &mut List {
        if !matches!(self.slots, Slots::Listed(_)) {
            let mut list = Box::new(List { slots: [Listed::NONE; PAGES_PER_CLUSTER], fresh: None });
            if let Slots::Direct(cluster) = self.slots {
                engine.list_cluster(cluster, |page, slot| list.slots[page.get()] = Listed(slot.get()));
            }
            engine.lists.fetch_add(1, Ordering::Relaxed);
            self.slots = Slots::Listed(list);
        }
        match &mut self.slots {
            Slots::Listed(list) => list,
            Slots::None | Slots::Direct(_) => unreachable!("made a list just above"),
        }
    }
}

impl List {
    /// Clusters of which every slot in use is this list's alone go to another group.
    fn move_to_group(&self, engine: &Engine, group: GroupId) -> Result<(), EngineError> {
        let named = || self.slots.iter().filter_map(|entry| entry.slot());
        let mut clusters: Vec<_> = named().map(|slot| slot.cluster()).chain(self.fresh).collect();
        clusters.sort_unstable_by_key(|cluster| cluster.get());
        clusters.dedup();
        for cluster in clusters {
            let own = named().filter(|slot| slot.cluster() == cluster);
            if engine.are_all(cluster, own, self.fresh == Some(cluster)) {
                engine.regroup_cluster(cluster, group)?;
            }
        }
        Ok(())
    }

    fn new_slot(&mut self, engine: &Engine, page: PageIndex, group: GroupId) -> Result<SlotId, EngineError> {
        let taken = self.fresh.map(|fresh| fresh.slot(page)).filter(|slot| engine.take_slot(*slot));
        let slot = match taken {
            Some(slot) => slot,
            // No fresh cluster, or an owner that was forked from this one still has its slot at this
            // position.
            None => {
                let fresh = engine.new_cluster(ClusterState::held(), group)?;
                if let Some(former) = self.fresh.replace(fresh) {
                    engine.let_go(former);
                }
                let slot = fresh.slot(page);
                let taken = engine.take_slot(slot);
                debug_assert!(taken, "a fresh cluster's slots are free");
                slot
            }
        };
        self.slots[page.get()] = Listed(slot.get());
        Ok(slot)
    }

    /// Counts another list with the same slots. Neighbours mostly share their cluster, whose lock is taken
    /// once a run.
    fn share(&self, engine: &Engine) {
        let mut slots = self.slots.iter().filter_map(|entry| entry.slot()).peekable();
        while let Some(first) = slots.next() {
            let mut cluster = engine.space.lock(first.cluster());
            engine.list_slot(&mut cluster, first);
            while let Some(slot) = slots.next_if(|slot| slot.cluster() == first.cluster()) {
                engine.list_slot(&mut cluster, slot);
            }
        }
    }
}
