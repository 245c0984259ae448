//! One bit for each page of a 2 MiB block (or slot of a cluster), small enough to copy.
//!
//! Invariant: 512 bits exactly; an index is a [`PageIndex`], so no operation can be out of range.

use crate::units::{PAGES_PER_CLUSTER, PageIndex};
use core::fmt;
use core::ops::{BitAnd, BitAndAssign, BitOr, BitOrAssign, BitXor, BitXorAssign, Not};

const WORDS: usize = PAGES_PER_CLUSTER / 64;

/// A set of [`PageIndex`]es.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Bitmap512 {
    words: [u64; WORDS],
}

impl Bitmap512 {
    /// No page.
    pub const EMPTY: Self = Self { words: [0; WORDS] };
    /// All 512 pages.
    pub const FULL: Self = Self { words: [u64::MAX; WORDS] };

    /// Makes a set from its words, lowest index first.
    pub const fn from_words(words: [u64; 8]) -> Self {
        Self { words }
    }

    /// The words, lowest index first.
    pub const fn words(&self) -> &[u64; 8] {
        &self.words
    }

    /// The set of `len` pages from `start`, cut at the end of the block.
    pub const fn from_range(start: PageIndex, len: usize) -> Self {
        let mut set = Self::EMPTY;
        let from = start.get();
        let room = PAGES_PER_CLUSTER - from;
        let end = from + if len < room { len } else { room };
        let mut word = 0;
        while word < WORDS {
            let low = word * 64;
            if from < low + 64 && end > low {
                let above = if from > low { u64::MAX << (from - low) } else { u64::MAX };
                let below = if end < low + 64 { (1 << (end - low)) - 1 } else { u64::MAX };
                set.words[word] = above & below;
            }
            word += 1;
        }
        set
    }

    /// The set of one page.
    pub const fn single(index: PageIndex) -> Self {
        let mut set = Self::EMPTY;
        set.set(index);
        set
    }

    /// Tells whether the page is in the set.
    pub const fn get(&self, index: PageIndex) -> bool {
        let at = index.get();
        self.words[at / 64] >> (at % 64) & 1 == 1
    }

    /// Puts the page in.
    pub const fn set(&mut self, index: PageIndex) {
        let at = index.get();
        self.words[at / 64] |= 1 << (at % 64);
    }

    /// Takes the page out.
    pub const fn clear(&mut self, index: PageIndex) {
        let at = index.get();
        self.words[at / 64] &= !(1 << (at % 64));
    }

    /// Puts the page in or takes it out.
    pub const fn assign(&mut self, index: PageIndex, value: bool) {
        if value {
            self.set(index);
        } else {
            self.clear(index);
        }
    }

    /// From the first page in the set to behind the last; `None` if it is empty.
    pub fn bounds(&self) -> Option<core::ops::Range<usize>> {
        let first = self.words.iter().position(|word| *word != 0)?;
        let last = self.words.iter().rposition(|word| *word != 0)?;
        let start = first * 64 + self.words[first].trailing_zeros() as usize;
        Some(start..(last + 1) * 64 - self.words[last].leading_zeros() as usize)
    }

    /// How many pages are in the set.
    pub const fn count(&self) -> usize {
        let mut sum = 0;
        let mut word = 0;
        while word < WORDS {
            sum += self.words[word].count_ones() as usize;
            word += 1;
        }
        sum
    }

    /// Tells whether no page is in the set.
    pub const fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// Tells whether every page is in the set.
    pub const fn is_full(&self) -> bool {
        self.count() == PAGES_PER_CLUSTER
    }

    /// The lowest page in the set.
    pub const fn first(&self) -> Option<PageIndex> {
        PageIndex::new(self.next_one(0))
    }

    /// The pages in this set that are not in the other.
    #[must_use]
    pub const fn and_not(&self, other: &Self) -> Self {
        let mut words = self.words;
        let mut word = 0;
        while word < WORDS {
            words[word] &= !other.words[word];
            word += 1;
        }
        Self { words }
    }

    /// The pages in this set or the other.
    #[must_use]
    pub const fn or(&self, other: &Self) -> Self {
        let mut words = self.words;
        let mut word = 0;
        while word < WORDS {
            words[word] |= other.words[word];
            word += 1;
        }
        Self { words }
    }

    /// The `most` lowest pages in the set.
    #[must_use]
    pub fn lowest(&self, most: usize) -> Self {
        if self.count() <= most {
            return *self;
        }
        let mut fewer = Self::EMPTY;
        self.iter().take(most).for_each(|page| fewer.set(page));
        fewer
    }

    /// The pages in the set, lowest first.
    pub fn iter(&self) -> Iter {
        Iter { rest: *self, word: 0 }
    }

    /// The runs of neighbouring pages in the set, as (first page, length), lowest first.
    pub fn runs(&self) -> Runs {
        Runs { set: *self, at: 0 }
    }

    /// The first index from `from` on that is in the set; 512 if none.
    const fn next_one(&self, from: usize) -> usize {
        scan(&self.words, from, 0)
    }

    /// The first index from `from` on that is not in the set; 512 if none.
    const fn next_zero(&self, from: usize) -> usize {
        scan(&self.words, from, u64::MAX)
    }
}

/// The first bit from `from` on that is set in `words ^ flip`; 512 if none.
const fn scan(words: &[u64; WORDS], from: usize, flip: u64) -> usize {
    let mut word = from / 64;
    let mut mask = u64::MAX << (from % 64);
    while word < WORDS {
        let bits = (words[word] ^ flip) & mask;
        if bits != 0 {
            return word * 64 + bits.trailing_zeros() as usize;
        }
        mask = u64::MAX;
        word += 1;
    }
    PAGES_PER_CLUSTER
}

/// The pages of a set, lowest first.
#[derive(Clone, Debug)]
pub struct Iter {
    rest: Bitmap512,
    word: usize,
}

impl Iterator for Iter {
    type Item = PageIndex;

    fn next(&mut self) -> Option<PageIndex> {
        while self.word < WORDS {
            let bits = self.rest.words[self.word];
            if bits != 0 {
                self.rest.words[self.word] = bits & (bits - 1);
                return PageIndex::new(self.word * 64 + bits.trailing_zeros() as usize);
            }
            self.word += 1;
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.rest.count();
        (left, Some(left))
    }
}

impl ExactSizeIterator for Iter {}

impl IntoIterator for &Bitmap512 {
    type Item = PageIndex;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

impl FromIterator<PageIndex> for Bitmap512 {
    fn from_iter<I: IntoIterator<Item = PageIndex>>(pages: I) -> Self {
        let mut set = Self::EMPTY;
        for page in pages {
            set.set(page);
        }
        set
    }
}

/// The runs of a set, as (first page, length).
#[derive(Clone, Debug)]
pub struct Runs {
    set: Bitmap512,
    at: usize,
}

impl Iterator for Runs {
    type Item = (PageIndex, usize);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= PAGES_PER_CLUSTER {
            return None;
        }
        let start = self.set.next_one(self.at);
        let first = PageIndex::new(start)?;
        let end = self.set.next_zero(start);
        self.at = end;
        Some((first, end - start))
    }
}

macro_rules! bit_op {
    ($op:ident, $method:ident, $assign:ident, $assign_method:ident, $sign:tt) => {
        impl $assign for Bitmap512 {
            fn $assign_method(&mut self, other: Self) {
                for (mine, theirs) in self.words.iter_mut().zip(other.words) {
                    *mine = *mine $sign theirs;
                }
            }
        }

        impl $op for Bitmap512 {
            type Output = Self;

            fn $method(mut self, other: Self) -> Self {
                $assign::$assign_method(&mut self, other);
                self
            }
        }
    };
}

bit_op!(BitAnd, bitand, BitAndAssign, bitand_assign, &);
bit_op!(BitOr, bitor, BitOrAssign, bitor_assign, |);
bit_op!(BitXor, bitxor, BitXorAssign, bitxor_assign, ^);

impl Not for Bitmap512 {
    type Output = Self;

    fn not(self) -> Self {
        Self { words: self.words.map(|word| !word) }
    }
}

impl fmt::Debug for Bitmap512 {
    /// As the runs in it: `{0..4, 9..10}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.runs().map(|(start, len)| start.get()..start.get() + len)).finish()
    }
}
