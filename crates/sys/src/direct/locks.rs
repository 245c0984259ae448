//! Who has locked a file: what `/proc/locks` says, for people.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// A process that has locked a file, as far as it can be told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LockHolder(Option<(u32, String)>);

impl LockHolder {
    /// Who has locked a file as a whole (`flock`). Nobody, if it is in another PID namespace or has just let go.
    pub(super) fn of(found: &fs::Metadata) -> Self {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let device = (libc::major(found.dev()), libc::minor(found.dev()));
        let name = |pid: u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            (pid, name.unwrap_or_default().trim_end().to_owned())
        };
        Self(holder(&locks, device, found.ino()).map(name))
    }

    /// Its number.
    pub fn pid(&self) -> Option<u32> {
        self.0.as_ref().map(|(pid, _)| *pid)
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((pid, name)) if name.is_empty() => {
                write!(f, "process {pid}, which is gone, or somebody who has had it of that one,")
            }
            Some((pid, name)) => write!(f, "process {pid} ({name})"),
            None => f.write_str("another vswap, or another program,"),
        }
    }
}

/// Lines are `1: FLOCK  ADVISORY  WRITE 466 fe:00:2163208 0 EOF`, of those who wait with `->` behind the number.
fn holder(locks: &str, (major, minor): (u32, u32), inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let [_, "FLOCK", _, _, pid, file, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let mut parts = file.split(':');
        let mut number = |radix| u64::from_str_radix(parts.next()?, radix).ok();
        let is = (number(16)?, number(16)?, number(10)?) == (major.into(), minor.into(), inode);
        pid.parse().ok().filter(|pid| is && *pid > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::holder;

    #[test]
    fn who_has_locked_a_file_is_found_among_others() {
        let locks = "1: POSIX  ADVISORY  READ  7 fe:0a:12 0 EOF\n\
            2: FLOCK  ADVISORY  WRITE 8 fe:00:12 0 EOF\n\
            2: -> FLOCK  ADVISORY  WRITE 10 fe:0a:12 0 EOF\n\
            nonsense\n3: FLOCK  ADVISORY  WRITE -1 fe:0a:13 0 EOF\n\
            4: FLOCK  ADVISORY  WRITE 9 fe:0a:12 0 EOF\n";
        assert_eq!(holder(locks, (0xfe, 10), 12), Some(9));
        assert_eq!(holder(locks, (0xfe, 0), 12), Some(8));
        assert_eq!(holder(locks, (0xfe, 10), 13), None);
        assert_eq!(holder("", (0, 0), 0), None);
    }
}
