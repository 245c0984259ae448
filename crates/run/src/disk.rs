//! Where segment files go, and how big they may get.

use std::path::{Path, PathBuf};

use vswap_core::ByteCount;
use vswap_engine::{SEGMENT_BYTES, TierConfig};
use vswap_sys::direct::place;

use crate::config::{DiskRoom, RunConfig};

/// Part of the free space that is taken when nothing is said, in percent.
const SPARE_PERCENT: u64 = 80;

/// What the engine is told. An error is a sentence for the user.
pub(crate) fn choose(config: &RunConfig) -> Result<Vec<TierConfig>, String> {
    let others = config.tiers.iter().map(|place| tier(&place.dir, place.size, place.priority));
    usual(config)?.map(Ok).into_iter().chain(others).collect()
}

/// A tier in a directory that must do.
pub(crate) fn tier(dir: &Path, size: Option<ByteCount>, priority: i16) -> Result<TierConfig, String> {
    place::check(dir).map_err(|error| format!("{error}; choose another directory for this tier"))?;
    let dir = std::path::absolute(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let capacity = size.map_or_else(|| spare(&dir), Ok)?;
    if capacity.get() < SEGMENT_BYTES as u64 {
        return Err(format!(
            "{capacity} in {} are less than one segment of 2 MiB; choose more, or another directory",
            dir.display()
        ));
    }
    Ok(TierConfig { dir, capacity, priority })
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

/// What the file system of a directory can spare.
fn spare(dir: &Path) -> Result<ByteCount, String> {
    let free = place::free_space(dir)
        .map_err(|error| format!("cannot see the free space of {}: {error}", dir.display()))?;
    Ok(ByteCount::new(free / 100 * SPARE_PERCENT))
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
