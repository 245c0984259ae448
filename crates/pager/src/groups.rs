//! Groups of a pager: their names, and what is set of each.
//!
//! A name is a path, `/web/worker`; the tree and all that is counted are the engine's. Who makes room in a group that is at a limit: [`relief`].
//!
//! Lock order: `names`, then the engine's tree. `limited`, `rest_until` and a hand are leaves, but that the map of blocks of a space is taken under a hand.

mod relief;

use relief::Limited;
pub(crate) use relief::Relief;

use crate::block::Block;
use crate::pager::{Pager, Shared};
use crate::space::Space;
use parking_lot::{Mutex, RwLock};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use vswap_core::{Bitmap512, ByteCount, Event, GroupId, PAGES_PER_CLUSTER, PageIndex, Resource};
use vswap_engine::{EngineError, Group, TierId};

/// Groups below one another, at most: each charge goes up all the way.
const DEEPEST: usize = 16;
/// Pages that are charged for together when a space leaves what it shares: the evictors keep room for as many at any limit, also while they sleep.
const LEFT_AT_ONCE: usize = 16;
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

/// How far a space is with leaving what it shares ([`Pager::leave_if_room`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaving {
    /// It shares nothing.
    Over,
    /// It shares less than before.
    GetsOn,
    /// There was no room.
    Waits,
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
        if let Some(name) = self.taken(&names, group, parent) {
            return Err(GroupError::NameTaken { path: path.into(), name: name.into() });
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

    /// Sets what a group may have of a tier, in bytes; see [`vswap_engine::Engine::set_tier_limit`].
    ///
    /// # Errors
    /// When there is no such group or tier, or too many groups have such limits.
    pub fn limit_group_on_tier(
        &self,
        path: &str,
        tier: TierId,
        limit: Option<ByteCount>,
    ) -> Result<(), GroupError> {
        let names = self.shared.groups.names.lock();
        let group = self.find(&names, &parts(path)?)?;
        self.engine().set_tier_limit(group, tier, limit)?;
        // What could not be written may be now.
        self.shared.groups.rest_until.lock().clear();
        drop(names);
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

    /// Charges a space that is to go to another group for its own copies of what it shares with others since a fork, as long as there is room for them beside all that counts, if
    /// its present group, which is to lose them, has no limit; of one that has, it leaves at once when it is moved. To be called
    /// before [`Pager::move_to_group`] until it is [`Leaving::Over`], with room made in between: what is shared still is then charged beyond the limit, for what is taken for
    /// two copies at once makes the evictors compress pages that somebody else has in memory still. No fork of the space may be under way.
    pub fn leave_if_room(&self, space: &Arc<Space>, group: GroupId) -> Leaving {
        // A group that has a limit would make room for what it is to lose, or be taken for full.
        let limit = self.engine().group_tree().effective_limit(space.group(), Resource::Resident);
        if space.group() == group || limit < u64::MAX {
            return Leaving::Over;
        }
        let blocks: Vec<Arc<Block>> = space.blocks.read().values().cloned().collect();
        let some = Cell::new(false);
        let may = |others| {
            let may = others == 0 || space.charge_left_of_all(others);
            some.set(some.get() || may && others > 0);
            may
        };
        let left = blocks.iter().all(|block| {
            let mut state = block.state.lock();
            state.cow.is_empty()
                || (0..PAGES_PER_CLUSTER).step_by(LEFT_AT_ONCE).all(|start| {
                    let start = PageIndex::new(start).expect("below a block's pages");
                    state.leave_if(self.engine(), &Bitmap512::from_range(start, LEFT_AT_ONCE), may)
                })
        });
        self.shared.budget.call_if_short();
        match (left, some.get()) {
            (true, _) => Leaving::Over,
            (false, true) => Leaving::GetsOn,
            (false, false) => Leaving::Waits,
        }
    }

    /// A space is of another group from now on, with all that it has: what it shares with others since a fork is charged to both, until it has its own ([`Pager::leave_if_room`]).
    /// What it had stored is charged to that group too, whatever its limits; only what it shares stays with the group of the first. No fork of the space may be under way.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn move_to_group(&self, space: &Arc<Space>, group: GroupId) -> Result<(), GroupError> {
        let engine = self.engine();
        let blocks = || -> Vec<Arc<Block>> { space.blocks.read().values().cloned().collect() };
        if space.group() != group {
            for block in blocks() {
                let mut state = block.state.lock();
                let others = state.leave(engine, &Bitmap512::FULL);
                space.force_left(others);
            }
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

    /// A name below `group` that another below `parent` has.
    fn taken<'a>(
        &self,
        names: &'a BTreeMap<GroupId, String>,
        group: GroupId,
        parent: GroupId,
    ) -> Option<&'a str> {
        let below = |above: GroupId| {
            let is =
                move |at: &(&GroupId, &String)| *at.0 != group && self.shared.parent(*at.0) == Some(above);
            names.iter().filter(is).map(|(_, name)| name.as_str())
        };
        let beside: BTreeSet<&str> = below(parent).collect();
        below(group).find(|name| beside.contains(name))
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
        let mut seen = BTreeSet::new();
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
}

#[cfg(test)]
mod tests {
    use super::parts;

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
}
