//! [`Lending`]: the side of who has the room.

use super::wire::{self, BACK, BORROW, HELLO, MOST, SPARE};
use crate::extents::Extent;
use rustix::fs::{AtFlags, Mode};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{Shutdown, SocketFlags, accept_with, bind, listen, shutdown};
use rustix::process::geteuid;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Borrowers at once; more are turned away.
const BORROWERS: usize = 64;
/// What a thread for a borrower may use of stack: it may have to make room.
const STACK: usize = 1 << 20;

/// Who has room that others may use meanwhile.
pub trait Lender: Send + Sync + 'static {
    /// Up to `most` segments of its file that it does not need for the time being. It may make room for them first.
    fn lend_segments(&self, most: u32) -> Vec<Extent>;

    /// These are its own again.
    fn take_back(&self, lent: &[Extent]);

    /// How many it could lend, as things stand.
    fn spare(&self) -> u32;
}

/// Lends room, until it is dropped: then nobody new comes, and who is there may keep what it has.
#[derive(Debug)]
pub struct Lending {
    dir: PathBuf,
    listener: Arc<OwnedFd>,
    ended: Arc<AtomicBool>,
    /// Whose it is. A forked child that drops its copy must not take the socket away.
    process: u32,
}

/// What a borrower is told at first.
struct Terms {
    file: OwnedFd,
    segments: u32,
}

impl Lending {
    /// Lends segments of `file`, which has so many, to whoever of this user (and root) asks at a socket in `dir`. Nobody else does so there.
    ///
    /// # Errors
    /// When no socket can be made there, or no thread.
    pub fn start(dir: &Path, (file, segments): (OwnedFd, u32), lender: &Arc<dyn Lender>) -> io::Result<Self> {
        // Of one that was killed: who has the store is the only one who lends it.
        wire::remove(dir)?;
        let (listener, address, opened) = wire::address(dir)?;
        bind(&listener, &address)?;
        rustix::fs::chmodat(&opened, wire::NAME, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        listen(&listener, 16)?;
        let listener = Arc::new(listener);
        let (ended, process) = (Arc::default(), std::process::id());
        // From here on a failure takes the socket away again.
        let lending = Self { dir: dir.to_owned(), listener, ended, process };
        let (terms, lender) = (Arc::new(Terms { file, segments }), Arc::downgrade(lender));
        let (listener, ended) = (Arc::clone(&lending.listener), Arc::clone(&lending.ended));
        let thread = std::thread::Builder::new().name("lending".into()).stack_size(STACK);
        thread.spawn(move || accept(&listener, &ended, &terms, &lender))?;
        Ok(lending)
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        let _ = wire::remove(&self.dir);
        self.ended.store(true, Ordering::Release);
        // Whoever waits for a borrower wakes up.
        let _ = shutdown(&*self.listener, Shutdown::Both);
    }
}

fn accept(listener: &OwnedFd, ended: &AtomicBool, terms: &Arc<Terms>, lender: &Weak<dyn Lender>) {
    let borrowers = Arc::new(AtomicUsize::new(0));
    while !ended.load(Ordering::Acquire) {
        let Ok(borrower) = accept_with(listener, SocketFlags::CLOEXEC) else {
            // No descriptors, most likely.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        // Relaxed: a count.
        if borrowers.load(Ordering::Relaxed) >= BORROWERS {
            continue;
        }
        borrowers.fetch_add(1, Ordering::Relaxed);
        let (terms, lender, done) = (Arc::clone(terms), Weak::clone(lender), Arc::clone(&borrowers));
        let thread = std::thread::Builder::new().name("lending".into()).stack_size(STACK);
        let started = thread.spawn(move || {
            attend(&borrower, &terms, &lender);
            done.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            borrowers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn is_ours(borrower: &OwnedFd) -> bool {
    socket_peercred(borrower).is_ok_and(|peer| peer.uid == geteuid() || peer.uid.is_root())
}

fn attend(borrower: &OwnedFd, terms: &Terms, lender: &Weak<dyn Lender>) {
    if !is_ours(borrower) || !matches!(wire::receive(borrower), Ok(Some((said, _))) if said == HELLO) {
        return;
    }
    if wire::send(borrower, &[HELLO[0], HELLO[1], terms.segments], Some(&terms.file)).is_err() {
        return;
    }
    let mut lent = BTreeSet::new();
    // Only when its end is closed nobody writes any more to what it has.
    while let Some(said) = next(borrower) {
        let Some(lender) = lender.upgrade() else { return };
        let answer = answer(&said, &*lender, &mut lent);
        drop(lender);
        let _ = answer.map(|answer| wire::send(borrower, &answer, None));
    }
    if let Some(lender) = lender.upgrade() {
        lender.take_back(&lent.into_iter().map(Extent).collect::<Vec<_>>());
    }
}

/// What a borrower says next; `None` when its end is closed.
fn next(borrower: &OwnedFd) -> Option<Vec<u32>> {
    loop {
        match wire::receive(borrower) {
            Ok(received) => return received.map(|(said, _)| said),
            // Closed, with an answer unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// `None` is no answer.
fn answer(said: &[u32], lender: &dyn Lender, lent: &mut BTreeSet<u32>) -> Option<Vec<u32>> {
    match said {
        [BORROW, most] => {
            let more = lender.lend_segments((*most).min(MOST as u32));
            lent.extend(more.iter().map(|extent| extent.0));
            Some(std::iter::once(BORROW).chain(more.iter().map(|extent| extent.0)).collect())
        }
        [SPARE] => Some(vec![SPARE, lender.spare()]),
        [BACK, numbers @ ..] => {
            let back: Vec<_> =
                numbers.iter().filter(|number| lent.remove(number)).copied().map(Extent).collect();
            lender.take_back(&back);
            None
        }
        _ => None,
    }
}
