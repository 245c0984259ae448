//! Runs `vswap-bench` in memory cgroups.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::host::cgroup::Cgroup;
use crate::host::job::Job;
use crate::host::{interrupt, target_dir};

/// A part that takes longer hangs.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// The program and a directory for what it makes, which is gone when this is dropped.
pub struct Bench {
    program: PathBuf,
    dir: PathBuf,
}

impl Bench {
    /// In `parent`.
    pub fn new(parent: &Path) -> Result<Self> {
        let dir = parent.join(format!("vswap-xtask-{}-cache", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { program: target_dir().join("release/vswap-bench"), dir })
    }

    /// A path there.
    pub fn place(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Removes what is there.
    pub fn clear(&self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.with_context(|| format!("cannot remove {}", path.display()))
    }

    /// Bytes on the disk of a file there.
    pub fn bytes_of(&self, name: &str) -> Result<u64> {
        Ok(fs::metadata(self.dir.join(name))?.blocks() * 512)
    }

    /// Runs it, with so much memory, page cache included, if there is a limit. Gives what it said, and the most page cache that it had.
    pub fn run(&self, words: &[String], limit: Option<u64>) -> Result<Value> {
        interrupt::check()?;
        // After the page cache was dropped its pages, which are many with what is for debuggers, would be charged to who is limited.
        fs::read(&self.program).with_context(|| format!("cannot read {}", self.program.display()))?;
        let cgroup = Cgroup::new("cache")?;
        if let Some(limit) = limit {
            cgroup.limit(limit)?;
        }
        let argv = std::iter::once(self.program.clone().into_os_string());
        let argv = argv.chain(words.iter().map(Into::into)).collect();
        let ran = Job { argv, cgroup: &cgroup, dir: &self.dir, timeout: TIMEOUT, pool: None }.run()?;
        ensure!(
            ran.status.success() && ran.oom_kills == 0,
            "vswap-bench {}: {} ({} killed for want of memory): {}",
            words.join(" "),
            ran.ending(),
            ran.oom_kills,
            ran.complained()
        );
        let said = ran.said();
        let line = said.lines().last().unwrap_or_default();
        let mut said: Value = serde_json::from_str(line).with_context(|| format!("it said {line:?}"))?;
        said["cache_peak"] = json!(ran.peaks.cache);
        Ok(said)
    }

    /// The device alone, with direct I/O.
    pub fn device(&self, bytes: u64) -> Result<Value> {
        let words = ["device", &self.place(""), &bytes.to_string()].map(str::to_owned);
        Ok(self.run(&words, None)?["device"].clone())
    }

    /// Has somebody open a store and write to it, and kills him before he syncs.
    pub fn hold_and_kill(&self, name: &str) -> Result<()> {
        let mut child = Command::new(&self.program)
            .args(["many", "hold", &self.place(name)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        child.kill()?;
        child.wait()?;
        ensure!(matches!(read, Some(Ok(_))) && line == "ready\n", "who holds the store said {line:?}");
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What is in the page cache and not dirty goes.
pub fn drop_caches() -> Result<()> {
    fs::write("/proc/sys/vm/drop_caches", "1").context("cannot drop the page cache: this task needs root")
}
