//! Readers while segments are written, cleaned, freed and their extents used again.

use super::keys;
use crate::support::{Fake, payload, share_of, slot, tag};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vswap_segment::{
    AlignedBuf, Appended, BLOCK, ClassId, EntryAddr, MAX_ENTRY_BLOCKS, Purpose, SEGMENT_BYTES, SegmentStore,
};

const SLOTS: u64 = 400;

/// What an engine does: a word per slot with the address, changed after the write and before the
/// release. The version is part of the payload's seed and constant per slot, as for a slot that is only moved.
fn read_as_an_engine(store: &SegmentStore, words: &[AtomicU64], number: u64, buf: &mut AlignedBuf) -> u64 {
    let mut retries = 0;
    loop {
        let word = words[number as usize].load(Ordering::Acquire);
        let Some(addr) = EntryAddr::from_bits(word) else { return retries };
        match store.read_entry(addr, slot(number), buf) {
            Ok(entry) => {
                assert_eq!(entry.bytes, payload(number, 0));
                return retries;
            }
            Err(error) => {
                let now = words[number as usize].load(Ordering::Acquire);
                assert_ne!(now, word, "slot {number}: {error}, though the slot still has this address");
                retries += 1;
            }
        }
    }
}

#[test]
fn a_reader_that_loses_a_race_with_cleaning_sees_an_error_or_its_own_page() {
    let store = SegmentStore::new(Fake::new(4), keys());
    let words: Vec<AtomicU64> = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2_u64 {
            let (store, words, stop) = (&store, &words, &stop);
            scope.spawn(move || {
                let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
                let mut number = seed * 7;
                while !stop.load(Ordering::Relaxed) {
                    number = (number * 5 + 13) % SLOTS;
                    read_as_an_engine(store, words, number, &mut buf);
                }
            });
        }
        // Every page moves to a new segment each round; with four extents they are used again at once.
        let mut writer = store.writer(1);
        for _ in 0..share_of(120) {
            let buf = AlignedBuf::zeroed(SEGMENT_BYTES);
            let mut builder = store.begin(Purpose::Cleaning, ClassId::COMMON, buf).unwrap();
            for number in 0..SLOTS {
                let appended = builder.append(slot(number), tag(number), &payload(number, 0));
                assert!(matches!(appended, Appended::At(_)));
            }
            writer.submit(builder).unwrap();
            let written = writer.wait().unwrap().unwrap();
            written.result.as_ref().unwrap();
            for (slot, addr) in written.entries() {
                let old = words[slot.get() as usize].swap(addr.to_bits(), Ordering::AcqRel);
                if let Some(old) = EntryAddr::from_bits(old) {
                    store.release(old).unwrap();
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(store.stats().live_entries, SLOTS);
    assert_eq!(store.stats().segments, 1);
}
