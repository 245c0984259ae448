//! Demotion: what leaves a tier with hardly any room, where it goes, and what an error leaves.
use crate::flaky::{Faults, Flaky};
use crate::rig::{Rig, middling};
use std::ops::ControlFlow;
use std::sync::Arc;
use vswap_core::{ByteCount, GroupId};
use vswap_engine::{
    Engine, EngineConfig, LoadedFrom, SEGMENT_BYTES, TierId, TierState, Unreadable, WritebackError,
};

/// Pages of some 2 KiB that fill a segment.
const SEGMENT_PAGES: usize = SEGMENT_BYTES / 2200;

fn disk(segments: usize, faults: Faults) -> Arc<Flaky> {
    Flaky::new(segments * SEGMENT_BYTES, faults)
}

/// An engine over a fast tier (0) and a slow one (1).
fn rig(fast: Arc<Flaky>, slow: Arc<Flaky>) -> Rig {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    engine.add_storage(fast, 5).unwrap();
    engine.add_storage(slow, 0).unwrap();
    Rig::of(engine, 40)
}

/// Writes pages back, a segment's worth at a time, and has room made whenever that is wanted.
fn write(rig: &mut Rig, numbers: std::ops::Range<usize>) {
    let numbers: Vec<usize> = numbers.collect();
    for part in numbers.chunks(SEGMENT_PAGES) {
        for number in part {
            rig.store(*number, *number);
        }
        rig.write_all_back();
        rig.engine.demote(8).unwrap();
    }
}

fn used(rig: &Rig) -> Vec<u64> {
    rig.engine.tiers().iter().map(|tier| tier.used.get() / SEGMENT_BYTES as u64).collect()
}

fn check(rig: &mut Rig, numbers: impl Iterator<Item = usize>) {
    for number in numbers {
        assert!(rig.load(number).unwrap() == (LoadedFrom::Segment, middling(number)), "page {number}");
    }
}

/// Takes the slow tier away, so that what is still there is what is on the fast one.
fn count_errors_without(disk: &Flaky, rig: &mut Rig, numbers: std::ops::Range<usize>) -> Vec<usize> {
    disk.break_reads(true);
    let failed = numbers.filter(|number| rig.load(*number).is_err()).collect();
    disk.break_reads(false);
    failed
}

#[test]
fn the_coldest_go_below_and_what_was_read_of_late_stays() {
    let slow = disk(64, Faults::default());
    let mut rig = rig(disk(12, Faults::default()), Arc::clone(&slow));
    let pages = 16 * SEGMENT_PAGES;
    write(&mut rig, 0..9 * SEGMENT_PAGES);
    assert_eq!(used(&rig)[1], 0, "there was room");
    assert!(!rig.engine.wants_demotion());
    // Of the oldest segment, one page is read; then of others comes so much that four have to go.
    for part in 9..16 {
        rig.load(7).unwrap();
        write(&mut rig, part * SEGMENT_PAGES..(part + 1) * SEGMENT_PAGES);
    }
    let [fast, below] = used(&rig)[..] else { panic!("two tiers") };
    assert!((8..=10).contains(&fast) && (6..=8).contains(&below), "{fast} and {below} segments");
    assert!(!rig.engine.wants_demotion());
    assert!(rig.engine.stats().demoted_bytes > ByteCount::mib(8));
    let gone = count_errors_without(&slow, &mut rig, 0..pages);
    assert!(!gone.contains(&7), "it was wanted all the time");
    // The oldest but those next to it, and none of the newest.
    assert!(gone.len() > 4 * SEGMENT_PAGES && gone.iter().all(|page| *page < 9 * SEGMENT_PAGES), "{gone:?}");
    check(&mut rig, 0..pages);
    rig.finish();
}

#[test]
fn what_comes_next_still_goes_to_the_fast_tier() {
    let slow = disk(64, Faults::default());
    let mut rig = rig(disk(12, Faults::default()), Arc::clone(&slow));
    write(&mut rig, 0..20 * SEGMENT_PAGES);
    let newest = 19 * SEGMENT_PAGES..20 * SEGMENT_PAGES;
    assert_eq!(count_errors_without(&slow, &mut rig, newest), [0; 0]);
    check(&mut rig, 0..20 * SEGMENT_PAGES);
    rig.finish();
}

#[test]
fn segments_of_which_little_lives_are_packed_below() {
    let mut rig = rig(disk(12, Faults::default()), disk(64, Faults::default()));
    let pages = 9 * SEGMENT_PAGES;
    write(&mut rig, 0..pages);
    for number in (0..pages).filter(|number| number % 8 > 0) {
        let (block, at) = Rig::place(number);
        rig.blocks[block].release(&rig.engine, at);
    }
    write(&mut rig, pages..pages + 3 * SEGMENT_PAGES);
    assert_eq!(used(&rig)[1], 1, "an eighth of several");
    check(&mut rig, (0..pages).step_by(8).chain(pages..pages + 3 * SEGMENT_PAGES));
    rig.finish();
}

/// What may not go there was chosen again and again, as the coldest, and nothing else went.
#[test]
fn a_group_that_may_not_be_on_the_slow_tier_stays_and_others_go() {
    let mut rig = rig(disk(12, Faults::default()), disk(64, Faults::default()));
    let group = rig.engine.new_group(GroupId::ROOT).unwrap();
    rig.engine.set_tier_limit(group, TierId::new(1), Some(ByteCount::ZERO)).unwrap();
    let mut blocks: Vec<_> = (0..2).map(|_| rig.engine.owner_block(group).unwrap()).collect();
    let mut slots = Vec::new();
    for number in 0..2 * SEGMENT_PAGES.min(512) {
        let (block, at) = Rig::place(number);
        let slot = blocks[block].slot_for_store(&rig.engine, at).unwrap();
        rig.engine.store(slot, &middling(number), &mut rig.scratch).unwrap();
        slots.push(slot);
    }
    rig.write_all_back();
    // They are the coldest from now on.
    write(&mut rig, 0..20 * SEGMENT_PAGES);
    assert!(used(&rig)[1] >= 8 && !rig.engine.wants_demotion(), "{:?}", used(&rig));
    assert!(slots.iter().all(|slot| rig.engine.tier_of(*slot) == Some(TierId::new(0))));
    rig.engine.audit_tiers().unwrap();
    check(&mut rig, 0..20 * SEGMENT_PAGES);
    blocks.into_iter().for_each(|block| block.dispose(&rig.engine));
    rig.finish();
}

/// Whoever is asked next for room is another tier, or nobody.
#[test]
fn a_copy_that_fails_leaves_what_was_and_its_tier_takes_no_more() {
    let slow = disk(64, Faults { write_error: 1, ..Faults::default() });
    let mut rig = rig(disk(12, Faults::default()), slow);
    for number in 0..10 * SEGMENT_PAGES {
        rig.store(number, number);
    }
    rig.write_all_back();
    assert!(rig.engine.wants_demotion());
    let failed = rig.engine.demote(8);
    assert!(matches!(failed, Err(WritebackError::Io { .. })), "{failed:?}");
    let states: Vec<_> = rig.engine.tiers().iter().map(|tier| (tier.state, tier.used.get() > 0)).collect();
    assert_eq!(states, [(TierState::Open, true), (TierState::Failing, false)]);
    assert!(!rig.engine.wants_demotion());
    assert_eq!(rig.engine.demote(8).unwrap().segments, 0);
    check(&mut rig, 0..10 * SEGMENT_PAGES);
    rig.finish();
}

#[test]
fn what_cannot_be_read_just_now_keeps_nothing_else_from_going() {
    let fast = disk(12, Faults::default());
    let mut rig = rig(Arc::clone(&fast), disk(64, Faults::default()));
    for number in 0..10 * SEGMENT_PAGES {
        rig.store(number, number);
    }
    rig.write_all_back();
    // Something in the first segment is wrong; it is the coldest of all.
    fast.damage(300_000);
    let mut rounds = 0;
    while rig.engine.wants_demotion() {
        rig.engine.demote(1).unwrap();
        rounds += 1;
        assert!(rounds < 10, "nothing goes: {:?}", used(&rig));
    }
    let lost = (0..10 * SEGMENT_PAGES).filter(|number| rig.load(*number).is_err()).count();
    assert_eq!(lost, 1, "the page that was damaged, and no other");
    rig.finish();
}

/// It was the coldest, and little lived in it, so it was to be packed, again and again; what lies dense never went.
#[test]
fn what_lives_little_and_cannot_be_read_keeps_nothing_else_from_going() {
    let fast = disk(12, Faults::default());
    let mut rig = rig(Arc::clone(&fast), disk(64, Faults::default()));
    for part in 0..10 {
        for number in part * SEGMENT_PAGES..(part + 1) * SEGMENT_PAGES {
            rig.store(number, number);
        }
        rig.write_all_back();
    }
    for number in 8..SEGMENT_PAGES {
        let (block, at) = Rig::place(number);
        rig.blocks[block].release(&rig.engine, at);
    }
    fast.break_reads_below(SEGMENT_BYTES as u64);
    let mut rounds = 0;
    while rig.engine.wants_demotion() {
        rig.engine.demote(1).unwrap();
        rounds += 1;
        assert!(rounds < 10, "nothing goes: {:?}", used(&rig));
    }
    fast.break_reads_below(0);
    check(&mut rig, (0..8).chain(SEGMENT_PAGES..10 * SEGMENT_PAGES));
    rig.finish();
}

/// The one in the middle was asked for, had nothing that might go, and nobody else was.
#[test]
fn a_crowded_tier_whose_pages_may_not_sink_does_not_keep_those_above_it_from_sinking() {
    let mut rig = rig(disk(12, Faults::default()), disk(2, Faults::default()));
    let engine = Arc::clone(&rig.engine);
    let last = engine.add_storage(disk(64, Faults::default()), -5).unwrap();
    let group = engine.new_group(GroupId::ROOT).unwrap();
    for tier in [TierId::new(0), last] {
        engine.set_tier_limit(group, tier, Some(ByteCount::ZERO)).unwrap();
    }
    let mut blocks: Vec<_> = (0..4).map(|_| engine.owner_block(group).unwrap()).collect();
    for number in 0..2048 {
        let (block, at) = Rig::place(number);
        let slot = blocks[block].slot_for_store(&engine, at).unwrap();
        engine.store(slot, &middling(number), &mut rig.scratch).unwrap();
    }
    rig.write_all_back();
    assert_eq!(used(&rig), [0, 2, 0]);
    write(&mut rig, 0..14 * SEGMENT_PAGES);
    let [fast, middle, slow] = used(&rig)[..] else { panic!("three tiers") };
    assert!(fast <= 10 && middle == 2 && slow >= 4, "{fast}, {middle}, {slow}");
    let (block, at) = Rig::place(14 * SEGMENT_PAGES - 1);
    let newest = engine.tier_of(rig.blocks[block].slot(at).unwrap());
    assert_eq!(newest, Some(TierId::new(0)), "what comes next still goes to the fast tier");
    let futile = engine.demote(8).unwrap();
    assert!(futile.futile && futile.segments == 0, "{futile:?}");
    check(&mut rig, 0..14 * SEGMENT_PAGES);
    blocks.into_iter().for_each(|block| block.dispose(&engine));
    drop(engine);
    rig.finish();
}

/// The copy that was under way when the tier began to be emptied came to it when everything had left: it could not be removed.
#[test]
fn a_tier_is_removed_while_a_segment_comes_to_it_from_above() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    engine.add_storage(disk(4, Faults::default()), 5).unwrap();
    let (begun, removed) = std::sync::mpsc::channel();
    let hook = {
        let engine = Arc::clone(&engine);
        move || {
            let remover = Arc::clone(&engine);
            let remove = move || {
                let watch = &mut |_| ControlFlow::Continue(());
                begun.send(remover.remove_tier(TierId::new(1), Unreadable::Keep, watch)).unwrap();
            };
            std::thread::spawn(remove);
            while engine.tiers()[1].state != TierState::Draining {
                std::thread::yield_now();
            }
            // Enough to find that nothing is there.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    let slow = disk(16, Faults::default());
    slow.before_the_next_write(hook);
    engine.add_storage(slow, 0).unwrap();
    engine.add_storage(disk(16, Faults::default()), -5).unwrap();
    let mut rig = Rig::of(Arc::clone(&engine), 8);
    let pages = 4 * SEGMENT_PAGES;
    write(&mut rig, 0..pages);
    let removed = removed.recv().unwrap();
    assert_eq!(removed.unwrap().segments, 1, "what had just come");
    assert_eq!(rig.engine.tiers().len(), 2);
    check(&mut rig, 0..pages);
    drop(engine);
    rig.finish();
}

/// While its copy is written, all of a segment is let go, and its number and its place are at once those of another with other pages: that one is
/// not where the copy is.
#[test]
fn a_copy_of_what_has_died_is_not_taken_for_what_has_its_number_now() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let slow = disk(16, Faults::default());
    engine.add_storage(disk(4, Faults::default()), 5).unwrap();
    engine.add_storage(slow.clone(), 0).unwrap();
    let of_a_segment = |content: usize| {
        let mut rig = Rig::of(Arc::clone(&engine), 2);
        for at in 0..SEGMENT_PAGES {
            rig.store(at, content + at);
        }
        rig.write_all_back();
        rig
    };
    let holds = |rig: &mut Rig, content: usize| {
        for at in 0..SEGMENT_PAGES {
            let found = rig.load(at).unwrap();
            assert!(found == (LoadedFrom::Segment, middling(content + at)), "page {at} of {content}");
        }
    };
    let on = |rig: &Rig| engine.tier_of(rig.blocks[0].slot(Rig::place(7).1).unwrap());
    // The first is the coldest, and with the last the tier is crowded.
    let dying = of_a_segment(0);
    let mut others = [1, 2, 3].map(|number| of_a_segment(number * 1000));
    assert!(engine.wants_demotion());
    let (sender, receiver) = std::sync::mpsc::channel();
    let make = {
        let engine = Arc::clone(&engine);
        move || {
            dying.blocks.into_iter().for_each(|block| block.dispose(&engine));
            let mut rig = Rig::of(Arc::clone(&engine), 2);
            for at in 0..SEGMENT_PAGES {
                rig.store(at, 9000 + at);
            }
            rig.write_all_back();
            sender.send(rig).unwrap();
        }
    };
    slow.before_the_next_write(make);
    engine.demote(1).unwrap();
    let mut new = receiver.recv().unwrap();
    assert_eq!(on(&new), Some(TierId::new(0)), "it came to the fast tier a moment ago");
    holds(&mut new, 9000);
    others.iter_mut().zip([1000, 2000, 3000]).for_each(|(rig, content)| holds(rig, content));
    let all = others.into_iter().chain([new]).flat_map(|rig| rig.blocks);
    all.for_each(|block| block.dispose(&engine));
    assert_eq!(engine.stats().disk_bytes, ByteCount::ZERO);
}
