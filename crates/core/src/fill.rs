//! Pages that are one word over and over: the word goes into the slot, the page costs nothing more.
//!
//! 48 bits are enough for a repeated byte, 16-bit or 32-bit word, and for a 64-bit word that is the
//! sign extension of its low 48 bits (small numbers of either sign, user-space addresses).

use crate::units::{PAGE_SIZE, Page};

/// A 64-bit word that fits in the 48 bits of a slot's locator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FillPattern(Form);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Form {
    /// The low 32 bits twice (also what repeats every 1, 2 or 4 bytes).
    Twice(u32),
    /// Sign-extended from 48 bits; not expressible as `Twice`.
    Extended(u64),
}

const EXTENDED_BITS: u32 = 48;
const EXTENDED_MASK: u64 = (1 << EXTENDED_BITS) - 1;

impl FillPattern {
    /// The pattern of a page of zeroes.
    pub const ZERO: Self = Self(Form::Twice(0));

    /// The pattern of a page that repeats `word`, if it fits.
    pub const fn of_word(word: u64) -> Option<Self> {
        if (word >> 32) as u32 == word as u32 {
            return Some(Self(Form::Twice(word as u32)));
        }
        if sign_extend(word & EXTENDED_MASK) == word {
            return Some(Self(Form::Extended(word)));
        }
        None
    }

    /// The pattern of a page, if it is one word over and over and the word fits.
    ///
    /// Looks at few words of most pages: the first and last pair decide for nearly all.
    pub fn of_page(page: &Page) -> Option<Self> {
        let (words, _) = page.as_chunks::<8>();
        let first = words[0];
        if words[words.len() - 1] != first || words[words.len() / 2] != first {
            return None;
        }
        if words.iter().any(|word| *word != first) {
            return None;
        }
        Self::of_word(u64::from_le_bytes(first))
    }

    /// The word that the page repeats.
    pub const fn word(self) -> u64 {
        match self.0 {
            Form::Twice(half) => (half as u64) << 32 | half as u64,
            Form::Extended(word) => word,
        }
    }

    /// Tells whether the page is all zero.
    pub const fn is_zero(self) -> bool {
        self.word() == 0
    }

    /// Makes the page.
    pub fn write(self, page: &mut Page) {
        let word = self.word().to_le_bytes();
        if word == [word[0]; 8] {
            page.fill(word[0]);
            return;
        }
        for at in page.as_chunks_mut::<8>().0 {
            *at = word;
        }
    }

    /// The two forms as the slot word keeps them: (is extended, 48 bits).
    pub(crate) const fn to_bits(self) -> (bool, u64) {
        match self.0 {
            Form::Twice(half) => (false, half as u64),
            Form::Extended(word) => (true, word & EXTENDED_MASK),
        }
    }

    /// The reverse of [`Self::to_bits`].
    pub(crate) const fn from_bits(extended: bool, bits: u64) -> Self {
        if extended { Self(Form::Extended(sign_extend(bits))) } else { Self(Form::Twice(bits as u32)) }
    }
}

const fn sign_extend(bits: u64) -> u64 {
    let unused = u64::BITS - EXTENDED_BITS;
    (((bits << unused) as i64) >> unused) as u64
}

const _: () = assert!(PAGE_SIZE.is_multiple_of(8));
