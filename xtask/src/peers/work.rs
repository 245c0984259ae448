//! The work that is measured: programs that print one line of JSON for each figure, or whose time as a whole is the figure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::host::job::Ran;
use crate::host::programs::{self, PYTHON, source};

/// One program to measure.
pub struct Work {
    /// What it is called for `--only`.
    pub name: &'static str,
    /// Its command line.
    pub argv: Vec<OsString>,
    /// A shorter form of it with the same memory at its peak, to find limits with.
    pub short_argv: Vec<OsString>,
    /// Files that everybody finds in the page cache, so that none pays for reading them.
    pub warm: Vec<PathBuf>,
    /// The limit, or half of what a plain run needs.
    pub limit: Option<u64>,
}

fn argv(program: impl Into<OsString>, args: &[&str]) -> Vec<OsString> {
    std::iter::once(program.into()).chain(args.iter().map(OsString::from)).collect()
}

fn touch(quick: bool) -> Result<Work> {
    let (program, heap) = (programs::touch()?, programs::heap_dump()?);
    let path = heap.to_string_lossy().into_owned();
    let seconds = if quick { "1.5" } else { "3" };
    Ok(Work {
        name: "touch",
        argv: argv(&program, &["--heap", &path, "--seconds", seconds, "--threads", "2"]),
        short_argv: argv(
            &program,
            &[
                "--heap",
                &path,
                "--seconds",
                "1",
                "--threads",
                "1",
                "--phases",
                "fill,random_read,random_write30",
            ],
        ),
        warm: vec![heap],
        limit: Some(512 << 20),
    })
}

fn dictionary(quick: bool) -> Work {
    let count = if quick { "1000000" } else { "3000000" };
    let script = source("dictionary.py").to_string_lossy().into_owned();
    let line = argv(PYTHON, &[&script, count, if quick { "100000" } else { "300000" }]);
    Work { name: "python", short_argv: line.clone(), argv: line, warm: vec![], limit: None }
}

fn compile(quick: bool) -> Result<Work> {
    let units = if quick { "4" } else { "12" };
    let file = programs::printed(&source("templates.py"), &[units], &format!("templates-{units}.cc"))?;
    let script = source("compile.sh").to_string_lossy().into_owned();
    let line = argv("/bin/sh", &[&script, &file.to_string_lossy(), "out.o"]);
    Ok(Work { name: "compile", short_argv: line.clone(), argv: line, warm: vec![file], limit: None })
}

fn redis(quick: bool) -> Result<Work> {
    let (keys, requests) = if quick { ("400000", "30000") } else { ("1200000", "100000") };
    let file = programs::printed(&source("redis_load.py"), &[keys], &format!("redis-load-{keys}"))?;
    let script = source("redis_bench.sh").to_string_lossy().into_owned();
    let line = argv("/bin/sh", &[&script, &file.to_string_lossy(), keys, requests]);
    Ok(Work { name: "redis", short_argv: line.clone(), argv: line, warm: vec![file], limit: None })
}

fn sort(quick: bool) -> Result<Work> {
    let size = if quick { "120" } else { "420" };
    let file = programs::printed(&source("lines.py"), &[size], &format!("lines-{size}"))?;
    let script = source("sort.sh").to_string_lossy().into_owned();
    let line = argv("/bin/sh", &[&script, &file.to_string_lossy(), "4G"]);
    Ok(Work { name: "sort", short_argv: line.clone(), argv: line, warm: vec![file], limit: None })
}

type Maker = fn(bool) -> Result<Work>;

/// All work, made ready.
pub fn all(quick: bool, wanted: impl Fn(&str) -> bool) -> Result<Vec<Work>> {
    let makers: [(&str, Maker); 5] = [
        ("touch", touch),
        ("python", |quick| Ok(dictionary(quick))),
        ("compile", compile),
        ("redis", redis),
        ("sort", sort),
    ];
    makers.into_iter().filter(|(name, _)| wanted(name)).map(|(_, make)| make(quick)).collect()
}

impl Work {
    /// Brings its files into the page cache, charged to us and not to whoever runs next.
    pub fn warm_up(&self) -> Result<()> {
        for file in &self.warm {
            fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        }
        Ok(())
    }

    /// The figures of a run: name -> microseconds an operation, or seconds. Less is better in all.
    pub fn figures(&self, ran: &Ran) -> Result<BTreeMap<String, f64>> {
        ensure!(ran.ending() == "0", "{} ended with {}: {}", self.name, ran.ending(), ran.complained());
        let mut figures = BTreeMap::new();
        for line in ran.said().lines().filter(|line| line.starts_with('{')) {
            let line: Value =
                serde_json::from_str(line).with_context(|| format!("{} printed {line}", self.name))?;
            ensure!(line["bad"] == 0, "{} read wrong bytes: {line}", self.name);
            let threads = line["threads"].as_u64().unwrap_or(1);
            let unit = line["unit"].as_str().unwrap_or("s");
            let threads = if unit == "s" {
                String::new()
            } else {
                format!(", {threads} thread{}", if threads > 1 { "s" } else { "" })
            };
            let name = format!("{}{threads} ({unit})", line["name"].as_str().unwrap_or("?"));
            figures.insert(name, line["value"].as_f64().context("a figure without a value")?);
        }
        if figures.is_empty() {
            figures.insert(format!("{} (s)", self.name), ran.wall.as_secs_f64());
        }
        Ok(figures)
    }
}
