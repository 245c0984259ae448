//! What a space has in memory, and which group that is charged to: one word, so that a space goes to another group with all of it at one moment.
//!
//! The budget and the group are charged for a page that owners share once: for whoever of them has it last. So all that share a page must be of one group: a
//! space that goes to another leaves what it shares first ([`Pager::move_to_group`]). What is charged or taken back because a page is shared
//! no more is seen to under the lock of its block, which that takes too.
//!
//! The root has no charges of its own: what it would have is the budget's. So a space of the root pays for one comparison.
//!
//! [`Pager::move_to_group`]: crate::Pager::move_to_group

use crate::pager::Shared;
use crate::space::Space;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use vswap_core::{ChargeError, Event, GroupId, MAX_GROUPS, Resource};

/// Bits of the number of pages; above them the group's.
const PAGES: u32 = 48;

const _: () = assert!(MAX_GROUPS as u64 <= 1 << (u64::BITS - PAGES));

/// The word. Relaxed throughout: it publishes nothing but itself.
#[derive(Debug)]
pub(crate) struct Charged(AtomicU64);

/// What a word says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Charge(u64);

impl Charge {
    fn new(group: GroupId, pages: u64) -> Charge {
        Charge(u64::from(group.get()) << PAGES | pages)
    }

    pub fn group(self) -> GroupId {
        GroupId::new((self.0 >> PAGES) as u32)
    }

    pub fn pages(self) -> u64 {
        self.0 & ((1 << PAGES) - 1)
    }
}

impl Charged {
    /// Nothing, of a group.
    pub fn new(group: GroupId) -> Charged {
        Charged(AtomicU64::new(Charge::new(group, 0).0))
    }

    pub fn get(&self) -> Charge {
        Charge(self.0.load(Relaxed))
    }

    /// Adds pages that were charged to `group`. `false` if it is of another one by now.
    fn add(&self, pages: usize, group: GroupId) -> bool {
        let add = |word| (Charge(word).group() == group).then(|| word + pages as u64);
        self.0.fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    /// Takes pages off; whose they were.
    fn take(&self, pages: usize) -> GroupId {
        let before = Charge(self.0.fetch_sub(pages as u64, Relaxed));
        debug_assert!(before.pages() >= pages as u64, "more pages go than are there");
        before.group()
    }

    /// All of it is another group's, if it is still what was `seen`.
    pub fn regroup(&self, seen: Charge, group: GroupId) -> bool {
        let new = Charge::new(group, seen.pages());
        self.0.compare_exchange(seen.0, new.0, Relaxed, Relaxed).is_ok()
    }
}

impl Space {
    /// Charges `pages` that are about to come, if there is room.
    pub(crate) fn charge(&self, pages: usize) -> bool {
        self.charge_copies(pages, |group| self.charged.add(pages, group))
    }

    /// Charges copies of `pages` that others have too, if there is room, under the lock of their block.
    pub(crate) fn charge_left(&self, pages: usize) -> bool {
        self.charge_copies(pages, |_| true)
    }

    /// The same, if there is room beside all that counts, whatever is the group's.
    pub(crate) fn charge_left_of_all(&self, pages: usize) -> bool {
        let room = self.shared.budget.charge(pages);
        if room {
            self.shared.force_group(self.charged.get().group(), pages);
        }
        room
    }

    fn charge_copies(&self, pages: usize, add: impl Fn(GroupId) -> bool) -> bool {
        if !self.shared.budget.charge(pages) {
            return false;
        }
        loop {
            let group = self.charged.get().group();
            if !self.shared.charge_group(group, pages) {
                self.shared.budget.uncharge(pages);
                return false;
            }
            if add(group) {
                return true;
            }
            // It has gone to another group since.
            self.shared.uncharge_group(group, pages);
        }
    }

    pub(crate) fn charge_forced(&self, pages: usize) {
        self.charge_shared(pages, 0);
    }

    /// `pages` are in memory here now; `others` of them are somewhere else's too and charged there.
    pub(crate) fn charge_shared(&self, pages: usize, others: usize) {
        loop {
            let group = self.charged.get().group();
            self.shared.force_group(group, pages - others);
            if self.charged.add(pages, group) {
                break;
            }
            self.shared.uncharge_group(group, pages - others);
        }
        self.shared.budget.force(pages - others);
    }

    /// Copies of `pages` that others have too are this one's own now. Under the lock of their block.
    pub(crate) fn force_left(&self, pages: usize) {
        self.shared.force_group(self.charged.get().group(), pages);
        self.shared.budget.force(pages);
    }

    pub(crate) fn uncharge(&self, pages: usize) {
        self.uncharge_shared(pages, 0);
    }

    /// `pages` are in memory here no more; `others` of them are elsewhere: then under the lock of their block.
    pub(crate) fn uncharge_shared(&self, pages: usize, others: usize) {
        self.shared.budget.uncharge(pages - others);
        let group = self.charged.take(pages);
        self.shared.uncharge_group(group, pages - others);
    }
}

impl Shared {
    /// Charges a group and those above it but the root, if they have room; the evictors are to be called later if they have little.
    pub(crate) fn charge_group(&self, group: GroupId, pages: usize) -> bool {
        if group == GroupId::ROOT {
            return true;
        }
        let tree = self.engine.group_tree();
        match tree.charge_apart(group, GroupId::ROOT, Resource::Resident, pages as u64) {
            Err(ChargeError::OverLimit { group: full, .. }) => {
                tree.count(full, Event::Max, 1);
                if !self.groups.lets_through(full, self.clock_ms()) {
                    self.budget.note_short_group(true);
                    return false;
                }
                tree.force_apart(group, GroupId::ROOT, Resource::Resident, pages as u64);
            }
            _ => self.note_if_short(group),
        }
        true
    }

    fn force_group(&self, group: GroupId, pages: usize) {
        if group != GroupId::ROOT && pages > 0 {
            let tree = self.engine.group_tree();
            tree.force_apart(group, GroupId::ROOT, Resource::Resident, pages as u64);
            self.note_if_short(group);
        }
    }

    fn uncharge_group(&self, group: GroupId, pages: usize) {
        if group != GroupId::ROOT {
            let tree = self.engine.group_tree();
            tree.uncharge_apart(group, GroupId::ROOT, Resource::Resident, pages as u64);
        }
    }

    /// Counts what happened to pages of a space of this group. The root's are in the counters.
    pub(crate) fn count_in_group(&self, group: GroupId, event: Event, times: usize) {
        if group != GroupId::ROOT && times > 0 {
            self.engine.group_tree().count(group, event, times as u64);
        }
    }
}
