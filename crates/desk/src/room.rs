//! Whether a directory does for a tier, and what it can spare.

use std::path::Path;

use vswap_core::ByteCount;
use vswap_engine::{SEGMENT_BYTES, TierConfig};
use vswap_sys::direct::place;

/// Part of the free space that is taken when nothing is said, in percent.
const SPARE_PERCENT: u64 = 80;

/// A tier in a directory that must do.
///
/// # Errors
/// A sentence for the user: why not, and what to do.
pub fn tier(dir: &Path, size: Option<ByteCount>, priority: i16) -> Result<TierConfig, String> {
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

/// What the file system of a directory can spare.
///
/// # Errors
/// A sentence for the user: why not, and what to do.
pub fn spare(dir: &Path) -> Result<ByteCount, String> {
    let free = place::free_space(dir)
        .map_err(|error| format!("cannot see the free space of {}: {error}", dir.display()))?;
    Ok(ByteCount::new(free / 100 * SPARE_PERCENT))
}
