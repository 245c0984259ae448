//! `cargo xtask peers`: vswap beside the kernel's own swap, on the same work, in the same total memory, in one session.
//!
//! Repeats are interleaved (every contender once, then all again, beginning with another), so that a slow minute of the machine
//! hits all. Kernel settings are changed for one run at a time and put back by drops, also on failure and Ctrl-C.

mod balance;
mod floors;
mod startup;
pub mod swap;
mod table;
mod targets;
mod work;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::host::cgroup::Cgroup;
use crate::host::job::{Job, Ran};
use crate::host::scratch::Scratch;
use crate::host::{interrupt, machine, mib, root};
use balance::balance;
use swap::{Peer, Swap};
use table::Results;
use work::Work;

/// What the limit of a vswap run's own cgroup is above `--memory`: 5 %, 8 MB, and 16 MB of kernel memory and page cache.
const MARGIN: u64 = 24_000_000;

/// What `cargo xtask peers` takes.
#[derive(Args)]
pub struct Options {
    /// Shorter work and three repeats.
    #[arg(long)]
    quick: bool,
    /// How often each contender runs.
    #[arg(long)]
    repeats: Option<usize>,
    /// Where the table (peers.md) and the data (peers.json) go.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only this work: touch, python, compile, redis, sort, floors, startup, fits; several separated by commas.
    #[arg(long)]
    only: Option<String>,
    /// Only contenders whose title contains one of these, separated by commas; vswap always runs.
    #[arg(long)]
    against: Option<String>,
    /// The `vswap` to measure; `none` measures the kernel's swap alone.
    #[arg(long)]
    vswap: Option<PathBuf>,
    /// More options for `vswap run`, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    options: String,
}

/// Who runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Vswap,
    Kernel(Peer),
    NoLimit,
}

/// What memory it gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Terms {
    /// Resident plus pool is the budget.
    Total,
    /// Resident is the budget, the pool comes on top.
    Resident,
}

/// One column of the table.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    kind: Kind,
    terms: Terms,
}

impl Contender {
    fn title(&self) -> String {
        let name = match self.kind {
            Kind::Vswap => "vswap run".into(),
            Kind::NoLimit => "no limit".into(),
            Kind::Kernel(Peer::File) => "swap file".into(),
            Kind::Kernel(Peer::Zswap) => "zswap".into(),
            Kind::Kernel(Peer::Zram(compressor)) => format!("zram {compressor}"),
        };
        if self.terms == Terms::Resident { format!("{name}, pool not counted") } else { name }
    }

    fn has_pool(&self) -> bool {
        matches!(self.kind, Kind::Kernel(Peer::Zswap | Peer::Zram(_)))
    }
}

fn contenders(options: &Options) -> Vec<Contender> {
    let total = |kind| Contender { kind, terms: Terms::Total };
    let resident = |peer| Contender { kind: Kind::Kernel(peer), terms: Terms::Resident };
    let (zswap, lz4, lzo) = (Peer::Zswap, Peer::Zram("lz4"), Peer::Zram("lzo-rle"));
    let mut all = vec![total(Kind::Vswap)];
    all.extend([zswap, lzo, lz4, Peer::File].map(|peer| total(Kind::Kernel(peer))));
    all.push(total(Kind::NoLimit));
    all.extend([zswap, lzo].map(resident));
    let parts: Option<Vec<&str>> = options.against.as_ref().map(|list| list.split(',').collect());
    all.retain(|c| {
        (c.kind == Kind::Vswap)
            || parts.as_ref().is_none_or(|parts| parts.iter().any(|part| c.title().contains(part)))
    });
    all
}

struct Bench<'a> {
    vswap: Option<PathBuf>,
    options: &'a Options,
    swap_file: PathBuf,
    repeats: usize,
    contenders: Vec<Contender>,
}

/// Measures all and writes the table.
pub fn run(options: &Options) -> Result<()> {
    let vswap = match &options.vswap {
        Some(path) if path.as_os_str() == "none" => None,
        given => Some(crate::dist::vswap(given.as_deref())?),
    };
    swap::refuse_foreign_swap()?;
    let home = Scratch::new("peers")?;
    let bench = Bench {
        vswap,
        options,
        swap_file: swap::make_file(home.path())?,
        repeats: options.repeats.unwrap_or(if options.quick { 3 } else { 5 }),
        contenders: contenders(options),
    };
    let only: Option<Vec<&str>> = options.only.as_ref().map(|list| list.split(',').collect());
    let wanted = |name: &str| only.as_ref().is_none_or(|names| names.contains(&name));
    let machine = machine::describe();
    let mut report = format!("# vswap beside the kernel's swap\n\n{}\n", machine::headline(&machine));
    let mut data = json!({ "machine": machine, "repeats": bench.repeats, "quick": options.quick });
    report += &format!(
        "\n`cargo xtask peers{}`: {} interleaved repeats, medians (least-largest); **x** = times vswap's. Less is better everywhere. \
         Every peer has the same memory in total, resident plus pool (within {:.0} %); \"pool not counted\" is the plain cgroup limit.\n",
        if options.quick { " --quick" } else { "" },
        bench.repeats,
        balance::TOLERANCE * 100.0
    );
    for work in work::all(options.quick, wanted)? {
        let (budget, results) = bench.measure(&work)?;
        let section =
            format!("\n## {} in {}\n\n{}", work.name, mib(budget), results.markdown(&bench.contenders));
        println!("{section}");
        report += &section;
        let verdicts = targets::verdicts(&work, &results, &bench.contenders, budget);
        println!("{verdicts}");
        report += &verdicts;
        data[work.name] = results.json(&bench.contenders);
        data[work.name]["budget_bytes"] = json!(budget);
        write(options, &report, &data)?;
    }
    if wanted("floors") {
        let (section, figures) = floors::measure(bench.repeats)?;
        println!("{section}");
        report += &section;
        data["floors"] = figures;
    }
    if let Some(vswap) = &bench.vswap {
        for (name, measure) in [
            ("startup", startup::starts as fn(&Path, usize) -> Result<(String, Value)>),
            ("fits", startup::fits),
        ] {
            if wanted(name) {
                let (section, figures) = measure(vswap, bench.repeats)?;
                println!("{section}");
                report += &section;
                data[name] = figures;
            }
        }
    }
    write(options, &report, &data)
}

fn write(options: &Options, report: &str, data: &Value) -> Result<()> {
    let dir = options.out.clone().unwrap_or_else(|| root().join("docs"));
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("peers.md"), report).with_context(|| format!("cannot write to {}", dir.display()))?;
    fs::write(dir.join("peers.json"), serde_json::to_string_pretty(data)? + "\n")?;
    Ok(())
}

impl Bench<'_> {
    fn measure(&self, work: &Work) -> Result<(u64, Results)> {
        eprintln!("xtask: {}: warming up", work.name);
        let free = Contender { kind: Kind::NoLimit, terms: Terms::Total };
        let plain = self.once(work, free, None, false)?;
        work.figures(&plain)?;
        let budget = work.limit.unwrap_or(plain.peaks.resident / 2) & !4095;
        let mut results = Results::default();
        for (index, contender) in self.contenders.iter().enumerate() {
            if let Some(limit) = self.limit_for(work, *contender, budget)? {
                results.limits.insert(index, limit);
            }
        }
        let n = self.contenders.len();
        for repeat in 0..self.repeats {
            for index in (0..n).map(|i| (i + repeat) % n) {
                let contender = self.contenders[index];
                if (contender.kind == Kind::Vswap && self.vswap.is_none())
                    || results.failures.contains_key(&index)
                {
                    continue;
                }
                let ran = self.once(work, contender, results.limits.get(&index).copied(), false)?;
                self.note(work, &mut results, index, &ran, &plain);
            }
        }
        Ok((budget, results))
    }

    fn note(&self, work: &Work, results: &mut Results, index: usize, ran: &Ran, plain: &Ran) {
        let contender = self.contenders[index];
        match work.figures(ran) {
            Err(error) => {
                eprintln!("xtask: {}: {error:#}", contender.title());
                results.failures.insert(index, format!("{error:#}"));
            }
            Ok(figures) => {
                if !ran.said().starts_with('{') && ran.said() != plain.said() {
                    results.failures.insert(index, "other output than a plain run".into());
                }
                for (name, value) in figures {
                    results.figures.entry((name, index)).or_default().push(value);
                }
                results.totals.entry(index).or_default().push(ran.peaks.total as f64);
                results.residents.entry(index).or_default().push(ran.peaks.resident as f64);
            }
        }
        if contender.kind == Kind::Vswap {
            results.stats =
                ran.stats.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
        }
    }

    /// The cgroup limit (for vswap: `--memory`) that gives the contender its memory.
    fn limit_for(&self, work: &Work, contender: Contender, budget: u64) -> Result<Option<u64>> {
        if contender.kind == Kind::NoLimit {
            return Ok(None);
        }
        if contender.terms == Terms::Resident || !contender.has_pool() {
            return Ok(Some(budget));
        }
        let total_at = |limit| {
            let ran = self.once(work, contender, Some(limit), true)?;
            // One that was killed needs more, whatever it had reached.
            Ok(if ran.ending() == "0" { ran.peaks.total } else { 0 })
        };
        let balanced = balance(budget, total_at)?;
        eprintln!(
            "xtask: {}: {} with a limit of {} takes {} in total, the budget is {}{}",
            work.name,
            contender.title(),
            mib(balanced.limit),
            mib(balanced.total),
            mib(budget),
            if balanced.agrees { "" } else { " (does NOT agree)" }
        );
        Ok(Some(balanced.limit))
    }

    /// One run of one contender, alone on the machine.
    fn once(&self, work: &Work, contender: Contender, limit: Option<u64>, short: bool) -> Result<Ran> {
        interrupt::check()?;
        work.warm_up()?;
        // Dropped in reverse: the cgroup (and with it every swapped page) before the swap that holds its pages.
        let dir = Scratch::new(work.name)?;
        let swap = match contender.kind {
            Kind::Kernel(peer) => Some(Swap::on(peer, &self.swap_file)?),
            _ => None,
        };
        let cgroup = Cgroup::new(work.name)?;
        let mut argv: Vec<OsString> = Vec::new();
        match (contender.kind, limit, &self.vswap) {
            (Kind::Vswap, Some(memory), Some(vswap)) => {
                cgroup.limit(memory + memory / 20 + MARGIN)?;
                cgroup.forbid_kernel_swap()?;
                argv.extend([vswap.into(), "run".into(), "--memory".into(), memory.to_string().into()]);
                argv.extend(["--stats-json".into(), dir.path().join("stats.json").into()]);
                argv.extend(self.options.options.split_whitespace().map(OsString::from));
                argv.push("--".into());
            }
            (Kind::Kernel(_), Some(limit), _) => cgroup.limit(limit)?,
            _ => {}
        }
        argv.extend(if short { work.short_argv.clone() } else { work.argv.clone() });
        let pool = || swap.as_ref().map_or(0, Swap::pool);
        let job = Job {
            argv,
            cgroup: &cgroup,
            dir: dir.path(),
            timeout: Duration::from_secs(900),
            pool: Some(&pool),
        };
        let mut ran = job.run()?;
        eprintln!(
            "xtask: {}: {}: {:.1} s, exit {}, total {}, {} major faults",
            work.name,
            contender.title(),
            ran.wall.as_secs_f64(),
            ran.ending(),
            mib(ran.peaks.total),
            ran.major_faults
        );
        cgroup.wait_empty(Duration::from_secs(10));
        ran.stats = fs::read_to_string(dir.path().join("stats.json")).ok();
        Ok(ran)
    }
}
