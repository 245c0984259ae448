//! Reading segments back: one entry, a run of neighbours, a whole segment.
//!
//! Everything here takes untrusted bytes and answers with an error that names the offset; nothing
//! panics, nothing allocates. Entries are decrypted where they are, in the reader's buffer, each once: that is why the iterators
//! take the buffer apart as they go.

use crate::format::{EntryHeader, HEADER_BYTES, Header, MAX_STRIDE, SummaryEntry, checksum};
use crate::{CodecTag, EntryAddr, FormatError, Guard, Keys, SegmentId};
use std::mem::take;
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
    /// The entry of a checked header at the start of `bytes`.
    pub(crate) fn new(header: EntryHeader, guard: Guard, addr: EntryAddr, bytes: &'a [u8]) -> Self {
        let bytes = &bytes[guard.header_bytes()..][..usize::from(header.len)];
        Self { slot: header.slot, addr, tag: header.tag, bytes }
    }
}

/// Identity of the segment that bytes are expected to be of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'k> {
    pub keys: &'k Keys,
    pub segment: SegmentId,
    pub sequence: u64,
}

impl Expected<'_> {
    /// Checks and decrypts the entry of a known slot whose header starts at `from` in `bytes`, which begin at `base` of the segment.
    pub(crate) fn open_of(
        &self,
        slot: SlotId,
        bytes: &mut [u8],
        base: usize,
        from: usize,
    ) -> Result<EntryHeader, FormatError> {
        let rest = bytes.get_mut(from..).unwrap_or_default();
        let header = EntryHeader::open(self.keys, self.sequence, base + from, rest)?;
        self.belongs(slot, header.slot, base + from)?;
        Ok(header)
    }

    fn belongs(&self, expected: SlotId, found: SlotId, offset: usize) -> Result<(), FormatError> {
        if found == expected {
            Ok(())
        } else {
            Err(FormatError::Slot { offset, expected, found: found.get() })
        }
    }

    /// Checks and decrypts the entry at the start of `bytes`, which begin at `offset` of the segment.
    fn open<'a>(&self, bytes: &'a mut [u8], offset: usize) -> Result<Entry<'a>, FormatError> {
        let header = EntryHeader::open(self.keys, self.sequence, offset, bytes)?;
        let (guard, len) = (self.keys.guard(), usize::from(header.len));
        let addr = EntryAddr::new(self.segment, offset, guard.stride(len))
            .ok_or(FormatError::Layout { offset, found: len as u64 })?;
        Ok(Entry::new(header, guard, addr, bytes))
    }
}

/// A wanted entry and those that follow it in what was read.
#[derive(Debug)]
pub struct Run<'a> {
    first: Entry<'a>,
    rest: RunIter<'a>,
}

impl<'a> Run<'a> {
    /// `bytes` begin at `base` of the segment, hold the entry of `header` (checked and decrypted) at `from`, and `end` where entries end
    /// or what was read does.
    pub(crate) fn new(
        expected: Expected<'a>,
        header: EntryHeader,
        addr: EntryAddr,
        bytes: &'a mut [u8],
        from: usize,
        end: usize,
    ) -> Self {
        let guard = expected.keys.guard();
        let stride = guard.stride(header.len.into());
        let next = addr.offset() + stride;
        let rest = end.saturating_sub(from + stride);
        let (_, here) = bytes.split_at_mut(from);
        let (first, behind) = here.split_at_mut(stride.min(here.len()));
        let rest = behind.get_mut(..rest).unwrap_or_default();
        Self { first: Entry::new(header, guard, addr, first), rest: RunIter { expected, rest, next } }
    }

    /// The wanted entry.
    #[must_use]
    pub fn first(&self) -> Entry<'a> {
        self.first
    }

    /// The entries behind it that were read whole, up to the first damaged one. Live or not is for the
    /// caller to say: an entry whose slot has another address by now is dead.
    #[must_use]
    pub fn neighbours(self) -> RunIter<'a> {
        self.rest
    }
}

/// Iterates over the neighbours of a [`Run`].
#[derive(Debug)]
pub struct RunIter<'a> {
    expected: Expected<'a>,
    /// What was not given out yet, from `next` of the segment on.
    rest: &'a mut [u8],
    next: usize,
}

impl<'a> Iterator for RunIter<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        // What is damaged ends it: where the next would begin is not known.
        let here = take(&mut self.rest);
        let header = EntryHeader::open(self.expected.keys, self.expected.sequence, self.next, here).ok()?;
        let guard = self.expected.keys.guard();
        let stride = guard.stride(header.len.into());
        let addr = EntryAddr::new(self.expected.segment, self.next, stride)?;
        let (entry, rest) = here.split_at_mut(stride.min(here.len()));
        self.rest = rest;
        self.next += stride;
        Some(Entry::new(header, guard, addr, entry))
    }
}

/// A whole segment whose header and summary were checked.
#[derive(Debug)]
pub struct SegmentView<'a> {
    expected: Expected<'a>,
    header: Header,
    /// From the start of the segment to where entries end.
    entries: &'a mut [u8],
    summary: &'a [u8],
}

impl<'a> SegmentView<'a> {
    /// Checks header and summary of a segment read back whole.
    ///
    /// # Errors
    /// What is wrong and where: truncated, foreign (another run, number or writing), damaged.
    pub fn parse(
        keys: &'a Keys,
        segment: SegmentId,
        sequence: u64,
        bytes: &'a mut [u8],
    ) -> Result<Self, FormatError> {
        let expected = Expected { keys, segment, sequence };
        let header = Self::check(expected, bytes)?;
        Ok(Self::checked(expected, header, bytes))
    }

    /// Checks header and summary.
    pub(crate) fn check(expected: Expected<'_>, bytes: &[u8]) -> Result<Header, FormatError> {
        let Expected { keys, segment, sequence } = expected;
        let header = Header::decode(keys, bytes)?;
        let foreign = |offset, expected, found| FormatError::Foreign { offset, expected, found };
        if header.segment != segment {
            return Err(foreign(16, segment.get().into(), header.segment.get().into()));
        }
        if header.sequence != sequence {
            return Err(foreign(24, sequence, header.sequence));
        }
        let (start, needed) = (header.entries_end as usize, header.summary_bytes());
        // Also if nothing is needed of it: up to here there are entries.
        let missing = |have| FormatError::Truncated { offset: start, needed: needed.max(1), have };
        let rest = bytes.get(start..).ok_or(missing(0))?;
        let summary = rest.get(..needed).ok_or(missing(rest.len()))?;
        if checksum(keys.run.seed(sequence, start), summary) != header.summary_checksum {
            return Err(FormatError::Checksum { offset: start });
        }
        Ok(header)
    }

    /// Checks all that is in a segment and leaves it as it is, to be copied.
    pub(crate) fn check_all(expected: Expected<'_>, bytes: &[u8]) -> Result<(), FormatError> {
        let header = Self::check(expected, bytes)?;
        let (guard, summary) = (expected.keys.guard(), &bytes[header.entries_end as usize..]);
        let mut copy = [0; MAX_STRIDE];
        for index in 0..header.count as usize {
            let listed = SummaryEntry::decode(guard, summary, index, header.entries_end)?;
            let (offset, stride) = (listed.offset as usize, guard.stride(listed.len.into()));
            // Opened elsewhere: what goes to the other tier stays sealed.
            let copy = &mut copy[..stride];
            copy.copy_from_slice(&bytes[offset..offset + stride]);
            expected.open_of(listed.slot, copy, offset, 0)?;
        }
        Ok(())
    }

    /// Opens every entry where it is, and guards it as `to` does. A seal depends on key, sequence number, offset and text only, none of which ever
    /// changes: an entry that is sealed once more gets the same bytes.
    pub(crate) fn reseal(from: Expected<'_>, to: &Keys, bytes: &mut [u8]) -> Result<(), FormatError> {
        let header = Self::check(from, bytes)?;
        let guard = from.keys.guard();
        for index in 0..header.count as usize {
            let summary = bytes.get(header.entries_end as usize..).unwrap_or_default();
            let listed = SummaryEntry::decode(guard, summary, index, header.entries_end)?;
            let (offset, len) = (listed.offset as usize, guard.header_bytes() + usize::from(listed.len));
            let entry = &mut bytes[offset..offset + len];
            from.keys.open(from.sequence, offset, entry)?;
            to.protect(from.sequence, offset, entry);
        }
        header.encode(to, &mut bytes[..HEADER_BYTES]);
        Ok(())
    }

    /// A view of bytes whose header [`check`](Self::check) gave.
    pub(crate) fn checked(expected: Expected<'a>, header: Header, bytes: &'a mut [u8]) -> Self {
        let (entries, summary) = bytes.split_at_mut(header.entries_end as usize);
        Self { expected, header, entries, summary }
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
        let (guard, limit) = (self.expected.keys.guard(), self.header.entries_end);
        (0..self.len()).map(move |index| SummaryEntry::decode(guard, self.summary, index, limit))
    }

    /// Every entry, checked one by one: a damaged one does not hide the others.
    pub fn entries(self) -> impl Iterator<Item = Result<Entry<'a>, FormatError>> {
        let Self { expected, header, entries, summary } = self;
        let (guard, limit) = (expected.keys.guard(), header.entries_end);
        let (mut rest, mut at) = (entries, 0);
        (0..header.count as usize).map(move |index| {
            let listed = SummaryEntry::decode(guard, summary, index, limit)?;
            let (offset, stride) = (listed.offset as usize, guard.stride(listed.len.into()));
            // They are listed as they stand, one behind the other.
            let skip = offset.checked_sub(at).ok_or(FormatError::Layout { offset, found: at as u64 })?;
            let (_, here) = take(&mut rest).split_at_mut(skip);
            let (entry, behind) = here.split_at_mut(stride);
            (rest, at) = (behind, offset + stride);
            let entry = expected.open(entry, offset)?;
            expected.belongs(listed.slot, entry.slot, offset)?;
            Ok(entry)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunKey;

    /// Found as `fuzz/corpus/segment_bytes/no-entries-cut-off`: there is nothing to miss, so nothing was missed, and the view was cut out of
    /// bytes that are not there.
    #[test]
    fn a_segment_without_entries_that_ends_before_where_they_would_is_truncated() {
        let keys = Keys::from(RunKey::new(1));
        let (segment, sequence, end) = (SegmentId::new(0).unwrap(), 1, 4096);
        let summary_checksum = checksum(keys.run.seed(sequence, end), &[]);
        let header = Header { segment, sequence, count: 0, entries_end: end as u32, summary_checksum };
        let mut bytes = [0; HEADER_BYTES];
        header.encode(&keys, &mut bytes);
        let error = SegmentView::parse(&keys, segment, sequence, &mut bytes).unwrap_err();
        assert_eq!(error, FormatError::Truncated { offset: end, needed: 1, have: 0 });
    }
}
