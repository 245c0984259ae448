//! The names of directories: who lists one while it changes, and what the kernel keeps of it.

use super::{Place, age};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, Timespec, Timestamps, utimensat};
use std::collections::HashMap;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Names that are there all along.
const STAYING: usize = 3000;
/// Names that come and go.
const PASSING: usize = 200;

/// How often each name was told to somebody who takes as much at a time.
fn told(dir: &Path, at_once: usize) -> HashMap<String, usize> {
    let fd = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut room = vec![MaybeUninit::uninit(); at_once];
    let (mut entries, mut told) = (RawDir::new(fd, &mut room), HashMap::new());
    while let Some(entry) = entries.next() {
        *told.entry(entry.unwrap().file_name().to_str().unwrap().to_owned()).or_default() += 1;
    }
    told
}

fn each_once(dir: &Path, at_once: usize) {
    let told = told(dir, at_once);
    for name in [".", ".."].map(String::from).into_iter().chain((0..STAYING).map(|name| format!("s{name}"))) {
        assert_eq!(told.get(&name), Some(&1), "{name}, of {} that were told", told.len());
    }
    let twice: Vec<_> = told.iter().filter(|(_, often)| **often > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

/// Makes names and takes them away until it is over.
fn change(dir: &Path, is_over: &AtomicBool) {
    for turn in (0..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
        let name = dir.join(format!("p{}", turn % PASSING));
        if (turn / PASSING).is_multiple_of(2) {
            File::create(&name).unwrap();
        } else {
            fs::remove_file(&name).unwrap();
        }
    }
}

#[test]
fn whoever_lists_a_directory_that_changes_is_told_each_name_once_that_stays() {
    // Believed for so long that the kernel is told to forget in the middle, not at all, and always.
    for ttl in ["0.02", "0", "60"] {
        let place = Place::new();
        fs::create_dir(place.real("dir")).unwrap();
        for name in 0..STAYING {
            File::create(place.real(&format!("dir/s{name}"))).unwrap();
        }
        let _mounted = place.mount(&["--ttl", ttl]);
        let (dir, is_over) = (place.shown("dir"), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| change(&dir, &is_over));
            let readers: Vec<_> = [600, 5_000, 40_000]
                .into_iter()
                .map(|at_once| {
                    let dir = &dir;
                    scope.spawn(move || (0..12).for_each(|_| each_once(dir, at_once)))
                })
                .collect();
            let done: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
            is_over.store(true, Ordering::Relaxed);
            assert!(done.into_iter().all(|done| done.is_ok()), "ttl {ttl}");
        });
    }
}

#[test]
fn what_was_made_without_a_change_of_the_directorys_time_is_listed_once_the_ttl_has_passed() {
    let place = Place::new();
    fs::create_dir(place.real("dir")).unwrap();
    File::create(place.real("dir/one")).unwrap();
    age();
    let _mounted = place.mount(&["--ttl", "1"]);
    let names = || told(&place.shown("dir"), 4096).len() - 2;
    let time = fs::metadata(place.real("dir")).unwrap().modified().unwrap();
    let time = time.duration_since(std::time::UNIX_EPOCH).unwrap();
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    let times = Timestamps { last_access: time, last_modification: time };
    for round in 1..=3 {
        // The kernel keeps them, until it is told otherwise.
        assert_eq!((names(), names()), (round, round));
        File::create(place.real(&format!("dir/more.{round}"))).unwrap();
        utimensat(CWD, place.real("dir"), &times, AtFlags::empty()).unwrap();
        let begun = Instant::now();
        while names() == round {
            assert!(begun.elapsed() < Duration::from_secs(30), "round {round}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn names_that_are_believed_are_not_asked_for_again() {
    let place = Place::new();
    fs::create_dir(place.real("dir")).unwrap();
    (0..STAYING).for_each(|name| drop(File::create(place.real(&format!("dir/s{name}"))).unwrap()));
    let mounted = place.mount(&["--ttl", "600"]);
    let dir = place.shown("dir");
    each_once(&dir, 40_000);
    mounted.stop();
    let again = std::thread::spawn(move || told(&dir, 40_000).len());
    let begun = Instant::now();
    while !again.is_finished() && begun.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let alone = again.is_finished();
    mounted.go_on();
    assert!(again.join().unwrap() == STAYING + 2 && alone, "asked for once more");
}

#[test]
fn a_listing_that_is_not_ended_keeps_nothing_of_the_source_open() {
    let place = Place::new();
    (0..STAYING).for_each(|name| drop(File::create(place.real(&format!("s{name}"))).unwrap()));
    let mounted = place.mount(&[]);
    for _ in 0..3 {
        let mut entries = fs::read_dir(&place.point).unwrap();
        let first = entries.next().unwrap().unwrap();
        assert!(first.metadata().unwrap().is_file());
        drop(entries);
        let open = mounted.open_below(&place.source);
        assert!(open.is_empty(), "{open:?}");
    }
}
