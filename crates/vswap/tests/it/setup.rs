//! `vswap setup` on a directory that stands for the system.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use crate::vswap::{Said, command, said};

fn fake() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let gid = fs::metadata(root.path()).expect("metadata").gid();
    for (path, text) in [
        ("dev/userfaultfd", String::new()),
        ("etc/group", format!("ours:x:{gid}:\n")),
        ("etc/passwd", "ann:x:4321:4321::/home/ann:/bin/sh\n".to_owned()),
    ] {
        let file = root.path().join(path);
        fs::create_dir_all(file.parent().expect("parent")).expect("directories");
        fs::write(file, text).expect("written");
    }
    fs::set_permissions(root.path().join("dev/userfaultfd"), fs::Permissions::from_mode(0o600))
        .expect("mode");
    root
}

fn setup(root: &Path, words: &[&str]) -> Said {
    let mut command = command();
    command.arg("setup").arg("--root").arg(root).args(words).stdin(Stdio::null());
    said(command.output().expect("starts"))
}

fn mode(root: &Path) -> u32 {
    fs::metadata(root.join("dev/userfaultfd")).expect("device").mode() & 0o7777
}

#[test]
fn it_shows_what_it_will_do_and_does_nothing_unasked() {
    let root = fake();
    for words in [&["--group", "ours"][..], &["--group", "ours", "--dry-run"]] {
        let said = setup(root.path(), words);
        assert!(said.out.contains("KERNEL==\"userfaultfd\", GROUP=\"ours\", MODE=\"0660\""), "{said:?}");
        assert!(said.out.contains("chgrp ours, chmod 0660"), "{said:?}");
        assert_eq!(mode(root.path()), 0o600);
    }
    let said = setup(root.path(), &["--group", "ours"]);
    assert_eq!(said.code, Some(125), "nobody can be asked without a terminal");
    assert!(said.err.contains("--yes"), "{said:?}");
}

#[test]
fn it_is_done_repeated_without_effect_and_undone() {
    let root = fake();
    assert_eq!(setup(root.path(), &["--group", "ours", "--yes"]).code, Some(0));
    assert_eq!(mode(root.path()), 0o660);
    let again = setup(root.path(), &["--group", "ours", "--yes"]);
    assert!(again.out.starts_with("Nothing to do"), "{again:?}");
    let undone = setup(root.path(), &["--undo", "--yes"]);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    assert_eq!(mode(root.path()), 0o600);
    let nothing = setup(root.path(), &["--undo", "--yes"]);
    assert_eq!(nothing.code, Some(125));
    assert!(nothing.err.contains("nothing to undo"), "{nothing:?}");
}

#[test]
fn an_unknown_user_is_named() {
    let said = setup(fake().path(), &["--group", "ours", "--user", "bob", "--yes"]);
    assert_eq!(said.code, Some(125));
    assert!(said.err.contains("\"bob\""), "{said:?}");
}

/// The real thing: changes this machine and changes it back. `cargo test -p vswap --test it -- --ignored real_machine`, as root.
#[test]
#[ignore = "changes the machine's groups and device for a moment; wants root"]
fn on_the_real_machine_an_ordinary_user_gets_to_run_and_all_is_undone() {
    const GROUP: &str = "vswap-test";
    assert!(!Path::new("/var/lib/vswap/setup-state").exists(), "a setup is in force: it would be undone");
    let state = || {
        let device = fs::metadata("/dev/userfaultfd").expect("device");
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let files = [read("/etc/group"), read("/etc/gshadow"), read("/etc/passwd")];
        (device.mode(), device.uid(), device.gid(), files)
    };
    let before = state();
    let own = |words: &[&str]| said(command().arg("setup").args(words).output().expect("starts"));
    let done = own(&["--yes", "--group", GROUP]);
    let gid = fs::metadata("/dev/userfaultfd").expect("device").gid().to_string();
    let copy =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempfile_in("/var/tmp");
    let copy = copy.expect("a file").into_temp_path();
    fs::copy(env!("CARGO_BIN_EXE_vswap"), &copy).expect("copied");
    let ran = std::process::Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--groups", &gid])
        .arg(&copy)
        .args([
            "run",
            "--memory",
            "32M",
            "--",
            "python3",
            "-c",
            "print(len(bytes(range(256)) * (400 << 10)))",
        ])
        .output()
        .map(said);
    let undone = own(&["--undo", "--yes"]);
    assert_eq!((done.code, undone.code), (Some(0), Some(0)), "{done:?} {undone:?}");
    assert_eq!(state(), before, "all is as it was");
    let ran = ran.expect("starts");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "104857600\n"), "{ran:?}");
}
