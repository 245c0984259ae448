//! The bytes of a segment: header, entry headers, summary. All integers little-endian.
//!
//! | part | where | holds |
//! | --- | --- | --- |
//! | [`Header`] | 0, 64 bytes | magic, version, flags, identity, lengths, checksums |
//! | entries | from 64, each at a multiple of 16 | [`EntryHeader`] (24 bytes, 32 if encrypted) and the encoded bytes |
//! | summary | after the entries | [`SummaryEntry`] (16 bytes) for each entry, in order |
//!
//! Checksums are xxh3-64 with a seed that mixes the run's key, the segment's sequence number and the
//! offset, so that bytes of another run, of an earlier writing of the same extent, or from another
//! place do not match. They find faults; they do not withstand an attacker who can write the disk. Where pages are encrypted
//! ([`Guard::Encrypted`]), each entry has the cipher's tag instead, which does; see [`Cipher`](crate::Cipher).

use crate::addr::UNIT;
use crate::{BLOCK, FormatError, Keys, MAX_ENTRY_BYTES, SEGMENT_BYTES, SegmentId};
use std::hash::{BuildHasher, RandomState};
use twox_hash::XxHash3_64;
use vswap_core::SlotId;

/// The first eight bytes of a segment, as text.
pub const MAGIC: [u8; 8] = *b"VSWAPSEG";
/// The version written and read.
pub const VERSION: u16 = 1;
/// Bytes of the segment's header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of an entry's inline header behind its guard: slot, length, codec, flags, dictionary.
pub const ENTRY_FIELDS_BYTES: usize = 16;
/// Bytes of an entry in the summary.
pub const SUMMARY_ENTRY_BYTES: usize = 16;

/// What stands at the start of each entry and tells whether it is as it was written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Guard {
    /// A checksum of 8 bytes; the page is in the clear.
    Checksum,
    /// The 16 bytes of an authenticated cipher's tag; the page is encrypted. (In memory: a checksum in as much room.)
    Encrypted,
}

impl Guard {
    /// Bytes of a checksum.
    pub(crate) const CHECKSUM_BYTES: usize = 8;

    /// Bytes of the guard itself.
    const fn bytes(self) -> usize {
        match self {
            Self::Checksum => Self::CHECKSUM_BYTES,
            Self::Encrypted => 16,
        }
    }

    /// Bytes of an entry's header: guard and fields.
    #[must_use]
    pub const fn header_bytes(self) -> usize {
        self.bytes() + ENTRY_FIELDS_BYTES
    }

    /// Bytes that an entry of `len` encoded bytes takes, with header and padding.
    #[must_use]
    pub const fn stride(self, len: usize) -> usize {
        (self.header_bytes() + len).next_multiple_of(UNIT)
    }
}

/// The most bytes that an entry takes.
pub(crate) const MAX_STRIDE: usize = Guard::Encrypted.stride(MAX_ENTRY_BYTES);

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
    pub(crate) fn encode(&self, keys: &Keys, out: &mut [u8]) {
        let (key, guard) = (keys.run, keys.guard());
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&keys.flags().to_le_bytes());
        out[12..14].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        out[14..16].copy_from_slice(&(guard.header_bytes() as u16).to_le_bytes());
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
    pub fn decode(keys: &Keys, bytes: &[u8]) -> Result<Self, FormatError> {
        let (key, guard) = (keys.run, keys.guard());
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
        if u16_at(10) != keys.flags() {
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
        for (at, wanted) in [(12, HEADER_BYTES), (14, guard.header_bytes())] {
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
    /// Writes fields and padding around the payload, which already stands at its place in `out`
    /// (`out` is exactly one stride). The guard comes later, from [`Keys::protect`].
    pub(crate) fn encode(&self, guard: Guard, out: &mut [u8]) {
        let (fields, end) = (guard.bytes(), guard.header_bytes() + usize::from(self.len));
        let out_fields = &mut out[fields..fields + ENTRY_FIELDS_BYTES];
        out_fields[..8].copy_from_slice(&self.slot.get().to_le_bytes());
        out_fields[8..10].copy_from_slice(&self.len.to_le_bytes());
        out_fields[10] = self.tag.codec;
        out_fields[11] = 0; // flags: none yet
        out_fields[12..16].copy_from_slice(&self.tag.dictionary.to_le_bytes());
        out[end..].fill(0);
    }

    /// Checks the entry at the start of `bytes`, which stands at `offset` of its segment, decrypts it where it is, and reads its header.
    pub(crate) fn open(
        keys: &Keys,
        sequence: u64,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<Self, FormatError> {
        let (guard, have) = (keys.guard(), bytes.len());
        let (fields, payload) = (guard.bytes(), guard.header_bytes());
        let truncated = |needed| FormatError::Truncated { offset, needed, have };
        if have < payload {
            return Err(truncated(payload));
        }
        let len = u16::from_le_bytes(field(bytes, fields + 8));
        if usize::from(len) > MAX_ENTRY_BYTES {
            return Err(FormatError::Layout { offset: offset + fields + 8, found: len.into() });
        }
        let entry =
            bytes.get_mut(..payload + usize::from(len)).ok_or(truncated(payload + usize::from(len)))?;
        keys.open(sequence, offset, entry)?;
        let flags = entry[fields + 11];
        if flags != 0 {
            return Err(FormatError::Flags { offset: offset + fields + 11, found: flags.into() });
        }
        let slot = u64::from_le_bytes(field(entry, fields));
        let slot = SlotId::new(slot).ok_or(FormatError::Layout { offset: offset + fields, found: slot })?;
        let dictionary = u32::from_le_bytes(field(entry, fields + 12));
        Ok(Self { slot, len, tag: CodecTag { codec: entry[fields + 10], dictionary } })
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

    /// Reads an entry of the summary; `limit` is where entries end and the summary starts.
    pub(crate) fn decode(
        guard: Guard,
        summary: &[u8],
        index: usize,
        limit: u32,
    ) -> Result<Self, FormatError> {
        let raw = bytes_at(summary, index * SUMMARY_ENTRY_BYTES, SUMMARY_ENTRY_BYTES)?;
        let at = limit as usize + index * SUMMARY_ENTRY_BYTES;
        let slot = u64::from_le_bytes(field(raw, 0));
        let slot = SlotId::new(slot).ok_or(FormatError::Layout { offset: at, found: slot })?;
        let units = u32::from_le_bytes(field(raw, 8));
        let len = u16::from_le_bytes(field(raw, 12));
        let offset = u64::from(units) * UNIT as u64;
        let end = offset + guard.stride(len.into()) as u64;
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
