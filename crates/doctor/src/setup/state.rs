//! The state file: what an undo has to take back, one entry a line, oldest first.
//!
//! It is text so that an administrator can read it and undo by hand. It is replaced whole (a rename), never appended
//! to, so a crash leaves the old or the new one.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{MARK, Owner, STATE_FILE, SetupError, System};

/// One thing that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The device was opened; this is what it had before the first time.
    Device(Owner),
    /// A group was made.
    Group(String),
    /// A user was put into a group.
    Member(String, String),
    /// A file was written.
    File(PathBuf),
    /// A directory was made.
    Directory(PathBuf),
}

impl Entry {
    fn to_line(&self) -> String {
        match self {
            Entry::Device(Owner { mode, uid, gid }) => format!("device {mode:04o} {uid} {gid}"),
            Entry::Group(group) => format!("group {group}"),
            Entry::Member(user, group) => format!("member {user} {group}"),
            Entry::File(path) => format!("file {}", path.display()),
            Entry::Directory(path) => format!("directory {}", path.display()),
        }
    }

    fn from_line(line: &str) -> Option<Entry> {
        let words: Vec<&str> = line.split(' ').collect();
        let path = |text: &str| text.starts_with('/').then(|| PathBuf::from(text));
        match words.as_slice() {
            ["device", mode, uid, gid] => Some(Entry::Device(Owner {
                mode: u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777)?,
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
            })),
            ["group", group] => Some(Entry::Group((*group).to_owned())),
            ["member", user, group] => Some(Entry::Member((*user).to_owned(), (*group).to_owned())),
            ["file", file] => path(file).map(Entry::File),
            ["directory", directory] => path(directory).map(Entry::Directory),
            _ => None,
        }
    }
}

/// The entries, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) entries: Vec<Entry>,
}

impl State {
    /// Reads the state file; `None` if there is none.
    pub(super) fn load(system: &System) -> Result<Option<State>, SetupError> {
        let file = system.at(STATE_FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SetupError::io("read", &file)(error)),
        };
        let mut entries = Vec::new();
        for (index, line) in
            text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        {
            let bad = || SetupError::BadState { file: file.clone(), line: index + 1, text: line.to_owned() };
            entries.push(Entry::from_line(line).ok_or_else(bad)?);
        }
        Ok(Some(State { entries }))
    }

    /// Writes it, or removes it and its directory if nothing is left to undo.
    pub(super) fn save(&self, system: &System) -> Result<(), SetupError> {
        let file = system.at(STATE_FILE);
        let directory = file.parent().unwrap_or(&file);
        if self.entries.is_empty() {
            fs::remove_file(&file).map_err(SetupError::io("remove", &file))?;
            // Somebody else's files may be in it.
            let _ = fs::remove_dir(directory);
            return Ok(());
        }
        fs::create_dir_all(directory).map_err(SetupError::io("make", directory))?;
        let lines: String = self.entries.iter().map(|entry| entry.to_line() + "\n").collect();
        super::apply::replace(&file, &format!("{MARK}\n{lines}"))
    }

    /// Adds an entry that is not there yet. The first one of a device stays: it is what was there before vswap.
    pub(super) fn add(&mut self, entry: Entry) {
        let known = self.entries.iter().any(|old| match (old, &entry) {
            (Entry::Device(_), Entry::Device(_)) => true,
            (old, new) => old == new,
        });
        if !known {
            self.entries.push(entry);
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        self.entries.retain(|old| old != entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_comes_back_from_its_line() {
        for entry in [
            Entry::Device(Owner { mode: 0o600, uid: 0, gid: 7 }),
            Entry::Group("vswap".into()),
            Entry::Member("ann".into(), "vswap".into()),
            Entry::File("/etc/x".into()),
            Entry::Directory("/etc/y".into()),
        ] {
            assert_eq!(Entry::from_line(&entry.to_line()), Some(entry));
        }
    }

    #[test]
    fn lines_that_are_no_entries_are_refused() {
        for line in
            ["device", "device 99999 0 0", "device 0600 -1 0", "file etc/x", "rm -rf /", "group a b", "group"]
        {
            assert_eq!(Entry::from_line(line), None, "{line}");
        }
    }

    #[test]
    fn the_first_state_of_the_device_is_the_one_that_stays() {
        let mut state = State::default();
        let first = Entry::Device(Owner { mode: 0o600, uid: 0, gid: 0 });
        state.add(first.clone());
        state.add(Entry::Device(Owner { mode: 0o660, uid: 0, gid: 5 }));
        assert_eq!(state.entries, [first]);
    }
}
