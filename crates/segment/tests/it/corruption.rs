//! Damaged, truncated and foreign bytes are refused with their offset; never a wrong byte, never a panic.

use super::keys;
use crate::support::{Fake, Fault, payload, slot, tag, write_slots};
use proptest::prelude::*;
use vswap_segment::{
    AlignedBuf, BLOCK, Cipher, EntryAddr, FormatError, Guard, Keys, MAX_ENTRY_BLOCKS, ReadError, RunKey,
    SEGMENT_BYTES, SegmentId, SegmentStore, SegmentView,
};

fn fault_of(error: ReadError) -> FormatError {
    match error {
        ReadError::Damaged { fault, .. } => fault,
        other => panic!("expected damage, got {other}"),
    }
}

/// What an entry that is not as it was written gives.
fn broken(offset: usize) -> FormatError {
    match keys().guard() {
        Guard::Checksum => FormatError::Checksum { offset },
        Guard::Encrypted => FormatError::Seal { offset },
    }
}

#[test]
fn every_flipped_byte_gives_the_exact_page_or_an_error() {
    let fake = Fake::new(1);
    let store = SegmentStore::new(fake.clone(), keys());
    let entries = write_slots(&store, 0..6);
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    let mut whole = AlignedBuf::zeroed(SEGMENT_BYTES);
    let end = store.stats().bytes_written as usize;
    let pages: Vec<_> = entries.iter().map(|(number, _)| payload(*number, 0)).collect();
    let mut caught = 0;
    for at in 0..end {
        fake.edit(|bytes| bytes[at] ^= 1 << (at % 8));
        for (number, addr) in &entries {
            match store.read_entry(*addr, slot(*number), &mut buf) {
                Ok(entry) => {
                    assert_eq!((entry.bytes, entry.tag), (&pages[*number as usize][..], tag(*number)));
                }
                Err(error) => {
                    assert!(fault_of(error).offset() <= at);
                    caught += 1;
                }
            }
        }
        if at % 7 == 0
            && let Ok(view) = store.read_segment(entries[0].1.segment(), &mut whole)
        {
            for entry in view.entries().flatten() {
                assert_eq!(entry.bytes, payload(entry.slot.get(), 0));
            }
        }
        fake.edit(|bytes| bytes[at] ^= 1 << (at % 8));
    }
    let header = keys().guard().header_bytes();
    let stored: usize = entries.iter().map(|(n, _)| payload(*n, 0).len() + header).sum();
    assert_eq!(caught, stored, "each byte of each entry and its header is covered once");
}

#[test]
fn a_truncated_segment_is_refused_at_every_length() {
    let fake = Fake::new(1);
    let keys = keys();
    let store = SegmentStore::new(fake.clone(), keys.clone());
    let entries = write_slots(&store, 0..6);
    let id = entries[0].1.segment();
    let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
    let (sequence, end) = {
        let view = store.read_segment(id, &mut buf).unwrap();
        (view.header().sequence, view.header().entries_end as usize + view.header().summary_bytes())
    };
    for len in 0..end {
        let error = SegmentView::parse(&keys, id, sequence, &mut buf[..len]).unwrap_err();
        let FormatError::Truncated { offset, needed, have } = error else { panic!("{len}: {error}") };
        assert!(have == len.saturating_sub(offset) && have < needed, "{len}: {error}");
    }
    assert!(SegmentView::parse(&keys, id, sequence, &mut buf[..end]).is_ok());
    fake.set(Fault::ShortRead(0));
    let mut small = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    let error = fault_of(store.read_entry(entries[1].1, slot(1), &mut small).unwrap_err());
    assert!(matches!(error, FormatError::Truncated { .. }), "{error}");
    assert_eq!(error.offset(), entries[1].1.offset());
}

#[test]
fn foreign_segments_are_refused_by_what_differs() {
    let keys = keys();
    let store = SegmentStore::new(Fake::new(1), keys.clone());
    let entries = write_slots(&store, 0..6);
    let id = entries[0].1.segment();
    let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
    let sequence = store.read_segment(id, &mut buf).unwrap().header().sequence;
    let parse = |keys: &Keys, id, sequence, bytes: &mut [u8]| {
        SegmentView::parse(keys, id, sequence, bytes).unwrap_err()
    };

    let other_run = match keys.guard() {
        Guard::Checksum => RunKey::new(1).into(),
        Guard::Encrypted => Keys::encrypting(RunKey::new(1), Cipher::random().unwrap()),
    };
    let other_run = parse(&other_run, id, sequence, &mut buf);
    assert!(matches!(other_run, FormatError::Foreign { offset: 32, .. }), "{other_run}");
    let other_number = parse(&keys, SegmentId::new(77).unwrap(), sequence, &mut buf);
    assert!(matches!(other_number, FormatError::Foreign { offset: 16, expected: 77, found: 0 }));
    let other_writing = parse(&keys, id, sequence + 1, &mut buf);
    assert!(matches!(other_writing, FormatError::Foreign { offset: 24, .. }), "{other_writing}");
    assert!(matches!(parse(&keys, id, sequence, &mut [0x7f; 4096]), FormatError::Magic { offset: 0, .. }));
    let version = buf[8];
    buf[8] = 9;
    let newer = parse(&keys, id, sequence, &mut buf);
    assert!(matches!(newer, FormatError::Version { offset: 8, found: 9, known: 1 }), "{newer}");
    buf[8] = version;
    buf[10] ^= 1;
    let other_mode = parse(&keys, id, sequence, &mut buf);
    assert!(matches!(other_mode, FormatError::Flags { offset: 10, .. }), "{other_mode}");
}

#[test]
fn a_misdirected_read_of_another_segment_is_caught() {
    // Same slots, same lengths, same offsets: only the sequence number tells the two apart.
    let fake = Fake::new(2);
    let store = SegmentStore::new(fake.clone(), keys());
    let first = write_slots(&store, 0..50);
    let second = write_slots(&store, 0..50);
    fake.set(Fault::MisdirectedRead(SEGMENT_BYTES as u64));
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (number, addr) in first.iter().chain(&second) {
        let error = fault_of(store.read_entry(*addr, slot(*number), &mut buf).unwrap_err());
        assert_eq!(error, broken(addr.offset()));
    }
}

#[test]
fn a_stale_block_of_an_earlier_writing_is_caught() {
    let fake = Fake::new(1);
    let store = SegmentStore::new(fake.clone(), keys());
    for (_, addr) in write_slots(&store, 0..50) {
        store.release(addr).unwrap();
    }
    fake.set(Fault::LostWrite);
    let second = write_slots(&store, 0..50);
    assert_eq!(second[0].1.segment().get(), 0, "the same number and extent again");
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (number, addr) in second {
        let error = fault_of(store.read_entry(addr, slot(number), &mut buf).unwrap_err());
        assert_eq!(error, broken(addr.offset()));
    }
}

#[test]
fn another_slots_entry_is_not_given_out() {
    let store = SegmentStore::new(Fake::new(1), keys());
    let entries = write_slots(&store, 0..5);
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    let error = fault_of(store.read_entry(entries[2].1, slot(3), &mut buf).unwrap_err());
    assert!(matches!(error, FormatError::Slot { found: 2, .. }), "{error}");
}

#[test]
fn an_address_of_nothing_is_out_of_date() {
    let store = SegmentStore::new(Fake::new(2), keys());
    let entries = write_slots(&store, 0..5);
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (segment, offset) in [(5, 64), (1, 64), (0, SEGMENT_BYTES - 16)] {
        let addr = EntryAddr::new(SegmentId::new(segment).unwrap(), offset, 16).unwrap();
        let error = store.read_entry(addr, slot(0), &mut buf).unwrap_err();
        assert!(matches!(error, ReadError::NotThere { .. }), "{error}");
    }
    for (_, addr) in &entries {
        store.release(*addr).unwrap();
    }
    let error = store.read_entry(entries[0].1, slot(0), &mut buf).unwrap_err();
    assert!(matches!(error, ReadError::NotThere { .. }), "{error}");
    assert!(store.release(entries[0].1).is_err(), "released twice");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Random addresses over random damage: exact or an error, whatever the address claims.
    #[test]
    fn arbitrary_damage_and_addresses_never_give_wrong_bytes(
        cuts in prop::collection::vec((0..20_000_usize, 1..600_usize, any::<u8>()), 0..12),
        bits in prop::collection::vec(any::<u64>(), 1..20),
        offsets in prop::collection::vec(0..2_000_usize, 1..40),
        keep_header in any::<bool>(),
    ) {
        let fake = Fake::new(2);
        let store = SegmentStore::new(fake.clone(), keys());
        let entries = write_slots(&store, 0..12);
        fake.edit(|bytes| for (at, len, value) in &cuts {
            let at = if keep_header { at + 64 } else { *at };
            bytes[at..at + len].fill(*value);
        });
        let mut buf = AlignedBuf::zeroed(4 * BLOCK);
        let random = bits.iter().filter_map(|b| EntryAddr::from_bits(b >> 18));
        let near = offsets.iter().filter_map(|o| EntryAddr::new(SegmentId::new(0).unwrap(), o * 16, 24));
        for addr in random.chain(near) {
            for number in 0..12 {
                if let Ok(entry) = store.read_entry(addr, slot(number), &mut buf) {
                    prop_assert_eq!(entry.bytes, payload(number, 0));
                }
            }
        }
        for (number, addr) in &entries {
            let len = buf.len();
            if let Ok(run) = store.read_run(*addr, slot(*number), len, &mut buf) {
                prop_assert_eq!(run.first().bytes, payload(*number, 0));
                for entry in run.neighbours() {
                    prop_assert_eq!(entry.bytes, payload(entry.slot.get(), 0));
                }
            }
        }
        let mut whole = AlignedBuf::zeroed(SEGMENT_BYTES);
        if let Ok(view) = store.read_segment(entries[0].1.segment(), &mut whole) {
            for entry in view.entries().flatten() {
                prop_assert_eq!(entry.bytes, payload(entry.slot.get(), 0));
            }
        }
    }

    /// Bytes that were never a segment.
    #[test]
    fn arbitrary_bytes_are_no_segment(mut bytes in prop::collection::vec(any::<u8>(), 0..5000), ours in any::<bool>()) {
        if ours && bytes.len() > 16 {
            bytes[..8].copy_from_slice(b"VSWAPSEG");
            bytes[8..16].copy_from_slice(&[1, 0, 0, 0, 64, 0, 24, 0]);
        }
        prop_assert!(SegmentView::parse(&keys(), SegmentId::new(0).unwrap(), 1, &mut bytes).is_err());
    }
}
