//! Setup and undo, on a directory that stands for the system: the machine itself is not touched.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use vswap_doctor::setup::{
    DEVICE, Plan, RULE_FILE, STATE_FILE, SetupError, Step, TMPFILES_FILE, Wish, plan, plan_undo,
};

/// A system with a device, a group that is ours already, and a user.
struct Fake {
    root: tempfile::TempDir,
}

impl Fake {
    fn new() -> Fake {
        let fake = Fake { root: tempfile::tempdir().expect("a directory") };
        let own = fs::metadata(fake.root.path()).expect("metadata");
        fake.put("/dev/userfaultfd", "");
        fs::set_permissions(fake.at(DEVICE), fs::Permissions::from_mode(0o600)).expect("mode");
        fake.put("/etc/group", &format!("root:x:0:\nours:x:{}:\n", own.gid()));
        fake.put("/etc/gshadow", "");
        fake.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:4321:4321::/home/ann:/bin/sh\n");
        fake.put("/usr/lib/udev/rules.d/50-default.rules", "");
        fake
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn put(&self, path: &str, text: &str) {
        let file = self.at(path);
        fs::create_dir_all(file.parent().expect("not the root")).expect("directories");
        fs::write(file, text).expect("file");
    }

    fn plan(&self, group: &str, user: Option<&str>) -> Result<Plan, SetupError> {
        plan(&Wish { root: self.root.path().to_owned(), group: group.into(), user: user.map(Into::into) })
    }

    fn undo(&self) -> Result<Plan, SetupError> {
        plan_undo(self.root.path())
    }

    /// Every file and directory with mode, owner and content.
    fn picture(&self) -> Vec<(PathBuf, u32, u32, Vec<u8>)> {
        let mut found = Vec::new();
        look(self.root.path(), &mut found);
        found.sort();
        found
    }
}

fn look(directory: &Path, found: &mut Vec<(PathBuf, u32, u32, Vec<u8>)>) {
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("entry").path();
        let meta = fs::metadata(&path).expect("metadata");
        // Account tools leave backups and locks: theirs, not ours.
        if path.extension().is_some_and(|end| end == "lock") || path.to_string_lossy().ends_with('-') {
            continue;
        }
        if meta.is_dir() {
            found.push((path.clone(), meta.mode(), meta.gid(), Vec::new()));
            look(&path, found);
        } else {
            found.push((path.clone(), meta.mode(), meta.gid(), fs::read(&path).expect("content")));
        }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("proc").uid() == 0
}

#[test]
fn access_is_given_to_an_existing_group_and_taken_back_without_a_trace() {
    let fake = Fake::new();
    let before = fake.picture();
    let plan = fake.plan("ours", None).expect("plan");
    assert_eq!(fake.picture(), before, "planning changes nothing");
    plan.apply().expect("apply");
    assert_eq!(fs::metadata(fake.at(DEVICE)).expect("device").mode() & 0o7777, 0o660);
    let rule = fs::read_to_string(fake.at(RULE_FILE)).expect("rule");
    assert!(rule.contains("KERNEL==\"userfaultfd\", GROUP=\"ours\", MODE=\"0660\""), "{rule}");
    assert!(fake.at(STATE_FILE).exists());
    fake.undo().expect("plan").apply().expect("undo");
    let left: Vec<_> = fake.picture().into_iter().filter(|item| !before.contains(item)).collect();
    // Only /var and /var/lib, made for the state file, stay.
    assert!(left.iter().all(|(path, ..)| path.ends_with("var") || path.ends_with("var/lib")), "{left:?}");
    assert!(matches!(fake.undo(), Err(SetupError::NothingToUndo(_))));
}

#[test]
fn a_second_setup_has_nothing_to_do() {
    let fake = Fake::new();
    fake.plan("ours", None).expect("plan").apply().expect("apply");
    assert_eq!(fake.plan("ours", None).expect("plan").steps(), []);
}

#[test]
fn a_device_that_a_boot_has_closed_again_is_opened_and_the_first_state_kept() {
    let fake = Fake::new();
    fake.plan("ours", None).expect("plan").apply().expect("apply");
    fs::set_permissions(fake.at(DEVICE), fs::Permissions::from_mode(0o640)).expect("mode");
    let again = fake.plan("ours", None).expect("plan");
    assert_eq!(again.steps(), [Step::OpenDevice { group: "ours".into() }]);
    again.apply().expect("apply");
    fake.undo().expect("plan").apply().expect("undo");
    assert_eq!(fs::metadata(fake.at(DEVICE)).expect("device").mode() & 0o7777, 0o600);
}

#[test]
fn a_group_is_made_and_a_user_put_into_it_and_both_are_undone() {
    if !is_root() {
        eprintln!("skipped: account commands want root even below a prefix");
        return;
    }
    let fake = Fake::new();
    let groups = fs::read_to_string(fake.at("/etc/group")).expect("groups");
    fake.plan("vswap", Some("ann")).expect("plan").apply().expect("apply");
    let with = fs::read_to_string(fake.at("/etc/group")).expect("groups");
    assert!(with.lines().any(|line| line.starts_with("vswap:") && line.ends_with(":ann")), "{with}");
    assert_ne!(fs::metadata(fake.at(DEVICE)).expect("device").gid(), 0);
    fake.undo().expect("plan").apply().expect("undo");
    assert_eq!(fs::read_to_string(fake.at("/etc/group")).expect("groups"), groups);
    assert_eq!(fs::metadata(fake.at(DEVICE)).expect("device").gid(), 0);
}

#[test]
fn a_system_without_udev_gets_a_line_for_tmpfiles_too() {
    let fake = Fake::new();
    fs::remove_dir_all(fake.at("/usr/lib/udev")).expect("remove");
    fake.put("/usr/lib/tmpfiles.d/x.conf", "");
    fake.plan("ours", None).expect("plan").apply().expect("apply");
    let line = fs::read_to_string(fake.at(TMPFILES_FILE)).expect("written");
    assert!(line.contains("\nz /dev/userfaultfd 0660 root ours -\n"), "{line}");
}

#[test]
fn a_rule_of_somebody_else_is_not_overwritten() {
    let fake = Fake::new();
    fake.put(RULE_FILE, "KERNEL==\"userfaultfd\", MODE=\"0666\"\n");
    assert!(matches!(fake.plan("ours", None), Err(SetupError::ForeignFile(_))));
}

#[test]
fn no_device_says_which_kernel_would_have_one() {
    let fake = Fake::new();
    fs::remove_file(fake.at(DEVICE)).expect("remove");
    let error = fake.plan("ours", None).expect_err("no device").to_string();
    assert!(error.contains("6.1") && error.contains("sysctl"), "{error}");
}

#[test]
fn bad_names_and_unknown_users_are_refused_before_anything_is_done() {
    let fake = Fake::new();
    assert!(matches!(fake.plan("-x", None), Err(SetupError::BadName(..))));
    assert!(matches!(fake.plan("a\",MODE=\"0666", None), Err(SetupError::BadName(..))));
    assert!(matches!(fake.plan("ours", Some("nobody-here")), Err(SetupError::NoUser(_))));
}

#[test]
fn a_state_file_that_was_tampered_with_is_refused_by_line() {
    let fake = Fake::new();
    fake.put(STATE_FILE, "# comment\ndevice 0600 0 0\nrm -rf /\n");
    match fake.undo() {
        Err(SetupError::BadState { line: 3, text, .. }) => assert_eq!(text, "rm -rf /"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_undo_that_fails_halfway_keeps_what_is_left_to_undo() {
    let fake = Fake::new();
    fake.plan("ours", None).expect("plan").apply().expect("apply");
    // A directory where the rule was cannot be removed as a file.
    fs::remove_file(fake.at(RULE_FILE)).expect("remove");
    fs::create_dir_all(fake.at(RULE_FILE)).expect("in the way");
    assert!(matches!(fake.undo().expect("plan").apply(), Err(SetupError::Incomplete(_))));
    assert_eq!(fs::metadata(fake.at(DEVICE)).expect("device").mode() & 0o7777, 0o600, "the rest was undone");
    fs::remove_dir(fake.at(RULE_FILE)).expect("remove");
    fake.undo().expect("plan").apply().expect("undo");
    assert!(!fake.at(STATE_FILE).exists());
}
