//! Disks that are full, damaged, slow or real.
use crate::flaky::{Faults, Flaky};
use crate::rig::{Rig, middling};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use vswap_core::{ByteCount, PageCount, PageIndex};
use vswap_engine::{BackingKind, Engine, EngineConfig, EngineError, LoadError, LoadedFrom, TierConfig};
use vswap_segment::{Storage, SyncQueue, WriteQueue};

#[test]
fn sparse_segments_are_cleaned_when_the_disk_is_full() {
    // 10 segments; 4096 pages of some 2 KiB are about 5 of them, and four times as much is written in all.
    let mut rig = Rig::over(Flaky::new(20 << 20, Faults::default()), 8);
    let mut content: Vec<usize> = (0..4096).collect();
    for (number, content) in content.iter().enumerate() {
        rig.store(number, *content);
    }
    for round in 0..24 {
        assert!(!rig.write_all_back(), "round {round}: full though half of it is dead");
        // A quarter of the pages, spread over all, so that no segment dies as a whole.
        for number in (0..4096).filter(|number| (number * 2_654_435_761_usize + round * 40_503) >> 7 & 3 == 0)
        {
            content[number] += 5000;
            rig.store(number, content[number]);
        }
        // Now and then the room of dead segments goes back; what lives must not.
        for _ in 0..100 {
            rig.engine.maintain(false);
        }
    }
    let stats = rig.engine.stats();
    assert!(stats.cleaned_pages.get() > 0, "{stats:?}");
    for (number, content) in content.iter().enumerate() {
        assert!(rig.load(number).unwrap().1 == middling(*content), "page {number}");
    }
    rig.finish();
}

/// A segment written from such as are four fifths alive empties one of them and a part of the next: no room is won until it is done
/// several times.
#[test]
fn a_disk_of_which_a_fifth_is_dead_everywhere_is_not_full() {
    // 10 segments, of which 2 are for cleaning; 7000 pages of some 2 KiB are a little more than 7.
    let mut rig = Rig::over(Flaky::new(20 << 20, Faults::default()), 14);
    for number in 0..7000 {
        rig.store(number, number);
    }
    assert!(!rig.write_all_back());
    for round in 1..=5 {
        for number in (0..7000).filter(|number| number % 5 == round % 5) {
            rig.store(number, number + 7000 * round);
        }
        assert!(!rig.write_all_back(), "round {round}");
    }
    for number in 0..7000 {
        let round = if number % 5 == 0 { 5 } else { number % 5 };
        assert!(rig.load(number).unwrap().1 == middling(number + 7000 * round), "page {number}");
    }
    rig.finish();
}

#[test]
fn a_full_disk_pushes_back_and_takes_again_when_there_is_room() {
    let mut rig = Rig::over(Flaky::new(4 << 20, Faults::default()), 8);
    for number in 0..4096 {
        rig.store(number, number);
    }
    assert!(rig.write_all_back());
    assert!(rig.write_all_back(), "still full");
    for number in 0..4096 {
        assert!(rig.load(number).unwrap().1 == middling(number), "page {number}");
    }
    for number in 0..3900 {
        let (block, at) = Rig::place(number);
        rig.blocks[block].release(&rig.engine, at);
    }
    assert!(!rig.write_all_back());
    assert_eq!(rig.engine.stats().pool_pages, PageCount::ZERO);
    rig.finish();
}

#[test]
fn damaged_bytes_are_an_error_that_stays_until_the_page_is_stored_anew() {
    let disk = Flaky::new(8 << 20, Faults { flipped_read: 1, ..Faults::default() });
    let mut rig = Rig::over(disk.clone(), 1);
    let slot = rig.store(7, 7);
    rig.store(8, 8);
    rig.write_all_back();
    assert_eq!(rig.engine.backing(slot), BackingKind::Segment);
    // The flipped bit may fall beside the entry: then the page is right. It must never be wrong.
    let error = loop {
        match rig.load(7) {
            Ok((_, bytes)) => assert!(bytes == middling(7)),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LoadError::Corrupt { slot: lost, .. } if lost == slot), "{error}");
    disk.heal();
    assert!(matches!(rig.load(7), Err(LoadError::Poisoned { .. })));
    assert_eq!(rig.engine.backing(slot), BackingKind::Poisoned);
    assert!(rig.load(8).unwrap().1 == middling(8), "its neighbour is whole");
    rig.store(7, 99);
    assert!(rig.load(7).unwrap().1 == middling(99));
    assert_eq!(rig.engine.stats().lost, 1);
    rig.finish();
}

#[test]
fn a_device_error_loses_nothing() {
    let disk = Flaky::new(8 << 20, Faults { read_error: 1, ..Faults::default() });
    let mut rig = Rig::over(disk.clone(), 1);
    rig.store(0, 3);
    rig.write_all_back();
    assert!(matches!(rig.load(0), Err(LoadError::Io { .. })));
    disk.heal();
    let (from, bytes) = rig.load(0).unwrap();
    assert!(from == LoadedFrom::Segment && bytes == middling(3));
    rig.finish();
}

/// A disk whose first write waits.
#[derive(Debug)]
struct Held {
    inner: Arc<Flaky>,
    waiting: AtomicBool,
    reached: Barrier,
    go_on: Barrier,
}

impl Storage for Held {
    fn capacity(&self) -> u64 {
        self.inner.capacity()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        if self.waiting.swap(false, Ordering::Relaxed) {
            self.reached.wait();
            self.go_on.wait();
        }
        self.inner.write_at(offset, from)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.punch(offset, len)
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(SyncQueue::new(self, depth))
    }
}

#[test]
fn nobody_waits_for_a_write_that_is_under_way() {
    let inner = Flaky::new(8 << 20, Faults::default());
    let held =
        Held { inner, waiting: AtomicBool::new(true), reached: Barrier::new(2), go_on: Barrier::new(2) };
    let held = Arc::new(held);
    let mut rig = Rig::over(held.clone(), 2);
    for number in 0..600 {
        rig.store(number, number);
    }
    let engine = Arc::clone(&rig.engine);
    let report = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut scratch = engine.scratch();
            engine.writeback(engine.pool_payload(), &mut scratch).unwrap()
        });
        held.reached.wait();
        // All 600 are on their way. Reading, replacing, releasing and forking them goes on.
        assert!(rig.load(0).unwrap() == (LoadedFrom::Pool, middling(0)));
        rig.store(1, 1001);
        let (block, at) = Rig::place(2);
        rig.blocks[block].release(&rig.engine, at);
        let child = rig.blocks[0].fork(&rig.engine);
        rig.store(3, 1003);
        rig.blocks.push(child);
        held.go_on.wait();
        writer.join().unwrap()
    });
    // Page 3 is still the child's, so it went; 1 was replaced and 2 is gone.
    assert_eq!(report.pages, PageCount::new(598));
    assert!(rig.load(0).unwrap() == (LoadedFrom::Segment, middling(0)));
    assert!(rig.load(1).unwrap() == (LoadedFrom::Pool, middling(1001)));
    assert!(rig.load(3).unwrap() == (LoadedFrom::Pool, middling(1003)));
    assert!(!rig.blocks[0].has_backing(&rig.engine, PageIndex::new(2).unwrap()));
    assert!(rig.load(2 * 512 + 3).unwrap() == (LoadedFrom::Segment, middling(3)));
    rig.finish();
}

#[test]
fn pages_come_back_from_a_real_file() {
    let tiers = vec![TierConfig::new(env!("CARGO_TARGET_TMPDIR"), ByteCount::mib(64))];
    let engine = match Engine::new(EngineConfig { tiers, ..EngineConfig::default() }) {
        Ok(engine) => engine,
        // A build directory on a memory file system: the engine is right to refuse it.
        Err(EngineError::Disk { source }) if source.to_string().contains("is memory") => return,
        Err(error) => panic!("{error}"),
    };
    let mut rig = Rig::of(engine, 8);
    for number in 0..4096 {
        rig.store(number, number);
    }
    assert!(!rig.write_all_back());
    let stats = rig.engine.stats();
    assert_eq!((stats.pool_pages, stats.segment_pages), (PageCount::ZERO, PageCount::new(4096)));
    for number in (0..4096).rev() {
        let (from, bytes) = rig.load(number).unwrap();
        assert!(from == LoadedFrom::Segment && bytes == middling(number), "page {number}");
    }
    rig.finish();
}

#[test]
fn a_directory_in_memory_is_refused_with_the_remedy() {
    let tiers = vec![TierConfig::new("/dev/shm", ByteCount::mib(64))];
    let error = Engine::new(EngineConfig { tiers, ..EngineConfig::default() }).unwrap_err();
    assert!(error.to_string().contains("--disk-path"), "{error}");
}
