//! Compiles the programs under `bench/` and `suite/programs/` and makes their data, once, in the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::{root, target_dir};

/// Debian's own interpreter: the one in `$PATH` may be a wrapper.
pub const PYTHON: &str = "/usr/bin/python3";

/// Where things go.
pub fn cache() -> Result<PathBuf> {
    let dir = target_dir().join("vswap-programs");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// A source of the suite.
pub fn source(name: &str) -> PathBuf {
    root().join("suite/programs").join(name)
}

fn newer(a: &Path, b: &Path) -> bool {
    let time = |p: &Path| fs::metadata(p).and_then(|m| m.modified()).ok();
    matches!((time(a), time(b)), (Some(a), Some(b)) if a > b)
}

/// Runs `command` unless `out` is newer than all sources.
fn make(out: &Path, sources: &[PathBuf], command: &mut Command) -> Result<()> {
    if sources.iter().all(|s| newer(out, s)) {
        return Ok(());
    }
    let done = command.stdin(Stdio::null()).status();
    let done = done.with_context(|| format!("cannot start {command:?}: run `cargo xtask setup-machine`"))?;
    ensure!(
        done.success(),
        "{command:?} failed with {done}; `cargo xtask setup-machine` installs what it needs"
    );
    Ok(())
}

fn c_program(name: &str, sources: &[PathBuf]) -> Result<PathBuf> {
    let out = cache()?.join(name);
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-g", "-Wall", "-Wextra", "-static", "-pthread", "-o"])
        .arg(&out)
        .args(sources)
        .arg("-lm");
    make(&out, sources, &mut gcc)?;
    Ok(out)
}

/// `bench/floors.c` and what belongs to it.
pub fn floors() -> Result<PathBuf> {
    c_program("floors", &["floors.c", "floor_zipf.c"].map(|f| root().join("bench").join(f)))
}

/// `bench/touch.c`.
pub fn touch() -> Result<PathBuf> {
    c_program("touch", &[root().join("bench/touch.c")])
}

/// `bench/checker/`.
pub fn checker() -> Result<PathBuf> {
    let dir = root().join("bench/checker");
    c_program("checker", &["main.c", "content.c", "pages.c", "mixed.c"].map(|f| dir.join(f)))
}

/// A static C program of the suite.
pub fn c(name: &str) -> Result<PathBuf> {
    c_program(name, &[source(&format!("{name}.c"))])
}

/// The musl Rust program of the suite.
pub fn musl_rust() -> Result<PathBuf> {
    let (out, from) = (cache()?.join("heap-musl"), source("heap.rs"));
    let mut rustc = Command::new("rustc");
    rustc
        .args(["-O", "--edition", "2024", "--target", "x86_64-unknown-linux-musl", "-o"])
        .arg(&out)
        .arg(&from);
    make(&out, &[from], &mut rustc)?;
    Ok(out)
}

/// The Go program of the suite.
pub fn go() -> Result<PathBuf> {
    let (out, from) = (cache()?.join("goroutines"), source("goroutines.go"));
    let mut go = Command::new("go");
    go.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod").args(["build", "-o"]).arg(&out).arg(&from);
    make(&out, &[from], &mut go)?;
    Ok(out)
}

/// What a Python script of ours prints, as a file.
pub fn printed(script: &Path, args: &[&str], name: &str) -> Result<PathBuf> {
    let (out, half) = (cache()?.join(name), cache()?.join(format!("{name}.half")));
    if newer(&out, script) {
        return Ok(out);
    }
    let done = Command::new(PYTHON).arg(script).args(args).stdout(fs::File::create(&half)?).status()?;
    if !done.success() {
        bail!("{} failed with {done}", script.display());
    }
    fs::rename(&half, &out)?;
    Ok(out)
}

/// Pages of a real heap, about 3:1 (`bench/heap.py`).
pub fn heap_dump() -> Result<PathBuf> {
    let (out, script) = (cache()?.join("heap.bin"), root().join("bench/heap.py"));
    let mut python = Command::new(PYTHON);
    python.arg(&script).arg(&out).arg("96").stdout(Stdio::null());
    make(&out, &[script], &mut python)?;
    Ok(out)
}

/// A program that crates.io has, of this version.
fn installed(name: &str, version: &str) -> Result<PathBuf> {
    let root = cache()?.join(format!("{name}-{version}"));
    let out = root.join("bin").join(name);
    if out.exists() {
        return Ok(out);
    }
    let mut cargo = Command::new("cargo");
    // Not in the tree, whose settings are not for others. Not optimized: what it asks for takes the time.
    cargo
        .current_dir("/")
        .args(["install", "--quiet", "--locked", "--debug", name, "--version", version, "--root"])
        .arg(&root);
    let done = cargo.stdin(Stdio::null()).status()?;
    ensure!(
        done.success(),
        "{cargo:?} failed with {done}; `cargo xtask setup-machine` installs what it needs"
    );
    Ok(out)
}

/// The file system exerciser, as rewritten by Alan Somers.
pub fn fsx() -> Result<PathBuf> {
    installed("fsx", "0.3.2")
}

/// Pawel Jakub Dawidek's tests of POSIX file systems, as rewritten in Rust.
pub fn pjdfstest() -> Result<PathBuf> {
    installed("pjdfstest", "0.2.2")
}
