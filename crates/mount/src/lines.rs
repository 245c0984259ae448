//! [`Lines`]: a directory's names at one moment, as they are listed; [`Snapshots`], of those directories that are being listed.
//!
//! No directory is opened (`FUSE_NO_OPENDIR_SUPPORT`): the kernel asks for the names that come after a *cookie*, and keeps what it is told. The cookie of a name is a hash of it and of nothing else, and names are told in the
//! order of their cookies, as ext4 has it. So whoever goes on after a change, or in names of another moment, is still told each name once that was there all along; and so is who goes on in names that somebody else was told
//! before. Of two names of one cookie one could be left out: of a million names some two have one once in 10^7 mounts.

use crate::source::Root;
use crate::view::Opened;
use fuser::FileType;
use parking_lot::Mutex;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
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
    /// The directory itself, for the entries' attributes, and the source's: found when the first of these is wanted. `None` if it cannot be.
    pub dir: OnceLock<Option<(Opened, Root)>>,
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
        all.retain(|(known, used, _)| *known != node && now.duration_since(*used) < IDLE);
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
