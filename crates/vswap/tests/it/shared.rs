//! One tier of fixed size for a region, a program under `vswap run`, and a cache of named objects.

use crate::run_like_plain::{run, works};
use crate::tiers::{PYTHON, filled_by};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vswap::Region;
use vswap::objects::{ByteCount, NamedError, Store, StoreConfig};

const MIB: usize = 1 << 20;
const STORE: u64 = 224 << 20;
const PINNED: Range<u64> = 0..16;
const CACHED: Range<u64> = 16..170;
/// What is put while the cache gives way is numbered from here on.
const BETWEEN: u64 = 1 << 32;

/// Words that do not compress.
fn noise(seed: u64, words: &mut [u64]) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in words {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state;
    }
}

fn object(number: u64) -> Vec<u8> {
    let (mut words, mut bytes) = (vec![0; MIB / 8], vec![0; MIB]);
    noise(number, &mut words);
    bytes.chunks_exact_mut(8).zip(words).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
    bytes
}

/// Tells whether there was room.
fn put(store: &Arc<Store>, number: u64) -> bool {
    let made = store.object(b"cache", &number.to_be_bytes(), 0).unwrap();
    match made.write(0, &object(number)) {
        Ok(()) => true,
        Err(NamedError::Full) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Bytes of these that are there, all of which are right.
fn there(store: &Arc<Store>, numbers: Range<u64>) -> u64 {
    let mut all = 0;
    for number in numbers {
        let Some(found) = store.find(b"cache", &number.to_be_bytes()).unwrap() else { continue };
        let (mut buf, mut wanted) = (vec![0; MIB], object(number));
        let missing = found.read(0, &mut buf).unwrap().missing;
        missing.iter().for_each(|gap| wanted[gap.start as usize..gap.end as usize].fill(0));
        assert!(buf == wanted, "object {number} has other bytes");
        all += MIB as u64 - missing.into_iter().map(|gap| gap.end - gap.start).sum::<u64>();
    }
    all
}

fn region(dir: &Path, round: u64) {
    let mut region = Region::builder(72 << 20).limit(16 << 20).store(dir, STORE).build().unwrap();
    let words: &mut [u64] = region.as_mut_slice_of();
    for turn in 0..2 {
        for (page, words) in (0..).zip(words.chunks_mut(512)) {
            noise(page << 16 | round << 8 | turn, words);
        }
        let mut wanted = [0; 512];
        for (page, words) in (0..).zip(words.chunks(512)) {
            noise(page << 16 | round << 8 | turn, &mut wanted);
            assert!(words == wanted, "page {page} has other bytes");
        }
    }
}

#[test]
fn memory_grows_the_cache_gives_way_what_is_pinned_stays_and_nobody_reads_a_wrong_byte() {
    if !works() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let config = StoreConfig { page_cache: 0, ..StoreConfig::default() };
    let store = Store::create(dir.path(), STORE, &config).unwrap();
    for number in PINNED.start..CACHED.end {
        assert!(put(&store, number));
        if PINNED.contains(&number) {
            store.find(b"cache", &number.to_be_bytes()).unwrap().unwrap().pin().unwrap();
        }
        if number % 16 == 0 {
            store.sync().unwrap();
        }
    }
    store.sync().unwrap();
    let full = there(&store, CACHED);
    assert_eq!(full, (CACHED.end - CACHED.start) << 20);
    let lending = store.lend(dir.path()).unwrap();

    let mut command = run(&["--disk-path", dir.path().to_str().unwrap()], &PYTHON);
    command.arg("40960");
    let running = filled_by(command);
    let (grown, most) = (AtomicBool::new(false), std::sync::Mutex::new(ByteCount::ZERO));
    std::thread::scope(|scope| {
        // The cache is used all the while.
        let cache = scope.spawn(|| {
            let mut number = BETWEEN;
            while !grown.load(Ordering::Acquire) {
                put(&store, number);
                number += 1;
                if number.is_multiple_of(8) {
                    store.sync().unwrap();
                    there(&store, number - 8..number);
                    assert_eq!(there(&store, PINNED), (PINNED.end - PINNED.start) << 20, "what is pinned");
                }
                let mut most = most.lock().unwrap();
                *most = store.lent().max(*most);
            }
        });
        for round in 0..2 {
            region(dir.path(), round);
        }
        grown.store(true, Ordering::Release);
        cache.join().unwrap();
    });
    let most = *most.lock().unwrap();
    assert!(most > ByteCount::mib(96), "{most} were lent at once");
    running.written();
    let left = there(&store, CACHED);
    assert!(left < full / 2, "{left} of {full} bytes of the cache are left");
    assert_eq!(there(&store, PINNED), (PINNED.end - PINNED.start) << 20, "what is pinned");
    assert_eq!(running.end(), (Some(0), "0 wrong\n".to_owned()));

    // The room is the cache's again. What was put meanwhile has been read, so it would be spared before what comes now: how much of it there is depends on how fast all this was.
    store.invalidate(b"cache", &BETWEEN.to_be_bytes()[..4]).unwrap();
    let since = Instant::now();
    while !store.lent().is_zero() {
        assert!(since.elapsed() < Duration::from_secs(20), "{} are lent still", store.lent());
        std::thread::sleep(Duration::from_millis(10));
    }
    for number in CACHED {
        assert!(put(&store, number));
        if number % 16 == 0 {
            store.sync().unwrap();
        }
    }
    store.sync().unwrap();
    assert!(there(&store, CACHED) > full / 10 * 9);
    store.audit().unwrap();
    drop((lending, store));
    let store = Store::open(dir.path(), &config).unwrap();
    assert_eq!(there(&store, PINNED), (PINNED.end - PINNED.start) << 20, "what is pinned");
    assert!(there(&store, CACHED) > full / 10 * 9);
}

/// What a killed borrower has given to the kernel may be written after its end: not to where the store's bytes are by then.
#[test]
fn a_borrower_that_is_killed_in_the_middle_of_its_writes_damages_nothing() {
    if !works() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let config = StoreConfig { page_cache: 0, ..StoreConfig::default() };
    let store = Store::create(dir.path(), 160 << 20, &config).unwrap();
    for number in PINNED {
        assert!(put(&store, number));
        store.find(b"cache", &number.to_be_bytes()).unwrap().unwrap().pin().unwrap();
    }
    store.sync().unwrap();
    let _lending = store.lend(dir.path()).unwrap();
    let mut number = CACHED.start;
    for _ in 0..5 {
        let mut command = run(&["--disk-path", dir.path().to_str().unwrap()], &PYTHON);
        let mut child = command.arg("40960").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let since = Instant::now();
        while store.lent() < ByteCount::mib(24) {
            assert!(since.elapsed() < Duration::from_secs(60), "nothing is borrowed");
            std::thread::sleep(Duration::from_millis(1));
        }
        for pid in vswap_sys::process::children(child.id() as i32).unwrap() {
            assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        }
        let first = number;
        let since = Instant::now();
        while !store.lent().is_zero() || number < first + 24 {
            assert!(since.elapsed() < Duration::from_secs(60), "its room did not come back");
            put(&store, number);
            number += 1;
            if number.is_multiple_of(4) {
                store.sync().unwrap();
            }
        }
        child.wait().unwrap();
        store.sync().unwrap();
        assert_eq!(there(&store, PINNED), (PINNED.end - PINNED.start) << 20, "what is pinned");
        there(&store, first..number);
        store.audit().unwrap();
    }
}
