//! Promotion: which pages that are read from a tier leave it for the pool, and how many.
//!
//! A page that comes back alone from a tier and is let go of there is compressed into the pool when it is moved out next, and from the pool it goes, if
//! it is cold by then, to the fastest tier. That pays for what is asked for again soon, and, if the pool has room, for everything. Without
//! room each promotion drives another page out, and what was read is written again: so those have a budget, a part of what is read. Under
//! a load that misses all the time at most that part of the reads makes writes; what is beyond the budget stays where it is, clean, and costs nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Pages that must be read from tiers, one at a time, for each that is promoted without room in the pool.
const PRICE: u64 = 2;

/// The most that can be saved up, in reads: after a quiet while the first may all be promoted.
const SAVINGS: u64 = 4096;

/// The budget of promotions, in reads that were not spent yet.
#[derive(Debug)]
pub(crate) struct Promotions(AtomicU64);

impl Default for Promotions {
    fn default() -> Self {
        Self(AtomicU64::new(SAVINGS))
    }
}

impl Promotions {
    /// A page was read from a tier, alone.
    pub(crate) fn earn(&self) {
        // Relaxed: a pace, nothing more.
        let _ = self.0.fetch_update(Relaxed, Relaxed, |saved| (saved < SAVINGS).then_some(saved + 1));
    }

    /// Whether one more page may be promoted; spends what that costs.
    pub(crate) fn spend(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |saved| saved.checked_sub(PRICE)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_misses_all_the_time_promotes_no_more_than_its_part() {
        let promotions = Promotions::default();
        let reads = 100_000;
        let promoted = (0..reads).filter(|_| {
            promotions.earn();
            promotions.spend()
        });
        let promoted = promoted.count() as u64;
        assert!(promoted >= reads / PRICE && promoted <= (reads + SAVINGS) / PRICE, "{promoted}");
    }

    #[test]
    fn what_is_saved_up_has_an_end() {
        let promotions = Promotions::default();
        (0..10 * SAVINGS).for_each(|_| promotions.earn());
        let at_once = std::iter::from_fn(|| promotions.spend().then_some(())).count() as u64;
        assert_eq!(at_once, SAVINGS / PRICE);
    }
}
