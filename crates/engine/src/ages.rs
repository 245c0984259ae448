//! What is cold among a class's own pages: where pages of others can go nowhere, these are older than all else, and nothing would be old beside them.
//!
//! The pages of the class are counted by their stamps once in a writeback, not for each of its segments; what is taken or stamped anew by then is counted on the way.

use crate::engine::Engine;
use std::collections::BTreeSet;
use vswap_core::{Age, ClusterId, GroupId, PageIndex, SlotCell, SlotWord};
use vswap_segment::ClassId;

/// Pages this many generations old and older are made this old if they can go nowhere, so that generations go on. That keeps them in their order, but for
/// those that were older.
const OLDEST_STUCK: usize = Age::COUNT / 2 - 1;

/// Pages of a group and a class in the pool, by their stamps.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    /// The generation in which they were counted.
    counted: Option<Age>,
    pages: [u64; Age::COUNT],
}

impl Ages {
    /// Whether they have been counted since the last generation began, the end of which gives stamps another meaning.
    pub(crate) fn are_of(&self, now: Age) -> bool {
        self.counted == Some(now)
    }

    /// A page of this age goes.
    pub(crate) fn left(&mut self, age: Age) {
        let pages = &mut self.pages[age.get()];
        *pages = pages.saturating_sub(1);
    }

    fn stamped(&mut self, from: Age, to: Age) {
        self.left(from);
        self.pages[to.get()] += 1;
    }

    /// How many generations old a page must be to be among the coldest `want`.
    pub(crate) fn threshold(&self, want: u64) -> usize {
        let now = self.counted.unwrap_or_default();
        let mut found = 0;
        let is_enough = |distance: &usize| {
            found += self.pages[before(now, *distance).get()];
            found >= want.max(1)
        };
        (1..Age::COUNT).rev().find(is_enough).unwrap_or(0)
    }
}

/// The stamp of so many generations ago.
fn before(now: Age, generations: usize) -> Age {
    Age::of_generation((now.get() + Age::COUNT - generations) as u64)
}

/// The stamp of what has not been in use for long, which leaves room for generations to come.
pub(crate) fn coldest(now: Age) -> Age {
    before(now, OLDEST_STUCK)
}

impl Engine {
    /// Counts the pages of a group and a class: a look at all their slots.
    pub(crate) fn ages_among(&self, within: GroupId, class: ClassId) -> Ages {
        let mut ages = Ages { counted: Some(self.generations.now()), ..Ages::default() };
        let own = |cluster: &ClusterId| self.is_cluster_of(*cluster, within, class);
        for cluster in (0..self.space.end()).map(ClusterId::new).filter(own) {
            let words = self.space.slots_of(cluster, PageIndex::default()).map(|(_, cell)| cell.load());
            words.filter(|word| word.is_pool()).for_each(|word| ages.pages[word.age().get()] += 1);
        }
        ages
    }

    pub(crate) fn is_cluster_of(&self, cluster: ClusterId, within: GroupId, class: ClassId) -> bool {
        self.space.state(cluster).in_use()
            && self.is_cluster_within(cluster, within)
            && self.class_of_cluster(cluster) == class
    }

    /// Pages that can go nowhere are not to keep those of others from getting old. They stay older than what comes after them: they are to go first when
    /// there is room for them.
    pub(crate) fn rejuvenate(&self, stuck: &BTreeSet<ClassId>) {
        if stuck.is_empty() || self.generations.to_come() >= Age::COUNT / 4 {
            return;
        }
        let now = self.generations.now();
        let own = |cluster: &ClusterId| {
            self.space.state(*cluster).in_use() && stuck.contains(&self.class_of_cluster(*cluster))
        };
        for cluster in (0..self.space.end()).map(ClusterId::new).filter(own) {
            for (_, cell) in self.space.slots_of(cluster, PageIndex::default()) {
                let word = cell.load();
                if word.is_pool() && word.age().generations_before(now) > OLDEST_STUCK {
                    // One that was loaded has been young since.
                    let age = if word.accessed() { now } else { before(now, OLDEST_STUCK) };
                    self.stamp(cell, word, age);
                }
            }
        }
    }

    /// Stamps a page that was loaded since the hand was there, which counts it among the others of its class.
    pub(crate) fn stamp_among(&self, ages: &mut Ages, cell: SlotCell<'_>, seen: SlotWord, now: Age) {
        if self.stamp(cell, seen, now) {
            ages.stamped(seen.age(), now);
        }
    }

    fn stamp(&self, cell: SlotCell<'_>, seen: SlotWord, age: Age) -> bool {
        let done = cell.compare_exchange(seen, seen.with_age(age)).is_ok();
        if done {
            self.generations.stamped(seen.age(), age);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted once and not again, what had gone into one segment would have been waited for with the next.
    #[test]
    fn what_has_gone_or_is_young_again_is_cold_no_more() {
        let age = |generation: u64| Age::of_generation(generation);
        let mut ages = Ages { counted: Some(age(20)), ..Ages::default() };
        ages.pages[age(8).get()] = 2;
        ages.pages[age(15).get()] = 2;
        assert_eq!([0, 1, 2, 3, 4, 5].map(|want| ages.threshold(want)), [12, 12, 12, 5, 5, 0]);
        ages.left(age(8));
        ages.stamped(age(8), age(20));
        assert_eq!([1, 2, 3].map(|want| ages.threshold(want)), [5, 5, 0]);
        assert!(ages.are_of(age(20)) && !ages.are_of(age(21)) && !Ages::default().are_of(Age::default()));
        // What came or went unseen makes no number less than none.
        (0..5).for_each(|_| ages.left(age(15)));
        assert_eq!(ages.threshold(1), 0);
    }
}
