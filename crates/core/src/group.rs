//! Groups: limit domains in a tree, as the kernel's memory cgroups (version 2) are.
//!
//! What is charged to a group is charged to all above it, so the limit that counts is the least on the way to the root. Each
//! [`Resource`] is counted exactly: a group's usage is that of its own and of all below it.
//!
//! # Invariants
//! - A charge that any ancestor refuses changes nothing (seen after it returned).
//! - Parents have lower numbers, so the tree has no circle. Numbers are not used twice.
//! - A group that was removed is passed on the way up: what is charged to it, or still is, counts for its parent and those above, which had
//!   counted it before. So a removal changes no figure but that of the group itself, at whatever moment it comes, and touches no page.
//! - Those that are there are a list in the order of their numbers, from the root. So whatever goes through all takes as long as there are groups, however
//!   many were made before, and lines that were never in use are never touched. One that was removed still names who came behind it: who stands there
//!   goes on, and meets all that were there the whole time.
//!
//! Orderings are relaxed: a charge guards no memory, only a number, and each change of it is one read-modify-write. Making and removing are
//! the caller's to put in turn.

use crate::sync::{AtomicU64, Ordering};
use crate::units::GroupId;

/// What is limited and counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Resource {
    /// Bytes of compressed pages in memory.
    Pool,
    /// Pages that have bytes in the swap space, wherever they are.
    Swap,
    /// Pages in memory. Whoever counts them has a count of all of them, so the root has none here: see [`Groups::charge_apart`].
    Resident,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pool, Self::Swap, Self::Resident];
}

/// What is counted as it happens, under the names of the kernel's `memory.stat`, `memory.events` and `memory.swap.events`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// `swpout_zero`: a page was stored as a pattern. (The kernel's knows zeroes only.)
    SwpoutZero,
    /// `swpin_zero`: one came back from a pattern.
    SwpinZero,
    /// `zswpout`: a page was compressed into memory.
    Zswpout,
    /// `zswpin`: one came back from there.
    Zswpin,
    /// `zswpwb`: a compressed page was written to a tier. The kernel counts it as `pswpout` as well.
    Zswpwb,
    /// `pswpin`: a page was read from a tier.
    Pswpin,
    /// `workingset_refault_anon`: a page came back to memory, with another's fault too.
    Refault,
    /// `workingset_activate_anon`: one was asked for so soon after it had gone that it is protected.
    Activate,
    /// `max` of `memory.events`: a page had to wait, since its group was at its limit of resident pages.
    Max,
    /// `oom` of `memory.events`: nothing more could be moved out of a group at its limit.
    Oom,
    /// `max` of `memory.swap.events`: a page could not be stored, since its group was at its limit of the swap space.
    SwapMax,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::SwpoutZero,
        Self::SwpinZero,
        Self::Zswpout,
        Self::Zswpin,
        Self::Zswpwb,
        Self::Pswpin,
        Self::Refault,
        Self::Activate,
        Self::Max,
        Self::Oom,
        Self::SwapMax,
    ];
}

/// Words that a group takes: four cache lines. All zero, it is a line not in use; the first is the root.
pub const GROUP_WORDS: usize = 32;
/// The parent's number plus one in the lower half; 0 for the root and for lines not in use.
const PARENT: usize = 0;
const REMOVED: u64 = 1 << 63;
/// Inverted, so that 0 is no limit.
const LIMITS: usize = 1;
/// The number of the next group that is there, in the parent's cache line; 0 for the last.
const NEXT: usize = 4;
/// Of the root: the last group that is there.
const LAST: usize = 5;
const USAGE: usize = 8;
/// The most resident pages at any time.
const PEAK: usize = 15;
const EVENTS: usize = 16;

const _: () = assert!(LIMITS + Resource::ALL.len() <= NEXT && NEXT < LAST && LAST < USAGE);
const _: () = assert!(USAGE + Resource::ALL.len() <= PEAK && PEAK < EVENTS);
const _: () = assert!(EVENTS + Event::ALL.len() <= GROUP_WORDS);

/// Why a charge was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ChargeError {
    /// A group would pass its limit.
    OverLimit {
        /// Which.
        group: GroupId,
        /// Of what.
        resource: Resource,
        /// What it has, in the resource's unit.
        usage: u64,
        /// What it may have.
        limit: u64,
    },
    /// No such group.
    Unknown {
        /// Which.
        group: GroupId,
    },
}

/// All groups. The memory is the caller's, since the core allocates nothing: [`GROUP_WORDS`] each.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a>(&'a [AtomicU64]);

impl<'a> Groups<'a> {
    /// The groups in these words.
    pub const fn new(words: &'a [AtomicU64]) -> Self {
        Self(words)
    }

    /// Makes an unused line a group below `parent`, without limits.
    ///
    /// # Errors
    /// When the line is or was in use, there is no such line, or the parent is not a group made before it.
    pub fn make(self, group: GroupId, parent: GroupId) -> Result<(), ChargeError> {
        let unknown = ChargeError::Unknown { group };
        if parent >= group || !self.exists(parent) {
            return Err(unknown);
        }
        let line = self.line(group).ok_or(unknown)?;
        let up = u64::from(parent.get()) + 1;
        line[PARENT].compare_exchange(0, up, Ordering::Relaxed, Ordering::Relaxed).map_err(|_| unknown)?;
        self.link(group);
        Ok(())
    }

    /// Removes a group: those below it, and what is charged to it, are its parent's from now on.
    ///
    /// # Errors
    /// When there is no such group; the root stays.
    pub fn remove(self, group: GroupId) -> Result<(), ChargeError> {
        let unknown = ChargeError::Unknown { group };
        let parent = self.parent(group).filter(|_| self.exists(group)).ok_or(unknown)?;
        let line = self.line(group).ok_or(unknown)?;
        line[PARENT].fetch_or(REMOVED, Ordering::Relaxed);
        let up = u64::from(parent.get()) + 1;
        // Those below it that were removed before keep it above them: it is passed.
        let mut before = GroupId::ROOT;
        for at in self.from(GroupId::ROOT) {
            if self.next(at) == Some(group) {
                before = at;
            } else if at > group
                && self.parent(at) == Some(group)
                && let Some(line) = self.line(at)
            {
                line[PARENT].store(up, Ordering::Relaxed);
            }
        }
        self.unlink(group, before);
        Ok(())
    }

    /// Whether there is such a group, not removed.
    pub fn exists(self, group: GroupId) -> bool {
        let Some(line) = self.line(group) else { return false };
        let word = line[PARENT].load(Ordering::Relaxed);
        group == GroupId::ROOT || (word != 0 && word & REMOVED == 0)
    }

    /// The group itself, or the nearest above it that was not removed.
    pub fn resolve(self, group: GroupId) -> GroupId {
        self.up(group).find(|at| self.exists(*at)).unwrap_or(GroupId::ROOT)
    }

    /// Whether `group` is `above` or below it.
    pub fn is_within(self, group: GroupId, above: GroupId) -> bool {
        self.up(group).any(|at| at == above)
    }

    /// Groups that are there, parents before those below them.
    pub fn all(self) -> impl Iterator<Item = GroupId> + use<'a> {
        let root = self.line(GroupId::ROOT).map(|_| GroupId::ROOT);
        // One that is removed while it is passed is left out.
        root.into_iter().flat_map(move |root| self.from(root)).filter(move |group| self.exists(*group))
    }

    /// The group above; `None` for the root.
    pub fn parent(self, group: GroupId) -> Option<GroupId> {
        let up = self.line(group)?[PARENT].load(Ordering::Relaxed) & !REMOVED;
        u32::try_from(up.checked_sub(1)?).ok().map(GroupId::new)
    }

    /// What the group itself may have; `u64::MAX` is no limit.
    pub fn limit(self, group: GroupId, resource: Resource) -> u64 {
        self.line(group).map_or(0, |line| !line[LIMITS + resource as usize].load(Ordering::Relaxed))
    }

    /// What it may have as things stand: the least of its own limit and those above.
    pub fn effective_limit(self, group: GroupId, resource: Resource) -> u64 {
        self.alive(group).map(|at| self.limit(at, resource)).min().unwrap_or(u64::MAX)
    }

    /// Sets a limit, `u64::MAX` for none. One below the usage takes nothing away: charges are refused until enough has gone.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn set_limit(self, group: GroupId, resource: Resource, limit: u64) -> Result<(), ChargeError> {
        let line = self.line(group).filter(|_| self.exists(group)).ok_or(ChargeError::Unknown { group })?;
        line[LIMITS + resource as usize].store(!limit, Ordering::Relaxed);
        Ok(())
    }

    /// What is charged to a group and those below it.
    pub fn usage(self, group: GroupId, resource: Resource) -> u64 {
        self.line(group).map_or(0, |line| line[USAGE + resource as usize].load(Ordering::Relaxed))
    }

    /// The most resident pages that a group and those below it had at any time.
    pub fn peak(self, group: GroupId) -> u64 {
        self.line(group).map_or(0, |line| line[PEAK].load(Ordering::Relaxed))
    }

    /// How much may still be charged to a group, `u64::MAX` if there is no limit. It may be less a moment later.
    pub fn room(self, group: GroupId, resource: Resource) -> u64 {
        let room = |at| match self.limit(at, resource) {
            u64::MAX => u64::MAX,
            limit => limit.saturating_sub(self.usage(at, resource)),
        };
        self.alive(group).map(room).min().unwrap_or(u64::MAX)
    }

    /// Charges to a group and all above it.
    ///
    /// # Errors
    /// When one of them would pass its limit (nothing is charged then), or there is no such group.
    pub fn charge(self, group: GroupId, resource: Resource, amount: u64) -> Result<(), ChargeError> {
        self.charge_below(group, None, resource, amount)
    }

    /// Charges to a group and all above it, whatever their limits.
    pub fn force(self, group: GroupId, resource: Resource, amount: u64) {
        self.force_below(group, None, resource, amount);
    }

    /// Takes a charge back from a group and all above it.
    pub fn uncharge(self, group: GroupId, resource: Resource, amount: u64) {
        self.uncharge_below(group, None, resource, amount);
    }

    /// The first half of moving a charge from one group to another: charges to those that `to` is below and `from` is not. What both are
    /// below is not touched.
    ///
    /// # Errors
    /// When one of those that would have more would pass its limit (nothing has changed then), or there is no such group.
    pub fn charge_apart(
        self,
        to: GroupId,
        from: GroupId,
        resource: Resource,
        amount: u64,
    ) -> Result<(), ChargeError> {
        self.charge_below(to, self.common(to, from), resource, amount)
    }

    /// [`Groups::charge_apart`], whatever the limits.
    pub fn force_apart(self, to: GroupId, from: GroupId, resource: Resource, amount: u64) {
        self.force_below(to, self.common(to, from), resource, amount);
    }

    /// The second half, or what undoes the first with the two the other way round: takes a charge back from those that `from` is below and
    /// `to` is not. No group may have been removed between the halves.
    pub fn uncharge_apart(self, from: GroupId, to: GroupId, resource: Resource, amount: u64) {
        self.uncharge_below(from, self.common(from, to), resource, amount);
    }

    /// The nearest group that both are below.
    fn common(self, one: GroupId, other: GroupId) -> Option<GroupId> {
        self.alive(one).find(|at| self.is_within(other, *at))
    }

    /// Counts something that happened in a group, for all above it too.
    pub fn count(self, group: GroupId, event: Event, times: u64) {
        for at in self.alive(group) {
            if let Some(line) = self.line(at) {
                line[EVENTS + event as usize].fetch_add(times, Ordering::Relaxed);
            }
        }
    }

    /// How often it has happened in a group and those below it.
    pub fn events(self, group: GroupId, event: Event) -> u64 {
        self.line(group).map_or(0, |line| line[EVENTS + event as usize].load(Ordering::Relaxed))
    }

    /// Charges to all from `group` up to, but without, `end`.
    fn charge_below(
        self,
        group: GroupId,
        end: Option<GroupId>,
        resource: Resource,
        amount: u64,
    ) -> Result<(), ChargeError> {
        if self.line(group).is_none() || (group != GroupId::ROOT && self.parent(group).is_none()) {
            return Err(ChargeError::Unknown { group });
        }
        for at in self.alive(group).take_while(|at| is_below(*at, end)) {
            if let Err(error) = self.charge_one(at, resource, amount) {
                self.uncharge_below(group, Some(at), resource, amount);
                return Err(error);
            }
        }
        Ok(())
    }

    fn force_below(self, group: GroupId, end: Option<GroupId>, resource: Resource, amount: u64) {
        for at in self.alive(group).take_while(|at| is_below(*at, end)) {
            if let Some(usage) = self.usage_word(at, resource) {
                let before = usage.fetch_add(amount, Ordering::Relaxed);
                self.note_peak(at, resource, before + amount);
            }
        }
    }

    fn note_peak(self, group: GroupId, resource: Resource, usage: u64) {
        if let Some(peak) =
            self.line(group).map(|line| &line[PEAK]).filter(|_| resource == Resource::Resident)
            && usage > peak.load(Ordering::Relaxed)
        {
            peak.fetch_max(usage, Ordering::Relaxed);
        }
    }

    fn uncharge_below(self, group: GroupId, end: Option<GroupId>, resource: Resource, amount: u64) {
        for at in self.alive(group).take_while(|at| is_below(*at, end)) {
            if let Some(usage) = self.usage_word(at, resource) {
                let before = usage.fetch_sub(amount, Ordering::Relaxed);
                // One that is being removed may have been passed on the way up before, and not now, or the other way round.
                debug_assert!(
                    before >= amount || !self.exists(at),
                    "group {} gives back more than it has",
                    at.get()
                );
            }
        }
    }

    fn charge_one(self, group: GroupId, resource: Resource, amount: u64) -> Result<(), ChargeError> {
        let word = self.usage_word(group, resource).ok_or(ChargeError::Unknown { group })?;
        let limit = self.limit(group, resource);
        // Without a limit there is nothing to look at first: one addition, which threads do not fail at together.
        if limit == u64::MAX {
            let before = word.fetch_add(amount, Ordering::Relaxed);
            self.note_peak(group, resource, before + amount);
            return Ok(());
        }
        let take = |usage: u64| usage.checked_add(amount).filter(|after| *after <= limit);
        let taken = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let before = taken.map_err(|usage| ChargeError::OverLimit { group, resource, usage, limit })?;
        self.note_peak(group, resource, before + amount);
        Ok(())
    }

    /// The group and all above it.
    fn up(self, group: GroupId) -> impl Iterator<Item = GroupId> + use<'a> {
        core::iter::successors(Some(group), move |at| self.parent(*at))
    }

    /// Of these, the ones that were not removed.
    fn alive(self, group: GroupId) -> impl Iterator<Item = GroupId> + use<'a> {
        self.up(group).filter(move |at| self.exists(*at))
    }

    fn usage_word(self, group: GroupId, resource: Resource) -> Option<&'a AtomicU64> {
        Some(&self.line(group)?[USAGE + resource as usize])
    }

    fn line(self, group: GroupId) -> Option<&'a [AtomicU64]> {
        let start = group.get() as usize * GROUP_WORDS;
        self.0.get(start..start + GROUP_WORDS)
    }

    /// A group and all behind it in the list.
    fn from(self, group: GroupId) -> impl Iterator<Item = GroupId> + use<'a> {
        core::iter::successors(Some(group), move |at| self.next(*at))
    }

    fn next(self, group: GroupId) -> Option<GroupId> {
        let next = self.line(group)?[NEXT].load(Ordering::Relaxed);
        u32::try_from(next).ok().filter(|next| *next != 0).map(GroupId::new)
    }

    /// Puts a group into the list: mostly behind the last, as numbers go up.
    fn link(self, group: GroupId) {
        let last = self.last().filter(|last| *last < group).unwrap_or(GroupId::ROOT);
        let before = self.from(last).take_while(|at| *at < group).last().unwrap_or(last);
        let behind = self.next(before);
        self.set_next(group, behind);
        self.set_next(before, Some(group));
        if behind.is_none() {
            self.set_last(group);
        }
    }

    /// Takes a group out of the list. It still names the next itself.
    fn unlink(self, group: GroupId, before: GroupId) {
        let behind = self.next(group);
        self.set_next(before, behind);
        if behind.is_none() {
            self.set_last(before);
        }
    }

    fn set_next(self, group: GroupId, next: Option<GroupId>) {
        if let Some(line) = self.line(group) {
            line[NEXT].store(next.map_or(0, |next| next.get().into()), Ordering::Relaxed);
        }
    }

    fn last(self) -> Option<GroupId> {
        let last = self.line(GroupId::ROOT)?[LAST].load(Ordering::Relaxed);
        u32::try_from(last).ok().map(GroupId::new)
    }

    fn set_last(self, group: GroupId) {
        if let Some(root) = self.line(GroupId::ROOT) {
            root[LAST].store(group.get().into(), Ordering::Relaxed);
        }
    }
}

/// Whether a group comes before `end` on the way up. By number, since those above have lower ones: `end` itself may have been removed meanwhile,
/// and would not be met.
fn is_below(at: GroupId, end: Option<GroupId>) -> bool {
    end.is_none_or(|end| at > end)
}
