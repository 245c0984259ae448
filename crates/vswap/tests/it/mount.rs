//! `vswap cache mount`: a directory shown through a store. As root, with /dev/fuse.
//!
//! What is shown is served by a process of its own: one that touches its own mount can wait for itself.

mod belief;
mod changes;
mod failing;
mod listing;
mod lost;
mod model;
mod operations;
mod ordinary;
mod plain;
mod programs;
mod room;
mod shared;
mod slow;
mod together;

use crate::vswap::{command, vswap};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A source, a store, and where the one is shown through the other.
struct Place {
    dir: tempfile::TempDir,
    source: PathBuf,
    store: PathBuf,
    point: PathBuf,
}

/// A mount, until it is dropped.
struct Mounted {
    child: Child,
    point: PathBuf,
}

impl Place {
    fn new() -> Self {
        Self::with_store("256M")
    }

    fn with_store(size: &str) -> Self {
        assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse: modprobe fuse");
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| dir.path().join(name);
        let (source, store, point) = (path("source"), path("store"), path("point"));
        std::fs::create_dir(&source).unwrap();
        std::fs::create_dir(&point).unwrap();
        let made = vswap(["cache", "init", store.to_str().unwrap(), "--size", size]);
        assert_eq!(made.code, Some(0), "{made:?}");
        Self { dir, source, store, point }
    }

    fn mount(&self, more: &[&str]) -> Mounted {
        let mut child = command()
            .args(["cache", "mount", "--source"])
            .arg(&self.source)
            .arg("--store")
            .arg(&self.store)
            .args(more)
            .arg(&self.point)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut words = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        words.read_line(&mut line).unwrap();
        let mounted = Mounted { child, point: self.point.clone() };
        assert!(line.contains("is shown at"), "{line}");
        std::thread::spawn(move || words.lines().map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        mounted
    }

    /// Where a name is shown.
    fn shown(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// Where it really is.
    fn real(&self, name: &str) -> PathBuf {
        self.source.join(name)
    }
}

impl Mounted {
    /// Unmounts as a user does.
    fn unmount(mut self) {
        // A reader that has just ended may keep it busy for a moment.
        let unmounted = (0..50).any(|_| {
            let done =
                Command::new("umount").arg(&self.point).stderr(Stdio::null()).status().unwrap().success();
            std::thread::sleep(Duration::from_millis(if done { 0 } else { 100 }));
            done
        });
        assert!(unmounted, "umount");
        assert!(self.child.wait().unwrap().success());
    }

    fn signal(&self, name: &str) {
        run("kill", &[name, &self.child.id().to_string()], Path::new("/"));
    }

    /// Nothing is answered any more.
    fn stop(&self) {
        self.signal("-STOP");
        // Each of its threads stops a moment after the call.
        let tasks = format!("/proc/{}/task", self.child.id());
        let stopped = || {
            let stat = |task: std::fs::DirEntry| {
                std::fs::read_to_string(task.path().join("stat")).unwrap_or_default()
            };
            std::fs::read_dir(&tasks).unwrap().all(|task| stat(task.unwrap()).contains(") T "))
        };
        while !stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn go_on(&self) {
        self.signal("-CONT");
    }

    /// What it has open there.
    fn open_below(&self, dir: &Path) -> Vec<PathBuf> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let paths = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        paths.filter(|path| path.starts_with(dir)).collect()
    }

    /// The files without a name that it has open: when they were written to last, and bytes.
    fn unnamed(&self) -> BTreeSet<((i64, i64), u64)> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let found = open.filter_map(|entry| std::fs::metadata(entry.unwrap().path()).ok());
        let found = found.filter(|found| found.is_file() && found.nlink() == 0);
        found.map(|found| ((found.mtime(), found.mtime_nsec()), found.blocks() * 512)).collect()
    }

    /// As a crash of the serving process; what is left of the mount is unmounted.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = Command::new("umount").arg("-l").arg(&self.point).stderr(Stdio::null()).status();
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = Command::new("umount").arg("-l").arg(&self.point).stderr(Stdio::null()).status();
    }
}

/// Bytes that do not compress.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What was changed in the source is told from the next change by its time.
fn age() {
    std::thread::sleep(Duration::from_millis(3100));
}

fn run(program: &str, arguments: &[&str], dir: &Path) -> String {
    let done = Command::new(program).args(arguments).current_dir(dir).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{program} {arguments:?}: {out}{err}");
    out.into_owned()
}
