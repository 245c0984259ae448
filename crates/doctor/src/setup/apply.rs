//! Taking the steps: forward with each recorded before it is taken, back with each struck off after it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::state::{Entry, State};
use super::{DEVICE, DEVICE_MODE, Owner, SetupError, Step, System, accounts, plan};

/// Takes the steps of a setup.
pub(super) fn forward(system: &System, steps: &[Step]) -> Result<(), SetupError> {
    let mut state = State::load(system)?.unwrap_or_default();
    for step in steps {
        for entry in entries(system, step)? {
            state.add(entry);
        }
        state.save(system)?;
        take(system, step)?;
    }
    Ok(())
}

/// Takes the steps of an undo; goes on past a failure, and keeps what failed in the state.
pub(super) fn back(system: &System, steps: &[Step]) -> Result<(), SetupError> {
    let mut state = State::load(system)?.unwrap_or_default();
    let mut failures = Vec::new();
    for step in steps {
        match take(system, step) {
            Ok(()) => {
                if let Some(entry) = undone(step) {
                    state.remove(&entry);
                    state.save(system)?;
                }
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(SetupError::Incomplete(failures)) }
}

/// What an undo of `step` will need to know.
fn entries(system: &System, step: &Step) -> Result<Vec<Entry>, SetupError> {
    Ok(match step {
        Step::MakeGroup(group) => vec![Entry::Group(group.clone())],
        Step::AddMember { user, group } => vec![Entry::Member(user.clone(), group.clone())],
        Step::WriteFile { path, .. } => {
            let missing = missing_directories(system, Path::new(path)).into_iter().map(Entry::Directory);
            missing.chain([Entry::File(PathBuf::from(path))]).collect()
        }
        Step::OpenDevice { .. } => vec![Entry::Device(plan::owner(system)?)],
        _ => Vec::new(),
    })
}

/// The entry that a step of an undo strikes off.
fn undone(step: &Step) -> Option<Entry> {
    match step.clone() {
        Step::RestoreDevice(owner) => Some(Entry::Device(owner)),
        Step::RemoveMember { user, group } => Some(Entry::Member(user, group)),
        Step::RemoveGroup(group) => Some(Entry::Group(group)),
        Step::RemoveFile(path) => Some(Entry::File(path)),
        Step::RemoveDirectory(path) => Some(Entry::Directory(path)),
        _ => None,
    }
}

/// The directories above `path` that are not there, outermost first.
fn missing_directories(system: &System, path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> =
        path.ancestors().skip(1).take_while(|above| !system.at(above).exists()).map(Path::to_owned).collect();
    missing.reverse();
    missing
}

fn take(system: &System, step: &Step) -> Result<(), SetupError> {
    match step {
        Step::MakeGroup(group) => accounts::make_group(system, group),
        Step::AddMember { user, group } => accounts::add_member(system, user, group),
        Step::WriteFile { path, text } => write(&system.at(path), text),
        Step::OpenDevice { group } => {
            let gid = accounts::group_id(system, group).ok_or_else(|| SetupError::Command {
                command: format!("look up the group {group}"),
                reason: "it is not there".into(),
            })?;
            own(system, Owner { mode: DEVICE_MODE, gid, ..plan::owner(system)? })
        }
        Step::RestoreDevice(owner) => match own(system, *owner) {
            // A device that has gone (another kernel) has nothing to restore.
            Err(SetupError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        },
        // Whoever removed the group or the user by hand has removed the membership.
        Step::RemoveMember { user, group } if accounts::is_member(system, user, group) => {
            accounts::remove_member(system, user, group)
        }
        Step::RemoveMember { .. } => Ok(()),
        Step::RemoveGroup(group) if accounts::group_id(system, group).is_some() => {
            accounts::remove_group(system, group)
        }
        Step::RemoveGroup(_) => Ok(()),
        Step::RemoveFile(path) => gone(fs::remove_file(system.at(path)), path),
        Step::RemoveDirectory(path) => match fs::remove_dir(system.at(path)) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            done => gone(done, path),
        },
    }
}

/// Being gone already is as good.
fn gone(result: io::Result<()>, path: &Path) -> Result<(), SetupError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SetupError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn own(system: &System, owner: Owner) -> Result<(), SetupError> {
    let device = system.at(DEVICE);
    // Owners first: a moment with the new group and the old, narrower mode is harmless; the other way round is not.
    chown(&device, Some(owner.uid), Some(owner.gid))
        .map_err(SetupError::io("change the owners of", &device))?;
    fs::set_permissions(&device, Permissions::from_mode(owner.mode))
        .map_err(SetupError::io("change the mode of", &device))
}

fn write(file: &Path, text: &str) -> Result<(), SetupError> {
    let directory = file.parent().unwrap_or(file);
    fs::create_dir_all(directory).map_err(SetupError::io("make", directory))?;
    replace(file, text)
}

/// Puts `text` in place of the file, whole or not at all, readable by everyone.
pub(super) fn replace(file: &Path, text: &str) -> Result<(), SetupError> {
    let new = file.with_extension("vswap-new");
    fs::write(&new, text).map_err(SetupError::io("write", &new))?;
    fs::set_permissions(&new, Permissions::from_mode(0o644))
        .map_err(SetupError::io("change the mode of", &new))?;
    fs::rename(&new, file).map_err(SetupError::io("replace", file))
}
