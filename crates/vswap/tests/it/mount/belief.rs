//! What is told without asking the source: never what a change through the mount has made untrue.

use super::failing::{ALL, Call, Failing};
use super::model::{Chance, LONGEST, NAMES, act, brief, tree};
use super::{Place, age, noise};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LONG: [&str; 2] = ["--ttl", "600"];

/// The kernel forgets names and attributes that nobody uses.
fn forget() {
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

/// Its pages too.
fn forget_all() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// All that changes when a file is changed.
fn facts(path: &Path) -> Result<String, Option<i32>> {
    let found = fs::symlink_metadata(path).map_err(|error| error.raw_os_error())?;
    let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
    // A directory's length is its file system's own affair.
    let length = if found.is_dir() { 0 } else { found.len() };
    Ok(format!("{} {length} {:o} {} {times:?}", found.ino(), found.mode(), found.nlink()))
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Operations of `model.rs`, and after each what the source has of two names, in the mount.
fn steps(seed: u64, place: &Place, model: &Path, real: &Path) {
    for base in [model, real] {
        fs::create_dir_all(base.join("sub/deep")).unwrap();
    }
    let mounted = place.mount(&LONG);
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for step in 0..400 {
        let kind = chance.below(26);
        let (one, two) = (chance.name(), chance.name());
        let (at, length) = (chance.below(LONGEST), chance.below(20_000) as usize);
        let bytes = noise(length, seed + step as u64);
        match kind {
            24 => forget(),
            25 => {
                let dir = if step % 2 == 0 { "." } else { "sub" };
                let of = |base: &Path| base.join(dir).is_dir().then(|| names(&base.join(dir)));
                assert_eq!(of(&place.point), of(real), "seed {seed}, step {step}");
            }
            _ => {}
        }
        let plain = act(model, kind, one, two, at, &bytes, &mut here);
        let shown = act(&place.point, kind, one, two, at, &bytes, &mut there);
        let what = format!("seed {seed}, step {step}: {kind} {one} {two} {at} {length}");
        assert!(plain == shown, "{what}: {:?} and {:?}", brief(&plain), brief(&shown));
        for name in [one, two, chance.name()] {
            assert_eq!(facts(&place.shown(name)), facts(&real.join(name)), "{what}: {name}");
        }
    }
    let wanted = tree(model);
    assert!(tree(&place.point) == wanted && tree(real) == wanted, "seed {seed}");
    drop(there);
    mounted.unmount();
}

#[test]
fn whatever_is_done_through_the_mount_is_seen_at_once_however_long_things_are_believed() {
    for seed in [1, 2] {
        let place = Place::new();
        let model = place.dir.path().join("model");
        steps(seed, &place, &model, &place.source);
    }
}

#[test]
fn of_a_file_system_of_another_machine_too() {
    for seed in [3, 4, 5] {
        let failing = Failing::new();
        let model = failing.place.dir.path().join("model");
        steps(seed, &failing.place, &model, &failing.below);
    }
}

/// Looks that meet changes: what they bring back late is not what is there.
#[test]
fn what_many_change_and_look_at_at_once_is_right_when_all_have_ended() {
    for (turn, remote) in [(1, false), (2, true), (3, true)] {
        let failing = Failing::new();
        failing.control.delay(Duration::from_micros(if turn == 3 { 300 } else { 0 }));
        let local = Place::new();
        let (place, real) = if remote { (&failing.place, &failing.below) } else { (&local, &local.source) };
        fs::create_dir_all(real.join("sub/deep")).unwrap();
        let mounted = place.mount(&LONG);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let changes: Vec<_> = (0..4)
                .map(|number| {
                    scope.spawn(move || {
                        let mut chance = Chance((turn * 10 + number) * 0x9e37_79b9 + 1);
                        let begun = Instant::now();
                        while begun.elapsed() < Duration::from_secs(2) {
                            let bytes = noise(chance.below(5000) as usize, number);
                            let (one, two) = (chance.name(), chance.name());
                            // Whatever it says: others are at it too.
                            let _ = act(
                                &place.point,
                                chance.below(15),
                                one,
                                two,
                                chance.below(9000),
                                &bytes,
                                &mut Vec::new(),
                            );
                        }
                    })
                })
                .collect();
            for number in 0..3 {
                let ended = &ended;
                scope.spawn(move || {
                    while !ended.load(Ordering::Relaxed) {
                        for name in NAMES {
                            let _ = fs::symlink_metadata(place.shown(name));
                        }
                        let _ = fs::read_dir(place.shown("sub")).map(|dir| dir.count());
                        if number == 0 {
                            forget();
                        }
                    }
                });
            }
            changes.into_iter().for_each(|thread| thread.join().unwrap());
            ended.store(true, Ordering::Relaxed);
        });
        for _ in 0..2 {
            let mut dirs = vec![String::new()];
            while let Some(dir) = dirs.pop() {
                assert_eq!(names(&place.shown(&dir)), names(&real.join(&dir)), "turn {turn}: {dir}");
                for name in names(&real.join(&dir)) {
                    let path = format!("{dir}{name}");
                    assert_eq!(facts(&place.shown(&path)), facts(&real.join(&path)), "turn {turn}: {path}");
                    if fs::symlink_metadata(real.join(&path)).unwrap().is_dir() {
                        dirs.push(format!("{path}/"));
                    }
                }
            }
            for name in NAMES {
                assert_eq!(facts(&place.shown(name)), facts(&real.join(name)), "turn {turn}: {name}");
            }
            forget();
        }
        assert!(tree(&place.point) == tree(real), "turn {turn}");
        mounted.unmount();
    }
}

/// A tree of directories, each with so many files.
fn fill(below: &Path, dirs: usize, files: usize) {
    for dir in 0..dirs {
        fs::create_dir_all(below.join(format!("tree/{dir:02}"))).unwrap();
        for file in 0..files {
            fs::write(below.join(format!("tree/{dir:02}/{file:03}")), noise(3000, 7)).unwrap();
        }
    }
}

fn look_at_all(shown: &Path) -> usize {
    let mut seen = 0;
    for dir in names(&shown.join("tree")) {
        for file in names(&shown.join("tree").join(&dir)) {
            assert_eq!(fs::metadata(shown.join("tree").join(&dir).join(file)).unwrap().len(), 3000);
            seen += 1;
        }
    }
    seen
}

#[test]
fn what_the_kernel_has_forgotten_is_not_asked_for_again_within_the_ttl() {
    let failing = Failing::new();
    fill(&failing.below, 10, 40);
    age();
    let mounted = failing.place.mount(&LONG);
    assert_eq!(look_at_all(&failing.place.point), 400);
    assert_eq!(fs::read(failing.place.shown("tree/00/001")).unwrap(), noise(3000, 7));
    let asked = || ALL.map(|call| failing.control.count(call));
    let before = asked();
    forget_all();
    assert_eq!(look_at_all(&failing.place.point), 400);
    assert_eq!(asked(), before);
    // That a name is not listed says nothing; that it was looked for and not found does.
    let none = || fs::metadata(failing.place.shown("tree/00/none")).is_err();
    assert!(none());
    let before = asked();
    forget();
    assert!(none());
    assert_eq!(asked(), before);
    // Kept whole and opened once, it is read without the source's file being opened again.
    let read = || fs::read(failing.place.shown("tree/00/001")).unwrap() == noise(3000, 7);
    assert!(read());
    let before = asked();
    assert!(read());
    assert_eq!(asked(), before);
    // So it is while nothing answers.
    failing.control.fail(&ALL, rustix::io::Errno::IO);
    forget_all();
    assert_eq!(fs::read(failing.place.shown("tree/00/001")).unwrap(), noise(3000, 7));
    assert_eq!(look_at_all(&failing.place.point), 400);
    failing.control.works();
    mounted.unmount();
    // Another mount has seen nothing yet.
    let _mounted = failing.place.mount(&LONG);
    assert_eq!(look_at_all(&failing.place.point), 400);
    assert_ne!(asked(), before);
}

/// What is told from memory is believed by the kernel for the rest of the time only.
#[test]
fn what_others_change_is_seen_when_the_ttl_has_passed_since_it_was_looked_at() {
    const TTL: Duration = Duration::from_millis(600);
    let failing = Failing::new();
    fill(&failing.below, 1, 5);
    age();
    let _mounted = failing.place.mount(&["--ttl", "0.6"]);
    let shown = |name: &str| failing.place.shown(&format!("tree/00/{name}"));
    let mut from_memory = 0;
    for turn in 0..8 {
        let begun = Instant::now();
        assert_eq!(names(&failing.place.shown("tree/00")).len(), 5);
        assert_eq!(fs::metadata(shown("001")).unwrap().len(), 3000 + turn);
        assert!(fs::metadata(shown("new")).is_err());
        let looked = Instant::now();
        std::thread::sleep(Duration::from_millis(300));
        forget();
        let _ =
            (fs::metadata(shown("001")), fs::metadata(shown("new")), names(&failing.place.shown("tree/00")));
        // On a machine that is busy it was asked for once more.
        let known = begun.elapsed() < TTL;
        from_memory += u32::from(known);
        File::options()
            .append(true)
            .open(failing.below.join("tree/00/001"))
            .unwrap()
            .write_all(b"x")
            .unwrap();
        fs::write(failing.below.join("tree/00/new"), "new").unwrap();
        let since = if known { looked } else { Instant::now() };
        std::thread::sleep((TTL + Duration::from_millis(20)).saturating_sub(since.elapsed()));
        assert_eq!(fs::metadata(shown("001")).unwrap().len(), 3001 + turn, "{turn}");
        assert_eq!(fs::read(shown("new")).unwrap(), b"new", "{turn}");
        assert_eq!(names(&failing.place.shown("tree/00")).len(), 6, "{turn}");
        fs::remove_file(failing.below.join("tree/00/new")).unwrap();
        std::thread::sleep(TTL + Duration::from_millis(20));
    }
    assert!(from_memory > 0, "a machine that is too busy to tell");
}

/// Each call takes ten milliseconds: one after the other they would take more than five seconds.
#[test]
fn who_goes_through_a_slow_tree_waits_for_several_names_at_once() {
    let failing = Failing::new();
    fill(&failing.below, 5, 100);
    age();
    let _mounted = failing.place.mount(&["--ttl", "2"]);
    assert_eq!(look_at_all(&failing.place.point), 500);
    let walk = || {
        let before = failing.control.count(Call::List);
        failing.control.most_at_once();
        assert_eq!(look_at_all(&failing.place.point), 500);
        (failing.control.most_at_once(), failing.control.count(Call::List) - before)
    };
    failing.control.delay(Duration::from_millis(10));
    std::thread::sleep(Duration::from_millis(2100));
    let (at_once, lists) = walk();
    assert!(at_once >= 16, "{at_once}");
    assert_eq!(lists, 0, "the times of all directories are the same");
    // A name at a time, as git looks at those that it knows.
    std::thread::sleep(Duration::from_millis(2100));
    failing.control.most_at_once();
    for file in 0..100 {
        fs::metadata(failing.place.shown(&format!("tree/03/{file:03}"))).unwrap();
    }
    let at_once = failing.control.most_at_once();
    assert!(at_once >= 16, "{at_once}");
    // One name alone is asked for alone.
    std::thread::sleep(Duration::from_millis(2100));
    failing.control.most_at_once();
    fs::metadata(failing.place.shown("tree/04/050")).unwrap();
    assert_eq!(failing.control.most_at_once(), 1);
}

#[test]
fn a_file_that_is_read_from_the_store_alone_is_there_after_its_name_has_gone() {
    let failing = Failing::new();
    fill(&failing.below, 1, 6);
    age();
    let _mounted = failing.place.mount(&LONG);
    let shown = |name: &str| failing.place.shown(&format!("tree/00/{name}"));
    let read = |mut file: &File| {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map(|_| bytes)
    };
    look_at_all(&failing.place.point);
    for name in ["000", "001", "002", "003"] {
        assert_eq!(fs::read(shown(name)).unwrap(), noise(3000, 7));
    }
    let opens = failing.control.count(Call::Open);
    let files = ["000", "001", "002", "003"].map(|name| File::open(shown(name)).unwrap());
    assert_eq!(failing.control.count(Call::Open), opens, "nothing is wanted of the source yet");
    fs::remove_file(shown("000")).unwrap();
    fs::rename(shown("004"), shown("001")).unwrap();
    fs::rename(shown("002"), shown("moved")).unwrap();
    forget_all();
    for file in &files[..3] {
        assert_eq!(file.metadata().unwrap().len(), 3000);
        assert_eq!(read(file).unwrap(), noise(3000, 7));
    }
    // Written through another descriptor, it is seen by all.
    File::options().write(true).open(shown("003")).unwrap().write_all_at(b"other", 100).unwrap();
    let mut bytes = [0; 5];
    files[3].read_exact_at(&mut bytes, 100).unwrap();
    assert_eq!(&bytes, b"other");
}

/// Of a file that others have removed nothing is shown but its own bytes, though another one has been given its number: through a descriptor and by its name, while the source answers and while it does not.
#[test]
fn a_file_that_has_been_given_the_number_of_another_is_not_taken_for_it() {
    let failing = Failing::new();
    fill(&failing.below, 1, 1);
    fs::create_dir(failing.below.join("other")).unwrap();
    age();
    let _mounted = failing.place.mount(&["--ttl", "1"]);
    let (old, name) = (failing.place.shown("tree/00/000"), failing.below.join("tree/00/000"));
    let number = fs::metadata(&name).unwrap().ino();
    assert_eq!(fs::read(&old).unwrap(), noise(3000, 7));
    let opens = failing.control.count(Call::Open);
    let kept = File::open(&old).unwrap();
    assert_eq!(failing.control.count(Call::Open), opens, "opened for what is kept");
    fs::remove_file(&name).unwrap();
    // Whoever shows the source lets go of it.
    std::thread::sleep(Duration::from_millis(1100));
    let _ = fs::metadata(&old);
    forget();
    let new = (0..2000).map(|new| format!("other/{new}")).find(|new| {
        fs::write(failing.below.join(new), noise(3000, 8)).unwrap();
        fs::metadata(failing.below.join(new)).unwrap().ino() == number
    });
    // There are file systems that never give one twice.
    let Some(new) = new else { return eprintln!("number {number} was not given again") };
    // From the kernel's own pages, if it has any, and not.
    let cached = || {
        let mut bytes = vec![0; 3000];
        kept.read_exact_at(&mut bytes, 0).map(|()| bytes)
    };
    let read = || {
        rustix::fs::fadvise(&kept, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        cached()
    };
    let shown = failing.place.shown(&new);
    // Several names are looked at at once before the kernel is told of any.
    assert!(!names(&failing.place.shown("other")).is_empty());
    for turn in 0..2 {
        assert_eq!(fs::read(&shown).unwrap(), noise(3000, 8), "{turn}");
        assert!(cached().map_or(true, |bytes| bytes == noise(3000, 7)), "{turn}: another file's pages");
        assert!(read().map_or(true, |bytes| bytes == noise(3000, 7)), "{turn}: another file's bytes");
        assert!(fs::read(&old).is_err(), "{turn}: another file's name");
        failing.control.fail(&ALL, rustix::io::Errno::IO);
        assert!(read().map_or(true, |bytes| bytes == noise(3000, 7)), "{turn}, gone: another file's bytes");
        failing.control.works();
        std::thread::sleep(Duration::from_millis(1100));
    }
}

/// As a log is: it has its number still, and is no other file.
#[test]
fn a_file_that_others_have_renamed_and_written_to_is_read_on_by_who_has_it_open() {
    let (failing, local) = (Failing::new(), Place::new());
    for (place, real) in [(&failing.place, &failing.below), (&local, &local.source)] {
        fs::write(real.join("log"), "one ").unwrap();
        let _mounted = place.mount(&["--ttl", "0.1"]);
        let mut open = File::open(place.shown("log")).unwrap();
        let mut bytes = [0; 4];
        open.read_exact(&mut bytes).unwrap();
        fs::rename(real.join("log"), real.join("log.1")).unwrap();
        File::options().append(true).open(real.join("log.1")).unwrap().write_all(b"two").unwrap();
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(fs::metadata(place.shown("log.1")).unwrap().len(), 7);
        assert_eq!(names(&place.point).len(), 1);
        let mut rest = String::new();
        open.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), fs::read(place.shown("log.1")).unwrap()), ("two", b"one two".to_vec()));
    }
}
