//! Several owners against maps: store, load, release, fork, dispose, writeback, tiers that come and go. Counts are exact: when all
//! owners are gone nothing is left anywhere.
use crate::flaky::{Faults, Flaky};
use crate::pages::page;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PAGES_PER_CLUSTER, PageCount, PageIndex, Resource};
use vswap_engine::{
    BackingKind, CodecChoice, Engine, EngineConfig, Group, Loaded, LoadedFrom, OwnerBlock, RemoveTierError,
    Scratch, StoreError, StoredAs, TierError, TierShare, TierState, Unreadable,
};

#[derive(Clone, Debug)]
enum Op {
    Store {
        owner: usize,
        at: usize,
        number: u64,
    },
    Load {
        owner: usize,
        at: usize,
    },
    Release {
        owner: usize,
        at: usize,
    },
    Fork {
        owner: usize,
    },
    Move {
        from: usize,
        at: usize,
        owner: usize,
        to: usize,
    },
    Adopt {
        from: usize,
        owner: usize,
        at: usize,
        to: usize,
    },
    LoadRun {
        owner: usize,
        at: usize,
        asked: usize,
    },
    Dispose {
        owner: usize,
    },
    New,
    Writeback {
        kib: u64,
    },
    Maintain,
    AddTier {
        priority: i16,
    },
    /// Emptied until it is, or until so many segments have been looked at.
    RemoveTier {
        at: usize,
        cancel_after: usize,
    },
    NewGroup {
        parent: u32,
    },
    RemoveGroup {
        group: u32,
    },
    MoveToGroup {
        owner: usize,
        group: u32,
    },
    Limit {
        group: u32,
        resource: Resource,
        limit: Option<u64>,
    },
    WritebackOf {
        group: u32,
    },
    LimitTier {
        group: u32,
        at: usize,
        segments: Option<u64>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    // Few positions, so that owners meet often; the last one is there for the ends of ranges.
    let at = || prop_oneof![0..12usize, Just(PAGES_PER_CLUSTER - 1)];
    let owner = || 0..5usize;
    let group = || 0..6u32;
    prop_oneof![
        20 => (owner(), at(), 0..4000u64).prop_map(|(owner, at, number)| Op::Store { owner, at, number }),
        10 => (owner(), at()).prop_map(|(owner, at)| Op::Load { owner, at }),
        8 => (owner(), at()).prop_map(|(owner, at)| Op::Release { owner, at }),
        3 => (owner(), at(), owner(), at()).prop_map(|(from, at, owner, to)| Op::Move { from, at, owner, to }),
        3 => (owner(), owner(), at(), at()).prop_map(|(from, owner, at, to)| Op::Adopt { from, owner, at, to }),
        4 => (owner(), 0..12usize, 0..14usize).prop_map(|(owner, at, asked)| Op::LoadRun { owner, at, asked }),
        4 => owner().prop_map(|owner| Op::Fork { owner }),
        2 => owner().prop_map(|owner| Op::Dispose { owner }),
        1 => Just(Op::New),
        2 => (1..64u64).prop_map(|kib| Op::Writeback { kib }),
        1 => Just(Op::Maintain),
        1 => (-1..2i16).prop_map(|priority| Op::AddTier { priority }),
        2 => (0..4usize, 0..6usize).prop_map(|(at, cancel_after)| Op::RemoveTier { at, cancel_after }),
        2 => group().prop_map(|parent| Op::NewGroup { parent }),
        1 => group().prop_map(|group| Op::RemoveGroup { group }),
        4 => (owner(), group()).prop_map(|(owner, group)| Op::MoveToGroup { owner, group }),
        1 => (group(), prop::option::of(0..24u64))
            .prop_map(|(group, limit)| Op::Limit { group, resource: Resource::Swap, limit }),
        1 => (group(), prop::option::of(0..20_000u64))
            .prop_map(|(group, limit)| Op::Limit { group, resource: Resource::Pool, limit }),
        1 => group().prop_map(|group| Op::WritebackOf { group }),
        2 => (group(), 0..4usize, prop::option::of(0..3u64))
            .prop_map(|(group, at, segments)| Op::LimitTier { group, at, segments }),
    ]
}

struct Owner {
    block: OwnerBlock,
    pages: BTreeMap<usize, u64>,
}

struct World {
    engine: Arc<Engine>,
    scratch: Scratch,
    owners: Vec<Owner>,
}

fn index(at: usize) -> PageIndex {
    PageIndex::new(at).unwrap()
}

impl World {
    fn new(codec: CodecChoice, disk: bool) -> Self {
        let config = EngineConfig { codec, ..EngineConfig::default() };
        let engine = match disk {
            true => Engine::with_storage(config, Flaky::new(64 << 20, Faults::default())),
            false => Engine::new(config),
        };
        let engine = engine.unwrap();
        let scratch = engine.scratch_for_runs();
        let mut world = Self { engine, scratch, owners: Vec::new() };
        world.add();
        world
    }

    fn add(&mut self) {
        let block = self.engine.owner_block(GroupId::ROOT).unwrap();
        self.owners.push(Owner { block, pages: BTreeMap::new() });
    }

    fn apply(&mut self, op: Op, disk: bool) -> Result<(), TestCaseError> {
        let Self { engine, scratch, owners } = self;
        let count = owners.len();
        let before = shares(engine);
        let changes_limits = matches!(op, Op::LimitTier { .. });
        match op {
            Op::New => self.add(),
            Op::Maintain => {
                engine.maintain(false);
                engine.compact(3, 3);
            }
            Op::Writeback { kib } if disk => {
                let report = engine.writeback(ByteCount::new(kib << 10), scratch).unwrap();
                prop_assert!(!report.disk_full);
            }
            Op::AddTier { priority } if disk && engine.tiers().len() < 5 => {
                engine.add_storage(Flaky::new(64 << 20, Faults::default()), priority).unwrap();
            }
            Op::RemoveTier { at, cancel_after } if engine.tiers().len() > 1 => {
                remove_tier(engine, at, cancel_after)?;
            }
            Op::AddTier { .. } | Op::RemoveTier { .. } => {}
            Op::NewGroup { parent } => {
                // The parent may not be there.
                let _ = engine.new_group(GroupId::new(parent));
            }
            Op::RemoveGroup { group } => {
                let there = group > 0 && engine.group(GroupId::new(group)).is_ok();
                prop_assert_eq!(engine.remove_group(GroupId::new(group)).is_ok(), there);
            }
            Op::Limit { group, resource, limit } => {
                let there = engine.group(GroupId::new(group)).is_ok();
                prop_assert_eq!(engine.set_group_limit(GroupId::new(group), resource, limit).is_ok(), there);
            }
            Op::WritebackOf { group } if disk => {
                let others = |engine: &Engine| {
                    let (all, own) = (engine.group(GroupId::ROOT), engine.group(GroupId::new(group)));
                    all.unwrap().pool.usage - own.map_or(0, |group| group.pool.usage)
                };
                let before = others(engine);
                let there = engine.group(GroupId::new(group)).is_ok();
                let report = engine.writeback_of(GroupId::new(group), ByteCount::mib(2), scratch).unwrap();
                if there {
                    prop_assert_eq!(others(engine), before, "of others nothing is written");
                    let left = engine.group(GroupId::new(group)).unwrap().pool.usage;
                    prop_assert!(left == 0 || report.limited, "{} bytes, {:?}", left, report);
                }
            }
            Op::LimitTier { group, at, segments } if disk && !engine.tiers().is_empty() => {
                let tiers = engine.tiers();
                let (group, tier) = (GroupId::new(group), tiers[at % tiers.len()].id);
                let bytes = segments.map(|segments| ByteCount::new((segments << 21) + 4095));
                let there = engine.group(group).is_ok();
                prop_assert_eq!(engine.set_tier_limit(group, tier, bytes).is_ok(), there);
            }
            Op::LimitTier { .. } => {}
            _ if count == 0 => {}
            Op::MoveToGroup { owner, group } => {
                let block = &mut owners[owner % count].block;
                let there = engine.group(GroupId::new(group)).is_ok();
                let moved = block.move_to_group(engine, GroupId::new(group));
                prop_assert!(there || moved.is_err());
                prop_assert_eq!(
                    block.group() == GroupId::new(group),
                    moved.is_ok() || block.group().get() == group
                );
            }
            Op::Store { owner, at, number } => {
                let owner = &mut owners[owner % count];
                let slot = owner.block.slot_for_store(engine, index(at)).unwrap();
                prop_assert_eq!(owner.block.slot(index(at)), Some(slot));
                match engine.store(slot, &page(number), scratch) {
                    Ok(_) => drop(owner.pages.insert(at, number)),
                    Err(StoreError::GroupFull { full, .. }) => {
                        let most = if full.resource == Resource::Swap { 1 } else { PAGE_SIZE as u64 };
                        prop_assert!(full.usage + most > full.limit, "{}", full);
                        // The page stays with its owner; what is here of it is of no use.
                        owner.block.release(engine, index(at));
                        owner.pages.remove(&at);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Op::Load { owner, at } => check(engine, scratch, &owners[owner % count], at)?,
            Op::LoadRun { owner, at, asked } => {
                check_run(engine, scratch, &owners[owner % count], at, asked)?
            }
            Op::Move { from, at, owner, to } if from % count != owner % count => {
                let [source, target] = owners.get_disjoint_mut([from % count, owner % count]).unwrap();
                source.block.move_page(engine, index(at), &mut target.block, index(to));
                match source.pages.remove(&at) {
                    Some(number) => target.pages.insert(to, number),
                    None => target.pages.remove(&to),
                };
            }
            Op::Adopt { from, owner, at, to } => {
                let source = &owners[from % count];
                let (Some(slot), Some(number)) =
                    (source.block.slot(index(at)), source.pages.get(&at).copied())
                else {
                    return Ok(());
                };
                engine.keep_slot(slot);
                if to == at && from % count == owner % count {
                    // Thought better of.
                    engine.let_slot_go(slot);
                } else {
                    owners[owner % count].block.adopt(engine, index(to), slot);
                    owners[owner % count].pages.insert(to, number);
                }
            }
            Op::Release { owner, at } => {
                let owner = &mut owners[owner % count];
                owner.block.release(engine, index(at));
                owner.pages.remove(&at);
                prop_assert!(!owner.block.has_backing(engine, index(at)));
            }
            Op::Fork { owner } if count < 8 => {
                let owner = &mut owners[owner % count];
                let child = Owner { block: owner.block.fork(engine), pages: owner.pages.clone() };
                owners.push(child);
            }
            Op::Dispose { owner } => owners.swap_remove(owner % count).block.dispose(engine),
            Op::Fork { .. } | Op::Writeback { .. } | Op::WritebackOf { .. } | Op::Move { .. } => {}
        }
        let audit = self.engine.audit_groups().and(self.engine.audit_tiers());
        prop_assert!(audit.is_ok(), "{:?}", audit);
        let after = shares(&self.engine);
        for (key, (usage, limit)) in after.iter().filter(|_| !changes_limits) {
            let had = before.get(key).map_or(ByteCount::ZERO, |(usage, _)| *usage);
            prop_assert!(limit.is_none_or(|limit| *usage <= limit.max(had)), "{:?}: {:?}", key, after);
        }
        Ok(())
    }

    fn check_all(&mut self) -> Result<(), TestCaseError> {
        for owner in &self.owners {
            for at in (0..14).chain([PAGES_PER_CLUSTER - 1]) {
                check(&self.engine, &mut self.scratch, owner, at)?;
            }
        }
        Ok(())
    }

    fn check_nothing_left(self) -> Result<(), TestCaseError> {
        let engine = self.engine;
        for owner in self.owners {
            owner.block.dispose(&engine);
        }
        let stats = engine.stats();
        prop_assert_eq!(stats.pool_pages, PageCount::ZERO);
        prop_assert_eq!(stats.pool_payload, ByteCount::ZERO);
        prop_assert_eq!(stats.segment_pages, PageCount::ZERO);
        prop_assert_eq!(stats.disk_bytes, ByteCount::ZERO);
        prop_assert_eq!(stats.clusters, 0);
        let empty = engine.groups().iter().all(|group| group.swap.usage == 0 && group.pool.usage == 0);
        prop_assert!(empty, "{:?}", engine.groups());
        let used: Vec<ByteCount> = shares(&engine).into_values().map(|(usage, _)| usage).collect();
        prop_assert!(used.iter().all(|usage| *usage == ByteCount::ZERO), "{:?}", used);
        Ok(())
    }
}

/// What each group has of each tier, and may have.
fn shares(engine: &Engine) -> BTreeMap<(GroupId, u8), (ByteCount, Option<ByteCount>)> {
    let of = |group: Group| {
        let share = move |share: TierShare| ((group.id, share.tier.get()), (share.usage, share.limit));
        group.tiers.into_iter().map(share)
    };
    engine.groups().into_iter().flat_map(of).collect()
}

/// The tier is gone afterwards, or all of them are as they were; nobody's page has gone with it.
fn remove_tier(engine: &Engine, at: usize, cancel_after: usize) -> Result<(), TestCaseError> {
    let before = engine.tiers();
    let tier = before[at % before.len()].id;
    let pages = engine.stats().segment_pages;
    let mut looks = 0;
    let removed = engine.remove_tier(tier, Unreadable::Keep, &mut |_| {
        looks += 1;
        if looks > cancel_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let after = engine.tiers();
    match removed {
        Ok(_) => prop_assert!(after.len() + 1 == before.len() && after.iter().all(|other| other.id != tier)),
        Err(RemoveTierError::Cancelled { left, .. }) => {
            let used = after.iter().find(|other| other.id == tier).map(|other| other.used);
            prop_assert_eq!(used, Some(left));
            prop_assert!(looks > cancel_after && after.len() == before.len());
        }
        Err(RemoveTierError::Tier(TierError::NoRoom { .. }) | RemoveTierError::NoRoom { .. })
            if shares(engine).into_values().any(|(_, limit)| limit.is_some()) => {}
        Err(error) => prop_assert!(false, "{}", error),
    }
    prop_assert!(after.iter().all(|other| other.state == TierState::Open));
    prop_assert_eq!(engine.stats().segment_pages, pages);
    Ok(())
}

fn check(engine: &Engine, scratch: &mut Scratch, owner: &Owner, at: usize) -> Result<(), TestCaseError> {
    let known = owner.pages.get(&at);
    prop_assert_eq!(owner.block.has_backing(engine, index(at)), known.is_some(), "page {}", at);
    let (Some(number), Some(slot)) = (known, owner.block.slot(index(at))) else { return Ok(()) };
    let mut bytes = [0xee; PAGE_SIZE];
    engine.load(slot, &mut bytes, scratch).unwrap();
    prop_assert!(bytes == page(*number), "page {at} is not number {number}: {:?}", engine.backing(slot));
    Ok(())
}

/// A run gives the page asked for and, of the others, those that it says, all of them right.
fn check_run(
    engine: &Engine,
    scratch: &mut Scratch,
    owner: &Owner,
    from: usize,
    asked: usize,
) -> Result<(), TestCaseError> {
    let slots: Vec<_> = (from..14).map(|at| owner.block.slot(index(at))).collect();
    let asked = asked % slots.len();
    let mut pages = vec![[0xee; PAGE_SIZE]; slots.len()];
    let mut loaded: Vec<Loaded> = slots.iter().map(|_| None).collect();
    engine.load_run(&slots, asked, &mut pages, &mut loaded, scratch);
    prop_assert_eq!(loaded[asked].is_some(), slots[asked].is_some());
    for (at, (result, bytes)) in loaded.iter().zip(&pages).enumerate() {
        let (Some(result), Some(number)) = (result, owner.pages.get(&(from + at))) else { continue };
        prop_assert!(result.is_ok() && *bytes == page(*number), "page {} of the run: {:?}", at, result);
    }
    Ok(())
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(count) }
}

fn codec() -> impl Strategy<Value = CodecChoice> {
    prop::sample::select(vec![CodecChoice::Lz4, CodecChoice::Zstd, CodecChoice::Auto])
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn owners_in_memory_are_maps(ops in prop::collection::vec(op(), 0..300), codec in codec()) {
        let mut world = World::new(codec, false);
        for op in ops {
            world.apply(op, false)?;
        }
        world.check_all()?;
        world.check_nothing_left()?;
    }

    #[test]
    fn owners_over_a_disk_are_maps(ops in prop::collection::vec(op(), 0..300), codec in codec()) {
        let mut world = World::new(codec, true);
        for op in ops {
            world.apply(op, true)?;
        }
        world.check_all()?;
        world.check_nothing_left()?;
    }
}

#[test]
fn more_than_254_owners_are_counted_exactly() {
    let mut world = World::new(CodecChoice::Lz4, false);
    world.apply(Op::Store { owner: 0, at: 3, number: 12 }, false).unwrap();
    let engine = Arc::clone(&world.engine);
    for _ in 0..600 {
        let parent = &mut world.owners[0];
        let mut child = Owner { block: parent.block.fork(&engine), pages: parent.pages.clone() };
        // A change elsewhere in the block gives the child a list that names page 3.
        let slot = child.block.slot_for_store(&engine, index(9)).unwrap();
        engine.store(slot, &page(21), &mut world.scratch).unwrap();
        child.pages.insert(9, 21);
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
