//! C programs written for one trap each, compiled when the test runs. Each ends with 0 if all bytes were right.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// What every program may use: memory of known content, and pressure that moves it out.
const PRELUDE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#define MIB (1ul << 20)
static char *area(size_t n) {
  char *p = mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) { perror("mmap"); exit(99); }
  return p;
}
static unsigned long want(size_t i, unsigned long salt) { return (i + 1) * 0x9e3779b97f4a7c15ul ^ salt; }
static void fill(char *p, size_t n, unsigned long salt) {
  for (size_t i = 0; i < n / 8; i += 64) ((unsigned long *)p)[i] = want(i, salt);
}
static int wrong(char *p, size_t n, unsigned long salt) {
  int bad = 0;
  for (size_t i = 0; i < n / 8; i += 64) bad += ((unsigned long *)p)[i] != want(i, salt);
  return bad;
}
/* Touches more than the limit allows, several times, so that what is idle goes out. */
static void press(void) {
  static char *p; size_t n = 96 * MIB;
  if (!p) p = area(n);
  for (int round = 0; round < 2; round++) fill(p, n, round);
}
/* Whether somebody else answers the faults at p: 1, 0, or -1 if nothing is mapped there. */
static int registered(char *p) {
  FILE *f = fopen("/proc/self/smaps", "r"); char line[512]; unsigned long a, b; int in = 0, found = -1;
  while (f && fgets(line, sizeof line, f)) {
    if (sscanf(line, "%lx-%lx ", &a, &b) == 2) in = a <= (unsigned long)p && (unsigned long)p < b;
    if (in && !strncmp(line, "VmFlags:", 8)) found = strstr(line, " um") != 0;
  }
  if (f) fclose(f);
  return found;
}
/* Whether p has huge pages, or the kernel gives none to those who ask. */
static int huge(char *p) {
  char line[512] = ""; unsigned long a, b, kb; int in = 0, found = 0;
  FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
  if (!f || !fgets(line, sizeof line, f) || strstr(line, "[never]")) return 1;
  fclose(f);
  f = fopen("/proc/self/smaps", "r");
  while (f && fgets(line, sizeof line, f)) {
    if (sscanf(line, "%lx-%lx ", &a, &b) == 2) in = a <= (unsigned long)p && (unsigned long)p < b;
    if (in && sscanf(line, "AnonHugePages: %lu", &kb) == 1) found = kb > 0;
  }
  if (f) fclose(f);
  return found;
}
/* Anonymous memory of a process in KiB, each page divided by its users. */
static long pss(int pid) {
  char line[256]; long kb = 0;
  snprintf(line, sizeof line, "/proc/%d/smaps_rollup", pid);
  FILE *f = fopen(line, "r");
  while (f && fgets(line, sizeof line, f)) if (sscanf(line, "Pss_Anon: %ld", &kb) == 1) break;
  if (f) fclose(f);
  return kb;
}
static int status_of(pid_t k) { int st; if (waitpid(k, &st, 0) != k) return -1; return st; }
"#;

/// The example `supervise`, which `cargo test` builds (with `--test it` alone it does not: add `--examples`).
fn supervise() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/supervise")
}

/// A run within `mib` of memory, not started yet.
pub fn within(mib: u64, program: &[&str]) -> Command {
    within_by(mib, &[], program)
}

/// As [`within`], with options of `supervise`.
pub fn within_by(mib: u64, options: &[&str], program: &[&str]) -> Command {
    let mut command = Command::new(supervise());
    command.arg(mib.to_string()).args(options).arg("--").args(program).stdin(Stdio::null());
    command
}

/// Compiles a program of that body; returns its path.
pub fn compile(name: &str, body: &str, flags: &[&str]) -> String {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let source = dir.join(format!("{name}.c"));
    std::fs::write(&source, format!("{PRELUDE}\n{body}\n")).unwrap();
    let program = dir.join(name);
    let status = Command::new("cc")
        .args(["-O1", "-pthread", "-w", "-o"])
        .args([&program, &source])
        .args(flags)
        .status()
        .expect("a C compiler");
    assert!(status.success());
    program.to_str().unwrap().to_owned()
}

/// Compiles and runs a program within 24 MiB, plainly first.
pub fn check(name: &str, body: &str) {
    let program = compile(name, body, &[]);
    let plain = Command::new(&program).output().unwrap();
    assert!(plain.status.success(), "plainly: {}", text(&plain));
    let run = within(24, &[&program]).output().unwrap();
    assert!(run.status.success(), "under vswap: {}", text(&run));
    assert_eq!(run.stdout, plain.stdout);
}

/// What a program said, and how it ended.
pub fn text(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
