//! What starting costs, and what a program that fits pays.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::table::{Series, short};
use crate::host::programs::{self, PYTHON, source};
use crate::host::scratch::Scratch;
use crate::host::{cgroup::Cgroup, interrupt, job::Job};

/// Starts in each of the two forms.
const STARTS: usize = 150;

fn argv(parts: &[&str]) -> Vec<OsString> {
    parts.iter().map(OsString::from).collect()
}

fn managed(vswap: &Path, memory: &str, argv: &[OsString]) -> Vec<OsString> {
    let head = [vswap.into(), "run".into(), "--memory".into(), memory.into(), "--".into()];
    head.into_iter().chain(argv.iter().cloned()).collect()
}

fn seconds_to_run(argv: &[OsString]) -> Result<f64> {
    let begin = Instant::now();
    let status = Command::new(&argv[0]).args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::null()).status();
    let took = begin.elapsed().as_secs_f64();
    ensure!(status.with_context(|| format!("cannot start {argv:?}"))?.success(), "{argv:?} failed");
    Ok(took)
}

/// Start and end of a program: plain, and under vswap, in turn.
pub fn starts(vswap: &Path, _: usize) -> Result<(String, Value)> {
    let grow = programs::c("grow")?.to_string_lossy().into_owned();
    let floors = programs::floors()?.to_string_lossy().into_owned();
    let (small, large) = (argv(&["/bin/true"]), argv(&[&grow, "40"]));
    // The engine must be an ancestor of the program and not its parent, and the front must be what the shell started.
    let chain = argv(&[&floors, "chain", "3", "/bin/true"]);
    let cases = [
        ("stays small (/bin/true)", managed(vswap, "64M", &small), &small, Some(1.0)),
        ("a C program that forks three times and executes /bin/true", chain, &small, None),
        ("managed (grows by 40 MiB)", managed(vswap, "64M", &large), &large, Some(5.0)),
    ];
    let mut out = String::from(
        "\n## Start\n\n| ms | plain | under it | more | wanted at most | |\n| --- | ---: | ---: | ---: | ---: | --- |\n",
    );
    let mut data = json!({});
    for (name, under, plain, allowed) in cases {
        let (mut a, mut b) = (Series::default(), Series::default());
        for turn in 0..STARTS {
            interrupt::check()?;
            let (x, y) = (seconds_to_run(plain)? * 1e3, seconds_to_run(&under)? * 1e3);
            if turn >= STARTS / 10 {
                a.push(x);
                b.push(y);
            }
        }
        let more = b.median() - a.median();
        let verdict = match allowed {
            Some(allowed) => format!("{allowed} | {}", if more <= allowed { "met" } else { "NOT met" }),
            None => "- | floor".into(),
        };
        out += &format!(
            "| {name} | {} | {} | {} | {verdict} |\n",
            short(a.median()),
            short(b.median()),
            short(more)
        );
        data[name] = json!({ "plain_ms": a.median(), "under_ms": b.median(), "more_ms": more });
    }
    Ok((out, data))
}

/// Programs that fit into their limit, plain and under vswap, in turn.
pub fn fits(vswap: &Path, repeats: usize) -> Result<(String, Value)> {
    let dictionary = source("dictionary.py").to_string_lossy().into_owned();
    let walk = programs::c("walk")?.to_string_lossy().into_owned();
    let cases = [
        ("python, 3 million strings, 4 GiB", argv(&[PYTHON, &dictionary, "3000000", "1000000"])),
        ("static C, 256 MiB, 4 GiB", argv(&[&walk, "256"])),
    ];
    let mut out = String::from(
        "\n## A program that fits\n\n| s | plain | vswap run | ratio | wanted at most | |\n| --- | ---: | ---: | ---: | ---: | --- |\n",
    );
    let mut data = json!({});
    for (name, plain) in cases {
        let under = managed(vswap, "4GiB", &plain);
        let (mut a, mut b) = (Series::default(), Series::default());
        // Three percent are less than what one run differs from the next by.
        for _ in 0..3 * repeats.max(5) {
            for (line, series) in [(&plain, &mut a), (&under, &mut b)] {
                let (group, dir) = (Cgroup::new("fits")?, Scratch::new("fits")?);
                let job = Job {
                    argv: line.clone(),
                    cgroup: &group,
                    dir: dir.path(),
                    timeout: Duration::from_secs(120),
                    pool: None,
                };
                series.push(job.run()?.wall.as_secs_f64());
                group.wait_empty(Duration::from_secs(5));
            }
        }
        let ratio = b.median() / a.median();
        let word = if ratio <= 1.03 { "met" } else { "NOT met" };
        out += &format!(
            "| {name} | {} ({}-{}) | {} ({}-{}) | {ratio:.3} | 1.03 | {word} |\n",
            short(a.median()),
            short(a.spread().0),
            short(a.spread().1),
            short(b.median()),
            short(b.spread().0),
            short(b.spread().1)
        );
        data[name] = json!({ "plain_s": a.median(), "vswap_s": b.median(), "ratio": ratio });
    }
    Ok((out, data))
}
