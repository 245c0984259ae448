//! `vswap status`, `vswap tiers` and `vswap tier` on a program that runs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run_like_plain::{run, works};
use crate::vswap::{Said, command, said};

/// Fills so many pages, of which a third can be compressed away, says so, and checks them over and over until its input ends.
const PROGRAM: &str = r#"
import os, select, sys
pages, noise = int(sys.argv[1]), os.urandom(1 << 20)
memory = bytearray(pages * 4096)
def content(i): return noise[i * 7 % 500000:][:2600] + i.to_bytes(8, "little")
for i in range(pages): memory[i * 4096:i * 4096 + 2608] = content(i)
print("filled", flush=True)
i = wrong = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(256):
        i = (i * 5 + 12345) % pages
        wrong += memory[i * 4096:i * 4096 + 2608] != content(i)
for i in range(pages): wrong += memory[i * 4096:i * 4096 + 2608] != content(i)
print(wrong, "wrong")
"#;

/// A run whose sockets are in a directory of its own.
pub struct Running {
    pub child: Child,
    pub out: BufReader<std::process::ChildStdout>,
    runtime: tempfile::TempDir,
}

fn asked(runtime: &Path, words: &[&str]) -> Said {
    said(vswap_in(runtime).args(words).output().expect("starts"))
}

fn vswap_in(runtime: &Path) -> Command {
    let mut command = command();
    command.env("XDG_RUNTIME_DIR", runtime);
    command
}

/// 192 MiB, of which a third fits.
fn started(options: &[&str]) -> Running {
    filled(options, "49152")
}

pub const PYTHON: [&str; 3] = ["/usr/bin/python3", "-c", PROGRAM];

fn filled(options: &[&str], pages: &str) -> Running {
    let mut command = run(options, &PYTHON);
    command.arg(pages);
    filled_by(command)
}

/// One whose program says that it has filled its memory.
pub fn filled_by(mut command: Command) -> Running {
    let runtime = tempfile::tempdir().expect("a directory");
    command.env("XDG_RUNTIME_DIR", runtime.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it says something");
    assert_eq!(line, "filled\n");
    Running { child, out, runtime }
}

impl Running {
    pub fn ask(&self, words: &[&str]) -> Said {
        asked(self.runtime.path(), words)
    }

    /// Of this one: root sees those of other tests as well.
    pub fn ask_it(&self, words: &[&str]) -> Said {
        let number = self.child.id().to_string();
        let which = if words[0] == "tier" { vec!["--run", &number] } else { vec![number.as_str()] };
        self.ask(&[words, &which].concat())
    }

    pub fn status(&self) -> Value {
        let told = self.ask(&["status", &self.child.id().to_string(), "--json"]);
        assert_eq!((told.code, told.err.as_str()), (Some(0), ""));
        serde_json::from_str::<Value>(&told.out).expect("JSON")[0].take()
    }

    /// Waits until it can be asked.
    pub fn until_asked(&self) {
        let since = Instant::now();
        while self.ask_it(&["status"]).code != Some(0) {
            assert!(since.elapsed() < Duration::from_secs(60), "it has no socket");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until something is on a tier.
    pub fn written(&self) {
        let since = Instant::now();
        while self.status()["swapped"] == 0 {
            assert!(since.elapsed() < Duration::from_secs(60), "nothing is written: {:#}", self.status());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn children(&self) -> Vec<i32> {
        vswap_sys::process::children(self.child.id() as i32).expect("it has children")
    }

    fn engine(&self) -> i32 {
        let is_engine = |pid: &i32| {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
            exe.is_ok_and(|exe| exe == Path::new(env!("CARGO_BIN_EXE_vswap")))
        };
        let engines: Vec<i32> = self.children().into_iter().filter(is_engine).collect();
        assert_eq!(engines.len(), 1, "{engines:?}");
        engines[0]
    }

    /// Ends it; what it said last.
    pub fn end(mut self) -> (Option<i32>, String) {
        drop(self.child.stdin.take());
        let mut last = String::new();
        self.out.read_line(&mut last).expect("its last words");
        let code = self.child.wait().expect("it ends").code();
        // The engine removes its socket when the last has gone, which it hears as soon as we do.
        let sockets = || std::fs::read_dir(self.runtime.path().join("vswap")).expect("made").count();
        let since = Instant::now();
        while sockets() > 0 {
            assert!(since.elapsed() < Duration::from_secs(10), "its socket is left");
            std::thread::sleep(Duration::from_millis(2));
        }
        (code, last)
    }
}

#[test]
fn tiers_come_and_go_and_the_program_does_not_notice() {
    if !works() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory on a disk");
    let place = dir.path().to_str().expect("UTF-8");
    let running = started(&["--disk", "1G"]);
    running.written();
    let status = running.status();
    assert_eq!(
        (status["program"].as_str(), status["tiers"][0]["state"].as_str()),
        (Some("python3"), Some("open"))
    );
    let figure = |name: &str| status[name].as_u64().expect(name);
    assert!(figure("used") > 32 << 20 && figure("used") <= figure("limit") + (4 << 20), "{status:#}");
    // The only one: refused, with the sum and what to do.
    let refused = running.ask_it(&["tier", "remove", "0"]);
    assert_eq!((refused.code, refused.all_prefixed()), (Some(1), true), "{refused:?}");
    assert!(refused.err.contains("room for 0") && refused.err.contains("add a tier"), "{refused:?}");
    let as_json = running.ask_it(&["tier", "remove", "0", "--json"]);
    assert_eq!((as_json.code, as_json.out.as_str()), (Some(1), ""), "{as_json:?}");
    assert!(as_json.err.contains("room for 0"), "{as_json:?}");
    let added = running.ask_it(&["tier", "add", place, "--size", "1G", "--priority", "-7"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    let removed = running.ask_it(&["tier", "remove", "0"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert!(removed.out.starts_with("tier 0 removed: "), "{removed:?}");
    let table = running.ask_it(&["tiers"]).out;
    assert!(table.starts_with("TIER  NAME") && table.contains(place) && table.contains("-7"), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(running.status()["tiers"][0]["used"].as_u64() > Some(0));
    let shown = running.ask_it(&["status"]).out;
    assert!(shown.contains("python3") && shown.contains("64.00 MiB") && shown.contains(place), "{shown}");
    assert_eq!(running.end(), (Some(0), "0 wrong\n".to_owned()));
}

/// The one object that a command prints, and that it says nothing else.
fn object(told: &Said) -> Value {
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{told:?}");
    serde_json::from_str(&told.out).expect("JSON")
}

#[test]
fn what_is_done_to_a_tier_is_told_as_json_too() {
    if !works() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory on a disk");
    let place = dir.path().to_str().expect("UTF-8");
    let running = started(&["--disk", "1G"]);
    running.written();
    let of_it =
        |tier: u8| serde_json::json!({ "pid": running.child.id(), "program": "python3", "tier": tier });
    let added = object(&running.ask_it(&["tier", "add", place, "--size", "1G", "--json"]));
    assert_eq!(added, of_it(1));
    assert_eq!(object(&running.ask_it(&["tier", "reopen", place, "--json"])), of_it(1));
    let mut removed = object(&running.ask_it(&["tier", "remove", "0", "--json"]));
    let mut figure = |name: &str| removed[name].take().as_f64().expect(name);
    let (segments, bytes, seconds) = (figure("segments"), figure("bytes"), figure("seconds"));
    // The other tier had room for all of it.
    assert_eq!((figure("lost"), figure("pooled")), (0.0, 0.0));
    assert!((0.0..60.0).contains(&seconds), "{seconds}");
    assert!(segments <= bytes && bytes <= segments * f64::from(2 << 20), "{segments}, {bytes}");
    let rest = removed.as_object_mut().expect("an object");
    rest.retain(|_, figure| !figure.is_null());
    assert_eq!(removed, of_it(0));
    assert_eq!(running.end(), (Some(0), "0 wrong\n".to_owned()));
}

#[test]
fn the_only_tier_goes_to_memory_as_soon_as_the_limit_has_room_for_it() {
    if !works() {
        return;
    }
    let running = started(&["--disk", "1G"]);
    running.written();
    let refused = running.ask_it(&["tier", "remove", "0"]);
    assert_eq!((refused.code, refused.all_prefixed()), (Some(1), true), "{refused:?}");
    assert!(refused.err.contains("raise a limit (vswap set)"), "{refused:?}");
    let number = running.child.id().to_string();
    let grown = running.ask(&["set", &number, "/", "memory.max=192M"]);
    assert_eq!(grown.code, Some(0), "{grown:?}");
    let swapped = running.status()["swapped"].as_u64().expect("a figure") / 4096;
    let removed = object(&running.ask_it(&["tier", "remove", "0", "--json"]));
    let pooled = removed["pooled"].as_u64().expect("a figure");
    assert!(pooled > swapped / 2 && removed["lost"].as_u64() == Some(0), "{removed:#}: {swapped}");
    let status = running.status();
    let figure = |name: &str| status[name].as_u64().expect(name);
    assert_eq!((status["tiers"][0].is_null(), figure("swapped")), (true, 0), "{status:#}");
    assert!(figure("used") <= figure("limit") + (4 << 20), "{status:#}");
    assert_eq!(running.end(), (Some(0), "0 wrong\n".to_owned()));
}

#[test]
fn a_run_may_begin_with_several_tiers_and_a_removal_may_be_killed() {
    if !works() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory on a disk");
    let place = dir.path().to_str().expect("UTF-8");
    let running = started(&["--disk", "1G", "--tier", &format!("{place},size=512M,priority=3")]);
    running.written();
    let tiers = running.status()["tiers"].take();
    assert!(
        tiers[1]["used"].as_u64() > Some(0) && tiers[0]["used"] == 0,
        "the higher priority first: {tiers:#}"
    );
    let number = running.child.id().to_string();
    // However far each gets; the last one may have got to the end.
    for turn in 0..20 {
        let mut removal = vswap_in(running.runtime.path());
        let mut removal = removal
            .args(["tier", "remove", place, "--run", &number])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        std::thread::sleep(Duration::from_millis(2 + turn));
        let _ = removal.kill();
        let _ = removal.wait();
        let tiers = running.status()["tiers"].take();
        if tiers[1].is_null() {
            break;
        }
    }
    assert_eq!(running.end(), (Some(0), "0 wrong\n".to_owned()));
}

/// In the words of swapon --show and zramctl.
#[test]
fn a_table_is_shown_as_a_script_wants_it() {
    if !works() {
        return;
    }
    let place =
        tempfile::Builder::new().prefix("two words ").tempdir_in("/var/tmp").expect("a directory on a disk");
    let spec = format!("{},size=64M,priority=-7", place.path().display());
    let running = filled(&["--disk", "none", "--tier", &spec], "4096");
    running.until_asked();
    let of = |options: &[&str]| {
        let told = running.ask_it(&[&["tiers"], options].concat());
        assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{options:?}");
        told.out
    };
    let json: Value = serde_json::from_str(&of(&["--json", "--bytes"])).expect("JSON");
    let name = place.path().display().to_string().replace(' ', "\\x20");
    let size = json[0]["tiers"][0]["size"].as_u64().expect("a size");
    let raw = of(&["--bytes", "--raw", "--output", "name,prio,size"]);
    let pool = raw.lines().nth(1).and_then(|row| row.strip_prefix("- first ")).map(str::parse::<u64>);
    assert!(matches!(pool, Some(Ok(1..))), "{raw}");
    assert!(raw.starts_with("NAME PRIO SIZE\n") && raw.ends_with(&format!("\n{name} -7 {size}\n")), "{raw}");
    let bare = of(&["--noheadings", "-o", "TIER,STATE,TYPE"]);
    assert_eq!(bare, "-  open  pool\n0  open  directory\n");
    let all = of(&["--output-all", "--raw", "--noheadings"]);
    let number = running.child.id().to_string();
    assert!(all.lines().all(|row| row.starts_with(&format!("{number} python3 "))), "{all}");
    let status = running.ask_it(&["status", "--bytes"]).out;
    let limit = running.status()["limit"].as_u64().expect("a limit");
    assert!(status.contains(&format!(" of {limit}, ")) && !status.contains("iB"), "{status}");
    assert_eq!(running.end(), (Some(0), "0 wrong\n".to_owned()));
}

#[test]
fn bad_questions_are_refused_with_what_there_is() {
    let runtime = tempfile::tempdir().expect("a directory");
    let of_nobody = |words: &[&str]| {
        // An ordinary user sees no more than this; root may see other runs on this machine.
        let told = asked(runtime.path(), words);
        (told.code, told.err)
    };
    let (code, err) = of_nobody(&["status", "no-such-program"]);
    assert!(code == Some(1) && err.starts_with("vswap: no "), "{err}");
    for words in [
        &["tier"][..],
        &["tier", "add"],
        &["tier", "add", "/x", "--size", "1"],
        &["tier", "add", "/x", "-p", "99999"],
        &["tier", "add", "/x", "--kind", "tape"],
        &["tier", "add", "/x", "--kind", "ghost"],
        &["tier", "add", "--kind", "file", "--size", "1G"],
    ] {
        assert_eq!(of_nobody(words).0, Some(125), "{words:?}");
    }
    if !works() {
        return;
    }
    let running = filled(&["--disk", "none"], "4096");
    std::thread::sleep(Duration::from_millis(300));
    let tiers = running.ask_it(&["tiers"]);
    // All that there is is the pool.
    let rows: Vec<Vec<&str>> = tiers.out.lines().map(|line| line.split_whitespace().collect()).collect();
    let pool = rows.get(1).map(|row| (&row[..3], &row[row.len() - 2..]));
    assert_eq!(rows.len(), 2, "{tiers:?}");
    assert_eq!(pool, Some((&["-", "-", "pool"][..], &["first", "open"][..])), "{tiers:?}");
    let status = running.status();
    assert!(status["pool_size"].as_u64() > status["pool"].as_u64(), "{status:#}");
    let set = running.ask(&["set", &running.child.id().to_string(), "/", "memory.zswap.max=4M"]);
    assert_eq!(set.code, Some(0), "{set:?}");
    for (words, says) in [
        (&["tier", "remove", "0"][..], "no tier 0"),
        (&["tier", "remove", "/var/tmp"], "no tier /var/tmp"),
        (&["tier", "reopen", "3"], "no tier 3"),
        (&["tier", "add", "/dev/shm"], "tmpfs"),
        (&["tier", "add", "/no/such/dir"], "/no/such/dir"),
    ] {
        let told = running.ask_it(words);
        assert!(
            told.code == Some(1) && told.all_prefixed() && told.err.contains(says),
            "{words:?}: {told:?}"
        );
    }
    let told = running.ask(&["tiers", "emacs"]);
    assert!(told.code == Some(1) && told.err.contains("python3"), "{told:?}");
    assert_eq!(running.end(), (Some(0), "0 wrong\n".to_owned()));
}

/// Kills the engine of a run, with the program or not; how the run ended.
fn engine_killed(with_program: bool) -> Option<i32> {
    let mut running = filled(&[], "4096");
    std::thread::sleep(Duration::from_millis(300));
    let socket = running.runtime.path().join(format!("vswap/{}.sock", running.child.id()));
    assert!(socket.exists());
    let engine = running.engine();
    // Where a keeper is needed the program is not the front's child.
    let others = running.children().into_iter().filter(|pid| with_program && *pid != engine);
    for pid in others.chain([engine]) {
        vswap_sys::process::kill(pid, vswap_sys::signal::SIGKILL).expect("it lives");
    }
    // To wait closes its input otherwise, and a program all of whose memory is there may come to its end before its engine does.
    let _input = running.child.stdin.take();
    let code = running.child.wait().expect("it ends").code();
    assert!(!socket.exists(), "its socket is left, {code:?}");
    code
}

#[test]
fn the_socket_of_a_run_whose_engine_was_killed_is_removed() {
    if works() {
        assert_eq!(engine_killed(false), Some(125));
    }
}

/// The front heard of the program's end first, and left the socket of an engine that was gone as well.
#[test]
fn the_socket_of_a_run_that_was_killed_with_its_engine_is_removed() {
    if works() {
        for _ in 0..5 {
            engine_killed(true);
        }
    }
}

/// A block device over a file, which takes root.
struct Loop(String);

impl Loop {
    /// `None`, with a word, where there can be none.
    fn over(file: &Path) -> Option<Loop> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output();
        match made {
            Ok(made) if made.status.success() => {
                Some(Loop(String::from_utf8(made.stdout).expect("a name").trim().to_owned()))
            }
            other => {
                eprintln!("skipped: no loop device, which takes root: {other:?}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// A file of that length, without anything in it.
pub fn blank(path: &Path, bytes: u64) {
    std::fs::File::create(path).expect("made").set_len(bytes).expect("made longer");
}

#[test]
fn every_kind_of_tier_comes_and_goes_and_the_program_does_not_notice() {
    if !works() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory on a disk");
    let place = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (file, made) = (place("file"), place("made"));
    blank(Path::new(&file), 512 << 20);
    blank(&dir.path().join("disk"), 512 << 20);
    let device = Loop::over(&dir.path().join("disk"));
    let running = started(&["--disk-path", &file]);
    running.written();
    let mut steps = vec![
        (vec![dir.path().to_str().expect("UTF-8")], "directory"),
        (vec![made.as_str(), "--kind", "file", "--size", "512M"], "file"),
    ];
    if let Some(device) = &device {
        steps.push((vec![device.0.as_str()], "device"));
    }
    let mut last = file.clone();
    for (words, kind) in steps {
        let added = running.ask_it(&[&["tier", "add"][..], &words].concat());
        assert_eq!(added.code, Some(0), "{words:?}: {added:?}");
        let removed = running.ask_it(&["tier", "remove", &last]);
        assert_eq!(removed.code, Some(0), "{last}: {removed:?}");
        last = words[0].to_owned();
        let tier = running.status()["tiers"][0].take();
        let shown = (tier["kind"].as_str(), tier["path"].as_str());
        assert_eq!(shown, (Some(kind), Some(words[0])), "{tier:#}");
        assert!(tier["used"].as_u64() > Some(0), "{tier:#}");
        let table = running.ask_it(&["tiers"]).out;
        assert!(table.contains(&format!("  {kind}  ")) && table.contains(words[0]), "{table}");
    }
    assert!(Path::new(&file).exists() && Path::new(&made).exists(), "files stay");
    assert_eq!(running.end(), (Some(0), "0 wrong\n".to_owned()));
}

#[test]
fn a_tier_that_is_somebodys_is_refused_with_what_and_where_and_left_as_it_is() {
    if !works() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory on a disk");
    let file = dir.path().join("swap");
    let place = file.to_str().expect("UTF-8");
    let mut bytes = vec![0; 8 << 20];
    bytes[4086..4096].copy_from_slice(b"SWAPSPACE2");
    std::fs::write(&file, &bytes).expect("written");
    let running = filled(&["--disk", "none"], "4096");
    std::thread::sleep(Duration::from_millis(300));
    for (words, says) in [
        (vec![place], format!("{place} holds a swap area (at offset 0xff6)")),
        (vec![place, "--kind", "device"], format!("{place} is a regular file, not a block device")),
        (vec![place, "--kind", "directory"], format!("use {place}")),
        (vec!["/dev/null"], "/dev/null is neither".into()),
        (vec![place, "--force", "--size", "9M"], format!("{place} has 8388608 bytes")),
    ] {
        let told = running.ask_it(&[&["tier", "add"][..], &words].concat());
        assert!(
            told.code == Some(1) && told.all_prefixed() && told.err.contains(&says),
            "{words:?}: {told:?}"
        );
    }
    assert!(std::fs::read(&file).expect("there") == bytes, "it was written to");
    let refused = run(&["--disk-path", place], &["/bin/true"]).output().expect("starts");
    let refused = said(refused);
    assert!(refused.code == Some(125) && refused.err.contains("holds a swap area"), "{refused:?}");
    let added = running.ask_it(&["tier", "add", place, "--force"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    // In use now, whatever the other says.
    let second = run(&["--tier", &format!("{place},force")], &["/bin/true"]).output().expect("starts");
    let second = said(second);
    assert!(second.code == Some(125) && second.err.contains("in use"), "{second:?}");
    assert_eq!(running.end(), (Some(0), "0 wrong\n".to_owned()));
    let third = run(&["--tier", &format!("{place},kind=file")], &["/bin/true"]).output().expect("starts");
    assert_eq!(third.status.code(), Some(0), "nobody has it any more: {third:?}");
}

#[test]
fn a_ghost_counts_as_memory_pushes_back_and_goes_like_any_tier() {
    if !works() {
        return;
    }
    let running = started(&["--disk", "1G", "--tier", "kind=ghost,size=1T,priority=5"]);
    let since = Instant::now();
    let both = |status: &Value| (0..2).all(|tier| status["tiers"][tier]["used"].as_u64() > Some(0));
    while !both(&running.status()) {
        assert!(since.elapsed() < Duration::from_secs(60), "memory is full: {:#}", running.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = running.status();
    let figure = |name: &str| status[name].as_u64().expect(name);
    assert_eq!(status["tiers"][1]["kind"], "ghost");
    assert!(figure("ghosts") > 1 << 20, "{status:#}");
    let counted = figure("resident") + figure("pool") + figure("ghosts");
    assert!(figure("used") >= counted - (4 << 20), "it is not counted: {status:#}");
    assert!(figure("used") <= figure("limit") + (4 << 20), "{status:#}");
    let shown = running.ask_it(&["status"]).out;
    assert!(shown.contains("ghosts take") && shown.contains("  ghost  "), "{shown}");
    // It is of 1 TiB, but there is no such memory.
    let refused = running.ask_it(&["tier", "remove", "0"]);
    assert!(refused.code == Some(1) && refused.err.contains("add a tier"), "{refused:?}");
    let removed = running.ask_it(&["tier", "remove", "1"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    let status = running.status();
    assert_eq!((status["ghosts"].as_u64(), status["tiers"][1].is_null()), (Some(0), true), "{status:#}");
    let added = running.ask_it(&["tier", "add", "--kind", "ghost", "--priority", "-3"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    let tier = running.status()["tiers"][1].take();
    assert_eq!((tier["kind"].as_str(), tier["path"].is_null()), (Some("ghost"), true), "{tier:#}");
    assert_eq!(running.end(), (Some(0), "0 wrong\n".to_owned()));
}

/// Nothing may be written beyond so much of any file, as if the disk were broken there. The engine was ended by the kernel's signal for
/// that, and the program with it.
#[test]
fn a_tier_that_breaks_takes_no_more_until_it_is_mended_and_the_program_does_not_notice() {
    if !works() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory on a disk");
    let file = dir.path().join("tier");
    blank(&file, 512 << 20);
    let limit = |number: String, bytes: &str| {
        let mut command = Command::new("prlimit");
        command.args([number, format!("--fsize={bytes}")]);
        command
    };
    let mut tier = run(&["--disk-path", file.to_str().expect("UTF-8")], &PYTHON);
    tier.arg("18432");
    let mut command = limit("--core=0".into(), "6291456:unlimited");
    command.arg(tier.get_program()).args(tier.get_args());
    let running = filled_by(command);
    let since = Instant::now();
    let used = |status: &Value| status["tiers"][0]["used"].as_u64().expect("a figure");
    while running.status()["tiers"][0]["state"] != "failing" {
        assert!(since.elapsed() < Duration::from_secs(60), "nothing has failed: {:#}", running.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = running.status();
    assert!(used(&status) > 0 && used(&status) <= 6 << 20, "what was written before is there: {status:#}");
    let mended = limit(format!("--pid={}", running.engine()), "unlimited").status();
    assert!(mended.is_ok_and(|status| status.success()));
    let reopened = running.ask_it(&["tier", "reopen", "0"]);
    assert_eq!(reopened.code, Some(0), "{reopened:?}");
    while used(&running.status()) <= 6 << 20 {
        assert!(since.elapsed() < Duration::from_secs(120), "nothing is written: {:#}", running.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = running.status();
    assert_eq!((&status["tiers"][0]["state"], &status["lost"]), (&"open".into(), &0.into()), "{status:#}");
    assert_eq!(running.end(), (Some(0), "0 wrong\n".to_owned()));
}
