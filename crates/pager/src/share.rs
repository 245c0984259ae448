//! How the memory is shared between resident pages and the pool.
//!
//! A page of memory given to the pool keeps several pages from the device; taken from it, it keeps one page from the pool.
//! Which is worth more depends on the program, on how its pages compress and on the device, so it is measured: how often a
//! page in the pool and one on the device is asked for, and what each costs.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Percent of the memory that the pool may take: at first, at least, at most.
const PERCENT: (u64, u64, u64) = (60, 20, 85);
/// Percent by which the share changes at a time.
const STEP: u64 = 2;
/// Faults from which something can be told.
const FAULTS: u64 = 256;
/// How much more one side must be worth, in percent.
const CLEARLY: f64 = 1.25;
/// Time to handle a fault from a segment while none has been seen, microseconds.
const DEVICE: f64 = 80.0;
/// What a fault costs beside its handling, microseconds: two switches of the processor.
const SWITCHES: f64 = 8.0;

/// What is measured. Faults are counts since the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Faults resolved from the pool and from segments.
    pub faults: (u64, u64),
    /// Pages in the pool and in segments.
    pub pages: (u64, u64),
    /// Memory of the pool in pages.
    pub pool: u64,
    /// Time to handle such a fault, microseconds; 0 if there was none.
    pub cost: (f64, f64),
}

/// The pool's share.
#[derive(Debug)]
pub struct Share {
    percent: AtomicU64,
    /// Faults when it was changed last.
    seen: (AtomicU64, AtomicU64),
}

impl Default for Share {
    fn default() -> Share {
        Share { percent: AtomicU64::new(PERCENT.0), seen: Default::default() }
    }
}

impl Share {
    /// Percent of the memory that the pool may take.
    pub fn percent(&self) -> u64 {
        self.percent.load(Relaxed)
    }

    /// Learns from what happened since the last time. For one thread.
    pub fn learn(&self, sample: &Sample) {
        let pool = sample.faults.0.saturating_sub(self.seen.0.load(Relaxed));
        let segment = sample.faults.1.saturating_sub(self.seen.1.load(Relaxed));
        if pool + segment < FAULTS {
            return;
        }
        self.seen.0.store(sample.faults.0, Relaxed);
        self.seen.1.store(sample.faults.1, Relaxed);
        let next = next(self.percent(), pool as f64, segment as f64, sample);
        self.percent.store(next, Relaxed);
    }
}

fn next(percent: u64, pool: f64, segment: f64, sample: &Sample) -> u64 {
    let often = |faults: f64, pages: u64| faults / pages.max(1) as f64;
    let ratio = sample.pages.0 as f64 / sample.pool.max(1) as f64;
    let device = if sample.cost.1 > 0.0 { sample.cost.1 } else { DEVICE };
    let dearer = (device - sample.cost.0).max(0.0);
    let from_pool = often(pool, sample.pages.0);
    let from_segments = often(segment, sample.pages.1);
    let to_residents = from_pool * (sample.cost.0 + SWITCHES);
    // Too few to tell: those that would go there next are asked for half as often as the others, perhaps.
    let few = sample.pages.1 < sample.pages.0 / 8;
    let from_segments = if few { from_segments.max(from_pool / 2.0) } else { from_segments };
    let to_pool = ratio * from_segments * dearer;
    if to_pool > CLEARLY * to_residents {
        (percent + STEP).min(PERCENT.2)
    } else if to_residents > CLEARLY * to_pool {
        percent.saturating_sub(STEP).max(PERCENT.1)
    } else {
        percent
    }
}

#[cfg(test)]
mod tests {
    use super::{PERCENT, Sample, Share};

    fn live(faults_from_pool: u64, faults_from_segments: u64, pool: u64) -> u64 {
        let share = Share::default();
        let mut sample = Sample { faults: (0, 0), pages: (10_000, 10_000), pool, cost: (8.0, 80.0) };
        for _ in 0..100 {
            sample.faults.0 += faults_from_pool;
            sample.faults.1 += faults_from_segments;
            share.learn(&sample);
        }
        share.percent()
    }

    #[test]
    fn the_pool_grows_while_the_device_is_asked_often_and_pages_compress() {
        assert_eq!(live(500, 500, 2_500), PERCENT.2);
        assert_eq!(live(4_000, 100, 2_500), PERCENT.1);
        assert_eq!(live(40_000, 500, 2_500), PERCENT.1);
    }

    #[test]
    fn what_the_pool_holds_is_not_sent_to_an_empty_device() {
        let share = Share::default();
        let mut sample = Sample { faults: (0, 0), pages: (10_000, 0), pool: 2_500, cost: (8.0, 0.0) };
        for _ in 0..100 {
            sample.faults.0 += 1000;
            share.learn(&sample);
        }
        assert!(share.percent() >= PERCENT.0);
    }

    #[test]
    fn without_news_nothing_changes() {
        assert_eq!(live(1, 1, 2_500), PERCENT.0);
    }
}
