//! What fuzzing has found, again, on the stable compiler: each file of `fuzz/corpus` through the function of its target.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use vswap_fuzz::{TARGETS, Target};

/// All corpora together: they are in everybody's clone.
const MOST_BYTES: u64 = 1 << 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The files of a directory of `fuzz`, in order.
fn files(dir: &str) -> Vec<PathBuf> {
    let dir = fuzz().join(dir);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn stems(files: &[PathBuf]) -> BTreeSet<String> {
    files.iter().map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Names what failed: a panic alone would not say which file it was.
fn replay(target: &Target, name: &str, bytes: &[u8]) -> Option<String> {
    let ended = std::panic::catch_unwind(|| (target.run)(bytes));
    ended.is_err().then(|| format!("{} {name}", target.name))
}

#[test]
fn all_that_fuzzing_found_holds() {
    let mut failed = Vec::new();
    for target in TARGETS {
        for file in files(&format!("corpus/{}", target.name)) {
            failed.extend(replay(target, &file.display().to_string(), &fs::read(&file).unwrap()));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn what_is_really_written_holds() {
    let mut failed = Vec::new();
    for target in TARGETS {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            failed.extend(replay(target, &format!("seed {number}"), seed));
            // Cut off, and one byte changed, here and there.
            for at in (0..seed.len()).step_by(seed.len() / 12 + 1) {
                let mut changed = seed.clone();
                changed[at] ^= 1 << (at % 8);
                failed.extend(replay(target, &format!("seed {number}, byte {at} changed"), &changed));
                failed.extend(replay(target, &format!("seed {number}, {at} bytes"), &seed[..at]));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn each_target_has_a_file_a_corpus_and_an_entry_in_the_manifest() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(stems(&files("fuzz_targets")), names);
    assert_eq!(stems(&files("corpus")), names);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let bins = manifest.split("[[bin]]\n").skip(1).map(|bin| bin.split('"').nth(1).unwrap().to_owned());
    assert_eq!(bins.collect::<BTreeSet<_>>(), names);
    for target in TARGETS {
        let text = fs::read_to_string(fuzz().join(format!("fuzz_targets/{}.rs", target.name))).unwrap();
        assert!(text.contains(&format!("vswap_fuzz::{}(data)", target.name)), "{text}");
        assert!(!files(&format!("corpus/{}", target.name)).is_empty(), "{}: no corpus", target.name);
    }
}

#[test]
fn the_corpora_are_small() {
    let all = TARGETS.iter().flat_map(|target| files(&format!("corpus/{}", target.name)));
    let bytes: u64 = all.map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes <= MOST_BYTES, "{bytes} bytes; `cargo xtask fuzz --keep` leaves what is needed");
}
