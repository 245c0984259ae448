//! Everything that is looked at, in the order in which it matters.

mod disk;
mod faults;
mod kernel;
mod limits;
mod processes;
mod seccomp;
mod surroundings;

use std::path::PathBuf;

use crate::check::Report;

/// The least kernel in which every feature was present from the start.
pub const LEAST_KERNEL: &str = "Linux 6.9 on x86-64";

/// What to look at besides the machine itself.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Directory to try for the segment file; `None` for what `vswap run` would choose.
    pub disk_path: Option<PathBuf>,
}

/// Tries everything that `vswap run` uses.
pub fn examine(request: &Request) -> Report {
    let mut report = Report::default();
    let checks = &mut report.checks;
    checks.push(kernel::check());
    faults::check(checks);
    seccomp::check(checks);
    processes::check(checks);
    disk::check(checks, request.disk_path.as_deref());
    limits::check(checks);
    surroundings::check(checks);
    report
}

/// A one-line file of `/proc` or `/sys`, trimmed; `None` if it is not there or cannot be read.
fn line(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The same as a number.
fn number(path: &str) -> Option<u64> {
    line(path)?.parse().ok()
}

/// Bytes for people.
fn human(bytes: u64) -> String {
    match bytes {
        b if b >= 10 << 30 => format!("{} GiB", b >> 30),
        b if b >= 10 << 20 => format!("{} MiB", b >> 20),
        b => format!("{} KiB", b >> 10),
    }
}
