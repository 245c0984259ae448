//! Several tiers: which is written, what moves between them, what an error leaves.

use super::keys;
use crate::support::{Fake, Fault, begin, payload, share_of, slot, tag, write, write_slots};
use std::sync::Arc;
use vswap_segment::{
    AlignedBuf, Appended, BLOCK, EntryAddr, MAX_ENTRY_BLOCKS, MAX_TIERS, Moved, Purpose, SEGMENT_BYTES,
    SegmentId, SegmentStore, Started, TierError, TierId, TierState,
};

fn over(tiers: &[(&Arc<Fake>, i16)]) -> Arc<SegmentStore> {
    let store = SegmentStore::without_tiers(keys());
    for (fake, priority) in tiers {
        store.add_tier(Arc::clone(fake) as _, *priority).unwrap();
    }
    store
}

/// Segments on each tier.
fn used(store: &SegmentStore) -> Vec<u64> {
    store.tiers().iter().map(|tier| tier.used / SEGMENT_BYTES as u64).collect()
}

fn check(store: &SegmentStore, entries: &[(u64, EntryAddr)]) {
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (number, addr) in entries {
        let entry = store.read_entry(*addr, slot(*number), &mut buf).unwrap();
        assert_eq!(entry.bytes, payload(*number, 0), "slot {number}");
    }
}

fn move_one(store: &Arc<SegmentStore>, segment: SegmentId) -> Moved {
    let mut mover = store.mover(1);
    assert!(matches!(mover.start(segment, Purpose::Migration).unwrap(), Started::UnderWay));
    mover.wait().unwrap().expect("one is under way")
}

#[test]
fn the_highest_priority_is_filled_first_and_equal_ones_take_turns() {
    let (fast, even, odd) = (Fake::new(2), Fake::new(4), Fake::new(4));
    let store = over(&[(&even, 5), (&fast, 9), (&odd, 5)]);
    assert_eq!(store.stripes(), 1);
    let mut seen = Vec::new();
    for i in 0..8 {
        write_slots(&store, i * 10..i * 10 + 5);
        seen.push(used(&store));
    }
    assert_eq!(seen[1], [0, 2, 0], "the fast one first");
    assert_eq!(store.stripes(), 2);
    assert_eq!(seen[5], [2, 2, 2], "then the others in turn");
    assert_eq!(seen[7], [3, 2, 3]);
}

#[test]
fn a_moved_segment_keeps_every_address_and_its_former_room_is_free() {
    let (here, there) = (Fake::new(1), Fake::new(2));
    let store = over(&[(&here, 1)]);
    let entries = write_slots(&store, 0..500);
    let tier = store.add_tier(there, 0).unwrap();
    let dead = entries.len() / 3;
    for (_, addr) in &entries[..dead] {
        store.release(*addr).unwrap();
    }
    store.drain_tier(TierId::new(0), 0.5, 0).unwrap();
    let moved = move_one(&store, entries[0].1.segment());
    assert!(moved.result.unwrap() && moved.bytes < SEGMENT_BYTES);
    assert_eq!(used(&store), [0, 1]);
    here.set(Fault::ReadError);
    check(&store, &entries);
    assert!(store.next_on(TierId::new(0), 0).is_none());
    assert_eq!(store.next_on(tier, 0).unwrap().live as usize, entries.len() - dead);
    store.remove_tier(TierId::new(0)).unwrap();
    check(&store, &entries);
    for (_, addr) in &entries[dead..] {
        store.release(*addr).unwrap();
    }
    assert_eq!(store.stats().segments, 0);
}

#[test]
fn a_reader_with_the_former_place_finds_the_page_though_the_room_is_written_anew() {
    let (here, there) = (Fake::new(1), Fake::new(4));
    let store = over(&[(&here, 1), (&there, 0)]);
    let entries = write_slots(&store, 0..300);
    store.set_state(TierId::new(0), TierState::Draining).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for _ in 0..share_of(40) {
                check(&store, &entries);
            }
        });
        let mut there_now = false;
        while !reader.is_finished() {
            // Back and forth, and what was left is overwritten at once.
            let (from, to) = if there_now { (1, 0) } else { (0, 1) };
            store.set_state(TierId::new(from), TierState::Draining).unwrap();
            store.set_state(TierId::new(to), TierState::Open).unwrap();
            assert!(move_one(&store, entries[0].1.segment()).result.unwrap());
            let left = if there_now { &there } else { &here };
            left.edit(|bytes| bytes[..SEGMENT_BYTES].fill(0x5a));
            there_now = !there_now;
        }
    });
    check(&store, &entries);
}

/// A reader that had looked up the first place of a segment found other bytes there, and the segment at just that place again: it had
/// been away in between, which the place did not tell.
#[test]
fn a_segment_that_came_back_to_where_it_was_is_read_again_and_not_taken_for_damaged() {
    let (here, there) = (Fake::new(1), Fake::new(1));
    let store = over(&[(&here, 1), (&there, 0)]);
    let entries = write_slots(&store, 0..50);
    let segment = entries[0].1.segment();
    // While the first read is under way it goes to the other tier, other bytes take its place, and it comes back after that was read.
    let away = std::sync::atomic::AtomicBool::new(false);
    here.during_read({
        let store = Arc::clone(&store);
        move |into| {
            if away.swap(true, std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            for (from, to) in [(0, 1), (1, 0)] {
                store.set_state(TierId::new(from), TierState::Draining).unwrap();
                store.set_state(TierId::new(to), TierState::Open).unwrap();
                assert!(move_one(&store, segment).result.unwrap());
            }
            into.fill(0x5a);
        }
    });
    check(&store, &entries);
}

#[test]
fn a_copy_that_cannot_be_written_leaves_the_segment_and_takes_its_tier_out_of_use() {
    let (here, there) = (Fake::new(2), Fake::new(2));
    let store = over(&[(&here, 1), (&there, 0)]);
    let entries = write_slots(&store, 0..100);
    assert_eq!(store.drain_tier(TierId::new(0), 0.5, 0), Ok((TierState::Open, true)));
    there.set(Fault::WriteError);
    let moved = move_one(&store, entries[0].1.segment());
    assert!(moved.result.is_err());
    assert_eq!(used(&store), [1, 0]);
    assert_eq!(store.tiers()[1].state, TierState::Failing);
    check(&store, &entries);
    // Nothing is open now.
    assert!(matches!(
        store.mover(1).start(entries[0].1.segment(), Purpose::Migration).unwrap(),
        Started::NoRoom
    ));
    there.set(None);
    store.set_state(TierId::new(1), TierState::Open).unwrap();
    assert!(move_one(&store, entries[0].1.segment()).result.unwrap());
    check(&store, &entries);
}

#[test]
fn a_disk_that_is_full_before_its_time_is_passed_over_and_tried_again_when_nothing_else_is_left() {
    let (first, second) = (Fake::new(4), Fake::new(1));
    let store = over(&[(&first, 1), (&second, 0)]);
    first.set(Fault::DiskFullAfter(0));
    let mut builder = begin(&store);
    assert!(matches!(builder.append(slot(1), tag(1), &payload(1, 0)), Appended::At(_)));
    assert_eq!(write(&store, builder).result.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    first.set(None);
    assert_eq!(store.tiers()[0].state, TierState::Open, "full is not failing");
    let entries = write_slots(&store, 0..50);
    assert_eq!(used(&store), [0, 1]);
    let others = write_slots(&store, 50..100);
    assert_eq!(used(&store), [1, 1]);
    check(&store, &entries);
    check(&store, &others);
}

#[test]
fn until_it_has_arrived_a_segment_is_read_where_it_was() {
    let (here, there) = (Fake::new(1), Fake::new(1));
    let store = over(&[(&here, 1), (&there, 0)]);
    let entries = write_slots(&store, 0..200);
    store.drain_tier(TierId::new(0), 0.5, 0).unwrap();
    let mut mover = store.mover(1);
    assert!(matches!(mover.start(entries[0].1.segment(), Purpose::Migration).unwrap(), Started::UnderWay));
    there.set(Fault::ReadError);
    check(&store, &entries);
    assert_eq!(used(&store), [1, 1], "the source is not free yet");
    there.set(None);
    assert!(mover.wait().unwrap().unwrap().result.unwrap());
    here.set(Fault::ReadError);
    check(&store, &entries);
    assert_eq!(used(&store), [0, 1]);
}

#[test]
fn a_segment_that_dies_during_its_move_is_not_brought_back() {
    let (here, there) = (Fake::new(1), Fake::new(1));
    let store = over(&[(&here, 1), (&there, 0)]);
    let entries = write_slots(&store, 0..20);
    store.drain_tier(TierId::new(0), 0.5, 0).unwrap();
    let mut mover = store.mover(1);
    assert!(matches!(mover.start(entries[0].1.segment(), Purpose::Migration).unwrap(), Started::UnderWay));
    for (_, addr) in &entries {
        store.release(*addr).unwrap();
    }
    assert!(!mover.wait().unwrap().unwrap().result.unwrap());
    assert_eq!(used(&store), [0, 0]);
    assert!(matches!(mover.start(entries[0].1.segment(), Purpose::Migration).unwrap(), Started::Gone));
}

#[test]
fn damage_is_not_copied() {
    let (here, there) = (Fake::new(1), Fake::new(1));
    let store = over(&[(&here, 1), (&there, 0)]);
    let entries = write_slots(&store, 0..200);
    let segment = entries[0].1.segment();
    store.drain_tier(TierId::new(0), 0.5, 0).unwrap();
    let (_, damaged) = entries[77];
    here.edit(|bytes| bytes[damaged.offset() + 17] ^= 1);
    assert!(matches!(store.mover(1).start(segment, Purpose::Migration).unwrap(), Started::Unreadable(_)));
    here.set(Fault::ReadError);
    assert!(matches!(store.mover(1).start(segment, Purpose::Migration).unwrap(), Started::Unreadable(_)));
    here.set(Fault::ShortRead(BLOCK));
    assert!(matches!(store.mover(1).start(segment, Purpose::Migration).unwrap(), Started::Unreadable(_)));
    here.set(None);
    assert_eq!(used(&store), [1, 0]);
    check(&store, &entries[..77]);
    check(&store, &entries[78..]);
}

#[test]
fn a_tier_that_the_others_cannot_hold_is_refused_at_once_with_the_sum() {
    let (here, there) = (Fake::new(4), Fake::new(1));
    let store = over(&[(&here, 1)]);
    for i in 0..3 {
        write_slots(&store, i * 2000..i * 2000 + 900);
    }
    let live = store.tiers()[0].live;
    let refused = || store.drain_tier(TierId::new(0), 0.5, 0).unwrap_err();
    let none = refused();
    let TierError::NoRoom { needs, .. } = none else { panic!("{none}") };
    assert_eq!(none, TierError::NoRoom { tier: TierId::new(0), holds: live, room: 0, memory: 0, needs });
    let way_out = format!("vswap tier add PATH --size {}M", needs >> 20);
    assert!(needs > live && none.to_string().contains(&way_out), "{none}");
    store.add_tier(there, 0).unwrap();
    let some = refused();
    let TierError::NoRoom { needs: rest, .. } = some else { panic!("{some}") };
    assert_eq!(
        some,
        TierError::NoRoom {
            tier: TierId::new(0),
            holds: live,
            room: SEGMENT_BYTES as u64,
            memory: 0,
            needs: rest
        }
    );
    assert!(rest < needs);
    assert_eq!(store.tiers()[0].state, TierState::Open);
    write_slots(&store, 9000..9100);
    assert_eq!(used(&store), [4, 0], "it goes on as before");
    store.add_tier(Fake::new(rest as usize / SEGMENT_BYTES), 0).unwrap();
    store.drain_tier(TierId::new(0), 0.5, 0).unwrap();
}

#[test]
fn a_number_is_used_again_and_there_are_so_many_of_them() {
    let store = SegmentStore::without_tiers(keys());
    assert!(!store.has_tiers() && store.stripes() == 0);
    for number in 0..MAX_TIERS {
        assert_eq!(store.add_tier(Fake::new(1), 0).unwrap(), TierId::new(number as u8));
    }
    assert_eq!(store.add_tier(Fake::new(1), 0), Err(TierError::TooMany { most: MAX_TIERS }));
    let third = TierId::new(3);
    store.remove_tier(third).unwrap();
    assert_eq!(store.remove_tier(third), Err(TierError::NoTier { tier: third }));
    assert_eq!(store.drain_tier(third, 0.5, 0), Err(TierError::NoTier { tier: third }));
    assert_eq!(store.add_tier(Fake::new(2), 7).unwrap(), third);
    let entries = write_slots(&store, 0..10);
    assert_eq!(store.remove_tier(third), Err(TierError::InUse { tier: third }));
    check(&store, &entries);
}
