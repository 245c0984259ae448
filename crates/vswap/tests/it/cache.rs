//! `vswap cache`: a store from the command line.

use crate::vswap::{Said, command, said, vswap};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

fn cache(words: &[&str]) -> Said {
    vswap(["cache"].iter().chain(words))
}

fn works(words: &[&str]) -> Said {
    let said = cache(words);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{words:?}");
    said
}

fn put(words: &[&str], bytes: &[u8]) -> Said {
    let mut command = command();
    command
        .args(["cache", "put"])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may be refused before it has read anything.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    said(child.wait_with_output().unwrap())
}

fn store() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = dir.path().join("store").to_str().unwrap().to_owned();
    works(&["init", &store, "--size", "64M"]);
    (dir, store)
}

#[test]
fn what_is_put_is_listed_shown_and_got_again() {
    let (dir, store) = store();
    let file = dir.path().join("file");
    let bytes: Vec<u8> =
        (0..3_000_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(&file, &bytes).unwrap();
    works(&["put", &store, "photos/1.jpg", file.to_str().unwrap(), "--volume", "server", "--version", "4"]);
    assert_eq!(put(&[&store, r"odd\x00key\xff /..", "--volume", ""], b"short").code, Some(0));

    let got =
        command().args(["cache", "get", &store, "photos/1.jpg", "--volume", "server"]).output().unwrap();
    assert!(got.status.success() && got.stdout == bytes);
    assert_eq!(works(&["get", &store, r"odd\x00key\xff /.."]).out, "short");

    let rows = works(&["ls", &store, "--raw", "--noheadings", "--bytes"]).out;
    assert_eq!(
        rows,
        format!(
            "- odd\\x5cx00key\\x5cxff\\x5cx20/.. 0 5 clean\nserver photos/1.jpg 4 {} clean\n",
            bytes.len()
        )
    );
    let listed = works(&["ls", &store, "photos/", "--volume", "server", "--json"]).out;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["key"], "photos/1.jpg");
    assert_eq!(works(&["ls", &store, "none", "--json"]).out.trim(), "[]");

    let stat = works(&["stat", &store, "photos/1.jpg", "--volume", "server"]).out;
    assert!(
        stat.contains("version  4\n")
            && stat.contains("12000000 in 1 ranges")
            && stat.contains("tier 0 block"),
        "{stat}"
    );
    let df = works(&["df", &store]).out;
    assert!(df.contains("STORE") && df.contains("62.00 MiB"), "{df}");
    let checked = works(&["check", &store]).out;
    assert_eq!(checked, "2 objects, 12000005 bytes read, 0 damaged\n");
}

#[test]
fn what_is_older_missing_or_in_use_is_refused() {
    let (dir, store) = store();
    assert_eq!(put(&[&store, "k", "--version", "2"], b"two").code, Some(0));
    let refused = |said: Said, words: &str| {
        assert!(said.code == Some(1) && said.all_prefixed() && said.err.contains(words), "{said:?}");
    };
    refused(put(&[&store, "k", "--version", "1"], b"one"), "version 1 is wanted");
    assert_eq!(put(&[&store, "k", "--version", "3"], b"three").code, Some(0));
    assert_eq!(works(&["get", &store, "k"]).out, "three");
    refused(cache(&["get", &store, "none"]), "no object \"none\"");
    refused(cache(&["invalidate", &store, "none"]), "no object");
    works(&["invalidate", &store, "k"]);
    refused(cache(&["get", &store, "k"]), "no object");
    refused(cache(&["init", &store, "--size", "64M"]), "exists");
    refused(cache(&["ls", dir.path().to_str().unwrap()]), "cannot examine");
    assert_eq!(put(&[&store, "k"], b"").code, Some(0));
    assert_eq!(works(&["get", &store, "k"]).out, "");
    let usage = cache(&["get", &store, r"\x9"]);
    assert!(usage.code == Some(125) && usage.all_prefixed(), "{usage:?}");

    let user = vswap_objects_open(Path::new(&store));
    refused(cache(&["ls", &store]), "in use");
    drop(user);
    works(&["ls", &store]);
}

fn vswap_objects_open(dir: &Path) -> std::sync::Arc<::vswap::objects::Store> {
    ::vswap::objects::Store::open(dir, &::vswap::objects::StoreConfig::default()).unwrap()
}

#[test]
fn what_is_pinned_stays_when_the_rest_is_given_up() {
    let (_dir, store) = store();
    for key in ["a/1", "a/2", "b/1", "b/2"] {
        let noise: Vec<u8> =
            (0..900_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert_eq!(put(&[&store, key], &noise).code, Some(0));
    }
    works(&["pin", &store, "a/", "--prefix"]);
    works(&["unpin", &store, "a/2"]);
    let states = || works(&["ls", &store, "--raw", "--noheadings", "--output", "KEY,STATE"]).out;
    assert_eq!(states(), "a/1 pinned\na/2 clean\nb/1 clean\nb/2 clean\n");
    let df = works(&["df", &store, "--json"]).out;
    let df: serde_json::Value = serde_json::from_str(&df).unwrap();
    assert_eq!(df["pinned"], 901_120);
    let freed = works(&["cull", &store, "--json"]).out;
    let freed: serde_json::Value = serde_json::from_str(&freed).unwrap();
    assert!(freed["freed"].as_u64().unwrap() >= 2 << 20, "{freed}");
    assert_eq!(states(), "a/1 pinned\n");
    let got = command().args(["cache", "get", &store, "a/1"]).output().unwrap();
    assert_eq!(got.stdout.len(), 900_000);
    works(&["cull", &store, "--size", "1M"]);
    let refused = cache(&["pin", &store, "b/1"]);
    assert!(refused.code == Some(1) && refused.err.contains("no object"), "{refused:?}");
}

#[test]
fn what_is_longer_than_the_store_is_refused() {
    let (dir, store) = store();
    assert_eq!(put(&[&store, "short"], b"short").code, Some(0));
    let file = dir.path().join("file");
    let noise: Vec<u8> =
        (0..20_000_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(&file, noise).unwrap();
    let said = cache(&["put", &store, "long", file.to_str().unwrap()]);
    assert!(said.code == Some(1) && said.err.contains("room"), "{said:?}");
    let got = cache(&["get", &store, "long"]);
    assert!(
        got.code == Some(1) && (got.err.contains("missing") || got.err.contains("no object")),
        "{}",
        got.err
    );
    works(&["check", &store]);
}

#[test]
fn a_prefix_ends_and_a_damaged_object_is_named_and_ended() {
    let (_dir, store) = store();
    for key in ["a/1", "a/2", "b"] {
        let noise: Vec<u8> = (0..9000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert_eq!(put(&[&store, key], &noise).code, Some(0));
    }
    works(&["invalidate", &store, "a/", "--prefix"]);
    assert_eq!(works(&["ls", &store, "--raw", "--noheadings", "--output", "KEY"]).out, "b\n");
    // All that is on the tier, but for its header.
    let data = Path::new(&store).join("data");
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[2 << 20..].fill(0x55);
    std::fs::write(&data, bytes).unwrap();
    let checked = cache(&["check", &store]);
    assert!(
        checked.code == Some(1) && checked.err.contains("b in volume") && checked.err.contains("--repair"),
        "{checked:?}"
    );
    assert_eq!(cache(&["get", &store, "b"]).code, Some(1));
    let repaired = cache(&["check", &store, "--repair"]);
    assert_eq!((repaired.code, repaired.out.as_str()), (Some(0), "1 objects, 0 bytes read, 1 damaged\n"));
    assert_eq!(works(&["check", &store]).out, "0 objects, 0 bytes read, 0 damaged\n");
}

/// A long one makes commits of its own for room before it has ended.
#[test]
fn what_was_put_in_part_when_the_command_was_killed_is_not_got() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = dir.path().join("store").to_str().unwrap().to_owned();
    works(&["init", &store, "--size", "24M"]);
    let mut command = command();
    let mut child = command.args(["cache", "put", &store, "k"]).stdin(Stdio::piped()).spawn().unwrap();
    // They are counted at their length until they have been committed, and take little of the room.
    let bytes: Vec<u8> =
        (0..16 << 20_u32).map(|at| if at % 4096 < 8 { (at >> (at % 8)) as u8 } else { 0 }).collect();
    child.stdin.as_mut().unwrap().write_all(&bytes).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let got = cache(&["get", &store, "k"]);
    assert_eq!((got.code, got.out.len()), (Some(1), 0), "{}", got.err);
    assert!(got.err.contains("are missing"), "{}", got.err);
}

/// A small file system, until it is dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn new(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (image, point) = (dir.path().join("image"), dir.path().join("point"));
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        std::fs::create_dir(&point).unwrap();
        let small = Self(dir);
        let did = |program: &str, words: &[&std::ffi::OsStr]| {
            std::process::Command::new(program).args(words).output().is_ok_and(|done| done.status.success())
        };
        let (image, point) = (image.as_os_str(), point.as_os_str());
        let made = did("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image]);
        if !made || !did("mount", &["-o".as_ref(), "loop".as_ref(), image, point]) {
            assert!(
                std::fs::metadata("/proc/self")
                    .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) != 0),
                "mkfs.ext4 and a loop device are needed"
            );
            eprintln!("skipped: only root can mount a file system");
            return None;
        }
        Some(small)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join("point").join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path().join("point")).status();
    }
}

/// At each step of what a full disk refuses.
#[test]
fn a_full_file_system_loses_nothing_that_was_synced_and_the_store_goes_on_when_there_is_room() {
    let Some(small) = Small::new(40) else { return };
    let (store, filler) = (small.path("store"), small.path("filler"));
    works(&["init", &store, "--size", "64M"]);
    let noise = |seed: u32| -> Vec<u8> {
        (0..1_000_000_u32)
            .flat_map(|at| (at ^ seed << 20).wrapping_mul(2_654_435_761).to_le_bytes())
            .collect()
    };
    let is_whole = |kept: &[u32]| {
        for seed in kept {
            let got = command().args(["cache", "get", &store, &seed.to_string()]).output().unwrap();
            assert!(got.status.success() && got.stdout == noise(*seed), "{seed}");
        }
        let checked = works(&["check", &store]).out;
        assert!(
            checked.contains(&format!("{} objects", kept.len())) && checked.contains("0 damaged"),
            "{checked}"
        );
    };
    let mut kept: Vec<u32> =
        (1..=10).filter(|seed| put(&[&store, &seed.to_string()], &noise(*seed)).code == Some(0)).collect();
    assert!((5..10).contains(&kept.len()), "the device is full before the store: {kept:?}");
    is_whole(&kept);
    // Nothing at all is left, for the index neither.
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let aux = small.0.path().join("aux");
    std::fs::write(&aux, vec![7; 60_000]).unwrap();
    let refused: Vec<Said> = (0..30)
        .map(|at| put(&[&store, &format!("aux{at}"), "--aux", aux.to_str().unwrap()], b"x"))
        .filter(|said| said.code != Some(0))
        .collect();
    assert!(!refused.is_empty());
    for said in &refused {
        assert!(
            said.code == Some(1) && (said.err.contains("No space left") || said.err.contains("no room")),
            "{said:?}"
        );
    }
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    let listed = works(&["ls", &store, "--raw", "--noheadings"]).out.lines().count();
    assert_eq!(listed, kept.len() + 30 - refused.len());
    for at in 0..30 {
        cache(&["invalidate", &store, &format!("aux{at}")]);
    }
    is_whole(&kept);
    let gone = kept.remove(0);
    works(&["invalidate", &store, &gone.to_string()]);
    assert_eq!(put(&[&store, "small"], b"goes on").code, Some(0));
    assert_eq!(works(&["get", &store, "small"]).out, "goes on");
    works(&["invalidate", &store, "small"]);
    is_whole(&kept);
}

#[test]
fn keys_of_any_bytes_go_through_each_command() {
    use std::os::unix::ffi::OsStringExt;
    let (_dir, store) = store();
    let long = "k".repeat(4096);
    let raw = || std::ffi::OsString::from_vec(b"raw\xff\xfe/\x01".to_vec());
    let keys: [std::ffi::OsString; 5] =
        ["".into(), long.into(), "-- --json\n".into(), "../../etc/passwd".into(), raw()];
    let does = |verb: &str, more: &[&std::ffi::OsStr], input: &[u8]| {
        let mut command = command();
        command
            .args(["cache", verb])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input);
        said(child.wait_with_output().unwrap())
    };
    for volume in &keys {
        for key in &keys {
            let of = |verb: &str, input: &[u8]| {
                let words =
                    ["--volume".as_ref(), volume.as_os_str(), "--".as_ref(), store.as_ref(), key.as_os_str()];
                let mut volume_is = std::ffi::OsString::from("--volume=");
                volume_is.push(volume);
                let words = [&[volume_is.as_os_str()], &words[2..]].concat();
                let told = does(verb, &words, input);
                assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{verb} {volume:?} {key:?}");
                told.out
            };
            let bytes = format!("{volume:?} {key:?}");
            of("put", bytes.as_bytes());
            assert_eq!(of("get", b""), bytes);
            of("stat", b"");
            of("pin", b"");
            of("unpin", b"");
            if key.len() == 4096 {
                of("invalidate", b"");
            }
        }
    }
    let listed = works(&["ls", &store, "--raw", "--noheadings"]).out;
    assert_eq!(listed.lines().count(), keys.len() * (keys.len() - 1), "{listed}");
    assert!(works(&["check", &store]).out.contains("20 objects"));
}
