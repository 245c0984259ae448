//! What is on a tier that is removed comes back to the pool where no other tier takes it.
use crate::flaky::{Faults, Flaky};
use crate::pages::page;
use crate::rig::{Rig, middling};
use std::ops::ControlFlow;
use std::sync::Arc;
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PageCount, Resource};
use vswap_engine::{
    Emptied, Emptying, Engine, LoadedFrom, RemoveTierError, Removing, SEGMENT_BYTES, TierError, TierId,
    TierState, Unreadable,
};

const FIRST: TierId = TierId::new(0);
const SEGMENT: u64 = SEGMENT_BYTES as u64;
const PAGES: usize = 4096;

fn sound(segments: usize) -> Arc<Flaky> {
    Flaky::new(segments * SEGMENT_BYTES, Faults::default())
}

fn written(disk: Arc<Flaky>) -> Rig {
    let mut rig = Rig::over(disk, 8);
    rig.fill(0..PAGES);
    assert!(!rig.write_all_back());
    rig
}

/// Removes the first tier with so much memory for what comes back.
fn remove_with(
    engine: &Engine,
    unreadable: Unreadable,
    memory: u64,
    watch: &mut dyn FnMut(Emptying) -> ControlFlow<()>,
) -> Result<Emptied, RemoveTierError> {
    let before = engine.pool_payload();
    // As much as is left of it.
    let memory = || ByteCount::new(memory).saturating_add(before).saturating_sub(engine.pool_payload());
    engine.remove_tier(FIRST, Removing { unreadable, memory: &memory }, watch)
}

fn remove(engine: &Engine, memory: u64) -> Result<Emptied, RemoveTierError> {
    remove_with(engine, Unreadable::Keep, memory, &mut |_| ControlFlow::Continue(()))
}

fn live(engine: &Engine) -> u64 {
    engine.tiers()[0].live.get()
}

/// All pages are right, and so many of them are in the pool.
fn check(rig: &mut Rig, pooled: usize) {
    let found: Vec<_> = (0..PAGES).map(|number| rig.load(number).unwrap()).collect();
    assert!(found.iter().enumerate().all(|(number, (_, bytes))| *bytes == middling(number)));
    assert_eq!(found.iter().filter(|(from, _)| *from == LoadedFrom::Pool).count(), pooled);
    rig.engine.audit_groups().and(rig.engine.audit_tiers()).unwrap();
}

#[test]
fn what_is_on_the_only_tier_comes_back_and_whoever_shares_it_has_it() {
    let disk = sound(16);
    let mut rig = written(Arc::clone(&disk));
    let child = rig.blocks[0].fork(&rig.engine);
    let live = live(&rig.engine);
    let done = remove(&rig.engine, live).unwrap();
    assert_eq!((done.came_back, done.segments, done.lost), (PAGES as u64, 0, 0));
    // With the headers of the entries.
    assert!(done.bytes.get() <= live && done.bytes.get() > live / 10 * 9, "{} of {live}", done.bytes);
    assert_eq!(rig.engine.stats().pool_payload, done.bytes);
    assert!(rig.engine.tiers().is_empty());
    assert_eq!(Arc::strong_count(&disk), 1, "nobody holds the device any more");
    check(&mut rig, PAGES);
    let mut bytes = [0; PAGE_SIZE];
    for number in 0..512 {
        let slot = child.slot(Rig::place(number).1).unwrap();
        rig.engine.load(slot, &mut bytes, &mut rig.scratch).unwrap();
        assert!(bytes == middling(number));
    }
    child.dispose(&rig.engine);
    check(&mut rig, PAGES);
    rig.finish();
}

#[test]
fn memory_takes_what_the_other_tiers_do_not() {
    let mut rig = written(sound(16));
    let second = rig.engine.add_storage(sound(2), -1).unwrap();
    let done = remove(&rig.engine, 4 * SEGMENT).unwrap();
    let tiers = rig.engine.tiers();
    assert_eq!((tiers.len(), tiers[0].id, tiers[0].used.get()), (1, second, 2 * SEGMENT));
    assert!(done.came_back > 1000 && done.came_back < 3000, "{done:?}");
    check(&mut rig, done.came_back as usize);
    rig.finish();
}

#[test]
fn a_removal_that_memory_cannot_take_is_refused_at_once_with_the_sum() {
    let mut rig = written(sound(16));
    let live = live(&rig.engine);
    let memory = live - 1;
    let refused = remove_with(&rig.engine, Unreadable::Keep, memory, &mut |_| unreachable!());
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, RemoveTierError::Tier(TierError::NoRoom { holds, room: 0, memory: told, .. })
            if (holds, told) == (live, memory)),
        "{refused}"
    );
    assert!(refused.to_string().contains(&format!("{memory} in memory")), "{refused}");
    check(&mut rig, 0);
    rig.finish();
}

#[test]
fn a_removal_can_be_cancelled_between_any_two_segments_and_taken_up_again() {
    let mut rig = written(sound(16));
    let mut times = 0;
    let (live, mut pooled) = (live(&rig.engine), 0);
    loop {
        let before = rig.engine.tiers()[0].used;
        let ended = remove_with(&rig.engine, Unreadable::Keep, live, &mut |now| {
            if now.left < before { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let now = rig.engine.stats().pool_pages.get() as usize;
        check(&mut rig, now);
        let Err(error) = ended else { break };
        assert!(matches!(error, RemoveTierError::Cancelled { .. }), "{error}");
        assert_eq!(rig.engine.tiers()[0].state, TierState::Open);
        assert!(now > pooled, "what has come back stays");
        (times, pooled) = (times + 1, now);
    }
    assert!(times >= 3 && rig.engine.tiers().is_empty(), "{times} times");
    rig.finish();
}

#[test]
fn where_the_system_gives_no_memory_the_tier_goes_on_with_the_rest() {
    let mut rig = written(sound(16));
    rig.engine.starve(true);
    let error = remove(&rig.engine, 64 * SEGMENT).unwrap_err();
    assert!(matches!(error, RemoveTierError::NoRoom { .. }), "{error}");
    assert_eq!(rig.engine.tiers()[0].state, TierState::Open);
    let pooled = rig.engine.stats().pool_pages.get() as usize;
    check(&mut rig, pooled);
    rig.engine.starve(false);
    remove(&rig.engine, 64 * SEGMENT).unwrap();
    check(&mut rig, PAGES);
    rig.finish();
}

#[test]
fn what_cannot_be_read_stays_alone_until_it_may_be_lost() {
    let disk = sound(16);
    let mut rig = written(Arc::clone(&disk));
    // The second page's bytes, and the list of what is in another segment.
    disk.damage(64 + 2100);
    disk.damage(2 * SEGMENT_BYTES + 20);
    let error = remove(&rig.engine, 64 * SEGMENT).unwrap_err();
    assert!(matches!(error, RemoveTierError::Unreadable { segments: 1, pages: 1, .. }), "{error}");
    let pooled = |rig: &Rig| rig.engine.stats().pool_pages;
    assert_eq!(pooled(&rig), PageCount::new(PAGES as u64 - 1));
    let done = remove_with(&rig.engine, Unreadable::Lose, 64 * SEGMENT, &mut |_| ControlFlow::Continue(()));
    let done = done.unwrap();
    assert_eq!((done.lost, done.came_back), (1, 0));
    let (lost, right): (Vec<_>, Vec<_>) = (0..PAGES).map(|n| (n, rig.load(n))).partition(|(_, r)| r.is_err());
    assert!(lost.len() == 1 && right.iter().all(|(n, load)| load.as_ref().unwrap().1 == middling(*n)));
    rig.finish();
}

#[test]
fn a_group_gets_back_no_more_than_its_pool_may_have() {
    let mut rig = written(sound(16));
    let group = rig.engine.new_group(GroupId::ROOT).unwrap();
    rig.blocks[0].move_to_group(&rig.engine, group).unwrap();
    rig.engine.set_group_limit(group, Resource::Pool, Some(100_000)).unwrap();
    let error = remove(&rig.engine, 64 * SEGMENT).unwrap_err();
    assert!(error.to_string().contains("raise a limit"), "{error}");
    let pool = rig.engine.group(group).unwrap().pool.usage;
    assert!(pool > 90_000 && pool <= 100_000, "{pool}");
    rig.engine.set_group_limit(group, Resource::Pool, None).unwrap();
    remove(&rig.engine, 64 * SEGMENT).unwrap();
    check(&mut rig, PAGES);
    rig.finish();
}

/// Else a tier that is added later would first be given what was stored a moment ago.
#[test]
fn what_came_back_is_the_first_to_go_again() {
    let mut rig = Rig::over(sound(16), 8);
    rig.fill(0..PAGES / 2);
    rig.write_all_back();
    remove(&rig.engine, 64 * SEGMENT).unwrap();
    rig.fill(PAGES / 2..PAGES);
    rig.engine.add_storage(sound(16), 0).unwrap();
    rig.engine.writeback(ByteCount::new(SEGMENT), &mut rig.scratch).unwrap();
    let found: Vec<_> = (0..PAGES).map(|number| rig.load(number).unwrap().0).collect();
    let out = |pages: &[LoadedFrom]| pages.iter().filter(|from| **from == LoadedFrom::Segment).count();
    let (former, later) = found.split_at(PAGES / 2);
    assert!(out(former) > 800 && out(later) == 0, "{} and {}", out(former), out(later));
    rig.finish();
}

/// Much that came back made generations of its own, and what was stored just before was the older of the two.
#[test]
fn what_was_stored_before_much_came_back_does_not_go_first() {
    let mut rig = Rig::over(sound(16), 8);
    rig.fill(0..3700);
    rig.write_all_back();
    rig.fill(3700..PAGES);
    remove(&rig.engine, 64 * SEGMENT).unwrap();
    rig.engine.add_storage(sound(16), 0).unwrap();
    rig.engine.writeback(ByteCount::new(3 * SEGMENT), &mut rig.scratch).unwrap();
    let gone = |rig: &mut Rig, pages: std::ops::Range<usize>| {
        pages.filter(|number| rig.load(*number).unwrap().0 == LoadedFrom::Segment).count()
    };
    let (former, stored) = (gone(&mut rig, 0..3700), gone(&mut rig, 3700..PAGES));
    assert!(former > 2400 && stored == 0, "{former} and {stored}");
    rig.finish();
}

/// They take a whole page in the pool each.
#[test]
fn what_does_not_compress_comes_back_as_it_is() {
    let mut rig = Rig::over(sound(16), 2);
    let mut random = 88_172_645_463_325_252_u64;
    let mut noise: Vec<[u8; PAGE_SIZE]> = Vec::new();
    for number in 0..700 {
        let mut bytes = page(number);
        for word in bytes.as_chunks_mut::<8>().0 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *word = random.to_le_bytes();
        }
        let (block, at) = Rig::place(number as usize);
        let slot = rig.blocks[block].slot_for_store(&rig.engine, at).unwrap();
        rig.engine.store(slot, &bytes, &mut rig.scratch).unwrap();
        noise.push(bytes);
    }
    rig.write_all_back();
    let done = remove(&rig.engine, 64 * SEGMENT).unwrap();
    assert_eq!((done.came_back, done.bytes.get()), (700, 700 * PAGE_SIZE as u64));
    for (number, bytes) in noise.iter().enumerate() {
        assert!(rig.load(number).unwrap() == (LoadedFrom::Pool, *bytes));
    }
    rig.finish();
}
