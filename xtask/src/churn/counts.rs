//! How often each thing happened, and which never did.

use std::collections::{BTreeMap, BTreeSet};

use super::{Kind, Tier};

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Event {
    /// A tier came.
    Added(Kind),
    /// A tier was emptied and went.
    Removed(Kind),
    /// A tier had no room left.
    Filled,
    /// A tier could not be written.
    Failed,
    /// It could again.
    Reopened,
    /// A removal was ended in the middle, and the tier is still there.
    Ended,
    /// A tier was not added, or not removed.
    TierRefused,
    /// A group came.
    GroupAdded,
    /// A group went.
    GroupRemoved,
    /// A group got other limits.
    Limited,
    /// A group got another limit of a tier.
    LimitedOnTier,
    /// A process went to another group.
    Moved,
    /// A group's command was refused.
    GroupRefused,
}

/// See the module.
pub struct Counts {
    has_device: bool,
    seen: BTreeMap<Event, u64>,
    /// Tiers that were full when they were looked at, and are still there.
    full: BTreeSet<u64>,
}

impl Counts {
    /// Nothing yet, on a machine that has a block device for it or none.
    pub fn new(has_device: bool) -> Self {
        Self { has_device, seen: BTreeMap::new(), full: BTreeSet::new() }
    }

    /// It happened.
    pub fn note(&mut self, event: Event) {
        *self.seen.entry(event).or_default() += 1;
    }

    /// It happened, or else was refused.
    pub fn note_or(&mut self, done: bool, event: Event, refused: Event) {
        self.note(if done { event } else { refused });
    }

    /// Looks for those that have filled; each counts once.
    pub fn note_full(&mut self, tiers: &[Tier]) {
        self.full.retain(|number| tiers.iter().any(|tier| tier.number == *number));
        for tier in tiers.iter().filter(|tier| tier.is_full()) {
            if self.full.insert(tier.number) {
                *self.seen.entry(Event::Filled).or_default() += 1;
            }
        }
    }

    /// A tier has gone, and its number is another's.
    pub fn forget(&mut self, tier: u64) {
        self.full.remove(&tier);
    }

    fn of(&self, event: Event) -> u64 {
        self.seen.get(&event).copied().unwrap_or(0)
    }

    fn kinds(&self) -> impl Iterator<Item = Kind> {
        let has_device = self.has_device;
        Kind::ALL.into_iter().filter(move |kind| has_device || *kind != Kind::Device)
    }

    /// All of it in one line.
    pub fn line(&self) -> String {
        use Event::*;
        let of_kind =
            |kind: Kind| format!("{} {}/{}", kind.name(), self.of(Added(kind)), self.of(Removed(kind)));
        let mut kinds: Vec<String> = self.kinds().map(of_kind).collect();
        if !self.has_device {
            kinds.push("no device: no loop devices here".into());
        }
        let sum = |of: fn(Kind) -> Event| Kind::ALL.into_iter().map(|kind| self.of(of(kind))).sum::<u64>();
        format!(
            ", tiers: {} added, {} removed ({}), {} filled, {} failed, {} reopened, {} removals ended, {} refused; \
             groups: {} added, {} removed, {} limited, {} limited on a tier, {} processes moved, {} refused",
            sum(Added),
            sum(Removed),
            kinds.join(", "),
            self.of(Filled),
            self.of(Failed),
            self.of(Reopened),
            self.of(Ended),
            self.of(TierRefused),
            self.of(GroupAdded),
            self.of(GroupRemoved),
            self.of(Limited),
            self.of(LimitedOnTier),
            self.of(Moved),
            self.of(GroupRefused),
        )
    }

    /// What should have happened and did not. That something was refused need not be.
    pub fn never(&self) -> Vec<String> {
        use Event::*;
        let of_kinds = self.kinds().flat_map(|kind| [Added(kind), Removed(kind)]);
        let others =
            [Filled, Failed, Reopened, Ended, GroupAdded, GroupRemoved, Limited, LimitedOnTier, Moved];
        let never = of_kinds.chain(others).filter(|event| self.of(*event) == 0);
        never.map(|event| format!("{event:?}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_but(left_out: &[Event]) -> Counts {
        use Event::*;
        let mut counts = Counts::new(true);
        let others =
            [Filled, Failed, Reopened, Ended, GroupAdded, GroupRemoved, Limited, LimitedOnTier, Moved];
        let of_kinds = Kind::ALL.into_iter().flat_map(|kind| [Added(kind), Removed(kind)]);
        of_kinds.chain(others).filter(|event| !left_out.contains(event)).for_each(|event| counts.note(event));
        counts
    }

    #[test]
    fn what_never_happened_is_named_and_a_refusal_is_not_missed() {
        assert_eq!(all_but(&[]).never(), [""; 0]);
        let left_out = [Event::Removed(Kind::Ghost), Event::Failed, Event::Moved];
        assert_eq!(all_but(&left_out).never(), ["Removed(Ghost)", "Failed", "Moved"]);
    }

    #[test]
    fn a_machine_without_loop_devices_need_not_have_one_and_says_so() {
        let mut counts = all_but(&[Event::Added(Kind::Device), Event::Removed(Kind::Device)]);
        assert_eq!(counts.never(), ["Added(Device)", "Removed(Device)"]);
        counts.has_device = false;
        assert_eq!(counts.never(), [""; 0]);
        assert!(counts.line().contains("no loop devices here"), "{}", counts.line());
    }

    #[test]
    fn a_tier_that_stays_full_counts_once_and_the_next_of_its_number_again() {
        let tier = |used| Tier {
            number: 1,
            path: None,
            kind: Kind::File,
            size: 8 << 20,
            used,
            state: "open".into(),
        };
        let mut counts = Counts::new(true);
        for used in [0, 6 << 20, 8 << 20, 6 << 20, 8 << 20] {
            counts.note_full(&[tier(used)]);
        }
        assert_eq!(counts.of(Event::Filled), 1);
        counts.forget(1);
        counts.note_full(&[tier(8 << 20)]);
        assert_eq!(counts.of(Event::Filled), 2);
    }
}
