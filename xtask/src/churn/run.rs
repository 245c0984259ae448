//! [`Run`]: the run that is changed, by the commands that a user has for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::host::cgroup::Cgroup;

const SEGMENT: u64 = 2 << 20;
/// A tier of so many segments keeps two for cleaning.
const RESERVE_FROM: u64 = 8;

/// What a tier is made of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// An unlinked file.
    Directory,
    /// A file with a name.
    File,
    /// A block device.
    Device,
    /// Memory.
    Ghost,
}

impl Kind {
    /// Each.
    pub const ALL: [Self; 4] = [Self::Directory, Self::File, Self::Device, Self::Ghost];

    /// As `--kind` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File => "file",
            Self::Device => "device",
            Self::Ghost => "ghost",
        }
    }
}

/// A tier as `vswap tiers` shows it.
#[derive(Clone, Debug)]
pub struct Tier {
    pub number: u64,
    pub path: Option<PathBuf>,
    pub kind: Kind,
    pub size: u64,
    pub used: u64,
    pub state: String,
}

impl Tier {
    fn from(value: &Value) -> Option<Self> {
        Some(Self {
            number: value["tier"].as_u64()?,
            path: value["path"].as_str().map(PathBuf::from),
            kind: Kind::ALL.into_iter().find(|kind| value["kind"] == kind.name())?,
            size: value["size"].as_u64()?,
            used: value["used"].as_u64()?,
            state: value["state"].as_str()?.to_owned(),
        })
    }

    /// It takes no more of what is written, but something is there.
    pub fn is_full(&self) -> bool {
        let kept = if self.size >= RESERVE_FROM * SEGMENT { 2 * SEGMENT } else { 0 };
        self.used > 0 && self.used + kept >= self.size
    }

    /// A write to it failed.
    pub fn is_failing(&self) -> bool {
        self.state == "failing"
    }
}

/// See the module.
pub struct Run<'a> {
    vswap: &'a Path,
    cgroup: &'a Cgroup,
    /// The number of its front.
    pub number: String,
}

impl<'a> Run<'a> {
    /// The one in a cgroup and its tiers, once it can be asked.
    pub fn of(vswap: &'a Path, cgroup: &'a Cgroup) -> Option<(Self, Vec<Tier>)> {
        let runs = shown(vswap, &["tiers", "--json"])?;
        let members = cgroup.members();
        let ours = |run: &&Value| run["pid"].as_i64().is_some_and(|pid| members.contains(&(pid as i32)));
        let run = runs.as_array()?.iter().find(ours)?;
        Some((Self { vswap, cgroup, number: run["pid"].to_string() }, tiers(run)?))
    }

    /// Its tiers now; `None` if it has ended.
    pub fn tiers(&self) -> Option<Vec<Tier>> {
        tiers(shown(self.vswap, &["tiers", &self.number, "--json"])?.get(0)?)
    }

    /// The paths of its groups; none if it has ended.
    pub fn groups(&self) -> Vec<String> {
        let all = shown(self.vswap, &["groups", &self.number, "--json"]).unwrap_or_default();
        let groups = all[0]["groups"].as_array();
        groups.into_iter().flatten().filter_map(|group| Some(group["path"].as_str()?.to_owned())).collect()
    }

    /// Runs a command to its end; says whether it was done, or else refused.
    pub fn does(&self, words: &[&str]) -> Result<bool> {
        Ok(self.start(words)?.wait()?.success())
    }

    /// Starts a command.
    pub fn start(&self, words: &[&str]) -> Result<Child> {
        let mut command = Command::new(self.vswap);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().with_context(|| format!("cannot start vswap {}", words.join(" ")))
    }

    /// Does something to a tier; says whether it was done.
    pub fn on_tier(&self, act: &str, tier: &Tier) -> Result<bool> {
        self.does(&["tier", act, &tier.number.to_string(), "--run", &self.number])
    }

    /// Its processes that are vswap's, and its programs.
    pub fn processes(&self) -> (Vec<i32>, Vec<i32>) {
        let own = fs::canonicalize(self.vswap).unwrap_or_default();
        let is_own = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == own);
        self.cgroup.members().into_iter().partition(is_own)
    }
}

fn tiers(run: &Value) -> Option<Vec<Tier>> {
    run["tiers"].as_array()?.iter().map(Tier::from).collect()
}

fn shown(vswap: &Path, words: &[&str]) -> Option<Value> {
    let out = Command::new(vswap).args(words).stdin(Stdio::null()).output().ok()?;
    serde_json::from_slice(&out.stdout).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tier(size: u64, used: u64) -> Tier {
        let value = json!({
            "tier": 3, "path": null, "kind": "ghost", "size": size << 20, "used": used << 20, "live": 0, "priority": 0, "state": "open"
        });
        Tier::from(&value).expect("as it is shown")
    }

    #[test]
    fn a_tier_is_full_when_only_cleaning_could_have_what_is_left() {
        assert!(tier(32, 28).is_full() && !tier(32, 26).is_full());
        assert!(tier(8, 8).is_full() && !tier(8, 6).is_full());
        assert!(!tier(0, 0).is_full(), "memory has no room for it: it never had anything");
    }
}
