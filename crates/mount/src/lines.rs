//! [`Lines`]: a directory's names at one moment, as they are listed; [`Snapshots`], of those directories that are being listed.
//!
//! No directory is opened (`FUSE_NO_OPENDIR_SUPPORT`): the kernel asks for the names that come after a *cookie*, and keeps what it is told. The cookie of a name is a hash of it and of nothing else, and names are told in the
//! order of their cookies, as ext4 has it. So whoever goes on after a change, or in names of another moment, is still told each name once that was there all along; and so is who goes on in names that somebody else was told
//! before. Of two names of one cookie one could be left out: of a million names some two have one once in 10^7 mounts.

use fuser::FileType;
use parking_lot::Mutex;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Cookies of `.` and `..`; those of names are higher.
pub const DOTS: [u64; 2] = [1, 2];
/// Directories in the middle of which somebody may be. Who is in another one has it read once more.
const MOST: usize = 64;
/// Nobody goes on after so long.
const IDLE: Duration = Duration::from_secs(60);

/// An entry of a directory, as it is listed.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: Vec<u8>,
    pub inode: u64,
    pub kind: FileType,
}

/// A directory at one moment.
#[derive(Debug)]
pub struct Lines {
    /// The moment before it was read from the source; `None` if the source is gone.
    pub read: Option<Instant>,
    pub path: Option<Vec<u8>>,
    pub lines: Vec<Line>,
}

/// [`Lines`] in the order in which they are told.
#[derive(Debug)]
pub struct Ordered {
    pub lines: Lines,
    /// Of each line.
    pub cookies: Vec<u64>,
}

impl Ordered {
    /// The first line after a cookie.
    pub fn after(&self, cookie: u64) -> usize {
        self.cookies.partition_point(|known| *known <= cookie)
    }
}

/// Of directories that are being listed.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// Of numbers of inodes, the one that was used last at the end.
    all: Mutex<Vec<(u64, Instant, Arc<Ordered>)>>,
    hashes: RandomState,
}

impl Snapshots {
    /// Somebody begins: all who are in the middle of it go on in this one.
    pub fn begin(&self, node: u64, lines: Lines) -> Arc<Ordered> {
        let ordered = Arc::new(self.order(lines));
        let mut all = self.all.lock();
        let now = Instant::now();
        all.retain(|(known, ..)| *known != node);
        if all.len() >= MOST {
            all.remove(0);
        }
        all.push((node, now, Arc::clone(&ordered)));
        ordered
    }

    /// Somebody goes on.
    pub fn go_on(&self, node: u64) -> Option<Arc<Ordered>> {
        let mut all = self.all.lock();
        let at = all.iter().position(|(known, ..)| *known == node)?;
        let (_, _, ordered) = all.remove(at);
        all.push((node, Instant::now(), Arc::clone(&ordered)));
        Some(ordered)
    }

    /// Those in which nobody goes on any more go.
    pub fn sweep(&self) {
        self.all.lock().retain(|(_, used, _)| used.elapsed() < IDLE);
    }

    /// Somebody has come to the end.
    pub fn end(&self, node: u64) {
        self.all.lock().retain(|(known, ..)| *known != node);
    }

    fn order(&self, mut lines: Lines) -> Ordered {
        lines.lines.sort_by_cached_key(|line| self.cookie(&line.name));
        let cookies = lines.lines.iter().map(|line| self.cookie(&line.name)).collect();
        Ordered { lines, cookies }
    }

    /// Not negative as the kernel's `loff_t`.
    fn cookie(&self, name: &[u8]) -> u64 {
        (self.hashes.hash_one(name) >> 1).max(DOTS[1] + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::{DOTS, IDLE, Line, Lines, MOST, Snapshots};
    use fuser::FileType;
    use std::sync::Arc;

    fn lines(names: &[&str]) -> Lines {
        let line = |name: &&str| Line { name: name.as_bytes().into(), inode: 7, kind: FileType::RegularFile };
        Lines { read: None, path: None, lines: names.iter().map(line).collect() }
    }

    #[test]
    fn who_goes_on_in_names_of_another_moment_is_told_what_is_there_in_both() {
        let snapshots = Snapshots::default();
        let names: Vec<String> = (0..100).map(|name| format!("n{name}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let before = snapshots.begin(1, lines(&all));
        assert!(before.cookies.is_sorted_by(|one, two| one < two) && before.cookies[0] > DOTS[1]);
        assert_eq!((before.after(0), before.after(DOTS[1]), before.after(u64::MAX)), (0, 0, 100));
        let half = before.cookies[49];
        let odd: Vec<&str> = all.iter().copied().skip(1).step_by(2).collect();
        snapshots.begin(1, lines(&odd));
        let after = snapshots.go_on(1).unwrap();
        let of = |lines: &[Line]| lines.iter().map(|line| line.name.clone()).collect::<Vec<_>>();
        let mut told = of(&before.lines.lines[..50]);
        told.extend(of(&after.lines.lines[after.after(half)..]));
        for name in odd {
            assert_eq!(told.iter().filter(|told| *told == name.as_bytes()).count(), 1, "{name}");
        }
        snapshots.end(1);
        assert!(snapshots.go_on(1).is_none());
    }

    #[test]
    fn of_too_many_directories_the_one_goes_that_was_used_longest_ago() {
        let snapshots = Snapshots::default();
        (0..MOST as u64).for_each(|node| drop(snapshots.begin(node, lines(&["a"]))));
        assert!(snapshots.go_on(0).is_some());
        let last = snapshots.begin(1000, lines(&[]));
        assert!(snapshots.go_on(1).is_none() && snapshots.go_on(0).is_some());
        assert!(Arc::ptr_eq(&snapshots.go_on(1000).unwrap(), &last));
        // And all in which nobody goes on.
        snapshots.all.lock().iter_mut().for_each(|(_, used, _)| *used = used.checked_sub(IDLE).unwrap());
        drop(snapshots.begin(2000, lines(&[])));
        snapshots.sweep();
        assert_eq!(snapshots.all.lock().len(), 1);
    }
}
