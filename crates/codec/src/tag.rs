//! What travels with an encoded page to tell how it is encoded.

/// How bytes were encoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Algorithm {
    /// Not at all: the page itself.
    Raw,
    /// lz4 block.
    Lz4,
    /// zstd frame without magic.
    Zstd,
}

/// A dictionary of this engine: 1 to 127.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DictionaryId(u8);

impl DictionaryId {
    /// How many there can be.
    pub const COUNT: usize = 127;

    /// Makes an identity, or `None` for 0 and from 128 up.
    pub const fn new(value: u8) -> Option<Self> {
        if value == 0 || value as usize > Self::COUNT { None } else { Some(Self(value)) }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// An [`Algorithm`] and, for zstd, its dictionary: ten bits in an entry's header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CodecTag {
    algorithm: Algorithm,
    dictionary: Option<DictionaryId>,
}

impl CodecTag {
    /// The page itself.
    pub const RAW: Self = Self { algorithm: Algorithm::Raw, dictionary: None };
    /// lz4.
    pub const LZ4: Self = Self { algorithm: Algorithm::Lz4, dictionary: None };
    /// Bits of [`Self::to_bits`].
    pub const BITS: u32 = 10;

    /// zstd, with a dictionary or without.
    pub const fn zstd(dictionary: Option<DictionaryId>) -> Self {
        Self { algorithm: Algorithm::Zstd, dictionary }
    }

    /// The algorithm.
    pub const fn algorithm(self) -> Algorithm {
        self.algorithm
    }

    /// The dictionary.
    pub const fn dictionary(self) -> Option<DictionaryId> {
        self.dictionary
    }

    /// The tag as ten bits: algorithm in the upper three, dictionary in the lower seven.
    pub const fn to_bits(self) -> u16 {
        let algorithm = match self.algorithm {
            Algorithm::Raw => 1,
            Algorithm::Lz4 => 2,
            Algorithm::Zstd => 3,
        };
        let dictionary = match self.dictionary {
            Some(id) => id.0 as u16,
            None => 0,
        };
        algorithm << 7 | dictionary
    }

    /// The tag that these bits are, or `None` if they are none (all zero never is).
    pub const fn from_bits(bits: u16) -> Option<Self> {
        let dictionary = DictionaryId::new((bits & 127) as u8);
        match (bits >> 7, dictionary) {
            (1, None) => Some(Self::RAW),
            (2, None) => Some(Self::LZ4),
            (3, _) => Some(Self::zstd(dictionary)),
            _ => None,
        }
    }
}

/// Encoded bytes that do not give a page. The page must not be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not what the codec wrote.
    #[error("{length} bytes of {algorithm:?} do not decode to a page")]
    Damaged {
        /// How they claim to be encoded.
        algorithm: Algorithm,
        /// How many there are.
        length: usize,
    },
    /// They need a dictionary that this engine never made.
    #[error("encoded with dictionary {id}, which does not exist", id = id.get())]
    NoDictionary {
        /// Which.
        id: DictionaryId,
    },
}
