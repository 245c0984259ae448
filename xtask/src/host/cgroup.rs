//! A memory cgroup of our own, of either version, killed empty and removed when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long processes may take to vanish after they have been killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a group of processes holds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    /// Anonymous memory mapped by somebody, and shared memory: what people call resident.
    pub rss_shmem: u64,
    /// The same and what of the swap cache nobody maps at the moment: all that is neither page cache nor the kernel's.
    pub held: u64,
    /// Page cache without shared memory.
    pub cache: u64,
    /// Kernel memory charged.
    pub kernel: u64,
    /// Major faults so far.
    pub major_faults: u64,
}

/// See the module.
pub struct Cgroup {
    dir: PathBuf,
    v2: bool,
}

impl Cgroup {
    /// Makes the group, without a limit.
    pub fn new(name: &str) -> Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (parent, v2) =
            if v1.join("memory.stat").exists() { (v1, false) } else { (Path::new("/sys/fs/cgroup"), true) };
        if v2 {
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
        }
        let dir = parent.join(format!("vswap-xtask-{}-{name}", std::process::id()));
        fs::create_dir(&dir).with_context(|| {
            format!("cannot make the memory cgroup {}: this task needs root", dir.display())
        })?;
        if !dir.join("memory.stat").exists() {
            let _ = fs::remove_dir(&dir);
            bail!("no memory controller in {}: mount cgroup v1 memory, or let v2 have it", parent.display());
        }
        Ok(Self { dir, v2 })
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
    }

    /// At most so much memory; what is over is reclaimed or its owner killed.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        self.write(if self.v2 { "memory.max" } else { "memory.limit_in_bytes" }, &bytes.to_string())
    }

    /// Nothing of it may go to the kernel's swap.
    pub fn forbid_kernel_swap(&self) -> Result<()> {
        if self.v2 { self.write("memory.swap.max", "0") } else { self.write("memory.swappiness", "0") }
    }

    /// The file to which a process writes its id to enter.
    pub fn door(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Who is in it.
    pub fn members(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.door()).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// What it holds now. The whole group has no sub-groups, so local figures are the totals.
    pub fn usage(&self) -> Usage {
        let stat = fs::read_to_string(self.dir.join("memory.stat")).unwrap_or_default();
        let field = |name: &str| {
            let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let shmem = field("shmem");
        let number = |file: &str| -> u64 {
            let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        let (anon, file, kernel, all) = if self.v2 {
            (field("anon"), field("file"), field("kernel"), number("memory.current"))
        } else {
            (
                field("rss"),
                field("cache"),
                number("memory.kmem.usage_in_bytes"),
                number("memory.usage_in_bytes"),
            )
        };
        // The kernel counts shared memory and the swap cache as "file", and mapped pages of the swap cache as anonymous too.
        let cache = file.saturating_sub(shmem + field("swapcached"));
        Usage {
            rss_shmem: anon + shmem,
            held: all.saturating_sub(cache + kernel).max(anon + shmem),
            cache,
            kernel,
            major_faults: field("pgmajfault"),
        }
    }

    /// How often the kernel killed somebody here.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.v2 { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Kills whoever is in it; all are descendants of ours, since only those entered.
    pub fn kill(&self) {
        for pid in self.members() {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Waits until nobody is left, at most so long; says whether nobody is.
    pub fn wait_empty(&self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        while !self.members().is_empty() {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            self.kill();
            // What stays charged (page cache) moves to the parent, so removing it needs no reclaim.
            if fs::remove_dir(&self.dir).is_ok() || !self.dir.exists() {
                return;
            }
            if Instant::now() > until {
                eprintln!("xtask: could not remove {}", self.dir.display());
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
