//! The slot word: everything about a page in the virtual swap space in 8 bytes, changed by compare-and-swap.
//!
//! | bits | what |
//! | --- | --- |
//! | 0..48 | locator: fill pattern, pool handle, segment address, or pool handle + batch of a move |
//! | 48..51 | kind of backing |
//! | 51 | accessed: loaded since the clock hand last passed |
//! | 52..56 | age: the generation (modulo 16) in which the bytes came to the pool or were last seen in use |
//! | 56..64 | swap count: private lists that refer to the slot; 255 says that the count is in a side table |
//!
//! Invariants: the word 0 is the empty slot, so fresh zeroed memory is a space of empty slots; an `Empty`
//! word has no accessed bit and no age, so empty words differ in their count alone. There is no lock bit: a
//! pool entry is pinned by its chunk's lock for the time of a copy and told apart by the slot in its header,
//! a segment entry by a reader count of its segment, and a move that lost a race finds its `Moving` word
//! replaced.

use crate::fill::FillPattern;
use crate::place::{MoveId, Moving, PoolHandle, SegmentAddr};
use crate::sync::{AtomicU64, Ordering};

const LOCATOR_BITS: u32 = 48;
const LOCATOR_MASK: u64 = (1 << LOCATOR_BITS) - 1;
const KIND_MASK: u64 = 0b111 << LOCATOR_BITS;
const BACKING_MASK: u64 = LOCATOR_MASK | KIND_MASK;
const ACCESSED: u64 = 1 << 51;
const AGE_SHIFT: u32 = 52;
const AGE_MASK: u64 = (Age::COUNT as u64 - 1) << AGE_SHIFT;
const COUNT_SHIFT: u32 = 56;
const COUNT_MASK: u64 = 0xff << COUNT_SHIFT;

const EMPTY: u64 = 0;
const FILL_TWICE: u64 = 1;
const FILL_EXTENDED: u64 = 2;
const POOL: u64 = 3;
const SEGMENT: u64 = 4;
const MOVING: u64 = 5;
const POISONED: u64 = 6;

/// Where a slot's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backing {
    /// Nowhere: no page.
    Empty,
    /// In the word: one pattern over and over.
    Fill(FillPattern),
    /// A pool entry.
    Pool(PoolHandle),
    /// A segment entry.
    Segment(SegmentAddr),
    /// A pool entry that is being copied to a segment.
    Moving(Moving),
    /// Lost: reading it is an error until a page is stored again.
    Poisoned,
}

impl Backing {
    /// The pool entry that holds the bytes now, moving or not.
    pub const fn pool_entry(self) -> Option<PoolHandle> {
        match self {
            Self::Pool(handle) | Self::Moving(Moving { source: handle, .. }) => Some(handle),
            _ => None,
        }
    }

    const fn to_bits(self) -> u64 {
        let (kind, locator) = match self {
            Self::Empty => (EMPTY, 0),
            Self::Fill(pattern) => match pattern.to_bits() {
                (false, bits) => (FILL_TWICE, bits),
                (true, bits) => (FILL_EXTENDED, bits),
            },
            Self::Pool(handle) => (POOL, handle.to_bits()),
            Self::Segment(addr) => (SEGMENT, addr.get()),
            Self::Moving(Moving { source, batch }) => {
                (MOVING, (batch.get() as u64) << PoolHandle::BITS | source.to_bits())
            }
            Self::Poisoned => (POISONED, 0),
        };
        kind << LOCATOR_BITS | locator
    }

    const fn from_bits(word: u64) -> Self {
        let locator = word & LOCATOR_MASK;
        match (word & KIND_MASK) >> LOCATOR_BITS {
            EMPTY => Self::Empty,
            FILL_TWICE => Self::Fill(FillPattern::from_bits(false, locator)),
            FILL_EXTENDED => Self::Fill(FillPattern::from_bits(true, locator)),
            POOL => Self::Pool(PoolHandle::from_bits(locator)),
            SEGMENT => Self::Segment(SegmentAddr::from_bits(locator)),
            MOVING => match MoveId::new((locator >> PoolHandle::BITS) as u8) {
                Some(batch) => Self::Moving(Moving { source: PoolHandle::from_bits(locator), batch }),
                None => Self::Poisoned,
            },
            // 7 is never written; if it is ever seen the page must not be trusted.
            _ => Self::Poisoned,
        }
    }
}

/// A generation, modulo 16: see [`crate::age`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Age(u8);

impl Age {
    /// How many can be told apart.
    pub const COUNT: usize = 16;

    /// The age of a generation's number.
    pub const fn of_generation(generation: u64) -> Self {
        Self((generation % Self::COUNT as u64) as u8)
    }

    /// The number, below 16.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// How many generations ago this was, seen from `now`; below 16.
    pub const fn generations_before(self, now: Self) -> usize {
        (now.0.wrapping_sub(self.0) as usize) % Self::COUNT
    }
}

/// How many private lists refer to a slot, as far as the word can tell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SwapCount {
    /// The exact number.
    Exact(u8),
    /// [`SwapCount::OVERFLOW`] or more: the number is in the side table.
    Overflowed,
}

impl SwapCount {
    /// The least number that the word cannot hold.
    pub const OVERFLOW: u64 = 255;
}

/// The value of a slot at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SlotWord(u64);

const _: () = assert!(size_of::<SlotWord>() == 8);
const _: () = assert!(BACKING_MASK & (ACCESSED | AGE_MASK | COUNT_MASK) == 0);
const _: () = assert!(BACKING_MASK | ACCESSED | AGE_MASK | COUNT_MASK == u64::MAX);
const _: () = assert!(ACCESSED & AGE_MASK == 0 && AGE_MASK & COUNT_MASK == 0);

impl SlotWord {
    /// The empty slot: no page, no count.
    pub const EMPTY: Self = Self(0);

    /// A word of a backing that nobody has read yet, of an age, with no count.
    pub const fn new(backing: Backing, age: Age) -> Self {
        match backing {
            Backing::Empty => Self::EMPTY,
            _ => Self(backing.to_bits() | (age.get() as u64) << AGE_SHIFT),
        }
    }

    /// Where the bytes are.
    pub const fn backing(self) -> Backing {
        Backing::from_bits(self.0)
    }

    /// Tells whether there is no page, without casting out the locator.
    pub const fn is_empty(self) -> bool {
        self.0 & KIND_MASK == EMPTY << LOCATOR_BITS
    }

    /// Tells whether the bytes are in the pool and not moving.
    pub const fn is_pool(self) -> bool {
        self.0 & KIND_MASK == POOL << LOCATOR_BITS
    }

    /// Tells whether two words name the same backing, whatever their marks and counts.
    pub const fn same_backing(self, other: Self) -> bool {
        (self.0 ^ other.0) & BACKING_MASK == 0
    }

    /// The word with another backing and age, not accessed, and the same count.
    #[must_use]
    pub const fn with_backing(self, backing: Backing, age: Age) -> Self {
        Self(Self::new(backing, age).0 | self.0 & COUNT_MASK)
    }

    /// The word with another backing and everything else kept: for a move, which changes no content.
    #[must_use]
    pub const fn moved_to(self, backing: Backing) -> Self {
        Self(self.0 & !BACKING_MASK | backing.to_bits())
    }

    /// Loaded since the clock hand last passed.
    pub const fn accessed(self) -> bool {
        self.0 & ACCESSED != 0
    }

    /// The word with its accessed mark set; an empty one stays as it is.
    #[must_use]
    pub const fn with_accessed(self) -> Self {
        if self.is_empty() { self } else { Self(self.0 | ACCESSED) }
    }

    /// The word as the clock hand leaves it: of this age, not accessed.
    #[must_use]
    pub const fn with_age(self, age: Age) -> Self {
        if self.is_empty() {
            return self;
        }
        Self(self.0 & !(AGE_MASK | ACCESSED) | (age.get() as u64) << AGE_SHIFT)
    }

    /// The age.
    pub const fn age(self) -> Age {
        Age(((self.0 & AGE_MASK) >> AGE_SHIFT) as u8)
    }

    /// How many private lists refer to the slot.
    pub const fn count(self) -> SwapCount {
        match (self.0 >> COUNT_SHIFT) as u8 {
            u8::MAX => SwapCount::Overflowed,
            exact => SwapCount::Exact(exact),
        }
    }

    /// The word with another count; what is past 254 shows as overflowed.
    #[must_use]
    pub const fn with_count(self, count: u64) -> Self {
        let inline = if count < SwapCount::OVERFLOW { count } else { SwapCount::OVERFLOW };
        Self(self.0 & !COUNT_MASK | inline << COUNT_SHIFT)
    }
}

impl core::fmt::Debug for SlotWord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SlotWord")
            .field("backing", &self.backing())
            .field("accessed", &self.accessed())
            .field("age", &self.age().get())
            .field("count", &self.count())
            .finish()
    }
}

/// A slot in memory: a view of the atomic that holds its word. Nothing else touches the bits.
///
/// Orderings: a word that names a pool or segment entry must not be seen before the entry's bytes, hence
/// release on every change and acquire on every read. (Pool entries are also ordered by their chunk's lock;
/// the word does not rely on that.) Changes of marks alone publish nothing, but keep what earlier changes
/// published by being read-modify-writes, so they are relaxed.
#[derive(Clone, Copy, Debug)]
pub struct SlotCell<'a>(&'a AtomicU64);

impl<'a> SlotCell<'a> {
    /// The slot whose word this atomic holds.
    pub const fn new(word: &'a AtomicU64) -> Self {
        Self(word)
    }

    /// The word now. Acquire: what the word names is complete.
    pub fn load(self) -> SlotWord {
        SlotWord(self.0.load(Ordering::Acquire))
    }

    /// Changes the word from `seen` to `new`, or tells what it is instead.
    ///
    /// # Errors
    /// The present word, if it is not `seen`.
    pub fn compare_exchange(self, seen: SlotWord, new: SlotWord) -> Result<(), SlotWord> {
        // AcqRel: publishes what `new` names, and takes over what the old word named (whoever swaps a
        // handle out may free its entry). The failure's word is acted on as by `load`: acquire.
        match self.0.compare_exchange(seen.0, new.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(SlotWord(now)),
        }
    }

    /// Changes the word by `change` until it holds or `change` gives up; gives the word before.
    ///
    /// # Errors
    /// The present word, if `change` gave up on it.
    pub fn update(self, mut change: impl FnMut(SlotWord) -> Option<SlotWord>) -> Result<SlotWord, SlotWord> {
        let mut seen = self.load();
        loop {
            let Some(new) = change(seen) else { return Err(seen) };
            match self.compare_exchange(seen, new) {
                Ok(()) => return Ok(seen),
                Err(now) => seen = now,
            }
        }
    }

    /// Marks the page as used if the word is still `seen`; if not, nothing is lost but a hint.
    pub fn mark_accessed(self, seen: SlotWord) {
        if seen.accessed() {
            return;
        }
        // Relaxed: publishes nothing; as a read-modify-write it keeps the release that `seen` came with.
        let marked = seen.with_accessed();
        let _ = self.0.compare_exchange(seen.0, marked.0, Ordering::Relaxed, Ordering::Relaxed);
    }
}
