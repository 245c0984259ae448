//! Files that are kept whole, and that the kernel reads by itself: on mounts that are read-only.

use super::{Mounted, Place, age, noise};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

const MIB: usize = 1 << 20;
/// How long is waited for what happens soon.
const SOON: Duration = Duration::from_secs(60);

/// Writes a file that was written long ago, as far as its time tells.
fn write_old(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
}

/// The pages that the kernel has of files are gone.
fn forget_pages() {
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
}

/// A program in Python that is told by lines, and answers.
fn maps_file(dir: &Path, script: &str) -> Child {
    let mut python = Command::new("python3");
    python.args(["-c", script]).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    python.spawn().unwrap()
}

/// Whether a file that is open can be read while nobody answers the kernel.
fn is_read_by_the_kernel(file: &File, mounted: &Mounted) -> bool {
    forget_pages();
    mounted.stop();
    let read = file.try_clone().unwrap();
    let reader = std::thread::spawn(move || read.read_at(&mut [0; 4096], 0).unwrap());
    let begun = Instant::now();
    while !reader.is_finished() && begun.elapsed() < Duration::from_millis(1500) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let is_read = reader.is_finished();
    mounted.go_on();
    assert!(reader.join().unwrap() > 0);
    is_read
}

/// Opened until the kernel reads it by itself.
fn opened_plain(path: &Path, mounted: &Mounted) -> File {
    let begun = Instant::now();
    loop {
        fs::read(path).unwrap();
        let file = File::open(path).unwrap();
        if is_read_by_the_kernel(&file, mounted) {
            return file;
        }
        assert!(begun.elapsed() < SOON, "{path:?} is not read by the kernel");
        drop(file);
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn all_of(file: &File) -> Vec<u8> {
    let length = file.metadata().unwrap().len() as usize;
    let mut bytes = vec![0; length + MIB];
    let read = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(read);
    bytes
}

#[test]
fn a_file_that_is_kept_whole_is_read_by_the_kernel_alone() {
    let place = Place::new();
    let bytes = noise(3 * MIB + 17, 1);
    write_old(&place.real("file"), &bytes);
    write_old(&place.real("short"), &bytes[..MIB - 1]);
    fs::write(place.real("young"), &bytes).unwrap();
    age();
    let mounted = place.mount(&["--read-only", "--ttl", "60"]);
    let file = opened_plain(&place.shown("file"), &mounted);
    assert!(all_of(&file) == bytes);
    // Also by who maps it.
    let script = "import mmap, sys\nf = open('file', 'rb')\nprint('open', flush=True)\ninput()\n\
        sys.stdout.buffer.write(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[:])";
    let mut maps = maps_file(&place.point, script);
    let mut said = BufReader::new(maps.stdout.take().unwrap());
    said.read_line(&mut String::new()).unwrap();
    forget_pages();
    mounted.stop();
    maps.stdin.take().unwrap().write_all(b"\n").unwrap();
    let (mut mapped, wanted) = (vec![0; bytes.len()], bytes.clone());
    let mapped = std::thread::spawn(move || said.read_exact(&mut mapped).is_ok() && mapped == wanted);
    let begun = Instant::now();
    while !mapped.is_finished() && begun.elapsed() < SOON {
        std::thread::sleep(Duration::from_millis(10));
    }
    let alone = mapped.is_finished();
    mounted.go_on();
    maps.wait().unwrap();
    assert!(alone && mapped.join().unwrap());
    let short = File::open(place.shown("short")).unwrap();
    assert!(all_of(&short) == bytes[..MIB - 1] && !is_read_by_the_kernel(&short, &mounted));
    for _ in 0..4 {
        let young = File::open(place.shown("young")).unwrap();
        assert!(all_of(&young) == bytes && !is_read_by_the_kernel(&young, &mounted), "it may be a log");
    }
    drop((file, short));
    mounted.unmount();
    // What can be written to is not passed by.
    let mounted = place.mount(&[]);
    for _ in 0..3 {
        let file = File::open(place.shown("file")).unwrap();
        assert!(all_of(&file) == bytes && !is_read_by_the_kernel(&file, &mounted));
    }
}

#[test]
fn who_has_one_open_sees_what_others_make_of_it() {
    let place = Place::new();
    write_old(&place.real("file"), &noise(4 * MIB, 1));
    age();
    let mounted = place.mount(&["--read-only", "--ttl", "0.5"]);
    let file = opened_plain(&place.shown("file"), &mounted);
    for (turn, length) in [(2, 4 * MIB), (3, 6 * MIB + 5), (4, 2 * MIB + 1), (5, 0), (6, 3 * MIB)] {
        let bytes = noise(length, turn);
        fs::write(place.real("file"), &bytes).unwrap();
        let begun = Instant::now();
        while all_of(&file) != bytes {
            assert!(begun.elapsed() < SOON, "turn {turn}");
            std::thread::sleep(Duration::from_millis(50));
        }
        // Who opens it now reads the same file past us, or the kernel would let nobody in.
        let another = File::open(place.shown("file")).unwrap();
        assert!(all_of(&another) == bytes, "turn {turn}");
        // Its times are the same for as long as its bytes may change once more.
        fs::write(place.real("file"), noise(length, turn + 100)).unwrap();
        let begun = Instant::now();
        while all_of(&file) != noise(length, turn + 100) {
            assert!(begun.elapsed() < SOON, "turn {turn}, written again");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    // Another file of its name is another file, and is what is kept under that name.
    let (old, new) = (all_of(&file), noise(5 * MIB, 50));
    fs::write(place.real("new"), &new).unwrap();
    fs::rename(place.real("new"), place.real("file")).unwrap();
    std::thread::sleep(Duration::from_millis(800));
    assert!(fs::read(place.shown("file")).unwrap() == new);
    age();
    assert!(fs::read(place.shown("file")).unwrap() == new);
    std::thread::sleep(Duration::from_secs(4));
    assert!(all_of(&file) == old);
    fs::rename(&place.source, place.dir.path().join("away")).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(fs::read(place.shown("file")).unwrap() == new);
}

/// What there is no room for does not take the place of a copy in part.
#[test]
fn a_copy_stays_whole_where_there_is_no_room_for_what_the_file_has_become() {
    // More than the store holds, and more than copies may take.
    for (store, copies) in [("24M", "64M"), ("256M", "9M")] {
        let place = Place::with_store(store);
        write_old(&place.real("file"), &noise(4 * MIB, 1));
        age();
        let mounted = place.mount(&["--read-only", "--ttl", "0.2", "--plain-copies", copies]);
        let held = opened_plain(&place.shown("file"), &mounted);
        let new = noise(40 * MIB, 2);
        fs::write(place.real("file"), &new).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(6) {
            assert!(all_of(&held) == noise(4 * MIB, 1), "{store} {copies}");
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(fs::read(place.shown("file")).unwrap() == new, "{store} {copies}");
    }
}

/// Who has closed what it maps is not known to have it; and its file's number may be another's by now.
#[test]
fn what_is_mapped_and_not_open_any_more_stays_as_it_was() {
    let place = Place::new();
    let old = noise(2 * MIB, 1);
    write_old(&place.real("file"), &old);
    age();
    let mounted = place.mount(&["--read-only", "--ttl", "0.2"]);
    drop(opened_plain(&place.shown("file"), &mounted));
    // Python's own keeps the descriptor.
    let script = "import ctypes, os, sys\nlibc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_void_p\n\
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]\n\
        fd = os.open('file', os.O_RDONLY)\nlength = os.fstat(fd).st_size\n\
        m = libc.mmap(None, length, 1, 1, fd, 0)\nos.close(fd)\n\
        for line in sys.stdin:\n  sys.stdout.buffer.write(ctypes.string_at(m, length))\n  sys.stdout.flush()";
    let mut maps = maps_file(&place.point, script);
    let (mut ask, mut said) = (maps.stdin.take().unwrap(), maps.stdout.take().unwrap());
    let mut mapped = || {
        let mut bytes = vec![0; 2 * MIB];
        ask.write_all(b"\n").unwrap();
        said.read_exact(&mut bytes).unwrap();
        bytes
    };
    assert!(mapped() == old);
    // Changed, and then another file, perhaps of the same number.
    for turn in [2, 3] {
        let new = noise(2 * MIB, turn);
        if turn == 3 {
            fs::remove_file(place.real("file")).unwrap();
        }
        write_old(&place.real("file"), &new);
        age();
        let held = opened_plain(&place.shown("file"), &mounted);
        assert!(all_of(&held) == new && mapped() == old);
    }
    drop(ask);
    maps.wait().unwrap();
}

#[test]
fn copies_take_no_more_room_than_they_may() {
    let place = Place::new();
    for name in 0..4 {
        write_old(&place.real(&format!("f{name}")), &noise(4 * MIB, name));
    }
    age();
    let mounted = place.mount(&["--read-only", "--plain-copies", "9M"]);
    let open: Vec<File> =
        (0..2).map(|name| opened_plain(&place.shown(&format!("f{name}")), &mounted)).collect();
    // Both are open, so there is no room for a third.
    for _ in 0..5 {
        let third = File::open(place.shown("f2")).unwrap();
        assert!(all_of(&third) == noise(4 * MIB, 2) && !is_read_by_the_kernel(&third, &mounted));
    }
    drop(open);
    // Who goes round through more than there is room for has the same ones copied each time, not each in turn.
    let copies = mounted.unnamed();
    for _ in 0..4 {
        for name in 0..4 {
            let read = fs::read(place.shown(&format!("f{name}"))).unwrap();
            assert!(read == noise(4 * MIB, name));
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(mounted.unnamed(), copies);
    }
    // Who comes back to one and not to the others has that one copied.
    drop(opened_plain(&place.shown("f3"), &mounted));
    assert_ne!(mounted.unnamed(), copies);
    let bytes: u64 = mounted.unnamed().iter().map(|(_, bytes)| bytes).sum();
    assert!((4..=9).contains(&(bytes / MIB as u64)), "{bytes}");
}

/// Opens and reads at random: no open fails, and what is read is of one of the file's versions. Tells how often it was opened.
fn read_at_random(path: &Path, versions: &[Vec<u8>], seed: u64, is_over: &AtomicBool) -> u64 {
    let (mut opened, mut state) = (0, seed | 1);
    let mut below = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % most as u64) as usize
    };
    let mut open: Vec<File> = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        if open.len() < 3 {
            open.push(File::open(path).unwrap_or_else(|error| panic!("{error} after {opened}")));
            opened += 1;
        }
        let at = below(versions[0].len() / 4096 - 1) * 4096;
        let mut page = [0; 4096];
        open[below(open.len())].read_exact_at(&mut page, at as u64).unwrap();
        // It may be being written.
        for (line, had) in page.chunks(64).enumerate() {
            let at = at + line * 64;
            assert!(versions.iter().any(|bytes| bytes[at..at + 64] == *had), "no version has that at {at}");
        }
        // All are closed now and then, so that it is opened for the first time once more.
        if below(4) == 0 {
            open.clear();
        }
    }
    opened
}

#[test]
fn however_many_open_and_close_one_that_changes_none_fails_and_all_read_what_was_there() {
    let place = Place::new();
    let versions: Vec<_> = (1..6).map(|seed| noise(2 * MIB, seed)).collect();
    write_old(&place.real("file"), &versions[0]);
    age();
    let mounted = place.mount(&["--read-only", "--ttl", "0.2"]);
    let (path, is_over, mut by_the_kernel) = (place.shown("file"), AtomicBool::new(false), 0);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (1..=4)
            .map(|seed| {
                let (path, versions, is_over) = (&path, &versions, &is_over);
                scope.spawn(move || read_at_random(path, versions, seed * 7919, is_over))
            })
            .collect();
        for version in &versions[1..] {
            // Long enough for its bytes to be sure, and for a copy to be made and opened.
            std::thread::sleep(Duration::from_millis(4500));
            by_the_kernel += u32::from(is_read_by_the_kernel(&File::open(&path).unwrap(), &mounted));
            let file = File::options().write(true).open(place.real("file")).unwrap();
            file.write_all_at(version, 0).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(4500));
        is_over.store(true, Ordering::Relaxed);
        let opened: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(opened > 100 && by_the_kernel > 0, "{opened}, {by_the_kernel}");
    });
    let mut last = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut last).unwrap();
    assert!(last == *versions.last().unwrap());
}

/// Lines of a log, of which the first are always the same.
fn log(lines: usize) -> Vec<u8> {
    (0..lines).flat_map(|line| format!("{line:0>1023}\n").into_bytes()).collect()
}

#[test]
fn one_that_changes_all_the_time_is_read_as_it_is_by_whoever_opens_it() {
    let place = Place::new();
    write_old(&place.real("log"), &log(2048));
    age();
    let mounted = place.mount(&["--read-only", "--ttl", "0.2"]);
    let held = opened_plain(&place.shown("log"), &mounted);
    let (lines, is_over) = (AtomicUsize::new(2048), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut real = File::options().append(true).open(place.real("log")).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                let line = lines.load(Ordering::Acquire);
                writeln!(real, "{line:0>1023}").unwrap();
                lines.store(line + 1, Ordering::Release);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        for _ in 0..8 {
            let known = lines.load(Ordering::Acquire);
            // What was seen before is believed for that long.
            std::thread::sleep(Duration::from_millis(400));
            let file = File::open(place.shown("log")).unwrap_or_else(|error| panic!("{error} at {known}"));
            let read = all_of(&file);
            assert!(read.len() >= known * 1024, "{} of {known} lines", read.len() / 1024);
            assert!(read == log(read.len() / 1024));
            // Who has had it open all along has what was there then, or now.
            let read = all_of(&held);
            assert!(read.len() >= 2048 * 1024 && read == log(read.len() / 1024));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let (begun, all) = (Instant::now(), log(lines.into_inner()));
    while all_of(&held) != all {
        assert!(begun.elapsed() < SOON, "who has it open is not told");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn while_the_source_is_gone_one_that_has_just_changed_is_read_from_the_store() {
    let place = Place::new();
    write_old(&place.real("file"), &noise(2 * MIB, 1));
    age();
    let mounted = place.mount(&["--read-only", "--ttl", "0.2"]);
    let held = opened_plain(&place.shown("file"), &mounted);
    fs::write(place.real("file"), noise(3 * MIB, 2)).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    assert!(fs::read(place.shown("file")).unwrap() == noise(3 * MIB, 2));
    let away = place.dir.path().join("away");
    fs::rename(&place.source, &away).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    for _ in 0..3 {
        assert!(fs::read(place.shown("file")).unwrap() == noise(3 * MIB, 2));
        let kept = all_of(&held);
        assert!(kept == noise(2 * MIB, 1) || kept == noise(3 * MIB, 2));
    }
    fs::rename(&away, &place.source).unwrap();
}

#[test]
fn who_reads_past_the_page_cache_may_do_so_in_any_pieces() {
    let place = Place::new();
    let bytes = noise(2 * MIB, 1);
    write_old(&place.real("file"), &bytes);
    age();
    let mounted = place.mount(&["--read-only"]);
    let unaligned = |file: &File| {
        let mut some = vec![0; 1001];
        file.read_exact_at(&mut some, 1 << 20 | 7).unwrap();
        assert!(some == bytes[1 << 20 | 7..][..1001]);
    };
    let direct = || {
        let file = File::options().read(true).custom_flags(0x4000).open(place.shown("file")); // O_DIRECT
        unaligned(&file.unwrap());
    };
    direct();
    let held = opened_plain(&place.shown("file"), &mounted);
    direct();
    unaligned(&held);
    drop(held);
    direct();
}

#[test]
fn a_mount_that_was_made_writable_writes_nothing_into_copies() {
    let place = Place::new();
    write_old(&place.real("file"), &noise(2 * MIB, 1));
    age();
    let mounted = place.mount(&["--read-only"]);
    let held = opened_plain(&place.shown("file"), &mounted);
    rustix::mount::mount_remount(&place.point, rustix::mount::MountFlags::empty(), "").unwrap();
    let refused = |done: std::io::Result<File>| assert_eq!(done.unwrap_err().raw_os_error(), Some(30)); // EROFS
    refused(File::options().write(true).open(place.shown("file")));
    refused(File::create(place.shown("new")));
    assert!(all_of(&held) == noise(2 * MIB, 1));
}
