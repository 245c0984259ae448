//! [`Place`]: a source, a store, and where the one is shown through the other.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::host::interrupt;
use crate::host::scratch::Scratch;

/// Within so long a mount is there, or never.
const SOON: Duration = Duration::from_secs(20);

/// Gone when dropped.
pub struct Place {
    vswap: PathBuf,
    dir: Scratch,
}

/// What shows a directory somewhere else, until this is dropped.
pub struct Shown {
    child: Child,
    point: PathBuf,
}

impl Place {
    /// With an empty store of this size.
    pub fn new(vswap: &Path, name: &str, size: &str) -> Result<Self> {
        let place = Self { vswap: vswap.to_owned(), dir: Scratch::new(name)? };
        for dir in ["source", "plain", "point", "slow", "tmp"] {
            fs::create_dir(place.dir.path().join(dir))?;
        }
        let mut init = Command::new(vswap);
        init.args(["cache", "init"]).arg(place.at("store")).args(["--size", size]);
        ensure!(init.status()?.success(), "{init:?} failed");
        Ok(place)
    }

    /// `source`, `plain`, `point`, `slow`, `tmp`.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Shows the source, or what else takes its place, at `point`.
    pub fn mount(&self, source: &str, more: &[&str]) -> Result<Shown> {
        let mut mount = Command::new(&self.vswap);
        mount.args(["cache", "mount", "--source"]).arg(self.at(source)).arg("--store").arg(self.at("store"));
        mount.args(more).arg(self.at("point"));
        self.show(&mut mount, "point", "is shown at")
    }

    /// Shows the source at `slow`, where each call takes so many milliseconds.
    pub fn slowly(&self, slow: &Path, milliseconds: u64) -> Result<Shown> {
        let mut command = Command::new(slow);
        command.arg(self.at("source")).arg(self.at("slow")).arg(milliseconds.to_string());
        self.show(&mut command, "slow", "shown")
    }

    fn show(&self, command: &mut Command, point: &str, word: &str) -> Result<Shown> {
        let said = self.at(&format!("{point}.said"));
        let out = File::create(&said)?;
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let mut shown = Shown { child, point: self.at(point) };
        let until = Instant::now() + SOON;
        while !fs::read_to_string(&said).unwrap_or_default().contains(word) {
            interrupt::check()?;
            let ended = shown.child.try_wait()?.is_some();
            if ended || Instant::now() > until {
                bail!("{command:?}: {}", fs::read_to_string(&said).unwrap_or_default().trim());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(shown)
    }

    /// Runs a program in one of the directories; what it says, or how it failed.
    pub fn run(&self, program: impl AsRef<OsStr>, args: &[&OsStr], dir: &str) -> Result<String> {
        interrupt::check()?;
        let mut command = Command::new(program);
        command.args(args).current_dir(self.at(dir)).stdin(Stdio::null());
        command.env("LC_ALL", "C").env("TMPDIR", self.at("tmp")).env("TZ", "UTC");
        let done = command.output().with_context(|| format!("cannot start {command:?}"))?;
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        ensure!(done.status.success(), "{command:?} ended with {}: {out}{err}", done.status);
        Ok(out.into_owned())
    }
}

impl Shown {
    /// As a user does it.
    pub fn unmount(mut self) -> Result<()> {
        let until = Instant::now() + SOON;
        // What a program had open may be closed a moment after its end.
        while !Command::new("umount").arg(&self.point).stderr(Stdio::null()).status()?.success() {
            ensure!(Instant::now() < until, "cannot unmount {}", self.point.display());
            std::thread::sleep(Duration::from_millis(50));
        }
        let ended = self.child.wait()?;
        ensure!(ended.success(), "who showed {} ended with {ended}", self.point.display());
        Ok(())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = Command::new("umount").arg("-l").arg(&self.point).stderr(Stdio::null()).status();
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
