//! Where segment files go, and how big they may get.

use std::path::{Path, PathBuf};

use vswap_desk::room::{spare, tier};
use vswap_engine::TierConfig;
use vswap_sys::direct::place;

use crate::config::{DiskRoom, RunConfig};

/// What the engine is told. An error is a sentence for the user.
pub(crate) fn choose(config: &RunConfig) -> Result<Vec<TierConfig>, String> {
    let others = config.tiers.iter().map(|place| tier(&place.dir, place.size, place.priority));
    usual(config)?.map(Ok).into_iter().chain(others).collect()
}

/// The tier that is there without being asked for.
fn usual(config: &RunConfig) -> Result<Option<TierConfig>, String> {
    if config.disk == DiskRoom::Nothing {
        return Ok(None);
    }
    let Some(dir) = directory(config)? else { return Ok(None) };
    let capacity = match config.disk {
        DiskRoom::AtMost(bytes) => bytes,
        _ => spare(&dir)?,
    };
    Ok(Some(TierConfig::new(dir, capacity)))
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
