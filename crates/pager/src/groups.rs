//! Groups of a pager: their names, their limits of resident pages and of the pool, and who is to make room in them.
//!
//! A name is a path, `/web/worker`; the tree and all that is counted are the engine's. A group at its limit of resident pages has its own pages moved
//! out, in the order of a hand of its own that goes round the blocks of its spaces; a fault in it waits for that as one waits for room in the limit of
//! all. As there, some pages are kept free, so that few wait.
//!
//! Lock order: `names`, then the engine's tree. `limited`, `rest_until` and a hand are leaves, but that the map of blocks of a space is taken under a hand.

use crate::block::Block;
use crate::evict::{Effort, Tools};
use crate::pager::{Full, FullPolicy, Pager, Shared};
use crate::space::Space;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use vswap_core::{Bitmap512, ByteCount, Event, GroupId, Page, Resource, SlotId};
use vswap_engine::{Bounds, EngineError, Group, SEGMENT_BYTES, Scratch, StoreError};
use vswap_sys::process;

/// Milliseconds without progress, with faults waiting, after which a group has nothing left to move.
const GIVE_UP_AFTER: u64 = 300;
/// The same while one of its spaces is held, as for the limit of all.
const GIVE_UP_HELD_AFTER: u64 = 5000;
/// Milliseconds without a refused charge after which nobody waits any more.
const RETRIED_WITHIN: u64 = 100;
/// Milliseconds for which no pool of a group is written down after nothing of one could be.
const REST: u64 = 100;
/// The pool of a group may always hold as much as is written at a time: a limit below it means that pages only pass through.
const PASSING: u64 = SEGMENT_BYTES as u64;
/// Times that a page is tried to be stored after room was made for it.
const TRIES: u32 = 3;
/// Groups below one another, at most: each charge goes up all the way.
const DEEPEST: usize = 16;
/// Bytes of a name between slashes, at most.
const LONGEST: usize = 255;

/// Why nothing was done to a group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// No such group.
    #[error("there is no group {0:?}")]
    Unknown(String),
    /// There is one already.
    #[error("there is a group {0:?} already")]
    Exists(String),
    /// That can be no group's name.
    #[error(
        "{0:?} is no name of a group: it is a path from / like /web/worker, without control characters, . and .., of 16 parts of 255 bytes at most"
    )]
    BadName(String),
    /// The root was there before all others and stays.
    #[error("the group / cannot be {0}")]
    Root(&'static str),
    /// Its groups would have the names of others.
    #[error(
        "{path:?} cannot be removed: what is below it would be its parent's, where there is a {name:?} already"
    )]
    NameTaken {
        /// What was to be removed.
        path: String,
        /// The name below it.
        name: String,
    },
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A group and its name.
#[derive(Clone, Debug)]
pub struct NamedGroup {
    /// From `/`.
    pub path: String,
    /// What it has and may have. Of the root resident pages are those of all spaces, its limit is that of the pager.
    pub group: Group,
    /// Spaces of it, those of groups below it left out.
    pub spaces: usize,
}

/// A group with a limit of resident pages.
#[derive(Debug)]
pub(crate) struct Limited {
    group: GroupId,
    /// The space and the number of the block that are next.
    hand: Mutex<(u64, u64)>,
    /// Nothing more can be moved out of it: its pages are charged past the limit.
    over: AtomicBool,
    told: AtomicBool,
    /// When something was moved out of it last, or nothing had to be.
    moved: AtomicU64,
    /// Since when a charge was refused again and again, and when one was last.
    refused: AtomicU64,
    refused_last: AtomicU64,
}

/// The names, and the groups that someone has to look after.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// By number; the last part of each path. The root has none.
    names: Mutex<BTreeMap<GroupId, String>>,
    limited: RwLock<Vec<Arc<Limited>>>,
    any_limited: AtomicBool,
    any_pool: AtomicBool,
    /// Until when the pool of a group is not written down, milliseconds of the pager's clock.
    rest_until: Mutex<BTreeMap<GroupId, u64>>,
}

impl Groups {
    /// Whether charges to a group that is at its limit are let through. If not, it is noted that one had to wait at `now`.
    pub fn lets_through(&self, group: GroupId, now: u64) -> bool {
        let all = self.limited.read();
        let Some(limited) = all.iter().find(|limited| limited.group == group) else { return false };
        let over = limited.over.load(Relaxed);
        if !over {
            limited.note_refusal(now);
        }
        over
    }

    fn set_limited(&self, group: GroupId, is: bool, now: u64) {
        let mut limited = self.limited.write();
        limited.retain(|limited| limited.group != group);
        if is {
            limited.push(Arc::new(Limited::new(group, now)));
        }
        self.any_limited.store(!limited.is_empty(), Relaxed);
    }
}

/// What came of a look at all groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relief {
    /// None wants pages moved out.
    None,
    /// Some were.
    Some,
    /// None could be.
    Stuck,
}

/// Pages that are kept free below a limit.
fn reserve(limit: u64) -> u64 {
    (limit / 64).clamp(8, 1024)
}

/// The parts of a path.
fn parts(path: &str) -> Result<Vec<&str>, GroupError> {
    let bad = || GroupError::BadName(path.chars().take(LONGEST).collect());
    let below = path.strip_prefix('/').ok_or_else(bad)?;
    if below.is_empty() {
        return Ok(Vec::new());
    }
    let is_name = |part: &&str| {
        !part.is_empty()
            && part.len() <= LONGEST
            && !matches!(*part, "." | "..")
            && !part.contains(char::is_control)
    };
    let parts: Vec<&str> = below.split('/').collect();
    if parts.len() <= DEEPEST && parts.iter().all(is_name) { Ok(parts) } else { Err(bad()) }
}

impl Pager {
    /// Makes a group below one that there is.
    ///
    /// # Errors
    /// When the path is none, is taken, or the group above is not there; when there were too many.
    pub fn add_group(&self, path: &str) -> Result<GroupId, GroupError> {
        let parts = parts(path)?;
        let Some((name, above)) = parts.split_last() else { return Err(GroupError::Exists(path.into())) };
        let mut names = self.shared.groups.names.lock();
        let parent = self.find(&names, above)?;
        if self.child(&names, parent, name).is_some() {
            return Err(GroupError::Exists(path.into()));
        }
        let group = self.engine().new_group(parent)?;
        names.insert(group, (*name).into());
        Ok(group)
    }

    /// Removes a group: its spaces, the groups below it and all that is charged to it are its parent's from then on.
    ///
    /// # Errors
    /// When there is none, it is the root, or two groups would have one name.
    pub fn remove_group(&self, path: &str) -> Result<(), GroupError> {
        let parts = parts(path)?;
        let mut names = self.shared.groups.names.lock();
        let group = self.find(&names, &parts)?;
        let parent = self.engine().group(group)?.parent.ok_or(GroupError::Root("removed"))?;
        for (below, name) in names.iter() {
            let is_below = self.shared.parent(*below) == Some(group);
            if is_below && self.child(&names, parent, name).is_some_and(|other| other != group) {
                return Err(GroupError::NameTaken { path: path.into(), name: name.clone() });
            }
        }
        self.engine().remove_group(group)?;
        names.remove(&group);
        self.shared.groups.set_limited(group, false, 0);
        Ok(())
    }

    /// Changes the limit of all. One below what is used has pages moved out.
    pub fn set_limit(&self, limit: ByteCount) {
        self.shared.budget.set_limit(limit);
        self.shared.room_came();
    }

    /// [`Pager::move_to_group`] of all spaces.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn move_all_to_group(&self, group: GroupId) -> Result<(), GroupError> {
        self.shared.all_spaces().iter().try_for_each(|space| self.move_to_group(space, group))
    }

    /// The group of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn group(&self, path: &str) -> Result<GroupId, GroupError> {
        self.find(&self.shared.groups.names.lock(), &parts(path)?)
    }

    /// Sets what a group may have of a resource: pages, or bytes of the pool. A limit of resident pages below what there is has pages moved out, one of
    /// the pool has some written to a tier; one of the swap space only refuses more.
    ///
    /// # Errors
    /// When there is no such group, or it is the root, of which the limit is the pager's.
    pub fn limit_group(&self, path: &str, resource: Resource, limit: Option<u64>) -> Result<(), GroupError> {
        let names = self.shared.groups.names.lock();
        let group = self.find(&names, &parts(path)?)?;
        if group == GroupId::ROOT && resource == Resource::Resident {
            return Err(GroupError::Root("given another limit of memory than that of the run"));
        }
        self.engine().set_group_limit(group, resource, limit)?;
        let groups = &self.shared.groups;
        match resource {
            Resource::Resident => groups.set_limited(group, limit.is_some(), self.shared.clock_ms()),
            Resource::Pool => {
                let has = |group: &Group| group.pool.limit.is_some();
                groups.any_pool.store(self.engine().groups().iter().any(has), Relaxed);
            }
            Resource::Swap => {}
        }
        drop(names);
        self.shared.budget.note_short_group(true);
        self.shared.budget.call_if_short();
        self.shared.room_came();
        Ok(())
    }

    /// All groups, each after the one above it.
    pub fn groups(&self) -> Vec<NamedGroup> {
        let names = self.shared.groups.names.lock();
        let groups = self.engine().groups();
        let mut spaces = BTreeMap::new();
        for space in self.shared.all_spaces() {
            *spaces.entry(space.group()).or_insert(0) += 1;
        }
        let mut named: Vec<NamedGroup> = groups
            .into_iter()
            .map(|mut group| {
                if group.id == GroupId::ROOT {
                    self.describe_root(&mut group);
                } else {
                    let most = group
                        .resident
                        .effective
                        .map_or(self.shared.budget.limit(), |limit| limit.min(self.shared.budget.limit()));
                    group.resident.effective = Some(most);
                }
                let spaces = spaces.get(&group.id).copied().unwrap_or(0);
                NamedGroup { path: self.shared.path(&names, group.id), group, spaces }
            })
            .collect();
        named.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        named
    }

    /// What all spaces have is not charged to the root a second time.
    fn describe_root(&self, root: &mut Group) {
        let (budget, counters) = (&self.shared.budget, &self.shared.counters);
        root.resident.usage = budget.charged();
        root.resident.limit = Some(budget.limit());
        root.resident.effective = Some(budget.limit());
        // What is granted and was never touched counts now, and not for the most.
        root.peak = budget.peak().max(root.resident.usage);
        root.events[Event::Refault as usize] = counters.refaulted.load(Relaxed);
        root.events[Event::Activate as usize] = counters.soon.iter().map(|soon| soon.load(Relaxed)).sum();
    }

    /// A space is of another group from now on, with all that it has: what it shares with others since a fork is charged to both, until it has its own.
    /// What it had stored is charged to that group too, whatever its limits; only what it shares stays with the group of the first. No fork of the space may be under way.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn move_to_group(&self, space: &Arc<Space>, group: GroupId) -> Result<(), GroupError> {
        let engine = self.engine();
        let blocks = || -> Vec<Arc<Block>> { space.blocks.read().values().cloned().collect() };
        for block in blocks() {
            let mut state = block.state.lock();
            let others = state.leave(engine, &Bitmap512::FULL);
            space.force_left(others);
        }
        engine.regroup(group, |tree| {
            loop {
                let seen = space.charged.get();
                let (from, pages) = (seen.group(), seen.pages());
                // The one has it before the other has lost it.
                tree.force_apart(group, from, Resource::Resident, pages);
                let moved = space.charged.regroup(seen, group);
                let (loser, keeper) = if moved { (from, group) } else { (group, from) };
                tree.uncharge_apart(loser, keeper, Resource::Resident, pages);
                if moved {
                    return;
                }
            }
        })?;
        // Blocks that come from here on are of the new group.
        for block in blocks() {
            if let Some(owner) = &mut block.state.lock().owner {
                owner.move_to_group(engine, group)?;
            }
        }
        self.shared.budget.note_short_group(true);
        self.shared.budget.call_if_short();
        Ok(())
    }

    fn child(&self, names: &BTreeMap<GroupId, String>, parent: GroupId, name: &str) -> Option<GroupId> {
        let is = |(group, other): &(&GroupId, &String)| {
            other.as_str() == name && self.shared.parent(**group) == Some(parent)
        };
        names.iter().find(is).map(|(group, _)| *group)
    }

    fn find(&self, names: &BTreeMap<GroupId, String>, parts: &[&str]) -> Result<GroupId, GroupError> {
        let unknown = || GroupError::Unknown(format!("/{}", parts.join("/")));
        parts.iter().try_fold(GroupId::ROOT, |at, part| self.child(names, at, part)).ok_or_else(unknown)
    }

    /// The name of a group, or that of the nearest above it that was not removed.
    pub fn path_of(&self, group: GroupId) -> String {
        self.shared.path(&self.shared.groups.names.lock(), group)
    }

    /// Counts anew what each group has in memory, and compares it with what is charged. For tests, and for whoever doubts: nothing may
    /// be under way meanwhile.
    ///
    /// # Errors
    /// What is charged wrongly.
    pub fn audit_groups(&self) -> Result<(), String> {
        let tree = self.engine().group_tree();
        let mut sums: BTreeMap<GroupId, u64> = BTreeMap::new();
        let mut seen = std::collections::BTreeSet::new();
        for space in self.shared.all_spaces() {
            let charge = space.charged.get();
            let (mut has, mut counts) = (0, 0);
            for block in space.blocks.read().values() {
                let state = block.state.lock();
                has += state.charged() as u64;
                counts += state.charged() as u64;
                // What several have counts once.
                for page in state.cow.iter() {
                    let sharing = state.sharing.as_ref().map(|sharing| Arc::as_ptr(sharing) as usize);
                    counts -= u64::from(!seen.insert((sharing, page)));
                }
            }
            if has != charge.pages() {
                return Err(format!("a space has {has} pages and is charged {}", charge.pages()));
            }
            let up = std::iter::successors(Some(charge.group()), |at| tree.parent(*at));
            up.for_each(|at| *sums.entry(at).or_default() += counts);
        }
        for group in tree.all() {
            let sum = sums.get(&group).copied().unwrap_or(0);
            let charged = match group {
                GroupId::ROOT => self.shared.budget.charged(),
                group => tree.usage(group, Resource::Resident),
            };
            if sum != charged {
                return Err(format!("group {} has {sum} pages and is charged {charged}", group.get()));
            }
        }
        Ok(())
    }
}

impl Shared {
    fn path(&self, names: &BTreeMap<GroupId, String>, group: GroupId) -> String {
        let up = std::iter::successors(Some(group), |at| self.parent(*at));
        let mut parts: Vec<&str> = up.filter_map(|at| names.get(&at)).map(String::as_str).collect();
        parts.reverse();
        format!("/{}", parts.join("/"))
    }

    /// The group above, of one that is there.
    fn parent(&self, group: GroupId) -> Option<GroupId> {
        let tree = self.engine.group_tree();
        tree.parent(group).map(|parent| tree.resolve(parent))
    }

    /// Notes for the evictors if a group has little room left.
    pub(crate) fn note_if_short(&self, group: GroupId) {
        if self.groups.any_limited.load(Relaxed) {
            let tree = self.engine.group_tree();
            let limit = tree.effective_limit(group, Resource::Resident);
            if limit < u64::MAX && tree.room(group, Resource::Resident) < reserve(limit) / 2 {
                self.budget.note_short_group(false);
            }
        }
    }

    /// Whether a group could be charged `pages` and an eighth of its limit still be free.
    pub(crate) fn group_has_plenty(&self, group: GroupId, pages: usize) -> bool {
        if group == GroupId::ROOT {
            return true;
        }
        let tree = self.engine.group_tree();
        let limit = tree.effective_limit(group, Resource::Resident);
        limit == u64::MAX || tree.room(group, Resource::Resident) >= limit / 8 + pages as u64
    }

    /// Whether a group may have no more pages in the swap space.
    pub(crate) fn is_swap_full(&self, group: GroupId) -> bool {
        self.engine.group_tree().room(group, Resource::Swap) == 0
    }

    /// Pages that are to be moved out of a group: those that it has over its limit, and the reserve.
    fn group_wants(&self, group: GroupId) -> u64 {
        let tree = self.engine.group_tree();
        let limit = tree.limit(group, Resource::Resident);
        tree.usage(group, Resource::Resident).saturating_sub(limit.saturating_sub(reserve(limit)))
    }

    fn is_group_at_limit(&self, group: GroupId) -> bool {
        let tree = self.engine.group_tree();
        tree.usage(group, Resource::Resident) >= tree.limit(group, Resource::Resident)
    }

    /// Moves some pages out of each group that has too little room.
    pub(crate) fn relieve_groups(&self, tools: &mut Tools) -> Relief {
        self.budget.take_short_group();
        if !self.groups.any_limited.load(Relaxed) {
            return Relief::None;
        }
        let all = self.groups.limited.read().clone();
        let mut relief = Relief::None;
        for limited in all {
            let now = self.clock_ms();
            let at_limit = self.is_group_at_limit(limited.group);
            if self.group_wants(limited.group) == 0 && !at_limit {
                limited.over.store(false, Relaxed);
                limited.moved.store(now, Relaxed);
                continue;
            }
            let before = tools.progress();
            if self.relieve_group(&limited, tools) && !tools.is_futile_since(before) {
                limited.moved.store(now, Relaxed);
                if !self.is_group_at_limit(limited.group) {
                    limited.over.store(false, Relaxed);
                }
                self.room_came();
                relief = Relief::Some;
            } else {
                if at_limit && limited.waits_too_long(now, self.patience(&limited)) {
                    self.group_is_stuck(&limited);
                }
                if relief == Relief::None {
                    relief = Relief::Stuck;
                }
            }
        }
        relief
    }

    fn relieve_group(&self, limited: &Limited, tools: &mut Tools) -> bool {
        let tree = self.engine.group_tree();
        let mut spaces =
            self.spaces_where(|space| tree.is_within(space.charged.get().group(), limited.group));
        spaces.sort_unstable_by_key(|space| space.id);
        if self.call_in_grants_of(&spaces) {
            return true;
        }
        let hard = self.is_group_at_limit(limited.group);
        let efforts = [Effort::Plenty, Effort::Any, Effort::Any, Effort::Forced];
        efforts.into_iter().take(if hard { 4 } else { 3 }).any(|effort| {
            self.evict_some_of(limited, &spaces, effort, tools)
                || spaces.iter().any(|space| self.write_down_one(space, tools))
        })
    }

    fn evict_some_of(
        &self,
        limited: &Limited,
        spaces: &[Arc<Space>],
        effort: Effort,
        tools: &mut Tools,
    ) -> bool {
        let limit = self.engine.group_tree().limit(limited.group, Resource::Resident);
        let most = (reserve(limit) as usize).clamp(32, 512).min(self.batch());
        let rounds: usize = spaces.iter().map(|space| space.blocks.read().len()).sum();
        for _ in 0..rounds {
            let Some((space, block)) = limited.next(spaces) else { return false };
            if block.state.lock().is_out() {
                continue;
            }
            if self.evict_from(&space, &block, effort, most, tools) {
                // What is staged still counts.
                while self.write_down_one(&space, tools) {}
                return true;
            }
        }
        false
    }

    /// Milliseconds without progress after which a group is given up. A hold of one of its spaces ends, and to kill for the want of a moment's
    /// patience does more harm than to wait.
    fn patience(&self, limited: &Limited) -> u64 {
        let tree = self.engine.group_tree();
        let held =
            |space: &Space| space.is_held() && tree.is_within(space.charged.get().group(), limited.group);
        let waits = self.config.full == FullPolicy::Kill && !self.spaces_where(held).is_empty();
        if waits { GIVE_UP_HELD_AFTER } else { GIVE_UP_AFTER }
    }

    /// Nothing more can be moved out of a group, and faults wait: the user's choice decides.
    fn group_is_stuck(&self, limited: &Limited) {
        let group = limited.group;
        let tree = self.engine.group_tree();
        if !limited.over.swap(true, Relaxed) {
            tree.count(group, Event::Oom, 1);
        }
        if !limited.told.swap(true, Relaxed)
            && let Some(tell) = &self.config.on_full
        {
            tell(Full {
                group: Some(self.path(&self.groups.names.lock(), group)),
                limit: tree.limit(group, Resource::Resident) * 4096,
                used: tree.usage(group, Resource::Resident) * 4096,
                resident: tree.usage(group, Resource::Resident) * 4096,
                pool: tree.usage(group, Resource::Pool),
                disk_full: self.disk_full.load(Relaxed),
            });
        }
        if self.config.full == FullPolicy::Kill {
            let within =
                |space: &Space| space.link().is_some() && tree.is_within(space.charged.get().group(), group);
            for space in self.spaces_where(within) {
                let _ = process::kill(space.pid(), vswap_sys::signal::SIGKILL);
            }
        }
        self.room_came();
    }

    /// Stores a page, making room in its group's pool if that is what is missing.
    pub(crate) fn store(&self, slot: SlotId, page: &Page, scratch: &mut Scratch) -> Result<(), StoreError> {
        let mut tries = TRIES;
        loop {
            let error = match self.engine.store(slot, page, scratch) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let StoreError::GroupFull { full, .. } = error else { return Err(error) };
            if full.resource != Resource::Pool {
                self.engine.group_tree().count(full.group, Event::SwapMax, 1);
                return Err(error);
            }
            let passes = full.limit < PASSING && full.usage < PASSING && self.engine.has_tiers();
            if passes && !self.disk_full.load(Relaxed) {
                return self.engine.store_within(Bounds::Swap, slot, page, scratch).map(drop);
            }
            let want = ByteCount::new(full.usage.saturating_sub(full.limit) + PASSING);
            tries -= 1;
            if tries == 0 || !self.write_back_of(full.group, want, scratch) {
                return Err(error);
            }
        }
    }

    /// Writes pools of groups down that come near their limits, so that evictors need not wait for that. `false` if nothing was done.
    pub(crate) fn shrink_pools_of_groups(&self, scratch: &mut Scratch) -> bool {
        if !self.groups.any_pool.load(Relaxed) {
            return false;
        }
        let now = self.clock_ms();
        self.groups.rest_until.lock().retain(|_, until| now < *until);
        let tree = self.engine.group_tree();
        let mut any = false;
        for group in tree.all() {
            let limit = match tree.limit(group, Resource::Pool) {
                u64::MAX => continue,
                limit => limit.max(PASSING),
            };
            let usage = tree.usage(group, Resource::Pool);
            if usage > limit / 8 * 7 && !self.groups.rest_until.lock().contains_key(&group) {
                let wrote = self.write_back_of(group, ByteCount::new(usage - limit / 4 * 3), scratch);
                if !wrote {
                    self.groups.rest_until.lock().insert(group, self.clock_ms() + REST);
                }
                any |= wrote;
            }
        }
        any
    }
}

impl Limited {
    fn new(group: GroupId, now: u64) -> Limited {
        Limited {
            group,
            hand: Mutex::default(),
            over: AtomicBool::new(false),
            told: AtomicBool::new(false),
            moved: AtomicU64::new(now),
            refused: AtomicU64::new(0),
            refused_last: AtomicU64::new(0),
        }
    }

    /// A charge was refused; whoever waits for it tries again each millisecond.
    fn note_refusal(&self, now: u64) {
        if now.saturating_sub(self.refused_last.swap(now, Relaxed)) > RETRIED_WITHIN {
            self.refused.store(now, Relaxed);
        }
    }

    /// Whether somebody waits now and has for longer than `patience`, in which nothing was moved out.
    fn waits_too_long(&self, now: u64, patience: u64) -> bool {
        let waits = now.saturating_sub(self.refused_last.load(Relaxed)) <= RETRIED_WITHIN;
        let since = self.refused.load(Relaxed).max(self.moved.load(Relaxed));
        waits && now.saturating_sub(since) > patience
    }

    /// The next block of these spaces, which are sorted by number.
    fn next(&self, spaces: &[Arc<Space>]) -> Option<(Arc<Space>, Arc<Block>)> {
        let mut hand = self.hand.lock();
        let first = spaces.partition_point(|space| space.id < hand.0);
        for at in 0..=spaces.len() {
            let space = spaces.get((first + at) % spaces.len().max(1))?;
            let from = if at == 0 && space.id == hand.0 { hand.1 } else { 0 };
            if let Some((number, block)) = space.blocks.read().range(from..).next() {
                *hand = (space.id, number + 1);
                return Some((Arc::clone(space), Arc::clone(block)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Limited, parts};
    use crate::pager::{Pager, PagerConfig};
    use vswap_core::{ByteCount, Event, PAGE_SIZE, PAGES_PER_CLUSTER, PageIndex, Resource};
    use vswap_engine::{Engine, EngineConfig, TierConfig};

    /// Before there is a space there is no keeper that would have made room already.
    #[test]
    fn whoever_stores_makes_room_in_the_pool_of_the_group_by_writing_its_pages_down() {
        const LIMIT: u64 = 4 << 20;
        let tiers = vec![TierConfig::new(std::env::temp_dir(), ByteCount::mib(64))];
        let engine = Engine::new(EngineConfig { tiers, ..EngineConfig::default() }).unwrap();
        let pager = Pager::new(PagerConfig::new(ByteCount::mib(64)), engine.clone()).unwrap();
        let group = pager.add_group("/a").unwrap();
        pager.limit_group("/a", Resource::Pool, Some(LIMIT)).unwrap();
        let mut scratch = engine.scratch();
        let mut blocks: Vec<_> = (0..8).map(|_| engine.owner_block(group).unwrap()).collect();
        let mut random = 88_172_645_463_325_252u64;
        for at in 0..8 * PAGES_PER_CLUSTER {
            let mut page = [0; PAGE_SIZE];
            for word in page[..PAGE_SIZE / 2].as_chunks_mut::<8>().0 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                *word = random.to_le_bytes();
            }
            let index = PageIndex::new(at % PAGES_PER_CLUSTER).unwrap();
            let slot = blocks[at / PAGES_PER_CLUSTER].slot_for_store(&engine, index).unwrap();
            pager.shared.store(slot, &page, &mut scratch).unwrap();
            assert!(engine.group(group).unwrap().pool.usage <= LIMIT);
        }
        let described = engine.group(group).unwrap();
        assert!(described.pool.usage > LIMIT / 4, "{described:?}");
        assert!(described.events[Event::Zswpwb as usize] > 1000, "{described:?}");
        blocks.into_iter().for_each(|block| block.dispose(&engine));
    }

    /// It rested for all when nothing of one could be written.
    #[test]
    fn the_pool_of_a_group_is_written_down_while_that_of_another_rests() {
        let tiers = vec![TierConfig::new(std::env::temp_dir(), ByteCount::mib(64))];
        let engine = Engine::new(EngineConfig { tiers, ..EngineConfig::default() }).unwrap();
        let pager = Pager::new(PagerConfig::new(ByteCount::mib(64)), engine.clone()).unwrap();
        let mut scratch = engine.scratch();
        let paths = ["/a", "/b"];
        let groups = paths.map(|path| pager.add_group(path).unwrap());
        let mut random = 88_172_645_463_325_252u64;
        let owners = groups.map(|group| {
            let mut owner = engine.owner_block(group).unwrap();
            for at in 0..PAGES_PER_CLUSTER {
                let mut page = [0; PAGE_SIZE];
                for word in page.as_chunks_mut::<8>().0 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    *word = random.to_le_bytes();
                }
                let slot = owner.slot_for_store(&engine, PageIndex::new(at).unwrap()).unwrap();
                engine.store(slot, &page, &mut scratch).unwrap();
            }
            owner
        });
        paths.iter().for_each(|path| pager.limit_group(path, Resource::Pool, Some(0)).unwrap());
        let pools = || groups.map(|group| engine.group(group).unwrap().pool.usage);
        let before = pools();
        pager.shared.groups.rest_until.lock().insert(groups[0], u64::MAX);
        assert!(pager.shared.shrink_pools_of_groups(&mut scratch));
        let after = pools();
        assert!(after[0] == before[0] && after[1] < before[1], "{before:?} {after:?}");
        owners.into_iter().for_each(|owner| owner.dispose(&engine));
    }

    #[test]
    fn a_name_is_a_path_from_the_root_and_anything_else_is_refused() {
        assert_eq!(parts("/").unwrap(), [""; 0]);
        assert_eq!(parts("/web/worker 1").unwrap(), ["web", "worker 1"]);
        let deep = "/a".repeat(17);
        let long = format!("/{}", "x".repeat(256));
        for bad in
            ["", "web", "//", "/web/", "/web//worker", "/..", "/web/.", "/a\nb", "/\u{1b}[31m", &deep, &long]
        {
            assert!(parts(bad).is_err(), "{bad:?}");
        }
    }

    /// A group at its limit that asked for nothing was given up as soon as somebody waited in another; one that asked at last, at once.
    #[test]
    fn a_group_is_given_up_for_the_waiting_of_another() {
        let limited = Limited::new(vswap_core::GroupId::ROOT, 1000);
        assert!(!limited.waits_too_long(9000, 300), "nobody has asked");
        (9000..=9300).for_each(|now| limited.note_refusal(now));
        assert!(!limited.waits_too_long(9300, 300), "for 300 ms only");
        limited.note_refusal(9301);
        assert!(limited.waits_too_long(9301, 300));
        assert!(!limited.waits_too_long(9500, 300), "nobody asks any more");
        limited.note_refusal(9500);
        assert!(!limited.waits_too_long(9500, 300), "it has begun to wait anew");
    }
}
