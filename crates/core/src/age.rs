//! Ages: which pages are cold. Generations, as in the kernel's multi-generational LRU, with a clock hand.
//!
//! A page that comes to the pool is stamped with the present generation. The generation advances as pages
//! come, and never onto a stamp that pages of 16 generations ago still bear, so stamps (modulo 16) never lie:
//! the youngest generation just grows until the oldest is gone. The population of every generation is
//! counted, so the hand knows, before it looks at any slot, how old a page must be to be among the coldest so
//! many. A page that was loaded since the hand last passed gets a second chance. Nothing per page exists but
//! the four bits and the mark in its slot word.

use crate::slot::{Age, SlotWord};
use crate::sync::{AtomicU64, Ordering};

/// The present generation and how many pages each one has. The numbers steer choices and order nothing, so
/// all are relaxed.
#[derive(Debug, Default)]
pub struct Generations {
    now: AtomicU64,
    /// Pages that came since the last advance.
    since: AtomicU64,
    population: [AtomicU64; Age::COUNT],
}

impl Generations {
    /// The stamp of the present generation.
    pub fn now(&self) -> Age {
        Age::of_generation(self.now.load(Ordering::Relaxed))
    }

    /// A page of this age came into the pool; advances the generation when an eighth of all pages came since
    /// the last.
    pub fn came(&self, age: Age) {
        self.population[age.get()].fetch_add(1, Ordering::Relaxed);
        let since = self.since.fetch_add(1, Ordering::Relaxed) + 1;
        if since.is_multiple_of(256) && since >= self.total() / 8 {
            self.advance();
        }
    }

    /// A page of this age is in the pool again. It says nothing of what comes to the pool now, so the generation stays.
    pub fn came_back(&self, age: Age) {
        self.population[age.get()].fetch_add(1, Ordering::Relaxed);
    }

    /// A page of this age left the pool.
    pub fn left(&self, age: Age) {
        self.population[age.get()].fetch_sub(1, Ordering::Relaxed);
    }

    /// A page was stamped anew.
    pub fn stamped(&self, from: Age, to: Age) {
        if from != to {
            self.left(from);
            self.population[to.get()].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Pages in all generations.
    pub fn total(&self) -> u64 {
        self.population.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Pages of one age.
    pub fn population(&self, age: Age) -> u64 {
        self.population[age.get()].load(Ordering::Relaxed)
    }

    /// How many generations can follow until one's stamp is still borne by pages.
    pub fn to_come(&self) -> usize {
        let now = self.now.load(Ordering::Relaxed);
        let free = |more: &u64| self.population(Age::of_generation(now + more)) == 0;
        (1..Age::COUNT as u64).take_while(free).count()
    }

    /// Goes to the next generation unless pages still bear its stamp from 16 generations ago.
    pub fn advance(&self) {
        let now = self.now.load(Ordering::Relaxed);
        let next = now + 1;
        if self.population(Age::of_generation(next)) != 0 {
            return;
        }
        // Losing the race means that another thread advanced: just as good.
        if self.now.compare_exchange(now, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.since.store(0, Ordering::Relaxed);
        }
    }

    /// How many generations old a page must be to be among the coldest `want`: 0 (all pages) to 15.
    pub fn threshold(&self, want: u64) -> usize {
        let now = self.now();
        let mut found = 0;
        for distance in (1..Age::COUNT).rev() {
            let age = Age::of_generation((now.get() + Age::COUNT - distance) as u64);
            found += self.population(age);
            if found >= want.max(1) {
                return distance;
            }
        }
        0
    }
}

/// What the clock hand does with a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Not in the pool, on its way already, or too young.
    Leave,
    /// Loaded since the hand last passed: stamp it with the present generation.
    SecondChance,
    /// Among the coldest: write it back.
    Take,
}

/// Judges a slot for a hand that wants pages at least `threshold` generations old.
pub const fn judge(word: SlotWord, now: Age, threshold: usize) -> Verdict {
    if !word.is_pool() {
        Verdict::Leave
    } else if word.accessed() {
        Verdict::SecondChance
    } else if word.age().generations_before(now) >= threshold {
        Verdict::Take
    } else {
        Verdict::Leave
    }
}
