//! The device fails: nothing is lost, nothing leaks, and the error says what happened.

use super::keys;
use crate::support::{Fake, Fault, begin, payload, slot, tag, write, write_slots};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vswap_segment::{
    AlignedBuf, BLOCK, ClassId, MAX_ENTRY_BLOCKS, Purpose, ReadError, SEGMENT_BYTES, SegmentBuilder,
    SegmentStore, Storage, TierState, Wanted, WriteDone, WriteQueue,
};

fn filled(store: &SegmentStore) -> SegmentBuilder {
    let mut builder = begin(store);
    for number in 0..300 {
        let _ = builder.append(slot(number), tag(number), &payload(number, 0));
    }
    builder
}

#[test]
fn a_failed_write_keeps_nothing_and_frees_the_extent() {
    let fake = Fake::new(1);
    let store = SegmentStore::new(fake.clone(), keys());
    for fault in [Fault::WriteError, Fault::DiskFullAfter(0), Fault::DiskFullAfter(12_288)] {
        fake.set(fault);
        let written = write(&store, filled(&store));
        let error = written.result.as_ref().unwrap_err();
        let full = matches!(fault, Fault::DiskFullAfter(_));
        assert_eq!(error.kind() == ErrorKind::StorageFull, full, "{error}");
        let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
        for (slot, addr) in written.entries() {
            let error = store.read_entry(addr, slot, &mut buf).unwrap_err();
            assert!(matches!(error, ReadError::NotThere { .. }), "{error}");
            assert!(store.release(addr).is_err());
        }
        assert_eq!((store.stats().segments, store.stats().live_entries), (0, 0));
        // A full device is no broken one, which takes no more until somebody has seen to it.
        let tier = store.tiers()[0];
        assert_eq!(tier.state, if full { TierState::Open } else { TierState::Failing });
        store.set_state(tier.tier, TierState::Open).unwrap();
    }
    assert_eq!(store.stats().write_errors, 3);
    fake.set(None);
    assert_eq!(write_slots(&store, 0..300).len(), 300, "the one extent is free again");
}

#[test]
fn a_torn_write_is_found_entry_by_entry() {
    let fake = Fake::new(1);
    let store = SegmentStore::new(fake.clone(), keys());
    let kept = 20 * BLOCK;
    fake.set(Fault::TornWrite(kept));
    let entries = write_slots(&store, 0..300);
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    for (number, addr) in &entries {
        let end = addr.offset() + keys().guard().header_bytes() + payload(*number, 0).len();
        let read = store.read_entry(*addr, slot(*number), &mut buf);
        assert_eq!(read.is_ok(), end <= kept, "slot {number} ends at {end}");
    }
    let mut whole = AlignedBuf::zeroed(SEGMENT_BYTES);
    assert!(store.read_segment(entries[0].1.segment(), &mut whole).is_err(), "its summary is missing");
}

#[test]
fn a_read_error_names_segment_tier_and_file_offset() {
    let fake = Fake::new(3);
    let store = SegmentStore::new(fake.clone(), keys());
    let _first = write_slots(&store, 0..10);
    let second = write_slots(&store, 0..300);
    let (number, addr) = second[200];
    fake.set(Fault::ReadError);
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    let error = store.read_entry(addr, slot(number), &mut buf).unwrap_err();
    let at = SEGMENT_BYTES + addr.first_block() * BLOCK;
    assert!(error.to_string().contains("segment 1 on tier 0: reading"), "{error}");
    assert!(error.to_string().contains(&format!("file offset {at:#x}")), "{error}");
    assert_eq!(store.stats().read_errors, 1);
    fake.set(None);
    assert_eq!(store.read_entry(addr, slot(number), &mut buf).unwrap().bytes, payload(number, 0));
}

#[test]
fn a_short_read_gives_what_came_whole_and_no_more() {
    let fake = Fake::new(1);
    let store = SegmentStore::new(fake.clone(), keys());
    let entries = write_slots(&store, 0..300);
    fake.set(Fault::ShortRead(2 * BLOCK));
    let mut buf = AlignedBuf::zeroed(16 * BLOCK);
    let run = store.read_run(entries[0].1, slot(0), buf.len(), &mut buf).unwrap();
    let come = 1 + run.neighbours().count();
    let whole = |i: usize| {
        entries[i].1.offset() + keys().guard().header_bytes() + payload(i as u64, 0).len() <= 2 * BLOCK
    };
    assert!(come > 1 && whole(come - 1) && !whole(come), "{come} entries from two blocks");
}

#[test]
fn a_full_tier_refuses_then_takes_again_after_a_release() {
    let store = SegmentStore::new(Fake::new(3), keys());
    let segments: Vec<_> = (0..3).map(|_| write_slots(&store, 0..10)).collect();
    let refused = store.begin(Purpose::Writeback, ClassId::COMMON, AlignedBuf::zeroed(SEGMENT_BYTES));
    let (full, buf) = refused.expect_err("three of three are in use");
    assert_eq!((full.segments, full.capacity), (3, 3));
    for (i, (_, addr)) in segments[1].iter().enumerate() {
        assert_eq!(store.release(*addr), Ok(i == 9));
    }
    assert!(store.begin(Purpose::Writeback, ClassId::COMMON, buf).is_ok());
}

#[test]
fn the_last_extents_are_kept_for_cleaning() {
    let store = SegmentStore::new(Fake::new(8), keys());
    let buf = || AlignedBuf::zeroed(SEGMENT_BYTES);
    let mut held: Vec<_> =
        (0..6).map(|_| store.begin(Purpose::Writeback, ClassId::COMMON, buf()).unwrap()).collect();
    assert!(store.begin(Purpose::Writeback, ClassId::COMMON, buf()).is_err());
    held.extend((0..2).map(|_| store.begin(Purpose::Cleaning, ClassId::COMMON, buf()).unwrap()));
    assert!(store.begin(Purpose::Cleaning, ClassId::COMMON, buf()).is_err());
    drop(held);
    assert_eq!(store.stats().segments, 0);
}

#[test]
fn freed_room_goes_back_to_the_file_system() {
    let fake = Fake::new(40);
    let store = SegmentStore::new(fake.clone(), keys());
    let all: Vec<_> = (0..30).flat_map(|_| write_slots(&store, 0..3)).collect();
    for (_, addr) in all {
        store.release(addr).unwrap();
    }
    let some = store.trim(true);
    assert!(some > 0 && some < 30 * SEGMENT_BYTES as u64, "a few stay warm: {some}");
    fake.set(Fault::PunchError);
    assert_eq!(store.trim(false), 0);
    fake.set(None);
    assert_eq!(fake.punched.load(Ordering::Relaxed), some);
    // A punch that failed costs room on the disk, not the use of the extent.
    let again: Vec<_> = (0..38).map(|_| begin(&store)).collect();
    assert_eq!(again.len(), 38);
}

#[test]
fn a_writer_dropped_with_writes_unclaimed_gives_everything_back() {
    let store = SegmentStore::new(Fake::new(4), keys());
    let mut writer = store.writer(1);
    for _ in 0..3 {
        writer.submit(filled(&store)).unwrap();
    }
    assert_eq!(writer.outstanding(), 3);
    drop(writer);
    assert_eq!(store.stats().segments, 0);
}

#[test]
fn a_damaged_segment_is_not_chosen_for_cleaning_again() {
    let fake = Fake::new(4);
    let store = SegmentStore::new(fake.clone(), keys());
    let mut entries = write_slots(&store, 0..50);
    let id = entries[0].1.segment();
    let mut buf = AlignedBuf::zeroed(SEGMENT_BYTES);
    assert_eq!(store.pick_to_clean(1.0, &Wanted::default()).map(|chosen| chosen.segment), Some(id));
    assert_eq!(store.pick_to_clean(1.0, &Wanted::default()), None, "it is being cleaned");
    fake.edit(|bytes| bytes[20] ^= 1);
    assert!(store.read_segment(id, &mut buf).is_err());
    store.stop_cleaning(id);
    assert_eq!(store.pick_to_clean(1.0, &Wanted::default()), None, "it could not be emptied");
    // It dies with its last entry like any other, and its number and extent are good again.
    for (_, addr) in entries.drain(..) {
        store.release(addr).unwrap();
    }
    assert_eq!(write_slots(&store, 0..50)[0].1.segment(), id);
    assert!(store.read_segment(id, &mut buf).is_ok());
    assert_eq!(store.pick_to_clean(1.0, &Wanted::default()).map(|chosen| chosen.segment), Some(id));
}

/// A device whose queue takes nothing and breaks down when it is waited for.
#[derive(Debug)]
struct Broken;

impl Storage for Broken {
    fn capacity(&self) -> u64 {
        SEGMENT_BYTES as u64
    }

    fn read_at(&self, _offset: u64, _into: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::BrokenPipe.into())
    }

    fn write_at(&self, _offset: u64, _from: &[u8]) -> io::Result<()> {
        Err(ErrorKind::BrokenPipe.into())
    }

    fn punch(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_queue(self: Arc<Self>, _depth: usize) -> Box<dyn WriteQueue> {
        Box::new(BrokenQueue)
    }
}

struct BrokenQueue;

impl WriteQueue for BrokenQueue {
    fn submit(
        &mut self,
        _offset: u64,
        buf: AlignedBuf,
        _len: usize,
        _tag: u64,
    ) -> Result<(), (io::Error, AlignedBuf)> {
        Err((ErrorKind::BrokenPipe.into(), buf))
    }

    fn is_full(&self) -> bool {
        true
    }

    fn wait(&mut self) -> io::Result<Option<WriteDone>> {
        Err(ErrorKind::BrokenPipe.into())
    }
}

/// The segment stayed "being written" for ever: its extent was lost, and its tier could not be removed.
#[test]
fn a_segment_that_could_not_be_sent_gives_its_extent_back() {
    let store = SegmentStore::new(Arc::new(Broken), keys());
    let mut writer = store.writer(1);
    assert_eq!(writer.submit(filled(&store)).unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!((writer.outstanding(), store.stats().segments), (0, 0));
    store.remove_tier(store.tiers()[0].tier).unwrap();
}
