//! `cargo xtask fuzz`: every target of `fuzz/` in turn, under libFuzzer. Needs the nightly compiler and `cargo-fuzz`.
//!
//! What the targets do is in `crates/fuzz`, whose tests replay the corpora on any compiler; here new inputs are looked for. They are kept below the
//! target directory; `--keep` leaves in `fuzz/corpus` as many of all as cover what is covered.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::host::{root, target_dir};

/// The compiler that has sanitizers.
const TOOLCHAIN: &str = "+nightly";
/// The longest input that is tried: everything here is decided in less, and a short one is found sooner.
const LONGEST: &str = "-max_len=16384";
/// The longest that is kept: corpora are in everybody's clone.
const LONGEST_KEPT: u64 = 4096;

/// What `cargo xtask fuzz` takes.
#[derive(Args)]
pub struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Leave in `fuzz/corpus` what of all that was found covers most.
    #[arg(long)]
    keep: bool,
    /// These targets only.
    targets: Vec<String>,
}

/// Runs them.
pub fn run(options: &Options) -> Result<()> {
    let there = Command::new("cargo").args([TOOLCHAIN, "fuzz", "--version"]).output()?.status.success();
    ensure!(
        there,
        "no cargo-fuzz or no nightly: `rustup toolchain install nightly`, `cargo install --locked cargo-fuzz`"
    );
    let all = targets()?;
    let wanted = if options.targets.is_empty() { &all } else { &options.targets };
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown}; there are {}", all.join(", "));
    }
    let found = target_dir().join("fuzz-found");
    cargo(
        &["run", "--quiet", "--package", "vswap-fuzz", "--example", "seeds", "--"],
        &[&found.join("seeds")],
    )?;
    let mut failed = Vec::new();
    for target in wanted {
        let (new, seeds, kept) =
            (found.join(target), found.join("seeds").join(target), root().join("fuzz/corpus").join(target));
        fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
        fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
        let limit = format!("-max_total_time={}", options.seconds);
        let done = fuzz(&["run", target], &[&new, &seeds, &kept], &["--", &limit, LONGEST, "-timeout=20"]);
        if let Err(error) = done {
            failed.push(format!("{target}: {error:#}"));
        } else if options.keep {
            keep(target, &[&new, &seeds], &kept)?;
        }
    }
    ensure!(failed.is_empty(), "what was found is in fuzz/artifacts:\n  {}", failed.join("\n  "));
    Ok(())
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let dir = root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let name =
        |entry: std::io::Result<fs::DirEntry>| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned());
    let mut names: Vec<_> = entries.filter_map(name).collect();
    names.sort();
    Ok(names)
}

/// Puts what is short enough beside what is kept, and has the least of it left that covers as much.
fn keep(target: &str, from: &[&Path], kept: &Path) -> Result<()> {
    for dir in from {
        for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry?.path();
            if fs::metadata(&path)?.len() <= LONGEST_KEPT
                && let Some(name) = path.file_name()
            {
                fs::copy(&path, kept.join(name))?;
            }
        }
    }
    fuzz(&["cmin", target], &[kept], &[])
}

fn fuzz(command: &[&str], dirs: &[&Path], rest: &[&str]) -> Result<()> {
    let dirs: Vec<PathBuf> = dirs.iter().map(std::path::absolute).collect::<std::io::Result<_>>()?;
    let mut fuzz = Command::new("cargo");
    fuzz.current_dir(root().join("fuzz")).args([TOOLCHAIN, "fuzz"]).args(command).args(dirs).args(rest);
    eprintln!("xtask: {fuzz:?}");
    let done = fuzz.status()?;
    ensure!(done.success(), "{} ended with {done}", command.join(" "));
    Ok(())
}

fn cargo(args: &[&str], paths: &[&Path]) -> Result<()> {
    let done = Command::new("cargo").current_dir(root()).args(args).args(paths).status()?;
    ensure!(done.success(), "cargo {} failed with {done}", args.join(" "));
    Ok(())
}
