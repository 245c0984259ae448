//! Physical places: where a page's bytes are. Each fits in the 48 bits of a slot's locator.

/// The pool's name for one of its entries: size class, chunk, index in the chunk. Opaque above the pool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PoolHandle(u64);

impl PoolHandle {
    /// Bits of a handle: what [`Moving`] leaves of a locator beside its batch.
    pub const BITS: u32 = 43;
    const CLASS_BITS: u32 = 7;
    const INDEX_BITS: u32 = 12;
    const CHUNK_BITS: u32 = Self::BITS - Self::CLASS_BITS - Self::INDEX_BITS;

    /// Size classes that a handle can tell apart.
    pub const CLASSES: usize = 1 << Self::CLASS_BITS;
    /// Chunks that a handle can tell apart.
    pub const CHUNKS: usize = 1 << Self::CHUNK_BITS;
    /// Entries of one chunk that a handle can tell apart.
    pub const ENTRIES: usize = 1 << Self::INDEX_BITS;

    /// Makes a handle, or `None` if a part is out of range.
    pub const fn new(class: usize, chunk: usize, index: usize) -> Option<Self> {
        if class >= Self::CLASSES || chunk >= Self::CHUNKS || index >= Self::ENTRIES {
            return None;
        }
        let upper = (class as u64) << Self::CHUNK_BITS | chunk as u64;
        Some(Self(upper << Self::INDEX_BITS | index as u64))
    }

    /// The size class.
    pub const fn class(self) -> usize {
        (self.0 >> (Self::INDEX_BITS + Self::CHUNK_BITS)) as usize
    }

    /// The chunk.
    pub const fn chunk(self) -> usize {
        (self.0 >> Self::INDEX_BITS) as usize & (Self::CHUNKS - 1)
    }

    /// The index in the chunk.
    pub const fn index(self) -> usize {
        self.0 as usize & (Self::ENTRIES - 1)
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }
}

/// A 2 MiB segment: the index of its line in the segment table. Below 2^24 (32 TiB of segments).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentId(u32);

impl SegmentId {
    /// Bits of a segment's number.
    pub const BITS: u32 = 24;

    /// Makes an identity, or `None` from 2^24 up.
    pub const fn new(value: u32) -> Option<Self> {
        if value >> Self::BITS == 0 { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The place of an entry in a segment: offset in units of 16 bytes, and how many bytes to read at most, in units
/// of 64, so that one aligned read of the block or two that hold the entry is enough without knowing its length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SegmentAddr(u64);

impl SegmentAddr {
    /// Bytes in a segment.
    pub const SEGMENT_BYTES: usize = 2 << 20;
    /// What offsets are multiples of.
    pub const GRAIN: usize = 16;
    const SPAN_GRAIN: usize = 64;
    const SPAN_BITS: u32 = 7;
    const OFFSET_BITS: u32 = (Self::SEGMENT_BYTES / Self::GRAIN).trailing_zeros();
    /// The longest entry that an address can tell, header included.
    pub const MAX_SPAN: usize = ((1 << Self::SPAN_BITS) - 1) * Self::SPAN_GRAIN;

    /// Makes the address of an entry of `span` bytes (header and payload) at byte `offset` of a segment; `None`
    /// if the offset is not a multiple of 16, or the entry is longer than [`Self::MAX_SPAN`] or passes the end.
    pub const fn new(segment: SegmentId, offset: usize, span: usize) -> Option<Self> {
        if !offset.is_multiple_of(Self::GRAIN) || span == 0 || span > Self::MAX_SPAN {
            return None;
        }
        if offset >= Self::SEGMENT_BYTES || span > Self::SEGMENT_BYTES - offset {
            return None;
        }
        let upper = (segment.0 as u64) << Self::OFFSET_BITS | (offset / Self::GRAIN) as u64;
        Some(Self(upper << Self::SPAN_BITS | span.div_ceil(Self::SPAN_GRAIN) as u64))
    }

    /// The segment.
    pub const fn segment(self) -> SegmentId {
        SegmentId((self.0 >> (Self::OFFSET_BITS + Self::SPAN_BITS)) as u32)
    }

    /// The byte offset in the segment.
    pub const fn offset(self) -> usize {
        (self.0 >> Self::SPAN_BITS) as usize % (Self::SEGMENT_BYTES / Self::GRAIN) * Self::GRAIN
    }

    /// An upper bound of the entry's bytes, at most 63 too many, never past the segment's end.
    pub const fn span(self) -> usize {
        let span = (self.0 as usize & ((1 << Self::SPAN_BITS) - 1)) * Self::SPAN_GRAIN;
        let room = Self::SEGMENT_BYTES - self.offset();
        if span < room { span } else { room }
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

const _: () = assert!(SegmentId::BITS + SegmentAddr::OFFSET_BITS + SegmentAddr::SPAN_BITS == 48);

/// Which batch of moves is under way: two batches in flight at a time never have the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MoveId(u8);

impl MoveId {
    /// Bits of a batch's number.
    pub const BITS: u32 = 5;

    /// Makes an identity, or `None` from 32 up.
    pub const fn new(value: u8) -> Option<Self> {
        if value >> Self::BITS == 0 { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A page on its way out of the pool. The source is in the word itself, so a reader reads it without waiting for
/// the move or looking anything up; the batch knows the destination. Any store or free replaces the word, and the
/// move then finds that it has lost: the entry's handle may be used again, this word with this batch cannot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Moving {
    /// Where the bytes still are.
    pub source: PoolHandle,
    /// The batch that moves them.
    pub batch: MoveId,
}

const _: () = assert!(PoolHandle::BITS + MoveId::BITS == 48);
