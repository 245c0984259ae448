//! Units and identities. Each is its own type with a private field and checked operations only, so
//! that a byte count cannot be taken for a page count, nor a cluster for a slot.
//!
//! Relations: a cluster is [`PAGES_PER_CLUSTER`] slots, `SlotId = ClusterId * 512 + PageIndex`;
//! `ByteCount = PageCount * 4096`.

use core::fmt;

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;
/// Pages (slots) in a cluster: as many as there are in 2 MiB.
pub const PAGES_PER_CLUSTER: usize = 512;
/// The bytes of one page.
pub type Page = [u8; PAGE_SIZE];

const PAGE_SHIFT: u32 = PAGE_SIZE.trailing_zeros();
const CLUSTER_SHIFT: u32 = PAGES_PER_CLUSTER.trailing_zeros();

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
        pub struct $name(u64);

        impl $name {
            /// None of it.
            pub const ZERO: Self = Self(0);

            /// Makes a count from its number.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Tells whether this is nothing.
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }

            /// The sum, or `None` past 2^64.
            pub const fn checked_add(self, other: Self) -> Option<Self> {
                match self.0.checked_add(other.0) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The difference, or `None` below zero.
            pub const fn checked_sub(self, other: Self) -> Option<Self> {
                match self.0.checked_sub(other.0) {
                    Some(rest) => Some(Self(rest)),
                    None => None,
                }
            }

            /// The sum, held at the greatest value.
            pub const fn saturating_add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// The difference, held at zero.
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }
    };
}

quantity! {
    /// A number of pages.
    PageCount
}
quantity! {
    /// A number of bytes.
    ByteCount
}

impl PageCount {
    /// The bytes in so many pages, held at the greatest value.
    pub const fn bytes(self) -> ByteCount {
        ByteCount(self.0.saturating_mul(PAGE_SIZE as u64))
    }
}

impl ByteCount {
    /// So many MiB (2^20 bytes), held at the greatest value.
    pub const fn mib(value: u64) -> Self {
        Self(value.saturating_mul(1 << 20))
    }

    /// The whole pages in it.
    pub const fn pages_down(self) -> PageCount {
        PageCount(self.0 >> PAGE_SHIFT)
    }

    /// The pages needed to hold it.
    pub const fn pages_up(self) -> PageCount {
        PageCount(self.0.div_ceil(PAGE_SIZE as u64))
    }
}

impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages", self.0)
    }
}

impl fmt::Display for ByteCount {
    /// In the unit in which people read it: `B`, `KiB`, `MiB`, `GiB` with one decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, name) in units {
            if self.0 >= 1 << shift {
                let tenths = (u128::from(self.0) * 10) >> shift;
                return write!(f, "{}.{} {name}", tenths / 10, tenths % 10);
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// The place of a page inside its 2 MiB block, which is also that of its slot inside the cluster:
/// always below 512.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PageIndex(u16);

impl PageIndex {
    /// The last place.
    pub const LAST: Self = Self(PAGES_PER_CLUSTER as u16 - 1);

    /// Makes an index, or `None` from 512 up.
    pub const fn new(value: usize) -> Option<Self> {
        if value < PAGES_PER_CLUSTER { Some(Self(value as u16)) } else { None }
    }

    /// The place in its 2 MiB block of the page that holds this address (or byte offset).
    pub const fn of_addr(addr: u64) -> Self {
        Self(((addr >> PAGE_SHIFT) as usize & (PAGES_PER_CLUSTER - 1)) as u16)
    }

    /// The number, below 512.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// The byte offset of the page inside its block.
    pub const fn byte_offset(self) -> u64 {
        (self.0 as u64) << PAGE_SHIFT
    }

    /// All 512 in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..PAGES_PER_CLUSTER as u16).map(Self)
    }
}

/// A cluster of 512 slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(u32);

impl ClusterId {
    /// Makes an identity from its number.
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The slot at a place of this cluster.
    pub const fn slot(self, index: PageIndex) -> SlotId {
        SlotId(((self.0 as u64) << CLUSTER_SHIFT) | index.0 as u64)
    }
}

/// A place in the virtual swap space. Below 2^41, so that it fits beside a length in an entry header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotId(u64);

impl SlotId {
    /// Bits that a slot's number may use.
    pub const BITS: u32 = u32::BITS + CLUSTER_SHIFT;

    /// Makes an identity, or `None` from 2^41 up.
    pub const fn new(value: u64) -> Option<Self> {
        if value >> Self::BITS == 0 { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The cluster that holds it.
    pub const fn cluster(self) -> ClusterId {
        ClusterId((self.0 >> CLUSTER_SHIFT) as u32)
    }

    /// Its place in the cluster.
    pub const fn index(self) -> PageIndex {
        PageIndex((self.0 & (PAGES_PER_CLUSTER as u64 - 1)) as u16)
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}.{}", self.cluster().0, self.index().0)
    }
}

/// A limit domain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct GroupId(u32);

impl GroupId {
    /// The group above all others.
    pub const ROOT: Self = Self(0);

    /// Makes an identity from its number.
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}
