//! Pressure: the share of time in which somebody waits for memory, as the kernel's PSI has it (`/proc/pressure/memory`, `some`,
//! `avg10`).
//!
//! Whoever waits adds the time that it has waited; whoever samples gives the sum and the time. Waits at the same time count for no
//! more than the time that has passed, so this is `some` where waits follow each other, and more than it where they overlap.

use core::time::Duration;

/// Time after which a wait counts for a third (1 / e), nanoseconds.
const WINDOW: u64 = 10_000_000_000;
/// What stands for all of the time.
const WHOLE: u64 = 1 << 32;

/// A share of time, averaged over the last ten seconds with less and less weight.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pressure {
    /// The average, of [`WHOLE`].
    average: u64,
    stalled: Duration,
    at: Duration,
}

impl Pressure {
    /// By `now`, `stalled` of waiting have been added up. Both only grow.
    ///
    /// The average decays by `1 / (1 + t / 10 s)` for a time of `t`, which is `exp(-t / 10 s)` within a 1000th for the tenths of a
    /// second between samples, and needs no table as the kernel's fixed step does.
    pub fn sample(&mut self, stalled: Duration, now: Duration) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let passed = nanos(now.saturating_sub(self.at));
        if passed == 0 {
            return;
        }
        let waited = nanos(stalled.saturating_sub(self.stalled)).min(passed);
        (self.stalled, self.at) = (stalled, now);
        let mix = u128::from(self.average) * u128::from(WINDOW) + u128::from(waited) * u128::from(WHOLE);
        self.average = (mix / (u128::from(WINDOW) + u128::from(passed))) as u64;
    }

    /// The average in millionths of the time: 10,000 are 1 %.
    pub fn millionths(&self) -> u64 {
        ((u128::from(self.average) * 1_000_000 + u128::from(WHOLE) / 2) / u128::from(WHOLE)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Pressure;
    use core::time::Duration;

    const STEP: Duration = Duration::from_millis(50);

    /// Samples for `seconds`, of which the share `waits` of a thousand is waited.
    fn live(pressure: &mut Pressure, stalled: &mut Duration, now: &mut Duration, seconds: u64, waits: u32) {
        for _ in 0..seconds * 20 {
            *now += STEP;
            *stalled += STEP * waits / 1000;
            pressure.sample(*stalled, *now);
        }
    }

    #[test]
    fn it_comes_to_the_share_that_is_waited_and_decays_by_e_in_ten_seconds() {
        let (mut pressure, mut stalled, mut now) = Default::default();
        live(&mut pressure, &mut stalled, &mut now, 100, 250);
        assert!((249_900..=250_000).contains(&pressure.millionths()), "{pressure:?}");
        live(&mut pressure, &mut stalled, &mut now, 10, 0);
        // 250,000 / e is 91,970.
        assert!((91_500..92_500).contains(&pressure.millionths()), "{}", pressure.millionths());
        live(&mut pressure, &mut stalled, &mut now, 300, 0);
        assert_eq!(pressure.millionths(), 0);
    }

    #[test]
    fn waits_of_many_at_once_are_no_more_than_all_of_the_time() {
        let (mut pressure, mut stalled, mut now) = Default::default();
        live(&mut pressure, &mut stalled, &mut now, 200, 16_000);
        assert!((999_900..=1_000_000).contains(&pressure.millionths()), "{}", pressure.millionths());
    }

    #[test]
    fn a_sample_without_time_changes_nothing() {
        let mut pressure = Pressure::default();
        pressure.sample(Duration::from_secs(1), Duration::ZERO);
        assert_eq!(pressure.millionths(), 0);
        pressure.sample(Duration::from_secs(1), Duration::from_secs(10));
        assert_eq!(pressure.millionths(), 50_000);
    }
}
