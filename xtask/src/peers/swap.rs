//! The kernel's own swap, set up for one run and undone on drop: swap file, zswap over it, zram.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Room on each device: more than any of the programs here swaps out.
const SIZE: u64 = 6 << 30;
const ZSWAP: &str = "/sys/module/zswap/parameters";

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A plain swap file.
    File,
    /// The same with zswap in front, as this machine has its compressor set.
    Zswap,
    /// A compressed RAM disk with this compressor.
    Zram(&'static str),
}

/// A kernel swap that is on. Drop order: swapoff first, then what it stood on.
pub struct Swap {
    on: SwapOn,
    _zswap: Option<Setting>,
    base: Base,
}

enum Base {
    File,
    Zswap,
    Zram(Zram),
}

impl Swap {
    /// Turns it on. `file` was made by [`make_file`].
    pub fn on(peer: Peer, file: &Path) -> Result<Self> {
        let (device, base) = match peer {
            Peer::File => (file.to_owned(), Base::File),
            Peer::Zswap => (file.to_owned(), Base::Zswap),
            Peer::Zram(compressor) => {
                let zram = Zram::new(compressor)?;
                (zram.device(), Base::Zram(zram))
            }
        };
        quietly(Command::new("mkswap").arg(&device))?;
        // Zswap would also stand before zram and the plain file.
        let enabled = Path::new(ZSWAP).join("enabled");
        let zswap = match (peer, enabled.exists()) {
            (Peer::Zswap, false) => bail!("this kernel has no zswap"),
            (_, false) => None,
            (peer, true) => Some(Setting::set(&enabled, if peer == Peer::Zswap { "Y" } else { "N" })?),
        };
        Ok(Self { on: SwapOn::new(device)?, _zswap: zswap, base })
    }

    /// Turns it off; how long that takes. All of it comes back to memory.
    pub fn off(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.on.off()?;
        Ok(began.elapsed())
    }

    /// Bytes of memory that the compressed pages take now; cgroup v1 charges them to nobody.
    pub fn pool(&self) -> u64 {
        match &self.base {
            Base::File => 0,
            Base::Zswap => {
                let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
                let line = text.lines().find_map(|line| line.strip_prefix("Zswap:"));
                line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
            }
            Base::Zram(zram) => zram.memory_used(),
        }
    }
}

/// Refuses to measure beside swap of others: it would take part.
pub fn refuse_foreign_swap() -> Result<()> {
    let swaps = fs::read_to_string("/proc/swaps").context("cannot read /proc/swaps")?;
    let others: Vec<_> = swaps.lines().skip(1).collect();
    ensure!(
        others.is_empty(),
        "other swap is on and would take part; turn it off first (swapoff): {}",
        others.join(", ")
    );
    Ok(())
}

/// Makes the swap file, without holes.
pub fn make_file(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("swapfile");
    quietly(Command::new("fallocate").arg("-l").arg(SIZE.to_string()).arg(&path))?;
    quietly(Command::new("chmod").arg("600").arg(&path))?;
    Ok(path)
}

fn quietly(command: &mut Command) -> Result<()> {
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

struct SwapOn(Option<PathBuf>);

impl SwapOn {
    fn new(device: PathBuf) -> Result<Self> {
        quietly(Command::new("swapon").arg(&device))?;
        Ok(Self(Some(device)))
    }

    fn off(&mut self) -> Result<()> {
        let Some(device) = self.0.take() else { return Ok(()) };
        let off = quietly(Command::new("swapoff").arg(&device));
        if off.is_err() {
            self.0 = Some(device);
        }
        off
    }
}

impl Drop for SwapOn {
    fn drop(&mut self) {
        if let Err(error) = self.off() {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// A kernel parameter, put back on drop.
struct Setting {
    file: PathBuf,
    before: String,
}

impl Setting {
    fn set(file: &Path, value: &str) -> Result<Self> {
        let before = fs::read_to_string(file)?.trim().to_owned();
        fs::write(file, value).with_context(|| format!("cannot write {value} to {}", file.display()))?;
        Ok(Self { file: file.to_owned(), before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.file, &self.before) {
            eprintln!("xtask: cannot put {} back into {}: {error}", self.before, self.file.display());
        }
    }
}

struct Zram(u32);

impl Zram {
    fn new(compressor: &str) -> Result<Self> {
        let _ = Command::new("/sbin/modprobe").arg("zram").stderr(Stdio::null()).status();
        let number =
            fs::read_to_string("/sys/class/zram-control/hot_add").context("this kernel has no zram")?;
        let zram = Self(number.trim().parse().context("zram-control answers nonsense")?);
        zram.write("comp_algorithm", compressor)?;
        zram.write("disksize", &SIZE.to_string())?;
        Ok(zram)
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/sys/block/zram{}/{name}", self.0))
    }

    fn write(&self, name: &str, value: &str) -> Result<()> {
        fs::write(self.file(name), value)
            .with_context(|| format!("cannot write {value} to {}", self.file(name).display()))
    }

    fn device(&self) -> PathBuf {
        PathBuf::from(format!("/dev/zram{}", self.0))
    }

    /// Third field of mm_stat: mem_used_total.
    fn memory_used(&self) -> u64 {
        let text = fs::read_to_string(self.file("mm_stat")).unwrap_or_default();
        text.split_whitespace().nth(2).and_then(|field| field.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        let undone = self.write("reset", "1").and_then(|()| {
            fs::write("/sys/class/zram-control/hot_remove", self.0.to_string())
                .context("cannot remove the zram device")
        });
        if let Err(error) = undone {
            eprintln!("xtask: {error:#}");
        }
    }
}
