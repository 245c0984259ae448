//! Looks at several names of a directory at once, where each takes long: on the file system of another machine. Who goes through a directory is told of the names that follow without waiting for each.

use crate::attr::Attr;
use crate::fault::Res;
use crate::inodes::Inode;
use crate::listing::NAMES_FOR;
use crate::source::Root;
use crate::view::View;
use fuser::FileType;
use rustix::fs::readlinkat;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Names that are looked at at once.
pub const AT_ONCE: usize = 32;
/// Of a directory in which one name was asked for a moment ago.
const FEW: usize = 8;
/// Threads that look, for all who wait.
const THREADS: usize = 64;
/// What was asked for within so long belongs together.
const MOMENT: Duration = Duration::from_secs(1);
/// So many names within a moment, wherever they are: somebody goes through a tree.
const MANY: usize = 16;

/// Names of a directory that are read because some of them were asked for, at the most.
const LONGEST: usize = 4096;

/// How many names were asked for lately.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<Instant>,
    asked: usize,
    /// When all names were read because of that, or it was tried.
    read: Option<Instant>,
}

impl Pace {
    /// One more was; how many it are.
    fn ask(&mut self) -> usize {
        if self.last.is_none_or(|last| last.elapsed() > MOMENT) {
            self.asked = 0;
        }
        (self.last, self.asked) = (Some(Instant::now()), self.asked + 1);
        self.asked
    }

    /// Whether all names are to be read: not often, since there may be too many.
    fn read(&mut self) -> bool {
        let wanted = self.read.is_none_or(|read| read.elapsed() > NAMES_FOR);
        if wanted {
            self.read = Some(Instant::now());
        }
        wanted
    }
}

/// Threads that are at work.
#[derive(Debug, Default)]
pub struct Threads(AtomicUsize);

/// Given back when dropped.
struct Lent<'a>(&'a Threads, usize);

impl Threads {
    /// So many, or what there is.
    fn take(&self, wanted: usize) -> Lent<'_> {
        let take = |busy: usize| Some(busy + wanted.min(THREADS.saturating_sub(busy)));
        // Relaxed: a count that guards nothing.
        let busy = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or(THREADS);
        Lent(self, wanted.min(THREADS.saturating_sub(busy)))
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// A directory that is open.
#[derive(Clone, Copy)]
pub struct Within<'a> {
    /// It is listed: where links point is asked too, for when the source is gone. Not of a name that is looked up: that sets the link's time of access.
    pub listed: bool,
    pub inode: &'a Inode,
    pub dir: BorrowedFd<'a>,
    pub root: &'a Root,
}

impl View {
    /// Asks for a name's attributes and remembers them, and where a link points if that is wanted.
    pub fn look_at(&self, within: Within<'_>, path: Option<&[u8]>, name: &[u8]) -> Res<(Attr, Instant)> {
        let begun = Instant::now();
        let look = (within.inode.identity, begun);
        let found = within.root.attr_at(within.dir, name);
        let Some(path) = path else { return Ok((found?, begun)) };
        match found {
            Ok(attr) => {
                let known = !within.listed
                    || attr.kind() != FileType::Symlink
                    || self.listings.with(path, |listing| listing.knows_target(name, &attr));
                let target = if known { None } else { readlinkat(within.dir, name, Vec::new()).ok() };
                self.listings.with(path, |listing| {
                    listing.see(name, &attr, look);
                    if let Some(target) = target {
                        listing.points(name, attr.identity, target.as_bytes());
                    }
                });
                Ok((attr, begun))
            }
            Err(fault) => {
                if fault.raw() == Errno::NOENT {
                    self.listings.with(path, |listing| listing.miss(name, look));
                }
                Err(fault)
            }
        }
    }

    /// Looks at these, or as many as there are threads for, while `work` is done; both have been when this returns.
    pub fn look_at_all<T>(
        &self,
        within: Within<'_>,
        path: &[u8],
        names: &[Vec<u8>],
        work: impl FnOnce() -> T,
    ) -> T {
        let threads = self.lookers.take(names.len());
        // One for each thread, so that nobody waits for more than one of them.
        let names = &names[..threads.1];
        std::thread::scope(|scope| {
            for name in names {
                // One that cannot be started is not missed: what it would have looked at is asked for when it is wanted.
                let look = move || self.look_ahead(within, path, name);
                let _ = std::thread::Builder::new().spawn_scoped(scope, look);
            }
            work()
        })
    }

    /// Looks at one that somebody will probably ask for.
    pub fn look_ahead(&self, within: Within<'_>, path: &[u8], name: &[u8]) {
        if let Ok((attr, begun)) = self.look_at(within, Some(path), name)
            && let Some(inode) = self.inodes.find(attr.identity)
            // Numbers are given anew: else it may be another file.
            && (inode.is_at(within.inode, name) || attr.nlink > 1)
        {
            self.note(&inode, &attr, begun);
        }
    }

    /// Names behind this one that whoever asks for it will probably ask for next, and that are not believed any more.
    pub fn following(&self, parent: &Arc<Inode>, path: &[u8], name: &[u8]) -> Vec<Vec<u8>> {
        // What is seen of a directory that is being changed through the mount is not believed for long.
        let lately = Instant::now().checked_sub(MOMENT);
        let changes = lately.is_none_or(|lately| !self.changes.none_since(parent.identity, lately));
        let (here, anywhere) = (parent.pace.lock().ask(), self.pace.lock().ask());
        if changes || !self.source.is_remote() || self.ttl.is_zero() {
            return Vec::new();
        }
        let most = match here {
            _ if anywhere >= MANY => AT_ONCE,
            1 => 0,
            2 => FEW,
            _ => AT_ONCE,
        };
        if most == AT_ONCE && here > 1 && self.names_seen(parent, path).is_none() && parent.pace.lock().read()
        {
            // Else it is known to be too long, or asked for once more when it is listed.
            let _ = self.read_lines(parent, LONGEST);
        }
        let names = self.listings.with(path, |listing| listing.names_after(name, most));
        self.not_believed(parent, path, names)
    }

    pub fn not_believed(&self, parent: &Inode, path: &[u8], names: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        names.into_iter().filter(|name| self.known_name(parent, path, name).is_none()).collect()
    }
}

impl<'a> Within<'a> {
    pub fn new(inode: &'a Inode, dir: &'a impl AsFd, root: &'a Root, listed: bool) -> Self {
        Self { listed, inode, dir: dir.as_fd(), root }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pace, THREADS, Threads};

    #[test]
    fn no_more_threads_are_lent_than_there_are_and_all_come_back() {
        let threads = Threads::default();
        let some = threads.take(THREADS - 1);
        assert_eq!((some.1, threads.take(5).1, threads.take(0).1), (THREADS - 1, 1, 0));
        let last = threads.take(5);
        assert_eq!((last.1, threads.take(1).1), (1, 0));
        drop((some, last));
        assert_eq!(threads.take(2 * THREADS).1, THREADS);
        let mut pace = Pace::default();
        assert_eq!([pace.ask(), pace.ask(), pace.ask()], [1, 2, 3]);
    }
}
