//! What groups may have of each tier. Below, that is the business of classes of segments ([`ClassId`]): a group with such a limit has one of its own, all
//! others are of that of the nearest group above which has. A segment is written for one class.
//!
//! What a cluster's pages are of is decided when they are written, by its group of that moment. What is in a segment stays with that segment's class until it is
//! stored anew or let go: cleaning and removals of tiers move it as that class may. The kernel does not move charges with a process either.
//!
//! Classes are made and given up under the tree's lock.

use crate::engine::Engine;
use crate::error::EngineError;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vswap_core::{ByteCount, ClusterId, GroupId, Groups, Resource, SlotId};
use vswap_segment::{BLOCK, ClassId, SEGMENT_BYTES, Share, TierError, TierId};
use vswap_sys::atomics::AtomicArray;

/// The class of each group that has one of its own, or 0. Relaxed: who sees a change late writes as if it had come before.
#[derive(Debug)]
pub(crate) struct ClassOf {
    /// How many have, the root left out.
    some: AtomicU32,
    /// A word each, of which those of groups without a class take no memory. None if there can be no groups.
    by_group: Option<AtomicArray>,
}

impl ClassOf {
    pub(crate) fn new(by_group: Option<AtomicArray>) -> Self {
        Self { some: AtomicU32::new(0), by_group }
    }

    fn word(&self, group: GroupId) -> Option<&AtomicU64> {
        self.by_group.as_ref()?.words().get(group.get() as usize)
    }

    fn own(&self, group: GroupId) -> Option<ClassId> {
        if !self.any() {
            return None;
        }
        let class = self.word(group)?.load(Ordering::Relaxed);
        (class != 0).then(|| ClassId::new(class as u8))
    }

    /// Under the tree's lock.
    fn set(&self, group: GroupId, class: u8) {
        if let Some(word) = self.word(group) {
            let before = word.swap(class.into(), Ordering::Relaxed);
            self.some.fetch_add(u32::from(class != 0), Ordering::Relaxed);
            self.some.fetch_sub(u32::from(before != 0), Ordering::Relaxed);
        }
    }

    fn any(&self) -> bool {
        self.some.load(Ordering::Relaxed) > 0
    }

    fn of(&self, tree: Groups<'_>, group: GroupId) -> ClassId {
        let up = std::iter::successors(Some(group), |at| tree.parent(*at));
        up.filter_map(|at| self.own(at)).next().unwrap_or(ClassId::COMMON)
    }
}

/// What a group has of a tier, and may have. Whole segments are counted, those of which little lives too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TierShare {
    /// The tier.
    pub tier: TierId,
    /// Bytes that the group and those below it have there.
    pub usage: ByteCount,
    /// What it may have; `None` is no limit.
    pub limit: Option<ByteCount>,
    /// What it may have as things stand: the least of its limit and those above.
    pub effective: Option<ByteCount>,
}

impl From<Share> for TierShare {
    fn from(share: Share) -> Self {
        let bytes = |segments: u64| ByteCount::new(segments * SEGMENT_BYTES as u64);
        Self {
            tier: share.tier,
            usage: bytes(share.usage),
            limit: share.limit.map(bytes),
            effective: share.effective.map(bytes),
        }
    }
}

impl Engine {
    /// Sets what a group and those below it may have of a tier: whole segments (2 MiB), so what is beyond the last of these counts for nothing, and 0 keeps
    /// it from the tier. `None` is no limit. One below what it has takes nothing away: nothing more is written there for it. One segment of four
    /// and more is left for cleaning, as on a tier. What the group has on tiers by then is not counted, as it stays with who it was written for.
    ///
    /// # Errors
    /// When there is no such group or tier, or too many groups have such limits.
    pub fn set_tier_limit(
        &self,
        group: GroupId,
        tier: TierId,
        limit: Option<ByteCount>,
    ) -> Result<(), EngineError> {
        let _turn = self.tree.turn.lock();
        self.existing(group)?;
        // What a commit has to find room for is not to be kept from it.
        self.not_kept(group)?;
        let store = self.disk.store();
        let there = store.shares(ClassId::COMMON).iter().any(|share| share.tier == tier);
        if !there {
            return Err(TierError::NoTier { tier }.into());
        }
        let class = match self.tree.classes.own(group) {
            Some(class) => class,
            None if group == GroupId::ROOT => ClassId::COMMON,
            None if limit.is_none() => return Ok(()),
            None => self.new_class(group)?,
        };
        Ok(store.limit_class(class, tier, limit.map(ByteCount::get))?)
    }

    pub(crate) fn new_class(&self, group: GroupId) -> Result<ClassId, EngineError> {
        let (tree, classes) = (self.group_tree(), &self.tree.classes);
        let above = classes.of(tree, group);
        let below: Vec<ClassId> = tree
            .all()
            .filter(|other| *other != group && tree.is_within(*other, group))
            .filter_map(|other| classes.own(other))
            .collect();
        // Those of them that are not directly below stay where they are.
        let made = self.disk.store().add_class(above, &below).ok_or(EngineError::TooManyTierLimits)?;
        classes.set(group, made.get());
        self.raw.sort_anew(|slot| self.class_of_cluster(slot.cluster()));
        Ok(made)
    }

    /// A group is no more: what it has on tiers is its parent's. The tree's lock is held.
    pub(crate) fn give_class_up(&self, group: GroupId) {
        if let Some(class) = self.tree.classes.own(group) {
            self.tree.classes.set(group, 0);
            self.disk.store().give_class_up(class);
            self.disk.set_stuck(class, false);
            self.raw.sort_anew(|slot| self.class_of_cluster(slot.cluster()));
        }
    }

    /// What a group has of each tier; nothing is known of one without limits of its own, but of the root.
    pub(crate) fn tier_shares(&self, group: GroupId) -> Vec<TierShare> {
        let root = (group == GroupId::ROOT).then_some(ClassId::COMMON);
        let class = self.tree.classes.own(group).or(root);
        class.map_or(Vec::new(), |class| {
            self.disk.store().shares(class).into_iter().map(TierShare::from).collect()
        })
    }

    /// What pages of a cluster are written for.
    pub(crate) fn class_of_cluster(&self, cluster: ClusterId) -> ClassId {
        if !self.tree.classes.any() {
            return ClassId::COMMON;
        }
        self.tree.classes.of(self.group_tree(), self.space.charge_of(cluster).group())
    }

    /// The classes of a group and those below it, and the bytes of each in the pool, where there are any.
    pub(crate) fn pool_by_class(&self, within: GroupId) -> Vec<(ClassId, u64)> {
        let (tree, classes) = (self.group_tree(), &self.tree.classes);
        if !classes.any() {
            return vec![(ClassId::COMMON, 1)];
        }
        if self.existing(within).is_err() {
            return vec![(classes.of(tree, within), 1)];
        }
        let mut bytes: BTreeMap<ClassId, i64> = BTreeMap::new();
        for group in tree.all().filter(|group| tree.is_within(*group, within)) {
            let usage = tree.usage(group, Resource::Pool) as i64;
            *bytes.entry(classes.of(tree, group)).or_default() += usage;
            // It has been counted above, too.
            if let Some(parent) = tree.parent(group).filter(|_| group != within) {
                *bytes.entry(classes.of(tree, parent)).or_default() -= usage;
            }
        }
        let some =
            |(class, bytes): (ClassId, i64)| Some((class, u64::try_from(bytes).ok().filter(|b| *b > 0)?));
        bytes.into_iter().filter_map(some).collect()
    }

    /// Whether the pages of a group found room on some tier when that was last tried, or would now without cleaning.
    pub fn has_room_for(&self, group: GroupId) -> bool {
        let class = self.tree.classes.of(self.group_tree(), group);
        !self.disk.is_stuck(class) || self.disk.store().has_room(class)
    }

    /// Groups with limits of tiers whose pages find no room on any, and what they have in the pool, the groups below them that have such limits left out.
    /// What is of groups without limits of tiers is not among it.
    pub fn stuck(&self) -> Vec<(GroupId, ByteCount)> {
        let stuck = self.disk.stuck();
        let is_stuck = |class: ClassId| {
            class != ClassId::COMMON && stuck.contains(&class) && !self.disk.store().has_room(class)
        };
        if stuck.iter().all(|class| *class == ClassId::COMMON) {
            return Vec::new();
        }
        let whose = |class: ClassId| {
            self.group_tree().all().find(|group| self.tree.classes.own(*group) == Some(class))
        };
        let pool = self.pool_by_class(GroupId::ROOT).into_iter();
        pool.filter(|(class, _)| is_stuck(*class))
            .filter_map(|(class, bytes)| Some((whose(class)?, ByteCount::new(bytes))))
            .collect()
    }

    /// The tier on which a slot's bytes are, if they are on one.
    pub fn tier_of(&self, slot: SlotId) -> Option<TierId> {
        let vswap_core::Backing::Segment(addr) = self.word(slot).backing() else { return None };
        self.disk.store().tier_of(crate::movement::entry_addr(addr)?.segment())
    }

    /// The blocks of a tier that hold a slot's bytes, if it is on one: where they begin in the tier's file or device, and their bytes. Also none if
    /// they were moved while this looked.
    pub fn extent_of(&self, slot: SlotId) -> Option<(TierId, u64, ByteCount)> {
        let word = self.word(slot);
        let vswap_core::Backing::Segment(addr) = word.backing() else { return None };
        let addr = crate::movement::entry_addr(addr)?;
        let (tier, offset) = self.disk.store().whereabouts(addr)?;
        // Else the segment's number may have been another segment's by then.
        self.word(slot).same_backing(word).then(|| {
            let block = BLOCK as u64;
            (tier, offset / block * block, ByteCount::new(addr.blocks() as u64 * block))
        })
    }

    /// Counts anew, segment by segment, what is charged to groups for tiers. For tests, and for whoever doubts: no segment may be on its way between
    /// tiers meanwhile.
    ///
    /// # Errors
    /// What is charged wrongly.
    pub fn audit_tiers(&self) -> Result<(), String> {
        self.disk.store().audit_classes()
    }
}
