//! The 64 bytes by which an area is recognised: see `docs/segment-format.md`.

use super::START;
use std::hash::{BuildHasher, RandomState};
use twox_hash::XxHash3_64;

/// The first eight bytes of an area, as text.
pub(super) const MAGIC: [u8; 8] = *b"VSWAPARE";
/// The version written and read.
pub(super) const VERSION: u16 = 1;
/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 64;
/// Where its checksum stands.
const SUM_AT: usize = 56;

/// What a header says that differs from area to area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// Bytes that are used, the first 2 MiB included.
    pub(crate) bytes: u64,
    /// Another one each time it is put to use.
    pub(crate) number: u64,
    /// What follows is of use to a store of that number, after the run too.
    pub(crate) durable: bool,
}

/// Bytes that are no header of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoHeader {
    /// Not of an area at all.
    Magic,
    /// Of another version.
    Version {
        /// Which.
        found: u16,
    },
    /// Not as it was written, here.
    Damaged {
        /// The first byte of what is wrong.
        offset: u64,
    },
}

impl Header {
    /// A header for so many bytes, with a number of its own.
    pub(super) fn new(bytes: u64) -> Self {
        // The standard library seeds each hasher from the kernel's random numbers.
        Self { bytes, number: RandomState::new().hash_one(bytes), durable: false }
    }

    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&u16::from(self.durable).to_le_bytes());
        out[12..16].copy_from_slice(&(START as u32).to_le_bytes());
        out[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        out[24..32].copy_from_slice(&self.number.to_le_bytes());
        Self::sum(&mut out);
        out
    }

    /// Gives bytes the checksum that they should have.
    pub(crate) fn sum(out: &mut [u8; HEADER_BYTES]) {
        let sum = XxHash3_64::oneshot(&out[..SUM_AT]);
        out[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads the header at the start of `head`.
    pub(crate) fn decode(head: &[u8]) -> Result<Self, NoHeader> {
        if !head.starts_with(&MAGIC) {
            return Err(NoHeader::Magic);
        }
        let raw: &[u8; HEADER_BYTES] =
            head.first_chunk().ok_or(NoHeader::Damaged { offset: head.len() as u64 })?;
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| raw[at + byte]));
        let version = u16::from_le_bytes([raw[8], raw[9]]);
        if version != VERSION {
            return Err(NoHeader::Version { found: version });
        }
        if u64_at(SUM_AT) != XxHash3_64::oneshot(&raw[..SUM_AT]) {
            return Err(NoHeader::Damaged { offset: SUM_AT as u64 });
        }
        let header = Self { bytes: u64_at(16), number: u64_at(24), durable: raw[10] & 1 != 0 };
        // Flags, a place of segments or fields that this version does not know mean something, and it is not known what.
        match header.encode().iter().zip(raw).position(|(known, found)| known != found) {
            Some(at) => Err(NoHeader::Damaged { offset: at as u64 }),
            None => Ok(header),
        }
    }
}
