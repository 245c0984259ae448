//! Reading segments back: one entry, a run of neighbours, a whole segment.
//!
//! Everything here takes untrusted bytes and answers with an error that names the offset; nothing
//! panics, nothing allocates.

use crate::format::{
    CodecTag, ENTRY_HEADER_BYTES, EntryHeader, Header, RunKey, SUMMARY_ENTRY_BYTES, SummaryEntry, checksum,
};
use crate::{EntryAddr, FormatError, SegmentId};
use vswap_core::SlotId;

/// An entry as it was stored, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Whose page.
    pub slot: SlotId,
    /// Where it is.
    pub addr: EntryAddr,
    /// How it is encoded.
    pub tag: CodecTag,
    /// The encoded bytes.
    pub bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The entry of a checked header at `from` of `bytes`.
    pub(crate) fn new(header: EntryHeader, addr: EntryAddr, bytes: &'a [u8], from: usize) -> Self {
        let bytes = &bytes[from + ENTRY_HEADER_BYTES..][..usize::from(header.len)];
        Self { slot: header.slot, addr, tag: header.tag, bytes }
    }
}

/// Identity of the segment that bytes are expected to be of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub key: RunKey,
    pub segment: SegmentId,
    pub sequence: u64,
}

impl Expected {
    /// Checks the entry whose header starts at `from` in `bytes`, which begin at `base` of the segment.
    pub(crate) fn header(&self, bytes: &[u8], base: usize, from: usize) -> Result<EntryHeader, FormatError> {
        let rest = bytes.get(from..).unwrap_or_default();
        EntryHeader::decode(self.key.seed(self.sequence, base + from), base + from, rest)
    }

    /// As [`header`](Self::header), for the entry of a known slot.
    pub(crate) fn header_of(
        &self,
        slot: SlotId,
        bytes: &[u8],
        base: usize,
        from: usize,
    ) -> Result<EntryHeader, FormatError> {
        let header = self.header(bytes, base, from)?;
        if header.slot != slot {
            let (offset, found) = (base + from, header.slot.get());
            return Err(FormatError::Slot { offset, expected: slot, found });
        }
        Ok(header)
    }

    /// The checked entry at `from`, with its address.
    fn entry<'a>(&self, bytes: &'a [u8], base: usize, from: usize) -> Result<Entry<'a>, FormatError> {
        let header = self.header(bytes, base, from)?;
        let len = usize::from(header.len);
        let addr = EntryAddr::new(self.segment, base + from, EntryHeader::stride(len))
            .ok_or(FormatError::Layout { offset: base + from, found: len as u64 })?;
        Ok(Entry::new(header, addr, bytes, from))
    }
}

/// A wanted entry and those that follow it in what was read.
#[derive(Debug)]
pub struct Run<'a> {
    first: Entry<'a>,
    rest: RunIter<'a>,
}

impl<'a> Run<'a> {
    /// `bytes` begin at `base` of the segment, hold `first` at `from` and end where entries end.
    pub(crate) fn new(
        expected: Expected,
        first: Entry<'a>,
        bytes: &'a [u8],
        base: usize,
        from: usize,
    ) -> Self {
        let next = from + EntryHeader::stride(first.bytes.len());
        Self { first, rest: RunIter { expected, bytes, base, next } }
    }

    /// The wanted entry.
    #[must_use]
    pub fn first(&self) -> Entry<'a> {
        self.first
    }

    /// The entries behind it that were read whole, up to the first damaged one. Live or not is for the
    /// caller to say: an entry whose slot has another address by now is dead.
    #[must_use]
    pub fn neighbours(&self) -> RunIter<'a> {
        self.rest.clone()
    }
}

/// Iterates over the neighbours of a [`Run`].
#[derive(Clone, Debug)]
pub struct RunIter<'a> {
    expected: Expected,
    bytes: &'a [u8],
    base: usize,
    next: usize,
}

impl<'a> Iterator for RunIter<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let entry = self.expected.entry(self.bytes, self.base, self.next).ok()?;
        self.next += EntryHeader::stride(entry.bytes.len());
        Some(entry)
    }
}

/// A whole segment whose header and summary were checked.
#[derive(Debug)]
pub struct SegmentView<'a> {
    expected: Expected,
    header: Header,
    bytes: &'a [u8],
}

impl<'a> SegmentView<'a> {
    /// Checks header and summary of a segment read back whole.
    ///
    /// # Errors
    /// What is wrong and where: truncated, foreign (another run, number or writing), damaged.
    pub fn parse(
        key: RunKey,
        segment: SegmentId,
        sequence: u64,
        bytes: &'a [u8],
    ) -> Result<Self, FormatError> {
        let expected = Expected { key, segment, sequence };
        Ok(Self::checked(expected, Self::check(expected, bytes)?, bytes))
    }

    /// Checks header and summary.
    pub(crate) fn check(expected: Expected, bytes: &[u8]) -> Result<Header, FormatError> {
        let Expected { key, segment, sequence } = expected;
        let header = Header::decode(key, bytes)?;
        let foreign = |offset, expected, found| FormatError::Foreign { offset, expected, found };
        if header.segment != segment {
            return Err(foreign(16, segment.get().into(), header.segment.get().into()));
        }
        if header.sequence != sequence {
            return Err(foreign(24, sequence, header.sequence));
        }
        let (start, needed) = (header.entries_end as usize, header.summary_bytes());
        let rest = bytes.get(start..).unwrap_or_default();
        let summary =
            rest.get(..needed).ok_or(FormatError::Truncated { offset: start, needed, have: rest.len() })?;
        if checksum(key.seed(sequence, start), summary) != header.summary_checksum {
            return Err(FormatError::Checksum { offset: start });
        }
        Ok(header)
    }

    /// A view of bytes whose header [`check`](Self::check) gave.
    pub(crate) fn checked(expected: Expected, header: Header, bytes: &'a [u8]) -> Self {
        Self { expected, header, bytes }
    }

    /// The segment's header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many entries it has, dead ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.count as usize
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.header.count == 0
    }

    /// Its summary: slot and address of every entry, without looking at the entries.
    pub fn summary(&self) -> impl Iterator<Item = Result<SummaryEntry, FormatError>> + '_ {
        let start = self.header.entries_end as usize;
        (0..self.len())
            .map(move |i| SummaryEntry::decode(self.bytes, start + i * SUMMARY_ENTRY_BYTES, start as u32))
    }

    /// Every entry, checked one by one: a damaged one does not hide the others.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry<'a>, FormatError>> + '_ {
        let inside = &self.bytes[..self.header.entries_end as usize];
        self.summary().map(move |listed| {
            let listed = listed?;
            let entry = self.expected.entry(inside, 0, listed.offset as usize)?;
            if entry.slot != listed.slot {
                let (offset, found) = (listed.offset as usize, entry.slot.get());
                return Err(FormatError::Slot { offset, expected: listed.slot, found });
            }
            Ok(entry)
        })
    }
}
