//! `cargo xtask test`: everything that must pass, bounded; and `cargo xtask checker`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::churn::{Changes, Churn};
use crate::host::cgroup::Cgroup;
use crate::host::job::Job;
use crate::host::scratch::Scratch;
use crate::host::{mib, programs, root};
use crate::{deaths, dist, setup, suite};

/// What `cargo xtask test` takes.
#[derive(Args)]
pub struct Options {
    /// Only what needs no root and no extra programs: unit, integration and documentation tests.
    #[arg(long)]
    units: bool,
    /// Also every program of the suite at a quarter of what it needs (`cargo xtask suite --quick`) and sudden deaths (`cargo xtask
    /// deaths`), half an hour together; without it, some programs.
    #[arg(long)]
    suite: bool,
}

/// What `cargo xtask checker` takes.
#[derive(Args, Clone)]
pub struct CheckerOptions {
    /// How long each mode runs; ten minutes is the full proof.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// The limit, in MiB.
    #[arg(long, default_value_t = 24)]
    memory: u64,
    /// What the checker fills, in MiB.
    #[arg(long, default_value_t = 160)]
    size: u64,
    /// Threads.
    #[arg(long, default_value_t = 3)]
    threads: u32,
    /// What the random choices come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Modes, separated by commas.
    #[arg(long, default_value = "plain,fork,mixed")]
    modes: String,
    /// The `vswap` to test; `none` runs without it.
    #[arg(long)]
    vswap: Option<PathBuf>,
    /// All the time add tiers of every kind, fill them, break them, remove them or end that in the middle, and make, limit and remove groups
    /// and move processes between them. Each of these must have happened at least once in each mode that had time for two
    /// rounds of them.
    #[arg(long)]
    tiers: bool,
    /// More options for `vswap run`, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    options: String,
}

fn cargo(args: &[&str]) -> Result<()> {
    eprintln!("xtask: cargo {}", args.join(" "));
    let done = Command::new("cargo").current_dir(root()).args(args).status()?;
    ensure!(done.success(), "cargo {} failed with {done}", args.join(" "));
    Ok(())
}

/// Runs it all, the quickest first.
pub fn run(options: &Options) -> Result<()> {
    setup::run(&setup::Options::default())?;
    // What is off by default is tested too.
    let features = ["--workspace", "--features", "vswap/async"];
    cargo(&[&["nextest", "run", "--no-fail-fast"], &features[..]].concat())?;
    cargo(&[&["test", "--doc", "--quiet"], &features[..]].concat())?;
    examples()?;
    if options.units {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        println!(
            "not root, so no memory cgroups: the program suite, the page checker and the deaths are left out"
        );
        return Ok(());
    }
    checker(&CheckerOptions::bounded())?;
    checker(&CheckerOptions::bounded_roomy())?;
    checker(&CheckerOptions::bounded_ahead())?;
    checker(&CheckerOptions::bounded_tiers())?;
    if !options.suite {
        return suite::run(&suite::Options::bounded());
    }
    suite::run(&suite::Options::quick())?;
    deaths::run(&deaths::Options::bounded())
}

/// Runs every example of the library.
fn examples() -> Result<()> {
    let Ok(entries) = fs::read_dir(root().join("crates/vswap/examples")) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if let Some(name) = path.file_stem().and_then(|s| s.to_str()) {
            cargo(&["run", "--quiet", "--release", "-p", "vswap", "--example", name])?;
        }
    }
    Ok(())
}

impl CheckerOptions {
    /// In little memory, where nearly everything is out.
    fn bounded() -> Self {
        Self {
            seconds: 15,
            memory: 24,
            size: 128,
            threads: 3,
            seed: 1,
            modes: "plain,fork,mixed".into(),
            vswap: None,
            tiers: false,
            options: String::new(),
        }
    }

    /// In memory that holds all of one process: grants, and pages that are shared since a fork.
    fn bounded_roomy() -> Self {
        Self { seconds: 8, memory: 140, modes: "fork,mixed".into(), ..Self::bounded() }
    }

    /// In memory that has room for long runs while most is out: below some 64 MiB nothing is read ahead beside a fault.
    fn bounded_ahead() -> Self {
        Self { seconds: 10, memory: 96, size: 320, ..Self::bounded() }
    }

    /// While its tiers come, fill, fail and go, and its groups change: as long as it takes for each of that to happen.
    fn bounded_tiers() -> Self {
        Self { seconds: 14, tiers: true, modes: "plain,fork,mixed".into(), ..Self::bounded_ahead() }
    }

    /// The checker in a mode, under `vswap` if that is tested.
    fn argv(&self, vswap: Option<&Path>, program: &Path, mode: &str) -> Vec<OsString> {
        let mut argv: Vec<OsString> = Vec::new();
        if let Some(vswap) = vswap {
            argv.extend([vswap.into(), "run".into(), "--memory".into(), format!("{}M", self.memory).into()]);
            argv.extend(self.options.split_whitespace().map(Into::into));
            argv.push("--".into());
        }
        argv.extend([program.into(), "--mode".into(), mode.into()]);
        let numbers = [
            ("--seconds", u64::from(self.seconds)),
            ("--bytes", self.size << 20),
            ("--threads", u64::from(self.threads)),
            ("--seed", self.seed),
        ];
        argv.extend(numbers.iter().flat_map(|(name, value)| [(*name).into(), value.to_string().into()]));
        argv
    }

    /// Bytes that the tree may have at most, seen from outside: the limit, 5 % and 8 MB.
    fn allowed(&self) -> u64 {
        (self.memory << 20) * 105 / 100 + 8_000_000
    }
}

/// Runs the page checker in every mode.
pub fn checker(options: &CheckerOptions) -> Result<()> {
    let vswap = match &options.vswap {
        Some(path) if path.as_os_str() == "none" => None,
        given => Some(dist::vswap(given.as_deref())?),
    };
    let program = programs::checker()?;
    let mut bad = Vec::new();
    for mode in options.modes.split(',') {
        let (group, dir) = (Cgroup::new(mode)?, Scratch::new(mode)?);
        group.forbid_kernel_swap()?;
        let argv = options.argv(vswap.as_deref(), &program, mode);
        let timeout = Duration::from_secs(u64::from(options.seconds) * 4 + 120);
        let job = Job { argv, cgroup: &group, dir: dir.path(), timeout, pool: None };
        let churn = vswap.as_deref().filter(|_| options.tiers).map(|vswap| Churn {
            vswap,
            cgroup: &group,
            seed: options.seed,
            memory: options.memory << 20,
            size: options.size << 20,
        });
        let (ran, changes) = match churn {
            Some(churn) => churn.beside(|| job.run())?,
            None => (job.run()?, Changes::default()),
        };
        let left = !group.wait_empty(Duration::from_secs(5));
        println!(
            "checker {mode}: exit {} after {:.1} s, peak {} of {}{}{}\n    {}",
            ran.ending(),
            ran.wall.as_secs_f64(),
            mib(ran.peaks.resident),
            mib(options.allowed()),
            if left { ", PROCESSES LEFT" } else { "" },
            changes.line,
            ran.complained().replace('\n', "\n    ")
        );
        let beyond = vswap.is_some() && ran.peaks.resident > options.allowed();
        if !changes.never.is_empty() {
            println!("    never happened, in {} s: {}", options.seconds, changes.never.join(", "));
        }
        if ran.ending() != "0" || left || beyond || !changes.never.is_empty() {
            bad.push(mode);
        }
    }
    if !bad.is_empty() {
        bail!("the page checker failed: {} (seed {})", bad.join(", "), options.seed);
    }
    Ok(())
}
