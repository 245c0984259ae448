//! A page that is spoilt on its tier is lost to whoever reads it, and to nobody else; `vswap status` and the log name it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run_like_plain::{run, works};
use crate::tiers::{Running, blank, filled_by};

/// Fills so many pages with noise, says so, and after each byte of its input reads them all twice: says where it got SIGBUS, and how many
/// words were wrong.
const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
static sigjmp_buf back;
static volatile unsigned long at;
static void on_bus(int signal, siginfo_t *info, void *context) { at = (unsigned long)info->si_addr & ~4095ul; siglongjmp(back, 1); }
static unsigned long mix(unsigned long x) { x ^= x >> 30; x *= 0xbf58476d1ce4e5b9ul; x ^= x >> 27; x *= 0x94d049bb133111ebul; return x ^ x >> 31; }
int main(int count, char **words) {
  unsigned long pages = atol(words[1]), *p = mmap(0, pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct sigaction action = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO };
  sigaction(SIGBUS, &action, 0);
  for (unsigned long i = 0; i < pages << 9; i++) p[i] = mix(i + 1);
  puts("filled");
  fflush(stdout);
  for (char c; read(0, &c, 1) == 1;) {
    volatile unsigned long wrong = 0;
    for (volatile int round = 0; round < 2; round++)
      for (volatile unsigned long page = 0; page < pages; page++) {
        if (sigsetjmp(back, 1)) { printf("lost %d %lu\n", getpid(), at); continue; }
        for (unsigned long i = page << 9; i < (page + 1) << 9; i++) wrong += p[i] != mix(i + 1);
      }
    printf("wrong %lu\n", wrong);
    fflush(stdout);
  }
  puts("end");
}
"#;

/// 96 MiB, of which two thirds fit.
const PAGES: u64 = 24576;

fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// A page as its program sees it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    pid: u64,
    address: u64,
}

/// A run of the program whose pages go to a file that can be looked into.
struct Spoiler {
    running: Running,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Spoiler {
    fn start() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory on a disk");
        let (source, program, file) =
            (dir.path().join("reader.c"), dir.path().join("reader"), dir.path().join("tier"));
        std::fs::write(&source, PROGRAM).expect("written");
        let built = Command::new("cc").args(["-O1", "-w", "-o"]).args([&program, &source]).status();
        assert!(built.expect("a C compiler").success());
        blank(&file, 64 << 20);
        let place = file.to_str().expect("UTF-8");
        // Pages lie there as they are.
        let mut command =
            run(&["--disk-path", place, "--encrypt", "off"], &[program.to_str().expect("UTF-8")]);
        command.arg(PAGES.to_string()).stderr(Stdio::piped());
        Self { running: filled_by(command), file, _dir: dir }
    }

    /// Changes one byte of all copies of one page that is on the tier. Where one of them begins.
    fn spoil_one_page(&self) -> u64 {
        let first_words: HashMap<u64, u64> = (0..PAGES).map(|page| (mix((page << 9) + 1), page)).collect();
        let since = Instant::now();
        loop {
            let found = places(&self.file, &first_words);
            // What is written while nobody asks for anything is written soon; then it stays.
            std::thread::sleep(Duration::from_millis(500));
            if found.is_empty() || found != places(&self.file, &first_words) {
                assert!(since.elapsed() < Duration::from_secs(60), "nothing is written, or it never ends");
                continue;
            }
            let page = found[found.len() / 2].1;
            let copies: Vec<u64> =
                found.iter().filter(|(_, other)| *other == page).map(|(place, _)| *place).collect();
            let file = File::options().read(true).write(true).open(&self.file).expect("there");
            for place in &copies {
                let mut byte = [0];
                file.read_exact_at(&mut byte, place + 2000).expect("read");
                file.write_all_at(&[byte[0] ^ 1], place + 2000).expect("written");
            }
            file.sync_all().expect("written");
            assert_eq!(copies.len(), 1, "it was written once");
            return copies[0];
        }
    }

    /// Has the program read all its pages; which it got SIGBUS for, at each reading.
    fn read_all(&mut self) -> Vec<Seen> {
        self.running.child.stdin.as_mut().expect("piped").write_all(b"1").expect("it reads");
        let mut lost = Vec::new();
        loop {
            let mut line = String::new();
            self.running.out.read_line(&mut line).expect("it says something");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["lost", pid, address] => lost.push(Seen {
                    pid: pid.parse().expect("a number"),
                    address: address.parse().expect("a number"),
                }),
                ["wrong", "0"] => return lost,
                _ => panic!("{line:?}"),
            }
        }
    }

    /// Ends it; what was logged.
    fn end(mut self) -> String {
        let mut log = self.running.child.stderr.take().expect("piped");
        assert_eq!(self.running.end(), (Some(0), "end\n".to_owned()));
        let mut said = String::new();
        log.read_to_string(&mut said).expect("UTF-8");
        said
    }
}

/// Where pages lie in a file, by their first words.
fn places(file: &Path, first_words: &HashMap<u64, u64>) -> Vec<(u64, u64)> {
    let bytes = std::fs::read(file).expect("there");
    let words = bytes.as_chunks::<8>().0.iter().zip(0..);
    let page = |word: &[u8; 8]| first_words.get(&u64::from_le_bytes(*word));
    words.filter_map(|(word, at)| page(word).map(|page| (at * 8, *page))).collect()
}

/// The lost page of a status, and that there is only one.
fn the_lost_page(status: &Value) -> Value {
    assert_eq!(
        (&status["lost"], status["lost_pages"].as_array().map(Vec::len)),
        (&1.into(), Some(1)),
        "{status:#}"
    );
    status["lost_pages"][0].clone()
}

#[test]
fn a_page_that_is_spoilt_on_its_tier_is_lost_alone_and_named_in_status_and_log() {
    if !works() {
        return;
    }
    let mut run = Spoiler::start();
    let place = run.spoil_one_page();
    let whole = run.running.status();
    assert_eq!((&whole["lost"], &whole["lost_pages"]), (&0.into(), &Value::Array(Vec::new())), "{whole:#}");
    let seen = run.read_all();
    assert_eq!(seen.len(), 2, "one page, at each of two readings: {seen:?}");
    assert_eq!(seen[0], seen[1]);
    let status = run.running.status();
    let lost = the_lost_page(&status);
    let file = run.file.to_str().expect("UTF-8").to_owned();
    let told = Seen {
        pid: lost["pid"].as_u64().expect("a number"),
        address: lost["address"].as_u64().expect("a number"),
    };
    assert_eq!(told, seen[0], "{lost:#}");
    assert_eq!((&lost["tier"], lost["path"].as_str()), (&0.into(), Some(file.as_str())), "{lost:#}");
    assert_eq!(lost["reason"], "checksum does not match", "{lost:#}");
    let offset = lost["offset"].as_u64().expect("a number");
    assert!((1..=64).contains(&(place - offset)), "its header lies before its bytes: {place}, {lost:#}");
    let elapsed = |value: &Value| value["elapsed_ms"].as_u64().expect("a number");
    assert!((1..=elapsed(&status)).contains(&elapsed(&lost)), "{status:#}");

    let shown = run.running.ask_it(&["status"]).out;
    let row = shown.lines().find(|line| line.contains("checksum")).unwrap_or_else(|| panic!("{shown}"));
    let columns: Vec<&str> = row.split_whitespace().collect();
    let (pid, address, at) =
        (seen[0].pid.to_string(), format!("{:#x}", seen[0].address), format!("{offset:#x}"));
    assert_eq!(
        columns[1..],
        ["s", &pid, &address, "0", &file, &at, "checksum", "does", "not", "match"],
        "{shown}"
    );
    assert!(shown.contains("pages lost        1\n\nLOST AT"), "{shown}");

    let log = run.end();
    let line = format!(
        "page lost, its reader gets SIGBUS: process {pid}, address {address}, tier 0 ({file}), offset {at}: checksum does not match"
    );
    assert_eq!(log.matches("page lost").count(), 1, "{log}");
    assert!(log.contains(&line), "{log}");
}

#[test]
fn a_page_that_was_given_up_with_its_tier_is_named_when_it_is_asked_for() {
    if !works() {
        return;
    }
    let mut run = Spoiler::start();
    run.spoil_one_page();
    let other = tempfile::tempdir_in("/var/tmp").expect("a directory on a disk");
    let added = run.running.ask_it(&["tier", "add", other.path().to_str().expect("UTF-8")]);
    assert_eq!(added.code, Some(0), "{added:?}");
    let kept = run.running.ask_it(&["tier", "remove", "0", "--json"]);
    assert!(kept.code == Some(1) && kept.out.is_empty() && kept.err.contains("cannot be read"), "{kept:?}");
    let removed = run.running.ask_it(&["tier", "remove", "0", "--lose-unreadable", "--json"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    let removed: Value = serde_json::from_str(&removed.out).expect("JSON");
    assert_eq!(removed["lost"], 1, "{removed:#}");
    // Nobody has asked for it yet: whose it is, is not known.
    let status = run.running.status();
    assert_eq!(
        (&status["lost"], &status["lost_pages"]),
        (&1.into(), &Value::Array(Vec::new())),
        "{status:#}"
    );
    let seen = run.read_all();
    assert_eq!(seen.len(), 2, "{seen:?}");
    let lost = the_lost_page(&run.running.status());
    assert_eq!(lost["address"].as_u64(), Some(seen[0].address), "{lost:#}");
    assert_eq!((&lost["tier"], lost["path"].as_str()), (&0.into(), run.file.to_str()), "{lost:#}");
    assert_eq!(lost["reason"], "given up with its tier (--lose-unreadable)", "{lost:#}");
    let log = run.end();
    assert!(log.contains(&format!("address {:#x}, tier 0", seen[0].address)), "{log}");
}
