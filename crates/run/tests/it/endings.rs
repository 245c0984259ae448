//! Exit codes, signals, and what is left when one of the processes dies.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use vswap_sys::{process, signal};

use crate::programs::{compile, text, within, within_by};

/// Options under which the program's parent is the front, and a keeper.
const PARENTS: [&[&str]; 2] = [&[], &["keeper"]];

#[test]
fn exit_codes_are_not_those_of_the_program() {
    for parent in PARENTS {
        let run = |program: &[&str]| within_by(64, parent, program).output().unwrap();
        let code = |program: &[&str]| run(program).status.code();
        assert_eq!(code(&["true"]), Some(0));
        assert_eq!(code(&["sh", "-c", "exit 42"]), Some(42));
        assert_eq!(code(&["/no/such/program"]), Some(127));
        assert_eq!(code(&["/etc/passwd"]), Some(126));
        assert_eq!(run(&["sh", "-c", "kill -TERM $$"]).status.signal(), Some(15));
        assert_eq!(run(&["sh", "-c", "kill -SEGV $$"]).status.signal(), Some(11));
        let said = run(&["/no/such/program"]);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said, "vswap: cannot execute '/no/such/program': No such file or directory\n");
    }
}

#[test]
fn figures_are_wanted_of_a_program_that_is_over_before_they_are_made() {
    for parent in PARENTS {
        let options = [parent, &["stats"]].concat();
        let shown = within_by(64, &options, &["true"]).output().unwrap();
        assert!(String::from_utf8_lossy(&shown.stderr).contains("peak memory"), "{}", text(&shown));
        let none = within_by(64, &options, &["/no/such/program"]).output().unwrap();
        assert_eq!(none.status.code(), Some(127));
        assert!(!String::from_utf8_lossy(&none.stderr).contains("peak memory"), "{}", text(&none));
    }
}

/// The front must hear of its program's end, which it does not while the signal is ignored; the program must not notice.
#[test]
fn signals_that_the_starter_ignores_or_blocks_are_handled_by_the_program() {
    let starter = |program: &[&str]| {
        let signals = ["--ignore-signal=CHLD,PIPE,USR2", "--block-signal=USR1,CHLD"];
        Command::new("env").args(signals).args(program).stdin(Stdio::null()).output().unwrap()
    };
    let show = ["grep", "-E", "SigBlk|SigIgn|SigCgt", "/proc/self/status"];
    let plain = starter(&show);
    assert!(String::from_utf8_lossy(&plain.stdout).contains("SigIgn"), "{}", text(&plain));
    for parent in PARENTS {
        let run = within_by(64, parent, &show);
        let words: Vec<&str> = std::iter::once(run.get_program())
            .chain(run.get_args())
            .map(|word| word.to_str().unwrap())
            .collect();
        let run = starter(&words);
        assert!(run.status.success(), "{}", text(&run));
        assert_eq!(run.stdout, plain.stdout);
    }
}

#[test]
fn an_empty_or_missing_path_is_searched_otherwise_than_in_a_plain_run() {
    let plain = |path: Option<&str>, wrap: Option<&[&str]>| {
        let run = within_by(64, wrap.unwrap_or(&[]), &["true"]);
        let mut command = match wrap {
            Some(_) => Command::new(run.get_program()),
            None => Command::new("/usr/bin/env"),
        };
        if wrap.is_some() {
            command.args(run.get_args());
        } else {
            command.arg("true");
        }
        match path {
            Some(path) => command.env("PATH", path),
            None => command.env_remove("PATH"),
        };
        command.current_dir("/bin").stdin(Stdio::null()).output().unwrap().status.code()
    };
    for path in [None, Some(""), Some("/nowhere:"), Some("/nowhere"), Some("/etc/passwd:/bin")] {
        for parent in PARENTS {
            assert_eq!(plain(path, Some(parent)), plain(path, None), "PATH {path:?}");
        }
    }
}

#[test]
fn a_run_inside_a_run_fails_without_a_word() {
    let inner = within(64, &["true"]);
    let program = inner.get_program().to_str().unwrap().to_owned();
    let output = within(64, &[&program, "64", "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", text(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be nested"), "{}", text(&output));
}

#[test]
fn a_daemon_keeps_the_output_pipe_of_the_engine_open() {
    let begun = Instant::now();
    let output = within(64, &["sh", "-c", "sleep 30 >/dev/null 2>&1 & echo $!"]).output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "waited for the daemon");
    let daemon: i32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    process::kill(daemon, 9).expect("the daemon lives on");
}

/// Starts a managed program that prints a line when it is; its own number is in the line.
fn start_sitting(name: &str, parent: &[&str]) -> (std::process::Child, i32) {
    let body = "int main(){ char*p=area(64*MIB); fill(p,64*MIB,1); press(); printf(\"%d\\n\",getpid()); fflush(stdout); for(;;) if(wrong(p,64*MIB,1)) return 77; }";
    let program = compile(name, body, &[]);
    let mut child = within_by(24, parent, &[&program])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().parse().unwrap())
}

fn gone(pid: i32) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") || state.contains(") X ") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn a_killed_program_leaves_its_engine() {
    for parent in PARENTS {
        let (mut front, program) = start_sitting("sit_program", parent);
        let engine = process::children(front.id() as i32).unwrap()[0];
        process::kill(program, 9).unwrap();
        assert_eq!(front.wait().unwrap().signal(), Some(9));
        assert!(gone(engine));
    }
}

#[test]
fn a_killed_front_leaves_the_program() {
    for parent in PARENTS {
        let (mut front, program) = start_sitting("sit_front", parent);
        let engine = process::children(front.id() as i32).unwrap()[0];
        front.kill().unwrap();
        front.wait().unwrap();
        assert!(gone(program));
        assert!(gone(engine));
    }
}

/// Processes whose command line contains `mark`.
fn marked(mark: &str) -> Vec<i32> {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(mark))
    })
    .collect()
}

/// Waits until no process bears `mark`: who ends has given its descriptors back a moment before it is gone.
pub fn leaves_nobody(mark: &str) {
    let begun = Instant::now();
    while !marked(mark).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "left: {:?}", marked(mark));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_front_killed_before_its_program_has_made_a_call_leaves_the_program() {
    let mark = format!("{}.25", 1000 + std::process::id() % 1000);
    for after in 0..80 {
        let parent = PARENTS[after as usize % 2];
        let mut run = within_by(24, parent, &["sleep", &mark]);
        let mut front = run.stderr(Stdio::null()).process_group(0).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(after * 200));
        front.kill().unwrap();
        front.wait().unwrap();
    }
    leaves_nobody(&mark);
}

/// The engine said so four hundred thousand times, for two seconds.
#[test]
fn a_killed_keeper_is_told_again_and_again() {
    let mark = format!("{}.75", 1000 + std::process::id() % 1000);
    let mut run = within_by(24, &["keeper"], &["sleep", &mark]);
    let mut front = run.stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    let begun = Instant::now();
    let own = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"))
    };
    while !marked(&mark).iter().any(own) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the program does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let engine = process::children(front.id() as i32).unwrap()[0];
    let keeper = process::children(engine).unwrap()[0];
    process::kill(keeper, 9).unwrap();
    let told = BufReader::new(front.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(told.filter(|line| line.contains("keeper was killed")).count(), 1);
    assert_eq!(front.wait().unwrap().code(), Some(125));
    leaves_nobody(&mark);
}

#[test]
fn a_killed_engine_leaves_the_program_reading_zeroes() {
    for parent in PARENTS {
        let (mut front, program) = start_sitting("sit_engine", parent);
        let engine = process::children(front.id() as i32).unwrap()[0];
        process::kill(engine, 9).unwrap();
        assert_eq!(front.wait().unwrap().code(), Some(125));
        assert!(gone(program));
    }
}

#[test]
fn a_killed_front_and_engine_leave_the_program() {
    let (mut front, program) = start_sitting("sit_both", &[]);
    let engine = process::children(front.id() as i32).unwrap()[0];
    process::kill(engine, 19).unwrap();
    front.kill().unwrap();
    process::kill(engine, 9).unwrap();
    front.wait().unwrap();
    assert!(gone(program));
}

#[test]
fn a_signal_for_the_front_does_not_reach_the_program() {
    let mut child = within(64, &["sh", "-c", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    process::kill(child.id() as i32, 10).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_stopped_program_leaves_its_front_running() {
    for parent in PARENTS {
        let (mut front, program) = start_sitting("sit_stop", parent);
        process::kill(program, 19).unwrap();
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", front.id())).unwrap();
        let begun = Instant::now();
        while !stat().contains(") T ") {
            assert!(begun.elapsed() < Duration::from_secs(20), "the front goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        process::kill(-(front.id() as i32), 18).unwrap();
        process::kill(program, 15).unwrap();
        assert_eq!(front.wait().unwrap().signal(), Some(15));
    }
}

#[test]
fn a_traced_program_is_harmed() {
    let body = "int main(){ char*p=area(48*MIB); fill(p,48*MIB,1); return wrong(p,48*MIB,1)!=0; }";
    let program = compile("traced", body, &[]);
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return;
    }
    let output = within(24, &["strace", "-o", "/dev/null", &program]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("without being managed"), "{}", text(&output));
}

#[test]
fn an_ordinary_user_without_userfaultfd_is_left_to_guess() {
    use std::os::unix::fs::PermissionsExt;
    let closed = |path: &str| std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o006 == 0);
    let may = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").unwrap_or_default();
    if !process::is_root() || may.trim() != "0" || !closed("/dev/userfaultfd") {
        return;
    }
    let mut command = within(64, &["true"]);
    // Where nobody may read what is in the build's directory, this test says nothing.
    let output = match command.uid(65534).gid(65534).output() {
        Ok(output) => output,
        Err(_) => return,
    };
    assert_eq!(output.status.code(), Some(125), "{}", text(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("vswap setup"), "{}", text(&output));
}

/// What had been said of it was still in a socket of which a process that waited for the answer had the other end too.
#[test]
fn an_engine_that_fails_early_leaves_a_keeper_and_a_program_that_wait_for_ever() {
    let file = std::env::temp_dir().join(format!("vswap-no-directory-{}", std::process::id()));
    std::fs::write(&file, "").unwrap();
    for parent in PARENTS {
        let place = format!("disk-path={}/below", file.display());
        let options = [parent, &["disk=64", &place]].concat();
        let mark = format!("{}.5", 2000 + std::process::id() % 1000);
        // Both pipes see their end only when nobody has them any more.
        let output = within_by(64, &options, &["sleep", &mark]).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{}", text(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains("--disk-path"), "{}", text(&output));
        leaves_nobody(&mark);
    }
    std::fs::remove_file(&file).unwrap();
}

/// The program was stopped before it was executed, and the front waited for its exec in the kernel: neither the shell nor Ctrl-C
/// was heard.
#[test]
fn a_stop_in_the_first_moments_is_never_seen() {
    for after in 0..60u64 {
        let parent = PARENTS[after as usize % 2];
        let mut run = within_by(24, parent, &["sleep", "0.05"]);
        let mut front = run.stderr(Stdio::null()).process_group(0).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(after * 100));
        let group = -(front.id() as i32);
        let stopped = process::kill(group, signal::SIGTSTP).is_ok();
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", front.id())).unwrap();
        let begun = Instant::now();
        while stopped && !stat().contains(") T ") && !stat().contains(") Z ") {
            assert!(begun.elapsed() < Duration::from_secs(20), "the front goes on after {after}: {}", stat());
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = process::kill(group, signal::SIGCONT);
        assert_eq!(front.wait().unwrap().code(), Some(0), "stopped after {after}");
    }
}

/// A keeper's news of a stop came when the program had gone on and the front with it: the front stopped, and nobody woke it again.
#[test]
fn a_stop_that_is_over_stops_the_front_for_ever() {
    let status = end_while_the_front_is_stopped(signal::SIGCONT);
    assert_eq!(status.code(), Some(0));
}

/// The same where the program had been killed.
#[test]
fn a_stop_of_a_program_that_is_gone_stops_the_front_for_ever() {
    let status = end_while_the_front_is_stopped(signal::SIGKILL);
    assert_eq!(status.signal(), Some(signal::SIGKILL));
}

/// Stops the front and then the program, which gets `signal` before the front goes on; how the front ends.
fn end_while_the_front_is_stopped(signal: i32) -> ExitStatus {
    let mut run = within_by(24, PARENTS[1], &["sleep", "2"]).stderr(Stdio::null()).spawn().unwrap();
    let front = run.id() as i32;
    let state = |pid: i32| process::thread_state(pid, pid).unwrap_or(b'?');
    let name = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let until = |done: &mut dyn FnMut() -> bool| {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(20), "front {}", state(front) as char);
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let mut program = 0;
    until(&mut || {
        let mut all = vec![front];
        for at in 0.. {
            let Some(&pid) = all.get(at) else { break };
            all.extend(process::children(pid).unwrap_or_default());
        }
        program = all.into_iter().find(|pid| name(*pid) == "sleep\n").unwrap_or(0);
        program != 0
    });
    process::kill(front, signal::SIGSTOP).unwrap();
    until(&mut || state(front) == b'T');
    process::kill(program, signal::SIGSTOP).unwrap();
    until(&mut || state(program) == b'T');
    // The keeper says so.
    std::thread::sleep(Duration::from_millis(200));
    process::kill(program, signal).unwrap();
    until(&mut || state(program) != b'T');
    // A keeper collects it.
    std::thread::sleep(Duration::from_millis(200));
    process::kill(front, signal::SIGCONT).unwrap();
    let mut ended = None;
    until(&mut || {
        ended = run.try_wait().unwrap();
        ended.is_some()
    });
    ended.unwrap()
}

/// The engine was still in the group that a `SIGTERM` was for, and the run ended with 125.
#[test]
fn an_end_in_the_first_moments_is_the_programs() {
    for after in 0..60u64 {
        let mut run = within_by(24, PARENTS[after as usize % 2], &["sleep", "30"]);
        let mut front = run.stderr(Stdio::null()).process_group(0).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(after * 50));
        let _ = process::kill(-(front.id() as i32), 15);
        assert_eq!(front.wait().unwrap().signal(), Some(15), "after {after}");
    }
}

/// Whoever stops a service sends `SIGTERM` to all its processes at once. The program was killed because its engine had ended.
#[test]
fn a_program_that_everybody_is_told_to_end_with_ends_in_its_own_time() {
    let body = "static volatile int told; static void term(int s){ told=1; }
          int main(){ signal(SIGTERM,term); char*p=area(48*MIB); fill(p,48*MIB,1); press(); printf(\"%d\\n\",getpid()); fflush(stdout);
          while(!told) usleep(1000); usleep(100000); return wrong(p,48*MIB,1)?1:7; }";
    let program = compile("terminated", body, &[]);
    for parent in PARENTS {
        let mut run = within_by(24, parent, &[&program]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(run.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let front = run.id() as i32;
        let mut all = vec![front];
        for at in 0.. {
            let Some(&pid) = all.get(at) else { break };
            all.extend(process::children(pid).unwrap());
        }
        // The front, the engine and the program; a keeper where it is asked for, or needed here.
        assert!(all.len() >= if parent.is_empty() { 3 } else { 4 }, "{all:?}");
        for pid in all {
            process::kill(pid, 15).unwrap();
        }
        assert_eq!(run.wait().unwrap().code(), Some(7));
    }
}

/// The program ends by itself when its calls are not answered any more, and the front hears of that first.
#[test]
fn an_engine_that_is_killed_is_taken_for_the_programs_own_end() {
    for turn in 0..40 {
        let mut run = within(64, &["sh", "-c", "echo; while :; do /bin/true; done"]);
        let mut front = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(front.stdout.take().unwrap()).read_line(&mut line).unwrap();
        std::thread::sleep(Duration::from_micros(turn * 300));
        process::kill(process::children(front.id() as i32).unwrap()[0], 9).unwrap();
        let output = front.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{}", text(&output));
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("engine ended unexpectedly"),
            "{}",
            text(&output)
        );
    }
}

/// In a container the command may be the first process, to which all orphans come.
#[test]
fn orphans_that_come_to_the_front_stay_zombies() {
    if !process::is_root() {
        return;
    }
    let body = "for i in 1 2 3 4 5; do (sleep 0.1 &); done; sleep 0.5; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l";
    let run = within(64, &["sh", "-c", body]);
    let words = std::iter::once(run.get_program()).chain(run.get_args());
    let output = Command::new("unshare").args(["-pf", "--mount-proc"]).args(words).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{}", text(&output));
    assert!(output.status.success(), "{}", text(&output));
}

/// An alarm that was set before the exec is the program's in a plain run, since it keeps its process.
#[test]
fn an_alarm_of_the_starter_does_not_reach_the_program() {
    let run = within(64, &["sleep", "20"]);
    let words = std::iter::once(run.get_program()).chain(run.get_args());
    let status = Command::new("perl").args(["-e", "alarm 1; exec @ARGV"]).args(words).status().unwrap();
    assert_eq!(status.signal(), Some(14), "{status}");
}
