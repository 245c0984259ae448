//! How the memory is shared between resident pages and the pool.
//!
//! A page of memory given to the pool keeps several pages from the device; taken from it, it keeps one page from the pool.
//! Which is worth more depends on the program, on how its pages compress and on the device, so it is measured: how often a
//! page in the pool and one on the device is asked for, and what each costs.

use parking_lot::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use vswap_engine::{AGES, SEGMENT_BYTES};

/// A segment's memory in the pool, pages.
const SEGMENT_PAGES: u64 = SEGMENT_BYTES as u64 / 4096;

/// Percent of the memory that the pool may take: at first, at least, at most.
const PERCENT: (u64, u64, u64) = (60, 5, 85);
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
    /// Memory for residents and pool together, pages.
    pub memory: u64,
    /// Reads of the device by age, as [`EngineStats::reads_by_age`](vswap_engine::EngineStats) has them.
    pub reads: [u64; AGES],
    /// Segments written, and the pages in them.
    pub written: (u64, u64),
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

    /// The most percent of the memory that the pool may ever take.
    pub fn most_percent(&self) -> u64 {
        PERCENT.2
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
        let reads = std::array::from_fn(|age| sample.reads[age].saturating_sub(last.reads[age]));
        *last = *sample;
        let next = next(self.percent(), &Sample { faults, soon, reads, ..*sample });
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
    // A page more for the pool would keep several from the device, and make their faults cheaper.
    let ratio = sample.pages.0 as f64 / sample.pool.max(1) as f64;
    let to_pool = ratio * from_device(sample, often) * (device - sample.cost.0).max(0.0);
    if to_pool > CLEARLY * to_residents {
        // More than a bit beyond what it has would be of no use to it, and only have to be taken back later, step by step.
        let has = 100 * sample.pool / sample.memory.max(1);
        if percent <= has + 2 * STEP { (percent + STEP).min(PERCENT.2) } else { percent }
    } else if to_residents > CLEARLY * to_pool {
        percent.saturating_sub(STEP).max(PERCENT.1)
    } else {
        percent
    }
}

/// How often each page is asked for that the pool would still have if it were larger: of what was written to the device last, half as
/// much as there is in the pool. Pages of it that have come back count as well: while a program reads all of it once, the few that
/// are left would each seem to be wanted all the time.
fn from_device(sample: &Sample, often: impl Fn(u64, u64) -> f64) -> f64 {
    let (segments, pages) = sample.written;
    let ages = (sample.pool / (2 * SEGMENT_PAGES)).max(2).ilog2();
    let window = 1 << ages;
    if segments < window {
        // Nothing to tell from: those that would go there next are the coldest of those that have been in the pool for long, and are
        // asked for a quarter as often as all of these, perhaps.
        let old = sample.pages.0.saturating_sub(sample.lately).max(sample.pages.0 / 2);
        return often(sample.faults.0.saturating_sub(sample.soon.0), old) / 4.0;
    }
    let reads = sample.reads.iter().take(ages as usize).sum();
    // Ages 0 to 2^ages - 2: see `EngineStats::reads_by_age`.
    often(reads, (pages * (window - 1)).div_ceil(segments))
}

#[cfg(test)]
mod tests {
    use super::{AGES, PERCENT, Sample, Share};

    /// What a pool of 64 MiB holds 4 : 1, in 107 MiB of memory.
    fn sample() -> Sample {
        Sample {
            pages: (64_000, 0),
            lately: 5_000,
            pool: 16_384,
            memory: 27_306,
            cost: (8.0, 80.0),
            ..Default::default()
        }
    }

    /// A hundred whiles of the same faults of pages in the pool, so many percent of them of the pages that went last, and so many
    /// reads of what was written last and of what was written long ago.
    fn live(mut sample: Sample, faults: u64, soon: u64, reads: (u64, u64)) -> u64 {
        let share = Share::default();
        for _ in 0..100 {
            sample.faults.0 += faults;
            sample.faults.1 += reads.0 + reads.1;
            sample.soon.0 = sample.faults.0 * soon / 100;
            sample.reads[0] += reads.0;
            sample.reads[AGES - 1] += reads.1;
            // It takes what it is given, and no more.
            sample.pool = sample.memory * share.percent() / 100;
            sample.pages.0 = 4 * sample.pool;
            share.learn(&sample);
        }
        share.percent()
    }

    const WRITTEN: (u64, u64) = (100, 200_000);

    #[test]
    fn the_pool_grows_while_the_device_is_asked_for_what_left_the_pool_last() {
        assert_eq!(live(Sample { written: WRITTEN, ..sample() }, 500, 10, (300, 0)), PERCENT.2);
    }

    #[test]
    fn the_pool_shrinks_while_pages_come_back_from_it_at_once_and_the_device_is_quiet() {
        assert_eq!(live(Sample { written: WRITTEN, ..sample() }, 4_000, 10, (5, 0)), PERCENT.1);
    }

    /// A larger pool would not have kept them.
    #[test]
    fn what_was_written_long_ago_does_not_make_the_pool_grow() {
        assert_eq!(live(Sample { written: WRITTEN, ..sample() }, 4_000, 10, (0, 300)), PERCENT.1);
    }

    /// `sort` read nearly all back that had been written, and what was left seemed to be asked for a hundred times as often as
    /// anything in memory: the pool's share went to its most.
    #[test]
    fn a_few_pages_left_on_the_device_do_not_count_for_more_because_they_are_few() {
        let left = Sample { written: WRITTEN, pages: (64_000, 300), ..sample() };
        assert_eq!(live(left, 4_000, 50, (20, 0)), PERCENT.1);
    }

    #[test]
    fn what_the_pool_holds_is_not_sent_to_an_empty_device() {
        assert!(live(sample(), 1_000, 10, (0, 0)) >= PERCENT.0);
    }

    /// `sort` in half of what it needs: three quarters of the faults were of pages that had just gone, and the pool was full of
    /// what had been read long before; nothing was sent to the device, and the program took six times as long as with a swap file.
    #[test]
    fn what_is_in_the_pool_for_long_and_not_asked_for_goes_to_the_device() {
        assert_eq!(live(sample(), 1_000, 90, (0, 0)), PERCENT.1);
    }

    /// Else it would have to shrink by what it never had, step by step, before it shrinks at all.
    #[test]
    fn a_share_that_the_pool_does_not_use_does_not_grow() {
        let share = Share::default();
        let mut sample = Sample { written: WRITTEN, ..sample() };
        sample.pool = sample.memory / 2;
        for _ in 0..100 {
            sample.reads[0] += 300;
            sample.faults.1 += 300;
            share.learn(&sample);
        }
        assert_eq!(share.percent(), PERCENT.0);
    }

    #[test]
    fn without_news_nothing_changes() {
        assert_eq!(live(Sample { written: WRITTEN, ..sample() }, 1, 0, (1, 0)), PERCENT.0);
    }
}
