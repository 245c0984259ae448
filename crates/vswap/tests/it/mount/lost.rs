//! A source that goes away and comes back.

use super::{Place, age, noise, run};
use crate::vswap::vswap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn wait() {
    std::thread::sleep(Duration::from_millis(500));
}

const TTL: [&str; 2] = ["--ttl", "0.2"];

fn fill(source: &Path) {
    fs::create_dir_all(source.join("dir/deep")).unwrap();
    fs::write(source.join("dir/read"), noise(150_000, 1)).unwrap();
    fs::write(source.join("dir/unread"), noise(150_000, 2)).unwrap();
    fs::write(source.join("dir/deep/read"), "deep").unwrap();
    fs::create_dir(source.join("unlisted")).unwrap();
    fs::write(source.join("unlisted/file"), "x").unwrap();
    std::os::unix::fs::symlink("dir/read", source.join("link")).unwrap();
}

/// Reads some of it, so that this is kept.
fn look(place: &Place) {
    assert!(fs::read(place.shown("link")).unwrap() == noise(150_000, 1));
    assert_eq!(fs::read(place.shown("dir/deep/read")).unwrap(), b"deep");
    for dir in ["", "dir", "dir/deep"] {
        run("ls", &["-l"], &place.shown(dir));
    }
}

/// What is kept is there, and nothing else.
fn is_kept(place: &Place) {
    assert!(fs::read(place.shown("dir/read")).unwrap() == noise(150_000, 1));
    assert!(fs::read(place.shown("link")).unwrap() == noise(150_000, 1));
    assert_eq!(fs::read(place.shown("dir/deep/read")).unwrap(), b"deep");
    let names = |dir| {
        let mut names: Vec<_> =
            fs::read_dir(place.shown(dir)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["dir", "link", "unlisted"]);
    assert_eq!(names("dir"), ["deep", "read", "unread"]);
    assert_eq!(fs::metadata(place.shown("dir/unread")).unwrap().len(), 150_000);
    let fails = |done: std::io::Result<()>| done.unwrap_err().raw_os_error() == Some(5);
    assert!(fails(fs::read(place.shown("dir/unread")).map(drop)));
    assert!(fails(
        fs::read_dir(place.shown("unlisted"))
            .and_then(|mut dir| dir.next().map_or(Ok(()), |entry| entry.map(drop)))
    ));
    assert!(fails(fs::write(place.shown("dir/new"), "x")));
    assert!(fails(fs::remove_file(place.shown("dir/read"))));
    assert_eq!(fs::metadata(place.shown("dir/none")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn what_was_read_is_there_while_the_source_is_not_and_what_has_changed_is_seen_when_it_is_back() {
    let place = Place::new();
    fill(&place.source);
    age();
    let mounted = place.mount(&TTL);
    look(&place);
    let away = place.dir.path().join("away");
    fs::rename(&place.source, &away).unwrap();
    wait();
    is_kept(&place);
    // Also for a process that has never seen it.
    mounted.unmount();
    let _mounted = place.mount(&TTL);
    is_kept(&place);
    fs::write(away.join("dir/read"), "changed").unwrap();
    fs::rename(&away, &place.source).unwrap();
    wait();
    assert_eq!(fs::read(place.shown("dir/read")).unwrap(), b"changed");
    assert!(fs::read(place.shown("dir/unread")).unwrap() == noise(150_000, 2));
    assert_eq!(fs::read(place.shown("unlisted/file")).unwrap(), b"x");
    fs::write(place.shown("dir/new"), "x").unwrap();
    assert_eq!(fs::read(place.real("dir/new")).unwrap(), b"x");
}

/// Unmounts it also if the test fails.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path, image: &Path) -> Self {
        run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()], Path::new("/"));
        Self(at)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn an_unmounted_source_is_not_an_empty_one() {
    let place = Place::new();
    let image = place.dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    run("mkfs.ext4", &["-q", image.to_str().unwrap()], Path::new("/"));
    let disk = Disk::mount(&place.source, &image);
    fs::remove_dir(place.real("lost+found")).unwrap();
    fill(&place.source);
    age();
    let mounted = place.mount(&TTL);
    look(&place);
    // Nothing keeps it busy.
    run("umount", &[place.source.to_str().unwrap()], Path::new("/"));
    drop(disk);
    wait();
    is_kept(&place);
    mounted.unmount();
    let _mounted = place.mount(&TTL);
    is_kept(&place);
    let _disk = Disk::mount(&place.source, &image);
    wait();
    assert!(fs::read(place.shown("dir/unread")).unwrap() == noise(150_000, 2));
    assert!(fs::read(place.shown("dir/read")).unwrap() == noise(150_000, 1));
    fs::write(place.shown("dir/read"), "new").unwrap();
    assert_eq!(fs::read(place.real("dir/read")).unwrap(), b"new");
}

/// What was pinned of a directory is there, whatever was read since, of a source that is gone.
#[test]
fn a_pinned_tree_is_read_while_the_source_is_gone_also_after_more_was_read_than_the_store_has_room_for() {
    let place = Place::with_store("64M");
    fs::create_dir_all(place.source.join("kept/deep")).unwrap();
    let kept = ["kept/one", "kept/two", "kept/deep/three"];
    for (name, seed) in kept.iter().zip(1..) {
        fs::write(place.source.join(name), noise(3 << 20, seed)).unwrap();
    }
    for at in 0..12 {
        fs::write(place.source.join(format!("large{at}")), noise(8 << 20, 100 + at)).unwrap();
    }
    age();
    let right =
        |name: &str, seed: u64| fs::read(place.shown(name)).is_ok_and(|read| read == noise(3 << 20, seed));
    let mounted = place.mount(&TTL);
    for (name, seed) in kept.iter().zip(1..) {
        assert!(right(name, seed), "{name}");
    }
    ["", "kept", "kept/deep"].iter().for_each(|dir| drop(run("ls", &["-l"], &place.shown(dir))));
    mounted.unmount();
    let (store, volume) = (place.store.to_str().unwrap(), place.source.to_str().unwrap());
    let tree = |what, path| vswap(["cache", what, store, path, "--tree", "--volume", volume]);
    let pinned = tree("pin", "/kept");
    assert_eq!(pinned.code, Some(0), "{pinned:?}");
    let none = tree("pin", "kep");
    assert!(none.code == Some(1) && none.err.contains("nothing of \"kep\" is in"), "{none:?}");
    let mounted = place.mount(&TTL);
    for at in 0..12 {
        assert!(fs::read(place.shown(&format!("large{at}"))).unwrap() == noise(8 << 20, 100 + at));
    }
    fs::rename(&place.source, place.dir.path().join("away")).unwrap();
    wait();
    // What the kernel has of them goes with the mount.
    mounted.unmount();
    let mounted = place.mount(&TTL);
    for (name, seed) in kept.iter().zip(1..) {
        assert!(right(name, seed), "{name}");
    }
    let lost = (0..12).filter(|at| fs::read(place.shown(&format!("large{at}"))).is_err()).count();
    assert!(lost > 4, "{lost} of 12 had to go for the others");
    mounted.unmount();
    let pinned = || {
        let listed = vswap(["cache", "ls", store, "--volume", volume, "--json"]).out;
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let pinned = listed.as_array().unwrap().iter().filter(|one| one["state"] == "pinned");
        pinned.map(|one| one["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(pinned(), ["d", "dkept", "dkept/deep", "fkept/deep/three", "fkept/one", "fkept/two"]);
    assert_eq!(tree("unpin", "kept").code, Some(0));
    assert_eq!(pinned(), ["d"], "what leads there stays");
}
