//! [`Notices`]: what the kernel is told unasked, which is to forget what it has of an inode's bytes or names.
//!
//! A thread of its own tells it, since the kernel may be waiting for what is just being answered.

use crate::inodes::Inode;
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Instant;

/// What is to be told.
#[derive(Debug)]
enum Notice {
    /// At once.
    Stale(u64),
    /// Names, at that moment.
    Names(Instant, Weak<Inode>),
}

/// To whom they are given.
#[derive(Debug)]
pub struct Notices(Mutex<Sender<Notice>>);

/// Who tells them.
#[derive(Debug)]
pub struct Teller(Receiver<Notice>);

/// One to give notices to, and one who tells them.
pub fn notices() -> (Notices, Teller) {
    let (give, take) = channel();
    (Notices(Mutex::new(give)), Teller(take))
}

impl Notices {
    /// The kernel's pages of an inode are out of date though it cannot tell.
    pub fn stale(&self, node: u64) {
        self.give(Notice::Stale(node));
    }

    /// The kernel is about to be told names of a directory, and keeps them as long as the directory has the times that it has. It is to forget them at `due`: with names its attributes come along, and without it would ask for each of
    /// these by itself; and there are directories whose times do not change with their names. To be given with each answer, the last of which says that these were all: before that the kernel uses none, and what it keeps of answers before
    /// is then dropped by whichever notice comes next.
    pub fn names(&self, dir: &Arc<Inode>, due: Instant) {
        let mut forgotten = dir.forgotten.lock();
        if forgotten.is_none_or(|earlier| due < earlier) {
            *forgotten = Some(due);
            self.give(Notice::Names(due, Arc::downgrade(dir)));
        }
    }

    fn give(&self, notice: Notice) {
        // Nobody listens any more when it has been unmounted.
        let _ = self.0.lock().send(notice);
    }
}

impl Teller {
    /// Tells the kernel until nobody gives notices any more.
    pub fn tell(self, notifier: &Notifier) {
        // One that the kernel has forgotten has no pages.
        let forget = |node| drop(notifier.inval_inode(INodeNo(node), 0, 0));
        // By when they fall due; numbered, since several may at once.
        let mut later: BTreeMap<(Instant, u64), Weak<Inode>> = BTreeMap::new();
        for number in 0.. {
            let due =
                later.first_key_value().map(|((due, _), _)| due.saturating_duration_since(Instant::now()));
            let next = match due {
                Some(due) => self.0.recv_timeout(due),
                None => self.0.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(Notice::Stale(node)) => forget(node),
                Ok(Notice::Names(due, dir)) => drop(later.insert((due, number), dir)),
                Err(RecvTimeoutError::Timeout) => {
                    let first = later.pop_first();
                    if let Some(((due, _), dir)) = first.and_then(|(key, dir)| Some((key, dir.upgrade()?))) {
                        // Before the kernel is told: what it is told of it from now on is another notice's.
                        dir.forgotten.lock().take_if(|next| *next == due);
                        forget(dir.node);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}
