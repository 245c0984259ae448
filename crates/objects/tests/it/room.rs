//! Where there is no room.
use crate::{bytes, finish, objects};
use std::sync::Arc;
use vswap_core::{ByteCount, GroupId};
use vswap_engine::{EngineConfig, TierConfig};
use vswap_objects::{MAX_LEN, Object, ObjectError, Objects};

const MIB: usize = 1 << 20;

fn all(object: &Object) -> Vec<u8> {
    let mut buf = vec![0; object.len() as usize];
    assert_eq!(object.read(0, &mut buf).unwrap().missing, []);
    buf
}

#[test]
fn a_write_that_finds_no_room_says_where_it_ended_and_what_was_there_stays() {
    let config = EngineConfig { pool_limit: Some(ByteCount::mib(2)), ..EngineConfig::default() };
    let (engine, objects) = objects(config);
    let object = objects.create();
    let old = vec![7; 8 * MIB];
    object.write(0, &old).unwrap();
    let new = bytes(3, 8 * MIB);
    let ObjectError::NoRoom { offset, .. } = object.write(100, &new).unwrap_err() else { panic!() };
    let written = offset as usize - 100;
    assert!((MIB..2 * MIB).contains(&written), "{written}");
    let now = all(&object);
    assert!(now[..100] == old[..100] && now[100..][..written] == new[..written]);
    assert!(now[100 + written..] == old[100 + written..]);
    // What is given up makes room.
    object.punch(0..MIB as u64);
    object.write(offset, &new[written..][..MIB / 2]).unwrap();
    drop(object);
    finish(&engine, objects);
}

#[test]
fn a_snapshot_that_finds_no_room_for_a_change_still_has_what_it_had() {
    let config = EngineConfig { pool_limit: Some(ByteCount::mib(2)), ..EngineConfig::default() };
    let (engine, objects) = objects(config);
    let object = objects.create();
    let mut old = bytes(3, MIB);
    object.write(0, &old).unwrap();
    let snapshot = object.snapshot().unwrap();
    let other = objects.create();
    while other.write(other.len(), &bytes(7, 4096)).is_ok() {}
    for at in [0, 5000, 4096 * 9] {
        let failed = object.write(at, &bytes(11, 4096));
        assert!(matches!(failed, Err(ObjectError::NoRoom { offset, .. }) if offset == at), "{failed:?}");
    }
    assert!(all(&object) == old && all(&snapshot) == old);
    drop(other);
    object.write(5000, &[1; 8192]).unwrap();
    assert!(all(&snapshot) == old);
    old[5000..][..8192].fill(1);
    assert!(all(&object) == old);
    drop((object, snapshot));
    finish(&engine, objects);
}

#[test]
fn without_slots_nothing_is_written_and_later_all_is() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = objects.create();
    engine.starve(true);
    let failed = object.write(5, b"x");
    assert!(matches!(failed, Err(ObjectError::NoSlot { offset: 5, .. })), "{failed:?}");
    assert_eq!((object.len(), object.present(0..10)), (0, vec![]));
    engine.starve(false);
    object.write(5, b"x").unwrap();
    assert_eq!((object.len(), object.missing(0..10)), (6, Vec::from_iter(Some(0..5))));
    drop(object);
    finish(&engine, objects);
}

/// Holes of one size class are no room for another until they are packed.
#[test]
fn a_pool_full_of_holes_is_packed_for_pages_of_another_size() {
    let config = EngineConfig { pool_limit: Some(ByteCount::mib(8)), ..EngineConfig::default() };
    let (engine, objects) = objects(config);
    let object = objects.create();
    let page = |number: u64| [bytes(number << 2 | 2, 700), vec![number as u8; 3396]].concat();
    let mut pages = 0;
    while object.write(pages * 4096, &page(pages)).is_ok() {
        pages += 1;
    }
    for number in (1..pages).step_by(2) {
        object.punch(number * 4096..(number + 1) * 4096);
    }
    let other = objects.create();
    let content: Vec<u8> =
        (0..1000).flat_map(|number| [bytes(number << 2 | 3, 2500), vec![1; 1596]].concat()).collect();
    other.write(0, &content).unwrap();
    assert!(all(&other) == content);
    let mut buf = vec![0; 4096];
    for number in (0..pages).step_by(2) {
        object.read(number * 4096, &mut buf).unwrap();
        assert!(buf == page(number));
    }
    drop((object, other));
    finish(&engine, objects);
}

#[test]
fn what_was_given_up_takes_no_slots_any_more() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = objects.create();
    object.write(0, &vec![1; 3 * MIB]).unwrap();
    object.punch(0..u64::MAX);
    assert_eq!((engine.stats().clusters, object.len()), (0, 3 * MIB as u64));
    object.write(0, &vec![1; 3 * MIB]).unwrap();
    object.set_len(0).unwrap();
    assert_eq!(engine.stats().clusters, 0);
    // Written at one end and given up at the other, less than a block at a time, in one of two since a snapshot.
    for step in 0..40_u64 {
        let at = step * MIB as u64 / 2;
        object.write(at, &vec![1; MIB / 2]).unwrap();
        drop(object.snapshot().unwrap());
        object.punch(0..at);
    }
    assert!(engine.stats().clusters <= 4, "{}", engine.stats().clusters);
    drop(object);
    finish(&engine, objects);
}

#[test]
fn objects_of_a_group_that_is_removed_go_on_as_its_parents() {
    let (engine, objects) = objects(EngineConfig::default());
    let group = engine.new_group(GroupId::ROOT).unwrap();
    let of_group = Objects::new(Arc::clone(&engine), group).unwrap();
    let object = of_group.create();
    object.write(0, &bytes(2, 8192)).unwrap();
    engine.remove_group(group).unwrap();
    object.write(0, &bytes(3, 3 * MIB)).unwrap();
    assert!(all(&object) == bytes(3, 3 * MIB));
    engine.audit_groups().unwrap();
    assert!(Objects::new(Arc::clone(&engine), group).is_err());
    drop((object, of_group));
    finish(&engine, objects);
}

#[test]
fn a_full_pool_is_written_back_to_a_tier() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let tier = TierConfig::new(dir.path(), ByteCount::mib(64));
    let config =
        EngineConfig { pool_limit: Some(ByteCount::mib(4)), tiers: vec![tier], ..EngineConfig::default() };
    let (engine, objects) = objects(config);
    let object = objects.create();
    let content = bytes(2, 24 * MIB);
    object.write(0, &content).unwrap();
    assert!(engine.pool_bytes() <= ByteCount::mib(4));
    assert!(all(&object) == content);
    drop(object);
    finish(&engine, objects);
}

#[test]
fn what_an_object_was_lengthened_by_is_missing_until_it_is_written() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = objects.create();
    object.set_len(100).unwrap();
    // In the page in which it ended, and which has nothing.
    object.write(200, &[1; 50]).unwrap();
    assert_eq!(object.missing(0..u64::MAX), Vec::from_iter(Some(0..200)));
    object.write(0, &[2; 200]).unwrap();
    assert_eq!(object.missing(0..u64::MAX), []);
    object.write(4100, &[3; 10]).unwrap();
    assert_eq!(object.missing(0..u64::MAX), Vec::from_iter(Some(250..4100)));
    object.audit().unwrap();
    drop(object);
    finish(&engine, objects);
}

#[test]
fn an_object_ends_where_a_file_would_have_to() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = objects.create();
    object.set_len(MAX_LEN).unwrap();
    object.write(MAX_LEN - 3, b"end").unwrap();
    assert_eq!(object.present(0..u64::MAX), vec![MAX_LEN - 3..MAX_LEN]);
    let mut buf = [9; 8];
    assert_eq!(object.read(MAX_LEN - 5, &mut buf).unwrap().len, 5);
    assert_eq!(&buf, b"\0\0end\x09\x09\x09");
    for failed in [object.write(MAX_LEN, b"x"), object.write(u64::MAX, b"x"), object.set_len(MAX_LEN + 1)] {
        assert!(matches!(failed, Err(ObjectError::TooLong { .. })), "{failed:?}");
    }
    assert_eq!(object.read(u64::MAX, &mut buf).unwrap(), vswap_objects::Read::default());
    assert_eq!(object.len(), MAX_LEN);
    drop(object);
    finish(&engine, objects);
}
