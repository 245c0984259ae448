//! `cargo xtask dist`: the release, one static file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::host::{root, target_dir};

/// Musl's start-up makes none of glibc's CPUID calls, each of which a virtual machine traps: the command starts 0.2 to 0.3 ms sooner.
pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// The `vswap` that a task is told to use, or the tree's own release.
pub fn vswap(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(path) => fs::canonicalize(path).with_context(|| format!("no vswap at {}", path.display())),
        None => build(&["--quiet"]),
    }
}

fn build(options: &[&str]) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()).args(["build", "--release", "-p", "vswap", "--target", TARGET]).args(options);
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    ensure!(
        cargo.status()?.success(),
        "the release does not build; cargo xtask setup-machine installs what it needs"
    );
    Ok(target_dir().join(TARGET).join("release/vswap"))
}

/// Builds it, proves that it is static, says where it is and how large.
pub fn run() -> Result<()> {
    let file = build(&[])?;
    let image = fs::read(&file).with_context(|| format!("no {}", file.display()))?;
    if let Some(interpreter) = interpreter(&image)? {
        bail!("{} is not static: it asks for {interpreter}", file.display());
    }
    let said = Command::new(&file).arg("--version").output().context("the release does not start")?;
    println!(
        "{}: static, {:.2} MB, {}",
        file.display(),
        image.len() as f64 / 1e6,
        String::from_utf8_lossy(&said.stdout).trim()
    );
    Ok(())
}

/// The program interpreter (PT_INTERP) that a 64-bit ELF asks for.
fn interpreter(image: &[u8]) -> Result<Option<String>> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, len: usize| -> Result<u64> {
        let bytes = image.get(at..at + len).context("truncated ELF")?;
        Ok(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    };
    ensure!(image.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF");
    let (table, entry, entries) = (number(32, 8)? as usize, number(54, 2)? as usize, number(56, 2)? as usize);
    for header in (0..entries).map(|i| table + i * entry) {
        if number(header, 4)? == PT_INTERP {
            let (at, len) = (number(header + 8, 8)? as usize, number(header + 32, 8)? as usize);
            let name = image.get(at..at + len).context("truncated ELF")?;
            return Ok(Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()));
        }
    }
    Ok(None)
}

/// What `vswap` prints for these words.
pub fn say(vswap: &Path, words: &[&str]) -> Result<String> {
    let out = Command::new(vswap).args(words).output()?;
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(out.status.success(), "vswap {}: {error}", words.join(" "));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::interpreter;

    #[test]
    fn a_dynamic_program_is_not_taken_for_a_static_one() {
        let image = std::fs::read("/bin/sh").expect("a shell");
        let found = interpreter(&image).expect("an ELF").expect("Debian's shell is dynamic");
        assert!(found.contains("ld-linux"), "{found}");
    }

    #[test]
    fn what_is_no_elf_is_refused() {
        assert!(interpreter(b"#!/bin/sh\n").is_err());
    }
}
