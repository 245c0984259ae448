//! Whether a place does for a tier, what kind it is, and what it can spare.

use std::path::{Path, PathBuf};

use vswap_core::ByteCount;
use vswap_engine::{SEGMENT_BYTES, TierConfig, TierKind, is_lent};
use vswap_sys::direct::{NameKind, place};

/// Part of the free space that is taken when nothing is said, in percent.
const SPARE_PERCENT: u64 = 80;

/// A tier that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Where; of no use for a ghost.
    pub path: &'a Path,
    /// What it is; what the path stands for if nothing is said.
    pub kind: Option<TierKind>,
    /// The most bytes that it may take.
    pub size: Option<ByteCount>,
    /// The highest that has room is written first.
    pub priority: i16,
    /// What is on a file or device is overwritten.
    pub force: bool,
}

/// A tier in a place that must do. A file or device is not looked into yet.
///
/// # Errors
/// A sentence for the user: why not, and what to do.
pub fn tier(wanted: &Wanted<'_>) -> Result<TierConfig, String> {
    let Wanted { path, size, priority, force, .. } = *wanted;
    let kind = wanted.kind.map_or_else(|| kind_of(path), Ok)?;
    if kind == TierKind::Ghost {
        return Ok(TierConfig { kind, path: PathBuf::new(), size, priority, force });
    }
    let least = match kind {
        TierKind::Directory => {
            place::check(path).map_err(|error| format!("{error}; choose another directory for this tier"))?;
            Some(size.map_or_else(|| spare(path), Ok)?)
        }
        TierKind::Store => size,
        _ => None,
    };
    if let Some(least) = least.filter(|least| least.get() < SEGMENT_BYTES as u64) {
        return Err(format!(
            "{least} in {} are less than one segment of 2 MiB; choose more, or another directory",
            path.display()
        ));
    }
    let path = std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(TierConfig { kind, path, size, priority, force })
}

/// What a path stands for.
///
/// # Errors
/// A sentence for the user, if that can be no tier.
pub fn kind_of(path: &Path) -> Result<TierKind, String> {
    match NameKind::of(path) {
        Ok(NameKind::Directory) if is_lent(path) => Ok(TierKind::Store),
        Ok(NameKind::Directory) => Ok(TierKind::Directory),
        Ok(NameKind::File) => Ok(TierKind::File),
        Ok(NameKind::Device) => Ok(TierKind::Device),
        Ok(other) => Err(format!("{} is {}, and can be no tier", path.display(), other.name())),
        Err(error) => {
            let remedy =
                "name a directory, a file or a block device (with --kind file and --size a file is made)";
            Err(format!("cannot examine {}: {error}; {remedy}", path.display()))
        }
    }
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
