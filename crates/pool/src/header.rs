//! What stands beside every entry: 8 bytes.

use vswap_core::{PAGE_SIZE, SlotId};

/// How an entry's bytes are encoded, as ten bits of the codec layer's; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EntryTag(u16);

impl EntryTag {
    /// Bits of a tag.
    pub const BITS: u32 = 10;

    /// Makes a tag, or `None` for 0 (which marks a free entry) and from 1024 up.
    pub const fn new(bits: u16) -> Option<Self> {
        if bits == 0 || bits >> Self::BITS != 0 { None } else { Some(Self(bits)) }
    }

    /// The bits.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// The header of an entry in use: whose it is, how long, how encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryHeader {
    /// The reverse map: the slot that refers to the entry.
    pub slot: SlotId,
    /// How the bytes are encoded.
    pub tag: EntryTag,
    /// How many bytes there are.
    pub length: usize,
}

const LENGTH_BITS: u32 = 13;
const TAG_SHIFT: u32 = LENGTH_BITS;
const SLOT_SHIFT: u32 = TAG_SHIFT + EntryTag::BITS;

const _: () = assert!(SLOT_SHIFT + SlotId::BITS == u64::BITS);
const _: () = assert!(PAGE_SIZE < 1 << LENGTH_BITS);

impl EntryHeader {
    pub(crate) const fn to_word(self) -> HeaderWord {
        let upper = self.slot.get() << SLOT_SHIFT | (self.tag.0 as u64) << TAG_SHIFT;
        HeaderWord(upper | self.length as u64)
    }
}

/// The 8 bytes as they are kept: an entry's header, or the next link of the free list (then the tag is 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct HeaderWord(u64);

const _: () = assert!(size_of::<HeaderWord>() == 8);

impl HeaderWord {
    /// A free entry; `next` is the one after it in its chunk's free list.
    pub(crate) const fn free(next: Option<u16>) -> Self {
        match next {
            Some(next) => Self((next as u64 + 1) << SLOT_SHIFT),
            None => Self(0),
        }
    }

    /// The entry's header, if it is in use.
    pub(crate) const fn entry(self) -> Option<EntryHeader> {
        let Some(tag) = EntryTag::new((self.0 >> TAG_SHIFT) as u16 & ((1 << EntryTag::BITS) - 1)) else {
            return None;
        };
        match SlotId::new(self.0 >> SLOT_SHIFT) {
            Some(slot) => Some(EntryHeader { slot, tag, length: self.0 as usize & ((1 << LENGTH_BITS) - 1) }),
            None => None,
        }
    }

    /// The next free entry, of one that is free.
    pub(crate) const fn next_free(self) -> Option<u16> {
        match self.0 >> SLOT_SHIFT {
            0 => None,
            next => Some((next - 1) as u16),
        }
    }
}
