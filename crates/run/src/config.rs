//! What `vswap run` is asked to do, and how it ended. The command line makes a [`RunConfig`]; nothing here reads it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use vswap_core::ByteCount;
use vswap_engine::TierKind;

/// One `vswap run`.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Limit of resident memory for the whole tree; at least 8 MiB.
    pub memory: ByteCount,
    /// Room on disk.
    pub disk: DiskRoom,
    /// Directory of the segment file, or a file or block device in its place; `None` for `$TMPDIR`, else `/var/tmp`.
    pub disk_path: Option<PathBuf>,
    /// More places for compressed pages.
    pub tiers: Vec<TierPlace>,
    /// Whether pages are encrypted before they are written to any of these places.
    pub encrypt: bool,
    /// How pages are compressed.
    pub codec: Codec,
    /// Whether huge pages are asked for in what is left to the kernel.
    pub huge_pages: HugePages,
    /// What happens when nothing more can be evicted.
    pub full: Full,
    /// Print a table at the end.
    pub stats: bool,
    /// Write the figures to this file.
    pub stats_json: Option<PathBuf>,
    /// Proactive reclaim: the share of time that it may cost, millionths; 0 for none.
    pub reclaim: u64,
    /// In this time it looks at all memory once; the usual if nothing is said.
    pub reclaim_turn: Option<Duration>,
    /// Record the faults in this file.
    pub record: Option<PathBuf>,
    /// Wait for what the program leaves running.
    pub wait_all: bool,
    /// Have a process between engine and program even where tracing is not restricted to ancestors.
    pub keeper: bool,
    /// The program and its arguments; the first is searched in `PATH`.
    pub program: Vec<OsString>,
}

impl RunConfig {
    /// Whether the front is to wait for what the engine has to say at the end.
    pub(crate) fn wants_report(&self) -> bool {
        self.stats || self.stats_json.is_some() || self.record.is_some()
    }
}

/// Room for compressed pages on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DiskRoom {
    /// What the file system can spare.
    #[default]
    Spare,
    /// At most so much.
    AtMost(ByteCount),
    /// Nothing is written to disk.
    Nothing,
}

/// A place for compressed pages beside the usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierPlace {
    /// The directory in which its unlinked file is made, or the file or device; of no use for a ghost.
    pub path: PathBuf,
    /// What it is; what the path stands for if nothing is said.
    pub kind: Option<TierKind>,
    /// The most that it may take; if nothing is said, what the file system can spare, or all of a file or device.
    pub size: Option<ByteCount>,
    /// The highest that has room is written first; the usual place has 0.
    pub priority: i16,
    /// What is on a file or device is overwritten.
    pub force: bool,
}

/// How pages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Codec {
    /// The engine chooses.
    #[default]
    Auto,
    /// lz4.
    Lz4,
    /// zstd.
    Zstd,
}

/// Whether huge pages are asked for while there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HugePages {
    /// Where they pay: not in a virtual machine whose host takes free memory back.
    #[default]
    Auto,
    /// Yes.
    On,
    /// No.
    Off,
}

/// What happens when nothing more can be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Full {
    /// Grow past the limit and say so once.
    #[default]
    Grow,
    /// Kill the tree, with the figures.
    Kill,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitOutcome {
    /// End with this status: the program's own, or 125, 126, 127 (a message has been printed).
    Code(u8),
    /// The program was ended by this signal: end by it as well.
    Signal(i32),
}

/// vswap itself failed.
pub const EXIT_VSWAP: u8 = 125;
/// The program was found but could not be executed.
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
/// The program was not found.
pub const EXIT_NOT_FOUND: u8 = 127;
