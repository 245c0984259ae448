//! What a process may do to its descendants: trace, read, take descriptors.

use vswap_sys::probe::{self, Obstacle, PeerTrial, Trial};

use super::number;
use crate::check::Check;

/// What fails if no child can be made: then nothing else here could be tried.
pub(super) fn children() -> Option<Check> {
    let obstacle = probe::can_fork().err()?;
    Some(Check::fails(
        "child processes",
        obstacle.to_string(),
        "Nothing that needs a scratch process could be tried, and a run needs several.",
        "ulimit -u 1000; ulimit -n 1024      (more processes and open files for this shell), then ask again",
    ))
}

pub(super) fn check(checks: &mut Vec<Check>) {
    checks.push(match PeerTrial::Trace.attempt() {
        Ok(()) => Check::good("ptrace", trace_found()),
        Err(obstacle) => trace_fails(&obstacle),
    });
    let rest = [
        (
            PeerTrial::ReadMemory,
            "process_vm_readv",
            "reads evicted pages out of the program",
            "CONFIG_CROSS_MEMORY_ATTACH=y",
        ),
        (
            PeerTrial::TakeDescriptor,
            "pidfd_getfd",
            "takes the listener out of the program",
            "Linux 5.6 or later",
        ),
        (PeerTrial::ScanPages, "pagemap_scan", "finds the pages that are present", "Linux 6.7 or later"),
    ];
    for (trial, name, use_of_it, need) in rest {
        checks.push(match trial.attempt() {
            Ok(()) => Check::good(name, "works"),
            Err(obstacle) => Check::fails(
                name,
                obstacle.to_string(),
                format!("It {use_of_it}; vswap run cannot do without."),
                super::remedy_for(&obstacle, need),
            ),
        });
    }
}

fn trace_found() -> String {
    match number("/proc/sys/kernel/yama/ptrace_scope") {
        Some(scope) => format!("works (yama ptrace_scope {scope})"),
        None => "works".to_owned(),
    }
}

fn trace_fails(obstacle: &Obstacle) -> Check {
    let remedy = match number("/proc/sys/kernel/yama/ptrace_scope") {
        Some(3) => {
            "kernel.yama.ptrace_scope is 3, which lasts until the next boot: take it out of /etc/sysctl.d and boot again"
        }
        Some(2) => "sudo sysctl -w kernel.yama.ptrace_scope=1      (and in /etc/sysctl.d, to keep it)",
        _ => {
            "if strace, gdb or another tracer runs this shell: start vswap outside of it;\n\
             in a container: one whose seccomp profile allows ptrace (Docker 19.03 and later on Linux 4.8 and later)"
        }
    };
    Check::fails(
        "ptrace",
        obstacle.to_string(),
        "vswap run gets its stub into a program by it, for a few milliseconds.",
        remedy,
    )
}
