//! What surrounds this process: a container, a memory cgroup, other filters.

use std::path::{Path, PathBuf};

use super::{human, line};
use crate::check::Check;

/// A cgroup v1 without a limit shows a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

pub(super) fn check(checks: &mut Vec<Check>) {
    if let Some(kind) = container() {
        checks.push(Check::note(
            "container",
            kind,
            "It must be given /dev/userfaultfd, and its seccomp profile must allow seccomp, ptrace, process_vm_readv and \
             pidfd_getfd (docs/guide.md, \"In a container\").",
        ));
    }
    if let Some((limit, path)) = memory_limit() {
        checks.push(Check::note(
            "memory cgroup",
            format!("{} ({})", human(limit), path.display()),
            "A --memory above it would be cut short by the kernel's own killer: stay below, with room for page cache.",
        ));
    }
}

/// The kind of container this process runs in, if it looks like one.
pub(super) fn container() -> Option<String> {
    if Path::new("/.dockerenv").exists() {
        return Some("docker".to_owned());
    }
    if Path::new("/run/.containerenv").exists() {
        return Some("podman".to_owned());
    }
    if let Some(kind) = line("/run/systemd/container").filter(|kind| !kind.is_empty()) {
        return Some(kind);
    }
    if let Ok(kind) = std::env::var("container")
        && !kind.is_empty()
    {
        return Some(kind.chars().filter(char::is_ascii_graphic).take(20).collect());
    }
    std::env::var_os("KUBERNETES_SERVICE_HOST").map(|_| "kubernetes".to_owned())
}

/// The lowest memory limit of the cgroups that this process is in, and the file that says so.
fn memory_limit() -> Option<(u64, PathBuf)> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    membership
        .lines()
        .filter_map(|entry| {
            let mut fields = entry.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            match controllers {
                "" => lowest(&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], path, "memory.max"),
                list if list.split(',').any(|name| name == "memory") => {
                    lowest(&["/sys/fs/cgroup/memory"], path, "memory.limit_in_bytes")
                }
                _ => None,
            }
        })
        .min()
}

/// The lowest limit on the way from the cgroup up to the root; inside a container the path may not exist, the root does.
fn lowest(roots: &[&str], path: &str, file: &str) -> Option<(u64, PathBuf)> {
    roots
        .iter()
        .flat_map(|root| {
            let relative = path.trim_start_matches('/');
            Path::new(relative)
                .ancestors()
                .map(|part| Path::new(root).join(part).join(file))
                .collect::<Vec<_>>()
        })
        .filter_map(|file| {
            let limit = std::fs::read_to_string(&file).ok()?.trim().parse::<u64>().ok()?;
            (limit < NO_LIMIT).then_some((limit, file))
        })
        .min()
}
