//! A directory for temporary files on a real file system, gone when dropped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `/var/tmp/vswap-xtask-PID-NAME`.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it, empty.
    pub fn new(name: &str) -> Result<Self> {
        let path = Path::new("/var/tmp").join(format!("vswap-xtask-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
