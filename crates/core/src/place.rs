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

/// The place of an entry in a segment, as the segment layer packs it. Opaque here and above the segment
/// layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SegmentAddr(u64);

impl SegmentAddr {
    /// Bits that an address may use.
    pub const BITS: u32 = 48;

    /// Makes an address from the segment layer's bits, or `None` if there are more than 48.
    pub const fn new(bits: u64) -> Option<Self> {
        if bits >> Self::BITS == 0 { Some(Self(bits)) } else { None }
    }

    /// The segment layer's bits.
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }
}

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

/// A page on its way out of the pool. The source is in the word itself, so a reader reads it without waiting
/// for the move or looking anything up; the batch knows the destination. Any store or free replaces the word,
/// and the move then finds that it has lost: the entry's handle may be used again, this word with this batch
/// cannot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Moving {
    /// Where the bytes still are.
    pub source: PoolHandle,
    /// The batch that moves them.
    pub batch: MoveId,
}

const _: () = assert!(PoolHandle::BITS + MoveId::BITS == 48);
