//! The core's policy on so many slots: words, clusters' states, generations and the clock hand, without bytes, locks or a clock.
//!
//! One step: a page chosen at random is used. If its slot is empty or on a tier it comes to the pool, else it is marked (three times of
//! four) or stored anew; its cluster's state is looked at. Then the hand looks at one slot, and takes it if it is among the coldest, so that about
//! half of all are in the pool. The peer is as much memory touched in the same order by nothing else: one random word changed by
//! compare-and-swap, one random word of the clusters read, one word in order read. What the step takes beyond it is the policy's own.
use crate::common::{Chance, Failure, quantile};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vswap_core::age::{Verdict, judge};
use vswap_core::{
    Backing, ClusterState, Generations, PAGES_PER_CLUSTER, PoolHandle, SegmentAddr, SlotCell, SlotWord,
};
use vswap_sys::atomics::AtomicArray;

const ROUNDS: u32 = 5;
/// Steps between two looks at the time, and at how many should go.
const BATCH: u64 = 4096;

struct Simulation {
    words: AtomicArray,
    clusters: AtomicArray,
    generations: Generations,
    slots: usize,
    hand: usize,
    chance: Chance,
}

impl Simulation {
    fn new(slots: usize) -> Result<Self, Failure> {
        let words = AtomicArray::new(slots)?;
        let clusters = AtomicArray::new(slots.div_ceil(PAGES_PER_CLUSTER))?;
        words.ask_for_huge_pages();
        clusters.ask_for_huge_pages();
        let generations = Generations::default();
        for (at, word) in words.words()[..slots].iter().enumerate() {
            let now = generations.now();
            let backing = if at % 2 == 0 {
                generations.came(now);
                Backing::Pool(handle(at))
            } else {
                Backing::Segment(address(at))
            };
            let _ = SlotCell::new(word).update(|_| Some(SlotWord::new(backing, now)));
        }
        // Relaxed: there is one thread.
        let direct = ClusterState::direct().to_word();
        clusters.words().iter().for_each(|word| word.store(direct, Ordering::Relaxed));
        Ok(Self { words, clusters, generations, slots, hand: 0, chance: Chance::new(5) })
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.words.words()[at]
    }

    fn step(&mut self, threshold: usize) {
        let random = self.chance.next();
        let at = (((random >> 32) * self.slots as u64) >> 32) as usize;
        let state =
            ClusterState::from_word(self.clusters.words()[at / PAGES_PER_CLUSTER].load(Ordering::Acquire));
        let cell = SlotCell::new(self.word(at));
        let seen = cell.load();
        if state.is_sole_direct() && (!seen.is_pool() || random & 3 == 0) {
            let age = self.generations.now();
            self.generations.came(age);
            let stored = Backing::Pool(handle(at));
            if cell.update(|word| Some(word.with_backing(stored, age))).is_ok_and(SlotWord::is_pool) {
                self.generations.left(seen.age());
            }
        } else {
            cell.mark_accessed(seen);
        }
        self.turn(threshold);
    }

    /// The hand goes on by one.
    fn turn(&mut self, threshold: usize) {
        let at = self.hand;
        self.hand = if at + 1 == self.slots { 0 } else { at + 1 };
        let now = self.generations.now();
        let cell = SlotCell::new(self.word(at));
        let seen = cell.load();
        match judge(seen, now, threshold) {
            Verdict::Leave => {}
            Verdict::SecondChance => {
                if cell.compare_exchange(seen, seen.with_age(now)).is_ok() {
                    self.generations.stamped(seen.age(), now);
                }
            }
            Verdict::Take => {
                if cell.compare_exchange(seen, seen.moved_to(Backing::Segment(address(at)))).is_ok() {
                    self.generations.left(seen.age());
                }
            }
        }
    }

    fn bare(&mut self) -> u64 {
        let random = self.chance.next();
        let at = (((random >> 32) * self.slots as u64) >> 32) as usize;
        let state = self.clusters.words()[at / PAGES_PER_CLUSTER].load(Ordering::Acquire);
        let word = self.word(at);
        let seen = word.load(Ordering::Acquire);
        // The mark's bit as it is: the words stay what they are.
        let _ = word.compare_exchange(seen, seen, Ordering::AcqRel, Ordering::Acquire);
        let at = self.hand;
        self.hand = if at + 1 == self.slots { 0 } else { at + 1 };
        state ^ self.word(at).load(Ordering::Acquire)
    }

    fn policy(&mut self, time: Duration) -> f64 {
        let (began, mut done) = (Instant::now(), 0);
        while began.elapsed() < time {
            let total = self.generations.total();
            // Beyond half of all, the coldest go.
            let over = total.saturating_sub(self.slots as u64 / 2);
            let threshold = if over == 0 { usize::MAX } else { self.generations.threshold(over) };
            (0..BATCH).for_each(|_| self.step(threshold));
            done += BATCH;
        }
        began.elapsed().as_secs_f64() * 1e9 / done as f64
    }

    fn peer(&mut self, time: Duration) -> f64 {
        let (began, mut done) = (Instant::now(), 0);
        while began.elapsed() < time {
            black_box((0..BATCH).fold(0, |sum, _| sum ^ self.bare()));
            done += BATCH;
        }
        began.elapsed().as_secs_f64() * 1e9 / done as f64
    }
}

/// Some handle; nothing is there.
fn handle(at: usize) -> PoolHandle {
    PoolHandle::new(3, at >> 10 & 0xffff, at & 0x3ff).expect("small parts fit a handle")
}

fn address(at: usize) -> SegmentAddr {
    SegmentAddr::new(at as u64).expect("a slot's number is below 2^48")
}

pub fn run(slots: usize, seconds: f64) -> Result<(), Failure> {
    if slots == 0 || slots > 1 << 32 {
        return Err("between 1 and 2^32 slots".into());
    }
    let mut simulation = Simulation::new(slots)?;
    let time = Duration::from_secs_f64(seconds / f64::from(ROUNDS) / 2.0);
    let (mut policy, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        peer.push((simulation.peer(time) * 1e3) as u64);
        policy.push((simulation.policy(time) * 1e3) as u64);
    }
    let median = |all: &mut Vec<u64>| {
        all.sort_unstable();
        quantile(all, 0.5) as f64 / 1e3
    };
    let (policy, peer) = (median(&mut policy), median(&mut peer));
    println!(
        "{{\"part\":\"scale\",\"slots\":{slots},\"ns\":{policy:.2},\"memory_ns\":{peer:.2},\"own_ns\":{:.2},\"pooled\":{:.4}}}",
        policy - peer,
        simulation.generations.total() as f64 / slots as f64
    );
    Ok(())
}
