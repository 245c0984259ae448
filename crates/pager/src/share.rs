//! How the memory is shared between resident pages and the pool.
//!
//! A page of memory given to the pool keeps several pages from the device; taken from it, it keeps one page from the pool.
//! Which is worth more depends on the program, on how its pages compress and on the device, so it is measured: how often a
//! page in the pool and one on the device is asked for, and what each costs.

use parking_lot::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Percent of the memory that the pool may take: at first, at least, at most.
const PERCENT: (u64, u64, u64) = (60, 20, 85);
/// Percent by which the share changes at a time.
const STEP: u64 = 2;
/// Faults from which something can be told.
const FAULTS: u64 = 256;
/// How many times as much one side must be worth.
const CLEARLY: f64 = 1.25;
/// Time to handle a fault from a segment while none has been seen, microseconds.
const DEVICE: f64 = 80.0;
/// What a fault costs beside its handling, microseconds: two switches of the processor.
const SWITCHES: f64 = 8.0;

/// What is measured. Faults are counts since the beginning, of pages in the pool and of pages in segments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Faults.
    pub faults: (u64, u64),
    /// Of these, those of pages that had gone a short while before.
    pub soon: (u64, u64),
    /// Pages that went in that short while.
    pub lately: u64,
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
    /// What there was when it was changed last. For the one thread that learns.
    last: Mutex<Sample>,
}

impl Default for Share {
    fn default() -> Share {
        Share { percent: AtomicU64::new(PERCENT.0), last: Mutex::default() }
    }
}

impl Share {
    /// Percent of the memory that the pool may take.
    pub fn percent(&self) -> u64 {
        self.percent.load(Relaxed)
    }

    /// Learns from what happened since the last time.
    pub fn learn(&self, sample: &Sample) {
        let mut last = self.last.lock();
        let since =
            |now: (u64, u64), then: (u64, u64)| (now.0.saturating_sub(then.0), now.1.saturating_sub(then.1));
        let faults = since(sample.faults, last.faults);
        if faults.0 + faults.1 < FAULTS {
            return;
        }
        let soon = since(sample.soon, last.soon);
        *last = *sample;
        let next = next(self.percent(), &Sample { faults, soon, ..*sample });
        self.percent.store(next, Relaxed);
    }
}

/// The next share, from what happened in a while.
fn next(percent: u64, sample: &Sample) -> u64 {
    let often = |faults: u64, pages: u64| faults as f64 / pages.max(1) as f64;
    let device = if sample.cost.1 > 0.0 { sample.cost.1 } else { DEVICE };
    // Another resident page would save its part of the faults of what went last, wherever they were answered from.
    let saved =
        sample.soon.0 as f64 * (sample.cost.0 + SWITCHES) + sample.soon.1 as f64 * (device + SWITCHES);
    let to_residents = saved / sample.lately.max(1) as f64;
    // A page more for the pool would bring several from the device, and make their faults cheaper.
    let from_segments = often(sample.faults.1, sample.pages.1);
    // Too few to tell: those that would go there next are the coldest of those that have been in the pool for long, and are asked
    // for a quarter as often as all of these, perhaps.
    let few = sample.pages.1 < sample.pages.0 / 8;
    let old = sample.pages.0.saturating_sub(sample.lately).max(sample.pages.0 / 2);
    let from_old = often(sample.faults.0.saturating_sub(sample.soon.0), old);
    let from_segments = if few { from_segments.max(from_old / 4.0) } else { from_segments };
    let ratio = sample.pages.0 as f64 / sample.pool.max(1) as f64;
    let to_pool = ratio * from_segments * (device - sample.cost.0).max(0.0);
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

    /// A hundred whiles of the same faults, a tenth of them of the 1000 pages that went last.
    fn live(faults_from_pool: u64, faults_from_segments: u64, in_segments: u64) -> u64 {
        live_with_soon(faults_from_pool, faults_from_segments, in_segments, 10)
    }

    /// The same with so many percent of the faults of the pages that went last.
    fn live_with_soon(faults_from_pool: u64, faults_from_segments: u64, in_segments: u64, soon: u64) -> u64 {
        let share = Share::default();
        let mut sample = Sample {
            pages: (10_000, in_segments),
            lately: 1000,
            pool: 2_500,
            cost: (8.0, 80.0),
            ..Default::default()
        };
        for _ in 0..100 {
            sample.faults.0 += faults_from_pool;
            sample.faults.1 += faults_from_segments;
            sample.soon = (sample.faults.0 * soon / 100, sample.faults.1 * soon / 100);
            share.learn(&sample);
        }
        share.percent()
    }

    #[test]
    fn the_pool_grows_while_the_device_is_asked_often() {
        assert_eq!(live(500, 500, 10_000), PERCENT.2);
    }

    #[test]
    fn the_pool_shrinks_while_pages_come_back_from_it_at_once_and_the_device_is_quiet() {
        assert_eq!(live(4_000, 50, 10_000), PERCENT.1);
    }

    #[test]
    fn what_the_pool_holds_is_not_sent_to_an_empty_device() {
        assert!(live(1_000, 0, 0) >= PERCENT.0);
    }

    /// `sort` in half of what it needs: three quarters of the faults were of pages that had just gone, and the pool was full of
    /// what had been read long before; nothing was sent to the device, and the program took six times as long as with a swap file.
    #[test]
    fn what_is_in_the_pool_for_long_and_not_asked_for_goes_to_the_device() {
        assert_eq!(live_with_soon(1_000, 0, 0, 90), PERCENT.1);
    }

    #[test]
    fn without_news_nothing_changes() {
        assert_eq!(live(1, 1, 10_000), PERCENT.0);
    }
}
