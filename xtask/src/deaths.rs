//! `cargo xtask deaths`: whoever is killed, at whatever moment, nothing stays behind and nobody reads a wrong byte.
//!
//! The page checker runs under vswap; after a random (seeded) time the program, the supervisor's front, its engine, or several are
//! killed, or the stub's code is overwritten so that it crashes. Then: no process left, no file left, no complaint of the checker's.
//!
//! `--of stores`: processes that have a store of named objects are killed instead (`crates/objects/examples/kills.rs`), one after the other, and
//! the store is as it was at one moment since its last sync.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use rustix::process::{Pid, Signal, kill_process};

use crate::host::cgroup::Cgroup;
use crate::host::job::Job;
use crate::host::scratch::Scratch;
use crate::host::{interrupt, programs, root, target_dir};

/// Everybody must be gone this long after the death.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Where vswap itself lives on, other processes of the program go on, as in a plain run, until they notice: children finish what
/// they check, which takes a minute and more while others use the machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(300);

/// Whose deaths.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Of {
    /// Those of a run.
    Run,
    /// Those of processes that have a store of named objects.
    Stores,
}

/// What `cargo xtask deaths` takes.
#[derive(Args)]
pub struct Options {
    /// Whose deaths.
    #[arg(long, value_enum, default_value_t = Of::Run)]
    of: Of,
    /// How many deaths.
    #[arg(long, default_value_t = 200)]
    n: u64,
    /// What moments and victims come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this kind: program, front, engine, both, child or stub.
    #[arg(long)]
    only: Option<String>,
    /// The `vswap` to test.
    #[arg(long)]
    vswap: Option<PathBuf>,
}

impl Options {
    /// The form that CI runs.
    pub fn bounded() -> Self {
        Self { of: Of::Run, n: 24, seed: 1, only: None, vswap: None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Program,
    Front,
    Engine,
    Both,
    Child,
    Stub,
}

const VICTIMS: [(Victim, &str); 6] = [
    (Victim::Program, "program"),
    (Victim::Front, "front"),
    (Victim::Engine, "engine"),
    (Victim::Both, "both"),
    (Victim::Child, "child"),
    (Victim::Stub, "stub"),
];

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Runs them; an error that tells each that went wrong.
pub fn run(options: &Options) -> Result<()> {
    if options.of == Of::Stores {
        return of_stores(options);
    }
    let vswap = crate::dist::vswap(options.vswap.as_deref())?;
    let checker = programs::checker()?;
    let (mut wrong, mut missed) = (Vec::new(), 0);
    for turn in 0..options.n {
        interrupt::check()?;
        let random = mix(options.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(turn));
        let (victim, name) = match &options.only {
            Some(only) => *VICTIMS.iter().find(|(_, name)| name == only).context("no such kind of victim")?,
            None => VICTIMS[(turn % 6) as usize],
        };
        let after = Duration::from_micros(2_000 + (random >> 20) % 700_000);
        let death = Death { vswap: &vswap, checker: &checker, victim, after, turn };
        match death.happen()? {
            Outcome::Clean => {}
            Outcome::Missed => missed += 1,
            Outcome::Wrong(what) => {
                println!("death {turn} ({name} after {after:?}): {what}");
                wrong.push(turn);
            }
        }
    }
    if !wrong.is_empty() {
        bail!(
            "{} of {} deaths left something behind or went wrong (seed {}): {wrong:?}",
            wrong.len(),
            options.n,
            options.seed
        );
    }
    println!(
        "{} deaths (seed {}; {missed} found no such victim yet): no process left, no file left, no wrong byte",
        options.n, options.seed
    );
    Ok(())
}

/// With every assertion.
fn of_stores(options: &Options) -> Result<()> {
    ensure!(
        options.only.is_none() && options.vswap.is_none(),
        "stores have one kind of death, and no `vswap`"
    );
    let build = ["build", "--quiet", "--package", "vswap-objects", "--example", "kills"];
    let built = Command::new("cargo").current_dir(root()).args(build).status()?;
    ensure!(built.success(), "the example does not build");
    let mut kills = Command::new(target_dir().join("debug/examples/kills"));
    kills.args(["--seed", &options.seed.to_string(), "--times", &options.n.to_string()]);
    ensure!(kills.status()?.success(), "a store was not as it should be");
    Ok(())
}

enum Outcome {
    Clean,
    Missed,
    Wrong(String),
}

struct Death<'a> {
    vswap: &'a Path,
    checker: &'a Path,
    victim: Victim,
    after: Duration,
    turn: u64,
}

impl Death<'_> {
    fn happen(&self) -> Result<Outcome> {
        let (dir, disk, group) = (Scratch::new("death")?, Scratch::new("death-disk")?, Cgroup::new("death")?);
        let shared_before = listing(Path::new("/dev/shm"));
        let mode = ["plain", "fork", "mixed"][(self.turn / 6 % 3) as usize];
        let (mode, seed) = (if self.victim == Victim::Child { "fork" } else { mode }, self.turn.to_string());
        let mut runtime = std::ffi::OsString::from("XDG_RUNTIME_DIR=");
        runtime.push(dir.path());
        let argv = [
            "/usr/bin/env".as_ref(),
            runtime.as_os_str(),
            self.vswap.as_os_str(),
            "run".as_ref(),
            "--memory".as_ref(),
            "16M".as_ref(),
            "--disk".as_ref(),
            "1G".as_ref(),
        ]
        .into_iter()
        .chain(["--disk-path".as_ref(), disk.path().as_os_str(), "--".as_ref(), self.checker.as_os_str()])
        .chain(
            ["--mode", mode, "--seconds", "20", "--bytes", "67108864", "--seed", seed.as_str()]
                .map(AsRef::as_ref),
        );
        let argv = argv.map(ToOwned::to_owned).collect();
        let job = Job { argv, cgroup: &group, dir: dir.path(), timeout: GONE_WITHIN, pool: None };
        let mut front = job.spawn()?;
        std::thread::sleep(self.after);
        let killed = self.strike(front.id().cast_signed(), &group);
        if !killed {
            // It may not even be in its group yet.
            let _ = front.kill();
            group.kill();
        }
        let ours = matches!(self.victim, Victim::Front | Victim::Engine | Victim::Both);
        let patience = if ours { GONE_WITHIN } else { NOTICED_WITHIN };
        let begin = Instant::now();
        let status = loop {
            match front.try_wait()? {
                Some(status) => break Some(status),
                None if begin.elapsed() > patience => break None,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let empty = group.wait_empty(patience.saturating_sub(begin.elapsed()) + Duration::from_millis(200));
        let mut wrong = Vec::new();
        if !empty || status.is_none() {
            wrong.push(format!("left after {patience:?}: {}", describe(&group)));
            group.kill();
            let _ = front.wait();
        }
        wrong.extend(self.judge(
            status,
            killed,
            &fs::read_to_string(dir.path().join("stderr")).unwrap_or_default(),
        ));
        let sockets = listing(&dir.path().join("vswap"));
        if !sockets.is_empty() {
            wrong.push(format!("sockets left: {sockets:?}"));
        }
        let files = listing(disk.path());
        if !files.is_empty() {
            wrong.push(format!("files left: {files:?}"));
        }
        let shared: Vec<_> =
            listing(Path::new("/dev/shm")).into_iter().filter(|f| !shared_before.contains(f)).collect();
        if !shared.is_empty() {
            wrong.push(format!("shared memory left: {shared:?}"));
        }
        Ok(match (wrong.is_empty(), killed) {
            (false, _) => Outcome::Wrong(wrong.join("; ")),
            (true, true) => Outcome::Clean,
            (true, false) => Outcome::Missed,
        })
    }

    /// Kills the victim; false when there is none yet.
    fn strike(&self, front: i32, group: &Cgroup) -> bool {
        let mut engines = Vec::new();
        let mut programs = Vec::new();
        for pid in group.members() {
            let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if exe == self.checker {
                programs.push(pid);
            } else if pid != front && exe == self.vswap {
                engines.push(pid);
            }
        }
        programs.sort_unstable();
        let main = programs.first().copied();
        let victims = match self.victim {
            Victim::Program => main.into_iter().collect(),
            Victim::Child => programs.get(1).copied().into_iter().collect(),
            Victim::Front => vec![front],
            Victim::Engine => engines,
            Victim::Both => main.into_iter().chain(engines).collect(),
            Victim::Stub => return main.is_some_and(crash_the_stub),
        };
        victims
            .iter()
            .filter_map(|&pid| Pid::from_raw(pid))
            .filter(|&pid| kill_process(pid, Signal::KILL).is_ok())
            .count()
            > 0
    }

    fn judge(&self, status: Option<ExitStatus>, killed: bool, stderr: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(line) = stderr.lines().find(|line| line.contains("WRONG")) {
            wrong.push(line.to_owned());
        }
        if let Some(line) = stderr.lines().find(|line| line.contains("panicked")) {
            wrong.push(line.to_owned());
        }
        let Some(status) = status.filter(|_| killed) else { return wrong };
        if self.victim == Victim::Program && status.signal() != Some(9) {
            wrong.push(format!("the program was killed by signal 9, vswap run ended with {status}"));
        }
        if status.success() {
            wrong.push("a death was reported as success".into());
        }
        wrong
    }
}

fn listing(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

fn describe(group: &Cgroup) -> String {
    let one = |pid: i32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let status = read("status");
        let state = status.lines().find_map(|l| l.strip_prefix("State:")).unwrap_or("gone").trim().to_owned();
        format!("{pid} {} ({state}; in {})", read("comm").trim(), read("wchan"))
    };
    group.members().into_iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Overwrites the executable memory that no file of the program's backs (the stub's) with an instruction that traps.
fn crash_the_stub(pid: i32) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let Ok(memory) = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")) else {
        return false;
    };
    let mut struck = false;
    for line in maps.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let ours = fields.len() == 5 || fields.get(5).is_some_and(|name| name.contains("vswap"));
        let Some((start, end)) = fields.first().and_then(|span| span.split_once('-')) else { continue };
        if !ours || !fields[1].contains('x') {
            continue;
        }
        if let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) {
            let traps = [0x0f, 0x0b].repeat((end - start) as usize / 2);
            struck |= memory.write_all_at(&traps, start).is_ok();
        }
    }
    struck
}
