//! Groups and users: looked up in the system's files (and by `getent` on the running one), changed by the
//! distribution's own commands, shadow's or busybox's.

use std::path::PathBuf;
use std::process::Command;

use super::{SetupError, System};

/// Where administrators' commands are when `PATH` does not say.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Refuses what could not be the name of a group or user, or would mean something else in a rule or a command line.
pub(super) fn check_name(name: &str, what: &'static str) -> Result<(), SetupError> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let number = name.bytes().all(|b| b.is_ascii_digit());
    if plain && !number && !name.starts_with(['-', '.']) && name.len() <= 32 {
        return Ok(());
    }
    Err(SetupError::BadName(name.to_owned(), what))
}

/// A line of `/etc/group` or `/etc/passwd`.
fn entry(system: &System, database: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(system.at(format!("/etc/{database}"))).unwrap_or_default();
    let of_name = |line: &&str| line.split(':').next() == Some(name);
    if let Some(line) = text.lines().find(of_name) {
        return Some(line.to_owned());
    }
    if !system.is_live() {
        return None;
    }
    // Directory services (LDAP, sssd) are not in the files.
    let output = Command::new(find("getent")?).args([database, name]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().find(of_name).map(str::to_owned)
}

/// The number of a group, if it exists.
pub(super) fn group_id(system: &System, group: &str) -> Option<u32> {
    entry(system, "group", group)?.split(':').nth(2)?.parse().ok()
}

/// Whether there is such a user.
pub(super) fn user_exists(system: &System, user: &str) -> bool {
    entry(system, "passwd", user).is_some()
}

/// Whether the user is in the group, by membership or as the first group.
pub(super) fn is_member(system: &System, user: &str, group: &str) -> bool {
    let Some(line) = entry(system, "group", group) else { return false };
    let listed =
        line.split(':').nth(3).is_some_and(|members| members.split(',').any(|member| member == user));
    let first_group =
        entry(system, "passwd", user).and_then(|line| line.split(':').nth(3)?.parse::<u32>().ok());
    listed || (first_group.is_some() && first_group == group_id(system, group))
}

pub(super) fn make_group(system: &System, group: &str) -> Result<(), SetupError> {
    first_of(system, &[("groupadd", &["--system", group]), ("addgroup", &["-S", group])])
}

pub(super) fn remove_group(system: &System, group: &str) -> Result<(), SetupError> {
    first_of(system, &[("groupdel", &[group]), ("delgroup", &[group])])
}

pub(super) fn add_member(system: &System, user: &str, group: &str) -> Result<(), SetupError> {
    first_of(system, &[("usermod", &["-aG", group, user]), ("addgroup", &[user, group])])
}

pub(super) fn remove_member(system: &System, user: &str, group: &str) -> Result<(), SetupError> {
    if system.is_live() {
        return first_of(system, &[("gpasswd", &["-d", user, group]), ("delgroup", &[user, group])]);
    }
    // gpasswd knows no prefix.
    first_of(system, &[("usermod", &["-rG", group, user])])
}

/// Runs the first of the commands that is there.
fn first_of(system: &System, commands: &[(&str, &[&str])]) -> Result<(), SetupError> {
    let found = commands.iter().find_map(|(name, arguments)| Some((find(name)?, *name, *arguments)));
    let Some((path, name, arguments)) = found else {
        let names: Vec<&str> = commands.iter().map(|(name, _)| *name).collect();
        return Err(SetupError::Command {
            command: names.join(" or "),
            reason: "there is no such command".into(),
        });
    };
    let mut command = Command::new(path);
    if !system.is_live() {
        command.arg("--prefix").arg(&system.root);
    }
    command.args(arguments);
    let shown = format!("{name} {}", arguments.join(" "));
    let failed = |reason: String| SetupError::Command { command: shown.clone(), reason };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(failed(if words.is_empty() { output.status.to_string() } else { words }))
}

fn find(command: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join(command))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_mean_something_else_are_refused() {
        for name in
            ["", "-g", "a b", "a\"b", "a\nb", "a:b", "a,b", "../x", "0", "1000", &"x".repeat(33), "grüppe"]
        {
            assert!(check_name(name, "group").is_err(), "{name:?}");
        }
        for name in ["vswap", "kvm", "_x", "a.b-c_d", "X1"] {
            assert!(check_name(name, "group").is_ok(), "{name:?}");
        }
    }
}
