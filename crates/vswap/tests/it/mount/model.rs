//! Random operations through the mount and on a plain directory: both say the same.

use super::{Place, noise};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// The seeds that are tried.
const SEEDS: [u64; 2] = [1, 2];
const OPERATIONS: usize = 250;
/// Bytes of a file at the most.
pub const LONGEST: u64 = 300_000;
/// Names that are used again and again.
pub const NAMES: [&str; 9] = ["a", "b", "c", "d", "sub/a", "sub/b", "sub/deep/c", "other/a", "other"];

pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % most
    }

    pub fn name(&mut self) -> &'static str {
        NAMES[self.below(NAMES.len() as u64) as usize]
    }
}

/// What an operation gives: an error's number, or some bytes.
pub type Said = Result<Vec<u8>, Option<i32>>;

fn said<T>(done: io::Result<T>, bytes: impl FnOnce(T) -> Vec<u8>) -> Said {
    done.map(bytes).map_err(|error| error.raw_os_error())
}

fn nothing<T>(_: T) -> Vec<u8> {
    Vec::new()
}

/// One operation in one of the two, and what it said.
pub fn act(
    base: &Path,
    kind: u64,
    one: &str,
    two: &str,
    at: u64,
    bytes: &[u8],
    open: &mut Vec<File>,
) -> Said {
    let (path, other) = (base.join(one), base.join(two));
    let writes = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    match kind {
        0..=3 => said(writes().and_then(|file| file.write_all_at(bytes, at)), nothing),
        4 | 5 => said(
            OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .and_then(|mut file| file.write_all(bytes)),
            nothing,
        ),
        6 => said(OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(at)), nothing),
        7 => said(fs::write(&path, bytes), nothing),
        8 => said(fs::remove_file(&path), nothing),
        9 | 10 => said(fs::rename(&path, &other), nothing),
        11 => said(fs::hard_link(&path, &other), nothing),
        12 => said(fs::create_dir(&path), nothing),
        13 => said(fs::remove_dir(&path), nothing),
        14 => said(std::os::unix::fs::symlink(two, &path), nothing),
        15 => {
            // Kept open: it may be renamed, changed and unlinked meanwhile.
            let opened = OpenOptions::new().read(true).write(true).open(&path);
            said(opened, |file| {
                open.push(file);
                Vec::new()
            })
        }
        16 | 17 if !open.is_empty() => {
            let file = &open[at as usize % open.len()];
            said(file.write_all_at(bytes, at), nothing)
        }
        18 if !open.is_empty() => {
            let file = &open[at as usize % open.len()];
            said(read_all(file), |bytes| bytes)
        }
        19 if !open.is_empty() => {
            open.remove(at as usize % open.len());
            Ok(Vec::new())
        }
        20 => said(fs::metadata(&path), |found| {
            format!("{} {} {:o}", found.len(), found.nlink(), found.mode()).into_bytes()
        }),
        _ => said(
            File::open(&path).and_then(|file| {
                let mut buf = vec![0; bytes.len()];
                let read = file.read_at(&mut buf, at)?;
                buf.truncate(read);
                Ok(buf)
            }),
            |bytes| bytes,
        ),
    }
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Everything below a directory: kind, mode and content by path.
pub fn tree(base: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let (mut all, mut dirs) = (BTreeMap::new(), vec![base.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let content = match &found {
                found if found.is_dir() => {
                    dirs.push(path.clone());
                    Vec::new()
                }
                found if found.is_symlink() => {
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                }
                _ => fs::read(&path).unwrap(),
            };
            all.insert(
                path.strip_prefix(base).unwrap().to_str().unwrap().to_owned(),
                (found.mode(), content),
            );
        }
    }
    all
}

#[test]
fn what_is_done_through_the_mount_is_what_is_done_to_a_plain_directory() {
    for seed in SEEDS {
        let place = Place::new();
        let model = place.dir.path().join("model");
        for base in [&model, &place.source] {
            fs::create_dir_all(base.join("sub/deep")).unwrap();
        }
        let mounted = place.mount(&[]);
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for step in 0..OPERATIONS {
            let kind = chance.below(24);
            let (one, two) = (chance.name(), chance.name());
            let (at, length) = (chance.below(LONGEST), chance.below(40_000) as usize);
            let bytes = noise(length, seed + step as u64);
            let plain = act(&model, kind, one, two, at, &bytes, &mut here);
            let shown = act(&place.point, kind, one, two, at, &bytes, &mut there);
            assert!(
                plain == shown,
                "seed {seed}, step {step}: {kind} {one} {two} {at} {length}: {:?} and {:?}",
                brief(&plain),
                brief(&shown)
            );
        }
        let wanted = tree(&model);
        assert!(tree(&place.point) == wanted, "seed {seed}: what is shown");
        assert!(tree(&place.source) == wanted, "seed {seed}: what the source has");
        drop(there);
        mounted.unmount();
        // What is kept outlives the mount, and is the same.
        let mounted = place.mount(&["--read-only"]);
        assert!(tree(&place.point) == wanted, "seed {seed}: what is shown again");
        assert!(fs::write(place.shown("new"), "").is_err());
        mounted.unmount();
    }
}

pub fn brief(said: &Said) -> Result<String, Option<i32>> {
    said.clone().map(|bytes| format!("{} bytes, {:?}", bytes.len(), &bytes[..bytes.len().min(24)]))
}
