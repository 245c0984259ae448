//! The command line, as clap reads it. Texts only: what the commands do is in their own files.
//!
//! The long help of each command is written to be its manual page as well (`vswap man DIR`).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::size;
#[cfg(feature = "mount")]
pub use cache::MountArgs;
use cache::{CACHE_ABOUT, CACHE_MORE};
pub use cache::{CacheAction, CacheArgs, Key, ObjectArgs, ObjectColumn};
pub use control::{
    AskArgs, GroupAction, GroupsArgs, Kind, SetArgs, StatusArgs, TierAction, TierArgs, TiersArgs,
};
use control::{
    CONTROL_MORE, GROUPS_ABOUT, GROUPS_MORE, SET_ABOUT, SET_MORE, STATUS_ABOUT, TIER_ABOUT, TIER_MORE,
    TIERS_ABOUT, TIERS_EXAMPLES,
};
pub use table::{Column, GroupColumn, TableArgs, TierColumn};

mod cache;
mod control;
mod table;

/// The least `--memory`: below it the pager has no room to work in.
pub const LEAST_MEMORY: u64 = vswap_pager::LEAST_LIMIT.get();
/// The least `--disk`: one segment.
pub const LEAST_DISK: u64 = 2 << 20;
/// More than an x86-64 process can address (47 bits): a limit above it is a slip of the pen.
const MOST: u64 = 1 << 47;

/// A virtual swap space in user space.
#[derive(Debug, Parser)]
#[command(
    name = "vswap",
    version,
    about = "Run programs in less memory than they need: a virtual swap space in user space",
    long_about = LONG_ABOUT,
    after_long_help = SEE_ALSO,
    disable_help_subcommand = false,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const LONG_ABOUT: &str = "\
A virtual swap space in user space. `vswap run` runs an unmodified program, and everything that it forks and \
executes, within a limit of resident memory; what does not fit is kept compressed in memory and in a file. \
`vswap status`, `vswap tiers` and `vswap tier` look at running ones and change where their pages go; `vswap groups` and `vswap set` share out memory among their processes. \
`vswap cache` keeps named objects in a directory, and shows a slow directory through them. \
`vswap doctor` says whether this machine allows all that, and `vswap setup` makes the one change that needs root.";

const SEE_ALSO: &str = "\
Examples:
  vswap run --memory 512M -- python3 analyse.py
  vswap status
  vswap tier add /mnt/ssd --size 20G --priority 10
  vswap set python3 /batch memory.max=200M
  vswap doctor
  sudo vswap setup";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a program, and all that it starts, within a limit of memory
    #[command(long_about = RUN_ABOUT, after_long_help = RUN_MORE)]
    Run(RunArgs),
    /// Say what this machine allows, and the remedy for what it does not
    #[command(long_about = DOCTOR_ABOUT, after_long_help = DOCTOR_MORE)]
    Doctor(DoctorArgs),
    /// Give a group access to userfaultfd (once, as root), or take it back
    #[command(long_about = SETUP_ABOUT, after_long_help = SETUP_MORE)]
    Setup(SetupArgs),
    /// Show how a running vswap is: its limit, what it uses, where pages are
    #[command(long_about = STATUS_ABOUT, after_long_help = CONTROL_MORE)]
    Status(StatusArgs),
    /// Show where a running vswap keeps compressed pages
    #[command(long_about = TIERS_ABOUT, after_long_help = [CONTROL_MORE, TIERS_EXAMPLES].concat())]
    Tiers(TiersArgs),
    /// Add a place for compressed pages to a running vswap, or empty and remove one
    #[command(long_about = TIER_ABOUT, after_long_help = TIER_MORE)]
    Tier(TierArgs),
    /// Show the groups of a running vswap, add or remove one, or move a process to one
    #[command(long_about = GROUPS_ABOUT, after_long_help = GROUPS_MORE)]
    Groups(GroupsArgs),
    /// Set limits of a group of a running vswap, or the limit of all
    #[command(long_about = SET_ABOUT, after_long_help = SET_MORE)]
    Set(SetArgs),
    /// Make a store of named objects, list, put, get and end them, check them; show a slow directory through one
    #[command(long_about = CACHE_ABOUT, after_long_help = CACHE_MORE)]
    Cache(CacheArgs),
    /// Write the manual pages to a directory
    #[command(hide = true)]
    Man {
        /// Where to: vswap.1, vswap-run.1 and so on are written there.
        directory: PathBuf,
    },
}

const RUN_ABOUT: &str = "\
Runs PROGRAM within a limit of resident memory. PROGRAM and everything that it forks and executes are unmodified and \
unaware; together they stay within --memory, and the rest lives in vswap: as a fill pattern, compressed in memory, or \
compressed in an unlinked file. Output, exit code and signals are those of a plain run.

The limit counts the private and shared-memory pages of the whole tree, the compressed pages and vswap's own memory. \
Pages of files are the kernel's cache and are not counted.

Everything after `--`, or from the first word that is not an option, is the program and its arguments.";

const RUN_MORE: &str = "\
Sizes:
  512M, 1.5GiB, 100MB, or a plain number of bytes. K, M, G, T and KiB, MiB, .. are powers of
  1024; KB, MB, .. are powers of 1000.

Exit status:
  125    vswap itself failed: bad usage, no access to userfaultfd, no room for its file
  126    PROGRAM was found but could not be executed
  127    PROGRAM was not found
  else   the exit status of PROGRAM; where a signal ended it, vswap ends by the same signal

Environment:
  TMPDIR   where the file for evicted pages goes, unless --disk-path says otherwise
           (default /var/tmp; never on a tmpfs, which would be memory again)

Examples:
  A Python program that needs 2 GiB, in 512 MiB:
      vswap run --memory 512M -- python3 analyse.py

  A build, with nothing written to disk, and a table of what happened at the end:
      vswap run --memory 1.5GiB --disk none --stats -- make -j4

  Kill rather than grow when even the file is full:
      vswap run --memory 256M --disk 4G --full kill -- sort -S 2G big.txt";

/// `vswap run`.
#[derive(Debug, Args)]
#[command(override_usage = "vswap run --memory SIZE [OPTIONS] [--] PROGRAM [ARGUMENT]...")]
pub struct RunArgs {
    /// Limit of resident memory for the whole tree (at least 8M)
    #[arg(long, short = 'm', value_name = "SIZE", value_parser = memory_size, allow_hyphen_values = true)]
    pub memory: u64,

    /// Room on disk for compressed pages, or `none` [default: what the file system can spare]
    ///
    /// Evicted pages are first held compressed in memory; the coldest go on to an unlinked file. `none` keeps all of
    /// them in memory. Without this option the file may take what the file system can spare.
    #[arg(long, value_name = "SIZE|none", value_parser = disk_size, allow_hyphen_values = true)]
    pub disk: Option<Disk>,

    /// Directory for the file of compressed pages [default: $TMPDIR, else /var/tmp]
    ///
    /// The file is unlinked at once: nothing is left there, however the run ends. It must not be on a tmpfs. A regular file or a block device in place of
    /// a directory is used as it is, as by `vswap tier add`; of the directory of a store of objects that is mounted (`vswap cache mount`), or lent by a program that has it open, the store's room.
    #[arg(long, value_name = "PATH")]
    pub disk_path: Option<PathBuf>,

    /// Another place for compressed pages: PATH, or PATH,size=4G,priority=10 (may be repeated)
    ///
    /// PATH is a directory, a regular file, a block device or a store of objects that is mounted (`kind=ghost` in its place is memory); `,kind=` says which it is to be, and `,force` overwrites what is on a file or device: see
    /// `vswap tier add --help`. As with swap areas the highest priority (-1000 to 32767) that has room is written first, and equal ones take turns; the place of --disk has 0. From a tier that is nearly full the coldest pages sink to one of lower priority.
    /// Capacities add up. Without a size it is what the file system of a directory can spare, or all of a file or device. `vswap tier` adds and removes places while the program runs.
    #[arg(long = "tier", value_name = "PATH[,size=SIZE][,priority=N]", value_parser = tier_spec)]
    pub tiers: Vec<TierSpec>,

    /// Whether pages are encrypted before they are written to a file or device
    ///
    /// With a random key for each run, which is kept in locked memory and nowhere else: what is left on a disk can be read by nobody.
    #[arg(long, value_enum, default_value_t = Encrypt::On)]
    pub encrypt: Encrypt,

    /// How pages are compressed
    #[arg(long, value_enum, default_value_t = Codec::Auto)]
    pub codec: Codec,

    /// Whether huge pages are asked for in memory that is left to the kernel while there is room
    #[arg(long, value_enum, default_value_t = HugePages::Auto)]
    pub huge_pages: HugePages,

    /// What happens when nothing more can be evicted
    #[arg(long, value_enum, default_value_t = Full::Grow)]
    pub full: Full,

    /// Proactive reclaim: move out what is not used though there is room, as long as that costs no more than SHARE of the time
    ///
    /// `off`, or a percentage like 0.5%: as long as programs wait for pages that were moved out, or for room, for less than that (averaged over ten seconds), all memory is looked
    /// through again and again, and what came one to two turns ago is moved out, unless it has come back soon before; compressed pages that nobody asks for go on to a tier. The nearer the waits come to
    /// SHARE, the slower; at SHARE it stops. So a program that is idle, or that uses a small part of its memory, gives the rest back. `vswap set RUN / reclaim=1%` changes it meanwhile.
    #[arg(long, value_name = "off|SHARE", value_parser = share, default_value = "off", hide_default_value = false)]
    pub reclaim: u64,

    /// Seconds in which --reclaim looks at all memory once, if nobody waits [default: 60]
    ///
    /// Touches of what is in memory are not seen: what came one to two turns ago is taken, unless it is being spared. What is in use comes back, which counts as waiting, and is
    /// spared for one to several turns then. A shorter time gives memory back sooner and takes more pages by mistake.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub reclaim_turn: Option<u32>,

    /// Print a short table at the end, to standard error
    ///
    /// Peak resident memory, faults by kind with their median and 99th percentile, compression ratio, bytes written
    /// and read.
    #[arg(long)]
    pub stats: bool,

    /// Write the same figures to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub stats_json: Option<PathBuf>,

    /// Record in FILE what each fault was for: the space (a process until it executes something), the page, and why
    ///
    /// In the order in which they are answered, one to three bytes each: a first touch, a page from the swap space, one that was about to go there, the first write to one that
    /// was protected. To have them all nothing is left to the kernel or brought in ahead meanwhile, so the run is slower. The smaller the limit, the more of what
    /// the program touches is seen. Faults that come too fast to be recorded are counted, and said at the end. The form of the file is described in
    /// crates/core/src/recording.rs.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Wait for daemons that the program leaves behind
    ///
    /// Without it vswap returns when the program does, as a plain run would; what the program left running keeps its
    /// engine until the last has gone.
    #[arg(long)]
    pub wait_all: bool,

    /// The program and its arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, num_args = 1..)]
    pub program: Vec<OsString>,
}

/// `--huge-pages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HugePages {
    /// Where they pay: not in a virtual machine whose host takes free memory back
    Auto,
    /// Yes
    On,
    /// No
    Off,
}

/// `--encrypt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Encrypt {
    /// Yes: AES-256-GCM
    On,
    /// No: whoever can read the disk can read them
    Off,
}

/// `--codec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    /// Choose by the pages themselves
    Auto,
    /// Fastest
    Lz4,
    /// Smaller, slower
    Zstd,
}

/// `--full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Full {
    /// Go past the limit, and say so once
    Grow,
    /// Kill the tree, and show the figures
    Kill,
}

/// `--disk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// No file at all.
    None,
    /// At most this many bytes.
    Bytes(u64),
}

const DOCTOR_ABOUT: &str = "\
Tries everything that `vswap run` uses, on a scratch page or a scratch process, and prints what works, what does not, \
what that means, and the command that helps. It looks for features, not for version numbers. It needs no root; run it \
as the user who will use `vswap run`, in the same container and shell.";

const DOCTOR_MORE: &str = "\
Exit status:
  0    `vswap run` works here (warnings may be shown)
  1    it does not; each line marked FAIL names the remedy
  125  bad usage

Least kernel:
  Linux 6.9 on x86-64 (PIDFD_THREAD; UFFDIO_MOVE is of 6.8), unless the features were brought to an older one.";

/// `vswap doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,

    /// Directory to try for the file of compressed pages [default: $TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub disk_path: Option<PathBuf>,
}

const SETUP_ABOUT: &str = "\
Gives the members of a group access to /dev/userfaultfd, so that they can use `vswap run` without being root: makes \
the group if it is missing, writes a udev rule (and a tmpfiles.d line where systemd has that), and changes the device \
now. It shows what it will do and asks before it does anything. The earlier state is recorded, and --undo restores it.

Whoever may open /dev/userfaultfd can stop a system call of their own in the middle for as long as they like, which has \
made some kernel bugs easier to exploit; that is why the device is closed by default and why a group is \
better than everyone.";

const SETUP_MORE: &str = "\
Files:
  /etc/udev/rules.d/60-vswap-userfaultfd.rules   the rule
  /etc/tmpfiles.d/vswap-userfaultfd.conf         the same for systems without udev
  /var/lib/vswap/setup-state                     what --undo restores

Examples:
  sudo vswap setup                  the group vswap, and you in it
  sudo vswap setup --group users    a group that exists
  sudo vswap setup --undo";

/// `vswap setup`.
#[derive(Debug, Args)]
pub struct SetupArgs {
    /// The group that gets access; made if it does not exist
    #[arg(long, value_name = "NAME", default_value = "vswap")]
    pub group: String,

    /// A user to put into the group [default: the one who called sudo]
    #[arg(long, value_name = "NAME", conflicts_with = "undo")]
    pub user: Option<String>,

    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,

    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Restore the state before the first `vswap setup`
    #[arg(long, conflicts_with = "group")]
    pub undo: bool,

    /// Work on the system below DIR instead of /
    #[arg(long, value_name = "DIR", hide = true)]
    pub root: Option<PathBuf>,
}

/// `--tier`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierSpec {
    /// Where.
    pub path: PathBuf,
    /// What it is to be.
    pub kind: Option<Kind>,
    /// The most that it may take.
    pub size: Option<u64>,
    /// The highest is written first.
    pub priority: i16,
    /// Whatever is on it.
    pub force: bool,
}

fn tier_spec(text: &str) -> Result<TierSpec, String> {
    let mut parts = text.split(',');
    let missing = "a directory, file or device is missing; try --tier /mnt/ssd,size=20G";
    // A ghost is nowhere.
    let ghost = text.split(',').next() == Some("kind=ghost");
    let path = if ghost { "" } else { parts.next().filter(|path| !path.is_empty()).ok_or(missing)? };
    let mut spec = TierSpec { path: path.into(), kind: None, size: None, priority: 0, force: false };
    for part in parts {
        match part.split_once('=') {
            Some(("size", size)) => spec.size = Some(tier_size(size)?),
            Some(("priority" | "pri", number)) => spec.priority = priority(number)?,
            Some(("kind", "ghost")) if !ghost => {
                return Err("a ghost has no path; try --tier kind=ghost,size=1G".into());
            }
            Some(("kind", kind)) => spec.kind = Some(Kind::from_str(kind, false)?),
            None if part == "force" => spec.force = true,
            _ => return Err(format!("{part:?} is none of size=SIZE, priority=N, kind=KIND and force")),
        }
    }
    Ok(spec)
}

fn priority(text: &str) -> Result<i16, String> {
    let number = text.parse::<i16>().ok().filter(|number| *number >= -1000);
    number.ok_or_else(|| format!("{text:?} is no priority; choose between -1000 and 32767"))
}

fn tier_size(text: &str) -> Result<u64, String> {
    match disk_size(text)? {
        Disk::Bytes(bytes) => Ok(bytes),
        Disk::None => Err("a tier of no size is none; try 20G".into()),
    }
}

fn memory_size(text: &str) -> Result<u64, String> {
    let bytes = checked_size(text)?;
    if bytes < LEAST_MEMORY {
        return Err(format!(
            "{} is below the least limit, {} ({LEAST_MEMORY} bytes); try --memory 512M",
            size::show(bytes),
            size::show(LEAST_MEMORY),
        ));
    }
    Ok(bytes)
}

/// A share of time, in millionths; 0 for `off`.
fn share(text: &str) -> Result<u64, String> {
    if text == "off" {
        return Ok(0);
    }
    let number = text.strip_suffix('%').map(str::trim_end).and_then(|number| number.parse::<f64>().ok());
    // A hundredth of a percent is a millisecond in ten seconds: less cannot be told from chance.
    match number.filter(|percent| (0.01..=50.0).contains(percent)) {
        Some(percent) => Ok((percent * 1e4).round() as u64),
        None => Err(format!(
            "{text:?} is no share of time; write off, or a percentage between 0.01% and 50%, like 0.5%"
        )),
    }
}

fn disk_size(text: &str) -> Result<Disk, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Disk::None);
    }
    let bytes = checked_size(text).map_err(|error| format!("{error}, or none"))?;
    if bytes < LEAST_DISK {
        return Err(format!(
            "{} is below one segment, {}; try --disk 4G, or --disk none to write nothing",
            size::show(bytes),
            size::show(LEAST_DISK),
        ));
    }
    Ok(Disk::Bytes(bytes))
}

fn checked_size(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text).map_err(|error| error.to_string())?;
    if bytes > MOST {
        return Err(format!("{text:?} is more than a process can address ({}); try 512M", size::show(MOST)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn run_of(words: &[&str]) -> RunArgs {
        let words = ["vswap", "run", "--memory", "512M"].iter().chain(words);
        match Cli::try_parse_from(words).expect("good command line").command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_of_the_program_are_left_to_the_program() {
        assert_eq!(run_of(&["ls", "-l", "--stats", "--", "x"]).program, ["ls", "-l", "--stats", "--", "x"]);
        assert_eq!(run_of(&["--", "ls", "--memory", "1"]).program, ["ls", "--memory", "1"]);
        assert_eq!(run_of(&["--", "--odd-name"]).program, ["--odd-name"]);
        assert!(!run_of(&["ls", "--stats"]).stats);
        assert!(run_of(&["--stats", "ls"]).stats);
    }

    #[cfg(feature = "mount")]
    #[test]
    fn plain_copies_are_refused_where_files_can_be_written_to() {
        let mount = "vswap cache mount --source a --store b c --plain-copies 1M";
        let error = Cli::try_parse_from(mount.split(' ')).unwrap_err();
        assert!(error.to_string().contains("--read-only"), "{error}");
        assert!(Cli::try_parse_from(mount.split(' ').chain(["--read-only"])).is_ok());
    }

    #[test]
    fn an_unknown_option_is_not_taken_for_a_program() {
        assert!(Cli::try_parse_from(["vswap", "run", "--memory", "8M", "--bogus", "ls"]).is_err());
    }

    #[test]
    fn disk_takes_none_or_a_size() {
        assert_eq!(run_of(&["--disk", "none", "ls"]).disk, Some(Disk::None));
        assert_eq!(run_of(&["--disk", "4G", "ls"]).disk, Some(Disk::Bytes(4 << 30)));
        assert_eq!(run_of(&["ls"]).disk, None);
    }

    #[test]
    fn a_tier_is_a_place_with_or_without_more() {
        let tier =
            |size, priority| TierSpec { path: "/mnt/a b".into(), kind: None, size, priority, force: false };
        assert_eq!(tier_spec("/mnt/a b"), Ok(tier(None, 0)));
        assert_eq!(tier_spec("/mnt/a b,size=4G,priority=-2"), Ok(tier(Some(4 << 30), -2)));
        assert_eq!(tier_spec("/mnt/a b,pri=9"), Ok(tier(None, 9)));
        assert_eq!(
            tier_spec("/dev/x,kind=device,force"),
            Ok(TierSpec {
                path: "/dev/x".into(),
                kind: Some(Kind::Device),
                size: None,
                priority: 0,
                force: true
            })
        );
        let ghost = TierSpec { path: "".into(), kind: Some(Kind::Ghost), ..tier(Some(1 << 30), 0) };
        assert_eq!(tier_spec("kind=ghost,size=1G"), Ok(ghost));
        for (bad, says) in [
            ("/a,kind=tape", "tape"),
            ("/a,kind=ghost", "no path"),
            ("", "missing"),
            (",size=4G", "missing"),
            ("/a,size=none", "no size"),
            ("/a,size=4X", "4X"),
            ("/a,priority=40000", "32767"),
            ("/a,fast", "fast"),
        ] {
            let error = tier_spec(bad).expect_err(bad);
            assert!(error.contains(says), "{bad}: {error}");
        }
        let run = run_of(&["--tier", "/a", "--tier", "/b,size=2M", "ls"]);
        assert_eq!(
            run.tiers.iter().map(|tier| tier.path.as_path()).collect::<Vec<_>>(),
            ["/a", "/b"].map(std::path::Path::new)
        );
    }

    #[test]
    fn a_share_of_time_is_a_percentage_or_off() {
        assert_eq!(
            [share("off"), share("0.5%"), share("50 %"), share("0.01%")],
            [0, 5_000, 500_000, 100].map(Ok)
        );
        for bad in ["", "0.5", "0%", "0.001%", "51%", "-1%", "NaN%", "much%", "on"] {
            assert!(share(bad).is_err_and(|error| error.contains("0.5%")), "{bad}");
        }
        assert_eq!((run_of(&["ls"]).reclaim, run_of(&["--reclaim", "1%", "ls"]).reclaim), (0, 10_000));
    }

    #[test]
    fn a_limit_below_the_least_names_the_least() {
        assert_eq!(memory_size("8M"), Ok(8 << 20));
        let error = memory_size("8MB").expect_err("below");
        assert!(error.contains("8M (8388608 bytes)"), "{error}");
    }
}
