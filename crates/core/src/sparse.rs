//! The arithmetic of a sparse array that grows without moving: segment `k` holds `first * 2^k` items, so few
//! segments reach any index, a small array is small, and an item is found by one count of leading zeroes and
//! one load.

/// How indices are spread over segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sparse {
    first_log2: u32,
}

/// Where an item is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Located {
    /// The segment.
    pub segment: usize,
    /// The item's index in it.
    pub at: usize,
}

impl Sparse {
    /// An array whose first segment has `2^first_log2` items.
    pub const fn new(first_log2: u32) -> Self {
        Self { first_log2 }
    }

    /// Where item `index` is.
    pub const fn locate(self, index: u32) -> Located {
        let biased = index as u64 + (1 << self.first_log2);
        let segment = biased.ilog2() - self.first_log2;
        Located { segment: segment as usize, at: (biased - (1 << (self.first_log2 + segment))) as usize }
    }

    /// How many items a segment has.
    pub const fn segment_len(self, segment: usize) -> usize {
        1 << (self.first_log2 as usize + segment)
    }

    /// How many segments hold every index below 2^32.
    pub const fn segments(self) -> usize {
        self.locate(u32::MAX).segment + 1
    }
}
