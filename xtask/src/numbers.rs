//! `cargo xtask numbers`: what vswap says of itself in figures, from programs that measure it; each part in a process of its own.

mod cleaning;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::host::scratch::Scratch;
use crate::host::{interrupt, machine, root};

/// What it takes.
#[derive(Args)]
pub struct Options {
    /// Only these parts: memory, operations, churn, demotion, scale.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A hundredth of the pages and a part of the time: to see that it works.
    #[arg(long)]
    quick: bool,
    /// Where the tables go, as Markdown and beside it as JSON.
    #[arg(long)]
    out: Option<PathBuf>,
    /// What is to be said above the tables, of the circumstances.
    #[arg(long)]
    note: Option<String>,
}

/// One call of the program that measures.
type Words = Vec<String>;

/// What a part's findings are in the text.
type Section = fn(&[&Value]) -> String;

/// Measures and writes the tables.
pub fn run(options: &Options) -> Result<()> {
    let known = ["memory", "operations", "churn", "demotion", "scale"];
    for part in &options.only {
        ensure!(known.contains(&part.as_str()), "there is no part {part:?}: {}", known.join(", "));
    }
    let wanted = |part: &&str| options.only.is_empty() || options.only.iter().any(|only| only == part);
    let words = ["build", "--release", "--quiet", "--package", "vswap-engine", "--example", "numbers"];
    let built = Command::new("cargo").current_dir(root()).args(words).status()?;
    ensure!(built.success(), "cargo {} ended with {built}", words.join(" "));
    let disk = Scratch::new("numbers")?;
    let mut found = Vec::new();
    for part in known.iter().filter(|part| wanted(part)) {
        for words in calls(part, options.quick, &disk.path().display().to_string()) {
            found.extend(measure(&words)?);
        }
    }
    let machine = machine::describe();
    let text = text(options, &machine, &found);
    println!("{text}");
    let out = options.out.clone().unwrap_or_else(|| root().join("docs/numbers.md"));
    fs::write(&out, text).with_context(|| format!("cannot write {}", out.display()))?;
    let all = json!({ "machine": machine, "quick": options.quick, "note": options.note, "found": found });
    let json = out.with_extension("json");
    let all = serde_json::to_string_pretty(&all)? + "\n";
    fs::write(&json, all).with_context(|| format!("cannot write {}", json.display()))
}

fn calls(part: &str, quick: bool, dir: &str) -> Vec<Words> {
    let call = |words: &str| -> Words { words.split_whitespace().map(str::to_owned).collect() };
    let pick = |full: &str, short: &str| call(if quick { short } else { full });
    match part {
        // 13 bytes of noise make 40 by lz4: a class of the pool, so nothing is lost by rounding up.
        "memory" => vec![
            pick("memory disk 100000000 13", "memory disk 1000000 13"),
            pick("memory disk 4000000 4096", "memory disk 200000 4096"),
            pick("memory pool 100000000 13", "memory pool 1000000 13"),
            call("memory space 0 0"),
        ],
        "operations" => vec![pick("operations 20", "operations 2")],
        "churn" => {
            let segments = 256;
            let each =
                |how: &str, full: u32, pool: u32| call(&format!("churn {how} {full} {segments} {pool}"));
            let both = |full| [each("uniform", full, 16), each("zipf", full, 16)];
            // Below a small pool the tier sees more of the law.
            [70, 80, 90].into_iter().flat_map(both).chain([each("zipf", 80, 64)]).collect()
        }
        "demotion" => {
            let mut words = call("demotion");
            words.extend([dir.to_owned(), if quick { "64" } else { "512" }.to_owned()]);
            vec![words]
        }
        _ => {
            let powers = if quick { 6..=7 } else { 6..=9 };
            powers.map(|power| call(&format!("scale {} 4", 10_u64.pow(power)))).collect()
        }
    }
}

fn measure(words: &[String]) -> Result<Vec<Value>> {
    interrupt::check()?;
    eprintln!("xtask: {}", words.join(" "));
    let program = root().join("target/release/examples/numbers");
    let out = Command::new(&program).args(words).output()?;
    let error = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "numbers {}: {error}", words.join(" "));
    let said = String::from_utf8(out.stdout).context("what the program says is text")?;
    said.lines().map(|line| serde_json::from_str(line).with_context(|| format!("it said {line}"))).collect()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(f64::NAN)
}

fn word<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("?")
}

fn text(options: &Options, machine: &Value, found: &[Value]) -> String {
    let of = |part: &str| -> Vec<&Value> { found.iter().filter(|value| value["part"] == part).collect() };
    let mut text = format!("# Numbers\n\n{}\n\n", machine::headline(machine));
    text += "`cargo xtask numbers` measures what is below, each part in a process of its own (`crates/engine/examples/numbers/`); ratios are of one run.\n";
    if options.quick {
        text += "\nThis was `--quick`: fewer pages and less time than the figures need.\n";
    }
    if let Some(note) = &options.note {
        text += &format!("\n{note}\n");
    }
    let sections: [(&str, Section); 5] = [
        ("memory", memory),
        ("operations", operations),
        ("churn", churn),
        ("demotion", demotion),
        ("scale", scale),
    ];
    for (part, section) in sections {
        let found = of(part);
        if !found.is_empty() {
            text += &section(&found);
        }
    }
    text
}

fn memory(found: &[&Value]) -> String {
    let mut text = "\n## Memory besides the data\n\n\
        Resident memory and page tables of a process after so many pages were stored, less what it had before there was an engine, less \
        the pages' own bytes. The tier keeps nothing.\n\n| | pages | bytes of one | bytes besides | wanted |\n| --- | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    for value in found.iter().filter(|value| value["what"] != "space") {
        let (name, wanted) =
            if value["what"] == "disk" { ("a slot on disk", 8.25) } else { ("a page in the pool", 17.0) };
        let (pages, stored, bytes) =
            (&value["pages"], number(value, "stored_as"), number(value, "bytes_a_page"));
        text += &format!("| {name} | {pages} | {stored:.0} | **{bytes:.2}** | {wanted} |\n");
    }
    for value in found.iter().filter(|value| value["what"] == "space") {
        let kib = number(value, "bytes") / 1024.0;
        text += &format!("| a tier of 1 TiB, unused | | | **{kib:.0} KiB** in all | 1 MiB |\n");
    }
    text + "\nThe kernel's, as published with the patches: classic swap 11 bytes a slot; swap table, phase IV, 10; Virtual Swap Space 24 with a compressed \
        backing and 32 with a disk's; and 56 of zswap for each compressed page.\n"
}

fn operations(found: &[&Value]) -> String {
    let mut text = "\n## Operations without a tier\n\nlz4, pages like those of a heap, slots of the same clusters for both threads. `compress` and `decompress` are the \
        codec alone.\n\n| | ns at 1 thread | ns at 2 threads, each | scaling |\n| --- | ---: | ---: | ---: |\n"
        .to_owned();
    let of = |act: &str, key: &str| {
        found.iter().find(|value| value["act"] == act).map_or(f64::NAN, |value| number(value, key))
    };
    for value in found {
        let (one, two, scaling) = (number(value, "ns_1"), number(value, "ns_2"), number(value, "scaling"));
        text +=
            &format!("| {} | {one:.0} | {two:.0} | {scaling:.2} |\n", word(value, "act").replace('_', "-"));
    }
    let beside = |ours: &str, codec: &str, key: &str| 100.0 * (of(ours, key) / of(codec, key) - 1.0);
    text + &format!(
        "\nA store takes **{:.0} %** more than the codec at one thread (wanted: 10), {:.0} % at two; a load {:.0} % and {:.0} %. Two processors do **{:.2}** (store) and \
         {:.2} (load) times the work of one (wanted: 1.8), the codec alone {:.2} and {:.2}.\n",
        beside("store", "compress", "ns_1"),
        beside("store", "compress", "ns_2"),
        beside("load", "decompress", "ns_1"),
        beside("load", "decompress", "ns_2"),
        of("store", "scaling"),
        of("load", "scaling"),
        of("compress", "scaling"),
        of("decompress", "scaling"),
    )
}

fn churn(found: &[&Value]) -> String {
    let mut text = "\n## Write amplification\n\nPages that do not compress are stored anew, at random, over a tier in memory; measured once it has been written three times over. \
        *For one stored*: bytes written to the tier / bytes stored, which is what a device with a buffer of its own is said to amplify: the pool takes what is stored anew before \
        it goes down. *Cleaning's*: bytes written to the tier / bytes of them that came from the pool; the rest is cleaning. *At best*: the same by calculation, for a log whose every page \
        lay among pages of its own frequency, each frequency with the room that suits it best (what separating hot from cold could reach, were all frequencies known). \
        Zipf's exponent is 0.99.\n\n\
        | stores | pool / tier | alive on the tier | for one stored | cleaning's | at best |\n| --- | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    for value in found {
        let (part, full) = (number(value, "pool_part"), number(value, "full"));
        let exponent = if word(value, "how") == "zipf" { 0.99 } else { 0.0 };
        text += &format!(
            "| {} | {part:.3} | {:.0} % | **{:.2}** | **{:.2}** | {:.2} |\n",
            word(value, "how"),
            100.0 * full,
            number(value, "written_for_stored"),
            number(value, "amplification"),
            cleaning::at_best(exponent, part, full)
        );
    }
    text + "\nWanted: 1.5 at 80 % with Zipf.\n"
}

fn demotion(found: &[&Value]) -> String {
    let mut text = "\n## Demotion\n\nMB/s: the device (2 MiB direct writes, two in flight; while another thread reads 4 KiB at random; a copy), writeback of as much, the same while \
        another thread loads pages, the removal of a tier, which is a copy. us at the 99th percentile: the device's own reads and loads, alone, and beside that writing; *plainly* is loads beside the device's own writes, with nothing of ours.\n\n\
        | device | with reads | copy | writeback | with loads | removal | device, alone | meanwhile | pool, alone | plainly | meanwhile | disk, alone | plainly | meanwhile |\n\
        | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    for value in found {
        let (raw, times) = (number(value, "device"), |key: &str| number(value, key));
        let rate = |key: &str, of: f64| format!("{:.0} ({:.0} %)", times(key), 100.0 * times(key) / of);
        text += &format!(
            "| {raw:.0} | {:.0} | {:.0} | {} | {} | {} |",
            times("device_with_reads"),
            times("device_copy"),
            rate("writeback", raw),
            rate("writeback_with_loads", times("device_with_reads")),
            rate("removal", times("device_copy"))
        );
        for (alone, others) in [
            ("device_p99", &["device_p99_meanwhile"] as &[_]),
            ("pool_p99", &["pool_p99_beside_device", "pool_p99_meanwhile"]),
            ("disk_p99", &["disk_p99_beside_device", "disk_p99_meanwhile"]),
        ] {
            text += &format!(" {:.1} |", times(alone));
            for other in others {
                text += &format!(" {:.1} ({:.1}x) |", times(other), times(other) / times(alone));
            }
        }
        text += "\n";
    }
    text + "\nWanted: writeback at 90 % of the device, loads at most 2x.\n"
}

fn scale(found: &[&Value]) -> String {
    let mut text = "\n## Slots, simulated\n\nThe core's words, clusters' states, generations and clock hand on so many slots, in huge pages where the system gives them. ns a step; \
        *memory*: as much memory touched in the same order by nothing else; *own*: the difference.\n\n\
        | slots | a step | memory | own |\n| ---: | ---: | ---: | ---: |\n"
        .to_owned();
    for value in found {
        let (step, memory, own) = (number(value, "ns"), number(value, "memory_ns"), number(value, "own_ns"));
        text += &format!("| {} | {step:.1} | {memory:.1} | **{own:.1}** |\n", value["slots"]);
    }
    text + "\nWanted: flat within 20 % from 10^6 up.\n"
}
