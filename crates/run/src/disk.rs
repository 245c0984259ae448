//! Where the segment file goes, and how big it may get.

use std::path::{Path, PathBuf};

use vswap_core::ByteCount;
use vswap_engine::DiskConfig;
use vswap_sys::direct::place;

use crate::config::{DiskRoom, RunConfig};

/// Part of the free space that is taken when nothing is said, in percent.
const SPARE_PERCENT: u64 = 80;

/// What the engine is told. An error is a sentence for the user.
pub(crate) fn choose(config: &RunConfig) -> Result<Option<DiskConfig>, String> {
    if config.disk == DiskRoom::Nothing {
        return Ok(None);
    }
    let Some(dir) = directory(config)? else { return Ok(None) };
    let capacity = match config.disk {
        DiskRoom::AtMost(bytes) => bytes,
        _ => {
            let free = place::free_space(&dir)
                .map_err(|error| format!("cannot see the free space of {}: {error}", dir.display()))?;
            ByteCount::new(free / 100 * SPARE_PERCENT)
        }
    };
    Ok(Some(DiskConfig { dir, capacity }))
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
