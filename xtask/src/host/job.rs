//! One program, run to its end inside a cgroup, watched from outside.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::cgroup::{Cgroup, Usage};
use super::interrupt;

/// How often memory is looked at from outside.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// What to run and where.
pub struct Job<'a> {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// The group that it enters before it execs.
    pub cgroup: &'a Cgroup,
    /// Its working directory and the place of its output.
    pub dir: &'a Path,
    /// It is killed after this long.
    pub timeout: Duration,
    /// Bytes held for it outside the cgroup (a pool of the kernel's), asked at each sample.
    pub pool: Option<&'a (dyn Fn() -> u64 + Sync)>,
}

/// The largest values seen while it ran.
#[derive(Clone, Copy, Default, Debug)]
pub struct Peaks {
    /// rss + shmem.
    pub resident: u64,
    /// rss + shmem + what of the swap cache is unmapped + pool, at the same moment.
    pub total: u64,
    /// The pool alone.
    pub pool: u64,
    /// Page cache.
    pub cache: u64,
    /// Kernel memory.
    pub kernel: u64,
}

/// How it went.
pub struct Ran {
    /// How the process ended.
    pub status: ExitStatus,
    /// From start to end of the process.
    pub wall: Duration,
    /// Memory.
    pub peaks: Peaks,
    /// Major faults.
    pub major_faults: u64,
    /// Killed for taking too long.
    pub timed_out: bool,
    /// Kills by the kernel for want of memory.
    pub oom_kills: u64,
    /// Its standard output, complete.
    pub stdout: Vec<u8>,
    /// Its standard error, complete.
    pub stderr: Vec<u8>,
    /// What `vswap run --stats-json` wrote, where the caller asked for it.
    pub stats: Option<String>,
}

impl Ran {
    /// "0", "7", "signal 9", "timed out".
    pub fn ending(&self) -> String {
        match (self.timed_out, self.status.code(), self.status.signal()) {
            (true, ..) => "timed out".into(),
            (_, Some(code), _) => code.to_string(),
            (_, _, Some(signal)) => format!("signal {signal}"),
            _ => "unknown".into(),
        }
    }

    /// Its standard output as text.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The last lines of its standard error.
    pub fn complained(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr).into_owned();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Job<'_> {
    /// Starts it; a shell enters the cgroup and then becomes the program, so that nothing of ours is counted.
    pub fn spawn(&self) -> Result<Child> {
        let (out, err) = (self.dir.join("stdout"), self.dir.join("stderr"));
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg("echo $$ > \"$0\" && exec \"$@\"").arg(self.cgroup.door()).args(&self.argv);
        command
            .current_dir(self.dir)
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?);
        command.env("TMPDIR", self.dir).env("LC_ALL", "C");
        command.spawn().with_context(|| format!("cannot start {:?}", self.argv))
    }

    /// Runs it to its end. An interrupt kills the group and gives an error.
    pub fn run(&self) -> Result<Ran> {
        let begin = Instant::now();
        let mut child = self.spawn()?;
        let done = AtomicBool::new(false);
        let (status, wall, watched) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| self.watch(&done, begin));
            let status = child.wait();
            let wall = begin.elapsed();
            done.store(true, Ordering::Relaxed);
            (status, wall, watcher.join())
        });
        let (peaks, timed_out) = watched.unwrap_or_default();
        interrupt::check()?;
        Ok(Ran {
            status: status.context("cannot wait for the program")?,
            wall,
            peaks,
            timed_out,
            major_faults: self.cgroup.usage().major_faults,
            oom_kills: self.cgroup.oom_kills(),
            stdout: fs::read(self.dir.join("stdout"))?,
            stderr: fs::read(self.dir.join("stderr"))?,
            stats: None,
        })
    }

    /// Samples until told that it is over; ends the group when it takes too long or somebody interrupts.
    fn watch(&self, done: &AtomicBool, begin: Instant) -> (Peaks, bool) {
        let (mut peaks, mut timed_out) = (Peaks::default(), false);
        while !done.load(Ordering::Relaxed) {
            let pool = self.pool.map_or(0, |ask| ask());
            peaks.note(&self.cgroup.usage(), pool);
            if begin.elapsed() > self.timeout {
                timed_out = true;
            }
            if timed_out || interrupt::asked() {
                self.cgroup.kill();
            }
            std::thread::sleep(SAMPLE_EVERY);
        }
        (peaks, timed_out)
    }
}

/// Waits until a program that was started in `dir` has printed `word`.
pub fn says(child: &mut Child, dir: &Path, word: &str, timeout: Duration) -> Result<()> {
    let until = Instant::now() + timeout;
    while !fs::read_to_string(dir.join("stdout")).is_ok_and(|text| text.contains(word)) {
        interrupt::check()?;
        ensure!(child.try_wait()?.is_none(), "the program ended before it said {word:?}");
        ensure!(Instant::now() < until, "after {timeout:?} the program had not said {word:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A program that waits for it is told to go on, and ends. Returns what it has printed.
pub fn goes_on_to_its_end(child: &mut Child, dir: &Path) -> Result<String> {
    let pid = Pid::from_raw(child.id().cast_signed()).context("a process has a number")?;
    kill_process(pid, Signal::USR1)?;
    let status = child.wait()?;
    let said = fs::read_to_string(dir.join("stdout")).unwrap_or_default();
    ensure!(status.success(), "the program ended with {status}: {said}");
    Ok(said)
}

impl Peaks {
    fn note(&mut self, usage: &Usage, pool: u64) {
        self.resident = self.resident.max(usage.rss_shmem);
        self.total = self.total.max(usage.held + pool);
        self.pool = self.pool.max(pool);
        self.cache = self.cache.max(usage.cache);
        self.kernel = self.kernel.max(usage.kernel);
    }
}
