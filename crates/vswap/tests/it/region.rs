//! Regions: every page holds its number, a version and a checksum of both, and is checked whenever it is read.

use vswap::Region;

const WORDS: usize = 512;

/// A small generator, so that a seed replays.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn word(page: u64, version: u64, at: usize) -> u64 {
    match (version % 4, at % 4) {
        // Some versions compress to nothing, some little, some not at all.
        (0, _) => version,
        (1, 0) | (2, 0 | 1) | (3, _) => {
            (page << 32 ^ version).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ at as u64)
        }
        _ => page,
    }
}

fn write(words: &mut [u64], page: u64, version: u64) {
    words[0] = page;
    words[1] = version;
    for (at, cell) in words.iter_mut().enumerate().skip(2) {
        *cell = word(page, version, at);
    }
}

fn check(words: &[u64], page: u64, version: u64) {
    if version == 0 {
        assert!(words.iter().all(|&word| word == 0), "page {page} was never written and is not zero");
        return;
    }
    assert_eq!((words[0], words[1]), (page, version), "page {page}: number and version");
    for (at, &found) in words.iter().enumerate().skip(2) {
        assert_eq!(found, word(page, version, at), "page {page} version {version} word {at}");
    }
}

/// Random reads and writes of `chunk`, whose first page is number `first`.
fn work(chunk: &mut [u64], first: u64, versions: &mut [u64], seed: u64, operations: usize) {
    let mut random = Random(seed);
    for _ in 0..operations {
        let draw = random.next();
        let at = (draw >> 20) as usize % versions.len();
        let words = &mut chunk[at * WORDS..(at + 1) * WORDS];
        let page = first + at as u64;
        check(words, page, versions[at]);
        if draw.is_multiple_of(3) {
            versions[at] += 1 + draw % 5;
            write(words, page, versions[at]);
        }
    }
}

fn checker(mib: usize, limit: u64, threads: usize, rounds: usize, operations: usize, disk: bool) {
    let dir = tempfile::Builder::new().prefix("vswap-region").tempdir_in("/var/tmp").unwrap();
    let mut builder = Region::builder((mib as u64) << 20).limit(limit);
    if disk {
        builder = builder.disk(dir.path(), 1 << 30);
    }
    let mut region = builder.build().unwrap();
    let pages = mib * 256;
    let mut versions = vec![0u64; pages];
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..rounds {
        let per = pages / threads;
        let words: &mut [u64] = region.as_mut_slice_of();
        std::thread::scope(|scope| {
            let chunks = words.chunks_mut(per * WORDS).zip(versions.chunks_mut(per));
            for (thread, (chunk, versions)) in chunks.enumerate() {
                let seed = random.next() | 1;
                scope.spawn(move || work(chunk, (thread * per) as u64, versions, seed, operations));
            }
        });
        // Discard a stretch: it must read as zero, whatever was out, resident or staged.
        let start = random.next() as usize % pages;
        let end = (start + 700).min(pages);
        region.dont_need(start * 4096..end * 4096);
        versions[start..end].fill(0);
        region.cold(0..region.len() / 2);
        region.will_need(region.len() / 2..region.len() / 2 + 4096 * 100);
    }
    let words: &[u64] = region.as_slice_of();
    for (page, &version) in versions.iter().enumerate() {
        check(&words[page * WORDS..(page + 1) * WORDS], page as u64, version);
    }
    let stats = region.stats();
    assert!(stats.evicted > pages as u64, "the limit was no burden: {stats:?}");
    assert_eq!(stats.poisoned, 0, "{stats:?}");
}

#[test]
fn no_wrong_byte_with_one_thread_at_the_least_limit() {
    checker(64, 8 << 20, 1, 6, 20_000, false);
}

#[test]
fn no_wrong_byte_with_four_threads_in_a_small_limit() {
    checker(96, 24 << 20, 4, 6, 10_000, false);
}

#[test]
fn no_wrong_byte_with_four_threads_and_a_disk() {
    checker(96, 16 << 20, 4, 6, 10_000, true);
}

#[test]
fn a_region_of_nothing_is_refused() {
    assert!(Region::builder(0).build().is_err());
}

#[test]
fn a_limit_below_the_least_is_refused_with_the_least() {
    let error = Region::builder(1 << 20).limit(1 << 20).build().unwrap_err();
    assert!(error.to_string().contains("8388608"), "{error}");
}

#[test]
fn a_region_larger_than_memory_costs_nothing_until_touched() {
    let mut region = Region::builder(1 << 40).limit(16 << 20).build().unwrap();
    let bytes = region.as_mut_slice();
    for at in (0..1 << 40).step_by(1 << 34) {
        bytes[at] = 7;
    }
    for at in (0..1 << 40).step_by(1 << 34) {
        assert_eq!((bytes[at], bytes[at + 4096]), (7, 0));
    }
}

/// The faults of a program's first thread were taken for those of a stub, which must not wait for room: it went past the limit as far as it liked.
#[test]
fn the_first_thread_of_a_program_goes_past_the_limit() {
    let example = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples/region");
    for _ in 0..3 {
        let run = std::process::Command::new(&example).args(["192", "16"]).output().expect("it is built");
        let text = String::from_utf8(run.stdout).unwrap();
        assert!(run.status.success(), "{text}");
        let peak = text.split_once("peak ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
        // What it has of its own besides, and no more.
        assert!(peak.is_some_and(|mib| (16..=25).contains(&mib)), "{text}");
    }
}

/// Pages that are just being written to a device cannot be moved. To try it again the kernel was asked to make them writable, which is a fault where they are clean: its
/// answer waited for the block that the one who asked had locked.
#[test]
fn clean_pages_that_a_device_reads_from_stop_a_region() {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    const PIECE: usize = 256 << 10;
    let mut region = Region::builder(64 << 20).limit(16 << 20).build().unwrap();
    for (number, page) in region.as_mut_slice_of::<u64>().chunks_mut(WORDS).enumerate() {
        write(page, number as u64, 1);
    }
    let dir = Scratch::new();
    let direct = |name: &str| {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).custom_flags(0o40000);
        options.open(dir.0.join(name)).expect("direct I/O")
    };
    let (bytes, over) = (region.as_slice(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writers = ["a", "b"].map(|name| {
            let file = direct(name);
            scope.spawn(move || {
                let mut random = Random(name.len() as u64 + u64::from(name.as_bytes()[0]));
                for _ in 0..100 {
                    let at = random.next() as usize % (bytes.len() / PIECE) * PIECE;
                    file.write_all_at(&bytes[at..at + PIECE], 0).unwrap();
                }
            })
        });
        scope.spawn(|| {
            let mut random = Random(5);
            while !over.load(Relaxed) {
                let page = random.next() as usize % (bytes.len() / 4096);
                assert_eq!(bytes[page * 4096..][..8], (page as u64).to_ne_bytes());
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        over.store(true, Relaxed);
    });
    for (number, page) in region.as_slice_of::<u64>().chunks(WORDS).enumerate() {
        check(page, number as u64, 1);
    }
}

/// A directory of its own on a disk.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Self {
        let dir =
            std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("direct-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
