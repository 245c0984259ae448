//! What the pager counts. Counters are relaxed: each is right by itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Kinds of faults told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum FaultKind {
    /// A page touched for the first time.
    First,
    /// A page taken back from staging.
    Second,
    /// A page from a fill pattern.
    Fill,
    /// A page from the pool.
    Pool,
    /// A page from a segment.
    Segment,
    /// The first write to a clean page.
    Write,
}

/// Number of [`FaultKind`]s.
pub const KINDS: usize = 6;
/// Names of the kinds, in order.
pub const KIND_NAMES: [&str; KINDS] =
    ["first touch", "second chance", "fill", "pool", "segment", "first write"];

const BUCKETS: usize = 128;

/// A histogram of durations: eight buckets for each doubling of nanoseconds, from 256 ns.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl Histogram {
    /// Adds one.
    pub fn add(&self, time: Duration) {
        let ns = (time.as_nanos() as u64).max(256);
        let log = 63 - ns.leading_zeros() as usize;
        let eighth = (ns >> (log - 3) & 7) as usize;
        self.buckets[((log - 8) * 8 + eighth).min(BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// The upper edge of the bucket that holds the `per_mille`-th thousandth.
    pub fn quantile(&self, per_mille: u64) -> Duration {
        let target = (self.count() * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if seen >= target {
                let log = at / 8 + 8;
                return Duration::from_nanos((1 << log) + ((at % 8 + 1) as u64) * (1 << (log - 3)));
            }
        }
        Duration::ZERO
    }
}

/// Counters of a pager.
#[derive(Debug, Default)]
pub struct Counters {
    /// Time from reading a fault to having resolved it.
    pub faults: [Histogram; KINDS],
    /// Faults of pages that had gone a short while before: from the pool, from segments.
    pub soon: [AtomicU64; 2],
    /// Pages that came back after they had been moved out, asked for or not.
    pub refaulted: AtomicU64,
    /// Pages read from a tier that were let go of there, to come to the pool next.
    pub promoted: AtomicU64,
    /// Pages brought in with another's fault.
    pub read_ahead: AtomicU64,
    /// Pages given zeroes with another's fault.
    pub zero_ahead: AtomicU64,
    /// Pages moved out.
    pub evicted: AtomicU64,
    /// Of those, clean ones that needed no store.
    pub evicted_clean: AtomicU64,
    /// Pages that were granted.
    pub granted: AtomicU64,
    /// Pages that were found stored already, by another owner since a fork.
    pub adopted: AtomicU64,
    /// Pages that could not be moved.
    pub stuck: AtomicU64,
    /// Faults that waited for room.
    pub waited: AtomicU64,
    /// Time that faults waited for room or a device, nanoseconds.
    pub stalled_ns: AtomicU64,
    /// Time that programs waited for pages that had been moved out, and for room, nanoseconds.
    pub delayed_ns: AtomicU64,
    /// Proactive reclaim.
    pub reclaim: ReclaimCounters,
    /// What this comes to of late, millionths of the time.
    pub pressure: AtomicU64,
    /// Faults that found their page there.
    pub spurious: AtomicU64,
    /// Pages made unreadable because their bytes were lost.
    pub poisoned: AtomicU64,
}

/// What proactive reclaim did.
#[derive(Debug, Default)]
pub struct ReclaimCounters {
    /// What [`Counters::delayed_ns`] comes to of late, millionths of the time.
    pub pressure: AtomicU64,
    /// Pages that it looked at.
    pub looked: AtomicU64,
    /// Pages that it moved out.
    pub pages: AtomicU64,
    /// Pages that it had written from the pool to a tier.
    pub written: AtomicU64,
}

/// A kind of fault in numbers.
#[derive(Clone, Debug)]
pub struct FaultStats {
    /// What kind.
    pub name: &'static str,
    /// How many.
    pub count: u64,
    /// Median time in the handler.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
}

/// A pager in numbers.
#[derive(Clone, Debug)]
pub struct PagerStats {
    /// The limit, bytes.
    pub limit: u64,
    /// What counts now, bytes.
    pub used: u64,
    /// The most that counted, bytes.
    pub peak: u64,
    /// Managed pages resident or staged now, bytes.
    pub resident: u64,
    /// Bytes that the pool may have as things stand.
    pub pool_share: u64,
    /// Faults by kind.
    pub faults: Vec<FaultStats>,
    /// Pages moved out.
    pub evicted: u64,
    /// Of those, clean ones.
    pub evicted_clean: u64,
    /// Pages brought in with another's fault.
    pub read_ahead: u64,
    /// Pages given zeroes with another's fault.
    pub zero_ahead: u64,
    /// Pages staged now.
    pub staged: u64,
    /// Pages that were granted.
    pub granted: u64,
    /// Evicted pages that another owner since a fork had stored already.
    pub adopted: u64,
    /// Pages that came back after they had been moved out, with another's fault too: `workingset_refault_anon` of the kernel's
    /// `memory.stat`.
    pub refaulted: u64,
    /// Of these, pages asked for so soon that they are protected: `workingset_activate_anon`.
    pub activated: u64,
    /// Pages read from a tier that were let go of there, to come to the pool when they are moved out next.
    pub promoted: u64,
    /// Page moves that failed.
    pub stuck: u64,
    /// Faults that waited for room.
    pub waited: u64,
    /// Time that faults waited for room or a device, all together.
    pub stalled: Duration,
    /// Its share of the time, averaged over ten seconds (`some avg10` of the kernel's `memory.pressure`), millionths.
    pub pressure: u64,
    /// Pages made unreadable.
    pub poisoned: u64,
    /// Proactive reclaim: the share of time that it may cost, millionths; 0 if it is off.
    pub reclaim_target: u64,
    /// The share of the last ten seconds in which programs waited for pages that had been moved out, or for room, millionths.
    pub reclaim_pressure: u64,
    /// Pages that it looked at.
    pub reclaim_looked: u64,
    /// Pages that it moved out.
    pub reclaimed: u64,
    /// Pages that it had written from the pool to a tier.
    pub reclaim_written: u64,
    /// Whether the limit had to be exceeded.
    pub grown: bool,
}

impl Counters {
    /// Counts a fault.
    pub fn fault(&self, kind: FaultKind, time: Duration) {
        self.faults[kind as usize].add(time);
    }

    /// A fault waited for room or a device.
    pub fn stall(&self, time: Duration) {
        self.stalled_ns.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// A program waited for a page that had been moved out, or for room.
    pub fn delay(&self, time: Duration) {
        self.delayed_ns.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// All such waits.
    pub fn stalled(&self) -> Duration {
        Duration::from_nanos(self.stalled_ns.load(Relaxed))
    }

    /// The faults in numbers.
    pub fn fault_stats(&self) -> Vec<FaultStats> {
        let row = |(name, histogram): (&'static str, &Histogram)| FaultStats {
            name,
            count: histogram.count(),
            p50: histogram.quantile(500),
            p99: histogram.quantile(990),
        };
        KIND_NAMES.into_iter().zip(&self.faults).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_at_most_an_eighth_above_the_value() {
        let histogram = Histogram::default();
        for us in 1..=1000 {
            histogram.add(Duration::from_micros(us));
        }
        let p50 = histogram.quantile(500).as_nanos() as f64;
        assert!((500_000.0..=500_000.0 * 1.126).contains(&p50), "{p50}");
        let p99 = histogram.quantile(990).as_nanos() as f64;
        assert!((990_000.0..=990_000.0 * 1.126).contains(&p99), "{p99}");
    }
}
