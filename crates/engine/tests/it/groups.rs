//! Groups of an engine: what they may have, and that what is charged is what is there while all of it moves.
use crate::flaky::{Faults, Flaky};
use crate::rig::{middling, share_of};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use vswap_core::{ByteCount, Event, GroupId, MAX_GROUPS, PAGE_SIZE, PageIndex, Resource};
use vswap_engine::{Bounds, Engine, EngineConfig, StoreError};

fn index(at: usize) -> PageIndex {
    PageIndex::new(at).unwrap()
}

#[test]
fn the_least_limit_on_the_way_up_refuses_a_store_and_the_slot_keeps_what_it_held() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let mut scratch = engine.scratch();
    let above = engine.new_group(GroupId::ROOT).unwrap();
    let below = engine.new_group(above).unwrap();
    engine.set_group_limit(above, Resource::Swap, Some(2)).unwrap();
    engine.set_group_limit(below, Resource::Swap, Some(3)).unwrap();
    let mut block = engine.owner_block(below).unwrap();
    let mut store = |at: usize, content: usize, block: &mut vswap_engine::OwnerBlock| {
        let slot = block.slot_for_store(&engine, index(at)).unwrap();
        engine.store(slot, &middling(content), &mut scratch)
    };
    store(0, 1, &mut block).unwrap();
    store(1, 2, &mut block).unwrap();
    let refused = store(2, 3, &mut block).unwrap_err();
    assert!(matches!(refused, StoreError::GroupFull { full, .. } if full.group == above), "{refused}");
    // What takes no page more is stored.
    store(1, 4, &mut block).unwrap();
    let pool = engine.group(below).unwrap().pool.usage;
    engine.set_group_limit(below, Resource::Pool, Some(pool)).unwrap();
    let refused = store(1, 5, &mut block).unwrap_err();
    assert!(refused.to_string().contains("bytes in the pool"), "{refused}");
    let mut page = [0; PAGE_SIZE];
    engine.load(block.slot(index(1)).unwrap(), &mut page, &mut engine.scratch()).unwrap();
    assert!(page == middling(4));
    let figures = engine.group(below).unwrap().swap;
    assert_eq!((figures.usage, figures.limit, figures.effective), (2, Some(3), Some(2)));
    engine.audit_groups().unwrap();
    block.dispose(&engine);
    engine.audit_groups().unwrap();
    assert_eq!(engine.group(GroupId::ROOT).unwrap().pool.usage, 0);
}

/// As in the kernel, a move is never refused; what is stored within some limits only is charged all the same.
#[test]
fn what_moves_to_a_full_group_is_charged_there_and_what_only_passes_the_pool_may_pass_its_limit() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let mut scratch = engine.scratch();
    let group = engine.new_group(GroupId::ROOT).unwrap();
    let mut block = engine.owner_block(GroupId::ROOT).unwrap();
    let slots: Vec<_> = (0..4).map(|at| block.slot_for_store(&engine, index(at)).unwrap()).collect();
    engine.store(slots[0], &middling(0), &mut scratch).unwrap();
    engine.store(slots[1], &middling(1), &mut scratch).unwrap();
    engine.set_group_limit(group, Resource::Swap, Some(1)).unwrap();
    engine.set_group_limit(group, Resource::Pool, Some(0)).unwrap();
    block.move_to_group(&engine, group).unwrap();
    assert_eq!(engine.group(group).unwrap().swap.usage, 2);
    assert_eq!(engine.group_tree().room(group, Resource::Swap), 0);
    engine.audit_groups().unwrap();
    engine.set_group_limit(group, Resource::Swap, Some(3)).unwrap();
    let mut store = |bounds, slot, seed| engine.store_within(bounds, slot, &middling(seed), &mut scratch);
    assert!(store(Bounds::All, slots[2], 2).is_err());
    store(Bounds::Swap, slots[2], 2).unwrap();
    assert!(store(Bounds::Swap, slots[3], 3).is_err());
    store(Bounds::None, slots[3], 3).unwrap();
    assert_eq!(engine.group(group).unwrap().swap.usage, 4);
    engine.audit_groups().unwrap();
    block.dispose(&engine);
    engine.audit_groups().unwrap();
}

#[test]
fn a_group_that_is_removed_leaves_its_pages_its_groups_and_its_owners_to_its_parent() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let mut scratch = engine.scratch();
    let above = engine.new_group(GroupId::ROOT).unwrap();
    let between = engine.new_group(above).unwrap();
    let below = engine.new_group(between).unwrap();
    let mut blocks: Vec<_> = [between, below].map(|group| engine.owner_block(group).unwrap()).into();
    let store = |blocks: &mut [vswap_engine::OwnerBlock], at: usize, scratch: &mut _| {
        for block in blocks {
            let slot = block.slot_for_store(&engine, index(at)).unwrap();
            engine.store(slot, &middling(at), scratch).unwrap();
        }
    };
    store(&mut blocks, 0, &mut scratch);
    engine.remove_group(between).unwrap();
    store(&mut blocks, 1, &mut scratch);
    assert_eq!(engine.group(below).unwrap().parent, Some(above));
    assert_eq!(engine.group(above).unwrap().swap.usage, 4);
    assert_eq!(engine.group(below).unwrap().swap.usage, 2);
    let stored = Event::ALL.iter().position(|event| *event == Event::Zswpout).unwrap();
    assert_eq!(engine.group(above).unwrap().events[stored], 4);
    assert!(engine.group(between).is_err() && engine.owner_block(between).is_err());
    engine.audit_groups().unwrap();
    blocks.into_iter().for_each(|block| block.dispose(&engine));
    engine.audit_groups().unwrap();
}

/// A cluster is free as soon as its last owner has gone; what it had charged must be taken off by then, and not when it is somebody else's.
#[test]
fn an_owner_that_goes_while_its_pages_are_written_leaves_no_charge_behind() {
    let disk = Flaky::new(256 << 20, Faults::default());
    let engine = Engine::with_storage(EngineConfig::default(), disk).unwrap();
    let group = engine.new_group(GroupId::ROOT).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut scratch = engine.scratch();
            while !over.load(Ordering::Relaxed) {
                engine.writeback(ByteCount::new(1), &mut scratch).unwrap();
            }
        });
        let owners = scope.spawn(|| {
            let mut scratch = engine.scratch();
            for turn in 0..share_of(3_000) as usize {
                // By turns of groups, so that a charge that comes late is found with the wrong one.
                let mut block = engine.owner_block([GroupId::ROOT, group][turn % 2]).unwrap();
                for at in 0..12 {
                    let slot = block.slot_for_store(&engine, index(at)).unwrap();
                    engine.store(slot, &middling(turn + at), &mut scratch).unwrap();
                }
                block.dispose(&engine);
            }
        });
        let went_well = owners.join();
        over.store(true, Ordering::Relaxed);
        went_well.unwrap();
    });
    engine.audit_groups().unwrap();
    assert!(engine.groups().iter().all(|group| group.swap.usage == 0 && group.pool.usage == 0));
}

/// Stores, writeback, compaction, forks and moves between groups at once: no byte is charged twice, to nobody, or to two.
#[test]
fn charges_are_exact_after_everything_met_everything() {
    const BLOCKS: usize = 4;
    let disk = Flaky::new(256 << 20, Faults::default());
    let engine = Engine::with_storage(EngineConfig::default(), disk).unwrap();
    let groups: Vec<_> = (0..3).map(|_| engine.new_group(GroupId::ROOT).unwrap()).collect();
    let groups = [groups, vec![engine.new_group(GroupId::new(1)).unwrap()]].concat();
    let blocks: Vec<_> = (0..BLOCKS).map(|_| Mutex::new(engine.owner_block(groups[0]).unwrap())).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storers: Vec<_> = (0..2)
            .map(|thread| {
                let (engine, blocks) = (&engine, &blocks);
                scope.spawn(move || {
                    let mut scratch = engine.scratch();
                    for step in 0..share_of(6_000) as usize {
                        let block = &blocks[thread * 2 + step % 2];
                        let at = index(step * 31 % 64);
                        if step % 5 == 0 {
                            block.lock().release(engine, at);
                            continue;
                        }
                        // As the pager does: the slot under the lock, the bytes without it. Nobody else stores to it.
                        let slot = block.lock().slot_for_store(engine, at).unwrap();
                        engine.store(slot, &middling(step), &mut scratch).unwrap();
                        if step % 97 == 0 {
                            let mut child = block.lock().fork(engine);
                            child.release(engine, at);
                            child.dispose(engine);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut scratch = engine.scratch();
            while !over.load(Ordering::Relaxed) {
                engine.writeback(ByteCount::new(64 << 10), &mut scratch).unwrap();
                engine.compact(3, 3);
            }
        });
        scope.spawn(|| {
            for turn in (0..).take_while(|_| !over.load(Ordering::Relaxed)) {
                let group = groups[turn * 7 % groups.len()];
                blocks[turn % BLOCKS].lock().move_to_group(&engine, group).unwrap();
            }
        });
        storers.into_iter().for_each(|thread| thread.join().unwrap());
        over.store(true, Ordering::Relaxed);
    });
    engine.audit_groups().unwrap();
    let pages: u64 = engine.group(GroupId::ROOT).unwrap().swap.usage;
    assert!(pages > 0);
    blocks.into_iter().for_each(|block| block.into_inner().dispose(&engine));
    engine.audit_groups().unwrap();
    assert_eq!(engine.group(GroupId::ROOT).unwrap().swap.usage, 0);
}

/// A group for each job, over months: what was made before must not be in the way, nor in what is charged to whom.
#[test]
fn thousands_of_groups_come_and_go_and_every_figure_stays_right() {
    const TURNS: usize = 6_000;
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let mut scratch = engine.scratch();
    let stays = engine.new_group(GroupId::ROOT).unwrap();
    let mut kept = engine.owner_block(stays).unwrap();
    let mut store = |block: &mut vswap_engine::OwnerBlock, at: usize| {
        let slot = block.slot_for_store(&engine, index(at)).unwrap();
        engine.store(slot, &middling(at), &mut scratch).unwrap();
    };
    store(&mut kept, 0);
    let mut living = std::collections::VecDeque::new();
    let mut left = Vec::new();
    for turn in 0..TURNS {
        let group = engine.new_group([stays, GroupId::ROOT][turn % 2]).unwrap();
        if turn % 500 == 0 {
            let mut block = engine.owner_block(group).unwrap();
            store(&mut block, 1);
            left.push(block);
        }
        living.push_back(group);
        if living.len() > 20 {
            engine.remove_group(living.pop_front().unwrap()).unwrap();
        }
    }
    engine.audit_groups().unwrap();
    let there: Vec<_> = engine.groups().into_iter().map(|group| group.id).collect();
    let expected: Vec<_> = [GroupId::ROOT, stays].into_iter().chain(living.iter().copied()).collect();
    assert_eq!(there, expected);
    // All that had pages have gone, and were below the one that stays.
    assert_eq!(engine.group(stays).unwrap().swap.usage, 1 + left.len() as u64);
    engine.set_group_limit(living[0], Resource::Swap, Some(1)).unwrap();
    assert_eq!(engine.group(living[0]).unwrap().swap.effective, Some(1));
    left.into_iter().for_each(|block| block.dispose(&engine));
    kept.dispose(&engine);
    engine.audit_groups().unwrap();
    assert!(engine.groups().iter().all(|group| group.swap.usage == 0 && group.pool.usage == 0));
}

#[test]
fn as_many_groups_can_be_made_as_a_clusters_word_can_name_and_the_next_is_refused() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let before = engine.metadata_bytes().get();
    let mut last = GroupId::ROOT;
    for _ in 1..MAX_GROUPS {
        let group = engine.new_group(GroupId::ROOT).unwrap();
        if last != GroupId::ROOT {
            engine.remove_group(last).unwrap();
        }
        last = group;
    }
    assert_eq!(last.get(), MAX_GROUPS - 1);
    let refused = engine.new_group(GroupId::ROOT).unwrap_err().to_string();
    assert_eq!(refused, "no other group can be made: 65535 were made since the start");
    assert_eq!(engine.groups().len(), 2, "those that were removed count all the same");
    // What is charged to the last is not taken for another's.
    let mut block = engine.owner_block(last).unwrap();
    let slot = block.slot_for_store(&engine, index(0)).unwrap();
    engine.store(slot, &middling(0), &mut engine.scratch()).unwrap();
    assert_eq!(engine.group_of(slot), last);
    assert_eq!(engine.group(last).unwrap().swap.usage, 1);
    engine.audit_groups().unwrap();
    let lines = u64::from(MAX_GROUPS - 1) * 256;
    assert!(engine.metadata_bytes().get() >= before + lines, "their lines are memory of the engine's");
    block.dispose(&engine);
}
