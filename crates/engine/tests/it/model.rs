//! Several owners against maps: store, load, release, fork, dispose, writeback, tiers that come and go, and devices that fail. Counts are exact: when all
//! owners are gone nothing is left anywhere.
mod op;
mod world;

use crate::flaky::{Faults, Flaky};
use crate::pages::page;
use op::{Op, op, segments, troubled};
use proptest::prelude::*;
use std::sync::Arc;
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PageCount, PageIndex};
use vswap_engine::{
    BackingKind, CodecChoice, Engine, EngineConfig, Loaded, LoadedFrom, OwnerBlock, StoredAs,
};
use world::{Content, Devices, Owner, World, index};

fn cases(count: u32) -> ProptestConfig {
    let count = std::env::var("PROPTEST_CASES").map_or(count, |cases| cases.parse().expect("a number"));
    ProptestConfig {
        failure_persistence: None,
        // Four times the cases, as it is else, is little for so many commands.
        max_shrink_iters: 4096,
        max_shrink_time: 60_000,
        ..ProptestConfig::with_cases(count)
    }
}

fn codec() -> impl Strategy<Value = CodecChoice> {
    prop::sample::select(vec![CodecChoice::Lz4, CodecChoice::Zstd, CodecChoice::Auto])
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn owners_in_memory_are_maps(ops in prop::collection::vec(op(), 0..300), codec in codec()) {
        World::new(codec, Devices::None).run(ops)?;
    }

    #[test]
    fn owners_over_a_disk_are_maps(ops in prop::collection::vec(op(), 0..300), codec in codec()) {
        World::new(codec, Devices::Sound).run(ops)?;
    }

    #[test]
    fn owners_over_disks_in_trouble_are_maps_but_for_what_they_are_told_is_lost(
        ops in prop::collection::vec(troubled(), 0..300),
        codec in codec(),
        segments in segments(),
    ) {
        World::new(codec, Devices::Troubled(segments)).run(ops)?;
    }
}

#[test]
fn more_than_254_owners_are_counted_exactly() {
    let mut world = World::new(CodecChoice::Lz4, Devices::None);
    world.apply(Op::Store { owner: 0, at: 3, number: 12 }).unwrap();
    let engine = Arc::clone(&world.engine);
    for _ in 0..600 {
        let parent = &mut world.owners[0];
        let mut child = Owner { block: parent.block.fork(&engine), pages: parent.pages.clone() };
        // A change elsewhere in the block gives the child a list that names page 3.
        let slot = child.block.slot_for_store(&engine, index(9)).unwrap();
        engine.store(slot, &page(21), &mut world.scratch).unwrap();
        child.pages.insert(9, Content::of(21));
        world.owners.push(child);
    }
    world.check_all().unwrap();
    while world.owners.len() > 100 {
        world.owners.swap_remove(50).block.dispose(&engine);
    }
    world.check_all().unwrap();
    world.check_nothing_left().unwrap();
}

/// Who alone has a slot may let it go or write it; with a fork there are two, until the other has let go or has stored anew.
#[test]
fn a_slot_is_one_owners_alone_until_it_forks_and_again_once_the_other_let_go() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let mut scratch = engine.scratch();
    let mut parent = engine.owner_block(GroupId::ROOT).unwrap();
    assert!(!parent.is_sole(&engine, index(0)), "there is no slot");
    for at in 0..4 {
        let slot = parent.slot_for_store(&engine, index(at)).unwrap();
        engine.store(slot, &page(at as u64), &mut scratch).unwrap();
    }
    let sole = |block: &OwnerBlock| [0, 1, 2, 3].map(|at| block.is_sole(&engine, index(at)));
    assert_eq!(sole(&parent), [true; 4]);
    let mut child = parent.fork(&engine);
    assert_eq!((sole(&parent), sole(&child)), ([false; 4], [false; 4]));
    // The child lets one go and replaces another: it has a list from now on, the parent is direct as before.
    child.release(&engine, index(0));
    let slot = child.slot_for_store(&engine, index(1)).unwrap();
    engine.store(slot, &page(9), &mut scratch).unwrap();
    assert_eq!(sole(&parent), [true, true, false, false]);
    assert_eq!(sole(&child), [false, true, false, false]);
    // The parent goes to a list as well.
    parent.release(&engine, index(2));
    assert_eq!(sole(&child), [false, true, true, false]);
    assert_eq!(sole(&parent), [true, true, false, false]);
    parent.dispose(&engine);
    assert_eq!(sole(&child), [false, true, true, true]);
    child.dispose(&engine);
}

/// A slot that was kept for somebody is no more its owner's alone: letting go of it gave the owner a list, without the slots
/// that it had been given to store to and had not stored to yet.
#[test]
fn a_slot_that_was_given_out_is_kept_when_the_owner_gets_a_list() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let mut scratch = engine.scratch();
    let mut block = engine.owner_block(GroupId::ROOT).unwrap();
    let first = block.slot_for_store(&engine, index(0)).unwrap();
    engine.store(first, &page(2), &mut scratch).unwrap();
    engine.keep_slot(first);
    let second = block.slot_for_store(&engine, index(1)).unwrap();
    block.release(&engine, index(0));
    engine.store(second, &page(10), &mut scratch).unwrap();
    assert_eq!(block.slot(index(1)), Some(second));
    let mut bytes = [0; PAGE_SIZE];
    engine.load(first, &mut bytes, &mut scratch).unwrap();
    assert!(bytes == page(2), "kept, though its owner let it go");
    engine.let_slot_go(first);
    block.dispose(&engine);
    assert_eq!((engine.pool_payload(), engine.stats().clusters), (ByteCount::ZERO, 0));
}

#[test]
fn a_store_that_is_refused_leaves_what_was_there() {
    let limit = Some(ByteCount::new(256 << 10));
    let engine = Engine::new(EngineConfig { pool_limit: limit, ..EngineConfig::default() }).unwrap();
    let mut scratch = engine.scratch();
    let mut block = engine.owner_block(GroupId::ROOT).unwrap();
    let mut stored = 0;
    for at in PageIndex::all() {
        let slot = block.slot_for_store(&engine, at).unwrap();
        if engine.store(slot, &page(2 + 8 * at.get() as u64), &mut scratch).is_err() {
            break;
        }
        stored += 1;
    }
    assert!((20..100).contains(&stored), "{stored} raw pages in 256 KiB");
    let slot = block.slot(index(0)).unwrap();
    engine.store(slot, &page(999 * 8 + 2), &mut scratch).unwrap_err();
    let mut bytes = [0; PAGE_SIZE];
    engine.load(slot, &mut bytes, &mut scratch).unwrap();
    assert!(bytes == page(2));
    // A pattern needs no room.
    engine.store(slot, &page(8), &mut scratch).unwrap();
    assert_eq!(engine.backing(slot), BackingKind::Fill);
    block.dispose(&engine);
    assert_eq!(engine.pool_payload(), ByteCount::ZERO);
}

#[test]
fn a_sequential_scan_of_a_segment_takes_few_reads_in_either_direction() {
    let disk = Flaky::new(64 << 20, Faults::default());
    let engine = Engine::with_storage(EngineConfig::default(), disk).unwrap();
    let mut scratch = engine.scratch_for_runs();
    let mut block = engine.owner_block(GroupId::ROOT).unwrap();
    for at in PageIndex::all() {
        let slot = block.slot_for_store(&engine, at).unwrap();
        engine.store(slot, &page(at.get() as u64 * 8 + 5), &mut scratch).unwrap();
    }
    let report = engine.writeback(ByteCount::mib(4), &mut scratch).unwrap();
    assert_eq!(report.pages, PageCount::new(512));
    let slots: Vec<_> = PageIndex::all().map(|at| block.slot(at)).collect();
    let from_device = |result: &&Loaded| matches!(result, Some(Ok(LoadedFrom::Segment)));
    let mut pages = vec![[0; PAGE_SIZE]; 512];
    let (mut at, mut reads) = (0, 0);
    while at < 512 {
        let mut loaded: Vec<Loaded> = (at..512).map(|_| None).collect();
        let together = engine.come_together(&slots[at..], 0, &scratch);
        engine.load_run(&slots[at..], 0, &mut pages[at..], &mut loaded, &mut scratch);
        reads += 1;
        let came = loaded.iter().take_while(from_device).count();
        assert_eq!(0..came, together);
        at += came;
    }
    assert!(pages.iter().enumerate().all(|(at, bytes)| *bytes == page(at as u64 * 8 + 5)));
    assert!(reads < 20, "{reads} reads for 512 pages");
    let (mut end, mut reads) = (512usize, 0);
    pages.fill([0; PAGE_SIZE]);
    while end > 0 {
        let start = end.saturating_sub(32);
        let mut loaded: Vec<Loaded> = (start..end).map(|_| None).collect();
        let (slots, pages) = (&slots[start..end], &mut pages[start..end]);
        let together = engine.come_together(slots, slots.len() - 1, &scratch);
        engine.load_run(slots, slots.len() - 1, pages, &mut loaded, &mut scratch);
        reads += 1;
        let came = loaded.iter().rev().take_while(from_device).count();
        assert_eq!(slots.len() - came..slots.len(), together);
        end -= came;
    }
    assert!(pages.iter().enumerate().all(|(at, bytes)| *bytes == page(at as u64 * 8 + 5)));
    assert!(reads < 40, "{reads} reads for 512 pages downwards, 32 at most at a time");
    block.dispose(&engine);
}

/// A read was of 64 KiB, whatever was wanted: half of a run of pages that do not compress, and more than there was to want of others.
#[test]
fn a_run_is_read_at_once_and_little_else_with_it() {
    for noise in [true, false] {
        let engine =
            Engine::with_storage(EngineConfig::default(), Flaky::new(64 << 20, Faults::default())).unwrap();
        let mut scratch = engine.scratch_for_runs();
        let mut block = engine.owner_block(GroupId::ROOT).unwrap();
        let content = |at: u64| if noise { page(at * 8 + 2) } else { record(at) };
        for at in PageIndex::all() {
            let slot = block.slot_for_store(&engine, at).unwrap();
            engine.store(slot, &content(at.get() as u64), &mut scratch).unwrap();
        }
        while engine.writeback(ByteCount::mib(4), &mut scratch).unwrap().pages > PageCount::ZERO {}
        let slots: Vec<_> = PageIndex::all().map(|at| block.slot(at)).collect();
        let mut pages = vec![[0; PAGE_SIZE]; 32];
        for asked in [0, 7, 31] {
            let mut loaded: Vec<Loaded> = (0..32).map(|_| None).collect();
            let before = engine.stats().read_bytes.get();
            engine.load_run(&slots[64..96], asked, &mut pages, &mut loaded, &mut scratch);
            let read = engine.stats().read_bytes.get() - before;
            assert!(
                loaded.iter().all(|result| matches!(result, Some(Ok(LoadedFrom::Segment)))),
                "{loaded:?}"
            );
            assert!((64..).zip(&pages).all(|(at, bytes)| *bytes == content(at)));
            let most = if noise { 34 * 4096 } else { 32 * 1024 };
            assert!(read <= most, "{read} bytes of the device for 32 pages, noise: {noise}");
        }
        block.dispose(&engine);
    }
}

/// Pages of one kind, as a program's heap has them: common parts that a dictionary can learn.
fn record(number: u64) -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    for (at, word) in page.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let mixed = (number * 512 + at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
        *word = match at % 4 {
            0 => 0x7f3a_5500_0000 | (mixed & 0xff_fff0),
            1 => 0x55d0_1020_3040 + (at as u64 % 24) * 0x1110,
            2 => mixed & 7,
            _ => 0,
        }
        .to_le_bytes();
    }
    page
}

#[test]
fn a_dictionary_is_learnt_once_there_is_enough_and_old_pages_stay_readable() {
    let engine = Engine::new(EngineConfig { codec: CodecChoice::Zstd, ..EngineConfig::default() }).unwrap();
    let mut scratch = engine.scratch();
    let mut blocks: Vec<_> = (0..48).map(|_| engine.owner_block(GroupId::ROOT).unwrap()).collect();
    let mut lengths = [0, 0];
    for (half, length) in lengths.iter_mut().enumerate() {
        for number in half * 12_288..(half + 1) * 12_288 {
            let at = index(number % 512);
            let slot = blocks[number / 512].slot_for_store(&engine, at).unwrap();
            match engine.store(slot, &record(number as u64), &mut scratch).unwrap() {
                StoredAs::Pool { length: stored } => *length += stored,
                other => panic!("{other:?}"),
            }
        }
        if half == 0 {
            // While others wait for the CPU it is put off, but not for ever.
            let call = (0..1000).find(|_| engine.maintain(true));
            assert!(
                call.is_some_and(|call| call > 100),
                "learnt at call {call:?}, the pool holds {}",
                engine.pool_bytes()
            );
        }
    }
    assert!(lengths[1] < lengths[0], "{lengths:?}: no shorter with a dictionary");
    let mut bytes = [0; PAGE_SIZE];
    for number in (0..24_576).step_by(97) {
        let slot = blocks[number / 512].slot(index(number % 512)).unwrap();
        engine.load(slot, &mut bytes, &mut scratch).unwrap();
        assert!(bytes == record(number as u64), "page {number}");
    }
    blocks.into_iter().for_each(|block| block.dispose(&engine));
    assert_eq!(engine.pool_payload(), ByteCount::ZERO);
}

#[test]
fn a_pool_that_was_thinned_out_is_packed() {
    let engine = Engine::new(EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() }).unwrap();
    let mut scratch = engine.scratch();
    let mut blocks: Vec<_> = (0..16).map(|_| engine.owner_block(GroupId::ROOT).unwrap()).collect();
    for number in 0..8192 {
        let slot = blocks[number / 512].slot_for_store(&engine, index(number % 512)).unwrap();
        engine.store(slot, &record(number as u64), &mut scratch).unwrap();
    }
    let full = engine.pool_bytes().get();
    for number in (0..8192).filter(|number| number % 8 != 0) {
        blocks[number / 512].release(&engine, index(number % 512));
    }
    let thin = engine.pool_bytes().get();
    assert!(thin > full * 3 / 4, "{thin} of {full}: every chunk has some left");
    while engine.compact(8, 2) > 0 {}
    let packed = engine.pool_bytes().get();
    assert!(packed < full / 4, "{packed} of {full} for an eighth of the pages");
    let mut bytes = [0; PAGE_SIZE];
    for number in (0..8192).step_by(8) {
        let slot = blocks[number / 512].slot(index(number % 512)).unwrap();
        engine.load(slot, &mut bytes, &mut scratch).unwrap();
        assert!(bytes == record(number as u64), "page {number}");
    }
    blocks.into_iter().for_each(|block| block.dispose(&engine));
    assert_eq!(engine.pool_payload(), ByteCount::ZERO);
}
