//! Reading ahead beside a fault.

use crate::fixture::{Fixture, PAGE, fixture_over, fixture_with};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vswap_core::ByteCount;
use vswap_engine::{Engine, EngineConfig};
use vswap_pager::PagerConfig;
use vswap_segment::{Storage, SyncQueue, WriteQueue};
use vswap_sys::pagemap::Pagemap;
use vswap_sys::sched::allowed_cpus;

/// Who reads on waits for one run while the next comes on another CPU: it is there before anybody has touched it, also where the next
/// block begins.
#[test]
fn the_next_run_comes_while_one_is_waited_for() {
    if allowed_cpus().len() < 2 {
        return eprintln!("one CPU: nothing is read ahead beside a fault");
    }
    for down in [false, true] {
        let mut fixture = fixture_with(48, PagerConfig::new(ByteCount::mib(48)));
        fixture.manage(0..48 * 512);
        let order = |at: usize| if down { 1023 - at } else { at };
        for at in 0..1024 {
            fixture.bytes.as_mut_slice()[order(at) * PAGE] = at as u8;
        }
        fixture.press(1024..48 * 512, 3);
        // The limit leaves no room for long runs while the pages of others are in the way.
        fixture.bytes.discard(24 * 512 * PAGE, 24 * 512 * PAGE);
        let pagemap = Pagemap::open(std::process::id() as i32).unwrap();
        let is_there = |at: usize| {
            let mut there = false;
            pagemap.present(fixture.range(order(at)..order(at) + 1), |_| there = true).unwrap();
            there
        };
        let read = |at: usize| assert_eq!(fixture.bytes.as_slice()[order(at) * PAGE], at as u8, "page {at}");
        // Runs of 1, 4, 8, 16 and 32 pages.
        assert!((0..61).all(|at| !is_there(at)), "they are not out");
        (0..40).for_each(read);
        let since = Instant::now();
        while !(61..93).all(is_there) {
            assert!(since.elapsed() < Duration::from_secs(20), "nothing comes ahead, downwards: {down}");
            std::thread::sleep(Duration::from_millis(1));
        }
        let before = fixture.faults("pool");
        (40..93).for_each(read);
        assert_eq!(fixture.faults("pool"), before, "what has come ahead is asked for again");
        (93..512).for_each(read);
        let since = Instant::now();
        while !(512..544).all(is_there) {
            assert!(
                since.elapsed() < Duration::from_secs(20),
                "nothing comes of the next block, downwards: {down}"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        (512..1024).for_each(read);
    }
}

/// A device in memory, on which reads of the reader ahead fail.
#[derive(Debug, Default)]
struct FailsAhead {
    bytes: Mutex<Vec<u8>>,
    fails: AtomicBool,
    failed: AtomicU64,
}

impl Storage for FailsAhead {
    fn capacity(&self) -> u64 {
        128 << 20
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if self.fails.load(Relaxed) && std::thread::current().name() == Some("ahead") {
            self.failed.fetch_add(1, Relaxed);
            return Err(io::ErrorKind::Other.into());
        }
        let bytes = self.bytes.lock().unwrap();
        let there = bytes.get(offset as usize..).unwrap_or_default();
        let got = there.len().min(into.len());
        into[..got].copy_from_slice(&there[..got]);
        Ok(got)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        let end = offset as usize + from.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(from);
        Ok(())
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(SyncQueue::new(self, depth))
    }
}

/// Noise on the device, and room for long runs.
fn noise_out(device: &Arc<FailsAhead>) -> Fixture {
    let storage = Arc::clone(device) as Arc<dyn Storage>;
    let engine = Engine::with_storage(EngineConfig::default(), storage).unwrap();
    let mut fixture = fixture_over(engine, 48, PagerConfig::new(ByteCount::mib(48)));
    fixture.manage(0..48 * 512);
    let mut random = 88_172_645_463_325_252u64;
    for page in 0..44 * 512 {
        let bytes = &mut fixture.bytes.as_mut_slice()[page * PAGE..][..PAGE];
        for word in bytes.as_chunks_mut::<8>().0 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *word = random.to_le_bytes();
        }
        bytes[..8].copy_from_slice(&(page as u64).to_le_bytes());
    }
    fixture.bytes.discard(READ * PAGE, (48 * 512 - READ) * PAGE);
    fixture
}

/// Pages of it that are left.
const READ: usize = 24 * 512;

fn read_all(fixture: &Fixture) {
    for page in 0..READ {
        assert_eq!(fixture.bytes.as_slice()[page * PAGE..][..8], (page as u64).to_le_bytes());
    }
}

/// Half of a run had not come with the read of the device, and who read on to there was taken for one that jumps about: a fault for
/// every eight pages.
#[test]
fn who_reads_what_does_not_compress_from_the_device_has_few_faults() {
    let fixture = noise_out(&Arc::default());
    let before = fixture.faults("segment");
    read_all(&fixture);
    let faults = fixture.faults("segment") - before;
    assert!(faults > 100 && faults < READ as u64 / 14, "{faults} faults");
}

/// A page that nobody had asked for yet and that could not be read was made unreadable: who came to it got `SIGBUS`, though the next
/// read might have brought it.
#[test]
fn a_page_that_cannot_be_read_ahead_is_left_to_who_asks_for_it() {
    if allowed_cpus().len() < 2 {
        return eprintln!("one CPU: nothing is read ahead beside a fault");
    }
    let device = Arc::new(FailsAhead::default());
    let fixture = noise_out(&device);
    device.fails.store(true, Relaxed);
    read_all(&fixture);
    assert!(device.failed.load(Relaxed) > 0, "nothing was read ahead: {:?}", fixture.pager.stats());
    assert_eq!(fixture.pager.stats().poisoned, 0);
}
