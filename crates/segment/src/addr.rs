//! [`SegmentId`] and [`EntryAddr`]: what a slot remembers of a page in a segment.
//!
//! `EntryAddr` = segment (27 bits) | offset in 16-byte units (17) | blocks that hold the entry (2):
//! 46 bits, so it fits a slot's locator. 2^27 segments are 256 TiB.

use crate::{BLOCK, MAX_ENTRY_BLOCKS, SEGMENT_BYTES};
use std::fmt;

/// Entries start at multiples of this.
pub(crate) const UNIT: usize = 16;
const UNIT_BITS: u32 = (SEGMENT_BYTES / UNIT).trailing_zeros();
const SPAN_BITS: u32 = 2;

const _: () = assert!(SegmentId::BITS + UNIT_BITS + SPAN_BITS == EntryAddr::BITS);
const _: () = assert!(MAX_ENTRY_BLOCKS < 1 << SPAN_BITS);

/// The number of a segment; used again after its segment has died.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentId(u32);

impl SegmentId {
    /// Bits that a segment's number may use.
    pub const BITS: u32 = 27;

    /// Makes an identity, or `None` from 2^27 up.
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value >> Self::BITS == 0 { Some(Self(value)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}", self.0)
    }
}

/// Where an entry is: its segment, its offset there, and how many blocks hold it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryAddr(u64);

impl EntryAddr {
    /// Bits that an address uses, from the lowest.
    pub const BITS: u32 = 46;

    /// The address of `len` bytes (inline header included) at byte `offset` of `segment`, or `None` if
    /// that is no place for an entry.
    #[must_use]
    pub const fn new(segment: SegmentId, offset: usize, len: usize) -> Option<Self> {
        if !offset.is_multiple_of(UNIT) || len == 0 || offset >= SEGMENT_BYTES || len > SEGMENT_BYTES - offset
        {
            return None;
        }
        let span = (offset + len - 1) / BLOCK - offset / BLOCK + 1;
        if span > MAX_ENTRY_BLOCKS {
            return None;
        }
        let units = (offset / UNIT) as u64;
        Some(Self(((segment.0 as u64) << (UNIT_BITS + SPAN_BITS)) | (units << SPAN_BITS) | span as u64))
    }

    /// The address from its bits, or `None` if no address has them.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        let addr = Self(bits);
        let fits = bits >> Self::BITS == 0 && addr.blocks() != 0;
        if fits && addr.first_block() + addr.blocks() <= SEGMENT_BYTES / BLOCK { Some(addr) } else { None }
    }

    /// The bits, below 2^46.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The segment.
    #[must_use]
    pub const fn segment(self) -> SegmentId {
        SegmentId((self.0 >> (UNIT_BITS + SPAN_BITS)) as u32)
    }

    /// The byte offset of the entry's header in its segment.
    #[must_use]
    pub const fn offset(self) -> usize {
        ((self.0 >> SPAN_BITS) as usize & ((1 << UNIT_BITS) - 1)) * UNIT
    }

    /// How many blocks hold the entry: 1 to 3.
    #[must_use]
    pub const fn blocks(self) -> usize {
        self.0 as usize & ((1 << SPAN_BITS) - 1)
    }

    /// The first of these blocks.
    #[must_use]
    pub const fn first_block(self) -> usize {
        self.offset() / BLOCK
    }
}

impl fmt::Debug for EntryAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryAddr({}+{:#x}/{})", self.segment().0, self.offset(), self.blocks())
    }
}

impl fmt::Display for EntryAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} offset {:#x}", self.segment().0, self.offset())
    }
}
