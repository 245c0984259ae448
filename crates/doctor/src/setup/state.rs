//! The state file: what an undo has to take back, one entry a line, oldest first.
//!
//! It is text so that an administrator can read it and undo by hand. It is replaced whole (a rename), never appended
//! to, so a crash leaves the old or the new one.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::accounts::check_name;
use super::{MARK, Owner, STATE_FILE, SetupError, System};

/// One thing that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
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

    /// Only what a setup can have made: an undo gives names to commands, and removes files, as root.
    fn from_line(line: &str) -> Option<Entry> {
        let words: Vec<&str> = line.split(' ').collect();
        let name = |text: &str, what| check_name(text, what).is_ok().then(|| text.to_owned());
        match words.as_slice() {
            ["device", mode, uid, gid] => Some(Entry::Device(Owner {
                mode: u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777)?,
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
            })),
            ["group", group] => name(group, "group").map(Entry::Group),
            ["member", user, group] => Some(Entry::Member(name(user, "user")?, name(group, "group")?)),
            ["file", file] => path_below_root(file).map(Entry::File),
            ["directory", directory] => path_below_root(directory).map(Entry::Directory),
            _ => None,
        }
    }
}

/// A path that stays below the system's root, whichever that is, and is shown as it is.
fn path_below_root(text: &str) -> Option<PathBuf> {
    let mut parts = Path::new(text).components();
    let begins = parts.next() == Some(Component::RootDir);
    let parts: Vec<Component> = parts.collect();
    let stays = !parts.is_empty() && parts.iter().all(|part| matches!(part, Component::Normal(_)));
    (begins && stays && !text.contains(char::is_control)).then(|| PathBuf::from(text))
}

/// The entries, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
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
        let bad = |(line, text)| SetupError::BadState { file: file.clone(), line, text };
        State::parse(&text).map(Some).map_err(bad)
    }

    /// What the file says, or the first line that says nothing: its number, from 1, and what is there.
    pub(crate) fn parse(text: &str) -> Result<State, (usize, String)> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let read = |(at, line)| Entry::from_line(line).ok_or_else(|| (at + 1, line.to_owned()));
        Ok(State { entries: lines.map(read).collect::<Result<_, _>>()? })
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let lines: String = self.entries.iter().map(|entry| entry.to_line() + "\n").collect();
        format!("{MARK}\n{lines}")
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
        super::apply::replace(&file, &self.text())
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

    /// They went to `groupdel` and the like as they were, and outside of what `--root` names.
    #[test]
    fn names_that_are_options_and_paths_that_lead_out_of_the_system_are_refused() {
        for line in [
            "group -r",
            "group ",
            "group --prefix=/x",
            "member -d vswap",
            "member ann -G",
            "file /../x",
            "file /etc/../../x",
            "directory /",
            "directory //",
            "file /etc/\u{1b}[2J",
        ] {
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
