//! What `vswap run` must not change: output, exit code, signals, and all that a program inherits.
//!
//! Each test runs a program plainly and under vswap and compares. They are skipped, with a word, where `vswap doctor`
//! says that `run` does not work.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::vswap::{Said, command, line, said};

/// Whether `run` works here.
pub fn works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let works = line("doctor").code == Some(0);
        if !works {
            eprintln!("skipped: vswap doctor says that run does not work here");
        }
        works
    })
}

/// `vswap run` of a program, not yet started.
pub fn run(options: &[&str], program: &[&str]) -> Command {
    let mut command = command();
    command.args(["run", "--memory", "64M"]).args(options).arg("--").args(program).stdin(Stdio::null());
    command
}

fn plain(program: &[&str]) -> Command {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).env_remove("SUDO_USER").env_remove("TMPDIR").stdin(Stdio::null());
    command
}

fn both(program: &[&str]) -> (Said, Said) {
    let of = |mut command: Command| said(command.output().expect("starts"));
    (of(plain(program)), of(run(&[], program)))
}

fn shell(script: &str) -> [&str; 3] {
    ["/bin/sh", "-c", script]
}

#[test]
fn output_and_exit_code_are_the_programs_and_vswap_says_nothing() {
    if !works() {
        return;
    }
    for script in
        ["echo out; echo err >&2", "exit 7", "exit 255", "true", "false", "printf '%s|' a 'b c' ''; exit 125"]
    {
        let (plain, under) = both(&shell(script));
        assert_eq!((plain.code, plain.out, plain.err), (under.code, under.out, under.err), "{script}");
    }
}

#[test]
fn a_program_that_is_missing_or_no_program_has_the_exit_codes_of_env() {
    if !works() {
        return;
    }
    for (program, code) in
        [("/no/such/program", 127), ("no-such-program-in-path", 127), ("/etc/passwd", 126), ("/", 126)]
    {
        let under = said(run(&[], &[program]).output().expect("starts"));
        assert_eq!(under.code, Some(code), "{under:?}");
        assert!(under.err.contains(program) && under.all_prefixed(), "{under:?}");
    }
}

#[test]
fn death_by_a_signal_is_passed_on_as_that() {
    if !works() {
        return;
    }
    for signal in [1, 2, 6, 9, 11, 13, 15] {
        let status = run(&[], &shell(&format!("kill -{signal} $$"))).status().expect("starts");
        assert_eq!(status.signal(), Some(signal), "{status:?}");
    }
}

#[test]
fn a_signal_sent_to_vswap_reaches_the_program() {
    if !works() {
        return;
    }
    let mut child =
        run(&[], &shell("trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
    let mut out = child.stdout.take().expect("piped");
    let mut ready = [0; 6];
    out.read_exact(&mut ready).expect("ready");
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("text");
    assert_eq!((rest.as_str(), child.wait().expect("ends").code()), ("got\n", Some(5)));
}

#[test]
fn what_is_written_to_standard_input_arrives_and_its_end_too() {
    if !works() {
        return;
    }
    let mut child = run(&[], &["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let text = "line\n".repeat(100_000);
    let mut input = child.stdin.take().expect("piped");
    let sent = text.clone();
    let writer = std::thread::spawn(move || input.write_all(sent.as_bytes()));
    let mut got = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut got).expect("text");
    writer.join().expect("no panic").expect("written");
    assert!(got == text && child.wait().expect("ends").success());
}

#[test]
fn a_reader_that_goes_away_ends_the_program_by_sigpipe() {
    if !works() {
        return;
    }
    let mut child = run(&[], &["yes"]).stdout(Stdio::piped()).spawn().expect("starts");
    let mut some = [0; 100];
    child.stdout.take().expect("piped").read_exact(&mut some).expect("text");
    assert_eq!(child.wait().expect("ends").signal(), Some(13));
}

#[test]
fn what_a_program_inherits_is_what_vswap_was_given() {
    if !works() {
        return;
    }
    let scripts = [
        // Signals blocked and ignored; no descriptors of ours; limits; directory; mask; priority; environment.
        "grep -E '^(SigBlk|SigIgn|SigCgt|Groups|Uid|Gid|CapEff|Cpus_allowed_list):' /proc/self/status",
        "ls /proc/self/fd",
        "ulimit -a",
        "pwd; umask; nice; tty; env | grep -v '^_=' | sort",
        "cat /proc/self/oom_score_adj; cat /proc/self/coredump_filter",
        "printf '%s ' $(cat /proc/self/stat | cut -d' ' -f6); echo",
    ];
    for script in scripts {
        let (plain, under) = both(&shell(script));
        assert_eq!((plain.out, plain.err), (under.out, under.err), "{script}");
    }
}

#[test]
fn an_ignored_sigpipe_and_a_closed_descriptor_stay_so() {
    if !works() {
        return;
    }
    let vswap = env!("CARGO_BIN_EXE_vswap");
    for before in ["trap '' PIPE;", "exec <&-;", "exec 2>&-;", "exec <&- >&3 2>&-;"] {
        let look = "grep SigIgn /proc/$$/status; ls /proc/$$/fd";
        let of = |prefix: &str| {
            let script = format!("exec 3>&1; {before} {prefix} /bin/sh -c '({look}) >&3'");
            said(Command::new("/bin/sh").args(["-c", &script]).output().expect("starts"))
        };
        let (plain, under) = (of(""), of(&format!("{vswap} run --memory 64M --")));
        assert_eq!(plain.out, under.out, "{before}");
    }
}

#[test]
fn words_that_are_not_utf8_reach_the_program() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    if !works() {
        return;
    }
    let output = run(&[], &["printf", "%s"]).arg(OsStr::from_bytes(b"a\xffb")).output().expect("starts");
    assert_eq!(output.stdout, b"a\xffb");
}

#[test]
fn a_process_left_behind_does_not_hold_vswap_up_unless_asked() {
    if !works() {
        return;
    }
    // The one left closes what it inherited, as a daemon does, and ends when its file is removed.
    let directory = tempfile::tempdir().expect("a directory");
    let flag = directory.path().join("flag");
    let script =
        format!("touch {0}; (while [ -e {0} ]; do sleep 0.05; done) <&- >&- 2>&- & exit 3", flag.display());
    let status = run(&[], &shell(&script)).status().expect("starts");
    assert_eq!(status.code(), Some(3));
    assert!(flag.exists(), "it did not wait");
    std::fs::remove_file(&flag).expect("removed");

    let mut waiting = run(&["--wait-all"], &shell(&script)).spawn().expect("starts");
    while !flag.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(waiting.try_wait().expect("state"), None, "it waits");
    std::fs::remove_file(&flag).expect("removed");
    assert_eq!(waiting.wait().expect("ends").code(), Some(3));
}
