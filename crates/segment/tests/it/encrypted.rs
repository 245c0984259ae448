//! Every test of segments again, with pages encrypted; and what only that must give.
#![allow(clippy::duplicate_mod)]

use crate::support::{Fake, KEY, begin, payload, slot, tag, write, write_slots};
use vswap_segment::{
    AlignedBuf, Appended, BLOCK, Cipher, ClassId, FormatError, Keys, MAX_ENTRY_BLOCKS, Purpose, ReadError,
    SEGMENT_BYTES, SegmentStore, Started,
};

#[path = "corruption.rs"]
mod corruption;
#[path = "faults.rs"]
mod faults;
#[path = "model.rs"]
mod model;
#[path = "races.rs"]
mod races;
#[path = "round_trip.rs"]
mod round_trip;
#[path = "tiers.rs"]
mod tiers;

fn keys() -> Keys {
    Keys::encrypting(KEY, Cipher::random().expect("a key"))
}

/// A page that shows itself wherever it stands.
const TELLTALE: &[u8] = b"this text must never be on a disk";

#[test]
fn no_byte_of_a_page_is_in_the_file_wherever_the_segment_goes() {
    let shows = |fake: &Fake| {
        let mut found = false;
        fake.edit(|bytes| found = bytes.windows(TELLTALE.len()).any(|window| window == TELLTALE));
        found
    };
    let page = TELLTALE.repeat(4096 / TELLTALE.len());
    for (keys, shown) in [(keys(), false), (KEY.into(), true)] {
        let (first, second) = (Fake::new(1), Fake::new(1));
        let store = SegmentStore::new(first.clone(), keys);
        let mut builder = begin(&store);
        for number in 0..40 {
            assert!(matches!(builder.append(slot(number), tag(0), &page), Appended::At(_)));
        }
        let written = write(&store, builder);
        let entries: Vec<_> = written.entries().collect();
        assert_eq!(shows(&first), shown, "after the write");
        store.add_tier(second.clone(), 1).unwrap();
        let mut mover = store.mover(1);
        assert!(matches!(mover.start(written.segment, Purpose::Migration).unwrap(), Started::UnderWay));
        assert!(mover.wait().unwrap().unwrap().result.unwrap());
        assert_eq!(shows(&second), shown, "after the move");
        let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
        for (slot, addr) in entries {
            assert_eq!(store.read_entry(addr, slot, &mut buf).unwrap().bytes, page);
        }
    }
}

#[test]
fn the_same_page_is_never_encrypted_to_the_same_bytes() {
    let fake = Fake::new(4);
    let store = SegmentStore::new(fake.clone(), keys());
    let mut seen = std::collections::BTreeSet::new();
    let mut sealed = 0;
    // The last time into a number and extent that were used before.
    for round in 0..5 {
        let mut builder =
            store.begin(Purpose::Cleaning, ClassId::COMMON, AlignedBuf::zeroed(SEGMENT_BYTES)).unwrap();
        for _ in 0..20 {
            assert!(matches!(builder.append(slot(7), tag(7), &[9; 4096]), Appended::At(_)));
        }
        let written = write(&store, builder);
        for (_, addr) in written.entries() {
            let at = addr.segment().get() as usize * SEGMENT_BYTES + addr.offset();
            // Each block of the cipher on its own: a repeated nonce would repeat them.
            fake.edit(|bytes| {
                seen.extend(bytes[at + 32..at + 32 + 4096].chunks(16).map(<[u8]>::to_vec));
            });
            sealed += 4096 / 16;
            if round == 3 {
                store.release(addr).unwrap();
            }
        }
    }
    assert_eq!(seen.len(), sealed);
}

#[test]
fn the_wrong_key_opens_nothing() {
    let fake = Fake::new(1);
    let store = SegmentStore::new(fake.clone(), keys());
    let entries = write_slots(&store, 0..50);
    // Another store over the same bytes, with the same numbers, places and seed of checksums: only the key differs.
    let copy = Fake::new(1);
    let other = SegmentStore::new(copy.clone(), keys());
    assert_eq!(write_slots(&other, 0..50), entries);
    fake.edit(|from| copy.edit(|to| to.copy_from_slice(from)));
    let mut whole = AlignedBuf::zeroed(SEGMENT_BYTES);
    let view = other.read_segment(entries[0].1.segment(), &mut whole).expect("the summary is in the clear");
    assert!(view.entries().all(|entry| matches!(entry, Err(FormatError::Seal { .. }))));
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (number, addr) in entries {
        let error = other.read_entry(addr, slot(number), &mut buf).unwrap_err();
        let ReadError::Damaged { fault: FormatError::Seal { offset }, .. } = error else { panic!("{error}") };
        assert_eq!(offset, addr.offset());
        assert_eq!(store.read_entry(addr, slot(number), &mut buf).unwrap().bytes, payload(number, 0));
    }
}

#[test]
fn entries_that_change_places_are_refused() {
    let fake = Fake::new(1);
    let store = SegmentStore::new(fake.clone(), keys());
    let mut builder = begin(&store);
    for number in 0..2 {
        assert!(matches!(builder.append(slot(number), tag(0), &[number as u8; 1000]), Appended::At(_)));
    }
    let entries: Vec<_> = write(&store, builder).entries().collect();
    let (first, second) = (entries[0].1.offset(), entries[1].1.offset());
    let len = second - first;
    fake.edit(|bytes| {
        let (before, behind) = bytes.split_at_mut(second);
        before[first..].swap_with_slice(&mut behind[..len]);
    });
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (slot, addr) in &entries {
        let error = store.read_entry(*addr, *slot, &mut buf).unwrap_err();
        assert!(matches!(error, ReadError::Damaged { fault: FormatError::Seal { .. }, .. }), "{error}");
    }
    // Nor is one believed whose header says that it is the other's.
    fake.edit(|bytes| {
        let (before, behind) = bytes.split_at_mut(second);
        before[first..].swap_with_slice(&mut behind[..len]);
        bytes[first + 16] ^= 1;
    });
    let error = store.read_entry(entries[0].1, slot(1), &mut buf).unwrap_err();
    assert!(matches!(error, ReadError::Damaged { fault: FormatError::Seal { .. }, .. }), "{error}");
}
