//! [`SegmentMover`]: takes sealed segments, as they are, to other tiers.
//!
//! A copy is read and checked whole, entry by entry, sealed or opened if only one of the two tiers is memory, and written where there is room; then the segment's row says where it is now, if it is
//! still the row that was copied. No address and no slot changes: the cost is that of the bytes, whoever and how many own them. A reader
//! that had looked the former place up reads on there; if that has been written anew by then, the checksum tells, and it
//! looks again. Until the row changes the source is untouched, so a move that fails or is given up leaves what was.

use crate::queues::Queues;
use crate::table::{Place, Purpose, Room};
use crate::{AlignedBuf, ReadError, SEGMENT_BYTES, SegmentId, SegmentStore, WriteDone};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// How the move of a segment begins.
#[derive(Debug)]
pub enum Started {
    /// [`SegmentMover::wait`] tells what comes of it.
    UnderWay,
    /// There is no such segment any more.
    Gone,
    /// No open tier has room, or none that its class may have.
    NoRoom,
    /// It could not be read whole, or something in it is damaged: it stays where it is.
    Unreadable(ReadError),
}

/// How a move has ended.
#[derive(Debug)]
pub struct Moved {
    /// The segment.
    pub segment: SegmentId,
    /// `Ok(true)`: it is on another tier. `Ok(false)`: it died or changed meanwhile. `Err`: the copy could not be written; it is where it
    /// was.
    pub result: io::Result<bool>,
    /// Bytes copied.
    pub bytes: usize,
}

#[derive(Debug)]
struct Copying {
    tag: u64,
    source: Place,
    room: Room,
    bytes: usize,
}

/// Moves segments, a few at once. Belongs to one thread at a time. What was not taken by [`wait`](Self::wait) when it is dropped is given up.
pub struct SegmentMover {
    store: Arc<SegmentStore>,
    // Before the rooms: a queue waits for its writes when it is dropped.
    queues: Queues,
    copying: Vec<Copying>,
    done: VecDeque<(Copying, io::Result<()>)>,
    spare: Vec<AlignedBuf>,
    depth: usize,
    next_tag: u64,
}

impl SegmentMover {
    pub(crate) fn new(store: Arc<SegmentStore>, depth: usize) -> Self {
        let queues = Queues::new(depth);
        let (copying, done, spare) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { store, queues, copying, done, spare, depth: depth.max(1), next_tag: 0 }
    }

    /// Reads a segment and starts to write it to another tier, for [`Purpose::Migration`] or [`Purpose::Demotion`].
    ///
    /// # Errors
    /// If the queue itself is broken.
    pub fn start(&mut self, segment: SegmentId, purpose: Purpose) -> io::Result<Started> {
        let mut buf = self.spare.pop().unwrap_or_else(|| AlignedBuf::zeroed(SEGMENT_BYTES));
        let source = match self.read_to_copy(segment, &mut buf) {
            Ok(source) => source,
            Err(error) => {
                self.spare.push(buf);
                let gone = matches!(error, ReadError::NotThere { .. });
                return Ok(if gone { Started::Gone } else { Started::Unreadable(error) });
            }
        };
        let Some(room) = self.store.room(purpose, source.class) else {
            self.spare.push(buf);
            return Ok(Started::NoRoom);
        };
        // Nobody else has touched these bytes since they were checked.
        if let Err(error) = self.store.reseal(source, room.in_memory(), &mut buf) {
            self.spare.push(buf);
            return Ok(Started::Unreadable(error));
        }
        let (tag, bytes) = (self.next_tag, source.written());
        self.next_tag += 1;
        let (tier, extent) = room.at();
        self.copying.push(Copying { tag, source, room, bytes });
        let Self { store, queues, copying, done, spare, .. } = self;
        let at = (tier, extent.offset());
        queues.submit(store, at, buf, bytes, tag, |write| finish(copying, done, spare, write))?;
        Ok(Started::UnderWay)
    }

    /// Waits for a move to end; `None` when none is under way.
    ///
    /// # Errors
    /// If the queue itself is broken.
    pub fn wait(&mut self) -> io::Result<Option<Moved>> {
        while self.done.is_empty() {
            let Some(oldest) = self.copying.first() else { return Ok(None) };
            match self.queues.wait(oldest.room.at().0)? {
                Some(write) => finish(&mut self.copying, &mut self.done, &mut self.spare, write),
                None => return Ok(None),
            }
        }
        let Some((copy, written)) = self.done.pop_front() else { return Ok(None) };
        self.store.count_move(copy.room.at().0, &written, copy.bytes);
        let segment = copy.source.segment;
        let result = written.map(|()| copy.room.commit(copy.source));
        Ok(Some(Moved { segment, result, bytes: copy.bytes }))
    }

    /// What is copied must be what was written. Damage may be of the one reading, so there is a second.
    fn read_to_copy(&self, segment: SegmentId, buf: &mut AlignedBuf) -> Result<Place, ReadError> {
        self.store.read_whole(segment, buf).or_else(|_| self.store.read_whole(segment, buf))
    }

    /// Whether another may be started before the next [`wait`](Self::wait).
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.copying.len() + self.done.len() < self.depth
    }
}

fn finish(
    copying: &mut Vec<Copying>,
    done: &mut VecDeque<(Copying, io::Result<()>)>,
    spare: &mut Vec<AlignedBuf>,
    write: WriteDone,
) {
    spare.push(write.buf);
    if let Some(at) = copying.iter().position(|copy| copy.tag == write.tag) {
        done.push_back((copying.remove(at), write.result));
    }
}

impl std::fmt::Debug for SegmentMover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentMover").field("under_way", &self.copying.len()).finish_non_exhaustive()
    }
}
