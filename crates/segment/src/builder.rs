//! [`SegmentBuilder`]: packs entries into a segment's buffer and seals it.

use crate::addr::UNIT;
use crate::format::{
    CodecTag, EntryHeader, Guard, HEADER_BYTES, Header, SUMMARY_ENTRY_BYTES, SummaryEntry, checksum, padded,
};
use crate::table::Reservation;
use crate::{AlignedBuf, EntryAddr, Keys, MAX_ENTRY_BYTES, SEGMENT_BYTES, SegmentId};
use vswap_core::SlotId;

/// What became of an entry offered to a builder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Appended {
    /// It is in, and will be readable at this address once the segment is written.
    At(EntryAddr),
    /// No room left: write this segment and offer the entry to the next.
    NoRoom,
    /// Longer than a raw page: never fits.
    TooLong,
}

/// A segment being filled. Dropped unwritten, it gives its number and extent back.
#[derive(Debug)]
pub struct SegmentBuilder {
    keys: Keys,
    reservation: Reservation,
    buf: AlignedBuf,
    end: usize,
    entries: Vec<SummaryEntry>,
}

/// A builder's segment, ready to be written.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub reservation: Reservation,
    pub buf: AlignedBuf,
    /// Bytes to write: whole blocks.
    pub len: usize,
    pub entries_end: u32,
    pub guard: Guard,
    pub entries: Vec<SummaryEntry>,
}

impl SegmentBuilder {
    /// Starts filling the reserved segment. A buffer shorter than a segment is replaced.
    pub(crate) fn new(keys: Keys, reservation: Reservation, buf: AlignedBuf) -> Self {
        let buf = if buf.len() == SEGMENT_BYTES { buf } else { AlignedBuf::zeroed(SEGMENT_BYTES) };
        Self { keys, reservation, buf, end: HEADER_BYTES, entries: Vec::with_capacity(1024) }
    }

    /// Adds a slot's encoded bytes.
    pub fn append(&mut self, slot: SlotId, tag: CodecTag, bytes: &[u8]) -> Appended {
        if bytes.len() > MAX_ENTRY_BYTES {
            return Appended::TooLong;
        }
        let header = EntryHeader { slot, len: bytes.len() as u16, tag };
        let guard = self.keys.guard();
        let (start, stride) = (self.end, guard.stride(bytes.len()));
        let end = start + stride;
        if end + (self.entries.len() + 1) * SUMMARY_ENTRY_BYTES > SEGMENT_BYTES {
            return Appended::NoRoom;
        }
        let place = self.reservation.place();
        let Some(addr) = EntryAddr::new(place.segment, start, stride) else {
            return Appended::NoRoom;
        };
        let out = &mut self.buf[start..end];
        out[guard.header_bytes()..][..bytes.len()].copy_from_slice(bytes);
        header.encode(guard, out);
        let summary = SummaryEntry { slot, offset: start as u32, len: header.len, codec: tag.codec };
        self.entries.push(summary);
        self.end = end;
        Appended::At(addr)
    }

    /// The segment that this will be.
    #[must_use]
    pub fn segment(&self) -> SegmentId {
        self.reservation.place().segment
    }

    /// Entries so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was added yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the segment used so far, summary included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.end + self.entries.len() * SUMMARY_ENTRY_BYTES
    }

    /// Whether an entry of `len` encoded bytes still fits.
    #[must_use]
    pub fn fits(&self, len: usize) -> bool {
        self.bytes() + self.keys.guard().stride(len) + SUMMARY_ENTRY_BYTES <= SEGMENT_BYTES
    }

    /// Gives up: number and extent go back, and the buffer to the caller.
    #[must_use]
    pub fn discard(self) -> AlignedBuf {
        self.buf
    }

    /// Encrypts or sums up the entries, and writes summary and header into the buffer. Not done in [`append`](Self::append), whose callers
    /// hold locks. Consumes the builder: no entry is sealed twice.
    pub(crate) fn seal(mut self) -> Sealed {
        debug_assert!(self.end.is_multiple_of(UNIT));
        let place = self.reservation.place();
        let guard = self.keys.guard();
        let mut at = self.end;
        for entry in &self.entries {
            let (offset, len) = (entry.offset as usize, guard.header_bytes() + usize::from(entry.len));
            self.keys.protect(place.sequence, offset, &mut self.buf[offset..offset + len]);
            entry.encode(&mut self.buf[at..at + SUMMARY_ENTRY_BYTES]);
            at += SUMMARY_ENTRY_BYTES;
        }
        let len = padded(at);
        self.buf[at..len].fill(0);
        let header = Header {
            segment: place.segment,
            sequence: place.sequence,
            count: self.entries.len() as u32,
            entries_end: self.end as u32,
            summary_checksum: checksum(self.keys.run.seed(place.sequence, self.end), &self.buf[self.end..at]),
        };
        header.encode(&self.keys, &mut self.buf[..HEADER_BYTES]);
        Sealed {
            reservation: self.reservation,
            buf: self.buf,
            len,
            entries_end: self.end as u32,
            guard,
            entries: self.entries,
        }
    }
}
