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
