//! Exit codes, signals, and what is left when one of the processes dies.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vswap_sys::process;

use crate::programs::{compile, text, within};

fn code(mib: u64, program: &[&str]) -> Option<i32> {
    within(mib, program).stderr(Stdio::null()).status().unwrap().code()
}

#[test]
fn exit_codes_are_not_those_of_the_program() {
    assert_eq!(code(64, &["true"]), Some(0));
    assert_eq!(code(64, &["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(code(64, &["/no/such/program"]), Some(127));
    assert_eq!(code(64, &["/etc/passwd"]), Some(126));
    assert_eq!(within(64, &["sh", "-c", "kill -TERM $$"]).status().unwrap().signal(), Some(15));
    assert_eq!(within(64, &["sh", "-c", "kill -SEGV $$"]).status().unwrap().signal(), Some(11));
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
fn start_sitting(name: &str) -> (std::process::Child, i32) {
    let body = "int main(){ char*p=area(64*MIB); fill(p,64*MIB,1); press(); printf(\"%d\\n\",getpid()); fflush(stdout); for(;;) if(wrong(p,64*MIB,1)) return 77; }";
    let program = compile(name, body, &[]);
    let mut child = within(24, &[&program])
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
    let (mut front, program) = start_sitting("sit_program");
    let engine = process::children(front.id() as i32).unwrap()[0];
    process::kill(program, 9).unwrap();
    assert_eq!(front.wait().unwrap().signal(), Some(9));
    assert!(gone(engine));
}

#[test]
fn a_killed_front_leaves_the_program() {
    let (mut front, program) = start_sitting("sit_front");
    let engine = process::children(front.id() as i32).unwrap()[0];
    front.kill().unwrap();
    front.wait().unwrap();
    assert!(gone(program));
    assert!(gone(engine));
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

#[test]
fn a_front_killed_before_its_program_has_made_a_call_leaves_the_program() {
    let mark = format!("{}.25", 1000 + std::process::id() % 1000);
    for after in 0..40 {
        let mut front = within(24, &["sleep", &mark]).stderr(Stdio::null()).process_group(0).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(after * 400));
        front.kill().unwrap();
        front.wait().unwrap();
    }
    let begun = Instant::now();
    while !marked(&mark).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "left: {:?}", marked(&mark));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The engine said so four hundred thousand times, for two seconds.
#[test]
fn a_killed_keeper_is_told_again_and_again() {
    let mark = format!("{}.75", 1000 + std::process::id() % 1000);
    let mut front = within(24, &["sleep", &mark]).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
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
    assert!(marked(&mark).is_empty());
}

#[test]
fn a_killed_engine_leaves_the_program_reading_zeroes() {
    let (mut front, program) = start_sitting("sit_engine");
    let engine = process::children(front.id() as i32).unwrap()[0];
    process::kill(engine, 9).unwrap();
    assert_eq!(front.wait().unwrap().code(), Some(125));
    assert!(gone(program));
}

#[test]
fn a_killed_front_and_engine_leave_the_program() {
    let (mut front, program) = start_sitting("sit_both");
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
    let (mut front, program) = start_sitting("sit_stop");
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
