//! Groups against sums over a tree.
use proptest::prelude::*;
use vswap_core::sync::AtomicU64;
use vswap_core::{ChargeError, ClusterCharge, Event, GROUP_WORDS, GroupId, Groups, Load, Resource};

const LINES: usize = 7;

fn words() -> Vec<AtomicU64> {
    (0..LINES * GROUP_WORDS).map(|_| AtomicU64::new(0)).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Charge(usize, u64),
    Uncharge(prop::sample::Index),
    Move(prop::sample::Index, usize),
    Limit(usize, u64),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..LINES, 1..40u64).prop_map(|(group, amount)| Step::Charge(group, amount)),
        2 => any::<prop::sample::Index>().prop_map(Step::Uncharge),
        2 => (any::<prop::sample::Index>(), 0..LINES).prop_map(|(which, to)| Step::Move(which, to)),
        1 => (0..LINES, 1..200u64).prop_map(|(group, limit)| Step::Limit(group, limit)),
        1 => (1..LINES).prop_map(Step::Remove),
    ]
}

/// What should be: each group's parent, whether it is there, its limit; and every charge with whom it was made to.
struct Model {
    parent: Vec<Option<usize>>,
    there: Vec<bool>,
    limit: Vec<u64>,
    charges: Vec<(usize, u64)>,
}

impl Model {
    fn path(&self, group: usize) -> Vec<usize> {
        let up = std::iter::successors(Some(group), |at| self.parent[*at]);
        up.filter(|at| self.there[*at]).collect()
    }

    fn usage(&self, group: usize) -> u64 {
        self.charges.iter().filter(|(of, _)| self.path(*of).contains(&group)).map(|(_, amount)| amount).sum()
    }

    fn fits(&self, path: &[usize], amount: u64) -> bool {
        path.iter().all(|at| self.usage(*at) + amount <= self.limit[*at])
    }
}

proptest! {
    #![proptest_config(crate::cases(300))]

    #[test]
    fn usage_is_the_sum_of_what_is_below_whatever_is_moved_limited_and_removed(
        parents in prop::collection::vec(any::<prop::sample::Index>(), LINES - 1),
        steps in prop::collection::vec(step(), 0..if cfg!(miri) { 8 } else { 80 }),
    ) {
        let id = |group: usize| GroupId::new(group as u32);
        let words = words();
        let groups = Groups::new(&words);
        let mut model = Model {
            parent: vec![None],
            there: vec![true; LINES],
            limit: vec![u64::MAX; LINES],
            charges: Vec::new(),
        };
        for (at, pick) in parents.iter().enumerate() {
            let parent = pick.index(at + 1);
            groups.make(id(at + 1), id(parent)).unwrap();
            model.parent.push(Some(parent));
        }
        for step in steps {
            match step {
                Step::Charge(group, amount) => {
                    let fits = model.fits(&model.path(group), amount);
                    prop_assert_eq!(groups.charge(id(group), Resource::Swap, amount).is_ok(), fits);
                    if fits {
                        model.charges.push((group, amount));
                    }
                }
                Step::Uncharge(_) | Step::Move(..) if model.charges.is_empty() => {}
                Step::Uncharge(which) => {
                    let (group, amount) = model.charges.swap_remove(which.index(model.charges.len()));
                    groups.uncharge(id(group), Resource::Swap, amount);
                }
                Step::Move(which, to) => {
                    let which = which.index(model.charges.len());
                    let (from, amount) = model.charges[which];
                    let kept = model.path(from);
                    let more: Vec<_> = model.path(to).into_iter().filter(|at| !kept.contains(at)).collect();
                    let fits = model.fits(&more, amount);
                    prop_assert_eq!(groups.charge_apart(id(to), id(from), Resource::Swap, amount).is_ok(), fits);
                    if fits {
                        groups.uncharge_apart(id(from), id(to), Resource::Swap, amount);
                        model.charges[which].0 = to;
                    }
                }
                Step::Limit(group, limit) => {
                    let set = groups.set_limit(id(group), Resource::Swap, limit);
                    prop_assert_eq!(set.is_ok(), model.there[group]);
                    if model.there[group] {
                        model.limit[group] = limit;
                    }
                }
                Step::Remove(group) => {
                    prop_assert_eq!(groups.remove(id(group)).is_ok(), model.there[group]);
                    model.there[group] = false;
                }
            }
            for group in (0..LINES).filter(|group| model.there[*group]) {
                prop_assert_eq!(groups.usage(id(group), Resource::Swap), model.usage(group));
                prop_assert_eq!(groups.usage(id(group), Resource::Pool), 0);
                let least = model.path(group).iter().map(|at| model.limit[*at]).min().unwrap();
                prop_assert_eq!(groups.effective_limit(id(group), Resource::Swap), least);
                prop_assert_eq!(groups.parent(id(group)).map(|up| groups.resolve(up)), model.path(group).get(1).map(|up| id(*up)));
            }
            let there: Vec<_> = (0..LINES).filter(|group| model.there[*group]).map(id).collect();
            prop_assert_eq!(groups.all().collect::<Vec<_>>(), there);
        }
    }

    #[test]
    fn a_clusters_word_keeps_its_group_and_its_sums_apart(
        group in 0..1u32 << 16, other in 0..1u32 << 16, pages in 0..=512u16, pool in 0..=513 * 4096u32,
    ) {
        let load = Load { pages, pool };
        let word = ClusterCharge::new(GroupId::new(group)).to_word().wrapping_add(load.to_word());
        let charge = ClusterCharge::from_word(word);
        prop_assert_eq!((charge.group(), charge.load()), (GroupId::new(group), load));
        let moved = charge.of_group(GroupId::new(other));
        prop_assert_eq!((moved.group(), moved.load()), (GroupId::new(other), load));
        let emptied = ClusterCharge::from_word(word.wrapping_sub(load.to_word()));
        prop_assert_eq!(emptied, ClusterCharge::new(GroupId::new(group)));
    }
}

#[test]
fn a_group_that_was_not_made_takes_no_charge() {
    let words = words();
    let groups = Groups::new(&words);
    let group = GroupId::new(2);
    assert_eq!(groups.charge(group, Resource::Pool, 1), Err(ChargeError::Unknown { group }));
    assert!(groups.make(group, GroupId::new(1)).is_err(), "its parent is not there");
    assert!(groups.make(GroupId::ROOT, GroupId::ROOT).is_err());
    assert!(groups.make(GroupId::new(9), GroupId::ROOT).is_err(), "no such line");
    assert!(groups.remove(GroupId::ROOT).is_err());
}

#[test]
fn a_limit_below_the_usage_refuses_and_tells_who_has_how_much() {
    let words = words();
    let groups = Groups::new(&words);
    let (above, below) = (GroupId::new(1), GroupId::new(2));
    groups.make(above, GroupId::ROOT).unwrap();
    groups.make(below, above).unwrap();
    groups.charge(below, Resource::Pool, 10).unwrap();
    groups.set_limit(above, Resource::Pool, 4).unwrap();
    let refused = groups.charge(below, Resource::Pool, 1);
    let resource = Resource::Pool;
    assert_eq!(refused, Err(ChargeError::OverLimit { group: above, resource, usage: 10, limit: 4 }));
    assert_eq!(groups.usage(GroupId::ROOT, Resource::Pool), 10);
}

#[test]
fn what_happens_in_a_removed_group_is_counted_above_it() {
    let words = words();
    let groups = Groups::new(&words);
    let (above, below) = (GroupId::new(1), GroupId::new(2));
    groups.make(above, GroupId::ROOT).unwrap();
    groups.make(below, above).unwrap();
    groups.count(below, Event::Pswpin, 2);
    groups.remove(below).unwrap();
    groups.count(below, Event::Pswpin, 1);
    assert_eq!(groups.events(above, Event::Pswpin), 3);
    assert!(groups.is_within(below, above) && groups.resolve(below) == above);
}

/// Resident pages of the root are counted by whoever charges them.
#[test]
fn what_is_charged_below_the_root_leaves_the_root_alone_and_the_most_is_remembered() {
    let words = words();
    let groups = Groups::new(&words);
    let id = GroupId::new;
    groups.make(id(1), id(0)).unwrap();
    groups.make(id(2), id(1)).unwrap();
    groups.set_limit(id(1), Resource::Resident, 10).unwrap();
    assert_eq!(
        (groups.room(id(2), Resource::Resident), groups.room(id(0), Resource::Resident)),
        (10, u64::MAX)
    );
    groups.charge_apart(id(2), GroupId::ROOT, Resource::Resident, 7).unwrap();
    let refused = groups.charge_apart(id(2), GroupId::ROOT, Resource::Resident, 4).unwrap_err();
    assert!(matches!(refused, ChargeError::OverLimit { group, .. } if group == id(1)));
    groups.force_apart(id(2), GroupId::ROOT, Resource::Resident, 4);
    let usage = |group| groups.usage(id(group), Resource::Resident);
    assert_eq!([usage(0), usage(1), usage(2)], [0, 11, 11]);
    assert_eq!(groups.room(id(2), Resource::Resident), 0);
    groups.uncharge_apart(id(2), GroupId::ROOT, Resource::Resident, 9);
    assert_eq!([usage(1), groups.peak(id(1)), groups.peak(id(2)), groups.peak(id(0))], [2, 11, 11, 0]);
    groups.force(id(1), Resource::Swap, 100);
    assert_eq!([groups.usage(id(0), Resource::Swap), groups.peak(id(1))], [100, 11]);
}

/// Whatever goes through all groups takes as long as there are any, so the list of these must be right at its ends and in the middle.
#[test]
fn those_that_are_there_are_met_in_order_wherever_one_was_removed_or_made() {
    let words = words();
    let groups = Groups::new(&words);
    let all = || groups.all().map(GroupId::get).collect::<Vec<_>>();
    let id = GroupId::new;
    [1, 2, 5].into_iter().for_each(|group| groups.make(id(group), GroupId::ROOT).unwrap());
    assert_eq!(all(), [0, 1, 2, 5]);
    groups.make(id(3), id(2)).unwrap();
    assert_eq!(all(), [0, 1, 2, 3, 5], "made behind one with a higher number");
    groups.remove(id(5)).unwrap();
    groups.make(id(6), id(3)).unwrap();
    assert_eq!(all(), [0, 1, 2, 3, 6], "the last was removed");
    groups.remove(id(3)).unwrap();
    assert_eq!((all(), groups.parent(id(6))), (vec![0, 1, 2, 6], Some(id(2))));
    groups.remove(id(1)).unwrap();
    groups.remove(id(6)).unwrap();
    groups.remove(id(2)).unwrap();
    assert_eq!(all(), [0]);
    assert!(groups.make(id(6), GroupId::ROOT).is_err(), "numbers are not used twice");
    assert_eq!(Groups::new(&[]).all().count(), 0);
}

/// Who stands at a group while it is removed goes on to those that are behind it, though they have lost others meanwhile.
#[test]
fn who_goes_through_all_meets_those_that_stay_though_where_it_stands_is_removed() {
    let words = words();
    let groups = Groups::new(&words);
    let id = GroupId::new;
    (1..5).for_each(|group| groups.make(id(group), GroupId::ROOT).unwrap());
    let mut passing = groups.all().skip(1);
    assert_eq!(passing.next(), Some(id(1)));
    [2, 1, 3].into_iter().for_each(|group| groups.remove(id(group)).unwrap());
    assert_eq!(passing.collect::<Vec<_>>(), [id(4)]);
}
