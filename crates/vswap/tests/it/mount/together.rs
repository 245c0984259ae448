//! Several at once.

use super::{Place, noise};
use std::fs::{self, File};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// Replacements by each thread, and its bytes at the most.
const TURNS: u64 = 80;
const LONGEST: u64 = 60_000;

/// As editors and databases replace files.
fn replace(place: &Place, thread: u64) {
    for turn in 0..TURNS {
        let seed = thread * TURNS + turn + 1;
        let bytes = noise((seed * 7919 % LONGEST) as usize, seed);
        let (new, target) = (place.shown(&format!("new.{thread}")), place.shown(&format!("file.{thread}")));
        fs::write(&new, &bytes).unwrap();
        fs::rename(&new, &target).unwrap();
        assert!(fs::read(&target).unwrap() == bytes, "thread {thread}, turn {turn}");
    }
}

#[test]
fn files_that_are_replaced_and_rotated_while_they_are_written_stay_what_the_source_has() {
    let place = Place::new();
    let mounted = place.mount(&[]);
    let (done, mut lines) = (AtomicBool::new(false), 0_u64);
    std::thread::scope(|scope| {
        let place = &place;
        let threads: Vec<_> = (0..3).map(|thread| scope.spawn(move || replace(place, thread))).collect();
        let mut log = File::options().append(true).create(true).open(place.shown("log.0")).unwrap();
        // A log is renamed while it is written.
        let rotating = scope.spawn(|| {
            let mut turn = 0;
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(std::time::Duration::from_millis(15));
                let to = place.shown(&format!("log.{}", (turn + 1) % 2));
                fs::rename(place.shown(&format!("log.{}", turn % 2)), to).unwrap();
                turn += 1;
            }
        });
        while threads.iter().any(|thread| !thread.is_finished()) {
            writeln!(log, "{lines:0>999}").unwrap();
            lines += 1;
        }
        done.store(true, Ordering::Relaxed);
        rotating.join().unwrap();
    });
    mounted.unmount();
    let _mounted = place.mount(&[]);
    for entry in fs::read_dir(&place.source).unwrap() {
        let name = entry.unwrap().file_name();
        let (real, shown) = (fs::read(place.source.join(&name)), fs::read(place.point.join(&name)));
        assert!(real.unwrap() == shown.unwrap(), "{name:?}");
    }
    let log = fs::read_dir(&place.point).unwrap().map(|entry| entry.unwrap().path());
    let log = log
        .filter(|path| path.to_str().unwrap().contains("log."))
        .map(|path| fs::read_to_string(path).unwrap());
    let log: String = log.collect();
    let wanted: String = (0..lines).map(|line| format!("{line:0>999}\n")).collect();
    assert!(lines > 0 && log == wanted, "{} of {lines} lines", log.len() / 1000);
}

#[test]
fn a_file_and_the_one_that_has_taken_its_name_are_read_at_once_and_each_has_its_own_bytes() {
    use std::os::unix::fs::FileExt;
    let place = Place::new();
    let mounted = place.mount(&["--ttl", "0"]);
    const LEN: usize = 1 << 20;
    let put = |seed: u64| {
        fs::write(place.real("new"), noise(LEN, seed)).unwrap();
        fs::rename(place.real("new"), place.real("file")).unwrap();
    };
    put(1);
    for turn in 1..30 {
        let former = File::open(place.shown("file")).unwrap();
        put(turn + 1);
        std::thread::scope(|scope| {
            let (place, former) = (&place, &former);
            scope.spawn(move || {
                let mut buf = vec![0; LEN];
                for at in (0..LEN).rev().step_by(50_000) {
                    let got = former.read_at(&mut buf[at..], at as u64).unwrap();
                    assert!(
                        buf[at..at + got] == noise(LEN, turn)[at..at + got],
                        "turn {turn}: the former, at {at}"
                    );
                }
            });
            scope.spawn(move || {
                let now = fs::read(place.shown("file")).unwrap();
                assert!(now == noise(LEN, turn + 1), "turn {turn}: the new one");
            });
        });
    }
    mounted.unmount();
    let _mounted = place.mount(&[]);
    assert!(fs::read(place.shown("file")).unwrap() == noise(LEN, 30));
}
