//! What is asked and answered: one line of JSON each. A removal is answered by any number of [`Answer::Emptying`] before its end.
//!
//! Fields are only ever added, with a default, so that a command talks to runs of another version.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The longest line that is asked, in bytes: more is not understood.
pub const LONGEST: usize = 1 << 20;

/// The longest answer: as many groups as there can be, under the longest names.
pub const LONGEST_ANSWER: usize = 1 << 30;

/// What is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Request {
    /// [`Answer::Status`].
    Status,
    /// Another tier: [`Answer::Added`].
    AddTier(NewTier),
    /// A tier is emptied and removed: [`Answer::Removed`] in the end. Whoever hangs up cancels it.
    RemoveTier {
        /// Its number.
        tier: u8,
        /// Pages on it that cannot be read are lost, each for its readers, instead of keeping the tier.
        #[serde(default)]
        lose: bool,
    },
    /// A tier that failed takes pages again: [`Answer::Done`].
    ReopenTier {
        /// Its number.
        tier: u8,
    },
    /// [`Answer::Groups`].
    Groups,
    /// Another group: [`Answer::Done`].
    AddGroup {
        /// Its path.
        path: String,
    },
    /// A group goes, and leaves all to the one above it: [`Answer::Done`].
    RemoveGroup {
        /// Its path.
        path: String,
    },
    /// A process goes to another group with its memory: [`Answer::Done`].
    MoveProcess {
        /// Its number.
        pid: i32,
        /// The group's path.
        path: String,
    },
    /// A group gets other limits: [`Answer::Done`].
    SetGroup {
        /// Its path.
        path: String,
        /// In bytes, by name: [`LIMITS`], [`TIER_LIMIT`], [`RECLAIM`]; null is no limit. What is not named stays as it is.
        limits: BTreeMap<String, Option<u64>>,
    },
}

/// Names of a group's limits, as the kernel's memory cgroups have them.
pub const LIMITS: [&str; 3] = ["memory.max", "memory.zswap.max", "memory.swap.max"];

/// The name of what a group may have of tier N.
pub const TIER_LIMIT: &str = "memory.swap.tier.N.max";

/// The tier of a limit that is called as [`TIER_LIMIT`] says.
#[must_use]
pub fn tier_of_limit(name: &str) -> Option<u8> {
    let number = name.strip_prefix("memory.swap.tier.")?.strip_suffix(".max")?;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (number == "0" || !number.starts_with('0'));
    plain.then(|| number.parse().ok())?
}

/// Name of what is set with the limits of `/` and is none: proactive reclaim, as a share of time in millionths; null is off.
pub const RECLAIM: &str = "reclaim";

/// A tier that is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NewTier {
    /// The directory in which its unlinked file is made, or a file or device; nothing for a ghost.
    pub path: PathBuf,
    /// `directory`, `file`, `device` or `ghost`; what the path stands for if nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The most bytes that it may hold; if nothing is said, what the file system can spare, all of a file or device, or what memory there is.
    pub size: Option<u64>,
    /// The highest that has room is written first.
    pub priority: i16,
    /// What is on a file or device is overwritten.
    pub force: bool,
}

/// What the removal of a tier has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Removed {
    /// Segments that went as they are.
    pub segments: u64,
    /// Bytes copied, those of pages that came back to the pool among them.
    pub bytes: u64,
    /// Pages that came back to the pool.
    #[serde(default)]
    pub pooled: u64,
    /// Pages that went with it.
    pub lost: u64,
}

/// What comes of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Answer {
    /// How it is.
    Status(Box<Status>),
    /// The tier's number.
    Added {
        /// The number.
        tier: u8,
    },
    /// How far a removal is.
    Emptying {
        /// Bytes that have left.
        moved: u64,
        /// Bytes that are still there.
        left: u64,
    },
    /// A tier has been removed.
    Removed(Removed),
    /// The groups, each after the one above it.
    Groups {
        /// These.
        groups: Vec<Group>,
    },
    /// That is all.
    Done,
    /// It was not done.
    Refused {
        /// Why, and what to do.
        why: String,
    },
}

/// A running vswap at one moment. Sizes are bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The number of the process that the user started.
    pub pid: i32,
    /// The program.
    pub program: String,
    /// Of vswap.
    pub version: String,
    /// Milliseconds since it was started.
    pub elapsed_ms: u64,
    /// Limit of memory.
    pub limit: u64,
    /// What counts against it now.
    pub used: u64,
    /// The most that it was.
    pub peak: u64,
    /// Memory of the programs that is managed and resident.
    pub resident: u64,
    /// Memory of the compressed pages.
    pub pool: u64,
    /// Memory that these may have as things stand.
    pub pool_size: u64,
    /// Bytes of them that somebody still wants.
    pub pool_live: u64,
    /// Memory of tiers with nothing behind them.
    pub ghosts: u64,
    /// Bytes of the pages that are compressed in memory, uncompressed.
    pub pooled: u64,
    /// Bytes of the pages that are on tiers, uncompressed.
    pub swapped: u64,
    /// Pages written to tiers.
    pub swapped_out: u64,
    /// Pages read back from tiers.
    pub swapped_in: u64,
    /// Bytes written to tiers.
    pub written: u64,
    /// Bytes read from them.
    pub read: u64,
    /// Pages that were lost.
    pub lost: u64,
    /// The last of them that somebody wanted, the newest first: 16 at most.
    pub lost_pages: Vec<LostPage>,
    /// Proactive reclaim: the share of time that it may cost, millionths; 0 if it is off.
    pub reclaim_target: u64,
    /// The share of the last ten seconds in which programs waited for pages that had been moved out, or for room, millionths.
    pub reclaim_pressure: u64,
    /// Pages that it moved out.
    pub reclaimed: u64,
    /// Pages that it had written to tiers.
    pub reclaim_written: u64,
    /// Where compressed pages go.
    pub tiers: Vec<Tier>,
}

/// A page that could not be had: its reader got SIGBUS, or will.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LostPage {
    /// The process whose it is.
    pub pid: i32,
    /// Its address there.
    pub address: u64,
    /// The number of the tier that it was on; null if on none.
    pub tier: Option<u8>,
    /// Where that is, or was: null for what has no name.
    pub path: Option<PathBuf>,
    /// Where its bytes begin there; null if on none.
    pub offset: Option<u64>,
    /// Why they cannot be had, in words.
    pub reason: String,
    /// When that was found: milliseconds since the run was started, as [`Status::elapsed_ms`].
    pub elapsed_ms: u64,
}

/// A group. Names and meanings are those of the kernel's memory cgroups (version 2), sizes are bytes, and what counts for a group counts for those
/// above it. Limits that are null are none; the effective one is the least of a group's and those above.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Group {
    /// From `/`.
    pub path: String,
    /// Pages in memory, those compressed left out.
    #[serde(rename = "memory.current")]
    pub memory: u64,
    /// The most of these at any time.
    #[serde(rename = "memory.peak")]
    pub memory_peak: u64,
    /// What it may have of these.
    #[serde(rename = "memory.max")]
    pub memory_max: Option<u64>,
    /// As things stand.
    #[serde(rename = "memory.max.effective")]
    pub memory_effective: Option<u64>,
    /// Compressed pages in memory, as long as they are there.
    #[serde(rename = "memory.zswap.current")]
    pub zswap: u64,
    /// What it may have of these.
    #[serde(rename = "memory.zswap.max")]
    pub zswap_max: Option<u64>,
    /// As things stand.
    #[serde(rename = "memory.zswap.max.effective")]
    pub zswap_effective: Option<u64>,
    /// Pages in the swap space, compressed in memory or on a tier: as long as they are when in memory.
    #[serde(rename = "memory.swap.current")]
    pub swap: u64,
    /// What it may have of these.
    #[serde(rename = "memory.swap.max")]
    pub swap_max: Option<u64>,
    /// As things stand.
    #[serde(rename = "memory.swap.max.effective")]
    pub swap_effective: Option<u64>,
    /// What it has and may have of each tier, if it is `/` or has such a limit: nothing is counted else.
    #[serde(rename = "memory.swap.tiers")]
    pub tiers: Vec<Share>,
    /// `memory.stat`: pages, since the beginning; `anon` and `zswap` are bytes now.
    #[serde(rename = "memory.stat")]
    pub stat: BTreeMap<String, u64>,
    /// `memory.events`.
    #[serde(rename = "memory.events")]
    pub events: BTreeMap<String, u64>,
    /// `memory.swap.events`.
    #[serde(rename = "memory.swap.events")]
    pub swap_events: BTreeMap<String, u64>,
    /// Its processes, those of groups below it left out.
    #[serde(rename = "cgroup.procs")]
    pub processes: Vec<i32>,
}

/// What a group and those below it have of a tier: whole segments of 2 MiB.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Its number.
    pub tier: u8,
    /// Bytes of their segments there.
    pub current: u64,
    /// What it may have of these.
    pub max: Option<u64>,
    /// As things stand.
    #[serde(rename = "max.effective")]
    pub effective: Option<u64>,
}

/// A tier.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tier {
    /// Its number.
    pub tier: u8,
    /// Where it is.
    pub path: Option<PathBuf>,
    /// What kind it is: `directory`, `file`, `device` or `ghost`.
    pub kind: String,
    /// Bytes that it may hold.
    pub size: u64,
    /// Bytes of the segments on it.
    pub used: u64,
    /// Bytes in them that somebody still wants.
    pub live: u64,
    /// The highest that has room is written first.
    pub priority: i16,
    /// `open`, `draining` or `failing`.
    pub state: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_a_tier_is_called_by_its_number() {
        let named = |number: &str| tier_of_limit(&format!("memory.swap.tier.{number}.max"));
        assert_eq!(["0", "7", "31", "255"].map(named), [Some(0), Some(7), Some(31), Some(255)]);
        assert_eq!(["", "N", "256", "-1", "+1", "07", " 1", "1.max"].map(named), [None; 8]);
        assert_eq!(tier_of_limit("memory.swap.max"), None);
    }

    #[test]
    fn lines_are_those_that_are_documented() {
        let remove = Request::RemoveTier { tier: 3, lose: false };
        assert_eq!(serde_json::to_string(&remove).unwrap(), r#"{"do":"remove-tier","tier":3,"lose":false}"#);
        let add: Request = serde_json::from_str(r#"{"do":"add-tier","path":"/mnt"}"#).unwrap();
        assert_eq!(add, Request::AddTier(NewTier { path: "/mnt".into(), ..NewTier::default() }));
        let all = r#"{"do":"add-tier","path":"/dev/x","kind":"device","size":9,"priority":-1,"force":true}"#;
        let Ok(Request::AddTier(new)) = serde_json::from_str(all) else { panic!("{all}") };
        assert_eq!((new.kind.as_deref(), new.size, new.force), (Some("device"), Some(9), true));
        let later = r#"{"answer":"status","pid":7,"something_new":[1],"tiers":[{"tier":1,"x":2}]}"#;
        let Ok(Answer::Status(status)) = serde_json::from_str(later) else { panic!("{later}") };
        assert_eq!((status.pid, status.tiers[0].tier, status.lost_pages.len()), (7, 1, 0));
        let lost = LostPage { pid: 7, address: 4096, tier: Some(0), ..LostPage::default() };
        assert_eq!(
            serde_json::to_string(&lost).unwrap(),
            r#"{"pid":7,"address":4096,"tier":0,"path":null,"offset":null,"reason":"","elapsed_ms":0}"#
        );
    }
}
