//! [`Loan`]: a tier in the room of a store of objects, which somebody has open and lends.
//!
//! Who has the store gives the file itself, and then segments of it, a few at a time, for as long as the connection lasts: a socket in the store's directory, answered to the
//! same user and root only. So reads and writes are the borrower's own, and nobody waits for the lender but who writes where there was nothing before. What is lent is on no list of
//! the store; after a crash of the lender's machine it is free.
//!
//! # Invariants
//! - A segment is one borrower's from the answer that lends it until it is given back, or the borrower's end of the connection is closed and all direct writes to the file that were under way then have ended.
//! - The file is locked, and that lock is the file's as it was opened: while a borrower has it, nobody opens the store anew, also if the lender is gone.
//! - A borrower that has lost the lender keeps what it has, and gets no more.

mod borrower;
mod lending;
mod wire;

pub use lending::{Lender, Lending};
pub use wire::is_lent;

use crate::extents::Extent;
use crate::storage::{RoomOf, SharedRoom, Storage, TierKind, WriteQueue};
use crate::{AlignedBuf, SEGMENT_BYTES, WriteDone};
use borrower::Borrower;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use vswap_sys::direct::{DirectFile, DirectWriter};

/// Free segments that are kept, for the next write.
const KEEPS_FREE: usize = 4;
const SEGMENT: u64 = SEGMENT_BYTES as u64;

/// Why there is no loan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoanError {
    /// Nobody answers.
    #[error(
        "nobody lends room of the store {}: {source}; it has to be open, by `vswap cache mount` or by a program that lends it",
        dir.display()
    )]
    Nobody {
        /// The store's directory.
        dir: PathBuf,
        /// What the socket said.
        source: io::Error,
    },
    /// Another user answers.
    #[error("what lends room of the store {} is another user's: pages would be in its hands", dir.display())]
    Stranger {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The lender hangs up.
    #[error(
        "who lends room of the store {} has hung up: it answers its own user and root only, and 64 at once",
        dir.display()
    )]
    Refused {
        /// The store's directory.
        dir: PathBuf,
    },
    /// What answers is something else, or of another version.
    #[error("what lends room of the store {} speaks another language: {what}", dir.display())]
    Foreign {
        /// The store's directory.
        dir: PathBuf,
        /// What was wrong.
        what: String,
    },
}

/// A tier in the room of a store. It grows as it is written to, as far as the store has room that it need not keep.
#[derive(Debug)]
pub struct Loan {
    dir: PathBuf,
    file: Arc<DirectFile>,
    of: RoomOf,
    lender: Borrower,
    /// Which of the file's segments each of ours is, plus one; 0 is none yet.
    places: Box<[AtomicU32]>,
}

impl Loan {
    /// Asks whoever has the store in `dir` open for room: `most` bytes of it, or as many as there are.
    ///
    /// # Errors
    /// When nobody lends any, or does not say so as is known.
    pub fn of_store(dir: &Path, most: Option<u64>) -> Result<Self, LoanError> {
        let (lender, file, segments) = Borrower::connect(dir)?;
        let foreign = |error: io::Error| LoanError::Foreign { dir: dir.to_owned(), what: error.to_string() };
        let file = DirectFile::received(file).map_err(foreign)?;
        let found = file.as_fd().try_clone_to_owned().map(std::fs::File::from);
        let found = found.and_then(|file| file.metadata()).map_err(foreign)?;
        let of = RoomOf::File(found.dev(), found.ino());
        let ours = u64::from(segments).min(most.unwrap_or(u64::MAX) / SEGMENT);
        let places = std::iter::repeat_with(|| AtomicU32::new(0)).take(ours as usize).collect();
        Ok(Self { dir: dir.to_owned(), file: Arc::new(file), of, lender, places })
    }

    /// Where a range of ours is in the file, if there is anything; it lies in one segment.
    fn find(&self, offset: u64) -> io::Result<Option<u64>> {
        let place = self.places.get((offset / SEGMENT) as usize).ok_or(io::ErrorKind::InvalidInput)?;
        // Relaxed, here and below: a number; who wants to know it has heard of it from who has written there.
        let found = place.load(Ordering::Relaxed).checked_sub(1).map(Extent);
        Ok(found.map(|extent| extent.offset() + offset % SEGMENT))
    }

    /// As [`find`](Self::find), for `len` bytes that are to be written.
    fn find_or_borrow(&self, offset: u64, len: usize) -> io::Result<u64> {
        if offset % SEGMENT + len as u64 > SEGMENT {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if let Some(found) = self.find(offset)? {
            return Ok(found);
        }
        // One extent has one writer at a time.
        let borrowed = self.lender.borrow_one()?;
        self.places[(offset / SEGMENT) as usize].store(borrowed.0 + 1, Ordering::Relaxed);
        Ok(borrowed.offset() + offset % SEGMENT)
    }
}

impl Storage for Loan {
    fn kind(&self) -> TierKind {
        TierKind::Store
    }

    fn capacity(&self) -> u64 {
        self.places.len() as u64 * SEGMENT
    }

    fn room(&self) -> Option<SharedRoom> {
        // While somebody borrows, what was known counts.
        Some(SharedRoom { bytes: u64::from(self.lender.spare()?) * SEGMENT, of: self.of })
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let len = into.len().min((SEGMENT - offset % SEGMENT) as usize);
        self.find(offset)?.map_or(Ok(0), |at| self.file.read_at(at, &mut into[..len]))
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let at = self.find_or_borrow(offset, from.len())?;
        self.file.write_at(at, from)
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.dir)
    }

    fn keeps_free(&self) -> usize {
        KEEPS_FREE
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        if !offset.is_multiple_of(SEGMENT) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (first, many) = ((offset / SEGMENT) as usize, (len / SEGMENT) as usize);
        for place in self.places.iter().skip(first).take(many) {
            if let Some(number) = place.swap(0, Ordering::Relaxed).checked_sub(1) {
                self.lender.give_back(Extent(number));
            }
        }
        Ok(())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        let queue = DirectWriter::new(Arc::clone(&self.file), depth);
        Box::new(LoanQueue { queue, loan: self })
    }
}

/// Writes in flight to borrowed segments.
struct LoanQueue {
    // First: it waits for its writes when it is dropped, and only then may the connection end.
    queue: DirectWriter,
    loan: Arc<Loan>,
}

impl WriteQueue for LoanQueue {
    fn submit(
        &mut self,
        offset: u64,
        buf: AlignedBuf,
        len: usize,
        tag: u64,
    ) -> Result<(), (io::Error, AlignedBuf)> {
        match self.loan.find_or_borrow(offset, len) {
            Ok(at) => self.queue.submit(at, buf, len, tag),
            Err(error) => Err((error, buf)),
        }
    }

    fn is_full(&self) -> bool {
        self.queue.is_full()
    }

    fn wait(&mut self) -> io::Result<Option<WriteDone>> {
        self.queue.wait()
    }
}
