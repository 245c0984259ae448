//! [`Borrower`]: the side of who has no room of its own.

use super::LoanError;
use super::wire::{self, BACK, BORROW, HELLO, SPARE};
use crate::extents::Extent;
use parking_lot::Mutex;
use rustix::net::connect;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Segments that are asked for at once: the lender may have to commit for them.
const AT_ONCE: u32 = 4;
/// A lender that says nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a lender.
#[derive(Debug)]
pub(super) struct Borrower {
    line: Mutex<Line>,
    /// What could be had when that was asked last.
    spare: AtomicU32,
}

#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    /// Borrowed, and nothing written there yet.
    unused: Vec<Extent>,
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
            set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
            connect(&socket, &address)?;
            Ok(socket)
        };
        let socket = socket().map_err(nobody)?;
        let hello = wire::send(&socket, &HELLO, None).and_then(|()| wire::receive(&socket));
        let hello = hello.map_err(nobody)?.ok_or_else(|| nobody(io::ErrorKind::PermissionDenied.into()))?;
        match hello {
            (said, Some(file)) if said.len() == 3 && said[..2] == HELLO => {
                let line = Mutex::new(Line { socket, unused: Vec::new(), lost: false });
                Ok((Self { line, spare: AtomicU32::new(0) }, file, said[2]))
            }
            (said, _) => Err(LoanError::Foreign { dir: dir.to_owned(), what: format!("it said {said:x?}") }),
        }
    }

    /// A segment to write to.
    ///
    /// # Errors
    /// `StorageFull` when the lender has none that it need not keep; `NotConnected` when it is gone.
    pub(super) fn borrow_one(&self) -> io::Result<Extent> {
        let mut line = self.line.lock();
        if line.unused.is_empty() {
            let lent = line.ask(&[BORROW, AT_ONCE])?;
            line.unused = lent.into_iter().map(Extent).collect();
        }
        line.unused.pop().ok_or_else(|| io::ErrorKind::StorageFull.into())
    }

    /// How many more segments could be written to, as things stand. Does not wait for one who is just borrowing.
    pub(super) fn spare(&self) -> u32 {
        if let Some(mut line) = self.line.try_lock() {
            let more = line.ask(&[SPARE]).ok().and_then(|said| said.first().copied()).unwrap_or(0);
            // Relaxed, here and below: a number that is old when it is told.
            self.spare.store(more.saturating_add(line.unused.len() as u32), Ordering::Relaxed);
        }
        self.spare.load(Ordering::Relaxed)
    }

    /// A segment to which nobody writes, and which nobody reads any more.
    pub(super) fn give_back(&self, extent: Extent) {
        let mut line = self.line.lock();
        if !line.lost {
            line.lost = wire::send(&line.socket, &[BACK, extent.0], None).is_err();
        }
    }
}

impl Line {
    /// The answer, without its first number. An answer that does not come in time would be taken for the next one's, so there is no next one.
    fn ask(&mut self, question: &[u32]) -> io::Result<Vec<u32>> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "who lends the room is gone");
        if self.lost {
            return Err(gone());
        }
        let answer = wire::send(&self.socket, question, None).and_then(|()| wire::receive(&self.socket));
        match answer {
            Ok(Some((mut said, _))) if said.first() == question.first() => {
                said.remove(0);
                Ok(said)
            }
            _ => {
                self.lost = true;
                Err(gone())
            }
        }
    }
}
