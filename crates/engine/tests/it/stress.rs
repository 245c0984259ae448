//! A page checker on the engine: four threads store, load, release, fork and write back the same blocks
//! over a disk that fails in every way. Each page holds its name, version and checksum, so a load gives
//! exactly what was stored last, or an error that the disk's faults explain; never another page's bytes.
//!
//! A failure prints the seed; the interleaving of threads is the kernel's, the acts of each are the seed's.

use crate::flaky::{Faults, Flaky};
use crate::rig::share_of;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PAGES_PER_CLUSTER, Page, PageIndex};
use vswap_engine::{
    BackingKind, Engine, EngineConfig, LoadedFrom, OwnerBlock, RemoveTierError, Removing, SEGMENT_BYTES,
    Scratch, StoreError, TierError, TierState, Unreadable, WritebackError,
};

const THREADS: u64 = 4;
const BLOCKS: usize = 6;

/// A small generator: repeatable, and its state is the whole seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The content of version `version`: a fill, compressible to some degree, or not at all. All but fills
/// name themselves, and fills differ by version.
fn content(version: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut random = Random(version);
    let mut words = page.chunks_exact_mut(8);
    match version % 8 {
        0 => {
            let word = (version / 8 % 4 * 0x0101_0101).to_le_bytes();
            words.for_each(|out| out.copy_from_slice(&word));
            return page;
        }
        1 => words.for_each(|out| out.copy_from_slice(&random.next().to_le_bytes())),
        kind => {
            for (i, out) in words.by_ref().enumerate() {
                let noisy = (i as u64).is_multiple_of(kind * 2);
                let word = if noisy { random.next() } else { version & 0xffff };
                out.copy_from_slice(&word.to_le_bytes());
            }
        }
    }
    page[..8].copy_from_slice(&version.to_le_bytes());
    page
}

/// What a page must read as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    Nothing,
    Version(u64),
    /// A load failed for the disk's faults: from now on an error, or still the right bytes.
    Doubtful(u64),
}

struct Block {
    owner: OwnerBlock,
    expect: [Expect; PAGES_PER_CLUSTER],
}

/// What became of removals.
#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    removed: u64,
    moved: u64,
    came_back: u64,
    cancelled: u64,
    refused: u64,
    failed: u64,
}

struct World {
    engine: Arc<Engine>,
    blocks: Vec<Mutex<Block>>,
    versions: AtomicU64,
    faulty: bool,
    errors: AtomicU64,
    full: AtomicU64,
}

impl World {
    fn new(engine: Arc<Engine>, faulty: bool) -> Self {
        let block = |_| {
            let owner = engine.owner_block(GroupId::ROOT).expect("a block costs nothing");
            Mutex::new(Block { owner, expect: [Expect::Nothing; PAGES_PER_CLUSTER] })
        };
        let blocks = (0..BLOCKS).map(block).collect();
        Self {
            engine,
            blocks,
            versions: AtomicU64::new(1),
            faulty,
            errors: AtomicU64::new(0),
            full: AtomicU64::new(0),
        }
    }

    fn act(&self, random: &mut Random, scratch: &mut Scratch) {
        let at = random.below(BLOCKS as u64) as usize;
        let page = PageIndex::new(random.below(PAGES_PER_CLUSTER as u64) as usize).expect("below 512");
        match random.below(1000) {
            0..350 => self.store(at, page, scratch),
            350..850 => self.load(&mut self.lock(at), page, scratch),
            850..950 => {
                let mut block = self.lock(at);
                block.owner.release(&self.engine, page);
                block.expect[page.get()] = Expect::Nothing;
            }
            950..953 => self.fork(at, random.below(BLOCKS as u64) as usize),
            953..960 => {
                self.engine.compact(2, 3);
            }
            _ => self.writeback(1 << (14 + random.below(7)), scratch),
        }
    }

    fn lock(&self, at: usize) -> std::sync::MutexGuard<'_, Block> {
        self.blocks[at].lock().expect("another thread has failed")
    }

    fn store(&self, at: usize, page: PageIndex, scratch: &mut Scratch) {
        let version = self.versions.fetch_add(1, Ordering::Relaxed);
        let mut block = self.lock(at);
        let slot = block.owner.slot_for_store(&self.engine, page).expect("a slot");
        match self.engine.store(slot, &content(version), scratch) {
            Ok(_) => block.expect[page.get()] = Expect::Version(version),
            // The slot that was made for it is new after a fork: what it holds is up to the owner, who
            // still has the page. Here the owner lets go of it.
            Err(StoreError::PoolFull { .. }) => {
                block.owner.release(&self.engine, page);
                block.expect[page.get()] = Expect::Nothing;
                self.full.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn load(&self, block: &mut Block, page: PageIndex, scratch: &mut Scratch) {
        let expect = block.expect[page.get()];
        let Some(slot) = block.owner.slot(page) else {
            return assert_eq!(expect, Expect::Nothing, "page {page:?} has no slot");
        };
        let has = block.owner.has_backing(&self.engine, page);
        assert_eq!(has, expect != Expect::Nothing, "page {page:?} of {slot}: {expect:?}");
        let mut bytes = [0xee; PAGE_SIZE];
        match (self.engine.load(slot, &mut bytes, scratch), expect) {
            (Ok(from), Expect::Nothing) => assert_eq!(from, LoadedFrom::Empty, "{slot}"),
            (Ok(from), Expect::Version(version) | Expect::Doubtful(version)) => {
                let found = u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"));
                assert!(
                    bytes == content(version),
                    "{slot} from {from:?}: version {found}, expected {version}"
                );
            }
            (Err(error), Expect::Version(version) | Expect::Doubtful(version)) if self.faulty => {
                assert!(!error.to_string().is_empty());
                self.errors.fetch_add(1, Ordering::Relaxed);
                block.expect[page.get()] = Expect::Doubtful(version);
            }
            (Err(error), expect) => panic!("{slot}, {expect:?}, on a disk without faults: {error}"),
        }
    }

    /// The block at `to` is replaced by a child of the one at `from`.
    fn fork(&self, from: usize, to: usize) {
        if from == to {
            return;
        }
        // Always the lower first, so that two forks cannot wait for each other.
        let (low, high) = (from.min(to), from.max(to));
        let (mut first, mut second) = (self.lock(low), self.lock(high));
        let (parent, child) =
            if from < to { (&mut *first, &mut *second) } else { (&mut *second, &mut *first) };
        let owner = parent.owner.fork(&self.engine);
        std::mem::replace(&mut child.owner, owner).dispose(&self.engine);
        child.expect = parent.expect;
    }

    fn writeback(&self, bytes: u64, scratch: &mut Scratch) {
        match self.engine.writeback(ByteCount::new(bytes), scratch).and_then(|_| self.engine.demote(2)) {
            Ok(_) | Err(WritebackError::NoTier) => {}
            // Somebody sees to the device at once.
            Err(WritebackError::Io { .. }) if self.faulty => self.reopen(),
            Err(error) => panic!("{error}"),
        }
    }

    fn reopen(&self) {
        for tier in self.engine.tiers().iter().filter(|tier| tier.state == TierState::Failing) {
            let _ = self.engine.reopen_tier(tier.id);
        }
    }

    /// Adds and removes tiers until the others have finished, by what `disk` makes.
    fn change_tiers(
        &self,
        random: &mut Random,
        disk: impl Fn() -> Arc<Flaky>,
        going_on: impl Fn() -> bool,
    ) -> Changes {
        let mut changes = Changes::default();
        while going_on() {
            let tiers = self.engine.tiers();
            if tiers.len() < 2 || tiers.len() < 5 && random.below(2) == 0 {
                self.engine.add_storage(disk(), random.below(3) as i16).expect("another tier");
                continue;
            }
            let tier = tiers[random.below(tiers.len() as u64) as usize].id;
            let mut left = random.below(12);
            let unreadable = if random.below(4) == 0 { Unreadable::Lose } else { Unreadable::Keep };
            // Sometimes what finds no room elsewhere comes back to the pool, all of it or a part.
            let most = ByteCount::new(random.below(3) * 2 * SEGMENT_BYTES as u64);
            let memory = &|| most;
            let removed = self.engine.remove_tier(tier, Removing { unreadable, memory }, &mut |_| {
                left = left.saturating_sub(1);
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            match removed {
                Ok(done) => {
                    changes.removed += 1;
                    changes.moved += done.segments;
                    changes.came_back += done.came_back;
                    assert!(self.faulty || done.lost == 0);
                }
                Err(RemoveTierError::Cancelled { .. }) => changes.cancelled += 1,
                Err(RemoveTierError::Tier(TierError::NoRoom { .. }) | RemoveTierError::NoRoom { .. }) => {
                    changes.refused += 1;
                    if self.faulty {
                        self.reopen();
                    }
                    std::thread::yield_now();
                }
                Err(RemoveTierError::Unreadable { .. } | RemoveTierError::Io { .. }) if self.faulty => {
                    changes.failed += 1;
                    self.reopen();
                }
                Err(error) => panic!("{error}"),
            }
        }
        changes
    }

    fn run_while_tiers_change(&self, seed: u64, acts: u64, disk: impl Fn() -> Arc<Flaky> + Send) -> Changes {
        let running = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let running = &running;
            let changes = scope.spawn(move || {
                self.change_tiers(&mut Random(seed), disk, || running.load(Ordering::Relaxed))
            });
            self.run(seed, acts);
            running.store(false, Ordering::Relaxed);
            changes.join().expect("no thread has failed")
        })
    }

    fn run(&self, seed: u64, acts: u64) {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let mut scratch = self.engine.scratch();
                    let mut random = Random(seed.wrapping_mul(1000) + thread);
                    for _ in 0..acts {
                        self.act(&mut random, &mut scratch);
                    }
                });
            }
        });
    }

    /// Reads every page of every block, then lets all go: nothing may be left.
    fn finish(self) {
        let mut scratch = self.engine.scratch();
        let mut in_segments = 0;
        for at in 0..BLOCKS {
            let mut block = self.lock(at);
            for page in PageIndex::all() {
                if let Some(slot) = block.owner.slot(page) {
                    in_segments += u64::from(self.engine.backing(slot) == BackingKind::Segment);
                }
                self.load(&mut block, page, &mut scratch);
            }
        }
        println!(
            "{in_segments} pages in segments at the end, {} errors, pool full {} times; {:?}",
            self.errors.load(Ordering::Relaxed),
            self.full.load(Ordering::Relaxed),
            self.engine.stats()
        );
        for block in self.blocks {
            block.into_inner().expect("no thread has failed").owner.dispose(&self.engine);
        }
        let stats = self.engine.stats();
        assert_eq!(stats.pool_pages.get(), 0, "pool pages that nobody owns");
        assert_eq!(stats.pool_payload.get(), 0, "pool bytes that nobody owns");
        assert_eq!(stats.segment_pages.get(), 0, "segment entries that nobody owns");
        assert_eq!(stats.clusters, 0, "clusters that nobody owns");
        assert_eq!(stats.disk_bytes.get(), 0, "segments that nobody owns");
    }
}

fn engine_on(disk: Arc<Flaky>) -> Arc<Engine> {
    Engine::with_storage(EngineConfig::default(), disk).expect("an engine over a fake disk")
}

#[test]
fn four_threads_on_a_sound_disk_read_what_they_stored() {
    let disk = Flaky::new(32 << 20, Faults::default());
    let world = World::new(engine_on(disk), false);
    for seed in 0..3 {
        println!("seed {seed}");
        world.run(seed, share_of(2_500));
    }
    assert!(world.engine.stats().written_pages.get() > 0, "the test did write back");
    world.finish();
}

#[test]
fn a_disk_too_small_pushes_back_and_loses_nothing() {
    let disk = Flaky::new(4 << 20, Faults::default());
    let world = World::new(engine_on(disk), false);
    world.run(11, share_of(4_000));
    world.finish();
}

#[test]
fn a_failing_disk_gives_errors_and_never_wrong_bytes() {
    let faults = Faults {
        read_error: 40,
        short_read: 60,
        flipped_read: 50,
        write_error: 4,
        full: 5,
        torn: 6,
        lost: 6,
    };
    let disk = Flaky::new(32 << 20, faults);
    let world = World::new(engine_on(Arc::clone(&disk)), true);
    for seed in 20..23 {
        println!("seed {seed}");
        world.run(seed, share_of(2_500));
    }
    assert!(disk.injected() > share_of(100), "{} faults", disk.injected());
    assert!(world.errors.load(Ordering::Relaxed) > 0);
    disk.heal();
    world.finish();
}

#[test]
fn a_failed_write_leaves_the_pages_readable() {
    let faults = Faults { write_error: 2, full: 3, ..Faults::default() };
    let disk = Flaky::new(32 << 20, faults);
    let engine = engine_on(disk);
    // Reads are sound, so no load may fail whatever writes do: `faulty` only for writeback's sake.
    let world = World::new(engine, true);
    world.run(31, share_of(4_000));
    assert_eq!(world.errors.load(Ordering::Relaxed), 0, "loads failed though only writes did");
    world.finish();
}

#[test]
fn tiers_come_and_go_under_four_threads_and_no_page_notices() {
    let disk = || Flaky::new(16 << 20, Faults::default());
    let engine = engine_on(disk());
    // Some full segments that nobody changes, to be moved as they are.
    let mut scratch = engine.scratch();
    let kept: Vec<_> = (0..3).map(|n| Kept::written(&engine, n, &mut scratch)).collect();
    let world = World::new(Arc::clone(&engine), false);
    for seed in 40..43 {
        let changes = world.run_while_tiers_change(seed, share_of(2_500), disk);
        println!("seed {seed}: {changes:?}");
        assert!(changes.removed > 0 && changes.moved > 0, "{changes:?}");
    }
    kept.into_iter().for_each(|kept| kept.check(&engine, &mut scratch));
    world.finish();
}

/// 2 MiB that do not compress.
struct Kept(OwnerBlock, u64);

impl Kept {
    fn version(&self, at: PageIndex) -> u64 {
        (self.1 * 512 + at.get() as u64) * 8 + 1
    }

    fn written(engine: &Engine, number: u64, scratch: &mut Scratch) -> Self {
        let mut kept = Self(engine.owner_block(GroupId::ROOT).expect("a block"), number);
        for at in PageIndex::all() {
            let slot = kept.0.slot_for_store(engine, at).expect("a slot");
            engine.store(slot, &content(kept.version(at)), scratch).expect("room");
        }
        engine.writeback(engine.pool_payload(), scratch).expect("a sound disk");
        kept
    }

    fn check(self, engine: &Engine, scratch: &mut Scratch) {
        for at in PageIndex::all() {
            let mut page = [0; PAGE_SIZE];
            engine.load(self.0.slot(at).expect("its slot"), &mut page, scratch).expect("sound disks");
            assert!(page == content(self.version(at)), "page {at:?}");
        }
        self.0.dispose(engine);
    }
}

/// Small tiers of several priorities, so that segments are on their way from one to the other all the time.
#[test]
fn tiers_of_several_levels_come_and_go_and_segments_sink_meanwhile() {
    let disk = || Flaky::new(6 << 20, Faults::default());
    let engine = engine_on(disk());
    for priority in [-1, 3] {
        engine.add_storage(Flaky::new(48 << 20, Faults::default()), -priority).expect("another tier");
    }
    let mut scratch = engine.scratch();
    let kept: Vec<_> = (0..6).map(|n| Kept::written(&engine, n, &mut scratch)).collect();
    let world = World::new(Arc::clone(&engine), false);
    for seed in 60..63 {
        let changes = world.run_while_tiers_change(seed, 2_500, disk);
        println!("seed {seed}: {changes:?}");
    }
    assert!(engine.stats().demoted_bytes > ByteCount::ZERO);
    kept.into_iter().for_each(|kept| kept.check(&engine, &mut scratch));
    world.finish();
}

/// Each time with all that is on it.
#[test]
fn the_only_tier_goes_back_to_memory_under_four_threads_and_no_page_notices() {
    let disk = || Flaky::new(16 << 20, Faults::default());
    let engine = engine_on(disk());
    let world = World::new(Arc::clone(&engine), false);
    let (running, came_back) = (AtomicBool::new(true), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let how = Removing { unreadable: Unreadable::Keep, memory: &|| ByteCount::mib(512) };
            while running.load(Ordering::Relaxed) {
                let tier = engine.tiers().first().map(|tier| (tier.id, tier.used));
                match tier {
                    None => drop(engine.add_storage(disk(), 0).expect("another tier")),
                    Some((_, ByteCount::ZERO)) => std::thread::yield_now(),
                    Some((tier, _)) => {
                        let done = engine.remove_tier(tier, how, &mut |_| ControlFlow::Continue(()));
                        came_back.fetch_add(done.expect("memory has room").came_back, Ordering::Relaxed);
                    }
                }
            }
        });
        // However slow it is, it is to have happened.
        for seed in 70..170 {
            world.run(seed, share_of(6_000));
            if came_back.load(Ordering::Relaxed) > 100 {
                break;
            }
        }
        running.store(false, Ordering::Relaxed);
        changing.join().expect("no thread has failed");
    });
    let came_back = came_back.into_inner();
    println!("{came_back} pages came back");
    assert!(came_back > 100, "{came_back}");
    world.finish();
}

#[test]
fn failing_tiers_come_and_go_and_give_errors_but_never_wrong_bytes() {
    let faults = Faults {
        read_error: 40,
        short_read: 60,
        flipped_read: 50,
        write_error: 10,
        full: 12,
        torn: 15,
        lost: 15,
    };
    let disk = || Flaky::new(16 << 20, faults);
    let world = World::new(engine_on(disk()), true);
    let mut ends = (0, 0);
    for seed in 50..53 {
        let changes = world.run_while_tiers_change(seed, share_of(2_500), disk);
        println!("seed {seed}: {changes:?}");
        ends = (ends.0 + changes.removed, ends.1 + changes.failed + changes.cancelled);
    }
    assert!(ends.0 > 0 && ends.1 > 0, "{ends:?} removed, and ended before");
    world.finish();
}
