//! Objects whose bytes are on a tier, and threads.
use crate::{bytes, finish, objects};
use std::thread;
use vswap_core::ByteCount;
use vswap_engine::{EngineConfig, TierConfig};
use vswap_objects::{Holder, ObjectError};

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

/// A page that says which it is, whose turn wrote it, and has noise that follows from both.
fn told(page: u64, turn: u64) -> Vec<u8> {
    let mut content = bytes((page << 32 | turn << 2) | 2, 4096);
    content[..8].copy_from_slice(&page.to_le_bytes());
    content[8..16].copy_from_slice(&turn.to_le_bytes());
    content
}

/// Two write, each its own half of the pages, two at a time; two read and find each page as some turn wrote it, never an older one than before; one makes
/// snapshots, changes and drops them; all while everything goes to a tier.
#[test]
fn threads_read_what_was_written_last_while_all_moves() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tier = TierConfig::new(dir.path(), ByteCount::mib(64));
    let (engine, objects) = objects(EngineConfig { tiers: vec![tier], ..EngineConfig::default() });
    let object = objects.create();
    const PAGES: u64 = 256;
    const TURNS: u64 = 400;
    for page in 0..PAGES {
        object.write(page * 4096, &told(page, 0)).unwrap();
    }
    // Of a page's writer: where its turn begins.
    let first = |writer: u64, turn: u64| writer * PAGES / 2 + turn * 7 % (PAGES / 2 - 1);
    let check = |content: &[u8], page: u64| {
        let turn = u64::from_le_bytes(content[8..16].try_into().unwrap());
        assert!(content == told(page, turn), "page {page} is not as turn {turn} wrote it");
        turn
    };
    thread::scope(|scope| {
        for writer in 0..2 {
            let object = &object;
            scope.spawn(move || {
                for turn in 1..=TURNS {
                    let page = first(writer, turn);
                    object.write(page * 4096, &[told(page, turn), told(page + 1, turn)].concat()).unwrap();
                }
            });
        }
        for reader in 0..2 {
            let object = &object;
            scope.spawn(move || {
                let mut buf = vec![0; 3 * 4096];
                let mut newest = [0; PAGES as usize];
                for turn in 0..600 {
                    let page = (turn * 11 + reader * 128) % (PAGES - 2);
                    let read = object.read(page * 4096, &mut buf).unwrap();
                    assert_eq!((read.len, read.missing), (buf.len(), vec![]));
                    for (content, page) in buf.chunks(4096).zip(page..) {
                        let turn = check(content, page);
                        assert!(turn >= newest[page as usize], "page {page} is older than before");
                        newest[page as usize] = turn;
                    }
                    assert!(!object.extents(0..u64::MAX).is_empty());
                }
            });
        }
        let (object, engine) = (&object, &engine);
        scope.spawn(move || {
            let mut buf = vec![0; 4096];
            for turn in 0..40 {
                let snapshot = object.snapshot().unwrap();
                snapshot.write(turn * 4096 * 3, &[9; 5000]).unwrap();
                let page = (turn * 3 + 5) % PAGES;
                snapshot.read(page * 4096, &mut buf).unwrap();
                check(&buf, page);
                snapshot.punch(0..turn * 5000);
                snapshot.audit().unwrap();
            }
        });
        scope.spawn(move || {
            let mut scratch = engine.scratch();
            for _ in 0..60 {
                engine.writeback(ByteCount::mib(1), &mut scratch).unwrap();
                engine.maintain(false);
            }
        });
    });
    let mut last = [0; PAGES as usize];
    for (writer, turn) in (0..2).flat_map(|writer| (1..=TURNS).map(move |turn| (writer, turn))) {
        let page = first(writer, turn) as usize;
        last[page..page + 2].fill(turn);
    }
    let mut buf = vec![0; 4096];
    for page in 0..PAGES {
        object.read(page * 4096, &mut buf).unwrap();
        assert!(buf == told(page, last[page as usize]), "the last write to page {page} is lost");
    }
    drop(object);
    finish(&engine, objects);
}

/// The tier's file is overwritten behind its back, so that every page on it is lost.
#[test]
fn a_lost_page_is_told_of_and_made_good_by_writing_all_that_it_has() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("tier");
    let tier =
        TierConfig { size: Some(ByteCount::mib(16)), ..TierConfig::of(vswap_engine::TierKind::File, &path) };
    let (engine, objects) = objects(EngineConfig { tiers: vec![tier], ..EngineConfig::default() });
    let object = objects.create();
    object.write(0, &bytes(2, 3 * 4096)).unwrap();
    object.write(5 * 4096 + 10, &bytes(3, 50)).unwrap();
    engine.writeback(engine.pool_payload(), &mut engine.scratch()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xA5; 2 << 20], 2 << 20).unwrap();
    let offset_of = |error| match error {
        ObjectError::Unreadable { offset, .. } => offset,
        other => panic!("{other}"),
    };
    let mut buf = vec![0; 8192];
    assert_eq!(offset_of(object.read(4096, &mut buf).unwrap_err()), 4096);
    assert_eq!(offset_of(object.write(5000, &[1; 8]).unwrap_err()), 5000);
    assert_eq!(offset_of(object.read(5000, &mut buf[..8]).unwrap_err()), 4096);
    // What a page of which others bytes are lost never had is missing, and nothing more.
    let read = object.read(5 * 4096 + 30, &mut buf[..20]);
    assert_eq!(offset_of(read.unwrap_err()), 5 * 4096);
    assert_eq!(object.read(5 * 4096, &mut buf[..10]).unwrap().missing, Vec::from_iter(Some(20480..20490)));
    let lost = object.extents(4096..8192);
    assert_eq!(lost.iter().map(|extent| extent.holder).collect::<Vec<_>>(), [Holder::Lost]);
    let snapshot = object.snapshot().unwrap();
    // More than all that it had; all of it; nothing of it any more.
    object.write(5 * 4096, &[7; 100]).unwrap();
    object.write(4096, &[8; 4096]).unwrap();
    object.punch(0..4096);
    object.punch(8192..12288);
    let mut buf = vec![0; 5 * 4096 + 100];
    assert_eq!(object.read(0, &mut buf).unwrap().missing, vec![0..4096, 8192..20480]);
    assert!(buf[4096..8192] == [8; 4096] && buf[20480..] == [7; 100]);
    assert_eq!(offset_of(snapshot.read(4096, &mut buf[..1]).unwrap_err()), 4096);
    drop((object, snapshot));
    finish(&engine, objects);
}

/// What is on a device and long is read by several threads, each its part.
#[test]
fn a_long_read_from_a_tier_gives_each_byte_in_its_place_and_names_what_is_missing() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tier = TierConfig::new(dir.path(), ByteCount::mib(64));
    let (engine, objects) = objects(EngineConfig { tiers: vec![tier], ..EngineConfig::default() });
    let object = objects.create();
    const LEN: usize = 5 * MIB as usize + 12_345;
    let mut wanted: Vec<Option<u8>> = bytes(6, LEN).into_iter().map(Some).collect();
    object.write(0, &bytes(6, LEN)).unwrap();
    // Holes of all sizes, some over the borders of parts.
    for (at, len) in [(0, 10), (MIB as usize - 5, 9000), (2_600_000, 100_000), (4_000_001, 1), (LEN - 7, 3)] {
        object.punch(at as u64..(at + len) as u64);
        wanted[at..at + len].fill(None);
    }
    for (offset, len) in [(0, LEN), (1, LEN), (4095, 3_000_000), (700_000, 524_288), (123, 4 << 20)] {
        engine.writeback(engine.pool_payload(), &mut engine.scratch()).unwrap();
        let mut buf = vec![9; len];
        let read = object.read(offset as u64, &mut buf).unwrap();
        assert_eq!(read.len, len.min(LEN - offset));
        let mut found: Vec<_> = buf[..read.len].iter().copied().map(Some).collect();
        for gap in &read.missing {
            let gap = gap.start as usize - offset..gap.end as usize - offset;
            assert!(buf[gap.clone()].iter().all(|byte| *byte == 0));
            found[gap].fill(None);
        }
        assert!(found == wanted[offset..offset + read.len], "{offset} {len}");
        assert!(buf[read.len..].iter().all(|byte| *byte == 9), "behind the end");
    }
    drop(object);
    finish(&engine, objects);
}
