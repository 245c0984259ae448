//! What is still missing, or what has to be taken back.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::state::{Entry, State};
use super::{
    DEVICE, DEVICE_MODE, MARK, Owner, RULE_FILE, SetupError, Step, System, TMPFILES_FILE, accounts, apply,
};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The system's root, `/`.
    pub root: PathBuf,
    /// The group that gets access.
    pub group: String,
    /// A user to put into it.
    pub user: Option<String>,
}

/// Steps in order.
#[derive(Clone, Debug)]
pub struct Plan {
    system: System,
    steps: Vec<Step>,
    undo: bool,
}

impl Plan {
    /// The steps, in the order in which they are taken.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Takes the steps.
    ///
    /// # Errors
    /// The first step that fails ends a setup; an undo goes on and says at the end what is left.
    pub fn apply(&self) -> Result<(), SetupError> {
        match self.undo {
            false => apply::forward(&self.system, &self.steps),
            true => apply::back(&self.system, &self.steps),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().enumerate().try_for_each(|(index, step)| writeln!(f, "  {}. {step}", index + 1))
    }
}

/// Plans access for a group: empty if all is as wished.
///
/// # Errors
/// A bad name, an unknown user, no device, or a file in the way.
pub fn plan(wish: &Wish) -> Result<Plan, SetupError> {
    let system = System::new(&wish.root);
    let group = &wish.group;
    accounts::check_name(group, "group")?;
    let mut steps = Vec::new();
    let gid = accounts::group_id(&system, group);
    if gid.is_none() {
        steps.push(Step::MakeGroup(group.clone()));
    }
    // Root needs no group.
    if let Some(user) = wish.user.as_ref().filter(|user| *user != "root") {
        accounts::check_name(user, "user")?;
        if !accounts::user_exists(&system, user) {
            return Err(SetupError::NoUser(user.clone()));
        }
        if !accounts::is_member(&system, user, group) {
            steps.push(Step::AddMember { user: user.clone(), group: group.clone() });
        }
    }
    for (path, text) in files(&system, group) {
        if !is_there(&system, path, &text)? {
            steps.push(Step::WriteFile { path, text });
        }
    }
    let now = owner(&system)?;
    if Some(now.gid) != gid || now.mode != DEVICE_MODE {
        steps.push(Step::OpenDevice { group: group.clone() });
    }
    Ok(Plan { system, steps, undo: false })
}

/// Plans the way back to the state before the first setup.
///
/// # Errors
/// No state file, or one that cannot be understood.
pub fn plan_undo(root: &Path) -> Result<Plan, SetupError> {
    let system = System::new(root);
    let state =
        State::load(&system)?.ok_or_else(|| SetupError::NothingToUndo(system.at(super::STATE_FILE)))?;
    Ok(Plan { system, steps: steps_back(&state), undo: true })
}

/// The steps that take back what a state says, the last first.
pub(crate) fn steps_back(state: &State) -> Vec<Step> {
    state.entries.iter().rev().map(back).collect()
}

fn back(entry: &Entry) -> Step {
    match entry.clone() {
        Entry::Device(owner) => Step::RestoreDevice(owner),
        Entry::Group(group) => Step::RemoveGroup(group),
        Entry::Member(user, group) => Step::RemoveMember { user, group },
        Entry::File(path) => Step::RemoveFile(path),
        Entry::Directory(path) => Step::RemoveDirectory(path),
    }
}

/// The files that make it last: a rule for udev; where there is no udev, a line for systemd-tmpfiles as well.
fn files(system: &System, group: &str) -> Vec<(&'static str, String)> {
    let rule = format!("{MARK}\nKERNEL==\"userfaultfd\", GROUP=\"{group}\", MODE=\"{DEVICE_MODE:04o}\"\n");
    let mut files = vec![(RULE_FILE, rule)];
    let has = |paths: &[&str]| paths.iter().any(|path| system.at(path).exists());
    let udev = has(&["/usr/lib/udev/rules.d", "/lib/udev/rules.d", "/run/udev"]);
    if !udev && has(&["/usr/lib/tmpfiles.d", "/etc/tmpfiles.d"]) {
        files.push((TMPFILES_FILE, format!("{MARK}\nz {DEVICE} {DEVICE_MODE:04o} root {group} -\n")));
    }
    files
}

/// Whether the file is there with this text. One with another text must be ours.
fn is_there(system: &System, path: &str, text: &str) -> Result<bool, SetupError> {
    let file = system.at(path);
    match fs::read(&file) {
        Ok(bytes) if bytes == text.as_bytes() => Ok(true),
        Ok(bytes) if bytes.starts_with(MARK.as_bytes()) => Ok(false),
        Ok(_) => Err(SetupError::ForeignFile(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(SetupError::io("read", &file)(error)),
    }
}

/// What the device has now.
pub(super) fn owner(system: &System) -> Result<Owner, SetupError> {
    let device = system.at(DEVICE);
    match fs::metadata(&device) {
        Ok(meta) => Ok(Owner { mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SetupError::NoDevice(device)),
        Err(error) => Err(SetupError::io("examine", &device)(error)),
    }
}
