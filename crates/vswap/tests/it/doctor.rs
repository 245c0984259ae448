//! `vswap doctor` as root and as nobody in particular.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::vswap::{line, said};

#[test]
fn its_exit_code_says_what_its_last_line_says() {
    let said = line("doctor");
    let works = said.out.lines().last().is_some_and(|last| last.starts_with("vswap run works here"));
    assert_eq!(said.code, Some(if works { 0 } else { 1 }), "{said:?}");
}

#[test]
fn its_json_is_json_and_agrees_with_the_exit_code() {
    let said = line("doctor --json");
    let json: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(json["run_works"], said.code == Some(0));
}

#[test]
fn a_directory_in_memory_fails_with_the_option_that_helps() {
    let said = line("doctor --disk-path /dev/shm");
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("tmpfs") && said.out.contains("--disk-path"), "{said:?}");
}

/// Runs a copy of the command that every user may execute as the user 65534.
fn as_nobody(words: &[&str]) -> Option<crate::vswap::Said> {
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("mode");
    let copy = directory.path().join("vswap");
    std::fs::copy(env!("CARGO_BIN_EXE_vswap"), &copy).expect("copied");
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&copy)
        .args(words)
        .env_remove("TMPDIR")
        .output()
        .ok()?;
    let said = said(output);
    // Without root there is no becoming somebody else.
    if said.err.contains("setpriv") {
        eprintln!("skipped: {}", said.err);
        return None;
    }
    Some(said)
}

#[test]
fn an_ordinary_user_gets_a_report_and_for_want_of_access_the_remedy() {
    let Some(said) = as_nobody(&["doctor"]) else { return };
    let open =
        std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").is_ok_and(|text| text.trim() == "1");
    let mode = std::fs::metadata("/dev/userfaultfd").map_or(0, |meta| meta.permissions().mode());
    if open || mode & 0o006 == 0o006 {
        return;
    }
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("FAIL  userfaultfd "), "{said:?}");
    assert!(said.out.contains("vswap setup") || said.out.contains("--device /dev/userfaultfd"), "{said:?}");
}

#[test]
fn a_run_without_access_is_refused_with_the_remedy_and_not_left_unlimited() {
    let Some(report) = as_nobody(&["doctor"]) else { return };
    if !report.out.contains("FAIL  userfaultfd ") {
        return;
    }
    let Some(said) = as_nobody(&["run", "--memory", "64M", "--", "echo", "started"]) else { return };
    assert_eq!((said.code, said.out.as_str()), (Some(125), ""), "{said:?}");
    assert!(said.err.contains("vswap setup") || said.err.contains("--device"), "{said:?}");
    assert!(said.all_prefixed(), "{said:?}");
}

#[test]
fn an_ordinary_user_cannot_set_up_and_is_told_to_use_root() {
    let Some(said) = as_nobody(&["setup", "--yes"]) else { return };
    if !std::path::Path::new("/dev/userfaultfd").exists() {
        return;
    }
    assert_eq!(said.code, Some(125), "{said:?}");
    assert!(said.err.contains("sudo vswap setup"), "{said:?}");
}
