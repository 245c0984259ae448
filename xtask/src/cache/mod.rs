//! `cargo xtask cache`: stores of named objects beside one file for each object and beside foyer, and what a store of very many objects takes.
//!
//! What is measured is `vswap-bench` (`crates/bench`), built as a release, each contestant's part in a process and a memory cgroup of its own; nothing of
//! it is linked here, so that every other task builds without it.

mod child;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::host::{interrupt, machine, root};
use child::Bench;

/// What it takes.
#[derive(Args)]
pub struct Options {
    /// Where the report goes, as cache.md and cache.json.
    #[arg(long)]
    out: PathBuf,
    /// Where the stores and files lie.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Half the memory and a part of the gets and of the data.
    #[arg(long)]
    quick: bool,
    /// Beside foyer too, which brings a runtime and is built only for this.
    #[arg(long)]
    foyer: bool,
    /// How often each does everything, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A million objects of one page instead of a hundred thousand.
    #[arg(long)]
    million: bool,
    /// Only these parts: contest, many, long.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// What is to be said above the tables, of the circumstances.
    #[arg(long)]
    note: Option<String>,
}

/// How much of everything.
struct Scale {
    /// Memory of each contestant, bytes.
    memory: u64,
    /// Bytes that are put.
    data: u64,
    /// The most seconds of gets.
    seconds: f64,
    /// Gets of a read-through of objects of 4 KiB.
    through: u64,
    /// Bytes of the long object.
    long: u64,
}

impl Scale {
    fn of(quick: bool) -> Self {
        let mib = 1 << 20;
        match quick {
            true => {
                Self { memory: 32 * mib, data: 128 * mib, seconds: 1.0, through: 60_000, long: 512 * mib }
            }
            false => {
                Self { memory: 64 * mib, data: 256 * mib, seconds: 3.0, through: 200_000, long: 1024 * mib }
            }
        }
    }

    /// Gets of a read-through of objects of `size` bytes: fewer of larger ones, but not as much fewer as they are larger.
    fn gets(&self, size: u64) -> u64 {
        match size {
            0..=4096 => self.through,
            4097..=65536 => self.through / 10,
            _ => self.through / 100,
        }
    }
}

/// Bytes of an object.
const SIZES: [u64; 3] = [4 << 10, 64 << 10, 1 << 20];
/// The data set of a read-through is so many times the memory.
const THROUGH_DATA: u64 = 10;

/// Measures and writes the report.
pub fn run(options: &Options) -> Result<()> {
    let parts = ["contest", "many", "long"];
    for part in &options.only {
        ensure!(parts.contains(&part.as_str()), "there is no part {part:?}: {}", parts.join(", "));
    }
    let wanted = |part: &str| options.only.is_empty() || options.only.iter().any(|only| only == part);
    ensure!(options.rounds > 0, "nothing is measured in no rounds");
    build(options.foyer)?;
    let bench = Bench::new(&options.dir)?;
    let scale = Scale::of(options.quick);
    let mut found = json!({ "contest": [], "device": [], "many": {}, "long": [] });
    for round in 0..options.rounds {
        push(&mut found["device"], bench.device(scale.data)?);
        if wanted("contest") {
            for size in SIZES {
                let mut who = contestants(options.foyer);
                // Nobody is always the first.
                let turn = round % who.len();
                who.rotate_left(turn);
                for who in who {
                    eprintln!("xtask: round {round}, {size} bytes, {who}");
                    push(&mut found["contest"], contest(&bench, who, size, &scale, round)?);
                }
            }
        }
        if wanted("long") {
            push(&mut found["long"], long(&bench, scale.long)?);
        }
    }
    if wanted("many") {
        found["many"] = many(&bench, if options.million { 1_000_000 } else { 100_000 })?;
    }
    let circumstances = json!({
        "machine": machine::describe(), "file_system": machine::first_line("findmnt", &["--noheadings", "--output", "FSTYPE", "--target", &options.dir.display().to_string()]),
        "quick": options.quick, "foyer": options.foyer, "rounds": options.rounds, "note": options.note,
        "memory": scale.memory, "data": scale.data, "long": scale.long,
        "load_at_the_end": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
    });
    let text = report::text(&circumstances, &found);
    println!("{text}");
    fs::create_dir_all(&options.out)?;
    write(&options.out.join("cache.md"), &text)?;
    let all = serde_json::to_string_pretty(&json!({ "circumstances": circumstances, "found": found }))?;
    write(&options.out.join("cache.json"), &(all + "\n"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn push(list: &mut Value, value: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(value);
    }
}

fn build(foyer: bool) -> Result<()> {
    let mut words = vec!["build", "--release", "--quiet", "--package", "vswap-bench"];
    if foyer {
        words.extend(["--features", "foyer"]);
    }
    let built = Command::new("cargo").current_dir(root()).args(&words).status()?;
    ensure!(built.success(), "cargo {} ended with {built}", words.join(" "));
    Ok(())
}

fn contestants(foyer: bool) -> Vec<&'static str> {
    let mut all = vec!["store", "files"];
    all.extend(foyer.then_some("foyer"));
    all
}

/// Everything that one contestant does with objects of one size, once.
fn contest(bench: &Bench, who: &str, size: u64, scale: &Scale, round: usize) -> Result<Value> {
    // The others bound themselves; files have no memory but the page cache.
    let limit = (who == "files").then_some(scale.memory);
    let mut found = json!({ "who": who, "size": size, "round": round });
    let seconds = scale.seconds.to_string();
    let mut step = |part: &str, dir: &str, data: u64, gets: u64| -> Result<()> {
        let numbers = [size, scale.memory, data, gets].map(|number| number.to_string());
        let mut words = vec![part.to_owned(), who.to_owned(), bench.place(dir)];
        for (name, number) in ["--size", "--memory", "--data", "--gets"].into_iter().zip(numbers) {
            words.extend([name.to_owned(), number]);
        }
        words.extend(["--seconds".to_owned(), seconds.clone()]);
        let said = bench.run(&words, limit)?;
        for peak in ["resident_peak", "cache_peak"] {
            let most = said[peak].as_u64().max(found[peak].as_u64());
            found[peak] = json!(most);
            found[format!("{part}_{peak}")] = said[peak].clone();
        }
        for part in ["put", "hot", "cold", "through"] {
            if said[part].is_object() {
                found[part] = said[part].clone();
            }
        }
        Ok(())
    };
    step("put", "objects", scale.data, 500_000)?;
    child::drop_caches()?;
    step("cold", "objects", scale.data, 100_000)?;
    bench.clear("objects")?;
    step("through", "objects", THROUGH_DATA * scale.memory, scale.gets(size))?;
    bench.clear("objects")?;
    Ok(found)
}

/// A long object and a file, written and read cold.
fn long(bench: &Bench, bytes: u64) -> Result<Value> {
    let mut found = json!({});
    for (key, write, read) in [("store", "write", "read"), ("file", "write-file", "read-file")] {
        for (act, name) in [(write, "write"), (read, "read")] {
            eprintln!("xtask: long, {act}");
            child::drop_caches()?;
            let words = ["long", act, &bench.place(""), &bytes.to_string()].map(str::to_owned);
            found[key][name] = bench.run(&words, None)?["long"]["mb_per_s"].clone();
        }
    }
    bench.clear("store")?;
    bench.clear("long")?;
    Ok(found)
}

/// A store of very many objects, and an empty one.
fn many(bench: &Bench, objects: u64) -> Result<Value> {
    let act = |act: &str, dir: &str, objects: u64| -> Result<Value> {
        interrupt::check()?;
        eprintln!("xtask: many, {act} {objects}");
        child::drop_caches()?;
        let words = ["many", act, &bench.place(dir), &objects.to_string()].map(str::to_owned);
        let mut said = bench.run(&words, None)?;
        said["many"]["resident_peak"] = said["resident_peak"].clone();
        Ok(said["many"].clone())
    };
    act("create", "empty", 0)?;
    let empty = act("open", "empty", 0)?;
    let create = act("create", "many", objects)?;
    let (index, data) = (bench.bytes_of("many/index")?, bench.bytes_of("many/data")?);
    let open = act("open", "many", objects)?;
    bench.hold_and_kill("many")?;
    let killed = act("open", "many", objects)?;
    let end = act("invalidate", "many", objects)?;
    bench.clear("many")?;
    bench.clear("empty")?;
    Ok(json!({
        "objects": objects, "empty": empty, "create": create, "open": open, "after_kill": killed, "invalidate": end,
        "index_bytes": index, "data_bytes": data,
    }))
}
