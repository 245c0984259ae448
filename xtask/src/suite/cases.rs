//! The programs of the suite: how each is made and called, in a full and in a quick size.

use std::ffi::OsString;
use std::fs;

use anyhow::Result;

use crate::host::programs::{self, PYTHON, source};

/// One program.
pub struct Case {
    /// What it is called in the table and for `--only`.
    pub name: &'static str,
    /// Its command line, after everything that it needs has been made; the argument says whether the quick size is wanted.
    pub argv: fn(quick: bool) -> Result<Vec<OsString>>,
}

fn words(parts: &[&std::ffi::OsStr]) -> Vec<OsString> {
    parts.iter().map(|&part| part.to_owned()).collect()
}

fn script(interpreter: &str, name: &str, args: &[&str]) -> Vec<OsString> {
    let mut argv = vec![OsString::from(interpreter), source(name).into_os_string()];
    argv.extend(args.iter().map(OsString::from));
    argv
}

fn size(quick: bool, small: &'static str, full: &'static str) -> &'static str {
    if quick { small } else { full }
}

fn static_c(quick: bool) -> Result<Vec<OsString>> {
    Ok(words(&[programs::c("walk")?.as_os_str(), size(quick, "96", "320").as_ref()]))
}

fn bss(_: bool) -> Result<Vec<OsString>> {
    Ok(words(&[programs::c("bss")?.as_os_str()]))
}

fn musl(quick: bool) -> Result<Vec<OsString>> {
    Ok(words(&[programs::musl_rust()?.as_os_str(), size(quick, "48", "120").as_ref()]))
}

fn go(quick: bool) -> Result<Vec<OsString>> {
    Ok(words(&[programs::go()?.as_os_str(), size(quick, "160", "480").as_ref()]))
}

fn python(quick: bool) -> Result<Vec<OsString>> {
    Ok(script(PYTHON, "threads.py", &[size(quick, "80", "220")]))
}

fn python_in_a_wrapper(quick: bool) -> Result<Vec<OsString>> {
    let mut argv = words(&[source("wrapper.sh").as_os_str(), source("threads.py").as_os_str()]);
    argv.push(size(quick, "80", "160").into());
    Ok(argv)
}

fn redis(quick: bool) -> Result<Vec<OsString>> {
    Ok(script("/bin/sh", "redis.sh", &[".", size(quick, "100", "130")]))
}

fn sqlite(quick: bool) -> Result<Vec<OsString>> {
    let rows = size(quick, "150000", "500000");
    let file = programs::cache()?.join(format!("sqlite-{rows}.sql"));
    fs::write(&file, fs::read_to_string(source("sqlite.sql"))?.replace("ROWS", rows))?;
    Ok(vec!["sqlite3".into(), ":memory:".into(), format!(".read {}", file.display()).into()])
}

fn compiler(quick: bool) -> Result<Vec<OsString>> {
    let units = size(quick, "4", "14");
    let file = programs::printed(&source("templates.py"), &[units], &format!("templates-{units}.cc"))?;
    Ok(words(&["/bin/sh".as_ref(), source("compile.sh").as_os_str(), file.as_os_str(), "out.o".as_ref()]))
}

fn perl(quick: bool) -> Result<Vec<OsString>> {
    Ok(script("perl", "words.pl", &[size(quick, "60", "180")]))
}

fn sort(quick: bool) -> Result<Vec<OsString>> {
    let size = size(quick, "40", "160");
    let file = programs::printed(&source("lines.py"), &[size], &format!("lines-{size}"))?;
    Ok(words(&["/bin/sh".as_ref(), source("sort.sh").as_os_str(), file.as_os_str(), "1500M".as_ref()]))
}

/// All of them.
pub fn all() -> Vec<Case> {
    vec![
        Case { name: "static-c", argv: static_c },
        Case { name: "musl-rust", argv: musl },
        Case { name: "bss-300-mib", argv: bss },
        Case { name: "go-goroutines", argv: go },
        Case { name: "python-threads", argv: python },
        Case { name: "python-in-a-wrapper", argv: python_in_a_wrapper },
        Case { name: "redis", argv: redis },
        Case { name: "sqlite", argv: sqlite },
        Case { name: "g++", argv: compiler },
        Case { name: "perl", argv: perl },
        Case { name: "sort", argv: sort },
    ]
}
