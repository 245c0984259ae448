//! Groups against sums over a tree.
use proptest::prelude::*;
use vswap_core::{ChargeError, Group, GroupId, Groups, PageCount};

proptest! {
    #![proptest_config(crate::cases(300))]

    #[test]
    fn usage_is_the_sum_of_what_is_below(
        parents in prop::collection::vec(any::<prop::sample::Index>(), 5),
        limits in prop::collection::vec(1..200u64, 5),
        charges in prop::collection::vec((0..6u32, 1..40u64), 0..40),
    ) {
        let lines: [Group; 6] = Default::default();
        let groups = Groups::new(&lines);
        let mut parent_of = vec![None];
        for (at, (pick, limit)) in parents.iter().zip(&limits).enumerate() {
            let parent = pick.index(at + 1) as u32;
            groups.make(GroupId::new(at as u32 + 1), GroupId::new(parent), PageCount::new(*limit)).unwrap();
            parent_of.push(Some(parent));
        }
        let mut usage = [0u64; 6];
        let mut taken = Vec::new();
        for (group, pages) in charges {
            let path: Vec<u32> = std::iter::successors(Some(group), |at| parent_of[*at as usize]).collect();
            let fits = path.iter().all(|at| *at == 0 || usage[*at as usize] + pages <= limits[*at as usize - 1]);
            let result = groups.charge(GroupId::new(group), PageCount::new(pages));
            prop_assert_eq!(result.is_ok(), fits);
            if fits {
                path.iter().for_each(|at| usage[*at as usize] += pages);
                taken.push((group, pages));
            }
            for (at, pages) in usage.iter().enumerate() {
                prop_assert_eq!(groups.usage(GroupId::new(at as u32)), PageCount::new(*pages));
            }
        }
        for (group, pages) in taken {
            groups.uncharge(GroupId::new(group), PageCount::new(pages));
        }
        prop_assert!((0..6).all(|at| groups.usage(GroupId::new(at)).is_zero()));
    }
}

#[test]
fn a_group_that_was_not_made_takes_no_charge() {
    let lines: [Group; 3] = Default::default();
    let groups = Groups::new(&lines);
    let group = GroupId::new(2);
    assert_eq!(groups.charge(group, PageCount::new(1)), Err(ChargeError::Unknown { group }));
    assert!(groups.make(group, GroupId::new(1), PageCount::new(1)).is_err(), "its parent is not there");
    assert!(groups.make(GroupId::ROOT, GroupId::ROOT, PageCount::new(1)).is_err());
    assert!(groups.make(GroupId::new(9), GroupId::ROOT, PageCount::new(1)).is_err(), "no such line");
}
