//! `cargo xtask family`: a parent with many children, each of which touches some of its pages, beside the kernel's swap; and how many
//! copies of its pages there are.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::dist;
use crate::host::cgroup::Cgroup;
use crate::host::job::{self, Job};
use crate::host::scratch::Scratch;
use crate::host::{interrupt, machine, programs};
use crate::peers::swap::{self, Peer, Swap};

const TIMEOUT: Duration = Duration::from_secs(600);

/// What it takes.
#[derive(Args)]
pub struct Options {
    /// Memory that the parent fills, in MiB.
    #[arg(long, default_value_t = 1024)]
    parent: u64,
    /// Its children.
    #[arg(long, default_value_t = 50)]
    children: u64,
    /// Pages that each child reads, at random; it writes to a tenth as many.
    #[arg(long, default_value_t = 1000)]
    reads: u64,
    /// Memory that all of them may keep, in MiB.
    #[arg(long, default_value_t = 256)]
    memory: u64,
    /// How often each is done.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// A file for the table.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Options {
    fn argv(&self) -> Result<Vec<OsString>> {
        let words = [self.parent, self.children, self.reads, self.reads / 10].map(|n| n.to_string().into());
        Ok([vec![programs::c("family")?.into_os_string()], words.to_vec()].concat())
    }
}

/// One run.
struct Ran {
    /// From the first fork until every child has done.
    touched: Duration,
    /// From there until the parent has read all its pages and everybody has ended.
    ended: Duration,
    /// Of vswap: pages in its pool and on its disk when every child had done, and all that counted then.
    stored: Option<(u64, u64)>,
}

/// Runs it all and prints the table.
pub fn run(options: &Options) -> Result<()> {
    swap::refuse_foreign_swap()?;
    let vswap = dist::vswap(None)?;
    let disk = Scratch::new("family")?;
    let file = swap::make_file(disk.path())?;
    let (mut plain, mut compressed, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.repeats.max(1) {
        plain.push(kernel(options, Peer::File, &file)?);
        compressed.push(kernel(options, Peer::Zswap, &file)?);
        ours.push(managed(options, &vswap, disk.path())?);
    }
    let machine = machine::describe();
    let pages = options.parent << 8;
    let mut text = format!(
        "# A family\n\n{}\n\n`cargo xtask family`: a parent fills {} MiB, a quarter of each page with what does not compress, and forks {} children. Each \
         reads {} of its pages at random and writes to {}; when all have done the parent reads every page. All of them have {} MiB of memory. \
         Medians of {} runs; no byte was wrong.\n\n| | children done, s | | all over, s | |\n| --- | ---: | ---: | ---: | ---: |\n",
        machine::headline(&machine),
        options.parent,
        options.children,
        options.reads,
        options.reads / 10,
        options.memory,
        options.repeats,
    );
    let last = ours.last().and_then(|ran: &Ran| ran.stored);
    let (ours, file) = (medians(&ours), medians(&plain));
    for (who, (touched, ended)) in
        [("a swap file", file), ("the same with zswap", medians(&compressed)), ("vswap", ours)]
    {
        text += &format!(
            "| {who} | {touched:.2} | {:.2}x | {ended:.2} | {:.2}x |\n",
            touched / ours.0,
            ended / ours.1
        );
    }
    if let Some((stored, used)) = last {
        text += &format!(
            "\nThe parent has {pages} pages. When the children had done, {stored} were stored by vswap, in its pool and on its disk together: {:.3} copies. \
             {:.1} MiB counted.\n",
            stored as f64 / pages as f64,
            used as f64 / f64::from(1 << 20)
        );
    }
    println!("{text}");
    if let Some(out) = &options.out {
        fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))?;
    }
    Ok(())
}

fn medians(runs: &[Ran]) -> (f64, f64) {
    let median = |of: fn(&Ran) -> Duration| {
        let mut all: Vec<_> = runs.iter().map(of).collect();
        all.sort();
        all[all.len() / 2].as_secs_f64()
    };
    (median(|ran| ran.touched), median(|ran| ran.ended))
}

fn kernel(options: &Options, peer: Peer, file: &Path) -> Result<Ran> {
    let group = Cgroup::new("family-kernel")?;
    let _swap = Swap::on(peer, file)?;
    group.limit(options.memory << 20)?;
    one(options.argv()?, &group, || Ok(None))
}

fn managed(options: &Options, vswap: &Path, disk: &Path) -> Result<Ran> {
    let group = Cgroup::new("family-vswap")?;
    let memory = format!("{}M", options.memory);
    let mut argv: Vec<OsString> = vec![vswap.into(), "run".into(), "--memory".into(), memory.into()];
    argv.extend(["--disk-path".into(), disk.into(), "--".into()]);
    argv.extend(options.argv()?);
    one(argv, &group, || {
        let status: Value = serde_json::from_str(&dist::say(vswap, &["status", "family", "--json"])?)?;
        let figure =
            |name: &str| status[0][name].as_u64().with_context(|| format!("status lacks {name}: {status}"));
        Ok(Some(((figure("pooled")? + figure("swapped")?) / 4096, figure("used")?)))
    })
}

/// Runs it to its end; `stored` is asked when the children have done.
fn one(
    argv: Vec<OsString>,
    group: &Cgroup,
    stored: impl FnOnce() -> Result<Option<(u64, u64)>>,
) -> Result<Ran> {
    interrupt::check()?;
    let dir = Scratch::new("family-run")?;
    let mut child = Job { argv, cgroup: group, dir: dir.path(), timeout: TIMEOUT, pool: None }.spawn()?;
    job::says(&mut child, dir.path(), "filled", TIMEOUT)?;
    let forked = Instant::now();
    job::says(&mut child, dir.path(), "ready", TIMEOUT)?;
    let touched = forked.elapsed();
    let stored = stored()?;
    let told = Instant::now();
    let said = job::goes_on_to_its_end(&mut child, dir.path())?;
    ensure!(said.contains("\n0 wrong"), "the family said {said}");
    let ended = told.elapsed();
    eprintln!("xtask: children done after {touched:.2?}, all over after {ended:.2?} more; {stored:?}");
    Ok(Ran { touched, ended, stored })
}
