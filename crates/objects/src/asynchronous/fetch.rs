//! Fetching by tasks what is missing: as in `crate::fetch`, on the same board.

use crate::error::{FetchError, ObjectError};
use crate::fetch::{Claim, MOST, Ticket};
use crate::object::Object;
use blocking::unblock;
use event_listener::EventListener;
use std::ops::{Deref, Range};

/// What comes next of a range.
enum Next<O: Deref<Target = Object>> {
    /// Nothing.
    Done,
    /// The caller fetches this.
    Mine(Ticket<O>),
    /// Somebody else fetches all of what is missing of some bytes from there on; when any flight ends, it is to be seen again what is.
    Wait(u64, EventListener),
}

/// Takes an object's lock. If it is not to `wait`, passes by what others fetch.
fn next<O: Deref<Target = Object> + Clone>(object: &O, range: Range<u64>, wait: bool) -> Next<O> {
    let mut at = range.start;
    while at < range.end.min(object.len()) {
        let window = at..range.end.min(at.saturating_add(MOST));
        // Listens before the board is let go of, and so before the flight that it is to hear of ends.
        match Ticket::claim(object.clone(), &window, |flights, _board| wait.then(|| flights.listen())) {
            Claim::Mine(ticket) => return Next::Mine(ticket),
            Claim::Others(Some(landing)) => return Next::Wait(at, landing),
            Claim::Others(None) | Claim::None => at = window.end,
        }
    }
    Next::Done
}

/// As [`Object::fetch`]; `keep` fills a flight's bytes in. A ticket that is dropped, with this future or with a job that nobody waits for any more, ends its flight.
pub(super) async fn fetch<O, B, E, F, K, R>(
    object: &O,
    range: Range<u64>,
    mut get: impl FnMut(Range<u64>) -> F,
    keep: fn(&Ticket<O>, &[u8]) -> Result<(), K>,
) -> Result<(), R>
where
    O: Deref<Target = Object> + Clone + Send + 'static,
    B: AsRef<[u8]> + Send + 'static,
    F: Future<Output = Result<B, E>>,
    K: Send + 'static,
    R: From<FetchError<E>> + From<K>,
{
    // First whatever nobody else fetches, then what others did.
    for wait in [false, true] {
        let mut rest = range.clone();
        loop {
            let (of, left) = (object.clone(), rest.clone());
            match unblock(move || next(&of, left, wait)).await {
                Next::Done => break,
                Next::Wait(from, landing) => {
                    rest.start = from;
                    landing.await;
                }
                Next::Mine(ticket) => {
                    let wanted = ticket.range();
                    let bytes = get(wanted.clone()).await.map_err(FetchError::Source)?;
                    let got = bytes.as_ref().len();
                    if got as u64 != wanted.end - wanted.start {
                        return Err(FetchError::Length { wanted, got }.into());
                    }
                    unblock(move || keep(&ticket, bytes.as_ref())).await?;
                    // What did not come, since it was out of date, is for the second time round.
                    if !wait {
                        rest.start = wanted.end;
                    }
                }
            }
        }
    }
    Ok(())
}

/// As [`Object::read_through`], with a source and `keep` as in [`fetch`].
pub(super) async fn read_through<O, B, S, E, F, K, R>(
    object: &O,
    offset: u64,
    mut buf: B,
    mut get: impl FnMut(Range<u64>) -> F,
    keep: fn(&Ticket<O>, &[u8]) -> Result<(), K>,
) -> (Result<usize, R>, B)
where
    O: Deref<Target = Object> + Clone + Send + 'static,
    B: AsMut<[u8]> + Send + 'static,
    S: AsRef<[u8]> + Send + 'static,
    F: Future<Output = Result<S, E>>,
    K: Send + 'static,
    R: From<FetchError<E>> + From<K> + From<ObjectError>,
{
    loop {
        let (of, read) = (object.clone(), buf);
        let read = move || {
            let mut buf = read;
            (Object::read(&of, offset, buf.as_mut()), buf)
        };
        let found;
        (found, buf) = unblock(read).await;
        let found = match found {
            Ok(found) => found,
            Err(error) => return (Err(error.into()), buf),
        };
        let (Some(first), Some(last)) = (found.missing.first(), found.missing.last()) else {
            return (Ok(found.len), buf);
        };
        let fetched: Result<(), R> = fetch(object, first.start..last.end, &mut get, keep).await;
        if let Err(error) = fetched {
            return (Err(error), buf);
        }
    }
}
