//! Limits of this user and of the kernel's memory management.

use vswap_sys::probe::{self, OpenFiles};

use super::{line, number};
use crate::check::Check;

/// Descriptors that the supervisor needs for a tree of some hundred managed processes.
const ENOUGH_FILES: u64 = 4096;
/// The kernel's default; a managed process has a few mappings more than it would have alone.
const ENOUGH_MAPS: u64 = 65_530;

pub(super) fn check(checks: &mut Vec<Check>) {
    checks.push(files());
    if let Some(maps) = number("/proc/sys/vm/max_map_count") {
        checks.push(match maps {
            ENOUGH_MAPS.. => Check::good("vm.max_map_count", maps.to_string()),
            _ => Check::warns(
                "vm.max_map_count",
                maps.to_string(),
                "A program with many mappings may fail sooner.",
            )
            .remedy(format!("sudo sysctl -w vm.max_map_count={ENOUGH_MAPS}")),
        });
    }
    checks.push(overcommit());
    checks.push(huge_pages());
}

fn files() -> Check {
    let name = "open files";
    match probe::open_files() {
        Ok(OpenFiles { hard, .. }) if hard >= ENOUGH_FILES => Check::good(name, format!("up to {}", show(hard))),
        Ok(OpenFiles { hard, .. }) => Check::warns(
            name,
            format!("at most {hard}"),
            "A tree takes a few descriptors for each managed process; a large one may run out.",
        )
        .remedy(format!("ulimit -Hn {ENOUGH_FILES}      as root, or in /etc/security/limits.conf: * hard nofile {ENOUGH_FILES}")),
        Err(error) => Check::warns(name, error.to_string(), "The limit could not be read."),
    }
}

fn show(limit: u64) -> String {
    if limit == probe::UNLIMITED { "any number".to_owned() } else { limit.to_string() }
}

fn overcommit() -> Check {
    let name = "vm.overcommit_memory";
    match number("/proc/sys/vm/overcommit_memory") {
        Some(2) => Check::warns(
            name,
            "2 (strict)",
            "The kernel counts what a program maps, evicted or not: mmap may fail although there is room in vswap.",
        )
        .remedy("sudo sysctl -w vm.overcommit_memory=0"),
        Some(mode) => Check::good(name, mode.to_string()),
        None => Check::note(name, "unknown", "The setting could not be read."),
    }
}

fn huge_pages() -> Check {
    let name = "huge pages";
    let setting = line("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let chosen = setting.split(['[', ']']).nth(1).unwrap_or("unknown");
    match chosen {
        "never" | "unknown" => Check::note(
            name,
            chosen,
            "First touches of a growing heap come page by page: slower than they could be.",
        )
        .remedy("echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"),
        _ => Check::good(name, chosen),
    }
}
