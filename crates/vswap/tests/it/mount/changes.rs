//! What others change in the source is seen; a crash of the serving process leaves what is right.

use super::{Place, age, noise};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Longer than the time for which the kernel need not ask.
fn wait() {
    std::thread::sleep(Duration::from_millis(500));
}

const TTL: [&str; 2] = ["--ttl", "0.2"];

#[test]
fn what_others_change_in_the_source_is_seen_also_if_length_and_time_stay() {
    let place = Place::new();
    let (real, shown) = (place.real("file"), place.shown("file"));
    fs::write(&real, noise(200_000, 1)).unwrap();
    fs::write(place.real("gone"), "x").unwrap();
    age();
    let _mounted = place.mount(&TTL);
    assert!(fs::read(&shown).unwrap() == noise(200_000, 1));
    assert_eq!(fs::read(place.shown("gone")).unwrap(), b"x");
    let open = File::open(&shown).unwrap();

    // The same length, and the old time put back.
    let time = fs::metadata(&real).unwrap().modified().unwrap();
    let file = File::options().write(true).open(&real).unwrap();
    file.write_all_at(&noise(200_000, 2), 0).unwrap();
    file.set_modified(time).unwrap();
    wait();
    assert!(fs::read(&shown).unwrap() == noise(200_000, 2));
    let mut bytes = vec![0; 200_000];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == noise(200_000, 2), "by who had it open");

    // Longer, shorter, another file of the name, none.
    file.write_all_at(b"more", 200_000).unwrap();
    wait();
    assert_eq!(&fs::read(&shown).unwrap()[200_000..], b"more");
    file.set_len(100).unwrap();
    wait();
    assert!(fs::read(&shown).unwrap() == noise(200_000, 2)[..100]);
    fs::write(place.real("new"), noise(100, 3)).unwrap();
    fs::rename(place.real("new"), &real).unwrap();
    fs::remove_file(place.real("gone")).unwrap();
    fs::create_dir(place.real("gone")).unwrap();
    fs::write(place.real("gone/inner"), "y").unwrap();
    wait();
    assert!(fs::read(&shown).unwrap() == noise(100, 3));
    assert_eq!(fs::read(place.shown("gone/inner")).unwrap(), b"y");
    fs::remove_dir_all(place.real("gone")).unwrap();
    wait();
    assert!(!place.shown("gone").exists() && fs::read_dir(&place.point).unwrap().count() == 1);
}

#[test]
fn what_was_changed_while_nothing_was_mounted_is_seen() {
    let place = Place::new();
    for (name, seed) in [("same", 1), ("other", 2)] {
        fs::write(place.real(name), noise(100_000, seed)).unwrap();
    }
    age();
    let mounted = place.mount(&[]);
    assert!(fs::read(place.shown("other")).unwrap() == noise(100_000, 2));
    assert!(fs::read(place.shown("same")).unwrap() == noise(100_000, 1));
    mounted.unmount();
    let time = fs::metadata(place.real("other")).unwrap().modified().unwrap();
    fs::write(place.real("other"), noise(100_000, 3)).unwrap();
    File::options().write(true).open(place.real("other")).unwrap().set_modified(time).unwrap();
    let _mounted = place.mount(&[]);
    assert!(fs::read(place.shown("other")).unwrap() == noise(100_000, 3));
    assert!(fs::read(place.shown("same")).unwrap() == noise(100_000, 1));
}

#[test]
fn after_the_serving_process_was_killed_the_next_shows_what_the_source_has() {
    let place = Place::new();
    fs::write(place.real("old"), noise(300_000, 1)).unwrap();
    let mounted = place.mount(&[]);
    assert!(fs::read(place.shown("old")).unwrap() == noise(300_000, 1));
    fs::write(place.shown("new"), noise(300_000, 2)).unwrap();
    // Long enough for a sync in the middle of what follows.
    let file = File::options().write(true).open(place.shown("new")).unwrap();
    for step in 0..60_u64 {
        file.write_all_at(&noise(5000, step + 3), step * 4000).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    mounted.kill();
    drop(file);
    let wanted = fs::read(place.real("new")).unwrap();
    let _mounted = place.mount(&[]);
    assert!(fs::read(place.shown("new")).unwrap() == wanted);
    assert!(fs::read(place.shown("old")).unwrap() == noise(300_000, 1));
}
