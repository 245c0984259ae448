//! [`View`]: the file system that is shown; what its operations have in common.

use crate::ahead::{Pace, Threads};
use crate::attr::Attr;
use crate::belief::Changes;
use crate::fault::{Fault, Res};
use crate::handles::{Handle, Kept, Numbered};
use crate::inodes::{Inode, Inodes};
use crate::lines::Snapshots;
use crate::listings::Listings;
use crate::notices::Notices;
use crate::plain::Plains;
use crate::source::{Root, Source, reopen};
use parking_lot::Mutex;
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vswap_objects::Store;

/// How long nothing is put into a store that was full.
const FULL_FOR: Duration = Duration::from_secs(5);

/// The file system that is shown.
#[derive(Debug)]
pub struct View {
    pub source: Source,
    pub store: Arc<Store>,
    pub volume: Vec<u8>,
    /// How long the kernel need not ask again.
    pub ttl: Duration,
    pub inodes: Inodes,
    pub handles: Numbered<Handle>,
    pub snapshots: Snapshots,
    pub plains: Plains,
    pub listings: Listings,
    pub changes: Changes,
    /// Names that the source was asked for lately, and the threads that look at those which follow.
    pub pace: Mutex<Pace>,
    pub lookers: Threads,
    /// A directory's times have not changed with its names.
    pub no_dir_times: AtomicBool,
    /// Something was put into the store since the last sync.
    pub touched: AtomicBool,
    /// The store had no room.
    full: Mutex<Option<Instant>>,
    /// Held from the look for an object to its mark: two files of one path, of which one has taken the other's place, would else be given one object.
    pub making: Mutex<()>,
    pub notices: Notices,
}

/// An inode's file in the source, as it is now.
#[derive(Debug)]
pub struct Found {
    pub root: Root,
    pub fd: Opened,
    pub attr: Attr,
    /// The moment before it was looked for.
    pub begun: Instant,
}

/// A descriptor for one operation, or a program's own.
#[derive(Debug)]
pub enum Opened {
    Path(OwnedFd),
    File(Arc<File>),
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Path(fd) => fd.as_fd(),
            Self::File(file) => file.as_fd(),
        }
    }
}

impl View {
    pub fn new(
        source: Source,
        root: Attr,
        store: Arc<Store>,
        volume: Vec<u8>,
        ttl: Duration,
        notices: Notices,
        plains: Plains,
    ) -> Self {
        let listings = Listings::new(Arc::clone(&store), volume.clone(), ttl);
        Self {
            source,
            store,
            volume,
            ttl,
            inodes: Inodes::new(root),
            handles: Numbered::default(),
            snapshots: Snapshots::default(),
            plains,
            listings,
            changes: Changes::default(),
            pace: Mutex::default(),
            lookers: Threads::default(),
            no_dir_times: AtomicBool::new(false),
            touched: AtomicBool::new(false),
            full: Mutex::default(),
            making: Mutex::default(),
            notices,
        }
    }

    pub fn inode(&self, node: u64) -> Res<Arc<Inode>> {
        self.inodes.get(node).ok_or(Fault::Says(Errno::STALE))
    }

    /// An inode's file: at one of its paths, or, if it has been unlinked, as a program has it open.
    pub fn find(&self, inode: &Inode) -> Res<Found> {
        let begun = Instant::now();
        let root = self.source.root()?;
        if inode.is_root() {
            let fd = root.walk(b"")?;
            let attr = root.attr(&fd)?;
            return Ok(Found { root, fd: Opened::Path(fd), attr, begun });
        }
        let root = match self.find_below(root, inode, &inode.paths(), begun)? {
            Ok(found) => return Ok(found),
            Err(root) => root,
        };
        for handle in inode.handles() {
            let file = handle.file.lock().clone();
            if let Some(file) = file {
                let attr = root.attr(&file)?;
                return Ok(Found { root, fd: Opened::File(file), attr, begun });
            }
        }
        // The kernel then looks its name up again.
        Err(Fault::Says(Errno::STALE))
    }

    /// An inode's file at one of its paths, if it is at any.
    pub fn find_by_name(&self, inode: &Inode) -> Res<Option<Found>> {
        let begun = Instant::now();
        Ok(self.find_below(self.source.root()?, inode, &inode.paths(), begun)?.ok())
    }

    /// Where it was when it was opened, or elsewhere if it looks the same: not what has been given its number since.
    fn find_kept(&self, inode: &Inode, kept: &Kept) -> Res<Found> {
        let begun = Instant::now();
        let path: Vec<_> = kept.place.path().into_iter().collect();
        match self.find_below(self.source.root()?, inode, &path, begun)? {
            Ok(found) => Ok(found),
            Err(root) => match self.find_below(root, inode, &inode.paths(), begun)? {
                Ok(found) if found.attr.stamp().looks_like(&kept.stamp) => Ok(found),
                _ => Err(Fault::Says(Errno::STALE)),
            },
        }
    }

    /// The root again if it is at none of them.
    fn find_below(
        &self,
        root: Root,
        inode: &Inode,
        paths: &[Vec<u8>],
        begun: Instant,
    ) -> Res<Result<Found, Root>> {
        for path in paths {
            match root.walk(path) {
                Ok(fd) => {
                    let attr = root.attr(&fd)?;
                    if attr.identity == inode.identity {
                        return Ok(Ok(Found { root, fd: Opened::Path(fd), attr, begun }));
                    }
                }
                Err(Fault::Says(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV)) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(Err(root))
    }

    /// The source's file of a handle; opened anew if it was opened without.
    pub fn file(&self, handle: &Handle) -> Res<Arc<File>> {
        let had = handle.file.lock().clone();
        had.map_or_else(|| self.open_again(handle), Ok)
    }

    fn open_again(&self, handle: &Handle) -> Res<Arc<File>> {
        let found = match &handle.kept {
            Some(kept) => self.find_kept(&handle.inode, kept)?,
            None => self.find(&handle.inode)?,
        };
        let file = Arc::new(reopen(&found.fd, handle.flags)?);
        *handle.file.lock() = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Does something with the source's file of a handle; once more with another if the file's mount has gone and come back.
    pub fn with_file<T>(&self, handle: &Handle, work: impl Fn(&File) -> Res<T>) -> Res<T> {
        self.perhaps_twice(handle, |_| true, work)
    }

    /// As [`View::with_file`], to write: an EIO may be of what was written before, and another descriptor would not say it again.
    pub fn with_file_to_write<T>(&self, handle: &Handle, work: impl Fn(&File) -> Res<T>) -> Res<T> {
        self.perhaps_twice(handle, |errno| errno != Errno::IO, work)
    }

    fn perhaps_twice<T>(
        &self,
        handle: &Handle,
        again: impl Fn(Errno) -> bool,
        work: impl Fn(&File) -> Res<T>,
    ) -> Res<T> {
        let had = handle.file.lock().is_some();
        match work(&*self.file(handle)?) {
            Err(Fault::Gone(errno)) if had && again(errno) => match self.open_again(handle) {
                Ok(file) => {
                    handle.replaced();
                    work(&file)
                }
                Err(_) => Err(Fault::Gone(errno)),
            },
            done => done,
        }
    }

    /// As a handle's file is now.
    pub fn attr_of(&self, handle: &Handle) -> Res<Attr> {
        let device = self.source.root().map(|root| root.device);
        self.with_file(handle, |file| {
            let stat = rustix::fs::fstat(file)?;
            // Without the source's directory there is nothing to compare the device with: it is the one that it was on before.
            let attr = Attr::new(&stat, device.unwrap_or(stat.st_dev));
            Ok(Attr { identity: if device.is_err() { handle.inode.identity } else { attr.identity }, ..attr })
        })
    }

    /// An inode was seen so, by a look that began then.
    pub fn note(&self, inode: &Arc<Inode>, attr: &Attr, begun: Instant) {
        let former = {
            let mut seen = inode.attr.lock();
            let former = seen.attr;
            seen.see(attr, Some(begun));
            if seen.at != Some(begun) {
                return;
            }
            former
        };
        if former.stamp() != attr.stamp() && former.stamp().looks_like(&attr.stamp()) && attr.is_file() {
            self.notices.stale(inode.node);
        }
        if inode.is_root() {
            self.listings.with(b"", |listing| listing.see_own(attr));
        } else if !former.agrees(attr)
            && let Some(path) = inode.path()
        {
            let (dir, name) = split(&path);
            self.listings.with(dir, |listing| listing.update(name, attr, begun));
        }
    }

    /// Whether it is worth while to put something into the store.
    pub fn has_room(&self) -> bool {
        let mut full = self.full.lock();
        if full.is_some_and(|since| since.elapsed() >= FULL_FOR) {
            *full = None;
        }
        full.is_none()
    }

    /// It had no room, or failed.
    pub fn was_full(&self) {
        *self.full.lock() = Some(Instant::now());
    }

    /// Something was put into the store.
    pub fn touch(&self) {
        // Relaxed, as where it is read: a sync that misses it is followed by another.
        self.touched.store(true, Ordering::Relaxed);
    }
}

/// A path's directory and its last name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
