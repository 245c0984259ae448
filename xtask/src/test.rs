//! `cargo xtask test`: everything that must pass, bounded; and `cargo xtask checker`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::churn::Churn;
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
    /// Add and remove tiers all the time, some removals being ended in the middle.
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
    cargo(&["nextest", "run", "--workspace", "--no-fail-fast"])?;
    cargo(&["test", "--workspace", "--doc", "--quiet"])?;
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

    /// While its tiers come and go.
    fn bounded_tiers() -> Self {
        Self { tiers: true, modes: "plain,fork,mixed".into(), ..Self::bounded_ahead() }
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
        let mut argv: Vec<std::ffi::OsString> = Vec::new();
        if let Some(vswap) = &vswap {
            argv.extend([
                vswap.into(),
                "run".into(),
                "--memory".into(),
                format!("{}M", options.memory).into(),
            ]);
            argv.extend(options.options.split_whitespace().map(Into::into));
            argv.push("--".into());
        }
        argv.push(program.clone().into());
        let numbers = [
            ("--seconds", u64::from(options.seconds)),
            ("--bytes", options.size << 20),
            ("--threads", u64::from(options.threads)),
            ("--seed", options.seed),
        ];
        argv.extend(["--mode".into(), mode.into()]);
        argv.extend(numbers.iter().flat_map(|(name, value)| [(*name).into(), value.to_string().into()]));
        let timeout = Duration::from_secs(u64::from(options.seconds) * 4 + 60);
        let job = Job { argv, cgroup: &group, dir: dir.path(), timeout, pool: None };
        let changes = vswap.as_deref().filter(|_| options.tiers).map(|vswap| Churn {
            vswap,
            group: &group,
            seed: options.seed,
        });
        let (ran, changes) = match changes {
            Some(churn) => churn.beside(|| job.run())?,
            None => (job.run()?, String::new()),
        };
        let left = !group.wait_empty(Duration::from_secs(5));
        println!(
            "checker {mode}: exit {} after {:.1} s, peak {} of {}{}{changes}\n    {}",
            ran.ending(),
            ran.wall.as_secs_f64(),
            mib(ran.peaks.resident),
            mib(options.allowed()),
            if left { ", PROCESSES LEFT" } else { "" },
            ran.complained().replace('\n', "\n    ")
        );
        let beyond = vswap.is_some() && ran.peaks.resident > options.allowed();
        if ran.ending() != "0" || left || beyond {
            bad.push(mode);
        }
    }
    if !bad.is_empty() {
        bail!("the page checker failed: {} (seed {})", bad.join(", "), options.seed);
    }
    Ok(())
}
