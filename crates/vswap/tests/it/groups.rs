//! `vswap groups` and `vswap set` on programs that run.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run_like_plain::works;
use crate::vswap::{Said, command, said};

const MIB: u64 = 1 << 20;

/// Two of these: each fills so many pages, of which a third can be compressed away, and checks them over and over until its input ends; the second kind
/// forks children besides, which check what they have from it and write to some of it.
const WORKER: &str = r#"
import os, select, sys
pages, forks, noise = int(sys.argv[1]), sys.argv[2] == "forks", os.urandom(1 << 20)
memory = bytearray(pages * 4096)
def content(i, mark=0): return noise[i * 7 % 500000:][:2600] + (i ^ mark).to_bytes(8, "little")
def at(i): return memory[i * 4096:i * 4096 + 2608]
for i in range(pages): memory[i * 4096:i * 4096 + 2608] = content(i)
print("filled", flush=True)
i = wrong = children = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(256):
        i = (i * 5 + 12345) % pages
        wrong += at(i) != content(i)
    if forks:
        children += 1
        pid = os.fork()
        if pid == 0:
            bad = 0
            for j in range(i % 97, pages, 97):
                bad += at(j) != content(j)
                memory[j * 4096:j * 4096 + 2608] = content(j, 1 << 40)
            for j in range(i % 97, pages, 97): bad += at(j) != content(j, 1 << 40)
            os._exit(min(bad, 100))
        wrong += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
for i in range(pages): wrong += at(i) != content(i)
print(wrong, "wrong", "and children" if children > 2 else "", flush=True)
"#;

/// Starts both, says their numbers when they are filled, and what they said last when its input ends.
const PROGRAM: &str = r#"
import subprocess, sys
worker, pages, how = sys.argv[1:]
start = lambda: subprocess.Popen([sys.executable, "-c", worker, pages, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
both = [start(), start()]
for one in both: one.stdout.readline()
print(*[one.pid for one in both], flush=True)
sys.stdin.read()
for one in both: one.stdin.close()
print(*[one.stdout.readline().strip() for one in both], flush=True)
"#;

/// What a shell script has said that got the command as its first argument, in a run of 256 MiB.
fn run_by_shell(script: &str, runtime: &std::path::Path) -> Said {
    let mut command = command();
    command.args(["run", "--memory", "256M", "--", "/bin/sh", "-c", script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_vswap")).env("XDG_RUNTIME_DIR", runtime);
    said(command.output().expect("starts"))
}

struct Running {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    runtime: tempfile::TempDir,
    first: String,
    second: String,
}

fn started(memory: &str, options: &[&str], pages: &str, how: &str) -> Running {
    started_as(PROGRAM, memory, options, &[WORKER, pages, how])
}

/// Of a program that says two numbers first.
fn started_as(program: &str, memory: &str, options: &[&str], arguments: &[&str]) -> Running {
    let runtime = tempfile::tempdir().expect("a directory");
    let mut command = command();
    command.args(["run", "--memory", memory]).args(options).arg("--");
    command.args(["/usr/bin/python3", "-c", program]).args(arguments);
    command.env("XDG_RUNTIME_DIR", runtime.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it says something");
    let (first, second) = line.trim().split_once(' ').expect("two numbers");
    let (first, second) = (first.to_owned(), second.to_owned());
    Running { child, out, runtime, first, second }
}

impl Running {
    fn vswap(&self) -> Command {
        let mut command = command();
        command.env("XDG_RUNTIME_DIR", self.runtime.path());
        command
    }

    fn number(&self) -> String {
        self.child.id().to_string()
    }

    /// `RUN` is its number.
    fn ask(&self, line: &str) -> Said {
        let line = line.replace("RUN", &self.number());
        said(self.vswap().args(line.split_whitespace()).output().expect("starts"))
    }

    fn must(&self, line: &str) {
        let told = self.ask(line);
        assert_eq!((told.code, told.out.as_str(), told.err.as_str()), (Some(0), "", ""), "{line}");
    }

    fn groups(&self) -> Value {
        let told = self.ask("groups RUN --json");
        assert_eq!((told.code, told.err.as_str()), (Some(0), ""));
        serde_json::from_str::<Value>(&told.out).expect("JSON")[0]["groups"].take()
    }

    fn group(&self, path: &str) -> Value {
        let groups = self.groups();
        let found = groups.as_array().expect("a list").iter().find(|group| group["path"] == path);
        found.unwrap_or_else(|| panic!("no {path}: {groups:#}")).clone()
    }

    fn figure(&self, path: &str, name: &str) -> u64 {
        self.group(path)[name].as_u64().unwrap_or_else(|| panic!("{path} has no {name}"))
    }

    fn until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let since = Instant::now();
        while !is(self) {
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "not within a minute: {what}: {:#}",
                self.groups()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(mut self) -> (Option<i32>, String) {
        drop(self.child.stdin.take());
        let mut last = String::new();
        self.out.read_line(&mut last).expect("its last words");
        let ended = (self.child.wait().expect("it ends").code(), last.trim().to_owned());
        // The engine has gone when its socket has.
        let sockets = || std::fs::read_dir(self.runtime.path().join("vswap")).map_or(0, Iterator::count);
        let since = Instant::now();
        while sockets() > 0 && since.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(2));
        }
        ended
    }
}

#[test]
fn a_group_stays_below_its_limit_and_the_others_are_left_alone() {
    if !works() {
        return;
    }
    let running = started("512M", &["--disk", "1G"], "24576", "reads");
    let (first, second) = (&running.first, &running.second);
    running.must("groups add RUN /small");
    running.must("groups add RUN /large");
    running.must(&format!("groups move RUN {first} /small"));
    running.must(&format!("groups move RUN {second} /large"));
    assert_eq!(running.group("/small")["cgroup.procs"].to_string(), format!("[{first}]"));
    running.must("set RUN /small memory.max=32M");
    let current = "memory.current";
    running.until("the limit", |running| running.figure("/small", current) <= 32 * MIB);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        let groups = running.groups();
        let of = |path: &str| {
            let found = groups.as_array().into_iter().flatten().find(|group| group["path"] == path);
            found.and_then(|group| group[current].as_u64()).expect(path)
        };
        // A fork or a start of management may charge what is there already.
        assert!(of("/small") <= 33 * MIB, "{groups:#}");
        assert!(of("/large") >= 96 * MIB, "{groups:#}");
        // Read one after the other.
        assert!(of("/") + 2 * MIB >= of("/small") + of("/large"), "{groups:#}");
    }
    let small = running.group("/small");
    assert!(small["memory.swap.current"].as_u64() > Some(60 * MIB), "{small:#}");
    assert!(small["memory.stat"]["workingset_refault_anon"].as_u64() > Some(100), "{small:#}");
    assert_eq!(running.group("/large")["memory.stat"]["workingset_refault_anon"], 0);
    let table = running.ask("groups RUN").out;
    assert!(
        table.starts_with("GROUP ") && table.contains("/small") && table.contains("32.00 MiB"),
        "{table}"
    );
    // Lowered while it runs; then all of it goes elsewhere.
    running.must("set RUN /small memory.max=20M");
    running.until("the lower limit", |running| running.figure("/small", current) <= 20 * MIB);
    running.must(&format!("groups move RUN {first} /large"));
    for name in [current, "memory.swap.current", "memory.zswap.current"] {
        assert_eq!(running.figure("/small", name), 0, "{name}");
    }
    running.until("it comes back", |running| running.figure("/large", current) > 120 * MIB);
    assert_eq!(running.end(), (Some(0), "0 wrong 0 wrong".into()));
}

#[test]
fn what_a_group_may_not_keep_compressed_goes_to_the_tier_and_a_removed_group_leaves_all_to_its_parent() {
    if !works() {
        return;
    }
    let running = started("512M", &["--disk", "1G"], "16384", "reads");
    let first = &running.first;
    running.must("groups add RUN /a");
    running.must("groups add RUN /a/b");
    running.must("set RUN /a/b memory.max=24M memory.zswap.max=0");
    running.must(&format!("groups move RUN {first} /a/b"));
    running.until("the limit", |running| running.figure("/a/b", "memory.current") <= 24 * MIB);
    let below = running.group("/a/b");
    assert!(below["memory.zswap.current"].as_u64() <= Some(2 * MIB + 4096), "{below:#}");
    running.until("reads", |running| running.group("/a/b")["memory.stat"]["pswpin"].as_u64() > Some(50));
    let stat = running.group("/a/b")["memory.stat"].take();
    assert!(stat["zswpwb"].as_u64() > Some(8000) && stat["zswpwb"] == stat["pswpout"], "{stat:#}");
    running.must("groups remove RUN /a/b");
    let groups = running.groups();
    assert_eq!(groups.as_array().map(Vec::len), Some(2), "{groups:#}");
    assert_eq!(running.group("/a")["cgroup.procs"].to_string(), format!("[{first}]"));
    // Its limit went with it.
    running.until("it grows", |running| running.figure("/a", "memory.current") > 40 * MIB);
    running.must("set RUN /a memory.max=30M");
    running.until("the limit", |running| running.figure("/a", "memory.current") <= 30 * MIB);
    running.must("groups remove RUN /a");
    assert_eq!(running.groups().as_array().map(Vec::len), Some(1));
    assert_eq!(running.end(), (Some(0), "0 wrong 0 wrong".into()));
}

#[test]
fn a_group_uses_of_each_tier_what_it_may_and_a_tier_stays_if_what_is_on_it_may_not_be_elsewhere() {
    if !works() {
        return;
    }
    let place = tempfile::tempdir_in("/var/tmp").expect("a directory on a disk");
    let better = format!("{},size=512M,priority=5", place.path().display());
    let running = started("512M", &["--disk", "1G", "--tier", &better], "16384", "reads");
    for (path, pid, limit) in [("/a", &running.first, "0"), ("/b", &running.second, "9M")] {
        running.must(&format!("groups add RUN {path}"));
        let limits = format!("memory.max=24M memory.zswap.max=0 memory.swap.tier.1.max={limit}");
        running.must(&format!("set RUN {path} {limits}"));
        running.must(&format!("groups move RUN {pid} {path}"));
    }
    for path in ["/a", "/b"] {
        running.until("the limit", |running| running.figure(path, "memory.current") <= 24 * MIB);
        running.until("reads", |running| running.group(path)["memory.stat"]["pswpin"].as_u64() > Some(50));
    }
    let of = |path: &str, at: usize, name: &str| running.group(path)["memory.swap.tiers"][at][name].as_u64();
    assert_eq!(
        (of("/a", 1, "tier"), of("/a", 1, "current"), of("/a", 1, "max")),
        (Some(1), Some(0), Some(0))
    );
    assert!(of("/a", 0, "current") > Some(20 * MIB) && of("/a", 0, "max").is_none());
    let (all, most) = (of("/b", 1, "current"), Some(8 * MIB));
    assert!(all > Some(4 * MIB) && all <= most && of("/b", 1, "max") == most, "in whole segments: {all:?}");
    assert!(of("/", 1, "current") <= most && of("/b", 1, "max.effective") == most);
    let table = running.ask("groups RUN").out;
    assert!(table.contains("TIER-1") && !table.contains("TIER-0") && table.contains("8.00 MiB"), "{table}");
    let raw = running.ask("groups RUN --bytes --raw --output group,memory-max,tiers").out;
    let rows: Vec<Vec<&str>> = raw.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(rows[0], ["GROUP", "MEMORY-MAX", "TIER-1", "TIER-1-MAX"], "{raw}");
    assert_eq!(rows[2], ["/a", "25165824", "0", "0"], "{raw}");
    assert_eq!((rows.len(), rows[3][0], rows[3][3]), (4, "/b", "8388608"), "{raw}");
    let has: u64 = rows[3][2].parse().expect("a plain number");
    assert!(has > 4 * MIB && Some(has) <= most, "{raw}");
    let none = running.ask("set RUN /a memory.max=30M memory.swap.tier.7.max=0");
    assert!(none.code == Some(1) && none.err.contains("there is no tier 7"), "{none:?}");
    assert_eq!(running.figure("/a", "memory.max"), 24 * MIB, "none was set");
    assert_eq!(running.ask("set RUN /a memory.swap.tier.x.max=0").code, Some(125));
    let refused = running.ask("tier remove 0 --run RUN");
    assert!(refused.code == Some(1) && refused.err.contains("raise a limit"), "{refused:?}");
    let removed = running.ask("tier remove 1 --run RUN");
    assert_eq!((removed.code, removed.err.as_str()), (Some(0), ""), "{removed:?}");
    assert_eq!(of("/b", 1, "tier"), None);
    running.must("groups remove RUN /a");
    assert_eq!(running.end(), (Some(0), "0 wrong 0 wrong".into()));
}

/// Both check every byte all the time, and so do their children.
#[test]
fn programs_and_their_children_keep_every_byte_while_they_are_moved_and_limited_all_the_time() {
    if !works() {
        return;
    }
    let running = started("160M", &["--disk", "1G"], "12288", "forks");
    for path in ["/a", "/b", "/b/c"] {
        running.must(&format!("groups add RUN {path}"));
    }
    let since = Instant::now();
    let mut turn = 0;
    while since.elapsed() < Duration::from_secs(12) {
        let pid = [&running.first, &running.second][turn % 2];
        let path = ["/a", "/b/c", "/b", "/", "/a"][turn % 5];
        let told = running.ask(&format!("groups move RUN {pid} {path}"));
        // While it forks, all the time, it may have to wait for longer than it is waited for.
        assert!(told.code == Some(0) || told.err.contains("just forking"), "{told:?}");
        let size = [24, 64, 40, 16, 100][turn * 3 % 5];
        running.must(&format!("set RUN /a memory.max={size}M"));
        running.must(&format!("set RUN /b memory.max={}M memory.zswap.max={}M", 140 - size, turn % 4 * 4));
        if turn % 10 == 9 {
            running.must("groups remove RUN /b/c");
            running.must("groups add RUN /b/c");
        }
        turn += 1;
    }
    assert!(turn > 20, "{turn}");
    for path in ["/a", "/b"] {
        running.must(&format!("set RUN {path} memory.max=max memory.zswap.max=max"));
    }
    // What a process shared with a child when it was moved has stayed: once more, and nothing is left.
    running.until("nothing is left", |running| {
        for pid in [&running.first, &running.second] {
            running.ask(&format!("groups move RUN {pid} /"));
        }
        let groups = running.groups();
        let mut left = groups.as_array().into_iter().flatten().filter(|group| group["path"] != "/");
        let names = ["memory.current", "memory.zswap.current", "memory.swap.current"];
        left.all(|group| names.iter().all(|name| group[name] == 0))
    });
    assert_eq!(running.end(), (Some(0), "0 wrong and children 0 wrong and children".into()));
}

/// Makes children that write to some of what they have from it, when it is told to, and ends with its input.
const FAMILY: &str = r#"
import os, sys, time
memory = bytearray(24 << 20)
for at in range(0, len(memory), 4096): memory[at] = 1
print(os.getpid(), os.getpid(), flush=True)
sys.stdin.readline()
for turn in range(60):
    if os.fork() == 0:
        for at in range(0, 2 << 20, 4096): memory[at] = 2
        time.sleep(60)
        os._exit(0)
print("forked", flush=True)
sys.stdin.read()
print("over", flush=True)
os._exit(0)
"#;

/// One that was of one group by its number and of another by its memory would be charged to a group that lists nobody.
#[test]
fn a_child_that_is_made_during_a_move_is_listed_in_the_group_that_is_charged_for_it() {
    if !works() {
        return;
    }
    let mut running = started_as(FAMILY, "1G", &["--disk", "none"], &[]);
    running.until("its socket", |running| running.ask("groups RUN").code == Some(0));
    for path in ["/a", "/b"] {
        running.must(&format!("groups add RUN {path}"));
    }
    running.child.stdin.as_mut().expect("piped").write_all(b"go\n").expect("it reads");
    let done = std::thread::scope(|scope| {
        let (first, run, dir) = (running.first.clone(), running.number(), running.runtime.path().to_owned());
        let out = &mut running.out;
        let forked = scope.spawn(move || out.read_line(&mut String::new()).expect("it says something"));
        let mut turn = 0;
        while !forked.is_finished() {
            let path = ["/a", "/b"][turn % 2];
            let mut command = command();
            command.env("XDG_RUNTIME_DIR", &dir).args(["groups", "move", &run, &first, path]);
            let told = said(command.output().expect("starts"));
            assert!(told.code == Some(0) || told.err.contains("just forking"), "{told:?}");
            turn += 1;
        }
        turn
    });
    assert!(done > 5, "{done} moves are too few to meet a fork");
    running.until("all are known", |running| {
        let groups = running.groups();
        let lists = groups.as_array().into_iter().flatten().map(|group| &group["cgroup.procs"]);
        lists.filter_map(|list| list.as_array().map(Vec::len)).sum::<usize>() >= 61
    });
    running.must(&format!("groups move RUN {} /", running.first));
    let listed = |running: &Running, path: &str| {
        running.group(path)["cgroup.procs"].as_array().cloned().unwrap_or_default()
    };
    let parent: i32 = running.first.parse().expect("a number");
    for path in ["/a", "/b", "/"] {
        for pid in listed(&running, path) {
            if pid != parent {
                let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("starts");
                assert!(killed.success());
            }
        }
        running.until("nothing is left of those who are killed", |running| {
            path == "/" || listed(running, path).is_empty() && running.figure(path, "memory.current") == 0
        });
    }
    assert_eq!(running.end(), (Some(0), "over".into()));
}

/// Forks a child that has all of its memory too, and says how much of it was wrong in either at the end.
const SHARES: &str = r#"
import os, sys
noise = os.urandom(1 << 20)
memory = bytearray(64 << 20)
def content(at): return noise[at * 7 % 500000:][:2600]
for at in range(0, len(memory), 4096): memory[at:at + 2600] = content(at)
def wrong(): return sum(memory[at:at + 2600] != content(at) for at in range(0, len(memory), 4096))
(end, told), (answer, tell) = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    os.close(told)
    os.read(end, 1)
    os.write(tell, b"%d" % wrong())
    os._exit(0)
print(os.getpid(), pid, flush=True)
sys.stdin.read()
os.close(told)
print(wrong(), os.read(answer, 9).decode(), "wrong", flush=True)
os._exit(0)
"#;

/// What a child shared was charged to it too, at once and beyond the limit; and what the evictors compressed then was in its parent's memory still.
#[test]
fn a_child_that_shares_all_its_memory_goes_to_another_group_within_the_limit() {
    if !works() {
        return;
    }
    let running = started_as(SHARES, "96M", &["--disk", "512M"], &[]);
    running.until("its socket", |running| running.ask("groups RUN").code == Some(0));
    running.must("groups add RUN /a");
    running.until("it is charged once", |running| running.figure("/", "memory.current") < 96 * MIB);
    running.must(&format!("groups move RUN {} /a", running.second));
    let second: i32 = running.second.parse().expect("a number");
    assert_eq!(running.group("/a")["cgroup.procs"], serde_json::json!([second]));
    let peak = running.figure("/", "memory.peak");
    assert!(peak <= 108 * MIB, "{peak} bytes of 96 MiB");
    assert_eq!(running.end(), (Some(0), "0 0 wrong".into()));
}

#[test]
fn children_and_what_is_executed_are_of_the_group_of_their_parent_however_small_it_was_when_it_was_moved() {
    if !works() {
        return;
    }
    let runtime = tempfile::tempdir().expect("a directory");
    // The shell moves itself, as one does with cgroup.procs, and executes what grows.
    let script = r#"
        vswap=$1; run=sh
        until $vswap groups add $run /job 2>/dev/null; do sleep 0.05; done
        $vswap set $run /job memory.max=16M &&
        $vswap groups move $run $$ /job &&
        exec /usr/bin/python3 -c '
import os, subprocess, sys
memory = bytearray(48 << 20)
for at in range(0, len(memory), 4096): memory[at] = at >> 12 & 255
child = os.fork()
def wrong(): return sum(memory[at] != at >> 12 & 255 for at in range(0, len(memory), 4096))
if child == 0:
    bad = wrong()
    subprocess.run([sys.argv[1], "groups", "sh", "--json"])
    os._exit(bad > 0)
bad = os.waitpid(child, 0)[1]
print(bad + wrong(), "wrong", flush=True)
' $vswap"#;
    let told = run_by_shell(script, runtime.path());
    assert_eq!(told.code, Some(0), "{told:?}");
    let (json, last) = told.out.trim().rsplit_once('\n').expect("two parts");
    assert_eq!(last, "0 wrong", "{told:?}");
    let groups = serde_json::from_str::<Value>(json).expect("JSON")[0]["groups"].take();
    let job = &groups[1];
    assert_eq!(job["path"], "/job", "{groups:#}");
    assert!(job["memory.current"].as_u64() <= Some(17 * MIB), "{groups:#}");
    assert!(job["memory.peak"].as_u64() > Some(14 * MIB), "{groups:#}");
    assert!(job["memory.stat"]["workingset_refault_anon"].as_u64() > Some(1000), "{groups:#}");
    // The program, its child, and the command that asks.
    assert_eq!(job["cgroup.procs"].as_array().map(Vec::len), Some(3), "{groups:#}");
}

/// The others do not notice.
#[test]
fn of_a_group_in_which_nothing_more_can_be_moved_out_the_processes_are_killed_if_that_is_wanted() {
    if !works() {
        return;
    }
    let running = started("512M", &["--disk", "none", "--full", "kill"], "8192", "reads");
    running.must("groups add RUN /a");
    running.must("set RUN /a memory.swap.max=1M memory.max=12M");
    running.must(&format!("groups move RUN {} /a", running.first));
    running.until("it is killed", |running| running.group("/a")["cgroup.procs"] == serde_json::json!([]));
    running.until("nothing is left", |running| running.figure("/a", "memory.current") == 0);
    let events = running.group("/a")["memory.events"].take();
    assert!(events["oom"].as_u64() > Some(0), "{events}");
    let group = running.group("/a");
    assert!(group["memory.swap.events"]["max"].as_u64() > Some(0), "{group:#}");
    assert_eq!(running.end(), (Some(0), "0 wrong".into()));
}

/// What is out is stored anew for its new address before it is given up at the former: refused for the group's limit, it was lost.
#[test]
fn memory_that_a_full_group_has_out_may_be_remapped() {
    if !works() {
        return;
    }
    let runtime = tempfile::tempdir().expect("a directory");
    let script = r#"
        vswap=$1; run=sh
        until $vswap groups add $run /job 2>/dev/null; do sleep 0.05; done
        $vswap set $run /job memory.max=16M && $vswap groups move $run $$ /job &&
        exec /usr/bin/python3 -c '
import ctypes, subprocess, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
size = 48 << 20
new = lambda: libc.mmap(None, size, 3, 0x22, -1, 0)
old, to = new(), new()
view = lambda at: (ctypes.c_char * size).from_address(at)
memory = view(old)
for at in range(0, size, 4096): memory[at] = at >> 12 & 255
subprocess.run([sys.argv[1], "set", "sh", "/job", "memory.swap.max=1M"], check=True)
assert libc.mremap(old, size, size, 3, to) == to
memory = view(to)
print(sum(memory[at] != bytes([at >> 12 & 255]) for at in range(0, size, 4096)), "wrong")
' $vswap"#;
    let told = run_by_shell(script, runtime.path());
    assert_eq!((told.code, told.out.as_str()), (Some(0), "0 wrong\n"), "{told:?}");
}

#[test]
fn bad_words_are_refused_and_say_what_is_right() {
    let code = |line: &str| said(command().args(line.split_whitespace()).output().expect("starts")).code;
    for line in [
        "groups add",
        "groups add 1",
        "groups move 1 x /a",
        "groups move 1 0 /a",
        "set",
        "set 1 /a",
        "set 1 /a memory.max",
        "set 1 /a memory.max=12Q",
        "set 1 /a memory.high=1M",
    ] {
        assert_eq!(code(line), Some(125), "{line}");
    }
    if !works() {
        return;
    }
    let running = started("64M", &["--disk", "none"], "256", "reads");
    running.until("its socket", |running| running.ask("groups RUN").code == Some(0));
    for (line, says) in [
        ("groups add RUN web", "no name of a group"),
        ("groups add RUN /web/x", "no group \"/web\""),
        ("groups add RUN /", "already"),
        ("groups remove RUN /", "cannot be removed"),
        ("groups remove RUN /x", "no group \"/x\""),
        ("groups move RUN 1 /", "no process 1"),
        ("set RUN /x memory.max=1M", "no group \"/x\""),
        ("set RUN / memory.max=max", "at least"),
        ("set RUN / memory.max=1M", "at least"),
    ] {
        let told = running.ask(line);
        assert!(told.code == Some(1) && told.all_prefixed() && told.err.contains(says), "{line}: {told:?}");
    }
    running.must("set RUN / memory.max=48M");
    assert_eq!(running.figure("/", "memory.max"), 48 * MIB);
    assert_eq!(running.end(), (Some(0), "0 wrong 0 wrong".into()));
}
