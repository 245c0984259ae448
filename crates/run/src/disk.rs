//! Where segment files go, and how big they may get.

use std::path::{Path, PathBuf};

use vswap_desk::room::{Wanted, kind_of, tier};
use vswap_engine::{TierConfig, TierKind};
use vswap_sys::direct::place;

use crate::config::{DiskRoom, RunConfig, TierPlace};

/// What the engine is told. An error is a sentence for the user.
pub(crate) fn choose(config: &RunConfig) -> Result<Vec<TierConfig>, String> {
    let others = config.tiers.iter().map(|place| {
        let TierPlace { path, kind, size, priority, force } = place;
        tier(&Wanted { path, kind: *kind, size: *size, priority: *priority, force: *force })
    });
    usual(config)?.map(Ok).into_iter().chain(others).collect()
}

/// The tier that is there without being asked for.
fn usual(config: &RunConfig) -> Result<Option<TierConfig>, String> {
    if config.disk == DiskRoom::Nothing {
        return Ok(None);
    }
    let size = match config.disk {
        DiskRoom::AtMost(bytes) => Some(bytes),
        _ => None,
    };
    if let Some(path) = &config.disk_path
        && let Ok(kind @ (TierKind::File | TierKind::Device | TierKind::Store)) = kind_of(path)
    {
        let wanted = Wanted { path, kind: Some(kind), size, priority: 0, force: false };
        return tier(&wanted).map(Some);
    }
    let dir = directory(config)?;
    Ok(dir.map(|dir| TierConfig { size, ..TierConfig::of(TierKind::Directory, dir) }))
}

/// The directory asked for, which must do; else the first usual one that does; `None` if all of these are memory.
fn directory(config: &RunConfig) -> Result<Option<PathBuf>, String> {
    if let Some(dir) = &config.disk_path {
        let remedy = "choose another directory with --disk-path, or --disk none";
        place::check(dir).map_err(|error| format!("{error}; {remedy}"))?;
        let absolute = std::path::absolute(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        return Ok(Some(absolute));
    }
    let usual =
        std::env::var_os("TMPDIR").map(PathBuf::from).into_iter().chain([Path::new("/var/tmp").into()]);
    Ok(usual.filter(|dir: &PathBuf| dir.is_absolute()).find(|dir| place::check(dir).is_ok()))
}
