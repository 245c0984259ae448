//! Habits that a compiler does not check, as a check: where unsafe may be, how long a file may be, what may not be left behind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::host::root;

/// Lines of a file without its tests. A ratchet: lower it when the longest file allows.
const LONGEST_FILE: usize = 800;
/// The only crates whose modules may opt into unsafe.
const UNSAFE_CRATES: &[&str] = &["crates/sys/", "crates/stub/"];
/// Words that say "not finished". In two halves, so that this file is not found.
const LEFT_BEHIND: &[&str] = &[
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("db", "g!("),
];

/// Fails with every breach.
pub fn run() -> Result<()> {
    let (mut files, mut found) = (Vec::new(), Vec::new());
    for dir in ["crates", "xtask"] {
        rust_files(&root().join(dir), &mut files)?;
    }
    files.sort();
    let mut lengths = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root()).unwrap_or(file).display().to_string();
        found.extend(breaches(&name, &text));
        lengths.push(length_without_tests(&text));
    }
    found.extend(manifests()?);
    if !found.is_empty() {
        bail!("{} breaches of tidiness:\n  {}", found.len(), found.join("\n  "));
    }
    lengths.sort_unstable();
    println!(
        "tidy: {} files, median {} lines, longest {}",
        files.len(),
        lengths.get(lengths.len() / 2).copied().unwrap_or(0),
        lengths.last().copied().unwrap_or(0)
    );
    Ok(())
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            rust_files(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

fn length_without_tests(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    let tests =
        lines.windows(2).position(|w| w[0].trim() == "#[cfg(test)]" && w[1].starts_with("mod tests {"));
    tests.unwrap_or(lines.len())
}

fn breaches(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let opts_in =
        text.lines().any(|line| line.trim_start().starts_with("#") && line.contains("allow(unsafe_code)"));
    if opts_in && !UNSAFE_CRATES.iter().any(|dir| name.starts_with(dir)) {
        found.push(format!("{name} opts into unsafe code; only {} may", UNSAFE_CRATES.join(" and ")));
    }
    if text.lines().any(|line| line.starts_with("#![allow(unsafe_code)]")) {
        let header: Vec<_> = text
            .lines()
            .take_while(|l| l.starts_with("//!") || l.starts_with("#!") || l.is_empty())
            .collect();
        if !header.iter().any(|line| line.trim_start_matches("//!").trim() == "# Safety") {
            found.push(format!("{name} opts into unsafe code without a `# Safety` section in its header"));
        }
    }
    if !text
        .lines()
        .find(|l| !l.is_empty() && !l.starts_with("#!"))
        .is_some_and(|line| line.starts_with("//!"))
    {
        found.push(format!("{name} has no header that says what it is for"));
    }
    let length = length_without_tests(text);
    if length > LONGEST_FILE {
        found.push(format!("{name} has {length} lines without its tests, more than {LONGEST_FILE}"));
    }
    for (number, line) in text.lines().enumerate() {
        if let Some(word) = LEFT_BEHIND.iter().find(|word| line.contains(**word)) {
            found.push(format!("{name}:{}: {word} left behind", number + 1));
        }
    }
    found
}

/// Every crate takes the workspace's lints, or its unsafe would pass unseen.
fn manifests() -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut dirs: Vec<_> =
        fs::read_dir(root().join("crates"))?.filter_map(|e| Some(e.ok()?.path())).collect();
    dirs.push(root().join("xtask"));
    for dir in dirs.iter().filter(|dir| dir.join("Cargo.toml").exists()) {
        let text = fs::read_to_string(dir.join("Cargo.toml"))?;
        if !text.contains("[lints]\nworkspace = true") {
            found.push(format!("{} does not take the workspace's lints", dir.join("Cargo.toml").display()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{breaches, length_without_tests};

    #[test]
    fn unsafe_outside_its_crates_is_found() {
        let text = "//! A module.\n#[allow(unsafe_code)]\nfn f() {}\n";
        assert_eq!(breaches("crates/pool/src/lib.rs", text).len(), 1);
        assert_eq!(breaches("crates/sys/src/lib.rs", text).len(), 0);
    }

    #[test]
    fn an_unsafe_module_must_say_why_it_is_sound() {
        let bare = "//! A module.\n#![allow(unsafe_code)]\n";
        let said = "//! A module.\n//!\n//! # Safety\n//! Because.\n#![allow(unsafe_code)]\n";
        assert_eq!(breaches("crates/sys/src/a.rs", bare).len(), 1);
        assert_eq!(breaches("crates/sys/src/a.rs", said).len(), 0);
    }

    #[test]
    fn tests_do_not_count_as_length() {
        let text = format!(
            "//! x\n{}#[cfg(test)]\nmod tests {{\n{}}}\n",
            "fn a() {}\n".repeat(10),
            "// t\n".repeat(1000)
        );
        assert_eq!(length_without_tests(&text), 11);
    }
}
