//! [`Borrower`]: the side of who has no room of its own.

use super::LoanError;
use super::wire::{self, BACK, BORROW, HELLO, SPARE};
use crate::extents::Extent;
use parking_lot::Mutex;
use rustix::net::connect;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use vswap_sys::scm;

/// Segments that are asked for at once: the lender may have to commit for them.
const AT_ONCE: u32 = 4;
/// An answer is waited for so long. It may come later.
const PATIENCE: Duration = Duration::from_secs(1);
/// A lender that has stopped reads nothing, so that soon nothing more can be sent: for so long that is waited for.
const FULL: Duration = Duration::from_millis(20);
/// What could be had is asked again after so long.
const FRESH: Duration = Duration::from_millis(100);

/// A connection to a lender.
#[derive(Debug)]
pub(super) struct Borrower(Mutex<Line>);

#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    /// Segments of the whole file.
    segments: u32,
    /// What is ours.
    borrowed: BTreeSet<u32>,
    /// Of that, where nothing of ours is.
    unused: Vec<Extent>,
    /// What more could be had, and when that was said.
    spare: (u32, Option<Instant>),
    /// What was asked and is not answered yet.
    asked: Option<u32>,
    /// Nothing more is to be had. The socket stays open: what was lent is ours for as long as it is.
    lost: bool,
}

impl Borrower {
    /// Gives also the file, and how many segments it has in all.
    pub(super) fn connect(dir: &Path) -> Result<(Self, OwnedFd, u32), LoanError> {
        let nobody = |source| LoanError::Nobody { dir: dir.to_owned(), source };
        let socket = || -> io::Result<OwnedFd> {
            let (socket, address, _opened) = wire::address(dir)?;
            set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
            set_socket_timeout(&socket, Timeout::Send, Some(FULL))?;
            connect(&socket, &address)?;
            Ok(socket)
        };
        let socket = socket().map_err(nobody)?;
        // Whoever it is learns where our pages are, and could change them.
        if !wire::is_trusted(&socket) {
            return Err(LoanError::Stranger { dir: dir.to_owned() });
        }
        let hello = wire::send(&socket, &HELLO, None).and_then(|()| wire::receive(&socket));
        match hello.map_err(nobody)? {
            None => Err(LoanError::Refused { dir: dir.to_owned() }),
            Some((said, Some(file))) if said.len() == 3 && said[..2] == HELLO => {
                let (borrowed, unused) = (BTreeSet::new(), Vec::new());
                let (spare, asked, lost, segments) = ((0, None), None, false, said[2]);
                let line = Line { socket, segments, borrowed, unused, spare, asked, lost };
                Ok((Self(Mutex::new(line)), file, segments))
            }
            Some((said, _)) => {
                Err(LoanError::Foreign { dir: dir.to_owned(), what: format!("it said {said:x?}") })
            }
        }
    }

    /// A segment to write to.
    ///
    /// # Errors
    /// `StorageFull` when the lender has none that it need not keep, or does not say so in time; `NotConnected` when it is gone.
    pub(super) fn borrow_one(&self) -> io::Result<Extent> {
        let mut line = self.0.lock();
        if line.unused.is_empty() {
            line.hear_late()?;
        }
        if line.unused.is_empty() {
            line.ask(&[BORROW, AT_ONCE])?;
        }
        line.unused.pop().ok_or_else(|| io::ErrorKind::StorageFull.into())
    }

    /// How many more segments could be written to, as things stood a moment ago. `None` while somebody is just borrowing.
    pub(super) fn spare(&self) -> Option<u32> {
        let mut line = self.0.try_lock()?;
        if line.spare.1.is_none_or(|when| when.elapsed() >= FRESH) {
            let said = line.ask(&[SPARE]);
            if said.is_err() && line.lost {
                line.spare.0 = 0;
            }
        }
        Some(line.spare.0.saturating_add(line.unused.len() as u32))
    }

    /// A segment to which nobody writes, and which nobody reads any more.
    pub(super) fn give_back(&self, extent: Extent) {
        let mut line = self.0.lock();
        if line.lost || wire::send(&line.socket, &[BACK, extent.0], None).is_err() {
            // It stays ours, for another time.
            line.unused.push(extent);
        } else {
            line.borrowed.remove(&extent.0);
        }
    }
}

impl Line {
    /// Asks, and waits for the answer for a while. One question at a time: while one is not answered, no other is asked.
    fn ask(&mut self, question: &[u32]) -> io::Result<()> {
        self.hear_late()?;
        match wire::send(&self.socket, question, None) {
            Ok(()) => self.asked = question.first().copied(),
            Err(error) if late(&error) => return Err(io::ErrorKind::StorageFull.into()),
            Err(_) => return Err(self.lose()),
        }
        if self.hear()? { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    /// Takes the answer in that did not come in time, if there was such a question.
    fn hear_late(&mut self) -> io::Result<()> {
        if self.lost {
            return Err(gone());
        }
        if self.asked.is_some() && !(scm::wait_readable(self.socket.as_fd(), 0) && self.hear()?) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Takes an answer in. Tells whether there was one in time.
    fn hear(&mut self) -> io::Result<bool> {
        let said = match wire::receive(&self.socket) {
            Ok(Some((said, _))) => said,
            Err(error) if late(&error) => return Ok(false),
            _ => return Err(self.lose()),
        };
        let asked = self.asked.take();
        match &said[..] {
            [BORROW, numbers @ ..] if asked == Some(BORROW) => {
                for number in numbers {
                    // The first is the file's own.
                    if *number == 0 || *number >= self.segments || !self.borrowed.insert(*number) {
                        return Err(self.lose());
                    }
                    self.unused.push(Extent(*number));
                }
                self.spare.0 = self.spare.0.saturating_sub(numbers.len() as u32);
            }
            [SPARE, more] if asked == Some(SPARE) => self.spare = (*more, Some(Instant::now())),
            _ => return Err(self.lose()),
        }
        Ok(true)
    }

    fn lose(&mut self) -> io::Error {
        self.lost = true;
        gone()
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "who lends the room is gone")
}

fn late(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
