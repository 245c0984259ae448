//! Userfaultfd: may it be opened, and is every feature there?

use std::io;
use std::os::unix::fs::MetadataExt;

use vswap_sys::probe::{self, Access, FaultTrial, Obstacle, Trial};

use crate::check::{Check, Verdict};

const DEVICE: &str = "/dev/userfaultfd";
const ENOSYS: i32 = 38;

pub(super) fn check(checks: &mut Vec<Check>) {
    let access = probe::userfaultfd_access();
    let usable = access.system_call.is_ok() || access.device.is_ok();
    checks.push(access_check(&access));
    if !usable {
        let names = "missing, write protection, remove, unmap and remap events, move, poison, SIGBUS";
        checks.push(Check::note("userfaultfd.features", "not tried, for want of access", names));
        return;
    }
    for trial in FaultTrial::ALL {
        let (name, use_of_it, since) = about(trial);
        checks.push(match trial.attempt() {
            Ok(()) => Check::good(name, "works"),
            Err(obstacle) => feature_fails(name, use_of_it, since, &obstacle),
        });
    }
}

/// The one lack that an ordinary user is sure to meet, alone and in microseconds: `None` if there is access.
pub fn lack_of_access() -> Option<Check> {
    // One way is enough.
    if probe::userfaultfd_by_call().is_ok() {
        return None;
    }
    Some(access_check(&probe::userfaultfd_access())).filter(|check| check.verdict == Verdict::Fails)
}

/// Name, what it is for, and the Linux that brought it.
fn about(trial: FaultTrial) -> (&'static str, &'static str, &'static str) {
    match trial {
        FaultTrial::Missing => {
            ("userfaultfd.missing", "brings evicted pages back, in system calls too", "4.11")
        }
        FaultTrial::WriteProtect => ("userfaultfd.wp", "tells written pages from clean ones", "5.7"),
        FaultTrial::EventRemove => ("userfaultfd.remove", "follows madvise(MADV_DONTNEED)", "4.11"),
        FaultTrial::EventUnmap => ("userfaultfd.unmap", "follows munmap", "4.11"),
        FaultTrial::EventRemap => ("userfaultfd.remap", "follows mremap", "4.11"),
        FaultTrial::Move => ("userfaultfd.move", "takes pages out of a program without a copy", "6.8"),
        FaultTrial::Poison => {
            ("userfaultfd.poison", "turns an unreadable page into SIGBUS, never into zeroes", "6.6")
        }
        FaultTrial::Sigbus => ("userfaultfd.sigbus", "keeps a reader of staged pages from hanging", "4.14"),
    }
}

fn feature_fails(name: &'static str, use_of_it: &str, since: &str, obstacle: &Obstacle) -> Check {
    Check::fails(
        name,
        obstacle.to_string(),
        format!("It {use_of_it}; vswap run cannot do without."),
        super::remedy_for(obstacle, &format!("Linux {since} or later")),
    )
}

fn access_check(access: &Access) -> Check {
    let name = "userfaultfd";
    match access {
        Access { system_call: Ok(()), device: Ok(()) } => {
            Check::good(name, "by the system call and by the device")
        }
        Access { system_call: Ok(()), .. } => Check::good(name, "by the system call"),
        Access { device: Ok(()), .. } => Check::good(name, format!("by {DEVICE}")),
        Access { system_call: Err(call), device: Err(device) } => no_access(name, call, device),
    }
}

fn no_access(name: &'static str, call: &io::Error, device: &io::Error) -> Check {
    let found = format!("system call: {call}; {DEVICE}: {device}");
    let meaning = "Without it nobody can be asked for a page that was evicted.";
    if call.raw_os_error() == Some(ENOSYS) {
        return Check::fails(name, found, meaning, "boot a kernel built with CONFIG_USERFAULTFD=y");
    }
    let remedy = match (device.kind(), super::surroundings::container()) {
        (io::ErrorKind::NotFound, Some(_)) => in_container(),
        (io::ErrorKind::NotFound, None) => {
            // Before Linux 6.1, or devtmpfs is not mounted.
            "sudo sysctl -w vm.unprivileged_userfaultfd=1      (lasts until the next boot)".to_owned()
        }
        (_, Some(_)) if probe::effective_user() == 0 => in_container(),
        _ => for_user(),
    };
    Check::fails(name, found, meaning, remedy)
}

fn in_container() -> String {
    format!(
        "start the container with   --device {DEVICE}\n\
         and, for a user in it who is not root, let that user open it:   chmod 0666 {DEVICE}   in the container"
    )
}

/// The device is there and closed to this user: is there a group to join already?
fn for_user() -> String {
    let joinable =
        std::fs::metadata(DEVICE).ok().filter(|meta| meta.mode() & 0o060 == 0o060 && meta.gid() != 0);
    let user = user_name().unwrap_or_else(|| "YOUR-NAME".to_owned());
    match joinable.and_then(|meta| group_name(meta.gid())) {
        Some(group) => {
            format!("sudo usermod -aG {group} {user}\nand log in again (or, in this shell: newgrp {group})")
        }
        None => format!(
            "sudo vswap setup --user {user}      (once; gives the group vswap access to {DEVICE})\n\
             and log in again (or, in this shell: newgrp vswap)"
        ),
    }
}

/// The name of the effective user.
fn user_name() -> Option<String> {
    name_of("/etc/passwd", probe::effective_user())
}

fn group_name(gid: u32) -> Option<String> {
    name_of("/etc/group", gid)
}

/// The name with this number: the third field, in both files.
fn name_of(file: &str, id: u32) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}
