//! `cargo xtask suite`: programs give the same output and exit code in a quarter of the memory that they need.
//!
//! Each runs plain first, in a cgroup of its own without a limit, which tells its peak of rss + shmem; then under `vswap run
//! --memory PEAK/4` in a cgroup whose limit (1.3 times that + 16 MB, no kernel swap) has the kernel kill what does not keep to it.

mod cases;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::host::cgroup::Cgroup;
use crate::host::job::{Job, Ran};
use crate::host::scratch::Scratch;
use crate::host::{interrupt, mib};
use cases::Case;

const MB: u64 = 1_000_000;
/// The least `--memory` that `vswap run` takes.
const LEAST: u64 = 8 << 20;

/// What `cargo xtask suite` takes.
#[derive(Args)]
pub struct Options {
    /// Only programs whose name contains one of these, separated by commas.
    #[arg(long)]
    only: Option<String>,
    /// Smaller programs, for CI.
    #[arg(long)]
    quick: bool,
    /// The `vswap` to test; `none` runs the second time without it (a test of the suite itself).
    #[arg(long)]
    vswap: Option<PathBuf>,
    /// The share of its need that a program gets, as one over this.
    #[arg(long, default_value_t = 4)]
    share: u64,
    /// More options for `vswap run`, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    options: String,
}

impl Options {
    /// All programs in their small size: a quarter of an hour.
    pub fn quick() -> Self {
        Self { only: None, quick: true, vswap: None, share: 4, options: String::new() }
    }

    /// Those that take a minute together: the form that CI runs.
    pub fn bounded() -> Self {
        Self { only: Some("static-c,bss,python-threads,sqlite,g++".into()), ..Self::quick() }
    }
}

struct Row {
    name: &'static str,
    plain: Ran,
    managed: Ran,
    memory: u64,
    faults: Vec<String>,
}

/// Runs it; an error when one program differs.
pub fn run(options: &Options) -> Result<()> {
    let vswap = match &options.vswap {
        Some(path) if path.as_os_str() == "none" => None,
        given => Some(crate::dist::vswap(given.as_deref())?),
    };
    let parts: Option<Vec<&str>> = options.only.as_ref().map(|list| list.split(',').collect());
    let wanted = |name: &str| parts.as_ref().is_none_or(|parts| parts.iter().any(|part| name.contains(part)));
    let (mut bad, mut ran) = (Vec::new(), 0);
    println!(
        "{:<22} {:>11} {:>11} {:>11} {:>8} {:>8} {:>6}  verdict",
        "program", "needs", "--memory", "peak", "plain s", "vswap s", "ratio"
    );
    for case in cases::all().into_iter().filter(|case| wanted(case.name)) {
        interrupt::check()?;
        let row = one(&case, vswap.as_deref(), options)?;
        row.print();
        ran += 1;
        if !row.faults.is_empty() {
            bad.push(row.name);
        }
    }
    if !bad.is_empty() {
        bail!("{} of {ran} programs differ from a plain run: {}", bad.len(), bad.join(", "));
    }
    println!("{ran} programs: the same output and exit code as a plain run");
    Ok(())
}

fn one(case: &Case, vswap: Option<&std::path::Path>, options: &Options) -> Result<Row> {
    let argv = (case.argv)(options.quick)?;
    let timeout = Duration::from_secs(if options.quick { 600 } else { 3600 });
    let (dir, second_dir) = (Scratch::new(case.name)?, Scratch::new(&format!("{}-managed", case.name))?);

    let group = Cgroup::new(case.name)?;
    let plain = Job { argv: argv.clone(), cgroup: &group, dir: dir.path(), timeout, pool: None }.run()?;
    group.wait_empty(Duration::from_secs(5));
    drop(group);

    let memory = (plain.peaks.resident / options.share).max(LEAST) & !4095;
    let group = Cgroup::new(case.name)?;
    let mut command: Vec<OsString> = Vec::new();
    if let Some(vswap) = vswap {
        group.limit(memory + memory * 3 / 10 + 16 * MB)?;
        group.forbid_kernel_swap()?;
        command.extend([vswap.into(), "run".into(), "--memory".into(), memory.to_string().into()]);
        command.extend(options.options.split_whitespace().map(OsString::from));
        command.push("--".into());
    }
    command.extend(argv);
    let managed = Job { argv: command, cgroup: &group, dir: second_dir.path(), timeout, pool: None }.run()?;
    let mut faults = differences(&plain, &managed);
    if !group.wait_empty(Duration::from_secs(5)) {
        faults.push(format!("{} processes left 5 s after its end", group.members().len()));
    }
    let allowed = memory + memory / 20 + 8 * MB;
    if vswap.is_some() && managed.peaks.resident > allowed {
        faults.push(format!(
            "peak {} is over the limit + 5 % + 8 MB = {}",
            mib(managed.peaks.resident),
            mib(allowed)
        ));
    }
    Ok(Row { name: case.name, plain, managed, memory, faults })
}

fn differences(plain: &Ran, managed: &Ran) -> Vec<String> {
    let mut faults = Vec::new();
    if plain.ending() != managed.ending() {
        faults.push(format!("ended with {}, plain with {}", managed.ending(), plain.ending()));
    }
    if managed.oom_kills > 0 {
        faults.push(format!("{} killed by the kernel for want of memory", managed.oom_kills));
    }
    if plain.stdout != managed.stdout {
        faults.push(format!(
            "other output:\n--- plain\n{}\n--- vswap\n{}",
            tail(&plain.said()),
            tail(&managed.said())
        ));
    }
    if !faults.is_empty() {
        faults.push(format!("stderr:\n{}", managed.complained()));
    }
    faults
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| line.chars().take(160).collect::<String>()).collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

impl Row {
    fn print(&self) {
        let (plain, managed) = (self.plain.wall.as_secs_f64(), self.managed.wall.as_secs_f64());
        println!(
            "{:<22} {:>11} {:>11} {:>11} {plain:>8.2} {managed:>8.2} {:>6.2}  {}",
            self.name,
            mib(self.plain.peaks.resident),
            mib(self.memory),
            mib(self.managed.peaks.resident),
            managed / plain,
            if self.faults.is_empty() {
                format!("same (exit {})", self.managed.ending())
            } else {
                "DIFFERS".into()
            }
        );
        for fault in &self.faults {
            println!("    {}", fault.replace('\n', "\n    "));
        }
    }
}
