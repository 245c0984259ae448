//! Classes of a store: where their segments go, and where they may not.

use super::keys;
use crate::support::{Fake, payload, slot, tag, write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vswap_segment::{
    AlignedBuf, Appended, ClassId, EntryAddr, Full, Purpose, SEGMENT_BYTES, SegmentStore, Share, Started,
    TierError, TierId, Wanted,
};

const SEGMENT: u64 = SEGMENT_BYTES as u64;
const HERE: TierId = TierId::new(0);
const THERE: TierId = TierId::new(1);

/// A store of these sizes, priorities from high to low.
fn over(segments: &[usize]) -> Arc<SegmentStore> {
    let store = SegmentStore::without_tiers(keys());
    for (at, segments) in segments.iter().enumerate() {
        store.add_tier(Fake::new(*segments), -(at as i16)).unwrap();
    }
    store
}

fn begin(
    store: &SegmentStore,
    class: ClassId,
    purpose: Purpose,
) -> Result<vswap_segment::SegmentBuilder, Full> {
    store.begin(purpose, class, AlignedBuf::zeroed(SEGMENT_BYTES)).map_err(|(full, _)| full)
}

/// Writes a segment of a class with slots from this one on; their addresses.
fn write_of(store: &Arc<SegmentStore>, class: ClassId, from: u64) -> Vec<EntryAddr> {
    let mut builder = begin(store, class, Purpose::Writeback).expect("there is room");
    let append = |number: u64| match builder.append(slot(number), tag(number), &payload(number, 0)) {
        Appended::At(addr) => addr,
        other => panic!("slot {number}: {other:?}"),
    };
    let entries = (from..from + 700).map(append).collect();
    write(store, builder).result.unwrap();
    entries
}

fn release(store: &SegmentStore, entries: &[EntryAddr]) {
    for addr in entries {
        store.release(*addr).unwrap();
    }
}

fn usage(store: &SegmentStore, class: ClassId) -> Vec<u64> {
    store.shares(class).iter().map(|share| share.usage).collect()
}

fn limit(store: &SegmentStore, class: ClassId, tier: TierId, segments: u64) {
    store.limit_class(class, tier, Some(segments * SEGMENT)).unwrap();
}

/// Whoever was kept from any tier was told so, though the tier that it may have was what was full, and the other no less.
#[test]
fn what_keeps_a_class_from_a_tier_is_its_limit_only_if_there_is_room() {
    let store = over(&[2, 2]);
    let class = store.add_class(ClassId::COMMON, &[]).unwrap();
    limit(&store, class, THERE, 0);
    assert!(store.has_room(class));
    let _here: Vec<_> = (0..2).map(|at| write_of(&store, class, at * 1000)).collect();
    let limited = || begin(&store, class, Purpose::Writeback).unwrap_err().limited;
    assert!(limited() && !store.has_room(class) && store.has_room(ClassId::COMMON));
    let there: Vec<_> = (2..4).map(|at| write_of(&store, ClassId::COMMON, at * 1000)).collect();
    assert!(!limited(), "nobody could write there");
    assert!(!begin(&store, ClassId::COMMON, Purpose::Writeback).unwrap_err().limited);
    release(&store, &there[0]);
    assert!(limited());
}

#[test]
fn a_class_goes_where_it_may_and_the_best_tier_stays_for_others() {
    let store = over(&[4, 4]);
    let class = store.add_class(ClassId::COMMON, &[]).unwrap();
    limit(&store, class, HERE, 1);
    store.limit_class(class, THERE, Some(2 * SEGMENT + SEGMENT / 2)).unwrap();
    let entries: Vec<_> = (0..3).map(|at| write_of(&store, class, at * 1000)).collect();
    assert_eq!(usage(&store, class), [1, 2], "what is less than a segment counts for nothing");
    let full = begin(&store, class, Purpose::Cleaning).unwrap_err();
    assert!(full.limited && full.segments < full.capacity, "{full:?}");
    write_of(&store, ClassId::COMMON, 5000);
    assert_eq!(usage(&store, ClassId::COMMON), [2, 2]);
    store.audit_classes().unwrap();
    release(&store, &entries[1]);
    assert_eq!(usage(&store, class), [1, 1]);
    let builder = begin(&store, class, Purpose::Writeback).unwrap();
    assert_eq!(usage(&store, class), [1, 2], "what is being filled counts");
    drop(builder.discard());
    assert_eq!(usage(&store, class), [1, 1]);
    store.audit_classes().unwrap();
}

#[test]
fn a_segment_that_moves_goes_where_its_class_may_and_is_charged_there() {
    let store = over(&[4, 4, 4]);
    let class = store.add_class(ClassId::COMMON, &[]).unwrap();
    let segment = write_of(&store, class, 0)[0].segment();
    limit(&store, class, THERE, 0);
    store.drain_tier(HERE, 0.0, 0).unwrap();
    let mut mover = store.mover(1);
    assert!(matches!(mover.start(segment, Purpose::Migration).unwrap(), Started::UnderWay));
    assert_eq!(usage(&store, class), [1, 0, 1], "there are two of it for a while");
    assert!(mover.wait().unwrap().unwrap().result.unwrap());
    assert_eq!(usage(&store, class), [0, 0, 1]);
    store.audit_classes().unwrap();
    // Nowhere to go; and a copy that is given up is charged to nobody.
    store.remove_tier(HERE).unwrap();
    store.drain_tier(TierId::new(2), 0.0, 0).unwrap_err();
    limit(&store, class, THERE, 1);
    store.drain_tier(TierId::new(2), 0.0, 0).unwrap();
    let mut mover = store.mover(1);
    assert!(matches!(mover.start(segment, Purpose::Migration).unwrap(), Started::UnderWay));
    drop(mover);
    assert_eq!(usage(&store, class), [0, 1]);
    store.audit_classes().unwrap();
}

#[test]
fn a_tier_goes_only_if_what_is_on_it_may_be_elsewhere() {
    let store = over(&[8, 8, 8]);
    let above = store.add_class(ClassId::COMMON, &[]).unwrap();
    let classes = [above, store.add_class(above, &[]).unwrap()];
    for class in [0, 0, 1, 1, 1] {
        write_of(&store, classes[class], 0);
    }
    let live = store.tiers()[0].live;
    limit(&store, above, THERE, 3);
    limit(&store, above, TierId::new(2), 0);
    let refused = store.drain_tier(HERE, 0.0, 0).unwrap_err();
    let wanted = matches!(refused, TierError::NoRoom { tier: HERE, holds, room, .. } if holds == live && room == 3 * SEGMENT);
    assert!(wanted, "{refused}");
    // One of the limit is left for cleaning, as of a tier.
    limit(&store, above, THERE, 6);
    store.drain_tier(HERE, 0.0, 0).unwrap();
}

/// The first in the table took the room that was the only one for those behind.
#[test]
fn who_has_least_room_elsewhere_goes_first() {
    let store = over(&[8, 2, 8]);
    let class = store.add_class(ClassId::COMMON, &[]).unwrap();
    for of in [ClassId::COMMON, ClassId::COMMON, class, class] {
        write_of(&store, of, 0);
    }
    limit(&store, class, TierId::new(2), 0);
    assert_eq!(store.classes_on(HERE), [class, ClassId::COMMON]);
    store.drain_tier(HERE, 0.0, 0).unwrap();
}

#[test]
fn a_tier_takes_its_limits_along_when_it_goes() {
    let store = over(&[4, 4]);
    let class = store.add_class(ClassId::COMMON, &[]).unwrap();
    limit(&store, class, THERE, 0);
    limit(&store, ClassId::COMMON, THERE, 1);
    store.remove_tier(THERE).unwrap();
    assert_eq!(store.limit_class(class, THERE, Some(0)), Err(TierError::NoTier { tier: THERE }));
    assert_eq!(store.add_tier(Fake::new(4), 9).unwrap(), THERE, "another has its number");
    let none = Share { tier: THERE, usage: 0, limit: None, effective: None };
    assert_eq!(store.shares(class)[1], none);
    write_of(&store, class, 0);
    assert_eq!(usage(&store, class), [0, 1]);
}

#[test]
fn what_is_cleaned_is_of_use_to_who_lacks_room() {
    let store = over(&[8]);
    let class = store.add_class(ClassId::COMMON, &[]).unwrap();
    limit(&store, class, HERE, 5);
    let own: Vec<_> = (0..4).map(|at| write_of(&store, class, at * 1000)).collect();
    let others = write_of(&store, ClassId::COMMON, 9000);
    assert!(begin(&store, class, Purpose::Writeback).is_err());
    release(&store, &others[1..]);
    let pick = |by, but: &[ClassId]| {
        let chosen = store.pick_to_clean(0.3, &Wanted { by, of: None, but, not: &[] });
        chosen.inspect(|chosen| store.stop_cleaning(chosen.segment)).map(|chosen| chosen.class)
    };
    assert_eq!(pick(class, &[]), None, "what others have left is of no use at one's own limit");
    assert_eq!(pick(ClassId::COMMON, &[]), Some(ClassId::COMMON));
    release(&store, &own[2][7..]);
    assert_eq!(pick(class, &[]), Some(class));
    assert_eq!(pick(ClassId::COMMON, &[ClassId::COMMON]), Some(class));
    assert_eq!(store.pick_sparse_on(HERE, class, 0.5).map(|found| found.class), Some(class));
    let builder = begin(&store, class, Purpose::Cleaning).expect("one is left for cleaning");
    assert!(begin(&store, class, Purpose::Cleaning).is_err());
    drop(builder);
}

#[test]
fn no_limit_is_passed_at_any_moment() {
    const MOST: u64 = 3;
    let store = over(&[16, 16]);
    let above = store.add_class(ClassId::COMMON, &[]).unwrap();
    let classes = [above, store.add_class(above, &[]).unwrap(), store.add_class(above, &[]).unwrap()];
    limit(&store, above, HERE, MOST);
    limit(&store, above, THERE, 0);
    let held = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (store, held, classes) = (&store, &held, &classes);
            scope.spawn(move || {
                let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
                for step in 0..4000 {
                    match store.begin(Purpose::Cleaning, classes[(thread + step) % 3], buf) {
                        Ok(builder) => {
                            assert!(held.fetch_add(1, Ordering::SeqCst) < MOST);
                            assert!(usage(store, classes[0])[0] <= MOST);
                            held.fetch_sub(1, Ordering::SeqCst);
                            buf = builder.discard();
                        }
                        Err((_, back)) => buf = back,
                    }
                }
            });
        }
    });
    assert_eq!(usage(&store, above), [0, 0]);
    store.audit_classes().unwrap();
}
