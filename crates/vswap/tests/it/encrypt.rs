//! What is found on a tier by whoever can read it: nothing, unless that is wanted.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::run_like_plain::{run, works};
use crate::tiers::{Running, filled_by};

/// 40 MiB, of which less than half stays in memory.
const PAGES: u32 = 10240;

/// Fills so many pages with noise, each with a mark and its number in the middle, says so, and checks them when its input ends.
const PROGRAM: &str = r#"
import os, sys
pages, mark, noise = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), os.urandom(1 << 20)
memory = bytearray(pages * 4096)
def content(i):
    at = i * 131 % 500000
    return noise[at:at + 2000] + mark + i.to_bytes(4, "little") + noise[at + 2000:at + 4060]
for i in range(pages): memory[i * 4096:(i + 1) * 4096] = content(i)
print("filled", flush=True)
sys.stdin.read()
print(sum(memory[i * 4096:(i + 1) * 4096] != content(i) for i in range(pages)), "wrong")
"#;

/// What a page is known by: 32 bytes of which none is like the one before.
fn mark() -> Vec<u8> {
    (0..32u8).map(|at| at.wrapping_mul(157) ^ 0x5a).collect()
}

/// A run whose pages go to a file of this name as soon as they leave memory.
fn run_over(file: &Path, options: &[&str]) -> Running {
    let tier = format!("{},kind=file,size=128M", file.display());
    let options = [&["--codec", "lz4", "--disk", "none", "--tier", &tier], options].concat();
    let hex: String = mark().iter().map(|byte| format!("{byte:02x}")).collect();
    let pages = PAGES.to_string();
    let running = filled_by(run(&options, &["/usr/bin/python3", "-c", PROGRAM, &pages, &hex]));
    running.until_asked();
    for limit in ["memory.zswap.max=0", "memory.max=32M"] {
        let set = running.ask(&["set", &running.child.id().to_string(), "/", limit]);
        assert_eq!(set.code, Some(0), "{limit}: {set:?}");
    }
    let since = Instant::now();
    while running.status()["swapped"].as_u64() < Some(8 << 20) {
        assert!(since.elapsed() < Duration::from_secs(60), "nothing is written: {:#}", running.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

/// The numbers of the pages that are in a file as they were in memory.
fn found(file: &Path) -> HashSet<u32> {
    let (bytes, mark) = (std::fs::read(file).expect("it is there"), mark());
    let is_there = |at: &usize| bytes[*at] == mark[0] && bytes[*at..].starts_with(&mark);
    let number = |at: usize| bytes[at + mark.len()..].first_chunk().map(|number| u32::from_le_bytes(*number));
    (0..bytes.len()).filter(is_there).filter_map(number).filter(|number| *number < PAGES).collect()
}

#[test]
fn what_a_program_had_in_memory_is_found_on_a_tier_only_if_encryption_is_off() {
    if !works() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory on a disk");
    let file = |name: &str| dir.path().join(name);
    let plain = run_over(&file("plain"), &["--encrypt", "off"]);
    let readable = found(&file("plain")).len() as u64;
    assert!(readable * 4096 >= 6 << 20, "{readable} pages of {:#}", plain.status());
    assert_eq!(plain.end(), (Some(0), "0 wrong\n".to_owned()));
    let sealed = run_over(&file("sealed"), &[]);
    assert_eq!(found(&file("sealed")), HashSet::new(), "pages that anybody can read");
    assert_eq!(sealed.end(), (Some(0), "0 wrong\n".to_owned()));
}
