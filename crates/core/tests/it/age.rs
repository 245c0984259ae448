//! Generations against a list of pages that remembers everything.
use proptest::prelude::*;
use vswap_core::age::{Verdict, judge};
use vswap_core::slot::SlotWord;
use vswap_core::{Age, Backing, Generations, PoolHandle};

proptest! {
    #![proptest_config(crate::cases(300))]

    #[test]
    fn a_stamp_never_lies_about_its_age(acts in prop::collection::vec((0..10u8, any::<prop::sample::Index>()), 0..400)) {
        let generations = Generations::default();
        // Each page's stamp, and how many advances it has seen.
        let mut pages: Vec<(Age, usize)> = Vec::new();
        for (act, pick) in acts {
            match act {
                0..5 => {
                    let age = generations.now();
                    generations.came(age);
                    pages.push((age, 0));
                }
                5..8 => {
                    let before = generations.now();
                    generations.advance();
                    if generations.now() != before {
                        pages.iter_mut().for_each(|page| page.1 += 1);
                    }
                }
                _ if pages.is_empty() => {}
                8 => generations.left(pages.swap_remove(pick.index(pages.len())).0),
                _ => {
                    let at = pick.index(pages.len());
                    let now = generations.now();
                    generations.stamped(pages[at].0, now);
                    pages[at] = (now, 0);
                }
            }
        }
        let now = generations.now();
        for (age, advances) in &pages {
            prop_assert_eq!(age.generations_before(now), *advances);
        }
        prop_assert_eq!(generations.total(), pages.len() as u64);
        for want in [1, 5, 50] {
            let threshold = generations.threshold(want);
            let older = |least: usize| pages.iter().filter(|page| page.1 >= least).count() as u64;
            prop_assert!(threshold == 0 || older(threshold) >= want);
            prop_assert!(threshold == Age::COUNT - 1 || older(threshold + 1) < want);
        }
    }
}

#[test]
fn the_hand_takes_the_old_spares_the_used_and_leaves_the_rest() {
    let (old, now) = (Age::of_generation(3), Age::of_generation(10));
    let word = SlotWord::new(Backing::Pool(PoolHandle::new(1, 2, 3).unwrap()), old);
    assert_eq!(judge(word, now, 7), Verdict::Take);
    assert_eq!(judge(word, now, 8), Verdict::Leave);
    assert_eq!(judge(word.with_accessed(), now, 7), Verdict::SecondChance);
    assert_eq!(judge(SlotWord::EMPTY, now, 0), Verdict::Leave);
    assert_eq!(judge(SlotWord::new(Backing::Poisoned, old), now, 0), Verdict::Leave);
}
