//! What was written is read back, one by one, in runs and whole.

use super::keys;
use crate::support::{Fake, begin, payload, slot, tag, write, write_slots};
use vswap_segment::{
    AlignedBuf, Appended, BLOCK, EntryAddr, MAX_ENTRY_BLOCKS, MAX_ENTRY_BYTES, ReadError, SEGMENT_BYTES,
    SegmentId, SegmentStore,
};

#[test]
fn every_entry_comes_back_by_its_address_alone() {
    let store = SegmentStore::new(Fake::new(4), keys());
    let entries = write_slots(&store, 0..900);
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (number, addr) in entries {
        assert_eq!(EntryAddr::from_bits(addr.to_bits()), Some(addr));
        let entry = store.read_entry(addr, slot(number), &mut buf).unwrap();
        assert_eq!((entry.slot, entry.addr, entry.tag), (slot(number), addr, tag(number)));
        assert_eq!(entry.bytes, payload(number, 0));
    }
}

#[test]
fn a_read_takes_only_the_blocks_that_hold_the_entry() {
    let store = SegmentStore::new(Fake::new(1), keys());
    let entries = write_slots(&store, 0..500);
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (number, addr) in entries {
        let before = store.stats();
        let len = store.read_entry(addr, slot(number), &mut buf).unwrap().bytes.len();
        let after = store.stats();
        assert_eq!(after.reads, before.reads + 1);
        let read = (after.bytes_read - before.bytes_read) as usize;
        assert_eq!(read, addr.blocks() * BLOCK);
        assert!(
            read <= (len + keys().guard().header_bytes()).next_multiple_of(BLOCK) + BLOCK,
            "{read} bytes for {len}"
        );
    }
}

#[test]
fn a_run_gives_the_entry_and_those_written_behind_it() {
    let store = SegmentStore::new(Fake::new(1), keys());
    let entries = write_slots(&store, 0..900);
    let mut buf = AlignedBuf::zeroed(16 * BLOCK);
    for (i, (number, addr)) in entries.iter().enumerate() {
        let run = store.read_run(*addr, slot(*number), buf.len(), &mut buf).unwrap();
        assert_eq!(run.first().bytes, payload(*number, 0));
        let mut seen = 0;
        for entry in run.neighbours() {
            let (other, at) = entries.get(i + 1 + seen).expect("nothing past the last entry");
            assert_eq!((entry.slot, entry.addr, entry.tag), (slot(*other), *at, tag(*other)));
            assert_eq!(entry.bytes, payload(*other, 0));
            seen += 1;
        }
        assert!(seen >= 12.min(entries.len() - 1 - i), "{seen} neighbours in 64 KiB");
    }
}

#[test]
fn a_whole_segment_lists_its_slots_in_order() {
    let store = SegmentStore::new(Fake::new(1), keys());
    let entries = write_slots(&store, 100..800);
    let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
    let view = store.read_segment(entries[0].1.segment(), &mut buf).unwrap();
    assert_eq!(view.len(), entries.len());
    for (entry, (number, addr)) in view.entries().zip(&entries) {
        let entry = entry.unwrap();
        assert_eq!((entry.slot, entry.addr, entry.bytes), (slot(*number), *addr, &payload(*number, 0)[..]));
    }
}

#[test]
fn a_segment_of_raw_pages_or_of_empty_entries_fills_and_reads() {
    let store = SegmentStore::new(Fake::new(2), keys());
    for len in [0, 1, 16, MAX_ENTRY_BYTES - 1, MAX_ENTRY_BYTES] {
        let bytes = vec![0xa5; len];
        let mut builder = begin(&store);
        let mut addrs = Vec::new();
        loop {
            let number = addrs.len() as u64;
            let fits = builder.fits(len);
            match builder.append(slot(number), tag(number), &bytes) {
                Appended::At(addr) => addrs.push(addr),
                Appended::NoRoom => break assert!(!fits),
                Appended::TooLong => unreachable!(),
            }
            assert!(fits);
        }
        assert!(builder.bytes() <= SEGMENT_BYTES && builder.bytes() + 5000 > SEGMENT_BYTES);
        let written = write(&store, builder);
        written.result.as_ref().unwrap();
        let listed: Vec<_> = written.entries().map(|(_, addr)| addr).collect();
        assert_eq!(listed, addrs);
        let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
        for (number, addr) in addrs.iter().enumerate() {
            assert_eq!(store.read_entry(*addr, slot(number as u64), &mut buf).unwrap().bytes, bytes);
            store.release(*addr).unwrap();
        }
    }
}

#[test]
fn an_entry_longer_than_a_page_is_refused() {
    let store = SegmentStore::new(Fake::new(1), keys());
    let mut builder = begin(&store);
    let bytes = vec![1; MAX_ENTRY_BYTES + 1];
    assert_eq!(builder.append(slot(1), tag(1), &bytes), Appended::TooLong);
    assert!(builder.is_empty());
}

#[test]
fn a_part_filled_segment_writes_only_what_it_has() {
    let store = SegmentStore::new(Fake::new(1), keys());
    let mut builder = begin(&store);
    let _ = builder.append(slot(1), tag(1), &[7; 100]);
    let written = write(&store, builder);
    assert_eq!(written.bytes, BLOCK);
    let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
    assert_eq!(store.read_segment(written.segment, &mut buf).unwrap().len(), 1);
}

#[test]
fn an_empty_or_discarded_builder_leaves_no_trace() {
    let store = SegmentStore::new(Fake::new(1), keys());
    let mut writer = store.writer(1);
    writer.submit(begin(&store)).unwrap();
    assert!(writer.wait().unwrap().is_none());
    let _buf = begin(&store).discard();
    assert_eq!(store.stats().segments, 0);
    let _still_room = begin(&store);
}

#[test]
fn a_buffer_too_small_is_refused_not_overrun() {
    let store = SegmentStore::new(Fake::new(1), keys());
    let entries = write_slots(&store, 0..20);
    let (number, addr) = entries.iter().find(|(_, addr)| addr.blocks() > 1).unwrap();
    for have in [0, BLOCK] {
        let mut buf = AlignedBuf::zeroed(have);
        let error = store.read_entry(*addr, slot(*number), &mut buf).unwrap_err();
        assert!(matches!(error, ReadError::Buffer { have: h, .. } if h == have), "{error}");
    }
}

#[test]
fn no_bits_make_an_address_outside_of_a_segment() {
    let last = SegmentId::new((1 << SegmentId::BITS) - 1).unwrap();
    assert_eq!(SegmentId::new(1 << SegmentId::BITS), None);
    let addr = EntryAddr::new(last, SEGMENT_BYTES - 16, 16).unwrap();
    assert!(addr.to_bits() < 1 << EntryAddr::BITS);
    assert_eq!((addr.segment(), addr.offset(), addr.blocks()), (last, SEGMENT_BYTES - 16, 1));
    assert_eq!(EntryAddr::new(last, SEGMENT_BYTES - 16, 17), None);
    assert_eq!(EntryAddr::new(last, 8, 16), None);
    assert_eq!(EntryAddr::new(last, 0, 3 * BLOCK + 1), None);
    assert_eq!(EntryAddr::from_bits(1 << EntryAddr::BITS | 1), None);
    assert_eq!(EntryAddr::from_bits(addr.to_bits() & !3), None);
    assert_eq!(EntryAddr::from_bits(addr.to_bits() | 2), None, "two blocks do not start in the last");
}

#[test]
fn reads_are_counted_by_how_much_was_written_since() {
    let store = SegmentStore::new(Fake::new(8), keys());
    let segments: Vec<_> = (0..5).map(|at| write_slots(&store, at * 900..at * 900 + 100)).collect();
    let mut buf = AlignedBuf::zeroed(16 * BLOCK);
    for (reads, entries) in segments.iter().enumerate() {
        for (number, addr) in &entries[..=reads] {
            store.read_entry(*addr, slot(*number), &mut buf).unwrap();
        }
    }
    let mut whole = AlignedBuf::zeroed(SEGMENT_BYTES);
    store.read_segment(segments[0][0].1.segment(), &mut whole).unwrap();
    let counts = store.stats().reads_by_age;
    // Behind the last segment none was written, behind those before it 1, 2, 3 and 4.
    assert_eq!(counts[..4], [5, 4 + 3, 2 + 1, 0], "cleaning does not count");
    assert_eq!(counts.iter().sum::<u64>(), 15);
}
