//! [`SegmentWriter`]: seals builders and keeps a few segments in flight.
//!
//! A segment becomes readable (its row `Live`) in [`SegmentWriter::wait`], after its write has ended well
//! and before the caller is told: so the caller can put the addresses into its slots at once. No lock is
//! held while waiting.

use crate::builder::{Sealed, SegmentBuilder};
use crate::format::{Guard, SummaryEntry};
use crate::queues::Queues;
use crate::table::{Place, Reservation};
use crate::{AlignedBuf, ClassId, EntryAddr, SegmentId, SegmentStore, WriteDone};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use vswap_core::SlotId;

/// A segment whose write has ended.
#[derive(Debug)]
pub struct Written {
    /// Which.
    pub segment: SegmentId,
    /// Which writing of that number.
    pub sequence: u64,
    /// Whose it is.
    pub class: ClassId,
    /// `Ok`: its entries live and can be read. `Err`: nothing of it exists, the pages stay where they
    /// were; `StorageFull` if the disk had no room.
    pub result: io::Result<()>,
    /// Bytes given to the disk.
    pub bytes: usize,
    /// The buffer, for the next segment.
    pub buf: AlignedBuf,
    guard: Guard,
    entries: Vec<SummaryEntry>,
}

impl Written {
    /// Slot and address of each of its entries, in order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (SlotId, EntryAddr)> + '_ {
        self.entries.iter().map(|entry| {
            let (offset, stride) = (entry.offset as usize, self.guard.stride(entry.len.into()));
            let addr = EntryAddr::new(self.segment, offset, stride);
            (entry.slot, addr.expect("the builder gave this address before"))
        })
    }
}

#[derive(Debug)]
struct Finished {
    sent: InFlight,
    done: WriteDone,
}

#[derive(Debug)]
struct InFlight {
    tag: u64,
    reservation: Reservation,
    len: usize,
    entries_end: u32,
    guard: Guard,
    entries: Vec<SummaryEntry>,
}

/// Writes sealed segments, a few at once. Belongs to one thread at a time. What was not taken by
/// [`wait`](Self::wait) when it is dropped is given up.
pub struct SegmentWriter {
    store: Arc<SegmentStore>,
    // Before the reservations: a queue waits for its writes when it is dropped, and only then may their extents be free.
    queues: Queues,
    in_flight: Vec<InFlight>,
    done: VecDeque<Finished>,
    next_tag: u64,
}

impl SegmentWriter {
    pub(crate) fn new(store: Arc<SegmentStore>, depth: usize) -> Self {
        Self { store, queues: Queues::new(depth), in_flight: Vec::new(), done: VecDeque::new(), next_tag: 0 }
    }

    /// Seals a builder and starts its write. Waits only if as many are in flight as allowed. The
    /// outcome comes from [`wait`](Self::wait); an empty builder is simply given up.
    ///
    /// # Errors
    /// If the queue itself is broken; the builder's segment is given up.
    pub fn submit(&mut self, builder: SegmentBuilder) -> io::Result<()> {
        if builder.is_empty() {
            return Ok(());
        }
        let Sealed { reservation, buf, len, entries_end, guard, entries } = builder.seal();
        let place = reservation.place();
        let tag = self.next_tag;
        self.next_tag += 1;
        self.in_flight.push(InFlight { tag, reservation, len, entries_end, guard, entries });
        let Self { store, queues, in_flight, done, .. } = self;
        let at = (place.tier, place.extent.offset());
        let started = queues.submit(store, at, buf, len, tag, |write| finish(in_flight, done, write));
        if started.is_err() {
            // It was never sent, so nobody will ever hear of it.
            self.in_flight.retain(|sent| sent.tag != tag);
        }
        started
    }

    /// Waits for one segment's write to end; `None` when none is outstanding.
    ///
    /// # Errors
    /// If the queue itself is broken.
    pub fn wait(&mut self) -> io::Result<Option<Written>> {
        while self.done.is_empty() {
            let Some(oldest) = self.in_flight.first() else { break };
            match self.queues.wait(oldest.reservation.place().tier)? {
                Some(write) => finish(&mut self.in_flight, &mut self.done, write),
                None => break,
            }
        }
        Ok(self.done.pop_front().map(|finished| self.commit(finished)))
    }

    /// Segments submitted and not yet taken by [`wait`](Self::wait).
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.in_flight.len() + self.done.len()
    }

    /// Lets go of the storage of tiers that have been removed.
    pub fn forget_removed(&mut self) {
        self.queues.forget_removed(&self.store);
    }

    fn commit(&self, finished: Finished) -> Written {
        let Finished { sent, done } = finished;
        let Place { segment, sequence, class, tier, .. } = sent.reservation.place();
        self.store.count_write(tier, &done.result, sent.len);
        match &done.result {
            Ok(()) => sent.reservation.commit(sent.entries_end, sent.entries.len() as u32, self.store.now()),
            Err(_) => drop(sent.reservation),
        }
        let (guard, bytes) = (sent.guard, sent.len);
        let (result, buf, entries) = (done.result, done.buf, sent.entries);
        Written { segment, sequence, class, result, bytes, buf, guard, entries }
    }
}

fn finish(in_flight: &mut Vec<InFlight>, finished: &mut VecDeque<Finished>, done: WriteDone) {
    if let Some(at) = in_flight.iter().position(|sent| sent.tag == done.tag) {
        let sent = in_flight.remove(at);
        finished.push_back(Finished { sent, done });
    }
}

impl std::fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentWriter").field("outstanding", &self.outstanding()).finish_non_exhaustive()
    }
}
