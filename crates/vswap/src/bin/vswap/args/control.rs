//! Arguments of what looks at running ones and changes them: status, tiers, tier, groups, set.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Subcommand, ValueEnum};
use vswap_control::protocol::RECLAIM;
use vswap_engine::TierKind;

use super::table::{GroupColumn, TableArgs, TierColumn};
use super::{Cli, priority, share, tier_size};
use crate::size;

pub(super) const STATUS_ABOUT: &str = "\
Shows a running `vswap run`: the limit and what counts against it, what is compressed in memory, what was written and read, and its tiers. If pages were lost, it shows the last 16 that somebody wanted: when, whose, at which address, where they were, and why. \
Without RUN all of yours are shown (for root, everybody's).";

pub(super) const TIERS_ABOUT: &str = "\
Shows the tiers of a running `vswap run`, much as `swapon --show` shows swap areas: each has a place, a size, and a priority; the highest priority that \
has room is written first, and equal ones take turns. TYPE is directory, file, device or ghost (memory); the row without a number is the pool, to which every page comes first: its size follows what the programs do, and `vswap set RUN / memory.zswap.max=SIZE` limits it. USED counts whole segments of 2 MiB, LIVE the compressed pages in them that \
are still wanted.

A tier is `open`; `draining` while it is emptied; or `failing` after a write to it failed: then it is only read, until \
`vswap tier reopen`.";

pub(super) const CONTROL_MORE: &str = "\
Exit status:
  0    it was shown
  1    nothing of yours runs, or not what was asked for
  125  bad usage

Files:
  $XDG_RUNTIME_DIR/vswap/PID.sock   the socket of a run (else /run/user/UID/vswap, root's /run/vswap, or
                                    /tmp/vswap-UID); it is there from a fifth of a second after the start";

/// After [`CONTROL_MORE`].
pub(super) const TIERS_EXAMPLES: &str = "

Examples:
  vswap tiers 4711
  vswap tiers --output RUN,PROGRAM,NAME,USED,SIZE
  vswap tiers 4711 --bytes --noheadings --raw --output TIER,USED";

pub(super) const TIER_ABOUT: &str = "\
Changes where a running `vswap run` keeps compressed pages. Its programs run on and do not notice.

`remove` is what swapoff is for swap areas: what is on the tier moves to the others, segment by segment, so it takes as long as that many bytes take, however \
many pages and processes they belong to. What the others have no room for comes back to memory, compressed, if the limit has room for it; if not, the removal is refused at once. Ctrl-C, or the death of this command, ends it at any moment and leaves \
everything right: what has moved stays moved, and the tier is used as before.";

const ADD_ABOUT: &str = "\
Adds a tier to a running `vswap run`. PATH may be

a directory: an unlinked file is made there, which takes room only for what is on it and gives it back. Without --size it may take what the file system can spare at any moment \
(a fifth of what is free now is left to others). It must not be on a tmpfs.

a regular file: it is used as a swap file is, and stays when the tier goes. It is locked, so that it has one user. With --kind file and --size one that is not there, or empty, is \
made. A file that has all its room keeps it; a sparse one gives room back.

a block device: a partition, disk or volume that is not mounted and that nobody else has; freed segments are discarded where the device can.

nothing, with --kind ghost: what is on it stays in memory, compressed, and counts against the limit. Of any size; it is full when memory is. It holds pages more densely than the pool does, and \
takes what is on a disk that has to go.

A file or device that holds a file system, a partition table, a swap area, a LUKS, LVM or RAID member, or anything else that is not an area of a former run, is refused and left as it is, unless \
--force is given.";

const ADD_MORE: &str = "\
Examples:
  vswap tier add /mnt/ssd --size 20G --priority 10
  vswap tier add /dev/nvme0n1p3 --priority 20
  vswap tier add /srv/vswap.area --kind file --size 8G
  vswap tier add --kind ghost --size 1G";

pub(super) const TIER_MORE: &str = "\
Exit status:
  0    done
  1    refused, and why
  125  bad usage

With --json each prints one object: pid and program of the run, and tier, the number; remove also segments and bytes (those that went as they are), \
lost (pages that went with the tier) and seconds.

Examples:
  vswap tier add /mnt/ssd --size 20G --priority 10
  vswap tier add /dev/nvme0n1p3 --priority 20
  vswap tier remove /var/tmp
  vswap tier remove 0 --run 4711";

/// Which run is asked, and whether a program reads the answer.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Which: the number of a `vswap run`, or the name of its program
    #[arg(value_name = "RUN")]
    pub run: Option<String>,

    /// Print JSON instead of a table; sizes are bytes
    #[arg(long)]
    pub json: bool,
}

/// `vswap status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which, and how
    #[command(flatten)]
    pub ask: AskArgs,

    /// Print sizes in bytes, as plain numbers
    #[arg(long, short)]
    pub bytes: bool,
}

/// `vswap tiers`.
#[derive(Debug, Args)]
pub struct TiersArgs {
    /// Which, and how
    #[command(flatten)]
    pub ask: AskArgs,

    /// The table
    #[command(flatten)]
    pub table: TableArgs<TierColumn>,
}

/// `vswap tier`.
#[derive(Debug, Args)]
pub struct TierArgs {
    /// What to do
    #[command(subcommand)]
    pub action: TierAction,
}

impl TierArgs {
    /// What clap cannot say: only a ghost has no path, and it has none.
    pub fn check(&self) -> Result<(), clap::Error> {
        let TierAction::Add { path, kind, .. } = &self.action else { return Ok(()) };
        match (path, *kind == Some(Kind::Ghost)) {
            (Some(_), false) | (None, true) => Ok(()),
            (None, false) => {
                Err(wrong("a PATH is missing: a directory, a file or a device (or --kind ghost)"))
            }
            (Some(_), true) => Err(wrong("a ghost has no PATH: nothing is behind it")),
        }
    }
}

fn wrong(why: &str) -> clap::Error {
    Cli::command().error(clap::error::ErrorKind::ValueValidation, why)
}

/// What is done to a tier.
#[derive(Debug, Subcommand)]
pub enum TierAction {
    /// Add a tier: in a directory, a file, a block device, or memory
    #[command(long_about = ADD_ABOUT, after_long_help = ADD_MORE)]
    Add {
        /// Where: a directory, a regular file or a block device; nothing for a ghost
        path: Option<PathBuf>,

        /// What PATH is to be [default: what it is]
        #[arg(long, value_enum)]
        kind: Option<Kind>,

        /// The most that it may take [default: all that can be had]
        #[arg(long, value_name = "SIZE", value_parser = tier_size)]
        size: Option<u64>,

        /// Overwrite what is on a file or device, whoever's it is
        #[arg(long)]
        force: bool,

        /// The highest that has room is written first; equal ones take turns
        #[arg(long, short, value_name = "N", default_value_t = 0, value_parser = priority, allow_hyphen_values = true)]
        priority: i16,

        /// Which run, by number or program, if there are several
        #[arg(long)]
        run: Option<String>,

        /// Print JSON instead of a line
        #[arg(long)]
        json: bool,
    },
    /// Empty a tier and remove it (swapoff)
    Remove {
        /// Its number, or where it is
        tier: String,

        /// Which run, by number or program, if there are several
        #[arg(long)]
        run: Option<String>,

        /// Print JSON instead of a line
        #[arg(long)]
        json: bool,

        /// Remove it even if some of its pages cannot be read: those are lost, and whoever touches one gets SIGBUS
        #[arg(long)]
        lose_unreadable: bool,
    },
    /// Let a failing tier take pages again
    Reopen {
        /// Its number, or where it is
        tier: String,

        /// Which run, by number or program, if there are several
        #[arg(long)]
        run: Option<String>,

        /// Print, as JSON, which tier of which run it was
        #[arg(long)]
        json: bool,
    },
}

/// `--kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// An unlinked file in a directory, which grows and shrinks
    Directory,
    /// A regular file, which stays; with --size it is made if it is not there
    File,
    /// A block device
    #[value(alias = "partition")]
    Device,
    /// Nothing: what is on it is in memory, and counts there
    Ghost,
    /// Room of a store of objects, which `vswap cache mount` or another program has open
    Store,
}

impl Kind {
    /// What it is to an engine.
    pub const fn tier(self) -> TierKind {
        match self {
            Self::Directory => TierKind::Directory,
            Self::File => TierKind::File,
            Self::Device => TierKind::Device,
            Self::Ghost => TierKind::Ghost,
            Self::Store => TierKind::Store,
        }
    }
}

pub(super) const GROUPS_ABOUT: &str = "\
Shows the groups of a running `vswap run`, and what each has: pages in memory, compressed pages in memory, pages in the swap space, each with its limit \
(`max` for none; of a limit above that is less, the least counts). What a group has counts for those above it, too. Where a group has a limit of tier N, a column TIER-N shows \
what each such group has there, in whole segments of 2 MiB.

Groups are what memory cgroups are to the kernel, within one run: a tree of names like /web/worker. Each process is of one, from its parent's on, \
until it is moved. --json shows all figures, under the names of the kernel's files.";

pub(super) const GROUPS_MORE: &str = "\
Exit status:
  0    done
  1    refused, and why; or nothing of yours runs, or not what was asked for
  125  bad usage

Examples:
  vswap groups add 4711 /web
  vswap groups move 4711 4720 /web
  vswap set 4711 /web memory.max=200M
  vswap groups 4711
  vswap groups 4711 --bytes --raw --output GROUP,MEMORY,MEMORY-MAX";

pub(super) const SET_ABOUT: &str = "\
Sets limits of a group. Programs run on; a limit may be below what the group has:

  memory.max        pages in memory. What is above it is moved out, from this group's own pages; a program at the limit waits for that.
  memory.zswap.max  bytes of compressed pages in memory. What is above it is written to a tier. Below 2 MiB (0, say) pages only pass through \
on their way there.
  memory.swap.max   pages in the swap space, wherever they are. A group at this limit has nothing more moved out, so it may pass memory.max: \
see `vswap run --full`.
  memory.swap.tier.N.max
                    room on tier N, the number that `vswap tiers` shows: whole segments of 2 MiB, what is beyond the last of these counts for nothing; 0 keeps \
the group off the tier. What has no room on any tier stays compressed in memory. What the group has there when its first such limit is set, or when a process \
is moved, is not counted, and goes where it might before until it is stored anew. A limit goes with its tier.

Those of / hold for all; its memory.max is --memory. For / alone there is, besides,

  reclaim           proactive reclaim, as `vswap run --reclaim` has it: reclaim=0.5%, reclaim=off";

pub(super) const SET_MORE: &str = "\
Sizes are those of `vswap run`; `max` is no limit.

Exit status:
  0    done
  1    refused, and why; then none of them was set
  125  bad usage

Examples:
  vswap set 4711 /web memory.max=200M memory.zswap.max=50M
  vswap set 4711 /web memory.max=max
  vswap set 4711 /web memory.swap.tier.0.max=0 memory.swap.tier.1.max=2G
  vswap set 4711 / memory.max=1G
  vswap set 4711 / reclaim=0.5%";

/// `vswap groups`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct GroupsArgs {
    /// What to do, if not show them
    #[command(subcommand)]
    pub action: Option<GroupAction>,

    /// Which, and how
    #[command(flatten)]
    pub ask: AskArgs,

    /// The table
    #[command(flatten)]
    pub table: TableArgs<GroupColumn>,
}

/// What is done to groups.
#[derive(Debug, Subcommand)]
pub enum GroupAction {
    /// Add a group, without limits
    Add {
        /// Which run, by number or program
        run: String,

        /// Its name: /web, or /web/worker below that
        path: String,
    },
    /// Remove a group: its processes, the groups below it and all that it has are those of the group above
    Remove {
        /// Which run, by number or program
        run: String,

        /// Its name
        path: String,
    },
    /// Move a process, with the memory that it has, to a group
    Move {
        /// Which run, by number or program
        run: String,

        /// The process
        #[arg(value_parser = clap::value_parser!(i32).range(1..))]
        pid: i32,

        /// The group's name
        path: String,
    },
}

/// `vswap set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Which run, by number or program
    pub run: String,

    /// The group's name; / for all
    pub path: String,

    /// What it may have: memory.max=200M, memory.zswap.max=50M, memory.swap.max=1G, memory.swap.tier.0.max=4G, or `max`; for / also reclaim=0.5% or reclaim=off
    #[arg(value_name = "LIMIT=SIZE", required = true, value_parser = group_limit)]
    pub limits: Vec<(String, Option<u64>)>,
}

fn group_limit(text: &str) -> Result<(String, Option<u64>), String> {
    use vswap_control::protocol::{LIMITS, TIER_LIMIT, tier_of_limit};
    let known = LIMITS.join(", ");
    let right = || {
        format!(
            "write it like memory.max=200M, memory.max=max or {RECLAIM}=0.5%; limits are {known}, {TIER_LIMIT}, and {RECLAIM} for /"
        )
    };
    let (name, value) = text.split_once('=').ok_or_else(right)?;
    if name == RECLAIM {
        return Ok((name.to_owned(), Some(share(value)?).filter(|share| *share > 0)));
    }
    if !LIMITS.contains(&name) && tier_of_limit(name).is_none() {
        return Err(right());
    }
    let limit = match value {
        "max" => None,
        size => Some(size::parse(size).map_err(|error| error.to_string())?),
    };
    Ok((name.to_owned(), limit))
}
