//! Fetching what is missing: once, however many ask for it.
//!
//! Whoever finds bytes missing and wants them claims them as a *flight* before it asks for them elsewhere; who finds them claimed
//! waits for that flight. What arrives fills only bytes that are still missing, so that it never takes the place of something written meanwhile. A range that is
//! punched, cut off or given up while it is being fetched voids its flight: what arrives then is of before, and is thrown away.
//!
//! Lock order: the object's lock, then that of its flights. None is held while something is fetched.

use crate::error::{FetchError, ObjectError};
use crate::object::Object;
use crate::presence::common;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::ops::{Deref, Range};

/// Bytes that are fetched at once at most: others may fetch what follows at the same time.
pub(crate) const MOST: u64 = 1 << 20;

#[derive(Debug)]
struct Flight {
    number: u64,
    range: Range<u64>,
    void: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Board {
    flights: Vec<Flight>,
    last: u64,
}

/// What is being fetched of an object.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    board: Mutex<Board>,
    /// Threads that wait for a flight's end.
    landed: Condvar,
    /// Tasks that do.
    #[cfg(feature = "async")]
    landing: event_listener::Event,
}

/// What a look at the missing bytes says.
pub(crate) enum Claim<O: Deref<Target = Object>, W> {
    /// There are none.
    None,
    /// These are the caller's to fetch. Others fetch what is missing before them.
    Mine(Ticket<O>),
    /// Others fetch all that is missing; with what the caller did about that.
    Others(W),
}

/// A flight of the caller's. It ends with this, so that nobody waits for one who failed.
pub(crate) struct Ticket<O: Deref<Target = Object>> {
    object: O,
    number: u64,
    range: Range<u64>,
}

impl Board {
    /// A flight for the first of these bytes that nobody fetches.
    fn begin(&mut self, missing: Vec<Range<u64>>) -> Option<(u64, Range<u64>)> {
        for gap in missing {
            let mut start = gap.start;
            while start < gap.end {
                match self.flights.iter().find(|flight| flight.range.contains(&start)) {
                    Some(flight) => start = flight.range.end,
                    None => {
                        let next = self.flights.iter().map(|flight| flight.range.start);
                        let next = next.filter(|at| *at > start).min().unwrap_or(u64::MAX);
                        let range = start..gap.end.min(start + MOST).min(next);
                        self.last += 1;
                        let number = self.last;
                        self.flights.push(Flight { number, range: range.clone(), void: false });
                        return Some((number, range));
                    }
                }
            }
        }
        None
    }
}

impl Flights {
    /// What arrives of this range is out of date. With the object's lock held alone.
    pub(crate) fn void(&self, range: &Range<u64>) {
        for flight in &mut self.board.lock().flights {
            flight.void |= !common(&flight.range, range).is_empty();
        }
    }

    fn is_void(&self, number: u64) -> bool {
        self.board.lock().flights.iter().any(|flight| flight.number == number && flight.void)
    }

    /// Is woken when a flight ends, from now on.
    #[cfg(feature = "async")]
    pub(crate) fn listen(&self) -> event_listener::EventListener {
        self.landing.listen()
    }
}

impl<O: Deref<Target = Object>> Ticket<O> {
    /// Claims the first bytes of a range that are missing and that nobody fetches. If others fetch all that are, does what `wait` does, which has the board: no
    /// flight ends before it lets go of it.
    pub(crate) fn claim<W>(
        object: O,
        range: &Range<u64>,
        wait: impl FnOnce(&Flights, MutexGuard<'_, Board>) -> W,
    ) -> Claim<O, W> {
        let flights = object.flights();
        // Nobody fills and nobody claims between the two looks: the one is done with the object's lock alone, the other with the board's.
        let (mut board, missing) = object.look_at_missing(range, || flights.board.lock());
        if missing.is_empty() {
            return Claim::None;
        }
        let Some((number, range)) = board.begin(missing) else {
            return Claim::Others(wait(flights, board));
        };
        drop(board);
        Claim::Mine(Self { object, number, range })
    }

    /// The bytes that are to be fetched.
    pub(crate) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Writes those of its bytes that are still missing and lie before the end, unless they turn out to be out of date.
    pub(crate) fn fill(&self, bytes: &[u8]) -> Result<(), ObjectError> {
        let start = self.range.start;
        self.object.change_missing(
            self.range.clone(),
            |object| !object.flights().is_void(self.number),
            |part| &bytes[(part.start - start) as usize..(part.end - start) as usize],
        )
    }

    #[cfg(feature = "async")]
    pub(crate) fn object(&self) -> &O {
        &self.object
    }
}

impl<O: Deref<Target = Object>> Drop for Ticket<O> {
    fn drop(&mut self) {
        let flights = self.object.flights();
        flights.board.lock().flights.retain(|flight| flight.number != self.number);
        flights.landed.notify_all();
        #[cfg(feature = "async")]
        flights.landing.notify(usize::MAX);
    }
}

impl Object {
    /// Has `get` bring what is missing of a range before the object's end, at most 1 MiB at a time: it is given an offset and a buffer to fill. Bytes that somebody
    /// else is fetching are waited for instead; if that fails, this call tries itself. When it returns, every byte of the range has been there at
    /// some moment since it was called.
    ///
    /// `get` is called without a lock, and must not ask this object for bytes that it is to bring itself.
    ///
    /// # Errors
    /// What `get` says, or why what it brought could not be kept. What came before is there.
    pub fn fetch<E>(
        &self,
        range: Range<u64>,
        mut get: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), FetchError<E>> {
        let mut buf = Vec::new();
        // First whatever nobody else fetches, then what others did.
        for wait in [false, true] {
            let mut at = range.start;
            while at < range.end.min(self.len()) {
                let window = at..range.end.min(at.saturating_add(MOST));
                let landed = |flights: &Flights, mut board: MutexGuard<'_, Board>| {
                    if wait {
                        flights.landed.wait(&mut board);
                    }
                };
                let ticket = match Ticket::claim(self, &window, landed) {
                    Claim::Mine(ticket) => ticket,
                    Claim::Others(()) if wait => continue,
                    Claim::Others(()) | Claim::None => {
                        at = window.end;
                        continue;
                    }
                };
                let wanted = ticket.range();
                buf.clear();
                buf.resize((wanted.end - wanted.start) as usize, 0);
                get(wanted.start, &mut buf).map_err(FetchError::Source)?;
                ticket.fill(&buf)?;
                // What did not come, since it was out of date, is for the second time round.
                if !wait {
                    at = wanted.end;
                }
            }
        }
        Ok(())
    }

    /// Reads, and has `get` bring what is missing as [`Object::fetch`] does. Gives the bytes that lie before the object's end.
    ///
    /// # Errors
    /// As [`Object::fetch`] and [`Object::read`].
    pub fn read_through<E>(
        &self,
        offset: u64,
        buf: &mut [u8],
        mut get: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<usize, FetchError<E>> {
        self.read_having(offset, buf, |range| self.fetch(range, &mut get))
    }

    /// Reads once `fetch` has brought what is missing.
    pub(crate) fn read_having<E: From<ObjectError>>(
        &self,
        offset: u64,
        buf: &mut [u8],
        mut fetch: impl FnMut(Range<u64>) -> Result<(), E>,
    ) -> Result<usize, E> {
        loop {
            let read = self.read(offset, buf)?;
            let (Some(first), Some(last)) = (read.missing.first(), read.missing.last()) else {
                return Ok(read.len);
            };
            fetch(first.start..last.end)?;
        }
    }
}
