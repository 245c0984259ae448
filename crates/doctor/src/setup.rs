//! The one remedy that needs root: `/dev/userfaultfd` for a group, and back.
//!
//! [`plan`] looks at the system and gives the [`Plan`] of [`Step`]s that are still missing; shown first, then applied.
//! [`plan_undo`] gives the way back from the state file.
//!
//! **Invariants:** planning changes nothing and needs no root; a step is recorded in the state file before it is
//! taken, so an interrupted setup can be undone; what was there before the *first* setup is what an undo restores;
//! a file of the same name that vswap did not write is never touched.

mod accounts;
mod apply;
mod plan;
pub(crate) mod state;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "fuzz")]
pub(crate) use plan::steps_back;
pub use plan::{Plan, Wish, plan, plan_undo};

/// The device.
pub const DEVICE: &str = "/dev/userfaultfd";
/// The rule for udev.
pub const RULE_FILE: &str = "/etc/udev/rules.d/60-vswap-userfaultfd.rules";
/// The same for systems without udev but with systemd-tmpfiles.
pub const TMPFILES_FILE: &str = "/etc/tmpfiles.d/vswap-userfaultfd.conf";
/// What undo needs to know.
pub const STATE_FILE: &str = "/var/lib/vswap/setup-state";
/// The mode that the device gets.
pub const DEVICE_MODE: u32 = 0o660;
/// First line of every file that vswap writes: by it they are told from others.
pub(crate) const MARK: &str = "# Made by `vswap setup`; `vswap setup --undo` takes it away.";

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Makes a system group.
    MakeGroup(String),
    /// Puts a user into a group.
    AddMember {
        /// Who.
        user: String,
        /// Into which.
        group: String,
    },
    /// Writes a file whole, and the directories above it.
    WriteFile {
        /// Where, as seen from the system's root.
        path: &'static str,
        /// All of it.
        text: String,
    },
    /// Changes the device's group and mode.
    OpenDevice {
        /// Name, for people.
        group: String,
    },
    /// Gives the device back what it had.
    RestoreDevice(Owner),
    /// Takes a user out of a group.
    RemoveMember {
        /// Who.
        user: String,
        /// Out of which.
        group: String,
    },
    /// Removes a group that setup made.
    RemoveGroup(String),
    /// Removes a file that setup wrote.
    RemoveFile(PathBuf),
    /// Removes a directory that setup made, if it is empty.
    RemoveDirectory(PathBuf),
}

/// Mode and owners of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::MakeGroup(group) => write!(f, "make the group {group}"),
            Step::AddMember { user, group } => write!(f, "put the user {user} into the group {group}"),
            Step::WriteFile { path, text } => {
                write!(f, "write {path}:")?;
                text.lines().try_for_each(|line| write!(f, "\n      {line}"))
            }
            Step::OpenDevice { group } => {
                write!(f, "give {DEVICE} to the group {group} now: chgrp {group}, chmod {DEVICE_MODE:04o}")
            }
            Step::RestoreDevice(Owner { mode, uid, gid }) => {
                write!(f, "give {DEVICE} back: chown {uid}:{gid}, chmod {mode:04o}")
            }
            Step::RemoveMember { user, group } => write!(f, "take the user {user} out of the group {group}"),
            Step::RemoveGroup(group) => write!(f, "remove the group {group}"),
            Step::RemoveFile(path) => write!(f, "remove {}", path.display()),
            Step::RemoveDirectory(path) => write!(f, "remove the directory {}, if empty", path.display()),
        }
    }
}

/// Why setup or its undo cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// No device to open to anybody.
    #[error(
        "{} is not there: the kernel is older than Linux 6.1 or built without CONFIG_USERFAULTFD; on an older one: \
         sysctl -w vm.unprivileged_userfaultfd=1", .0.display()
    )]
    NoDevice(PathBuf),
    /// A name that is no group's or user's.
    #[error(
        "{0:?} is not a name for a {1}: letters, digits, \".\", \"_\" and \"-\", at most 32; try --{1} vswap"
    )]
    BadName(String, &'static str),
    /// The user to be added is unknown.
    #[error("there is no user {0:?} on this system; name one with --user, or make it first (adduser {0})")]
    NoUser(String),
    /// A file of that name exists and is somebody else's.
    #[error("{} exists and was not written by vswap setup: look at it, and move it away first", .0.display())]
    ForeignFile(PathBuf),
    /// Nothing was ever set up.
    #[error("nothing to undo: {} is not there", .0.display())]
    NothingToUndo(PathBuf),
    /// The state file cannot be understood.
    #[error("{}, line {line}: {text:?} is not an entry of vswap setup; nothing was changed", file.display())]
    BadState {
        /// The state file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is there.
        text: String,
    },
    /// A file or the device could not be read or changed.
    #[error("cannot {act} {}: {source}{}", path.display(), needs_root(source))]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// A command for accounts failed.
    #[error("{command} failed: {reason}")]
    Command {
        /// As it was run.
        command: String,
        /// Its words or its status.
        reason: String,
    },
    /// Some steps of an undo failed; the rest was done.
    #[error("not everything could be undone (the rest was; run it again when mended): {}", .0.join("; "))]
    Incomplete(Vec<String>),
}

fn needs_root(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (it needs root: sudo vswap setup)",
        _ => "",
    }
}

impl SetupError {
    fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SetupError {
        let path = path.to_owned();
        move |source| SetupError::Io { act, path, source }
    }
}

/// The system that is changed: `/`, or a directory that stands for it in tests and images.
#[derive(Clone, Debug)]
pub(crate) struct System {
    root: PathBuf,
}

impl System {
    pub(crate) fn new(root: &Path) -> System {
        System { root: root.to_owned() }
    }

    /// Whether it is the running system.
    pub(crate) fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path of the system is for us.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}
