//! Everything that is looked at, in the order in which it matters.

mod disk;
mod faults;
mod kernel;
mod limits;
mod processes;
mod seccomp;
mod surroundings;

pub use faults::lack_of_access;

use std::path::PathBuf;

use vswap_sys::probe::Obstacle;

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
    match processes::children() {
        Some(check) => checks.push(check),
        None => {
            faults::check(checks);
            seccomp::check(checks);
            processes::check(checks);
        }
    }
    disk::check(checks, request.disk_path.as_deref());
    limits::check(checks);
    surroundings::check(checks);
    report
}

/// What helps against a call that the kernel refuses: a filter around this process, or a kernel that has the call.
fn remedy_for(obstacle: &Obstacle, kernel: &str) -> String {
    const EPERM: i32 = 1;
    const EACCES: i32 = 13;
    match obstacle {
        Obstacle::Killed(_) => {
            "a seccomp filter around this process kills for it: start outside of it".to_owned()
        }
        _ if matches!(obstacle.errno(), Some(EPERM | EACCES)) => {
            "something around this process forbids it: in a container, a seccomp profile that allows it\n\
             (docker run --cap-add SYS_PTRACE ..; at worst --security-opt seccomp=unconfined)"
                .to_owned()
        }
        _ => format!(
            "boot a kernel that has it ({kernel}); all of vswap's needs are met from {LEAST_KERNEL} on"
        ),
    }
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
