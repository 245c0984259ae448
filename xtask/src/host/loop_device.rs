//! A block device over a file, detached when dropped.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Where Debian has `losetup`: not in everybody's path.
const LOSETUP: &str = "/sbin/losetup";

/// See the module.
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    /// Makes it; an error where there are no loop devices, or the caller is not root.
    pub fn over(file: &Path) -> Result<Self> {
        // Not ended by the terminal's Ctrl-C, which is for us: nobody would know of the device.
        let mut losetup = Command::new(LOSETUP);
        let made =
            losetup.args(["--find", "--show"]).arg(file).stdin(Stdio::null()).process_group(0).output();
        let made = made.with_context(|| format!("cannot start {LOSETUP}"))?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr).trim());
        Ok(Self(String::from_utf8(made.stdout).context("losetup's answer")?.trim().into()))
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    /// One that is still open goes when it is closed.
    fn drop(&mut self) {
        let gone = Command::new(LOSETUP).arg("--detach").arg(&self.0).process_group(0).status();
        if !gone.is_ok_and(|status| status.success()) {
            eprintln!("xtask: cannot detach {}", self.0.display());
        }
    }
}
