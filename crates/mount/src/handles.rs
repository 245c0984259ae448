//! [`Handle`]: a file that a program has open.

use crate::content::{Content, key};
use crate::inodes::{Inode, Place};
use crate::plain::Passed;
use crate::stamp::Stamp;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes that are read ahead of a program that reads on, at the least and at the most.
const AHEAD: (u64, u64) = (128 << 10, 1 << 20);

/// A file that a program has open.
#[derive(Debug)]
pub struct Handle {
    pub inode: Arc<Inode>,
    /// How it was opened, without what concerns only the opening.
    pub flags: OFlags,
    /// The source's file; `None` if it was opened while the source was gone, or is [`kept`](Self::kept).
    pub file: Mutex<Option<Arc<File>>>,
    /// It was opened without the source's file.
    pub kept: Option<Kept>,
    /// The kernel may read this by itself.
    pub passed: Option<Passed>,
    /// Another descriptor has taken the place of one through which something may have been written: it cannot say what became of that.
    unsure: AtomicBool,
    ahead: Mutex<Ahead>,
}

/// A file that was opened for what is kept of it.
#[derive(Debug)]
pub struct Kept {
    pub place: Place,
    /// Its bytes are told without the source's file only as long as they are those of this stamp.
    pub stamp: Stamp,
}

/// Whether a program reads on where it was.
#[derive(Debug, Default)]
struct Ahead {
    next: u64,
    window: u64,
}

impl Handle {
    pub fn new(
        inode: &Arc<Inode>,
        flags: OFlags,
        file: Option<File>,
        kept: Option<Kept>,
        passed: Option<Passed>,
    ) -> Arc<Self> {
        let file = Mutex::new(file.map(Arc::new));
        let (unsure, ahead) = (AtomicBool::new(false), Mutex::default());
        let handle = Arc::new(Self { inode: Arc::clone(inode), flags, file, kept, passed, unsure, ahead });
        inode.opened(&handle);
        if let Some(passed) = &handle.passed {
            passed.plain.opened(&handle);
        }
        handle
    }

    /// Its descriptor is another one from now on.
    pub fn replaced(&self) {
        // Relaxed, here and below: whoever wrote before knows of its own write.
        let writes = self.flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        self.unsure.fetch_or(writes, Ordering::Relaxed);
    }

    /// Whether it is not known what became of what was written before. Says so once.
    pub fn is_unsure(&self) -> bool {
        self.unsure.swap(false, Ordering::Relaxed)
    }

    /// Of one that was opened for what was kept: whether these are the bytes that are kept under its name.
    pub fn is_of(&self, content: &Content) -> bool {
        let path = self.kept.as_ref().and_then(|kept| kept.place.path());
        path.is_some_and(|path| content.object.key() == key(&path))
    }

    pub fn appends(&self) -> bool {
        self.flags.contains(OFlags::APPEND)
    }

    /// How many bytes behind those that are read now are worth having as well.
    pub fn ahead(&self, offset: u64, size: u64) -> u64 {
        let mut ahead = self.ahead.lock();
        // The kernel's own readahead may ask for several pieces at once, which arrive in any order.
        let near = ahead.next.abs_diff(offset) <= 2 * size.max(AHEAD.0);
        let on = ahead.next != 0 && near;
        ahead.window = if on { (ahead.window * 2).clamp(AHEAD.0, AHEAD.1) } else { 0 };
        ahead.next = if on { ahead.next.max(offset + size) } else { offset + size };
        ahead.window
    }
}

/// Things by number.
#[derive(Debug)]
pub struct Numbered<T> {
    last: AtomicU64,
    all: Mutex<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { last: AtomicU64::new(0), all: Mutex::default() }
    }
}

impl<T> Numbered<T> {
    pub fn add(&self, thing: Arc<T>) -> u64 {
        // Relaxed: numbers are to differ, no more.
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.all.lock().insert(number, thing);
        number
    }

    pub fn get(&self, number: u64) -> Option<Arc<T>> {
        self.all.lock().get(&number).cloned()
    }

    pub fn remove(&self, number: u64) -> Option<Arc<T>> {
        self.all.lock().remove(&number)
    }
}
