//! Whether what a program reads on through comes in like any other page, or passes by.
//!
//! A scan of more than fits would push out everything else, and be gone itself before it is read again. So what comes because a
//! program reads on *passes by*: it goes again before anything that was there, and only one block in [`ONE_IN`] is kept. That is the bimodal
//! insertion of Qureshi et al. (*Adaptive insertion policies for high performance caching*, ISCA 2007): of a loop over more than the memory much of what
//! fits stays. But where what was there is dead, the pages that are read on through must push it out. Nobody tells when a resident page is used; what tells is
//! which come back, and how soon: of those that passed by, or of those of the others that had to go. While it is clearly more of the first, what is read on through is
//! kept too. (The cited paper lets two groups of cache sets compete; here the two kinds of pages do.)

use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// One in so many blocks is kept in each term.
pub const ONE_IN: u64 = 32;

/// Pages of each kind that must have gone of late before anything is said of them.
const LEAST: u64 = 16;

/// What a page is worth that came back soon; one that came back late is worth 1.
const SOON: u64 = 4;

/// Terms after which as good as nothing is known any more.
const FORGOTTEN: u64 = 256;

/// Pages of the two kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// That were passing by.
    pub passing: u64,
    /// The others.
    pub kept: u64,
}

/// What of late went and came back.
#[derive(Debug, Default)]
pub struct Insertion {
    term: AtomicU64,
    went: [AtomicU64; 2],
    back: [AtomicU64; 2],
}

impl Insertion {
    /// These pages went, in term `now`.
    pub fn went(&self, pages: Kinds, now: u64) {
        self.settle(now);
        add(&self.went, pages, 1);
    }

    /// These have come back, in term `now`: some of them soon after they went.
    pub fn came_back(&self, soon: Kinds, late: Kinds, now: u64) {
        self.settle(now);
        add(&self.back, soon, SOON);
        add(&self.back, late, 1);
    }

    /// Whether what a program reads on through in `block` (any number that tells it from others) comes in like any other page in term `now`.
    pub fn keeps(&self, block: u64, now: u64) -> bool {
        let [passing, kept] =
            [0, 1].map(|kind| (self.went[kind].load(Relaxed), self.back[kind].load(Relaxed)));
        let known = passing.0 >= LEAST && kept.0 >= LEAST;
        // What the passing pages are worth each, and what the others are.
        let product = |one: u64, other: u64| u128::from(one) * u128::from(other);
        let worth_it = product(passing.1, 4) > u128::from(passing.0)
            && product(passing.1, kept.0) > 2 * product(kept.1, passing.0);
        known && worth_it || mix(block, now).is_multiple_of(ONE_IN)
    }

    /// A sixteenth of what is known is forgotten with each term: pages of a long loop come back many terms later.
    fn settle(&self, now: u64) {
        let term = self.term.load(Relaxed);
        // Whoever sets the term forgets; a count that comes at the same time may be cut or not, and nothing else hangs on it: relaxed.
        if term < now && self.term.compare_exchange(term, now, Relaxed, Relaxed).is_ok() {
            for count in self.went.iter().chain(&self.back) {
                let was = count.load(Relaxed);
                let left = (0..(now - term).min(FORGOTTEN)).fold(was, |left, _| left - left.div_ceil(16));
                // Two that settle one term after the other may both have read the same: never below zero.
                let _ = count.fetch_update(Relaxed, Relaxed, |count| Some(count.saturating_sub(was - left)));
            }
        }
    }
}

fn add(to: &[AtomicU64; 2], pages: Kinds, worth: u64) {
    for (count, pages) in to.iter().zip([pages.passing, pages.kept]) {
        if pages > 0 {
            count.fetch_add(pages * worth, Relaxed);
        }
    }
}

/// Spreads blocks and terms evenly (the finaliser of splitmix64).
fn mix(block: u64, now: u64) -> u64 {
    let x = block ^ now.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::{Insertion, Kinds, ONE_IN};

    const BLOCKS: u64 = ONE_IN * 20;

    fn kept_of(insertion: &Insertion, now: u64) -> usize {
        (0..BLOCKS).filter(|block| insertion.keeps(*block, now)).count()
    }

    fn passing(passing: u64) -> Kinds {
        Kinds { passing, kept: 0 }
    }

    fn kept(kept: u64) -> Kinds {
        Kinds { passing: 0, kept }
    }

    #[test]
    fn a_few_blocks_are_kept_and_others_in_each_term() {
        let insertion = Insertion::default();
        for now in 0..3 {
            assert!((8..36).contains(&kept_of(&insertion, now)), "{}", kept_of(&insertion, now));
        }
        assert!((0..BLOCKS).any(|block| insertion.keeps(block, 0) != insertion.keeps(block, 1)));
    }

    #[test]
    fn all_are_kept_while_what_passed_by_comes_back_and_what_had_to_go_does_not() {
        let insertion = Insertion::default();
        insertion.went(passing(1000), 1);
        insertion.went(kept(40), 1);
        assert!(kept_of(&insertion, 1) < 40, "nothing has come back");
        insertion.came_back(Kinds::default(), passing(500), 1);
        assert_eq!(kept_of(&insertion, 1), BLOCKS as usize);
        // The others come back as often.
        insertion.came_back(Kinds::default(), kept(20), 1);
        assert!(kept_of(&insertion, 1) < 40);
        // Not as soon, though.
        insertion.came_back(passing(500), Kinds::default(), 1);
        assert_eq!(kept_of(&insertion, 1), BLOCKS as usize);
    }

    #[test]
    fn what_is_known_is_forgotten_by_and_by_and_of_too_few_nothing_is_said() {
        let insertion = Insertion::default();
        insertion.went(passing(1000), 1);
        insertion.went(kept(32), 1);
        insertion.came_back(passing(1000), Kinds::default(), 1);
        insertion.went(Kinds::default(), 8);
        assert_eq!(kept_of(&insertion, 8), BLOCKS as usize);
        insertion.went(Kinds::default(), 14);
        assert!(kept_of(&insertion, 14) < 40, "less than 16 of the others have gone");
        insertion.went(Kinds::default(), 10_000);
        insertion.went(Kinds::default(), 7);
    }
}
