//! Proactive reclaim: how fast memory is looked through for what can go ahead of need, paced by what that costs.
//!
//! After TMO's Senpai (Weiner et al., "TMO: Transparent Memory Offloading in Datacenters", ASPLOS 2022): as long as programs wait for
//! memory for less than a set share of the time, pages are moved out though nobody needs the room, in steps in proportion to `1 - pressure / target`;
//! at the target there are none. So the cost is what is set, and how much memory goes is what comes of it. Senpai counts
//! bytes that the kernel is to reclaim. Here it is pages that a hand passes over, since a page is spared for a number of passes
//! ([`crate::heat`]): were it bytes, a hand that finds nothing cold would go round and round until all had grown old.
//!
//! Neighbours: [`crate::pressure`] measures; whoever drives has the clock and the hand.

use core::time::Duration;

/// How the one who looks through so many pages is paced. Time and pages come in, pages to look at go out.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// All is looked through in this time, if nobody waits.
    turn: Duration,
    at: Duration,
    /// Pages to look at, by `turn` in nanoseconds; below zero after a block that was larger than what was owed.
    owed: i128,
}

impl Pace {
    /// Nothing to look at yet. All is looked through once in `turn` at the soonest.
    pub fn new(turn: Duration, now: Duration) -> Pace {
        Pace { turn, at: now, owed: 0 }
    }

    /// By `now` there are `pages`, and somebody waits for `pressure` of the time, of which `target` is thought fit (millionths): tells how
    /// many pages are to be looked at now. What was not looked at is kept, but no more than comes in a second.
    ///
    /// Whoever is at the target or beyond it owes nothing: what was left over from a better time is forgotten.
    pub fn advance(&mut self, now: Duration, pages: u64, pressure: u64, target: u64) -> u64 {
        let passed = now.saturating_sub(self.at).min(Duration::from_secs(1)).as_nanos() as i128;
        self.at = self.at.max(now);
        let room = i128::from(target.saturating_sub(pressure));
        if room == 0 {
            self.owed = self.owed.min(0);
            return 0;
        }
        let (pages, target) = (i128::from(pages), i128::from(target));
        // A page, where a second's worth is less.
        let most = (Duration::from_secs(1).as_nanos() as i128 * pages).max(self.turn());
        self.owed = (self.owed + passed * pages * room / target).min(most);
        u64::try_from(self.owed / self.turn()).unwrap_or(0)
    }

    /// `pages` were looked at, more than were owed perhaps.
    pub fn looked(&mut self, pages: u64) {
        self.owed -= i128::from(pages) * self.turn();
    }

    fn turn(&self) -> i128 {
        (self.turn.as_nanos() as i128).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;
    use crate::pressure::Pressure;
    use core::time::Duration;

    const TURN: Duration = Duration::from_secs(60);
    const TICK: Duration = Duration::from_millis(50);
    const TARGET: u64 = 5_000;

    /// Pages looked at within so many ticks, of `pages` at `pressure`.
    fn looked(pages: u64, pressure: u64, ticks: u32) -> u64 {
        let mut pace = Pace::new(TURN, Duration::ZERO);
        let mut sum = 0;
        for tick in 1..=ticks {
            let owed = pace.advance(TICK * tick, pages, pressure, TARGET);
            pace.looked(owed);
            sum += owed;
        }
        sum
    }

    #[test]
    fn without_pressure_all_is_looked_at_in_a_turn_and_at_half_the_target_half_of_it() {
        assert_eq!(looked(60_000, 0, 1200), 60_000);
        assert_eq!(looked(60_000, TARGET / 2, 1200), 30_000);
        assert_eq!(looked(60_000, TARGET / 5 * 4, 1200), 12_000);
        // Few pages come to something, too.
        assert!((6..=7).contains(&looked(7, 0, 1200)));
    }

    #[test]
    fn at_the_target_and_above_nothing_is_looked_at() {
        assert_eq!(looked(60_000, TARGET, 1200), 0);
        assert_eq!(looked(60_000, 1_000_000, 1200), 0);
        let mut off = Pace::new(TURN, Duration::ZERO);
        assert_eq!(off.advance(TURN, 60_000, 0, 0), 0, "with a target of nothing");
    }

    #[test]
    fn what_was_owed_before_somebody_waited_is_forgotten() {
        let mut pace = Pace::new(TURN, Duration::ZERO);
        assert_eq!(pace.advance(Duration::from_secs(1), 60_000, 0, TARGET), 1_000);
        assert_eq!(pace.advance(Duration::from_secs(1) + TICK, 60_000, TARGET, TARGET), 0);
        let owed = pace.advance(Duration::from_secs(1) + 2 * TICK, 60_000, 0, TARGET);
        assert_eq!(owed, 50);
    }

    #[test]
    fn a_block_that_was_larger_than_what_was_owed_is_waited_for() {
        let mut pace = Pace::new(TURN, Duration::ZERO);
        assert_eq!(pace.advance(TICK, 6_000, 0, TARGET), 5);
        pace.looked(512);
        let later = |ticks: u32| TICK * (1 + ticks);
        assert_eq!(pace.advance(later(50), 6_000, 0, TARGET), 0);
        // No more than a second counts at a time.
        for ticks in 51..160 {
            let owed = pace.advance(later(ticks), 6_000, 0, TARGET);
            assert!(ticks < 133 || owed > 0, "{ticks}");
        }
    }

    #[test]
    fn a_keeper_that_did_not_get_its_cpu_for_an_hour_does_not_make_up_for_it() {
        let mut pace = Pace::new(TURN, Duration::ZERO);
        assert_eq!(pace.advance(Duration::from_secs(3_600), 60_000, 0, TARGET), 1_000);
    }

    /// A program with `hot` pages that it touches all the time, of `all`: each of those that is taken stalls it for `cost` at once and is spared for
    /// `spared` turns then. Returns the share of time that was stalled in millionths, and how many of the others are left.
    fn live(all: u64, hot: u64, cost: Duration, spared: u64, seconds: u32) -> (u64, u64) {
        let (mut pace, mut pressure) = (Pace::new(TURN, Duration::ZERO), Pressure::default());
        let (mut cold, mut stalled, mut pending) = (all - hot, Duration::ZERO, Duration::ZERO);
        let (mut taken, mut hand) = (0, 0);
        for tick in 1..=seconds * 20 {
            let now = TICK * tick;
            // One thread waits for no more than all of the time; the rest comes later.
            let waits = pending.min(TICK);
            pending -= waits;
            stalled += waits;
            pressure.sample(stalled, now);
            let owed = pace.advance(now, cold + hot, pressure.millionths(), TARGET);
            pace.looked(owed);
            for _ in 0..owed {
                hand += 1;
                // Hot and cold ones lie among each other.
                if hand % all < hot {
                    taken += 1;
                    if taken % (spared + 1) == 0 {
                        pending += cost;
                    }
                } else {
                    cold = cold.saturating_sub(1);
                }
            }
        }
        ((stalled.as_nanos() * 1_000_000 / (TICK * seconds * 20).as_nanos()) as u64, cold)
    }

    #[test]
    #[cfg_attr(miri, ignore = "millions of steps of arithmetic")]
    fn the_cost_stays_at_the_target_or_below_whatever_a_page_costs_and_a_cold_part_goes() {
        for cost in [1, 20, 500, 20_000].map(Duration::from_micros) {
            for hot in [0, 100, 10_000, 60_000] {
                let (stalled, cold) = live(60_000, hot, cost, 3, 600);
                // What a step costs is known after it: of pages that cost 20 ms each, one is a large step.
                assert!(stalled < TARGET * 5 / 4, "{hot} hot at {cost:?}: {stalled}");
                if hot < 1_000 && cost < Duration::from_millis(1) {
                    // The fewer there are the fewer are looked at: e^-10 of them after ten turns.
                    assert!(cold < 60, "{hot} hot at {cost:?}: {cold}");
                }
            }
        }
    }
}
