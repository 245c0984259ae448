//! `cargo xtask layers`: proves from `cargo metadata` that crates import only downward.
//!
//! Ordinary and build dependencies go to a strictly lower layer. Dev-dependencies may also stay on their own layer, so that a
//! test can put two neighbours together; they never go up.

use std::process::Command;

use anyhow::{Result, bail, ensure};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use crate::host::root;

/// Each crate and its layer.
const LAYERS: &[(&str, u8)] = &[
    ("vswap-core", 0),
    ("vswap-stub", 0),
    ("vswap-sys", 1),
    ("vswap-control", 1),
    ("vswap-codec", 2),
    ("vswap-pool", 2),
    ("vswap-segment", 2),
    ("vswap-engine", 3),
    ("vswap-pager", 4),
    ("vswap-objects", 4),
    ("vswap-desk", 5),
    ("vswap-mount", 5),
    ("vswap-run", 6),
    ("vswap-doctor", 6),
    ("vswap", 7),
    ("vswap-fuzz", 8),
    ("vswap-bench", 8),
];
/// Runs programs from outside: may use the core's types and nothing else of ours.
const OUTSIDE: &str = "xtask";
/// Crates that must not depend on anything but these.
const BARE: &[(&str, &[&str])] = &[("vswap-stub", &[]), ("vswap-core", &["loom", "thiserror"])];

/// Fails with every breach.
pub fn run() -> Result<()> {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec()?;
    let breaches = breaches(&metadata);
    if !breaches.is_empty() {
        bail!("{} breaches of the layer table:\n  {}", breaches.len(), breaches.join("\n  "));
    }
    println!("layers: {} crates import only downward", metadata.packages.len());
    core_without_a_system()
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

fn breaches(metadata: &Metadata) -> Vec<String> {
    let mut found = Vec::new();
    for package in &metadata.packages {
        found.extend(misplaced(package));
        for dependency in &package.dependencies {
            let (name, kind) = (dependency.name.as_str(), dependency.kind);
            let bare = BARE.iter().find(|(bare, _)| *bare == package.name.as_str());
            if bare.is_some_and(|(_, only)| kind != DependencyKind::Development && !only.contains(&name)) {
                found.push(format!("{} is to stand alone but depends on {name}", package.name));
            }
            found.extend(upward(&package.name, name, kind));
        }
    }
    found
}

/// Says how a dependency breaks the table, if it does.
fn upward(from: &str, to: &str, kind: DependencyKind) -> Option<String> {
    let below = layer(to)?;
    if from == OUTSIDE {
        return (to != "vswap-core").then(|| format!("{from} imports {to}: it may use the core only"));
    }
    let here = layer(from)?;
    let allowed = if kind == DependencyKind::Development { below <= here } else { below < here };
    (!allowed).then(|| format!("{from} (layer {here}) imports {to} (layer {below}) as a {kind} dependency"))
}

/// Folder name = crate name, known to the table, lints of the workspace.
fn misplaced(package: &Package) -> Option<String> {
    let name = package.name.as_str();
    if name == OUTSIDE {
        return None;
    }
    let folder = package.manifest_path.parent()?.file_name()?;
    if layer(name).is_none() {
        return Some(format!("{name} is not in the layer table (xtask/src/layers.rs)"));
    }
    (name.strip_prefix("vswap-").unwrap_or(name) != folder)
        .then(|| format!("{name} lies in a folder called {folder}"))
}

/// What has no operating system under it cannot do I/O, read a clock or start a thread.
fn core_without_a_system() -> Result<()> {
    let done = Command::new("cargo")
        .current_dir(root())
        .args(["build", "--quiet", "-p", "vswap-core", "--target", "x86_64-unknown-none"])
        .status()?;
    ensure!(
        done.success(),
        "the core does not build for x86_64-unknown-none (`cargo xtask setup-machine` adds the target)"
    );
    println!("layers: the core builds for a bare machine");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::upward;
    use cargo_metadata::DependencyKind::{Build, Development, Normal};

    #[test]
    fn an_import_upward_is_a_breach() {
        assert!(upward("vswap-pool", "vswap-engine", Normal).is_some());
        assert!(upward("vswap-core", "vswap", Development).is_some());
    }

    #[test]
    fn neighbours_do_not_import_each_other_except_in_tests() {
        assert!(upward("vswap-pool", "vswap-segment", Normal).is_some());
        assert!(upward("vswap-pool", "vswap-segment", Build).is_some());
        assert!(upward("vswap-pool", "vswap-segment", Development).is_none());
    }

    #[test]
    fn xtask_stays_outside() {
        assert!(upward("xtask", "vswap-run", Normal).is_some());
        assert!(upward("xtask", "vswap-core", Normal).is_none());
    }

    #[test]
    fn crates_of_others_have_no_layer() {
        assert!(upward("vswap-core", "libc", Normal).is_none());
    }
}
