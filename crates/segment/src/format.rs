//! The bytes of a segment: header, entry headers, summary. All integers little-endian.
//!
//! | part | where | holds |
//! | --- | --- | --- |
//! | [`Header`] | 0, 64 bytes | magic, version, flags, identity, lengths, checksums |
//! | entries | from 64, each at a multiple of 16 | [`EntryHeader`] (24 bytes) and the encoded bytes |
//! | summary | after the entries | [`SummaryEntry`] (16 bytes) for each entry, in order |
//!
//! Checksums are xxh3-64 with a seed that mixes the run's key, the segment's sequence number and the
//! offset, so that bytes of another run, of an earlier writing of the same extent, or from another
//! place do not match. They find faults; they do not withstand an attacker who can write the disk.

use crate::addr::UNIT;
use crate::{BLOCK, FormatError, MAX_ENTRY_BYTES, SEGMENT_BYTES, SegmentId};
use std::hash::{BuildHasher, RandomState};
use twox_hash::XxHash3_64;
use vswap_core::SlotId;

/// The first eight bytes of a segment, as text.
pub const MAGIC: [u8; 8] = *b"VSWAPSEG";
/// The version written and read.
pub const VERSION: u16 = 1;
/// Bytes of the segment's header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of an entry's inline header.
pub const ENTRY_HEADER_BYTES: usize = 24;
/// Bytes of an entry in the summary.
pub const SUMMARY_ENTRY_BYTES: usize = 16;

/// How an entry's bytes are encoded; the meaning is the codec layer's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CodecTag {
    /// The codec.
    pub codec: u8,
    /// Its dictionary, 0 if none.
    pub dictionary: u32,
}

/// A secret of the run that seeds every checksum.
#[derive(Clone, Copy)]
pub struct RunKey(u64);

impl RunKey {
    /// A key from a number, for tests that must repeat.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// A fresh random key.
    #[must_use]
    pub fn random() -> Self {
        // The standard library seeds each hasher from the kernel's random numbers.
        Self(RandomState::new().hash_one(0x5653_5741_5053_4547_u64))
    }

    /// What a header says of the key without giving it away.
    #[must_use]
    pub(crate) fn tag(self) -> u64 {
        XxHash3_64::oneshot_with_seed(self.0, &MAGIC)
    }

    /// The seed for bytes at `offset` of the segment with this sequence number.
    pub(crate) fn seed(self, sequence: u64, offset: usize) -> u64 {
        // Each input is spread over all bits before they are joined (the finaliser of splitmix64).
        mix(mix(self.0 ^ sequence) ^ offset as u64)
    }
}

impl std::fmt::Debug for RunKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunKey(..)")
    }
}

const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

pub(crate) fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

/// A fixed-width field of `bytes`; the caller has checked the length.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// The first `needed` bytes at `offset`, or how many there are.
fn bytes_at(segment: &[u8], offset: usize, needed: usize) -> Result<&[u8], FormatError> {
    let rest = segment.get(offset..).unwrap_or_default();
    rest.get(..needed).ok_or(FormatError::Truncated { offset, needed, have: rest.len() })
}

/// What a segment's header says, beside magic, version and its own checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The segment's number.
    pub segment: SegmentId,
    /// Which writing of it: never the same twice in a run.
    pub sequence: u64,
    /// Entries in it.
    pub count: u32,
    /// The end of the last entry, and the start of the summary.
    pub entries_end: u32,
    /// The summary's checksum.
    pub summary_checksum: u64,
}

impl Header {
    pub(crate) fn encode(&self, key: RunKey, out: &mut [u8]) {
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&0_u16.to_le_bytes()); // flags: none yet
        out[12..14].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        out[14..16].copy_from_slice(&(ENTRY_HEADER_BYTES as u16).to_le_bytes());
        out[16..20].copy_from_slice(&self.segment.get().to_le_bytes());
        out[20..24].copy_from_slice(&self.count.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&key.tag().to_le_bytes());
        out[40..44].copy_from_slice(&self.entries_end.to_le_bytes());
        out[44..48].copy_from_slice(&self.entries_end.to_le_bytes()); // summary start
        out[48..56].copy_from_slice(&self.summary_checksum.to_le_bytes());
        let sum = checksum(key.seed(self.sequence, 0), &out[..56]);
        out[56..64].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads and checks the header of `bytes`.
    ///
    /// # Errors
    /// What is wrong and where.
    pub fn decode(key: RunKey, bytes: &[u8]) -> Result<Self, FormatError> {
        let raw = bytes_at(bytes, 0, HEADER_BYTES)?;
        let u16_at = |at| u16::from_le_bytes(field(raw, at));
        let u32_at = |at| u32::from_le_bytes(field(raw, at));
        let u64_at = |at| u64::from_le_bytes(field(raw, at));
        if raw[..8] != MAGIC {
            return Err(FormatError::Magic { offset: 0, found: u64::from_be_bytes(field(raw, 0)) });
        }
        if u16_at(8) != VERSION {
            return Err(FormatError::Version { offset: 8, found: u16_at(8), known: VERSION });
        }
        if u16_at(10) != 0 {
            return Err(FormatError::Flags { offset: 10, found: u16_at(10) });
        }
        if u64_at(32) != key.tag() {
            return Err(FormatError::Foreign { offset: 32, expected: key.tag(), found: u64_at(32) });
        }
        let sequence = u64_at(24);
        if u64_at(56) != checksum(key.seed(sequence, 0), &raw[..56]) {
            return Err(FormatError::Checksum { offset: 0 });
        }
        let layout = |offset, found: u32| FormatError::Layout { offset, found: u64::from(found) };
        for (at, wanted) in [(12, HEADER_BYTES), (14, ENTRY_HEADER_BYTES)] {
            if usize::from(u16_at(at)) != wanted {
                return Err(layout(at, u16_at(at).into()));
            }
        }
        let segment = SegmentId::new(u32_at(16)).ok_or(layout(16, u32_at(16)))?;
        let (count, entries_end, summary_at) = (u32_at(20), u32_at(40), u32_at(44));
        let summary_end = u64::from(summary_at) + u64::from(count) * SUMMARY_ENTRY_BYTES as u64;
        if summary_end > SEGMENT_BYTES as u64 {
            return Err(layout(20, count));
        }
        if (entries_end as usize) < HEADER_BYTES || !(entries_end as usize).is_multiple_of(UNIT) {
            return Err(layout(40, entries_end));
        }
        if summary_at != entries_end {
            return Err(layout(44, summary_at));
        }
        Ok(Self { segment, sequence, count, entries_end, summary_checksum: u64_at(48) })
    }

    /// Bytes of the summary.
    #[must_use]
    pub fn summary_bytes(&self) -> usize {
        self.count as usize * SUMMARY_ENTRY_BYTES
    }
}

/// What stands before each entry's bytes: enough to check them without any index in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryHeader {
    /// Whose page.
    pub slot: SlotId,
    /// Encoded bytes that follow.
    pub len: u16,
    /// How they are encoded.
    pub tag: CodecTag,
}

impl EntryHeader {
    /// Bytes that an entry of `len` encoded bytes takes, with header and padding.
    #[must_use]
    pub const fn stride(len: usize) -> usize {
        (ENTRY_HEADER_BYTES + len).next_multiple_of(UNIT)
    }

    /// Writes header and padding around the payload, which already stands at its place in `out`
    /// (`out` is exactly one stride).
    pub(crate) fn encode(&self, seed: u64, out: &mut [u8]) {
        let end = ENTRY_HEADER_BYTES + usize::from(self.len);
        out[8..16].copy_from_slice(&self.slot.get().to_le_bytes());
        out[16..18].copy_from_slice(&self.len.to_le_bytes());
        out[18] = self.tag.codec;
        out[19] = 0; // flags: none yet
        out[20..24].copy_from_slice(&self.tag.dictionary.to_le_bytes());
        out[end..].fill(0);
        let sum = checksum(seed, &out[8..end]);
        out[..8].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads and checks the entry at the start of `bytes`, which stands at `offset` of its segment.
    pub(crate) fn decode(seed: u64, offset: usize, bytes: &[u8]) -> Result<Self, FormatError> {
        let truncated = |needed| FormatError::Truncated { offset, needed, have: bytes.len() };
        if bytes.len() < ENTRY_HEADER_BYTES {
            return Err(truncated(ENTRY_HEADER_BYTES));
        }
        let len = u16::from_le_bytes(field(bytes, 16));
        if usize::from(len) > MAX_ENTRY_BYTES {
            return Err(FormatError::Layout { offset: offset + 16, found: len.into() });
        }
        let end = ENTRY_HEADER_BYTES + usize::from(len);
        if end > bytes.len() {
            return Err(truncated(end));
        }
        if u64::from_le_bytes(field(bytes, 0)) != checksum(seed, &bytes[8..end]) {
            return Err(FormatError::Checksum { offset });
        }
        if bytes[19] != 0 {
            return Err(FormatError::Flags { offset: offset + 19, found: bytes[19].into() });
        }
        let slot = u64::from_le_bytes(field(bytes, 8));
        let slot = SlotId::new(slot).ok_or(FormatError::Layout { offset: offset + 8, found: slot })?;
        let tag = CodecTag { codec: bytes[18], dictionary: u32::from_le_bytes(field(bytes, 20)) };
        Ok(Self { slot, len, tag })
    }
}

/// An entry as the summary lists it: the reverse map of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SummaryEntry {
    /// Whose page.
    pub slot: SlotId,
    /// Where its header stands, in bytes from the segment's start.
    pub offset: u32,
    /// Encoded bytes.
    pub len: u16,
    /// The codec, without its dictionary (which the inline header has).
    pub codec: u8,
}

impl SummaryEntry {
    pub(crate) fn encode(&self, out: &mut [u8]) {
        out[..8].copy_from_slice(&self.slot.get().to_le_bytes());
        out[8..12].copy_from_slice(&(self.offset / UNIT as u32).to_le_bytes());
        out[12..14].copy_from_slice(&self.len.to_le_bytes());
        out[14] = self.codec;
        out[15] = 0; // flags: none yet
    }

    /// Reads the summary entry that starts at `at` of `segment`; `limit` is where entries end.
    pub(crate) fn decode(segment: &[u8], at: usize, limit: u32) -> Result<Self, FormatError> {
        let raw = bytes_at(segment, at, SUMMARY_ENTRY_BYTES)?;
        let slot = u64::from_le_bytes(field(raw, 0));
        let slot = SlotId::new(slot).ok_or(FormatError::Layout { offset: at, found: slot })?;
        let units = u32::from_le_bytes(field(raw, 8));
        let len = u16::from_le_bytes(field(raw, 12));
        let offset = u64::from(units) * UNIT as u64;
        let end = offset + EntryHeader::stride(len.into()) as u64;
        if offset < HEADER_BYTES as u64 || end > u64::from(limit) || usize::from(len) > MAX_ENTRY_BYTES {
            return Err(FormatError::Layout { offset: at + 8, found: units.into() });
        }
        if raw[15] != 0 {
            return Err(FormatError::Flags { offset: at + 15, found: raw[15].into() });
        }
        Ok(Self { slot, offset: offset as u32, len, codec: raw[14] })
    }
}

/// The bytes to write for so many bytes of segment: whole blocks.
pub(crate) const fn padded(len: usize) -> usize {
    len.next_multiple_of(BLOCK)
}
