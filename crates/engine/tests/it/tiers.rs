//! Tiers added and removed: where pages go, what they cost, what an error or a change of mind leaves.
use crate::flaky::{Faults, Flaky};
use crate::rig::{Rig, middling};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use vswap_core::{ByteCount, PageCount};
use vswap_engine::{
    BackingKind, Emptied, Engine, EngineConfig, LoadError, LoadedFrom, Reason, RemoveTierError,
    SEGMENT_BYTES, TierConfig, TierError, TierId, TierState, Unreadable, WritebackError,
};
use vswap_segment::{AlignedBuf, Storage, WriteDone, WriteQueue};

const FIRST: TierId = TierId::new(0);
const SECOND: TierId = TierId::new(1);

fn sound(segments: usize) -> Arc<Flaky> {
    Flaky::new(segments * SEGMENT_BYTES, Faults::default())
}

fn remove(engine: &Engine, tier: TierId) -> Result<Emptied, RemoveTierError> {
    engine.remove_tier(tier, Unreadable::Keep, &mut |_| ControlFlow::Continue(()))
}

fn used(engine: &Engine) -> Vec<u64> {
    engine.tiers().iter().map(|tier| tier.used.get() / SEGMENT_BYTES as u64).collect()
}

/// 4096 pages of some 2 KiB, all on the first tier: five segments.
fn written(disk: Arc<Flaky>) -> Rig {
    let mut rig = Rig::over(disk, 8);
    for number in 0..4096 {
        rig.store(number, number);
    }
    assert!(!rig.write_all_back());
    rig
}

fn check(rig: &mut Rig) {
    for number in 0..4096 {
        assert!(rig.load(number).unwrap() == (LoadedFrom::Segment, middling(number)), "page {number}");
    }
}

/// A device whose queue of writes is broken when it is waited for the first time, and then goes on with what it has.
#[derive(Debug)]
struct BreaksOnce(Arc<Flaky>);

struct BrokenOnce {
    inner: Box<dyn WriteQueue>,
    broken: bool,
}

impl Storage for BreaksOnce {
    fn capacity(&self) -> u64 {
        self.0.capacity()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, from)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.punch(offset, len)
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(BrokenOnce { inner: Arc::clone(&self.0).write_queue(depth), broken: false })
    }
}

impl WriteQueue for BrokenOnce {
    fn submit(
        &mut self,
        offset: u64,
        buf: AlignedBuf,
        len: usize,
        tag: u64,
    ) -> Result<(), (io::Error, AlignedBuf)> {
        self.inner.submit(offset, buf, len, tag)
    }

    fn is_full(&self) -> bool {
        self.inner.is_full()
    }

    fn wait(&mut self) -> io::Result<Option<WriteDone>> {
        match std::mem::replace(&mut self.broken, true) {
            false => Err(io::Error::from_raw_os_error(5)),
            true => self.inner.wait(),
        }
    }
}

#[test]
fn a_tier_is_removed_with_what_a_broken_queue_has_left_on_it() {
    let mut rig = Rig::over(Arc::new(BreaksOnce(sound(16))), 2);
    for number in 0..1024 {
        rig.store(number, number);
    }
    let broken = rig.engine.writeback(rig.engine.pool_payload(), &mut rig.scratch);
    assert!(matches!(broken, Err(WritebackError::Io { .. })), "{broken:?}");
    assert!(used(&rig.engine)[0] > 0, "nothing was left behind");
    remove(&rig.engine, FIRST).unwrap();
    assert!(rig.engine.tiers().is_empty());
    for number in 0..1024 {
        assert!(rig.load(number).unwrap() == (LoadedFrom::Pool, middling(number)), "page {number}");
    }
    rig.finish();
}

#[test]
fn a_removed_tier_leaves_every_page_and_is_gone() {
    let disk = sound(16);
    let mut rig = written(Arc::clone(&disk));
    let child = rig.blocks[0].fork(&rig.engine);
    rig.engine.add_storage(sound(16), 0).unwrap();
    let segments = used(&rig.engine)[0];
    let mut seen = Vec::new();
    let done = rig.engine.remove_tier(FIRST, Unreadable::Keep, &mut |now| {
        seen.push((now.moved.get(), now.left.get()));
        ControlFlow::Continue(())
    });
    let done = done.unwrap();
    // The last one was not full, so what is in it was packed.
    assert_eq!((done.segments, done.lost), (segments - 1, 0), "as they are, one after the other");
    assert!(seen.len() as u64 == segments && seen.is_sorted_by_key(|now| now.0), "{seen:?}");
    assert_eq!(rig.engine.tiers().len(), 1);
    assert_eq!(Arc::strong_count(&disk), 1, "nobody holds the device any more");
    check(&mut rig);
    child.dispose(&rig.engine);
    rig.finish();
}

#[test]
fn what_is_mostly_dead_is_packed_instead_of_copied() {
    let mut rig = written(sound(16));
    for number in (0..4096).filter(|number| number % 8 != 0) {
        let (block, at) = Rig::place(number);
        rig.blocks[block].release(&rig.engine, at);
    }
    let before = used(&rig.engine)[0];
    rig.engine.add_storage(sound(1), 0).unwrap();
    let done = remove(&rig.engine, FIRST).unwrap();
    assert_eq!((before >= 4, done.segments, used(&rig.engine)), (true, 0, vec![1]));
    for number in (0..4096).step_by(8) {
        assert!(rig.load(number).unwrap() == (LoadedFrom::Segment, middling(number)), "page {number}");
    }
    rig.finish();
}

#[test]
fn a_removal_that_is_cancelled_at_any_moment_leaves_all_right_and_can_be_taken_up_again() {
    let mut rig = written(sound(16));
    rig.engine.add_storage(sound(16), -1).unwrap();
    let mut left = used(&rig.engine)[0];
    let mut times = 0;
    loop {
        let mut looks = 0;
        let cancelled = rig.engine.remove_tier(FIRST, Unreadable::Keep, &mut |_| {
            looks += 1;
            if looks > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        check(&mut rig);
        let Err(error) = cancelled else { break };
        times += 1;
        let now = used(&rig.engine)[0];
        let bytes = ByteCount::new(now * SEGMENT_BYTES as u64);
        assert!(matches!(error, RemoveTierError::Cancelled { left, .. } if left == bytes), "{error}");
        assert!(now < left && rig.engine.tiers()[0].state == TierState::Open, "one more has left each time");
        left = now;
    }
    assert!(times >= 3 && rig.engine.tiers().len() == 1, "{times} times");
    rig.finish();
}

#[test]
fn a_removal_is_refused_at_once_if_the_rest_cannot_hold_it() {
    let mut rig = written(sound(16));
    rig.engine.add_storage(sound(2), 0).unwrap();
    let live = rig.engine.tiers()[0].live.get();
    let error = rig.engine.remove_tier(FIRST, Unreadable::Keep, &mut |_| panic!("nothing is begun"));
    let error = error.unwrap_err();
    assert!(
        matches!(error, RemoveTierError::Tier(TierError::NoRoom { holds, room, .. })
            if holds == live && room == 2 * SEGMENT_BYTES as u64),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains(&live.to_string()) && text.contains("4194304"), "{text}");
    assert!(matches!(
        remove(&rig.engine, TierId::new(7)),
        Err(RemoveTierError::Tier(TierError::NoTier { .. }))
    ));
    check(&mut rig);
    rig.finish();
}

#[test]
fn one_page_that_cannot_be_read_keeps_its_tier_until_it_may_be_lost() {
    let disk = sound(16);
    let mut rig = written(Arc::clone(&disk));
    rig.engine.add_storage(sound(16), 0).unwrap();
    let child = rig.blocks[0].fork(&rig.engine);
    // The second page's bytes: it is in the first segment, behind the first page.
    disk.damage(64 + 2100);
    let error = remove(&rig.engine, FIRST).unwrap_err();
    assert!(matches!(error, RemoveTierError::Unreadable { segments: 1, pages: 1, .. }), "{error}");
    assert_eq!(used(&rig.engine)[0], 1, "all but what is damaged has gone");
    let (lost, others): (Vec<_>, Vec<_>) =
        (0..4096).map(|n| (n, rig.load(n))).partition(|(_, load)| load.is_err());
    assert_eq!(lost.len(), 1);
    assert!(others.iter().all(|(n, load)| load.as_ref().unwrap().1 == middling(*n)));
    let done = rig.engine.remove_tier(FIRST, Unreadable::Lose, &mut |_| ControlFlow::Continue(())).unwrap();
    // Its reader above has found it lost already.
    assert_eq!((done.lost, rig.engine.tiers().len()), (0, 1));
    let again = rig.load(lost[0].0).unwrap_err();
    assert!(matches!(again, LoadError::Poisoned { .. }), "{again}");
    // Who asks later, another owner perhaps, is told what the first was.
    let first = rig.engine.lost(lost[0].1.as_ref().unwrap_err());
    assert_eq!(rig.engine.lost(&again), first);
    let place = first.place.unwrap();
    assert_eq!((place.tier, place.name), (FIRST, None));
    assert!((1..2 * 4096).contains(&place.offset), "the second entry of the first segment: {}", place.offset);
    assert!(matches!(first.reason, Reason::Damaged(_)), "{:?}", first.reason);
    child.dispose(&rig.engine);
    rig.finish();
}

#[test]
fn a_segment_whose_own_list_is_damaged_loses_no_page_for_that() {
    let disk = sound(16);
    let mut rig = written(Arc::clone(&disk));
    rig.engine.add_storage(sound(16), 0).unwrap();
    // Its header: the first bytes of the first extent.
    disk.damage(20);
    remove(&rig.engine, FIRST).unwrap();
    check(&mut rig);
    rig.finish();
}

#[test]
fn where_whole_segments_do_not_fit_what_lives_in_them_is_packed() {
    let mut rig = written(sound(16));
    for number in (0..4096).filter(|number| number % 5 < 2) {
        let (block, at) = Rig::place(number);
        rig.blocks[block].release(&rig.engine, at);
    }
    // Five segments, of which four are three fifths alive.
    rig.engine.add_storage(sound(3), 0).unwrap();
    remove(&rig.engine, FIRST).unwrap();
    for number in (0..4096).filter(|number| number % 5 >= 2) {
        assert!(rig.load(number).unwrap() == (LoadedFrom::Segment, middling(number)), "page {number}");
    }
    rig.finish();
}

#[test]
fn a_destination_that_is_full_before_its_time_ends_it_with_its_own_words() {
    let mut rig = written(sound(16));
    let full = Flaky::new(16 * SEGMENT_BYTES, Faults { full: 1, ..Faults::default() });
    rig.engine.add_storage(Arc::clone(&full) as _, 5).unwrap();
    let error = remove(&rig.engine, FIRST).unwrap_err();
    assert!(
        matches!(&error, RemoveTierError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull),
        "{error}"
    );
    assert!(full.injected() < 12, "tried {} times", full.injected());
    check(&mut rig);
    full.heal();
    remove(&rig.engine, FIRST).unwrap();
    check(&mut rig);
    rig.finish();
}

#[test]
fn what_a_device_does_not_give_is_lost_only_if_that_is_wanted() {
    let disk = sound(16);
    let mut rig = written(Arc::clone(&disk));
    rig.engine.add_storage(sound(16), 0).unwrap();
    disk.break_reads(true);
    let error = remove(&rig.engine, FIRST).unwrap_err();
    assert!(matches!(error, RemoveTierError::Unreadable { pages: 4096, .. }), "{error}");
    disk.break_reads(false);
    check(&mut rig);
    disk.break_reads(true);
    let done = rig.engine.remove_tier(FIRST, Unreadable::Lose, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((done.lost, rig.engine.tiers().len()), (4096, 1));
    assert!((0..4096).all(|number| matches!(rig.load(number), Err(LoadError::Poisoned { .. }))));
    assert_eq!(rig.engine.stats().lost, 4096);
    // Of the last of them it is known where they were.
    let found = (0..4096).map(|number| rig.load(number).unwrap_err()).collect::<Vec<_>>();
    let known = found.iter().map(|error| rig.engine.lost(error));
    let (given_up, forgotten): (Vec<_>, Vec<_>) = known.partition(|lost| lost.reason == Reason::GivenUp);
    assert_eq!(given_up.len(), 64);
    assert!(given_up.iter().all(|lost| lost.place.as_ref().is_some_and(|place| place.tier == FIRST)));
    assert!(forgotten.iter().all(|lost| *lost == Reason::Forgotten.into()));
    rig.finish();
}

#[test]
fn a_destination_that_fails_takes_no_more_and_another_is_found() {
    let mut rig = written(sound(16));
    let broken = Flaky::new(16 * SEGMENT_BYTES, Faults { write_error: 1, ..Faults::default() });
    rig.engine.add_storage(broken.clone(), 5).unwrap();
    let error = remove(&rig.engine, FIRST).unwrap_err();
    assert!(matches!(error, RemoveTierError::Io { .. }), "{error}");
    let states = |engine: &Engine| engine.tiers().iter().map(|tier| tier.state).collect::<Vec<_>>();
    assert_eq!(states(&rig.engine), [TierState::Open, TierState::Failing]);
    check(&mut rig);
    rig.engine.add_storage(sound(16), -3).unwrap();
    rig.engine.reopen_tier(SECOND).unwrap();
    remove(&rig.engine, FIRST).unwrap();
    assert_eq!(states(&rig.engine), [TierState::Failing, TierState::Open]);
    check(&mut rig);
    // An empty one is removed whatever it does.
    remove(&rig.engine, SECOND).unwrap();
    rig.finish();
}

/// There was said to be no room, unless a segment had to be packed before: so a tier would have been added for a device that is broken.
#[test]
fn what_the_only_destination_says_is_told_also_if_nothing_had_to_be_packed() {
    for faults in [Faults { write_error: 1, ..Faults::default() }, Faults { full: 1, ..Faults::default() }] {
        let mut rig = Rig::over(sound(16), 2);
        for number in 0..800 {
            rig.store(number, number);
        }
        assert!(!rig.write_all_back());
        assert_eq!(used(&rig.engine), [1], "most of a segment");
        rig.engine.add_storage(Flaky::new(16 * SEGMENT_BYTES, faults), 0).unwrap();
        let error = remove(&rig.engine, FIRST).unwrap_err();
        assert!(matches!(error, RemoveTierError::Io { .. }), "{error}");
        rig.finish();
    }
}

/// As above, where what could not be written was packed, and what is left could not be read whole.
#[test]
fn what_the_only_destination_says_is_told_also_if_something_is_damaged() {
    let disk = sound(16);
    let mut rig = Rig::over(disk.clone(), 1);
    for number in 0..8 {
        rig.store(number, number);
    }
    assert!(!rig.write_all_back());
    disk.damage(64 + 2100);
    let broken = Flaky::new(16 * SEGMENT_BYTES, Faults { write_error: 1, ..Faults::default() });
    rig.engine.add_storage(broken, 0).unwrap();
    let error = remove(&rig.engine, FIRST).unwrap_err();
    assert!(matches!(error, RemoveTierError::Io { .. }), "{error}");
    rig.finish();
}

#[test]
fn a_failed_write_marks_its_tier_and_the_next_goes_elsewhere() {
    let broken = Flaky::new(16 * SEGMENT_BYTES, Faults { write_error: 1, ..Faults::default() });
    let mut rig = Rig::over(broken.clone(), 8);
    rig.engine.add_storage(sound(16), -1).unwrap();
    for number in 0..4096 {
        rig.store(number, number);
    }
    let payload = rig.engine.pool_payload();
    let error = rig.engine.writeback(payload, &mut rig.scratch).unwrap_err();
    assert!(matches!(error, WritebackError::Io { .. }), "{error}");
    assert_eq!(rig.engine.tiers()[0].state, TierState::Failing);
    broken.heal();
    assert!(!rig.write_all_back());
    assert_eq!(rig.engine.stats().pool_pages, PageCount::ZERO);
    assert_eq!(used(&rig.engine)[0], 0, "a failing tier takes nothing, however well it is");
    check(&mut rig);
    rig.finish();
}

#[test]
fn the_first_tier_may_come_when_everything_runs_and_the_last_may_go() {
    let mut rig = Rig::of(Engine::new(EngineConfig::default()).unwrap(), 8);
    rig.store(1, 1);
    let error = rig.engine.writeback(ByteCount::mib(1), &mut rig.scratch).unwrap_err();
    assert!(matches!(error, WritebackError::NoTier), "{error}");
    let config = TierConfig::new(env!("CARGO_TARGET_TMPDIR"), ByteCount::mib(64));
    let Ok(tier) = rig.engine.add_tier(&config) else {
        return println!("skipped: the build directory is on a memory file system");
    };
    assert_eq!(rig.engine.tiers()[0].path.as_deref(), Some(config.path.as_path()));
    assert!(!rig.write_all_back());
    assert!(rig.load(1).unwrap() == (LoadedFrom::Segment, middling(1)));
    assert!(matches!(
        remove(&rig.engine, tier),
        Err(RemoveTierError::Tier(TierError::NoRoom { room: 0, .. }))
    ));
    let slot = rig.store(1, 2);
    assert_eq!(rig.engine.backing(slot), BackingKind::Pool);
    remove(&rig.engine, tier).unwrap();
    assert!(rig.engine.tiers().is_empty());
    assert!(rig.load(1).unwrap() == (LoadedFrom::Pool, middling(2)));
    rig.finish();
}

/// Its number was another segment's as soon as its last page was lost, while there were slots still to be looked at: healthy pages were lost with it.
#[test]
fn what_is_lost_with_a_tier_is_not_what_has_just_been_written_elsewhere() {
    let bad = sound(16);
    let mut rig = Rig::over(bad.clone(), 600);
    // Segments of a page each, at the beginning of all slots.
    for number in 0..12 {
        rig.store(number, number);
        rig.write_all_back();
    }
    // Slots to be looked at, though nobody has them, and at their end those that are written meanwhile.
    for block in 1..600 {
        rig.store(block * 512 + 99, block);
    }
    bad.break_reads(true);
    rig.engine.add_storage(sound(64), 5).unwrap();
    let Rig { engine, scratch, mut blocks } = rig;
    let mut last = blocks.split_off(590);
    blocks.split_off(1).into_iter().for_each(|block| block.dispose(&engine));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut scratch, mut round) = (engine.scratch(), 0);
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for (at, block) in last.iter_mut().enumerate() {
                    let slot = block.slot_for_store(&engine, Rig::place(7).1).unwrap();
                    let mut page = [0; vswap_core::PAGE_SIZE];
                    if round > 0 {
                        engine.load(slot, &mut page, &mut scratch).unwrap_or_else(|e| panic!("{round}: {e}"));
                        assert!(page == middling(round * 10 + at), "round {round}");
                    }
                    engine.store(slot, &middling((round + 1) * 10 + at), &mut scratch).unwrap();
                }
                engine.writeback(engine.pool_payload(), &mut scratch).unwrap();
                round += 1;
            }
        });
        let removed = engine.remove_tier(FIRST, Unreadable::Lose, &mut |_| ControlFlow::Continue(()));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(removed.unwrap().lost, 12);
    });
    blocks.extend(last);
    Rig { engine, scratch, blocks }.finish();
}

/// Has `act` done by another thread while the first segment is being written to the first of two tiers; nothing is written before it says that it has begun.
fn while_a_segment_is_written<T: Send + 'static>(
    act: impl FnOnce(&Engine, &dyn Fn()) -> T + Send + 'static,
) -> (Rig, T) {
    let disk = sound(16);
    let engine = Engine::new(EngineConfig::default()).unwrap();
    engine.add_storage(Arc::clone(&disk) as _, 5).unwrap();
    engine.add_storage(sound(16), 0).unwrap();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel();
    let actor = Arc::clone(&engine);
    disk.before_the_next_write(move || {
        std::thread::spawn(move || {
            let acted = act(&actor, &|| begun.send(()).unwrap());
            done.send(acted).unwrap();
        });
        has_begun.recv().unwrap();
    });
    let mut rig = Rig::of(engine, 8);
    for number in 0..4096 {
        rig.store(number, number);
    }
    assert!(!rig.write_all_back());
    (rig, is_done.recv().unwrap())
}

/// What came to it when all else had left would have kept it.
#[test]
fn a_tier_is_removed_while_a_segment_is_written_to_it() {
    let (mut rig, removed) = while_a_segment_is_written(|engine, begun| {
        std::thread::scope(|scope| {
            let removing = scope.spawn(|| remove(engine, FIRST));
            while engine.tiers()[0].state != TierState::Draining {
                std::thread::yield_now();
            }
            // Enough to find that nothing is there.
            std::thread::sleep(std::time::Duration::from_millis(50));
            begun();
            removing.join().unwrap()
        })
    });
    let removed = removed.unwrap();
    assert!(removed.segments >= 1 && removed.lost == 0, "{removed:?}");
    assert_eq!(rig.engine.tiers().len(), 1);
    check(&mut rig);
    rig.finish();
}

#[test]
fn a_removal_that_waits_for_a_write_can_be_cancelled() {
    let (mut rig, ended) = while_a_segment_is_written(|engine, begun| {
        let ended = engine.remove_tier(FIRST, Unreadable::Keep, &mut |_| ControlFlow::Break(()));
        // Until now the write had to wait.
        begun();
        ended
    });
    assert!(matches!(ended, Err(RemoveTierError::Cancelled { .. })), "{ended:?}");
    assert_eq!(rig.engine.tiers()[0].state, TierState::Open);
    check(&mut rig);
    rig.finish();
}

#[test]
fn one_tier_is_removed_at_a_time() {
    let mut rig = written(sound(16));
    rig.engine.add_storage(sound(16), 0).unwrap();
    let mut others = 0;
    let done = rig.engine.remove_tier(FIRST, Unreadable::Keep, &mut |_| {
        for tier in [FIRST, SECOND] {
            let refused = remove(&rig.engine, tier).unwrap_err();
            assert!(matches!(refused, RemoveTierError::Busy), "{refused}");
        }
        others += 1;
        ControlFlow::Continue(())
    });
    assert!(others > 0 && done.is_ok(), "{done:?}");
    check(&mut rig);
    rig.finish();
}
