//! What is fetched and kept, and what happens when there is no room for it.

use super::{Place, age, noise};
use crate::vswap::vswap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Bytes that are kept of a file.
fn kept(place: &Place, name: &str) -> u64 {
    let volume = place.source.to_str().unwrap();
    let key = format!("f{name}");
    let said = vswap(["cache", "stat", place.store.to_str().unwrap(), &key, "--volume", volume, "--json"]);
    let stat: serde_json::Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    let ranges = stat["present"].as_array().unwrap();
    ranges.iter().map(|range| range[1].as_u64().unwrap() - range[0].as_u64().unwrap()).sum()
}

#[test]
fn only_what_is_asked_for_and_some_behind_it_is_fetched() {
    let place = Place::new();
    let bytes = noise(8 << 20, 1);
    fs::write(place.real("file"), &bytes).unwrap();
    age();
    let mounted = place.mount(&[]);
    let mut buf = vec![0; 4096];
    File::open(place.shown("file")).unwrap().read_exact_at(&mut buf, 5 << 20).unwrap();
    assert!(buf == bytes[5 << 20..][..4096]);
    mounted.unmount();
    let some = kept(&place, "file");
    assert!((4096..=512 << 10).contains(&some), "{some} bytes for 4096");
    let mounted = place.mount(&[]);
    assert!(fs::read(place.shown("file")).unwrap() == bytes);
    mounted.unmount();
    assert_eq!(kept(&place, "file"), 8 << 20);
}

#[test]
fn what_is_written_and_renamed_is_kept_without_being_fetched() {
    let place = Place::new();
    let mounted = place.mount(&[]);
    let bytes = noise(1 << 20, 2);
    fs::write(place.shown("tmp"), &bytes).unwrap();
    fs::create_dir(place.shown("dir")).unwrap();
    fs::rename(place.shown("tmp"), place.shown("dir/final")).unwrap();
    fs::rename(place.shown("dir"), place.shown("moved")).unwrap();
    mounted.unmount();
    assert_eq!(kept(&place, "moved/final"), 1 << 20);
    // It is trusted, so it can be read while the source is gone.
    let _mounted = place.mount(&["--ttl", "0"]);
    fs::rename(&place.source, place.dir.path().join("away")).unwrap();
    assert!(fs::read(place.shown("moved/final")).unwrap() == bytes);
}

#[test]
fn a_full_store_makes_no_read_and_no_write_fail() {
    let place = Place::with_store("16M");
    fs::write(place.real("big"), noise(24 << 20, 1)).unwrap();
    let mounted = place.mount(&[]);
    assert!(fs::read(place.shown("big")).unwrap() == noise(24 << 20, 1));
    fs::write(place.shown("other"), noise(12 << 20, 2)).unwrap();
    let file = File::options().write(true).open(place.shown("big")).unwrap();
    file.write_all_at(&noise(3 << 20, 3), 1000).unwrap();
    drop(file);
    let mut wanted = noise(24 << 20, 1);
    wanted[1000..][..3 << 20].copy_from_slice(&noise(3 << 20, 3));
    assert!(fs::read(place.shown("big")).unwrap() == wanted);
    assert!(fs::read(place.shown("other")).unwrap() == noise(12 << 20, 2));
    assert!(
        fs::read(place.real("big")).unwrap() == wanted
            && fs::read(place.real("other")).unwrap() == noise(12 << 20, 2)
    );
    mounted.unmount();
    let _mounted = place.mount(&[]);
    assert!(fs::read(place.shown("big")).unwrap() == wanted);
    assert!(fs::read(place.shown("other")).unwrap() == noise(12 << 20, 2));
}

/// Each thread that answers the kernel has a buffer of 16 MiB.
#[test]
fn a_mount_takes_no_memory_for_requests_that_nobody_makes() {
    let place = Place::new();
    fs::write(place.real("file"), noise(1 << 20, 1)).unwrap();
    let mounted = place.mount(&[]);
    assert!(fs::read(place.shown("file")).unwrap() == noise(1 << 20, 1));
    let status = fs::read_to_string(format!("/proc/{}/status", mounted.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    // Where all memory is of huge pages, each takes one.
    assert!(kib < 200 << 10, "{line}");
}
