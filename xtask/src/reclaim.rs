//! `cargo xtask reclaim`: what proactive reclaim gives back of a program that uses a small part of its memory, and what it costs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::dist;
use crate::host::programs::{self, source};
use crate::host::scratch::Scratch;
use crate::host::{interrupt, machine};

/// What it takes.
#[derive(Args)]
pub struct Options {
    /// Strings that the Redis holds.
    #[arg(long, default_value_t = 800_000)]
    keys: u64,
    /// Of these, how many are read.
    #[arg(long, default_value_t = 8_000)]
    hot: u64,
    /// How many reads there are.
    #[arg(long, default_value_t = 4_000_000)]
    reads: u64,
    /// The share of time that reclaim may cost.
    #[arg(long, default_value = "0.5%")]
    share: String,
    /// Seconds in which it looks at all memory once.
    #[arg(long, default_value_t = 15)]
    turn: u32,
    /// How often both are done, in turn.
    #[arg(long, default_value_t = 4)]
    pairs: usize,
    /// The `vswap` to use [default: a release of this tree]
    #[arg(long)]
    vswap: Option<PathBuf>,
    /// A file for the table.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// One run.
struct Ran {
    /// The reads took so long.
    seconds: f64,
    /// The most that counted, and what did at the end.
    most: u64,
    last: u64,
    /// Pages moved out, those of them written on, and the most that programs waited.
    reclaimed: u64,
    written: u64,
    pressure: u64,
}

/// Runs it all and prints the table.
pub fn run(options: &Options) -> Result<()> {
    let vswap = dist::vswap(options.vswap.as_deref())?;
    let keys = options.keys.to_string();
    let load = programs::printed(&source("redis_load.py"), &[&keys], &format!("redis-load-{keys}"))?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..options.pairs.max(1) {
        without.push(once(options, &vswap, &load, "off")?);
        with.push(once(options, &vswap, &load, &options.share)?);
    }
    let machine = machine::describe();
    let mut text = format!(
        "# Proactive reclaim\n\n{}\n\n`cargo xtask reclaim`: a Redis takes {} strings; then 8 clients make {} reads of the first {}, at random. With room for all of it, and either nothing \
         reclaimed or `--reclaim {} --reclaim-turn {}`, in turn. Memory is all that counts, vswap's own and the compressed pages too; the waits are the most that a second showed.\n\n\
         | | reads, s | memory, MiB: most | at the end | pages reclaimed | of them to a tier | waits, % of the time |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        machine::headline(&machine),
        options.keys,
        options.reads,
        options.hot,
        options.share,
        options.turn,
    );
    for (without, with) in without.iter().zip(&with) {
        text += &row("off", without);
        text += &row(&options.share, with);
    }
    let ratios = without.iter().zip(&with).map(|(without, with)| with.seconds / without.seconds);
    let left = with.iter().map(|with| with.last as f64 / with.most as f64);
    text += &format!(
        "\nMedians of the pairs: the reads take {:.3} times as long, and {:.0} % of the memory is left. The reads took {} s without it and {} s with it.\n",
        median(ratios.collect()),
        median(left.collect()) * 100.0,
        range(&without),
        range(&with)
    );
    println!("{text}");
    if let Some(out) = &options.out {
        fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))?;
    }
    Ok(())
}

fn row(name: &str, ran: &Ran) -> String {
    let Ran { seconds, most, last, reclaimed, written, pressure } = ran;
    let waits = *pressure as f64 / 1e4;
    format!(
        "| {name} | {seconds:.2} | {} | {} | {reclaimed} | {written} | {waits:.2} |\n",
        most >> 20,
        last >> 20
    )
}

/// The least and the most seconds: how far runs of one kind differ.
fn range(all: &[Ran]) -> String {
    let (least, most) = all
        .iter()
        .fold((f64::INFINITY, 0.0_f64), |(least, most), ran| (least.min(ran.seconds), most.max(ran.seconds)));
    format!("{least:.1} to {most:.1}")
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    if all.len().is_multiple_of(2) { (all[middle - 1] + all[middle]) / 2.0 } else { all[middle] }
}

fn once(options: &Options, vswap: &Path, load: &Path, reclaim: &str) -> Result<Ran> {
    interrupt::check()?;
    let dir = Scratch::new("reclaim")?;
    let said = dir.path().join("stdout");
    let mut command = Command::new(vswap);
    command.args([
        "run",
        "--memory",
        "1G",
        "--reclaim",
        reclaim,
        "--reclaim-turn",
        &options.turn.to_string(),
    ]);
    command.args(["--", "/bin/sh"]).arg(source("redis_hot.sh")).arg(load);
    command.args([options.hot.to_string(), options.reads.to_string()]);
    command.current_dir(dir.path()).env("TMPDIR", dir.path()).env("LC_ALL", "C");
    let mut child = command.stdin(Stdio::null()).stdout(File::create(&said)?).spawn()?;
    let run = child.id().to_string();
    let mut ran = Ran { seconds: 0.0, most: 0, last: 0, reclaimed: 0, written: 0, pressure: 0 };
    let status = loop {
        std::thread::sleep(Duration::from_secs(1));
        if interrupt::asked() {
            child.kill()?;
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // It has no socket yet, or not any more. While Redis ends it counts for little.
        let over = fs::read_to_string(&said)?.contains("redis_hot");
        let Some(now) = dist::say(vswap, &["status", &run, "--json"]).ok().filter(|_| !over) else {
            continue;
        };
        let now: Value = serde_json::from_str(&now)?;
        let figure =
            |name: &str| now[0][name].as_u64().with_context(|| format!("vswap status --json lacks {name}"));
        ran.last = figure("used")?;
        ran.most = ran.most.max(ran.last);
        ran.pressure = ran.pressure.max(figure("reclaim_pressure")?);
        (ran.reclaimed, ran.written) = (figure("reclaimed")?, figure("reclaim_written")?);
    };
    interrupt::check()?;
    ensure!(status.success(), "vswap run ended with {status}");
    let text = fs::read_to_string(&said)?;
    let Some(line) = text.lines().find(|line| line.starts_with('{')) else {
        bail!("the program said {text}")
    };
    ran.seconds = serde_json::from_str::<Value>(line)?["value"].as_f64().context("no figure")?;
    eprintln!("xtask: {reclaim}: {:.2} s, {} MiB of {}", ran.seconds, ran.last >> 20, ran.most >> 20);
    Ok(ran)
}
