//! `Bitmap512` against a set of numbers.
use proptest::prelude::*;
use std::collections::BTreeSet;
use vswap_core::{Bitmap512, PageIndex};

fn page(at: usize) -> PageIndex {
    PageIndex::new(at).expect("below 512")
}

fn set_of(numbers: &BTreeSet<usize>) -> Bitmap512 {
    numbers.iter().map(|&n| page(n)).collect()
}

fn numbers_of(set: &Bitmap512) -> BTreeSet<usize> {
    set.iter().map(PageIndex::get).collect()
}

fn any_set() -> impl Strategy<Value = BTreeSet<usize>> {
    prop_oneof![
        prop::collection::btree_set(0..512usize, 0..40),
        prop::collection::btree_set(0..512usize, 0..512),
        (0..512usize, 0..600usize).prop_map(|(from, len)| (from..(from + len).min(512)).collect()),
    ]
}

proptest! {
    #![proptest_config(crate::cases(400))]

    #[test]
    fn set_operations_agree_with_a_naive_set(a in any_set(), b in any_set()) {
        let (x, y) = (set_of(&a), set_of(&b));
        prop_assert_eq!(x.count(), a.len());
        prop_assert_eq!(x.is_empty(), a.is_empty());
        prop_assert_eq!(x.first().map(PageIndex::get), a.first().copied());
        prop_assert_eq!(numbers_of(&(x & y)), &a & &b);
        prop_assert_eq!(numbers_of(&(x | y)), &a | &b);
        prop_assert_eq!(numbers_of(&(x ^ y)), &a ^ &b);
        prop_assert_eq!(numbers_of(&x.and_not(&y)), &a - &b);
        prop_assert_eq!(numbers_of(&!x), (0..512).filter(|n| !a.contains(n)).collect());
        prop_assert_eq!(x.iter().len(), a.len());
    }

    #[test]
    fn bounds_are_those_of_the_set(a in any_set()) {
        let expected = a.first().zip(a.last()).map(|(first, last)| *first..*last + 1);
        prop_assert_eq!(set_of(&a).bounds(), expected);
    }

    #[test]
    fn runs_cover_the_set_and_are_apart(a in any_set()) {
        let runs: Vec<_> = set_of(&a).runs().map(|(s, l)| (s.get(), l)).collect();
        let covered: BTreeSet<usize> = runs.iter().flat_map(|&(s, l)| s..s + l).collect();
        prop_assert_eq!(covered, a);
        for pair in runs.windows(2) {
            prop_assert!(pair[0].0 + pair[0].1 < pair[1].0);
        }
    }

    #[test]
    fn a_range_is_cut_at_the_end_of_the_block(from in 0..512usize, len in 0..1200usize) {
        let expected: BTreeSet<usize> = (from..(from + len).min(512)).collect();
        prop_assert_eq!(numbers_of(&Bitmap512::from_range(page(from), len)), expected);
    }

    #[test]
    fn single_bits_change_alone(a in any_set(), at in 0..512usize, value: bool) {
        let mut model = a.clone();
        let mut set = set_of(&a);
        set.assign(page(at), value);
        if value { model.insert(at); } else { model.remove(&at); }
        prop_assert_eq!(set.get(page(at)), value);
        prop_assert_eq!(numbers_of(&set), model);
    }
}

#[test]
fn full_and_empty_have_the_runs_that_they_should() {
    assert_eq!(Bitmap512::FULL.runs().collect::<Vec<_>>(), [(page(0), 512)]);
    assert_eq!(Bitmap512::EMPTY.runs().count(), 0);
    assert!(Bitmap512::FULL.is_full() && Bitmap512::EMPTY.is_empty());
}
