//! Objects whose bytes are on a tier, and threads.
use crate::{bytes, finish, objects};
use std::thread;
use vswap_core::ByteCount;
use vswap_engine::{EngineConfig, TierConfig};
use vswap_objects::Holder;

const MIB: u64 = 1 << 20;

#[test]
fn what_was_written_in_sequence_is_a_few_extents_of_a_tier() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tier = TierConfig::new(dir.path(), ByteCount::mib(64));
    let (engine, objects) = objects(EngineConfig { tiers: vec![tier], ..EngineConfig::default() });
    let object = objects.create();
    object.write(0, &bytes(2, MIB as usize)).unwrap();
    object.write(2 * MIB, &[5; 8192]).unwrap();
    assert_eq!(object.extents(0..u64::MAX)[0].holder, Holder::Memory);
    engine.writeback(engine.pool_payload(), &mut engine.scratch()).unwrap();
    let extents = object.extents(0..u64::MAX);
    let [bulk, pattern] = &extents[..] else { panic!("{extents:?}") };
    assert_eq!((pattern.range.clone(), pattern.holder), (2 * MIB..2 * MIB + 8192, Holder::Pattern));
    let Holder::Tier { tier, blocks, .. } = bulk.holder else { panic!("{bulk:?}") };
    assert_eq!((bulk.range.clone(), tier), (0..MIB, engine.tiers()[0].id));
    // Headers of 32 bytes beside 4096, and a block at either end.
    assert!((256..=260).contains(&blocks), "{blocks}");
    drop(object);
    finish(&engine, objects);
}

#[test]
fn pages_that_follow_each_other_in_the_object_alone_are_extents_of_their_own() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tier = TierConfig::new(dir.path(), ByteCount::mib(64));
    let (engine, objects) = objects(EngineConfig { tiers: vec![tier], ..EngineConfig::default() });
    let object = objects.create();
    for odd in 0..2 {
        for page in 0..8 {
            object.write((page * 2 + odd) * 4096, &bytes(2, 4096)).unwrap();
        }
        engine.writeback(engine.pool_payload(), &mut engine.scratch()).unwrap();
    }
    let extents = object.extents(0..u64::MAX);
    assert_eq!(extents.len(), 16, "{extents:?}");
    let ranges = extents.iter().map(|extent| extent.range.clone());
    assert!(ranges.eq((0..16).map(|page| page * 4096..(page + 1) * 4096)));
    drop(object);
    finish(&engine, objects);
}

/// Two write, each to their own pages of every 8; two read those and find each as it was written at some time, while all goes to a tier.
#[test]
fn threads_read_whole_writes_while_all_moves() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tier = TierConfig::new(dir.path(), ByteCount::mib(64));
    let (engine, objects) = objects(EngineConfig { tiers: vec![tier], ..EngineConfig::default() });
    let object = objects.create();
    const PAGES: u64 = 256;
    object.write(0, &vec![0; PAGES as usize * 4096]).unwrap();
    thread::scope(|scope| {
        for writer in 0..2_u64 {
            let object = &object;
            scope.spawn(move || {
                for turn in 0..400_u64 {
                    let page = turn * 7 % (PAGES / 2) * 2 + writer;
                    // The number of the turn, and noise that follows from it.
                    let mut page_bytes = bytes(turn | 2, 4096);
                    page_bytes[..8].copy_from_slice(&(turn | 2).to_le_bytes());
                    object.write(page * 4096, &page_bytes).unwrap();
                }
            });
        }
        for reader in 0..2_u64 {
            let object = &object;
            scope.spawn(move || {
                let mut buf = vec![0; 3 * 4096];
                for turn in 0..600_u64 {
                    let page = (turn * 11 + reader * 128) % (PAGES - 2);
                    let read = object.read(page * 4096, &mut buf).unwrap();
                    assert_eq!((read.len, read.missing), (buf.len(), vec![]));
                    for page_bytes in buf.chunks(4096) {
                        let number = u64::from_le_bytes(page_bytes[..8].try_into().unwrap());
                        let right = if number == 0 { vec![0; 4096] } else { bytes(number, 4096) };
                        assert!(page_bytes[8..] == right[8..], "a page of write {number} has other bytes");
                    }
                }
            });
        }
        let engine = &engine;
        scope.spawn(move || {
            let mut scratch = engine.scratch();
            for _ in 0..60 {
                engine.writeback(ByteCount::mib(1), &mut scratch).unwrap();
                engine.maintain(false);
            }
        });
    });
    drop(object);
    finish(&engine, objects);
}
