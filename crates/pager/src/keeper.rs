//! The keeper: a thread that samples, shares out the memory between residents and the pool, keeps the pool to its share, and
//! reclaims ahead of need (see `reclaim`).

use crate::pager::Shared;
use crate::reclaim::Reclaimer;
use crate::share::Sample;
use crate::stats::FaultKind;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, Pressure, Terms};
use vswap_engine::{Engine, Scratch, WritebackError};

/// Milliseconds after which the pager's own memory is counted again.
const OWN_EVERY: u64 = 20;

/// Bytes of the pool that are written to the device in one go.
const WRITE_BACK_AT_ONCE: u64 = 8 << 20;

/// Segments that are taken from a crowded tier to one below it in one go.
const DEMOTE_AT_ONCE: usize = 2;

/// Chunks of the pool that are packed in one go.
const PACK_AT_ONCE: usize = 16;

/// Bytes that the pool may always have, if a fifth of the memory is as much: each size class has a chunk that is not full, and two
/// segments' worth should be there to choose from.
const LEAST_POOL: u64 = 4 << 20;

/// How often groups whose pages can go nowhere are asked whether that is still so.
const RETRY_STUCK_EVERY: Duration = Duration::from_secs(1);

/// How long training waits for the room that it takes.
const TRAINING_WAITS: Duration = Duration::from_millis(200);

/// How often the memory is shared out anew between residents and the pool.
const SHARE_OUT_EVERY: Duration = Duration::from_millis(50);

/// Before it is looked again for tiers that are crowded: the first rest, and the longest.
const REST: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// Until when nothing is tried that came to nothing; each time in a row for twice as long.
#[derive(Default)]
struct Rest(Option<(Instant, Duration)>);

impl Rest {
    fn is_over(&self) -> bool {
        self.0.is_none_or(|(since, rest)| since.elapsed() >= rest)
    }

    fn begin(&mut self) {
        self.0 = Some((Instant::now(), REST.0));
    }

    fn longer(&mut self) {
        let rest = self.0.map_or(REST.0, |(_, rest)| (rest * 2).min(REST.1));
        self.0 = Some((Instant::now(), rest));
    }

    fn end(&mut self) {
        self.0 = None;
    }
}

impl Shared {
    /// The keeper's life: samples, and writes the pool's cold end to disk when it passes its share.
    pub(crate) fn keeper(&self) {
        let mut scratch = self.engine.scratch();
        let mut shared_out = Instant::now();
        let mut retried = Instant::now();
        let mut pressure = Pressure::default();
        let mut rest = Rest::default();
        let mut room_wanted = None;
        let mut reclaimer = Reclaimer::new(self);
        while !self.stopping() {
            self.engine.tidy();
            self.train(&mut room_wanted);
            if shared_out.elapsed() >= SHARE_OUT_EVERY {
                shared_out = Instant::now();
                self.share_out();
                pressure.sample(self.counters.stalled(), Duration::from_millis(self.clock_ms()));
                self.counters.pressure.store(pressure.millionths(), Relaxed);
                self.reclaim(&mut reclaimer, self.now(), &mut scratch);
            }
            self.watch_listeners();
            self.count_compressed();
            self.sample_own();
            if retried.elapsed() >= RETRY_STUCK_EVERY {
                retried = Instant::now();
                self.retry_stuck(&mut scratch);
            }
            let of_groups = self.shrink_pools_of_groups(&mut scratch);
            let of_pool = self.shrink_pool(&mut scratch);
            if !self.demote(&mut rest) && !of_pool && !of_groups {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Has a dictionary trained when the engine wants to: what that takes is made room for first, a quarter of the limit at most. `wanted` is since when.
    fn train(&self, wanted: &mut Option<Instant>) {
        if wanted.is_none() && self.engine.is_to_train(self.budget.wanted() > 0) {
            if self.config.count_own_memory {
                let most = ByteCount::new(self.budget.limit() * PAGE_SIZE as u64 / 4);
                self.budget.expect_own(Engine::training_bytes().min(most));
            }
            *wanted = Some(Instant::now());
        }
        if let Some(since) = wanted
            && (self.budget.excess() == 0 || since.elapsed() >= TRAINING_WAITS)
        {
            self.engine.train();
            *wanted = None;
            self.count_own();
            self.budget.expect_own(ByteCount::ZERO);
        }
    }

    fn share_out(&self) {
        let stats = self.engine.stats();
        let count = |kind: FaultKind| self.counters.faults[kind as usize].count();
        let cost = |kind: FaultKind| self.counters.faults[kind as usize].quantile(500).as_secs_f64() * 1e6;
        self.share.learn(&Sample {
            faults: (count(FaultKind::Pool), count(FaultKind::Segment)),
            soon: (self.counters.soon[0].load(Relaxed), self.counters.soon[1].load(Relaxed)),
            lately: Terms::lately(self.budget.charged()),
            pages: (stats.pool_pages.get(), stats.segment_pages.get()),
            pool: stats.pool_bytes.get() / 4096,
            memory: self.available() / 4096,
            reads: stats.reads_by_age,
            written: (stats.written_segments, stats.written_pages.get() + stats.cleaned_pages.get()),
            cost: (cost(FaultKind::Pool), cost(FaultKind::Segment)),
        });
    }

    /// Counts the pool and the tiers that are memory, and says what these may come to: together with the pool, as much as the pool could ever
    /// have alone. A tier in memory is full there, and pages go on to the next.
    pub(crate) fn count_compressed(&self) {
        self.budget.set_compressed(|| {
            let (pool, ghosts) = (self.engine.pool_bytes(), self.engine.ghost_bytes());
            self.engine.set_ghost_limit(ByteCount::new(self.most_compressed()).saturating_sub(pool));
            (pool, ghosts)
        });
    }

    /// Bytes that pool and tiers in memory may come to together.
    fn most_compressed(&self) -> u64 {
        self.available() / 100 * self.share.most_percent()
    }

    /// Bytes of compressed pages that memory can take besides what it has of them, as things stand: what is free, and what is won if resident pages are compressed
    /// as those in the pool are. (Without a tier they go there and nowhere else.) Nothing while the limit is exceeded.
    pub(crate) fn room_for_compressed(&self) -> ByteCount {
        self.count_compressed();
        if self.budget.excess() > 0 {
            return ByteCount::ZERO;
        }
        let stats = self.engine.stats();
        let stored = stats.pool_pages.get() * 4096;
        let held = stats.pool_bytes.get().min(stored);
        // Of 4096 bytes so many are won.
        let won = ((stored - held) * 4096).checked_div(stored).unwrap_or(0);
        let free = self.budget.free().saturating_sub(self.budget.reserve());
        let could = free * 4096 + self.budget.charged() * won;
        let may = self
            .most_compressed()
            .saturating_sub(self.engine.pool_bytes().get() + self.engine.ghost_bytes().get());
        // An entry takes the room of its class, and a chunk has holes.
        ByteCount::new(could.min(may) / 8 * 7)
    }

    /// Bytes that pool, tiers in memory and resident pages have between them.
    fn available(&self) -> u64 {
        self.budget.limit().saturating_sub(self.budget.unmanaged()) * 4096
    }

    /// Bytes that the pool may have.
    pub(crate) fn pool_share(&self) -> u64 {
        let available = self.available();
        (available * self.share.percent() / 100).max(LEAST_POOL.min(available / 5))
    }

    /// Whether pages may come into the pool without others having to leave it soon.
    pub(crate) fn pool_has_room(&self) -> bool {
        self.budget.pool() * 4096 < self.pool_share() * 15 / 16
    }

    /// Bytes that the pool has beyond its share, or, when room is short and little else is left that could be moved out,
    /// what is missing.
    fn pool_surplus(&self, pool: ByteCount) -> u64 {
        let wanted = self.budget.wanted();
        let little = self.budget.charged() * 4096 < self.available() / 16 || self.stranded.load(Relaxed);
        let starved = wanted > 0 && little;
        let missing = if starved { (wanted * 4096).max(1 << 20).min(pool.get()) } else { 0 };
        // Others are not to leave the pool for what cannot.
        let stuck: u64 = self.engine.stuck().into_iter().map(|(_, bytes)| bytes.get()).sum();
        pool.get().saturating_sub(self.pool_share().saturating_add(stuck)).max(missing)
    }

    /// Has groups whose pages found no room on any tier try again: what they have there may be worth cleaning by now, and nobody else asks for them.
    fn retry_stuck(&self, scratch: &mut Scratch) {
        if self.engine.pool_bytes().get() > self.pool_share() {
            for (group, _) in self.engine.stuck() {
                self.write_back_of(group, ByteCount::new(1), scratch);
            }
        }
    }

    /// Makes the pool smaller if it has more than its share: a part at a time, for the keeper has others to look after. What does not
    /// compress goes first, but not before something has to: sent as soon as it filled a segment, it made a scan of what fits the pool
    /// take three times as long. `false` if nothing was done.
    fn shrink_pool(&self, scratch: &mut Scratch) -> bool {
        let pool = self.engine.pool_bytes();
        let surplus = self.pool_surplus(pool);
        // Within its share, it is to go because room is needed at once.
        let over = pool.get() > self.pool_share();
        let most = ByteCount::new(surplus.min(WRITE_BACK_AT_ONCE));
        surplus > 0 && ((over && self.pack_pool()) || self.write_back(most, scratch))
    }

    /// Packs a pool that would be within its share without the holes that written and released pages have left: writing more of
    /// them would only make more holes. `false` if it would not be, or nothing could be packed.
    fn pack_pool(&self) -> bool {
        let packed = self.engine.stats().pool_payload.get() / 4 * 5;
        if packed > self.pool_share() || self.engine.compact(PACK_AT_ONCE, 3) == 0 {
            return false;
        }
        self.count_compressed();
        self.room_came();
        true
    }

    /// Writes pool entries back; `false` if none could be.
    pub(crate) fn write_back(&self, surplus: ByteCount, scratch: &mut Scratch) -> bool {
        self.write_back_of(GroupId::ROOT, surplus, scratch)
    }

    /// Writes pool entries of a group back; `false` if none could be.
    pub(crate) fn write_back_of(&self, group: GroupId, surplus: ByteCount, scratch: &mut Scratch) -> bool {
        match self.engine.writeback_of(group, surplus, scratch) {
            Ok(report) => {
                // Who asks for a group knows nothing of the others' disks, but that there is room where something went.
                if group == GroupId::ROOT || report.pages.get() > 0 && !report.disk_full {
                    self.disk_full.store(report.disk_full, Relaxed);
                }
                self.count_compressed();
                self.room_came();
                report.pages.get() > 0
            }
            Err(error @ WritebackError::Io { .. }) => {
                self.tell_of_failed_write(&error);
                false
            }
            Err(_) => {
                // There is no disk any more that could be full.
                self.disk_full.store(false, Relaxed);
                false
            }
        }
    }

    /// Takes what is coldest on a tier with hardly any room left to one below it, a little at a time: if writeback comes faster than that,
    /// it goes to the slower tier itself. `false` if nothing was to be done.
    fn demote(&self, rest: &mut Rest) -> bool {
        if !rest.is_over() {
            return false;
        }
        match self.engine.demote(DEMOTE_AT_ONCE) {
            Ok(done) if done.segments > 0 => {
                rest.end();
                return true;
            }
            // What is crowded with what may not go, or cannot be read, is so for a while.
            Ok(done) if done.futile => rest.longer(),
            Ok(_) => rest.begin(),
            Err(error) => {
                self.tell_of_failed_write(&error);
                rest.longer();
            }
        }
        false
    }

    /// Once for each tier: it takes no more.
    fn tell_of_failed_write(&self, error: &WritebackError) {
        if let Some(tell) = &self.config.on_failed_write {
            tell(error);
        }
    }

    /// Counts the pager's own memory again if that was long ago. By whoever comes along: the keeper may be at its writing,
    /// whose buffers are the largest part of what changes.
    pub(crate) fn sample_own(&self) {
        let now = self.clock_ms();
        let last = self.own_sampled.load(Relaxed);
        if now >= last + OWN_EVERY && self.own_sampled.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            self.count_own();
        }
    }

    fn count_own(&self) {
        let compressed = self.engine.pool_bytes().saturating_add(self.engine.ghost_bytes());
        self.budget.set_own(self.own_memory(compressed));
    }

    /// The pager's own memory without what is compressed in it.
    fn own_memory(&self, compressed: ByteCount) -> ByteCount {
        if !self.config.count_own_memory {
            return self.engine.metadata_bytes();
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let kib = field("RssAnon:").unwrap_or(0) + field("RssShmem:").unwrap_or(0);
        ByteCount::new(kib * 1024).saturating_sub(compressed)
    }
}

#[cfg(test)]
mod tests {
    use crate::noise::Noise;
    use crate::pager::{Pager, PagerConfig};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PAGES_PER_CLUSTER, PageIndex};
    use vswap_engine::{Engine, EngineConfig, TierConfig};

    const LIMIT: ByteCount = ByteCount::mib(64);

    /// Faults were kept waiting for it, and the limit was given up for what nobody has yet.
    #[test]
    fn room_that_cannot_be_made_for_what_is_expected_is_waited_for_by_nobody() {
        let told = Arc::new(AtomicUsize::new(0));
        let tell = Arc::clone(&told);
        let on_full: crate::OnFull = Box::new(move |_| _ = tell.fetch_add(1, SeqCst));
        let config = PagerConfig { on_full: Some(on_full), ..PagerConfig::new(LIMIT) };
        let pager = Pager::new(config, Engine::new(EngineConfig::default()).unwrap()).unwrap();
        let shared = &pager.shared;
        assert!(shared.budget.charge(60 * 256));
        shared.budget.expect_own(Engine::training_bytes());
        shared.parked.fetch_add(1, SeqCst);
        assert!(shared.budget.excess() > 0 && !shared.budget.charge(1));
        shared.nothing_left();
        assert!(shared.budget.charge(1) && !shared.budget.is_over());
        assert_eq!(told.load(SeqCst), 0);
        // Now it is.
        shared.nothing_left();
        assert_eq!((told.load(SeqCst), shared.budget.is_over()), (1, true));
        shared.parked.fetch_sub(1, SeqCst);
        shared.budget.uncharge(60 * 256 + 1);
    }

    /// What is written down leaves holes in the pool, and a pool of holes takes as much memory as a full one. It was taken for that, and
    /// when its share fell by a twentieth, nine tenths of it were written to the device.
    #[test]
    fn a_pool_that_shrinks_keeps_nearly_all_that_its_share_can_hold() {
        let tiers = vec![TierConfig::new(std::env::temp_dir(), ByteCount::mib(256))];
        let engine = Engine::new(EngineConfig { tiers, ..EngineConfig::default() }).unwrap();
        let pager = Pager::new(PagerConfig::new(LIMIT), engine.clone()).unwrap();
        let mut scratch = engine.scratch();
        let mut blocks: Vec<_> = (0..48).map(|_| engine.owner_block(GroupId::ROOT).unwrap()).collect();
        let pages = blocks.len() * PAGES_PER_CLUSTER;
        let mut noise = Noise::new();
        for number in 0..pages {
            // Half of each is noise. Scattered, so that neighbours in the pool are none in the clusters.
            let at = number * 9_973 % pages;
            let mut page = [0; PAGE_SIZE];
            noise.fill(&mut page[..PAGE_SIZE / 2]);
            let index = PageIndex::new(at % PAGES_PER_CLUSTER).unwrap();
            let slot = blocks[at / PAGES_PER_CLUSTER].slot_for_store(&engine, index).unwrap();
            engine.store(slot, &page, &mut scratch).unwrap();
        }
        let share = pager.shared.pool_share();
        assert!(engine.pool_bytes().get() > share * 5 / 4, "{:?}", engine.stats());
        while pager.shared.shrink_pool(&mut scratch) {}
        let stats = engine.stats();
        assert!(stats.pool_bytes.get() <= share, "{stats:?}");
        assert!(
            stats.pool_payload.get() > share * 2 / 3,
            "{} bytes of {share}: {stats:?}",
            stats.pool_payload.get()
        );
        for block in blocks {
            block.dispose(&engine);
        }
    }

    /// A group that may go nowhere had all others' pages leave the pool in its place.
    #[test]
    fn what_can_go_nowhere_is_not_made_up_for_by_others() {
        let tiers = vec![TierConfig::new(std::env::temp_dir(), ByteCount::mib(256))];
        let engine = Engine::new(EngineConfig { tiers, ..EngineConfig::default() }).unwrap();
        let pager = Pager::new(PagerConfig::new(ByteCount::mib(32)), engine.clone()).unwrap();
        let barred = pager.add_group("/barred").unwrap();
        pager.limit_group_on_tier("/barred", engine.tiers()[0].id, Some(ByteCount::ZERO)).unwrap();
        let mut scratch = engine.scratch();
        let group = |at: usize| if at < 4 { GroupId::ROOT } else { barred };
        let mut blocks: Vec<_> = (0..28).map(|at| engine.owner_block(group(at)).unwrap()).collect();
        let mut noise = Noise::new();
        for block in &mut blocks {
            for at in 0..PAGES_PER_CLUSTER {
                let mut page = [0; PAGE_SIZE];
                noise.fill(&mut page[..PAGE_SIZE / 2]);
                let slot = block.slot_for_store(&engine, PageIndex::new(at).unwrap()).unwrap();
                engine.store(slot, &page, &mut scratch).unwrap();
            }
        }
        // That it may go nowhere is seen when it is asked.
        pager.shared.write_back(ByteCount::new(1), &mut scratch);
        let before = engine.stats().segment_pages.get();
        let barreds = engine.group(barred).unwrap().pool.usage;
        assert!(barreds > pager.shared.pool_share() && before < 1500, "{before}");
        while pager.shared.shrink_pool(&mut scratch) {}
        let after = engine.stats().segment_pages.get();
        assert!(after == before, "{} pages of others have gone", after - before);
        // When it may, all that is too much is asked for again.
        pager.limit_group_on_tier("/barred", engine.tiers()[0].id, None).unwrap();
        while pager.shared.shrink_pool(&mut scratch) {}
        assert!(engine.pool_bytes().get() <= pager.shared.pool_share());
        for block in blocks {
            block.dispose(&engine);
        }
    }
}
