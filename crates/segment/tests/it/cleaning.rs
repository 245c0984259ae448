//! Cleaning moves what lives, only what lives, and nothing that it could not read or write.

use crate::support::{Fake, Fault, KEY, begin, payload, slot, write_slots};
use std::collections::BTreeMap;
use std::sync::Arc;
use vswap_core::SlotId;
use vswap_segment::{
    AlignedBuf, BLOCK, EntryAddr, FormatError, MAX_ENTRY_BLOCKS, Relocate, SEGMENT_BYTES, SegmentId,
    SegmentStore,
};

/// Slots and their addresses, as an engine has them. Every `lose`-th relocation finds the slot
/// released meanwhile.
#[derive(Default)]
struct Owner {
    slots: BTreeMap<u64, EntryAddr>,
    store: Option<Arc<SegmentStore>>,
    lose: u64,
    asked: u64,
    damaged: Vec<(SegmentId, FormatError)>,
}

impl Relocate for Owner {
    fn lives(&mut self, slot: SlotId, addr: EntryAddr) -> bool {
        self.slots.get(&slot.get()) == Some(&addr)
    }

    fn relocate(&mut self, slot: SlotId, from: EntryAddr, to: EntryAddr) -> bool {
        self.asked += 1;
        if self.lose > 0 && self.asked.is_multiple_of(self.lose) {
            self.slots.remove(&slot.get());
            self.store.as_ref().unwrap().release(from).unwrap();
            return false;
        }
        assert_eq!(self.slots.insert(slot.get(), to), Some(from));
        true
    }

    fn damaged(&mut self, segment: SegmentId, fault: &FormatError) {
        self.damaged.push((segment, *fault));
    }
}

/// `count` segments, all but full, of which every `keep`-th entry lives.
fn sparse(store: &Arc<SegmentStore>, count: u64, keep: u64) -> Owner {
    let mut owner = Owner { store: Some(Arc::clone(store)), ..Owner::default() };
    for segment in 0..count {
        for (number, addr) in write_slots(store, segment * 2000..segment * 2000 + 1250) {
            if number % keep == 0 {
                owner.slots.insert(number, addr);
            } else {
                store.release(addr).unwrap();
            }
        }
    }
    owner
}

fn check(store: &SegmentStore, owner: &Owner) {
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (number, addr) in &owner.slots {
        assert_eq!(store.read_entry(*addr, slot(*number), &mut buf).unwrap().bytes, payload(*number, 0));
    }
    assert_eq!(store.stats().live_entries, owner.slots.len() as u64);
}

#[test]
fn sparse_segments_are_merged_and_their_room_comes_back() {
    let store = SegmentStore::new(Fake::new(10), KEY);
    let mut owner = sparse(&store, 6, 8);
    let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
    let cleaned = store.clean(0.5, &mut store.writer(2), &mut buf, &mut owner).unwrap();
    assert_eq!(cleaned.written, 1, "{cleaned:?}");
    assert!(cleaned.emptied >= 5, "{cleaned:?}");
    check(&store, &owner);
    let live_segments = store.stats().segments;
    assert_eq!(live_segments, 1);
    assert_eq!(store.clean(1.0, &mut store.writer(2), &mut buf, &mut owner).unwrap().written, 0, "no gain");
}

#[test]
fn slots_released_during_the_copy_leave_nothing_behind() {
    let store = SegmentStore::new(Fake::new(10), KEY);
    let mut owner = sparse(&store, 6, 4);
    owner.lose = 3;
    let before = owner.slots.len();
    let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
    store.clean(0.5, &mut store.writer(2), &mut buf, &mut owner).unwrap();
    assert!(owner.slots.len() < before);
    check(&store, &owner);
    for addr in std::mem::take(&mut owner.slots).into_values() {
        store.release(addr).unwrap();
    }
    assert_eq!(store.stats().segments, 0, "every entry is released by its owner or by the cleaner, once");
}

#[test]
fn dense_segments_are_left_alone() {
    let store = SegmentStore::new(Fake::new(10), KEY);
    let mut owner = sparse(&store, 4, 1);
    let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
    let cleaned = store.clean(1.0, &mut store.writer(2), &mut buf, &mut owner).unwrap();
    assert_eq!((cleaned.emptied, cleaned.written), (0, 0));
    let marks_gone = (0..4).filter(|_| store.pick_to_clean(1.0).is_some()).count();
    assert_eq!(marks_gone, 4);
    check(&store, &owner);
}

#[test]
fn a_failed_copy_leaves_every_page_where_it_was() {
    for fault in [Fault::WriteError, Fault::DiskFullAfter(40_000), Fault::ReadError] {
        let fake = Fake::new(10);
        let store = SegmentStore::new(fake.clone(), KEY);
        let mut owner = sparse(&store, 6, 8);
        let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
        fake.set(fault);
        assert!(store.clean(0.5, &mut store.writer(2), &mut buf, &mut owner).is_err());
        fake.set(None);
        assert_eq!(store.stats().segments, 6);
        check(&store, &owner);
        let cleaned = store.clean(0.5, &mut store.writer(2), &mut buf, &mut owner).unwrap();
        assert_eq!(cleaned.written, 1, "works once the device does: {cleaned:?}");
        check(&store, &owner);
    }
}

#[test]
fn a_damaged_segment_is_reported_and_not_chosen_again() {
    let fake = Fake::new(10);
    let store = SegmentStore::new(fake.clone(), KEY);
    let mut owner = sparse(&store, 6, 8);
    let (number, bad) = owner.slots.iter().map(|(n, addr)| (*n, *addr)).nth(7).unwrap();
    fake.edit(|bytes| bytes[bad.segment().get() as usize * SEGMENT_BYTES + bad.offset() + 9] ^= 4);
    let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
    store.clean(0.5, &mut store.writer(2), &mut buf, &mut owner).unwrap();
    assert_eq!(owner.damaged, [(bad.segment(), FormatError::Checksum { offset: bad.offset() })]);
    assert_eq!(owner.slots[&number], bad, "the damaged page is where it was, for its reader to be told");
    assert_eq!(store.usage(bad.segment()).unwrap().live, 1, "the others moved away");
    assert_eq!(store.pick_to_clean(0.01), None);
    fake.edit(|bytes| bytes[bad.segment().get() as usize * SEGMENT_BYTES + bad.offset() + 9] ^= 4);
    assert_eq!(store.pick_to_clean(0.01), None, "not even when it reads well again");
    owner.slots.remove(&number);
    store.release(bad).unwrap();
    check(&store, &owner);
}

#[test]
fn a_writer_with_segments_in_flight_is_refused() {
    let store = SegmentStore::new(Fake::new(10), KEY);
    let mut owner = sparse(&store, 6, 8);
    let mut writer = store.writer(2);
    let mut builder = begin(&store);
    let _ = builder.append(slot(1), crate::support::tag(1), &[1, 2, 3]);
    writer.submit(builder).unwrap();
    let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
    assert!(store.clean(0.5, &mut writer, &mut buf, &mut owner).is_err());
    check(&store, &Owner { slots: owner.slots, ..Owner::default() });
}
