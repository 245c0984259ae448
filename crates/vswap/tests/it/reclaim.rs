//! `vswap run --reclaim` and `vswap set RUN / reclaim=..`. Counts are compared; nothing depends on how long anything takes.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run_like_plain::works;
use crate::vswap::{command, said};

const MIB: u64 = 1 << 20;

/// Fills 96 MiB that are not all the same, then reads 4 MiB of it over and over, until its input ends; in the end all of it.
const PROGRAM: &str = r#"
import os, select, sys
pages, hot = 96 << 8, 4 << 8
noise = os.urandom(1 << 20)
memory = bytearray(pages * 4096)
def content(i): return noise[i * 7 % 500000:][:1000] + i.to_bytes(8, "little")
for i in range(pages): memory[i * 4096:i * 4096 + 1008] = content(i)
def wrong(some): return sum(memory[i * 4096:i * 4096 + 1008] != content(i) for i in some)
print("filled", flush=True)
bad = rounds = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    bad += wrong(range(5000, 5000 + hot))
    rounds += 1
print(bad + wrong(range(pages)), "wrong", rounds > 1, flush=True)
"#;

#[test]
fn a_program_that_uses_a_small_part_of_its_memory_gives_the_rest_back_and_keeps_that_part() {
    if !works() {
        return;
    }
    let runtime = tempfile::tempdir().expect("a directory");
    let vswap = || {
        let mut command = command();
        command.env("XDG_RUNTIME_DIR", runtime.path());
        command
    };
    let mut command = vswap();
    command.args(["run", "--memory", "256M", "--disk", "none", "--reclaim-turn", "2", "--"]);
    command.args(["/usr/bin/python3", "-c", PROGRAM]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it says something");
    let run = child.id().to_string();
    let status = || {
        let told = said(vswap().args(["status", &run, "--json"]).output().expect("starts"));
        let status = serde_json::from_str::<Value>(&told.out).ok()?;
        let figures = ["resident", "reclaimed", "reclaim_target"].map(|name| status[0][name].as_u64());
        Some(figures.map(Option::unwrap_or_default))
    };
    let until = |what: &str, is: &dyn Fn([u64; 3]) -> bool| {
        let since = Instant::now();
        loop {
            if let Some(now) = status().filter(|now| is(*now)) {
                return now;
            }
            assert!(since.elapsed() < Duration::from_secs(100), "not before long: {what}: {:?}", status());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let [resident, reclaimed, target] = until("it is there", &|[resident, ..]| resident > 96 * MIB);
    assert_eq!((reclaimed, target), (0, 0), "{resident}");
    let set = |to: &str| said(vswap().args(["set", &run, "/", to]).output().expect("starts"));
    let told = set("reclaim=20%");
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""));
    // What Python itself has, the part that is read, and a 32nd of the limit in staging.
    let [_, reclaimed, target] = until("the cold part is out", &|[resident, ..]| resident < 32 * MIB);
    assert_eq!(target, 200_000);
    assert!(reclaimed >= 64 << 8, "{reclaimed}");
    assert!(said(vswap().args(["status", &run]).output().expect("starts")).out.contains("reclaim "));
    let told = set("reclaim=off");
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""));
    until("it is off", &|[_, _, target]| target == 0);
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"end\n").expect("it listens");
    drop(input);
    line.clear();
    out.read_line(&mut line).expect("it says something");
    assert_eq!(line.trim(), "0 wrong True");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn reclaim_is_of_all_and_no_share_is_refused() {
    if !works() {
        return;
    }
    let runtime = tempfile::tempdir().expect("a directory");
    let mut command = command();
    let script = r#"
until "$1" status $PPID >/dev/null 2>&1; do sleep 0.02; done
"$1" groups add $PPID /a
"$1" set $PPID /a reclaim=1%; echo $?
"$1" set $PPID / reclaim=much; echo $?
"$1" set $PPID / reclaim=1% memory.max=100M; echo $?
"#;
    command.args([
        "run",
        "--memory",
        "256M",
        "--",
        "/bin/sh",
        "-c",
        script,
        "sh",
        env!("CARGO_BIN_EXE_vswap"),
    ]);
    command.env("XDG_RUNTIME_DIR", runtime.path());
    let said = said(command.output().expect("starts"));
    assert_eq!((said.code, said.out.as_str()), (Some(0), "1\n125\n0\n"), "{said:?}");
    assert!(said.err.contains("only be set for /") && said.err.contains("0.5%"), "{said:?}");
}
