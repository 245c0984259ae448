//! Groups of an engine: who may take how much, and what is charged to whom.
//!
//! A page is charged to the group of its slot's cluster, so what owners share is charged to the first of them, as the kernel does. What a
//! cluster has charged is in one word with its group ([`vswap_core::charge`]); charges and the moves of clusters between groups are changes
//! of that word, so at whatever moment they meet, each byte is charged to one group.
//!
//! The tree's lock is taken by who changes the tree or moves a cluster, and nothing under it but, for classes of segments, the segment table; charging takes none.

use crate::classes::{ClassOf, TierShare};
use crate::engine::Engine;
use crate::error::{EngineError, GroupFull, StoreError};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use vswap_core::{
    ChargeError, ClusterId, Event, GROUP_WORDS, GroupId, Groups, Load, MAX_GROUPS, PageIndex, Resource,
    SlotId, SlotWord,
};
use vswap_sys::atomics::AtomicArray;

/// The tree, and who may change it.
///
/// There is room for as many groups as a cluster's word can name, the root among them: numbers are not used twice. Only lines of groups that were made take memory.
#[derive(Debug)]
pub(crate) struct Tree {
    /// None if the system had no memory for any but the root, which then takes no limits and counts nothing.
    words: Option<AtomicArray>,
    /// Held by who changes the tree or moves a cluster.
    pub(crate) turn: Mutex<()>,
    /// The number of the next group; changed under `turn`.
    next: AtomicU32,
    /// Whose segments their pages go to.
    pub(crate) classes: ClassOf,
    /// The group whose pages outlive the run.
    kept: OnceLock<GroupId>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let most = MAX_GROUPS as usize;
        let arrays =
            AtomicArray::new(most * GROUP_WORDS).and_then(|words| Ok((words, AtomicArray::new(most)?)));
        let (words, classes) = arrays.ok().unzip();
        let classes = ClassOf::new(classes);
        Self { words, turn: Mutex::new(()), next: AtomicU32::new(1), classes, kept: OnceLock::new() }
    }

    /// What this group holds is to outlive the run. There is one such.
    pub(crate) fn keep(&self, group: GroupId) {
        let _ = self.kept.set(group);
    }

    /// Bytes of the lines of groups but the root, those that were removed among them.
    pub(crate) fn memory(&self) -> u64 {
        u64::from(self.next.load(Ordering::Relaxed) - 1) * (GROUP_WORDS * size_of::<u64>()) as u64
    }
}

/// Which limits of groups hold for a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bounds {
    /// All.
    All,
    /// That of pages in the swap space: the page only passes through the pool, or is about to.
    Swap,
    /// None: where the page is now it cannot stay.
    None,
}

/// One resource of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figure {
    /// What the group and those below it have: pages, or bytes of the pool.
    pub usage: u64,
    /// What it may have; `None` is no limit.
    pub limit: Option<u64>,
    /// What it may have as things stand: the least of its limit and those above.
    pub effective: Option<u64>,
}

/// A group at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Group {
    /// Which.
    pub id: GroupId,
    /// The one above; `None` for the root.
    pub parent: Option<GroupId>,
    /// Bytes of compressed pages in memory.
    pub pool: Figure,
    /// Pages that have bytes in the swap space, wherever they are.
    pub swap: Figure,
    /// Pages in memory, as far as somebody charges them: nobody does to the root.
    pub resident: Figure,
    /// What it has and may have of each tier; nothing, if it is not the root and has no such limit.
    pub tiers: Vec<TierShare>,
    /// The most resident pages at any time.
    pub peak: u64,
    /// What happened in it and below it, in the order of [`Event::ALL`].
    pub events: [u64; Event::ALL.len()],
}

impl Engine {
    /// Makes a group below `parent`, without limits of its own.
    ///
    /// # Errors
    /// When there is no such parent, or too many groups were made.
    pub fn new_group(&self, parent: GroupId) -> Result<GroupId, EngineError> {
        let _turn = self.tree.turn.lock();
        let parent = self.existing(parent)?;
        self.not_kept(parent)?;
        let next = self.tree.next.load(Ordering::Relaxed);
        if next >= MAX_GROUPS || self.tree.words.is_none() {
            return Err(EngineError::TooManyGroups { made: next - 1 });
        }
        let group = GroupId::new(next);
        self.group_tree().make(group, parent)?;
        self.tree.next.store(next + 1, Ordering::Relaxed);
        Ok(group)
    }

    /// Removes a group: the groups below it, its owners and all that is charged to it are its parent's from now on. Touches no page.
    ///
    /// # Errors
    /// When there is no such group; the root stays.
    pub fn remove_group(&self, group: GroupId) -> Result<(), EngineError> {
        let _turn = self.tree.turn.lock();
        self.not_kept(group)?;
        self.group_tree().remove(group)?;
        self.give_class_up(group);
        Ok(())
    }

    /// Sets what a group may have of a resource; `None` is no limit. A limit below what it has takes nothing away: it refuses more.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn set_group_limit(
        &self,
        group: GroupId,
        resource: Resource,
        limit: Option<u64>,
    ) -> Result<(), EngineError> {
        Ok(self.group_tree().set_limit(group, resource, limit.unwrap_or(u64::MAX))?)
    }

    /// All groups, parents before those below them.
    pub fn groups(&self) -> Vec<Group> {
        self.group_tree().all().map(|group| self.describe(group)).collect()
    }

    /// One group.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn group(&self, group: GroupId) -> Result<Group, EngineError> {
        self.existing(group).map(|group| self.describe(group))
    }

    fn describe(&self, id: GroupId) -> Group {
        let tree = self.group_tree();
        let some = |limit: u64| (limit < u64::MAX).then_some(limit);
        let figure = |resource| Figure {
            usage: tree.usage(id, resource),
            limit: some(tree.limit(id, resource)),
            effective: some(tree.effective_limit(id, resource)),
        };
        Group {
            id,
            parent: tree.parent(id).map(|up| tree.resolve(up)),
            pool: figure(Resource::Pool),
            swap: figure(Resource::Swap),
            resident: figure(Resource::Resident),
            tiers: self.tier_shares(id),
            peak: tree.peak(id),
            events: Event::ALL.map(|event| tree.events(id, event)),
        }
    }

    /// The tree, to charge resident pages and to count what happens to them.
    pub fn group_tree(&self) -> Groups<'_> {
        Groups::new(self.tree.words.as_ref().map_or(&[], |words| words.words()))
    }

    pub(crate) fn existing(&self, group: GroupId) -> Result<GroupId, EngineError> {
        match group == GroupId::ROOT || self.group_tree().exists(group) {
            true => Ok(group),
            false => Err(EngineError::NoGroup { group }),
        }
    }

    /// Refuses the group whose pages outlive the run.
    pub(crate) fn not_kept(&self, group: GroupId) -> Result<(), EngineError> {
        match self.tree.kept.get() == Some(&group) {
            true => Err(EngineError::Kept { group }),
            false => Ok(()),
        }
    }

    /// Moves something that is charged to other groups: none is removed while `change` runs.
    ///
    /// # Errors
    /// When there is no group `to`.
    pub fn regroup(&self, to: GroupId, change: impl FnOnce(Groups<'_>)) -> Result<(), EngineError> {
        let _turn = self.tree.turn.lock();
        self.existing(to)?;
        change(self.group_tree());
        Ok(())
    }

    /// Charges what is about to come to a slot of a cluster that the caller keeps in use.
    pub(crate) fn charge(&self, slot: SlotId, load: Load, bounds: Bounds) -> Result<(), StoreError> {
        let cluster = slot.cluster();
        loop {
            let group = self.space.charge_of(cluster).group();
            self.charge_group(group, load, bounds).map_err(|error| match error {
                ChargeError::OverLimit { group, resource, usage, limit } => {
                    StoreError::GroupFull { slot, full: GroupFull { group, resource, usage, limit } }
                }
                _ => StoreError::NoSlot { slot },
            })?;
            if self.space.add_load(cluster, load, group) {
                return Ok(());
            }
            // It has gone to another group since.
            self.for_each(load, |resource, amount| self.group_tree().uncharge(group, resource, amount));
        }
    }

    /// Takes off what has left a slot of a cluster that the caller keeps in use.
    pub(crate) fn uncharge(&self, slot: SlotId, load: Load) {
        if load.is_nothing() {
            return;
        }
        let group = self.space.take_load(slot.cluster(), load).group();
        self.for_each(load, |resource, amount| self.group_tree().uncharge(group, resource, amount));
    }

    fn charge_group(&self, group: GroupId, load: Load, bounds: Bounds) -> Result<(), ChargeError> {
        let tree = self.group_tree();
        if self.tree.words.is_none() {
            return Ok(());
        }
        if load.pages > 0 && bounds == Bounds::None {
            tree.force(group, Resource::Swap, load.pages.into());
        } else if load.pages > 0 {
            tree.charge(group, Resource::Swap, load.pages.into())?;
        }
        if load.pool > 0 && bounds != Bounds::All {
            tree.force(group, Resource::Pool, load.pool.into());
        } else if load.pool > 0 {
            tree.charge(group, Resource::Pool, load.pool.into())
                .inspect_err(|_| tree.uncharge(group, Resource::Swap, load.pages.into()))?;
        }
        Ok(())
    }

    fn for_each(&self, load: Load, change: impl Fn(Resource, u64)) {
        let parts = [(Resource::Swap, u64::from(load.pages)), (Resource::Pool, u64::from(load.pool))];
        parts.into_iter().filter(|(_, amount)| *amount > 0).for_each(|(resource, amount)| {
            change(resource, amount);
        });
    }

    /// Counts something that happened to a slot's page.
    pub(crate) fn count_event(&self, slot: SlotId, event: Event) {
        self.group_tree().count(self.space.charge_of(slot.cluster()).group(), event, 1);
    }

    /// The group to which a slot's page is charged.
    pub fn group_of(&self, slot: SlotId) -> GroupId {
        self.space.charge_of(slot.cluster()).group()
    }

    /// Whether a cluster is charged to `group` or one below it.
    pub(crate) fn is_cluster_within(&self, cluster: ClusterId, group: GroupId) -> bool {
        group == GroupId::ROOT || self.group_tree().is_within(self.space.charge_of(cluster).group(), group)
    }

    /// A cluster that the caller keeps in use goes to another group with all that it has charged, whatever that group's limits.
    pub(crate) fn regroup_cluster(&self, cluster: ClusterId, to: GroupId) -> Result<(), EngineError> {
        let _turn = self.tree.turn.lock();
        self.existing(to)?;
        let tree = self.group_tree();
        loop {
            let seen = self.space.charge_of(cluster);
            let (from, load) = (seen.group(), seen.load());
            // The one has it before the other has lost it: what leaves the cluster meanwhile finds its charge wherever its word says.
            self.for_each(load, |resource, amount| tree.force_apart(to, from, resource, amount));
            let regrouped = self.space.regroup(cluster, seen, to);
            let (loser, keeper) = if regrouped { (from, to) } else { (to, from) };
            self.for_each(load, |resource, amount| tree.uncharge_apart(loser, keeper, resource, amount));
            if regrouped {
                return Ok(());
            }
        }
    }

    /// Counts everything anew, slot by slot, and compares it with what is charged. For tests, and for whoever doubts: nothing may be under
    /// way meanwhile.
    ///
    /// # Errors
    /// What is charged wrongly.
    pub fn audit_groups(&self) -> Result<(), String> {
        let tree = self.group_tree();
        let mut sums: BTreeMap<GroupId, [u64; 2]> = BTreeMap::new();
        for cluster in (0..self.space.end()).map(ClusterId::new) {
            if !self.space.state(cluster).in_use() {
                continue;
            }
            let charge = self.space.charge_of(cluster);
            let words = PageIndex::all().map(|page| cluster.slot(page)).map(|slot| (slot, self.word(slot)));
            let load = words.fold(Load::default(), |load, (slot, word)| Load {
                pages: load.pages + u16::from(!word.is_empty()),
                pool: load.pool + self.entry_length(slot, word),
            });
            if load != charge.load() {
                let number = cluster.get();
                return Err(format!("cluster {number} has {load:?} and is charged {:?}", charge.load()));
            }
            let up = std::iter::successors(Some(charge.group()), |at| tree.parent(*at));
            for at in up {
                let sum = sums.entry(at).or_default();
                sum[0] += u64::from(load.pages);
                sum[1] += u64::from(load.pool);
            }
        }
        for group in tree.all() {
            let charged = [Resource::Swap, Resource::Pool].map(|resource| tree.usage(group, resource));
            let sum = sums.get(&group).copied().unwrap_or_default();
            if sum != charged {
                return Err(format!("group {} has {sum:?} and is charged {charged:?}", group.get()));
            }
        }
        Ok(())
    }

    fn entry_length(&self, slot: SlotId, word: SlotWord) -> u32 {
        let handle = word.backing().pool_entry();
        let length = handle.and_then(|handle| self.pool.read(handle, slot, |_, bytes| bytes.len()));
        length.unwrap_or(0) as u32
    }
}
