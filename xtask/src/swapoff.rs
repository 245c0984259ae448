//! `cargo xtask swapoff`: emptying a tier beside the kernel's swapoff of as much, and with one and many owners of every page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::dist;
use crate::host::cgroup::Cgroup;
use crate::host::job::{self, Job};
use crate::host::scratch::Scratch;
use crate::host::{interrupt, machine, programs, root};
use crate::peers::swap::{self, Peer, Swap};

/// Memory that each may keep.
const MEMORY: u64 = 256 << 20;
/// All of it, at the most.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What it takes.
#[derive(Args)]
pub struct Options {
    /// What the program fills, in GiB.
    #[arg(long, default_value_t = 4)]
    gib: u64,
    /// How often each is done.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Owners of every page in the last part.
    #[arg(long, default_value_t = 1000)]
    owners: usize,
    /// A file for the table.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// One emptying.
struct Emptied {
    pages: u64,
    time: Duration,
    /// Bytes on the device.
    bytes: u64,
}

impl Emptied {
    fn row(&self, who: &str, ratio: Option<f64>) -> String {
        let seconds = self.time.as_secs_f64();
        format!(
            "| {who} | {} | {seconds:.2} | {:.0} | {:.3} | {} |\n",
            self.pages,
            self.bytes as f64 / 1e6 / seconds,
            self.us_a_page(),
            ratio.map_or_else(String::new, |ratio| format!("**{ratio:.1}x**"))
        )
    }

    fn us_a_page(&self) -> f64 {
        self.time.as_secs_f64() * 1e6 / self.pages.max(1) as f64
    }
}

fn median(mut all: Vec<Emptied>) -> Result<Emptied> {
    all.sort_by(|a, b| a.us_a_page().total_cmp(&b.us_a_page()));
    let middle = all.len() / 2;
    all.into_iter().nth(middle).context("nothing was measured")
}

/// Runs it all and prints the table.
pub fn run(options: &Options) -> Result<()> {
    swap::refuse_foreign_swap()?;
    let vswap = dist::vswap(None)?;
    let disk = Scratch::new("swapoff")?;
    let file = swap::make_file(disk.path())?;
    let (mut kernels, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..options.repeats.max(1) {
        kernels.push(kernel(options, &file)?);
        ours.push(tier(options, &vswap, disk.path())?);
    }
    let (kernel, tier) = (median(kernels)?, median(ours)?);
    let ratio = kernel.us_a_page() / tier.us_a_page();
    let machine = machine::describe();
    let mut text = format!(
        "# Emptying a tier, beside the kernel's swapoff\n\n{}\n\n\
         `cargo xtask swapoff --gib {} --repeats {} --owners {}`: a program that has filled {} GiB with pages of a heap and waits, in {} MiB of \
         memory; afterwards it reads and checks every page. Medians. The kernel brings its pages back to memory, one by one; vswap moves what it has on one tier to \
         another on the same device, compressed as it is, in pieces of 2 MiB. In the lower half there is no program: the pages compress 2 : 1, and the owners share all of them, as after \
         so many forks.\n\n\
         | | pages | s | MB/s of the device's bytes | us a page | |\n| --- | ---: | ---: | ---: | ---: | ---: |\n",
        machine::headline(&machine),
        options.gib,
        options.repeats,
        options.owners,
        options.gib,
        MEMORY >> 20
    );
    text += &kernel.row("the kernel's swapoff, to memory", None);
    text += &tier.row("vswap tier remove, to another tier", Some(ratio));
    for owners in [1, options.owners] {
        interrupt::check()?;
        text +=
            &engine(options, disk.path(), owners)?.row(&format!("the engine alone, {owners} owners"), None);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    println!("{text}");
    if let Some(out) = &options.out {
        fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))?;
    }
    Ok(())
}

fn touch(options: &Options) -> Result<Vec<std::ffi::OsString>> {
    let (program, heap) = (programs::touch()?, programs::heap_dump()?);
    let mut argv = vec![program.into_os_string(), "--heap".into(), heap.into_os_string()];
    let bytes = (options.gib << 30).to_string();
    let words = ["--bytes", &bytes, "--threads", "1", "--seconds", "0.1", "--phases", "fill,pause,scan"];
    argv.extend(words.map(Into::into));
    Ok(argv)
}

/// Waits until the program has filled its memory.
fn filled(child: &mut Child, dir: &Path) -> Result<()> {
    job::says(child, dir, "fill", TIMEOUT)?;
    // What is under way arrives.
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// Every page is read and checked, and the program ends.
fn checked(mut child: Child, dir: &Path) -> Result<()> {
    let said = job::goes_on_to_its_end(&mut child, dir)?;
    ensure!(said.contains("scan"), "the program said {said}");
    Ok(())
}

fn kernel(options: &Options, file: &Path) -> Result<Emptied> {
    let (dir, group) = (Scratch::new("swapoff-kernel")?, Cgroup::new("swapoff-kernel")?);
    let mut swap = Swap::on(Peer::File, file)?;
    group.limit(MEMORY)?;
    let mut child =
        Job { argv: touch(options)?, cgroup: &group, dir: dir.path(), timeout: TIMEOUT, pool: None }
            .spawn()?;
    filled(&mut child, dir.path())?;
    let swaps = fs::read_to_string("/proc/swaps")?;
    let used = swaps.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    let bytes = used.context("/proc/swaps shows no swap file")? * 1024;
    // It all comes back to memory.
    group.limit(64 << 30)?;
    let time = swap.off()?;
    checked(child, dir.path())?;
    eprintln!("xtask: the kernel's swapoff of {} MiB: {:.2} s", bytes >> 20, time.as_secs_f64());
    Ok(Emptied { pages: bytes / 4096, time, bytes })
}

fn tier(options: &Options, vswap: &Path, disk: &Path) -> Result<Emptied> {
    let (dir, group) = (Scratch::new("swapoff-vswap")?, Cgroup::new("swapoff-vswap")?);
    let mut argv =
        vec![vswap.as_os_str().to_owned(), "run".into(), "--memory".into(), MEMORY.to_string().into()];
    argv.extend([
        "--disk".into(),
        "6G".into(),
        "--disk-path".into(),
        disk.as_os_str().to_owned(),
        "--".into(),
    ]);
    argv.extend(touch(options)?);
    let mut child = Job { argv, cgroup: &group, dir: dir.path(), timeout: TIMEOUT, pool: None }.spawn()?;
    filled(&mut child, dir.path())?;
    let run = child.id().to_string();
    let status = dist::say(vswap, &["status", &run, "--json"])?;
    let status: Value = serde_json::from_str(&status).context("vswap status --json")?;
    let number = |value: &Value| value.as_u64().context("vswap status --json lacks a figure");
    let (pages, bytes) = (number(&status[0]["swapped"])? / 4096, number(&status[0]["tiers"][0]["live"])?);
    let place = disk.to_string_lossy();
    dist::say(vswap, &["tier", "add", &place, "--size", "6G", "--run", &run])?;
    let began = Instant::now();
    dist::say(vswap, &["tier", "remove", "0", "--run", &run])?;
    let time = began.elapsed();
    checked(child, dir.path())?;
    eprintln!("xtask: vswap tier remove of {} MiB: {:.2} s", bytes >> 20, time.as_secs_f64());
    Ok(Emptied { pages, time, bytes })
}

/// The engine with a real file, no program: so many owners, each of whom has every page.
fn engine(options: &Options, disk: &Path, owners: usize) -> Result<Emptied> {
    let words = ["run", "--release", "--quiet", "--package", "vswap-engine", "--example", "swapoff", "--"];
    let out = Command::new("cargo")
        .current_dir(root())
        .args(words)
        .arg(disk)
        .args([options.gib.to_string(), owners.to_string()])
        .output()?;
    ensure!(out.status.success(), "the example: {}", String::from_utf8_lossy(&out.stderr));
    let said: Value = serde_json::from_slice(&out.stdout).context("the example's line")?;
    let (Some(pages), Some(us), Some(bytes)) =
        (said["pages"].as_u64(), said["us"].as_u64(), said["bytes"].as_u64())
    else {
        bail!("the example said {said}");
    };
    Ok(Emptied { pages, time: Duration::from_micros(us), bytes })
}
