//! [`Notices`]: what the kernel is told unasked, which is to forget what it has of an inode's bytes or names.
//!
//! Threads of their own tell it, since the kernel may be waiting for what is just being answered; one for bytes and one for names, since a page that is being read keeps the first.

use crate::inodes::Inode;
use crate::view::View;
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long a notice waits for the end of a listing.
const A_LITTLE: Duration = Duration::from_millis(20);
/// A listing with which nobody has gone on for so long has been given up.
const ABANDONED: Duration = Duration::from_secs(2);

/// To whom notices are given.
#[derive(Debug)]
pub struct Notices {
    stale: Mutex<Sender<u64>>,
    names: Mutex<Sender<(Instant, u64)>>,
}

/// Inodes of which the kernel is to forget the bytes.
#[derive(Debug)]
pub struct StaleTeller(Receiver<u64>);

/// Directories of which it is to forget the names, and when.
#[derive(Debug)]
pub struct NamesTeller(Receiver<(Instant, u64)>);

/// What the kernel has of a directory's names.
#[derive(Debug, Default)]
pub struct Told {
    /// Until when the oldest of them are good.
    good: Option<Instant>,
    /// When it is to forget them.
    due: Option<Instant>,
    /// Somebody was told some, and there are more.
    going_on: Option<Instant>,
}

/// One to give notices to, and who tells them.
pub fn notices() -> (Notices, StaleTeller, NamesTeller) {
    let ((stale, of_stale), (names, of_names)) = (channel(), channel());
    (
        Notices { stale: Mutex::new(stale), names: Mutex::new(names) },
        StaleTeller(of_stale),
        NamesTeller(of_names),
    )
}

impl Notices {
    /// The kernel's pages of an inode are out of date though it cannot tell.
    pub fn stale(&self, node: u64) {
        // Nobody listens any more when it has been unmounted.
        let _ = self.stale.lock().send(node);
    }

    /// The kernel is about to be told names of a directory that are good until then, and keeps them as long as the directory has the times that it has. It is to forget them: with names its attributes come along, and without it would ask for each of
    /// these by itself; and there are directories whose times do not change with their names. `last`: these were all; before it has been told so, it uses none of what it keeps.
    pub fn names(&self, dir: &Inode, good: Instant, last: bool) {
        let mut told = dir.told.lock();
        told.going_on = if last { None } else { Some(Instant::now()) };
        let oldest = told.good.map_or(good, |oldest| oldest.min(good));
        told.good = Some(oldest);
        if last && told.due.is_none_or(|due| oldest < due) {
            told.due = Some(oldest);
            let _ = self.names.lock().send((oldest, dir.node));
        }
    }
}

/// One that the kernel has forgotten has nothing to be forgotten.
fn forget(notifier: &Notifier, node: u64) {
    let _ = notifier.inval_inode(INodeNo(node), 0, 0);
}

impl StaleTeller {
    /// Tells the kernel until nobody gives notices any more.
    pub fn tell(self, notifier: &Notifier) {
        self.0.into_iter().for_each(|node| forget(notifier, node));
    }
}

impl NamesTeller {
    /// As [`StaleTeller::tell`].
    pub fn tell(self, notifier: &Notifier, view: &Weak<View>) {
        // By when they fall due; numbered, since several may at once.
        let mut later: BTreeMap<(Instant, u64), (Instant, u64)> = BTreeMap::new();
        for number in 0.. {
            let due =
                later.first_key_value().map(|((due, _), _)| due.saturating_duration_since(Instant::now()));
            let next = match due {
                Some(due) => self.0.recv_timeout(due),
                None => self.0.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok((due, node)) => drop(later.insert((due, number), (due, node))),
                Err(RecvTimeoutError::Timeout) => {
                    let Some((_, (due, node))) = later.pop_first() else { continue };
                    if let Some(dir) = view.upgrade().and_then(|view| view.inodes.get(node)) {
                        let mut told = dir.told.lock();
                        if told.is_going_on() {
                            later.insert((Instant::now() + A_LITTLE, number), (due, node));
                            continue;
                        }
                        // Before the kernel is told: what it is told of it from now on is another notice's.
                        told.forget(due);
                    }
                    forget(notifier, node);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

impl Told {
    /// Whether the kernel may be keeping names of which more are to come. If it has to forget the first of them meanwhile, it keeps none of that directory from then on (`fuse_add_dirent_to_cache`).
    fn is_going_on(&self) -> bool {
        self.going_on.is_some_and(|last| last.elapsed() < ABANDONED)
    }

    /// The notice of that moment is about to be told.
    fn forget(&mut self, due: Instant) {
        if self.due == Some(due) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ABANDONED, Told};
    use std::time::Instant;

    #[test]
    fn a_notice_waits_for_a_listing_but_not_for_one_that_was_given_up() {
        let now = Instant::now();
        let mut told = Told { good: Some(now), due: Some(now), going_on: Some(now) };
        assert!(told.is_going_on());
        told.going_on = now.checked_sub(ABANDONED);
        assert!(!told.is_going_on());
        told.forget(now + ABANDONED);
        assert_eq!(told.due, Some(now), "another one's");
        told.forget(now);
        assert_eq!((told.due, told.good), (None, None));
    }
}
