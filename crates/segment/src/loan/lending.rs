//! [`Lending`]: the side of who has the room.

use super::wire::{self, BACK, BORROW, HELLO, MOST, SPARE};
use crate::SEGMENT_BYTES;
use crate::extents::Extent;
use rustix::fs::{AtFlags, FileType, Mode, Stat, chmodat, statat, unlinkat};
use rustix::net::{Shutdown, SocketFlags, accept_with, bind, listen, shutdown};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use vswap_sys::direct::DirectFile;

/// Borrowers at once; more are turned away.
const BORROWERS: usize = 64;
/// What a thread for a borrower may use of stack: it may have to make room.
const STACK: usize = 1 << 20;

/// Who has room that others may use meanwhile.
pub trait Lender: Send + Sync + 'static {
    /// Up to `most` segments of its file that it does not need for the time being. It may make room for them first.
    fn lend_segments(&self, most: u32) -> Vec<Extent>;

    /// A borrower has had so many and may want as many more soon: this is the time to make room for them.
    fn prepare(&self, most: u32);

    /// These are its own again.
    fn take_back(&self, lent: &[Extent]);

    /// How many it could lend, as things stand.
    fn spare(&self) -> u32;
}

/// Lends room, until it is dropped: then nobody new comes. Who has borrowed some is served as long as the lender is there, and keeps what it has until it ends.
#[derive(Debug)]
pub struct Lending {
    /// The directory of the socket, which it is known by.
    dir: OwnedFd,
    socket: (u64, u64),
    listener: Arc<OwnedFd>,
    ended: Arc<AtomicBool>,
    borrowers: Arc<AtomicUsize>,
    /// Whose it is. A forked child that drops its copy must not take the socket away.
    process: u32,
}

/// What a borrower is told at first.
struct Terms {
    file: Arc<DirectFile>,
    segments: u32,
}

fn found(dir: &OwnedFd) -> io::Result<Option<Stat>> {
    match statat(dir, wire::NAME, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error == rustix::io::Errno::NOENT => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Lending {
    /// Lends segments of `file`, which has so many, to whoever of this user (and root) asks at a socket in `dir`. Nobody else does so there.
    ///
    /// Borrowers are trusted: they have the whole file.
    ///
    /// # Errors
    /// When no socket can be made there, or no thread.
    pub fn start(
        dir: &Path,
        (file, segments): (Arc<DirectFile>, u32),
        lender: &Arc<dyn Lender>,
    ) -> io::Result<Self> {
        let (listener, address, opened) = wire::address(dir)?;
        // Of one that was killed: who has the store is the only one who lends it.
        if found(&opened)?.is_some_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Socket) {
            unlinkat(&opened, wire::NAME, AtFlags::empty())?;
        }
        bind(&listener, &address)?;
        chmodat(&opened, wire::NAME, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        let made = found(&opened)?.ok_or(io::ErrorKind::NotFound)?;
        listen(&listener, 16)?;
        // From here on a failure takes the socket away again.
        let lending = Self {
            dir: opened,
            socket: (made.st_dev, made.st_ino),
            listener: Arc::new(listener),
            ended: Arc::default(),
            borrowers: Arc::default(),
            process: std::process::id(),
        };
        let (terms, lender) = (Arc::new(Terms { file, segments }), Arc::downgrade(lender));
        let (listener, ended) = (Arc::clone(&lending.listener), Arc::clone(&lending.ended));
        let borrowers = Arc::clone(&lending.borrowers);
        thread().spawn(move || accept(&listener, &ended, &borrowers, &terms, &lender))?;
        Ok(lending)
    }

    /// How many are connected: while there are any, nobody else opens the file.
    #[must_use]
    pub fn borrowers(&self) -> usize {
        // Relaxed: a count.
        self.borrowers.load(Ordering::Relaxed)
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        // Somebody else may lend there by now.
        if let Ok(Some(found)) = found(&self.dir)
            && (found.st_dev, found.st_ino) == self.socket
        {
            let _ = unlinkat(&self.dir, wire::NAME, AtFlags::empty());
        }
        self.ended.store(true, Ordering::Release);
        // Whoever waits for a borrower wakes up.
        let _ = shutdown(&*self.listener, Shutdown::Both);
    }
}

fn thread() -> std::thread::Builder {
    std::thread::Builder::new().name("lending".into()).stack_size(STACK)
}

/// One of those who are counted.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn accept(
    listener: &OwnedFd,
    ended: &AtomicBool,
    borrowers: &Arc<AtomicUsize>,
    terms: &Arc<Terms>,
    lender: &Weak<dyn Lender>,
) {
    while !ended.load(Ordering::Acquire) {
        let Ok(borrower) = accept_with(listener, SocketFlags::CLOEXEC) else {
            // No descriptors, most likely.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let many = borrowers.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(borrowers));
        if many >= BORROWERS || !wire::is_trusted(&borrower) {
            continue;
        }
        let (terms, lender) = (Arc::clone(terms), Weak::clone(lender));
        let attending = move || {
            let _counted = counted;
            attend(&borrower, &terms, lender);
        };
        // Without a thread it is hung up on.
        let _ = thread().spawn(attending);
    }
}

/// What a borrower has, until its end is closed.
struct Lent<'t> {
    lender: Weak<dyn Lender>,
    terms: &'t Terms,
    numbers: BTreeSet<u32>,
}

impl Drop for Lent<'_> {
    /// The kernel closes a process's descriptors when it ends, while what it has given to io_uring may be on its way still. To punch a hole waits for all direct writes to the file that
    /// were begun, in file systems that are known for it; where that cannot be done, nobody writes there until the file is opened anew, which these writes keep it from.
    fn drop(&mut self) {
        let Some(lender) = self.lender.upgrade() else { return };
        // A panic of the lender's own: the borrower is there still.
        if std::thread::panicking() || !self.terms.waits() {
            return;
        }
        for run in runs(&self.numbers) {
            let (at, many) = (Extent(run.start).offset(), u64::from(run.end - run.start));
            if self.terms.file.punch(at, many * SEGMENT_BYTES as u64).is_ok() {
                lender.take_back(&run.map(Extent).collect::<Vec<_>>());
            }
        }
    }
}

impl Terms {
    /// Whether to punch a hole in the file waits for writes to it (`inode_dio_wait` in ext4, xfs and f2fs, ordered extents in btrfs; an overlay is one of these), or they end with their callers.
    fn waits(&self) -> bool {
        const KNOWN: [u64; 5] = [0xef53, 0x5846_5342, 0xf2f5_2010, 0x9123_683e, 0x794c_7630];
        let of = || rustix::fs::fstatfs(self.file.as_fd()).map(|found| found.f_type as u64);
        !self.file.is_direct() || of().is_ok_and(|of| KNOWN.contains(&of))
    }
}

/// Numbers that follow each other are one run.
fn runs(numbers: &BTreeSet<u32>) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == *number => run.end += 1,
            _ => runs.push(*number..*number + 1),
        }
    }
    runs
}

fn attend(borrower: &OwnedFd, terms: &Terms, lender: Weak<dyn Lender>) {
    if !matches!(wire::receive(borrower), Ok(Some((said, _))) if said == HELLO) {
        return;
    }
    if wire::send(borrower, &[HELLO[0], HELLO[1], terms.segments], Some(terms.file.as_fd())).is_err() {
        return;
    }
    let mut lent = Lent { lender, terms, numbers: BTreeSet::new() };
    // Only when its end is closed nobody writes any more to what it has.
    while let Some(said) = next(borrower) {
        let Some(lender) = lent.lender.upgrade() else { return };
        let Some(answer) = answer(&said, &*lender, &mut lent.numbers) else { continue };
        let sent = wire::send(borrower, &answer, None);
        if sent.is_ok() && answer[0] == BORROW {
            // While it writes there.
            lender.prepare(answer.len() as u32 - 1);
        }
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
