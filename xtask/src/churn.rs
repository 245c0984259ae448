//! Tiers that come and go while something runs: added, removed, and removals ended in the middle.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::host::cgroup::Cgroup;
use crate::host::scratch::Scratch;

/// Tiers at once, at the most.
const MOST: usize = 4;

/// Changes the tiers of the one `vswap run` in a group.
pub struct Churn<'a> {
    /// The command.
    pub vswap: &'a Path,
    /// Where the run is.
    pub group: &'a Cgroup,
    /// What the choices come from.
    pub seed: u64,
}

#[derive(Default)]
struct Counts {
    added: u64,
    removed: u64,
    ended: u64,
    refused: u64,
}

impl Churn<'_> {
    /// Does so while `job` runs; gives what it gives, and what has been done.
    pub fn beside<T>(&self, job: impl FnOnce() -> Result<T>) -> Result<(T, String)> {
        let over = AtomicBool::new(false);
        let (ran, counts) = std::thread::scope(|scope| {
            let churn = scope.spawn(|| self.go_on_until(&over));
            let ran = job();
            over.store(true, Ordering::Relaxed);
            (ran, churn.join().expect("it does not panic"))
        });
        let (ran, counts) = (ran?, counts?);
        let Counts { added, removed, ended, refused } = counts;
        ensure!(added > 0 && removed > 0, "no tier came or went: {added} added, {removed} removed");
        Ok((
            ran,
            format!(", tiers: {added} added, {removed} removed, {ended} removals ended, {refused} refused"),
        ))
    }

    fn go_on_until(&self, over: &AtomicBool) -> Result<Counts> {
        let dir = Scratch::new("churn")?;
        let place = dir.path().to_string_lossy().into_owned();
        let (mut counts, mut random) = (Counts::default(), self.seed.wrapping_mul(2) | 1);
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        while !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20 + next(80)));
            let Some((run, tiers)) = self.tiers() else { continue };
            if tiers.len() < 2 || tiers.len() < MOST && next(2) == 0 {
                let priority = (next(5) as i64 - 2).to_string();
                let words = ["tier", "add", &place, "--size", "1G", "-p", &priority, "--run", &run];
                counts.added += u64::from(self.start(&words)?.wait()?.success());
                continue;
            }
            let tier = tiers[next(tiers.len() as u64) as usize].to_string();
            let mut removal = self.start(&["tier", "remove", &tier, "--run", &run])?;
            if next(3) == 0 {
                std::thread::sleep(Duration::from_micros(next(30_000)));
                let _ = removal.kill();
            }
            match removal.wait()?.code() {
                Some(0) => counts.removed += 1,
                Some(_) => counts.refused += 1,
                None => counts.ended += 1,
            }
        }
        Ok(counts)
    }

    fn start(&self, words: &[&str]) -> Result<Child> {
        let mut command = Command::new(self.vswap);
        Ok(command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// The run's number and its tiers', once it can be asked.
    fn tiers(&self) -> Option<(String, Vec<u64>)> {
        let out = Command::new(self.vswap).args(["tiers", "--json"]).output().ok()?;
        let runs: Value = serde_json::from_slice(&out.stdout).ok()?;
        let members = self.group.members();
        let ours = |run: &&Value| run["pid"].as_i64().is_some_and(|pid| members.contains(&(pid as i32)));
        let run = runs.as_array()?.iter().find(ours)?;
        let numbers = run["tiers"].as_array()?.iter().filter_map(|tier| tier["tier"].as_u64()).collect();
        Some((run["pid"].to_string(), numbers))
    }
}
