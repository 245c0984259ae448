//! `vswap status`, `vswap tiers` and `vswap tier` on a program that uses the library.
//!
//! That program is this test itself, started again.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use vswap::Region;

use crate::vswap::{Said, command, said};

const PAGE: usize = 4096;
/// Says to the second process that it is to be the program.
const PROGRAM: &str = "VSWAP_TEST_PROGRAM";

fn content(page: usize) -> Vec<u8> {
    let mut seed = page as u64 + 1;
    let next = |_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..PAGE).map(next).collect()
}

/// Fills 24 MiB in 8, twice; waits for a line; checks it all, drops it, and waits for the end of its input.
fn program() {
    let region = Region::builder(24 << 20).limit(8 << 20).named("index");
    let mut region = region.disk("/var/tmp", 64 << 20).build().unwrap();
    for (page, bytes) in region.as_mut_slice().chunks_mut(PAGE).enumerate() {
        bytes.copy_from_slice(&content(page));
    }
    let snapshot = region.snapshot().unwrap();
    let other = Region::builder(1 << 20).limit(8 << 20).named("other").build().unwrap();
    println!("\nfilled");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    drop(region);
    for (page, bytes) in snapshot.as_slice().chunks(PAGE).enumerate() {
        assert!(bytes == content(page), "page {page}");
    }
    drop((snapshot, other));
    println!("\nright");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

struct Running {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    runtime: tempfile::TempDir,
}

impl Running {
    fn start(test: &str) -> Running {
        let runtime = tempfile::tempdir().unwrap();
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", &format!("control_of_a_region::{test}"), "--nocapture"]);
        again.env(PROGRAM, "1").env("XDG_RUNTIME_DIR", runtime.path());
        let mut child = again.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut running = Running { child, out, runtime };
        running.hears("filled");
        running
    }

    fn hears(&mut self, wanted: &str) {
        let mut lines = self.out.by_ref().lines().map_while(Result::ok);
        assert!(lines.any(|line| line == wanted), "it has not said {wanted:?}");
    }

    fn says_go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn ask(&self, words: &[&str]) -> Said {
        said(command().env("XDG_RUNTIME_DIR", self.runtime.path()).args(words).output().unwrap())
    }

    fn status(&self) -> Value {
        let told = self.ask(&["status", "index", "--json"]);
        assert_eq!((told.code, told.err.as_str()), (Some(0), ""));
        serde_json::from_str::<Value>(&told.out).expect("JSON")[0].take()
    }

    fn sockets(&self) -> usize {
        std::fs::read_dir(self.runtime.path().join("vswap")).map_or(0, Iterator::count)
    }
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

#[test]
fn a_program_with_regions_is_seen_and_its_tiers_are_changed_like_those_of_a_run() {
    if std::env::var_os(PROGRAM).is_some() {
        return program();
    }
    let mut running =
        Running::start("a_program_with_regions_is_seen_and_its_tiers_are_changed_like_those_of_a_run");
    let status = running.status();
    assert_eq!((&status["pid"], &status["program"]), (&running.child.id().into(), &"index".into()));
    assert_eq!(status["limit"], 8 << 20);
    assert!(status["swapped"].as_u64().unwrap() > 8 << 20, "{status}");
    assert_eq!(running.sockets(), 2);
    let both = running.ask(&["tiers", &running.child.id().to_string()]);
    let names = ["several", "index", "other"].iter().all(|name| both.err.contains(name));
    assert!(both.code != Some(0) && names, "{} {}", both.out, both.err);

    let second = tempfile::Builder::new().prefix("vswap-second").tempdir_in("/var/tmp").unwrap();
    let added = running.ask(&["tier", "add", path(second.path()), "--size", "64M", "--run", "index"]);
    assert_eq!((added.code, added.err.as_str()), (Some(0), ""), "{}", added.out);
    let first = running.status()["tiers"][0]["tier"].to_string();
    let removed = running.ask(&["tier", "remove", &first, "--run", "index"]);
    assert_eq!(removed.code, Some(0), "{} {}", removed.out, removed.err);
    let tiers = running.status()["tiers"].take();
    assert_eq!((tiers.as_array().unwrap().len(), &tiers[0]["path"]), (1, &path(second.path()).into()));

    for words in [
        &["groups", "add", "index", "/part"][..],
        &["groups", "move", "index", &running.child.id().to_string(), "/part"],
        &["set", "index", "/part", "memory.max=3M", "memory.zswap.max=2M"],
    ] {
        let told = running.ask(words);
        assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{words:?}");
    }
    let told = running.ask(&["groups", "index", "--json"]);
    let groups = serde_json::from_str::<Value>(&told.out).expect("JSON")[0]["groups"].take();
    assert_eq!(
        (&groups[1]["path"], &groups[1]["memory.max"]),
        (&"/part".into(), &(3 << 20).into()),
        "{groups:#}"
    );
    // The region and its snapshot share it, and were of the root when it was stored.
    assert_eq!(groups[0]["memory.swap.current"], 24 << 20, "{groups:#}");
    assert_eq!(running.ask(&["groups", "move", "index", "1", "/part"]).code, Some(1));

    running.says_go_on();
    running.hears("right");
    assert_eq!(running.sockets(), 0, "the sockets went with the regions");
    running.says_go_on();
    assert!(running.child.wait().unwrap().success());
}

#[test]
fn the_sockets_of_a_program_that_was_killed_are_removed_by_the_next_status() {
    if std::env::var_os(PROGRAM).is_some() {
        return program();
    }
    let mut running =
        Running::start("the_sockets_of_a_program_that_was_killed_are_removed_by_the_next_status");
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    assert_eq!(running.sockets(), 2);
    running.ask(&["status"]);
    assert_eq!(running.sockets(), 0);
}
