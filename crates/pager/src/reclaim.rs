//! Proactive reclaim: what has not been touched for long is moved out though nobody needs the room, as long as that costs the programs
//! no more than a set share of their time.
//!
//! The hand of the evictors is led over the blocks, at the pace that [`vswap_core::reclaim`] gives, and takes what it would take if room were short: what is young
//! or hot stays, and what was taken by mistake comes back from staging for little and is spared then. The pool's cold end is
//! written to a tier at the same pace. What it costs is the time for which programs waited for pages that had been moved out, whoever
//! moved them: there is no telling who was to blame.
//!
//! Driven by the keeper, which samples anyway; an evictor has what is urgent to do.

use crate::evict::{Effort, Tools};
use crate::pager::Shared;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use vswap_core::{ByteCount, PAGES_PER_CLUSTER, Pace, Pressure};
use vswap_engine::{SEGMENT_BYTES, Scratch};

/// What is granted is called in, so that it can be looked at, when this time has passed since the last. Rarely: a program that maps memory anew all the time would
/// have all of it managed.
const CALL_IN_EVERY: Duration = Duration::from_secs(10);
/// No tier takes pages: not tried again before this has passed.
const REST: Duration = Duration::from_secs(10);
/// What a look at a block without resident pages counts for, in pages.
const EMPTY_BLOCK: u64 = 1;
/// Bytes that are written from the pool in one go.
const SEGMENT: u64 = SEGMENT_BYTES as u64;

/// What the keeper knows of it.
pub(crate) struct Reclaimer {
    residents: Pace,
    pool: Pace,
    pressure: Pressure,
    /// Made when they are needed first.
    tools: Option<Tools>,
    called_in: Duration,
    rests_until: Duration,
}

impl Reclaimer {
    pub fn new(shared: &Shared) -> Reclaimer {
        let now = shared.now();
        Reclaimer {
            residents: Pace::new(shared.config.reclaim_turn, now),
            pool: fresh_pool(shared, now),
            pressure: Pressure::default(),
            tools: None,
            called_in: now,
            rests_until: now,
        }
    }
}

/// Of a pool with too little to write: when there is enough, the turn in which it comes to that is waited for.
fn fresh_pool(shared: &Shared, now: Duration) -> Pace {
    let mut pace = Pace::new(shared.config.reclaim_turn, now);
    pace.looked(SEGMENT);
    pace
}

impl Shared {
    fn now(&self) -> Duration {
        Duration::from_millis(self.clock_ms())
    }

    /// Does what is due by now.
    pub(crate) fn reclaim(&self, reclaimer: &mut Reclaimer, scratch: &mut Scratch) {
        let now = self.now();
        reclaimer.pressure.sample(Duration::from_nanos(self.counters.delayed_ns.load(Relaxed)), now);
        let pressure = reclaimer.pressure.millionths();
        self.counters.reclaim.pressure.store(pressure, Relaxed);
        let target = self.reclaim_target.load(Relaxed);
        if target == 0 {
            return;
        }
        // While room is short the evictors do it, in the same order, and faults wait for them.
        let pressure = if self.budget.wanted() > 0 { u64::MAX } else { pressure };
        let owed = reclaimer.residents.advance(now, self.budget.charged(), pressure, target);
        let pool = self.engine.pool_bytes().get();
        if pool < SEGMENT {
            reclaimer.pool = fresh_pool(self, now);
        }
        let due = reclaimer.pool.advance(now, pool, pressure, target);
        if owed > 0 {
            self.look_over(reclaimer, owed, now);
        }
        // A segment at a time. A smaller pool stays where it is: it is a rest.
        if due > 0 && now >= reclaimer.rests_until {
            self.write_cold(reclaimer, now, scratch);
        }
    }

    /// Leads the hand over `owed` pages, or a block more.
    fn look_over(&self, reclaimer: &mut Reclaimer, owed: u64, now: Duration) {
        if now >= reclaimer.called_in + CALL_IN_EVERY {
            reclaimer.called_in = now;
            self.call_in_grants();
        }
        let tools = reclaimer.tools.get_or_insert_with(|| Tools::new(self));
        let (mut looked, mut moved) = (0, false);
        // No block twice, however few there are.
        for _ in 0..self.clock.len() {
            if looked >= owed || self.budget.wanted() > 0 {
                break;
            }
            let Some((id, block)) = self.clock.next() else { break };
            let state = block.state.lock();
            let (resident, shared) = (state.resident.count() as u64, !state.cow.is_empty());
            drop(state);
            looked += resident.max(EMPTY_BLOCK);
            // What is shared since a fork takes room of its own until the last owner's has gone: only where there is plenty.
            if resident == 0 || shared && !self.budget.has_plenty(0) {
                continue;
            }
            let Some(space) = self.space(id) else { continue };
            let before = self.counters.evicted.load(Relaxed);
            moved |= self.evict_from(&space, &block, Effort::Any, PAGES_PER_CLUSTER, tools);
            // The evictors are at rest, or nearly.
            let moved_out = self.counters.evicted.load(Relaxed) - before;
            self.counters.reclaim.pages.fetch_add(moved_out, Relaxed);
        }
        // Nothing new is put before what is staged: it is not asked for, so it can go.
        if !moved {
            self.write_down_any(tools);
        }
        reclaimer.residents.looked(looked);
        self.counters.reclaim.looked.fetch_add(looked, Relaxed);
    }

    /// Writes the pool's coldest segment's worth to a tier.
    fn write_cold(&self, reclaimer: &mut Reclaimer, now: Duration, scratch: &mut Scratch) {
        let before = self.engine.stats().written_pages;
        if self.write_back(ByteCount::new(SEGMENT), scratch) {
            let written = self.engine.stats().written_pages.saturating_sub(before);
            self.counters.reclaim.written.fetch_add(written.get(), Relaxed);
            reclaimer.pool.looked(SEGMENT);
        } else {
            reclaimer.rests_until = now + REST;
        }
    }
}
