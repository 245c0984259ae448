//! Tiers that fail: for a while nothing may be written beyond some length of any file, as if the disk were broken there.
//!
//! The limit is the engine process's (`RLIMIT_FSIZE`), so nothing of the machine is changed, and it ends with the run.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{Counts, Event, Groups, Random, Run, Tier};

/// Where it breaks, in MiB: far enough for all but tiers' files.
const BROKEN_FROM: [u64; 3] = [2, 4, 8];
/// How long a failure is waited for. Once there is one it is short: with no disk at all everything has to stay in memory, and soon the
/// run would grow.
const LONGEST: Duration = Duration::from_millis(1500);
/// How long mending may take.
const MENDED_WITHIN: Duration = Duration::from_secs(10);

/// Limits of processes, lifted when dropped.
struct Broken(Vec<(Pid, Rlimit)>);

impl Broken {
    /// One that has gone meanwhile needs none.
    fn from(bytes: u64, processes: &[i32]) -> Self {
        let limit = |pid: &i32| {
            let pid = Pid::from_raw(*pid)?;
            let limit = Rlimit { current: Some(bytes), maximum: None };
            Some((pid, prlimit(Some(pid), Resource::Fsize, limit).ok()?))
        };
        Self(processes.iter().filter_map(limit).collect())
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        for (pid, before) in self.0.drain(..) {
            let _ = prlimit(Some(pid), Resource::Fsize, before);
        }
    }
}

/// Breaks it, has tiers written until one has failed and a moment more, and mends it.
pub fn happen(groups: &Groups, run: &Run<'_>, random: &mut Random, counts: &mut Counts) -> Result<()> {
    let from = random.one_of(&BROKEN_FROM).map_or(0, |mib| mib << 20);
    groups.let_into_memory(run)?;
    let broken = Broken::from(from, &run.processes().0);
    groups.let_little_into_memory(run)?;
    let until = Instant::now() + LONGEST;
    while Instant::now() < until && run.tiers().is_some_and(|tiers| !tiers.iter().any(Tier::is_failing)) {
        std::thread::sleep(Duration::from_millis(5));
    }
    groups.let_all_into_memory(run)?;
    std::thread::sleep(Duration::from_millis(random.below(50)));
    drop(broken);
    mend(run, counts)
}

/// Has all that fail used again; what was under way when the limit was lifted may be late to fail.
pub fn mend(run: &Run<'_>, counts: &mut Counts) -> Result<()> {
    let until = Instant::now() + MENDED_WITHIN;
    while let Some(tiers) = run.tiers() {
        let failing: Vec<&Tier> = tiers.iter().filter(|tier| tier.is_failing()).collect();
        if failing.is_empty() {
            break;
        }
        if Instant::now() > until {
            bail!("a tier fails though nothing is broken: {failing:?}");
        }
        for tier in failing {
            counts.note(Event::Failed);
            if run.on_tier("reopen", tier)? {
                counts.note(Event::Reopened);
            }
        }
    }
    Ok(())
}
