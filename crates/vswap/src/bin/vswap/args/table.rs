//! Arguments of what shows a table, with the names of swapon's and zramctl's; and the columns that there are.

use clap::{Args, ValueEnum};

/// A column of a table.
pub trait Column: ValueEnum + Copy + Send + Sync + 'static {
    /// Whether it is shown where none are named.
    fn is_usual(self) -> bool;

    /// Whether its cells are figures, which stand below one another at their right.
    fn is_figure(self) -> bool;

    /// Those that are shown where none are named.
    fn usual() -> Vec<Self> {
        Self::value_variants().iter().copied().filter(|column| column.is_usual()).collect()
    }

    /// Its name, which is its heading too.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// How a table is shown.
#[derive(Debug, Args)]
pub struct TableArgs<C: Column> {
    /// Print sizes in bytes, as plain numbers
    #[arg(long, short)]
    pub bytes: bool,

    /// Print no headings, nor whose table it is if there are several
    #[arg(long, short, conflicts_with = "json")]
    pub noheadings: bool,

    /// Print cells with one space between them, not below one another
    ///
    /// A blank, control character or backslash in a cell is written as \x and its number of two hexadecimal digits, as swapon --raw does: so each row has as many words as there are columns.
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,

    /// Print these columns, in this order
    #[arg(
        long,
        short,
        value_name = "COLUMN,...",
        value_enum,
        ignore_case = true,
        value_delimiter = ',',
        conflicts_with = "json"
    )]
    pub output: Vec<C>,

    /// Print all columns
    #[arg(long, conflicts_with_all = ["json", "output"])]
    pub output_all: bool,
}

impl<C: Column> TableArgs<C> {
    /// What is to be shown.
    pub fn columns(&self) -> Vec<C> {
        match &self.output[..] {
            [] if self.output_all => C::value_variants().to_vec(),
            [] => C::usual(),
            named => named.to_vec(),
        }
    }
}

/// Columns of `vswap tiers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum TierColumn {
    /// The number of the run (not shown unless asked for)
    Run,
    /// Its program (not shown unless asked for)
    Program,
    /// The tier's number; - for the pool
    Tier,
    /// Where it is: its directory, file or device
    Name,
    /// pool, directory, file, device or ghost
    Type,
    /// What it may hold
    Size,
    /// What it takes: on a tier, whole segments of 2 MiB
    Used,
    /// What of that is still wanted
    Live,
    /// Its priority; `first` for the pool
    Prio,
    /// open, draining or failing
    State,
}

impl Column for TierColumn {
    fn is_usual(self) -> bool {
        !matches!(self, Self::Run | Self::Program)
    }

    fn is_figure(self) -> bool {
        matches!(self, Self::Size | Self::Used | Self::Live | Self::Prio)
    }
}

/// Columns of `vswap groups`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum GroupColumn {
    /// The number of the run (not shown unless asked for)
    Run,
    /// Its program (not shown unless asked for)
    Program,
    /// The group's name
    Group,
    /// How many processes it has, those of groups below it left out
    Procs,
    /// Pages in memory
    Memory,
    /// What it may have of these
    #[value(name = "MEMORY-MAX")]
    MemoryMax,
    /// The most that it had of these at any time (not shown unless asked for)
    #[value(name = "MEMORY-PEAK")]
    MemoryPeak,
    /// Compressed pages in memory
    Zswap,
    /// What it may have of these
    #[value(name = "ZSWAP-MAX")]
    ZswapMax,
    /// Pages in the swap space, as long as they are in memory
    Swap,
    /// What it may have of these
    #[value(name = "SWAP-MAX")]
    SwapMax,
    /// Two columns for each tier of which some group has a limit: TIER-N, what it has there, and TIER-N-MAX
    Tiers,
}

impl Column for GroupColumn {
    fn is_usual(self) -> bool {
        !matches!(self, Self::Run | Self::Program | Self::MemoryPeak)
    }

    fn is_figure(self) -> bool {
        !matches!(self, Self::Run | Self::Program | Self::Group)
    }
}
