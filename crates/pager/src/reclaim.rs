//! Proactive reclaim: what has not been touched for long is moved out though nobody needs the room, as long as that costs the programs
//! no more than a set share of their time.
//!
//! The hand of the evictors is led over the blocks, at the pace that [`vswap_core::reclaim`] gives, and takes what it would take if room were short: what is young
//! or hot stays. Touches of pages that are in memory are not seen, so what is taken is what came in one to two turns ago and is not ranked hot, in use or
//! not; what is in use comes back, from staging for little or from the pool for more, is counted as waited for, and is spared after that. What is staged
//! is written down at a pace of its own, so that there is time for it to be asked for. The pool's cold end is
//! written to a tier at the pace of the hand. What it costs is the time for which programs waited for pages that had been moved out, whoever
//! moved them: there is no telling who was to blame.
//!
//! Where pages cannot be stored, or take as much memory in the pool as before, nothing is won: such a space rests for a while.
//!
//! Driven by the keeper, which samples anyway; an evictor has what is urgent to do. The keeper has others to look after, so a look ends after some
//! milliseconds, whatever is owed.

use crate::evict::{Among, Effort, Progress, Tools};
use crate::pager::Shared;
use crate::space::Space;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use vswap_core::{ByteCount, PAGES_PER_CLUSTER, Pace, Pressure};
use vswap_engine::{SEGMENT_BYTES, Scratch};

/// What is granted is called in, so that it can be looked at, when this time has passed since the last. Rarely: a program that maps memory anew all the time would
/// have all of it managed.
const CALL_IN_EVERY: Duration = Duration::from_secs(10);
/// No tier takes pages, or those of a space cannot be stored, or take no less memory then: not tried again before this has passed.
const REST: Duration = Duration::from_secs(10);
/// What a look at a block without resident pages counts for, in pages.
const EMPTY_BLOCK: u64 = 1;
/// A look ends after this time, however much is owed: the keeper samples, listens to who waits, and keeps the pool to its share.
const AT_ONCE: Duration = Duration::from_millis(10);
/// What is staged stays there for at least this part of a turn, or so long if that is less; as often a window of it is written down.
const STAGED_FOR: (u32, Duration) = (64, Duration::from_secs(1));
/// So many pages of a space tell whether anything is won by its going.
const TELLING: u64 = 512;
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
    wrote_down: Duration,
    pool_rests_until: Duration,
    at_once: Duration,
    gains: Gains,
}

/// What is won by moving out the pages of each space, by its number.
#[derive(Default)]
struct Gains(HashMap<u64, Gain>);

#[derive(Default)]
struct Gain {
    /// Pages that went since it was weighed last, and what the pool grew by for it, bytes.
    out: u64,
    grew: i64,
    rests_until: Duration,
}

impl Gains {
    fn rests(&self, space: u64, now: Duration) -> bool {
        self.0.get(&space).is_some_and(|gain| now < gain.rests_until)
    }

    /// Something was done to a space: it rests if pages had to be put back, or if what went is in memory as before, nearly.
    fn note(&mut self, space: u64, now: Duration, done: Progress, grew: i64) {
        if done.out == 0 && done.put_back == 0 {
            return;
        }
        let gain = self.0.entry(space).or_default();
        gain.out += done.out;
        gain.grew += grew;
        let told = gain.out >= TELLING;
        if done.put_back > 0 || told && gain.grew >= (gain.out * 4096 / 8 * 7) as i64 {
            gain.rests_until = now + REST;
        }
        if told {
            (gain.out, gain.grew) = (0, 0);
        }
    }
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
            wrote_down: now,
            pool_rests_until: now,
            at_once: AT_ONCE,
            gains: Gains::default(),
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
    /// Does what is due by `now`.
    pub(crate) fn reclaim(&self, reclaimer: &mut Reclaimer, now: Duration, scratch: &mut Scratch) {
        reclaimer.pressure.sample(Duration::from_nanos(self.counters.delayed_ns.load(Relaxed)), now);
        let pressure = reclaimer.pressure.millionths();
        self.counters.reclaim.pressure.store(pressure, Relaxed);
        let target = self.reclaim_target.load(Relaxed);
        if target == 0 {
            return;
        }
        // While room is short the evictors do it, in the same order, and faults wait for them.
        let pressure = if self.budget.wanted() > 0 { u64::MAX } else { pressure };
        // What is passed over, not just what is in memory: with much of it out, a turn would take many times as long.
        let passed_over = self.budget.charged() + self.clock.len() as u64 * EMPTY_BLOCK;
        let owed = reclaimer.residents.advance(now, passed_over, pressure, target);
        let pool = self.engine.pool_bytes().get();
        if pool < SEGMENT {
            reclaimer.pool = fresh_pool(self, now);
        }
        let due = reclaimer.pool.advance(now, pool, pressure, target);
        if owed > 0 {
            self.look_over(reclaimer, owed, now);
        }
        if pressure < target {
            self.write_down_oldest(reclaimer, now);
        }
        // A segment at a time. A smaller pool stays where it is: it is a rest.
        if due > 0 && now >= reclaimer.pool_rests_until {
            self.write_cold(reclaimer, now, scratch);
        }
    }

    /// Leads the hand over `owed` pages, or a block more, or as far as it comes in the time that it has.
    fn look_over(&self, reclaimer: &mut Reclaimer, owed: u64, now: Duration) {
        if now >= reclaimer.called_in + CALL_IN_EVERY {
            reclaimer.called_in = now;
            self.call_in_grants();
        }
        let tools = reclaimer.tools.get_or_insert_with(|| Tools::ahead(self));
        reclaimer.gains.0.retain(|id, gain| now < gain.rests_until || self.space(*id).is_some());
        let (mut looked, since) = (0, Instant::now());
        // No block twice, however few there are.
        for _ in 0..self.clock.len() {
            let ended = self.stopping() || self.reclaim_target.load(Relaxed) == 0;
            if looked >= owed || ended || self.budget.wanted() > 0 || since.elapsed() >= reclaimer.at_once {
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
            let Some(space) = self.space(id).filter(|_| !reclaimer.gains.rests(id, now)) else { continue };
            let before = self.counters.evicted.load(Relaxed);
            self.weigh(&space, &mut reclaimer.gains, now, tools, |tools| {
                self.evict_from(&space, &block, Effort::Any, (PAGES_PER_CLUSTER, Among::All), tools);
            });
            // The evictors are at rest, or nearly.
            let moved_out = self.counters.evicted.load(Relaxed) - before;
            self.counters.reclaim.pages.fetch_add(moved_out, Relaxed);
        }
        reclaimer.residents.looked(looked);
        self.counters.reclaim.looked.fetch_add(looked, Relaxed);
    }

    /// Has something done that moves pages of a space out, and notes what is won by it. With a tier, what takes no less memory goes there soon.
    fn weigh(
        &self,
        space: &Space,
        gains: &mut Gains,
        now: Duration,
        tools: &mut Tools,
        act: impl FnOnce(&mut Tools),
    ) {
        let (before, pool) = (tools.progress(), self.engine.pool_bytes().get());
        act(tools);
        let grew =
            if self.engine.has_tiers() { 0 } else { self.engine.pool_bytes().get() as i64 - pool as i64 };
        gains.note(space.id, now, tools.progress().since(before), grew);
    }

    /// Writes the window down that has been staged longest of all, if that is long enough, and the last one went as long ago.
    fn write_down_oldest(&self, reclaimer: &mut Reclaimer, now: Duration) {
        let (part, most) = STAGED_FOR;
        let long = (self.config.reclaim_turn / part).min(most);
        if self.staged.load(Relaxed) == 0 || now < reclaimer.wrote_down + long {
            return;
        }
        let mut oldest: Option<(Duration, Arc<Space>)> = None;
        for space in self.all_spaces() {
            self.collect_late(&space);
            let since = space.windows.lock().staged_since();
            if let Some(since) = since.filter(|_| !space.unreadable.load(Relaxed))
                && oldest.as_ref().is_none_or(|(oldest, _)| since < *oldest)
            {
                oldest = Some((since, space));
            }
        }
        let Some((_, space)) = oldest.filter(|(since, _)| *since + long <= now) else { return };
        let tools = reclaimer.tools.get_or_insert_with(|| Tools::ahead(self));
        self.weigh(&space, &mut reclaimer.gains, now, tools, |tools| {
            self.write_down_one(&space, tools);
        });
        reclaimer.wrote_down = now;
    }

    /// Writes the pool's coldest segment's worth to a tier.
    fn write_cold(&self, reclaimer: &mut Reclaimer, now: Duration, scratch: &mut Scratch) {
        let before = self.engine.stats().written_pages;
        if self.write_back(ByteCount::new(SEGMENT), scratch) {
            let written = self.engine.stats().written_pages.saturating_sub(before);
            self.counters.reclaim.written.fetch_add(written.get(), Relaxed);
            reclaimer.pool.looked(SEGMENT);
        } else {
            reclaimer.pool_rests_until = now + REST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Block;
    use crate::link::Mover;
    use crate::noise::Noise;
    use crate::pager::{Pager, PagerConfig};
    use crate::space::{Adopt, StagingArea};
    use std::ops::Range;
    use vswap_core::{GroupId, Resource};
    use vswap_engine::{Engine, EngineConfig};
    use vswap_sys::pagemap::Pagemap;
    use vswap_sys::staging::{LocalStaging, PagedBytes, PagedMemory};
    use vswap_sys::uffd::{Uffd, feature};

    const PAGE: usize = 4096;
    const BLOCKS: usize = 4;
    const PAGES: u64 = (BLOCKS * PAGES_PER_CLUSTER) as u64;
    const HOUR: Duration = Duration::from_secs(3600);

    /// A pager whose keeper has next to nothing to reclaim, for its turn takes a day: the test does it.
    struct Driven {
        bytes: PagedBytes,
        space: Arc<Space>,
        reclaimer: Reclaimer,
        pager: Pager,
    }

    impl Drop for Driven {
        fn drop(&mut self) {
            self.pager.release(&self.space);
        }
    }

    fn pager() -> Pager {
        let mut config = PagerConfig::new(ByteCount::mib(256));
        config.reclaim_target = 500_000;
        config.reclaim_turn = 24 * HOUR;
        Pager::new(config, Engine::new(EngineConfig::default()).unwrap()).unwrap()
    }

    fn reclaimer(pager: &Pager) -> Reclaimer {
        // However slow the machine is.
        Reclaimer { at_once: HOUR, ..Reclaimer::new(&pager.shared) }
    }

    fn driven() -> Driven {
        let pager = pager();
        let (memory, bytes) = PagedMemory::new(BLOCKS).unwrap();
        let windows = BLOCKS as u32 + 1;
        let staging = LocalStaging::new(windows, Arc::clone(&memory)).unwrap();
        let pid = std::process::id() as i32;
        let adopt = Adopt {
            pid,
            uffd: Uffd::open(feature::MAIN_FEATURES).unwrap(),
            staging: StagingArea { base: staging.base(), windows },
            mover: Mover::Local(staging),
            pagemap: Pagemap::open(pid).unwrap(),
            group: GroupId::ROOT,
        };
        let space = pager.adopt(adopt).unwrap();
        space.manage(memory.address()..memory.address() + memory.len()).unwrap();
        Driven { bytes, space, reclaimer: reclaimer(&pager), pager }
    }

    impl Driven {
        /// Writes what half can be compressed away of, or nothing.
        fn fill(&mut self, compressible: bool) {
            let mut noise = Noise::new();
            for page in self.bytes.as_mut_slice().chunks_exact_mut(PAGE) {
                let (first, second) = page.split_at_mut(PAGE / 2);
                noise.fill(first);
                if compressible { second.fill(0) } else { noise.fill(second) }
            }
        }

        /// A turn of the hand.
        fn look(&mut self, now: Duration) {
            self.pager.shared.look_over(&mut self.reclaimer, u64::MAX, now);
        }

        /// Two turns: after the first what was installed is not young any more.
        fn look_twice(&mut self, now: Duration) {
            self.look(now);
            self.look(now);
        }

        fn write_down(&mut self, now: Duration) {
            self.pager.shared.write_down_oldest(&mut self.reclaimer, now);
        }

        fn staged(&self) -> u64 {
            self.pager.shared.staged.load(Relaxed)
        }

        fn count(&self, of: impl Fn(&crate::block::BlockState) -> usize) -> u64 {
            self.space.blocks.read().values().map(|block| of(&block.state.lock()) as u64).sum()
        }

        fn resident(&self) -> u64 {
            self.count(|state| state.resident.count())
        }

        /// Moves all out that goes, a window in two seconds.
        fn settle(&mut self, seconds: Range<u64>) {
            let start = self.pager.shared.now();
            for second in seconds.step_by(2) {
                self.write_down(start + Duration::from_secs(second));
            }
        }
    }

    fn empty_blocks(pager: &Pager, count: u64) -> Vec<Arc<Block>> {
        let block =
            |at| Arc::new(Block::new(at << 21, pager.shared.engine.owner_block(GroupId::ROOT).unwrap()));
        let blocks: Vec<_> = (0..count).map(block).collect();
        pager.shared.clock.add(1, &blocks);
        blocks
    }

    fn dispose(pager: &Pager, blocks: &[Arc<Block>]) {
        let owners = blocks.iter().filter_map(|block| block.state.lock().owner.take());
        owners.for_each(|owner| owner.dispose(&pager.shared.engine));
    }

    fn looked(pager: &Pager) -> u64 {
        pager.shared.counters.reclaim.looked.load(Relaxed)
    }

    /// A look at gigabytes held the keeper up for seconds, whether the target was gone meanwhile or not.
    #[test]
    fn a_look_ends_when_its_time_is_over_or_the_target_gone() {
        let pager = pager();
        let blocks = empty_blocks(&pager, 100);
        let mut reclaimer = reclaimer(&pager);
        reclaimer.at_once = Duration::ZERO;
        let now = pager.shared.now();
        pager.shared.look_over(&mut reclaimer, u64::MAX, now);
        assert_eq!(looked(&pager), 0);
        reclaimer.at_once = HOUR;
        pager.set_reclaim_target(0);
        pager.shared.look_over(&mut reclaimer, u64::MAX, now);
        assert_eq!(looked(&pager), 0);
        pager.set_reclaim_target(1);
        pager.shared.look_over(&mut reclaimer, u64::MAX, now);
        assert_eq!(looked(&pager), 100);
        dispose(&pager, &blocks);
    }

    /// What is out was not counted, but cost a look: with much of it, a turn took many times as long as set.
    #[test]
    fn a_turn_takes_as_long_where_all_is_out() {
        let pager = pager();
        let blocks = empty_blocks(&pager, 24 * 3600);
        let (mut reclaimer, mut scratch) = (reclaimer(&pager), pager.shared.engine.scratch());
        let start = pager.shared.now();
        for second in 1..=100 {
            let now = start + Duration::from_secs(second);
            pager.shared.reclaim(&mut reclaimer, now, &mut scratch);
        }
        // A day's turn: a block in a second.
        assert!((99..=101).contains(&looked(&pager)), "{}", looked(&pager));
        dispose(&pager, &blocks);
    }

    /// A look that found nothing new wrote down what was staged a moment before.
    #[test]
    fn what_is_staged_stays_there_for_a_while_and_goes_a_window_at_a_time() {
        let mut driven = driven();
        driven.fill(true);
        driven.look_twice(driven.pager.shared.now());
        let staged = driven.staged();
        assert_eq!((staged, driven.resident()), (PAGES, 0));
        let now = driven.pager.shared.now();
        driven.look_twice(now);
        driven.write_down(now);
        assert_eq!(driven.staged(), staged);
        // A turn of a day: a second at most.
        let mut later = now + Duration::from_millis(1_001);
        for windows in 1..=BLOCKS as u64 {
            driven.write_down(later);
            assert_eq!(driven.staged(), staged - windows * 512);
            driven.write_down(later + Duration::from_millis(999));
            assert_eq!(driven.staged(), staged - windows * 512, "one in a second");
            later += Duration::from_secs(1);
        }
        assert_eq!(driven.staged(), 0);
    }

    /// They were left to those who look for room in earnest as never to be tried again: these took what was in use then.
    #[test]
    fn what_cannot_be_stored_is_left_as_it_was_and_tried_again_after_a_rest() {
        let mut driven = driven();
        driven.pager.add_group("/a").unwrap();
        driven.pager.limit_group("/a", Resource::Pool, Some(0)).unwrap();
        let group = driven.pager.group("/a").unwrap();
        driven.pager.move_to_group(&driven.space, group).unwrap();
        driven.fill(true);
        let start = driven.pager.shared.now();
        driven.look_twice(start);
        assert_eq!(driven.staged(), PAGES);
        driven.settle(1..20);
        assert_eq!((driven.staged(), driven.resident()), (0, PAGES));
        assert_eq!(driven.count(|state| state.stuck.count()), 0);
        // It has just been seen that it cannot be, up to 20 s from the start.
        driven.look_twice(start + Duration::from_secs(8));
        assert_eq!(driven.staged(), 0);
        driven.pager.limit_group("/a", Resource::Pool, None).unwrap();
        driven.look(start + HOUR);
        assert_eq!(driven.staged(), PAGES);
        driven.settle(3600..3620);
        assert_eq!((driven.staged(), driven.resident()), (0, 0));
    }

    /// Without a tier, what does not compress only changed from residents to the pool.
    #[test]
    fn where_nothing_is_won_it_rests() {
        let mut driven = driven();
        driven.fill(false);
        let start = driven.pager.shared.now();
        driven.look_twice(start);
        driven.settle(1..20);
        assert_eq!((driven.staged(), driven.resident()), (0, 0));
        driven.fill(false);
        driven.look_twice(start + Duration::from_secs(8));
        assert_eq!(driven.staged(), 0);
        driven.fill(true);
        driven.look_twice(start + HOUR);
        // But for what came back so soon that it is spared.
        assert!(driven.staged() > PAGES / 4 * 3, "{}", driven.staged());
        driven.settle(3600..3620);
        let rests = |at: Duration| driven.reclaimer.gains.rests(driven.space.id, start + at);
        assert!(!rests(HOUR + Duration::from_secs(8)), "half of it was won");
    }

    /// Who reads on has its pages protected, and pays for the first write to each: that is a cost of their having been out, too.
    #[test]
    fn a_first_write_to_what_came_back_clean_is_waited_for() {
        let mut driven = driven();
        driven.fill(true);
        driven.look_twice(driven.pager.shared.now());
        driven.settle(1..20);
        assert_eq!(driven.resident(), 0);
        let sum = driven.bytes.as_slice().iter().step_by(PAGE).fold(0u64, |sum, byte| sum + u64::from(*byte));
        assert!(sum > 0);
        let clean = driven.count(|state| (state.resident & state.backed).count());
        assert!(clean > PAGES / 2, "{clean}");
        let delayed = |driven: &Driven| driven.pager.shared.counters.delayed_ns.load(Relaxed);
        let before = delayed(&driven);
        // Scattered, so that each is a fault of its own.
        for page in (0..PAGES as usize).step_by(64).map(|page| page + 33) {
            let byte = &mut driven.bytes.as_mut_slice()[page * PAGE];
            *byte = byte.wrapping_add(1);
        }
        // 32 of them, and waking alone counts for 6 us.
        assert!(delayed(&driven) - before >= 20 * 6_000, "{}", delayed(&driven) - before);
    }
}
