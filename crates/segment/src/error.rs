//! What can go wrong with a segment: in its bytes, in reading it, in finding room for it.

use crate::{EntryAddr, SegmentId, TierId};
use std::io;
use std::path::PathBuf;
use vswap_core::SlotId;
use vswap_sys::direct::NamedError;

/// The bytes are not what was written. Offsets count from the segment's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes end before what must be there.
    #[error("offset {offset:#x}: truncated, {have} of {needed} bytes")]
    Truncated {
        /// Where the missing part starts.
        offset: usize,
        /// Bytes that it should have.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Not a segment of ours at all.
    #[error("offset {offset:#x}: not a vswap segment (magic {found:#018x})")]
    Magic {
        /// Where it was looked for.
        offset: usize,
        /// What was there.
        found: u64,
    },
    /// Written by a version that this one does not know.
    #[error("offset {offset:#x}: segment version {found}, this program reads version {known}")]
    Version {
        /// Where it says so.
        offset: usize,
        /// Its version.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// Uses a feature that this version does not know, or is encrypted where it should not be, or the reverse.
    #[error("offset {offset:#x}: unexpected flags {found:#06x}")]
    Flags {
        /// Where.
        offset: usize,
        /// The flags.
        found: u16,
    },
    /// A segment of ours, but not this one: of another run, another number, or an earlier writing.
    #[error("offset {offset:#x}: another segment's bytes (expected {expected:#x}, found {found:#x})")]
    Foreign {
        /// Where the difference is.
        offset: usize,
        /// The value of this segment.
        expected: u64,
        /// The value found.
        found: u64,
    },
    /// A length or offset in it points outside of it.
    #[error("offset {offset:#x}: impossible value {found:#x}")]
    Layout {
        /// Where the value is.
        offset: usize,
        /// The value.
        found: u64,
    },
    /// The checksum does not match the bytes.
    #[error("offset {offset:#x}: checksum does not match")]
    Checksum {
        /// Where the checked part starts.
        offset: usize,
    },
    /// The cipher's tag does not match.
    #[error("offset {offset:#x}: the seal does not match: damaged, or sealed with another key")]
    Seal {
        /// Where the entry starts.
        offset: usize,
    },
    /// The entry is another slot's.
    #[error("offset {offset:#x}: entry of slot {found:#x}, expected {expected}")]
    Slot {
        /// Where the entry is.
        offset: usize,
        /// Whose entry was wanted.
        expected: SlotId,
        /// Whose it is.
        found: u64,
    },
}

impl FormatError {
    /// What is wrong, in a few words, without where.
    #[must_use]
    pub const fn what(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "its bytes are not all there",
            Self::Magic { .. } | Self::Version { .. } | Self::Flags { .. } => {
                "no segment of this run is there"
            }
            Self::Foreign { .. } | Self::Slot { .. } => "another page's bytes are there",
            Self::Layout { .. } => "impossible value",
            Self::Checksum { .. } => "checksum does not match",
            Self::Seal { .. } => "seal (checksum of what is encrypted) does not match",
        }
    }

    /// Where in the segment.
    #[must_use]
    pub fn offset(&self) -> usize {
        match *self {
            Self::Truncated { offset, .. }
            | Self::Magic { offset, .. }
            | Self::Version { offset, .. }
            | Self::Flags { offset, .. }
            | Self::Foreign { offset, .. }
            | Self::Layout { offset, .. }
            | Self::Checksum { offset }
            | Self::Seal { offset }
            | Self::Slot { offset, .. } => offset,
        }
    }
}

/// A page or segment could not be read back.
///
/// A caller that raced with writeback or cleaning sees one of these too, from an address that its
/// slot no longer has: look at the slot again, and believe the error only if the address is the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No such sealed segment, or it ends before this address: the address is out of date.
    #[error("{segment}, offset {offset:#x}: nothing is stored there; the address is out of date")]
    NotThere {
        /// The segment.
        segment: SegmentId,
        /// The offset in it.
        offset: usize,
    },
    /// The device failed.
    #[error(
        "{segment} on {tier}: reading {len} bytes at file offset {offset:#x} failed: {source}; check the disk"
    )]
    Io {
        /// The segment.
        segment: SegmentId,
        /// Where it is.
        tier: TierId,
        /// The offset in the tier's file.
        offset: u64,
        /// Bytes wanted.
        len: usize,
        /// The device's answer.
        source: io::Error,
    },
    /// The bytes came, but are not what was written.
    #[error("{segment} on {tier}, segment at file offset {at:#x}: {fault}; the page is lost, check the disk")]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// Where it is.
        tier: TierId,
        /// The file offset of the segment's start.
        at: u64,
        /// What is wrong, where in the segment.
        fault: FormatError,
    },
    /// The caller's buffer is smaller than what is to be read.
    #[error("the read buffer has {have} bytes, {needed} are needed")]
    Buffer {
        /// Its size.
        have: usize,
        /// The least size.
        needed: usize,
    },
}

impl ReadError {
    /// On which tier, if it got that far.
    #[must_use]
    pub fn tier(&self) -> Option<TierId> {
        match self {
            Self::Io { tier, .. } | Self::Damaged { tier, .. } => Some(*tier),
            Self::NotThere { .. } | Self::Buffer { .. } => None,
        }
    }

    /// Where in the tier's file, if it got that far.
    #[must_use]
    pub fn file_offset(&self) -> Option<u64> {
        match self {
            Self::Io { offset, .. } => Some(*offset),
            Self::Damaged { at, fault, .. } => Some(at + fault.offset() as u64),
            Self::NotThere { .. } | Self::Buffer { .. } => None,
        }
    }
}

/// Every extent is in use: release entries, clean segments, or grow the tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the disk tier is full: {segments} segments in use of {capacity}")]
pub struct Full {
    /// Segments in use.
    pub segments: u64,
    /// Segments that fit.
    pub capacity: u64,
    /// A tier has room, but the class may have no more of it.
    pub limited: bool,
}

/// An entry was released that is not live: a fault of the caller's counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{addr}: released, but nothing is live there")]
pub struct ReleaseError {
    /// The address.
    pub addr: EntryAddr,
}

/// Something that was asked of a tier cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TierError {
    /// No tier has this number.
    #[error("there is no {tier}")]
    NoTier {
        /// The number.
        tier: TierId,
    },
    /// There are as many tiers as can be.
    #[error("there are {most} tiers, which is the most: remove one first")]
    TooMany {
        /// How many.
        most: usize,
    },
    /// It is being emptied already.
    #[error("{tier} is being emptied already")]
    Draining {
        /// Which.
        tier: TierId,
    },
    /// What is on it does not fit elsewhere.
    #[error(
        "{tier} holds {holds} bytes, and there is room for {room} on the others, as far as groups may be there, and for {memory} in memory: add a tier of {needs_mib} MiB or more first (vswap tier add PATH --size {needs_mib}M), or raise a limit (vswap set), of all memory for instance",
        needs_mib = needs >> 20
    )]
    NoRoom {
        /// Which.
        tier: TierId,
        /// Bytes that would have to go, in whole segments.
        holds: u64,
        /// Bytes of whole segments that are free elsewhere, for those whose it is.
        room: u64,
        /// Bytes that memory can take.
        memory: u64,
        /// Size of another tier that would do, bytes.
        needs: u64,
    },
    /// What is on it outlives the run, and stays there.
    #[error("{tier} holds objects that are to stay there: empty their store, or end the program")]
    Durable {
        /// Which.
        tier: TierId,
    },
    /// Something is on it still.
    #[error("{tier} is in use")]
    InUse {
        /// Which.
        tier: TierId,
    },
}

/// A file or device cannot be a tier. It is as it was, unless a write to it was begun and failed ([`Io`](Self::Io)); one that was empty, or
/// not there, may be as long as was wanted then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AreaError {
    /// It cannot be had.
    #[error(transparent)]
    Named(#[from] NamedError),
    /// A read or write failed.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// The file or device.
        path: PathBuf,
        /// What was tried.
        act: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is somebody's.
    #[error("{} holds {what} (at offset {offset:#x}); --force overwrites it", path.display())]
    Holds {
        /// The file or device.
        path: PathBuf,
        /// What was found.
        what: &'static str,
        /// Where its signature stands.
        offset: u64,
    },
    /// Something is on it, and nobody knows whose it is.
    #[error("{} holds data that vswap does not know (at offset {offset:#x}); --force overwrites it", path.display())]
    Data {
        /// The file or device.
        path: PathBuf,
        /// Where the first of it was found.
        offset: u64,
    },
    /// It holds a store of objects.
    #[error("{} holds a store of objects; --force overwrites it, and they are lost", path.display())]
    HoldsStore {
        /// The file or device.
        path: PathBuf,
    },
    /// It is not a file that a store of objects has been written to.
    #[error("{} is not the file of a store (at offset {offset:#x}): put back the one that is, or make a new store", path.display())]
    NoStore {
        /// The file.
        path: PathBuf,
        /// Where that is to be seen.
        offset: u64,
    },
    /// An area of ours, of which the end is missing.
    #[error("{} is a vswap area that was truncated at offset {offset:#x}, its header says {says:#x}; {}", path.display(), remedy(*store))]
    Truncated {
        /// The file or device.
        path: PathBuf,
        /// Whether it is a store's.
        store: bool,
        /// Where it ends.
        offset: u64,
        /// Where it should end.
        says: u64,
    },
    /// The header of an area of ours, damaged.
    #[error("{} is a damaged vswap area: the checksum at offset {offset:#x} does not match; {}", path.display(), remedy(*store))]
    Damaged {
        /// The file or device.
        path: PathBuf,
        /// Whether it is a store's.
        store: bool,
        /// Where the checksum is.
        offset: u64,
    },
    /// An area of ours, of another version.
    #[error("{} is a vswap area of version {found} (at offset {offset:#x}), this program knows {known}; {}", path.display(), if *store { "use the program that made it, or make a new store" } else { "--force makes a new one" })]
    Version {
        /// The file or device.
        path: PathBuf,
        /// Whether it is a store's.
        store: bool,
        /// Where it says so.
        offset: u64,
        /// Its version.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// It holds no segment.
    #[error("{} would have {bytes} bytes, and a tier takes {least} at least; name a larger one, or a directory on a disk (--disk-path)", path.display())]
    TooSmall {
        /// The file or device.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The least.
        least: u64,
    },
    /// More was wanted of it than there is.
    #[error("{} has {bytes} bytes, fewer than the {wanted} that were wanted: leave the size out to use all of it", path.display())]
    Shorter {
        /// The file or device.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What was wanted.
        wanted: u64,
    },
}

/// Segments of a former run cannot be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// Something has been written by this one.
    #[error("segments of a former run can only be taken over before anything is written")]
    InUse,
    /// It would be past the end of its tier, or not at a segment's boundary.
    #[error(
        "{segment} is said to be at offset {at:#x}, where none can be: the file has become shorter, or its list is not of this file"
    )]
    Beyond {
        /// Which.
        segment: SegmentId,
        /// Where it should be.
        at: u64,
    },
    /// Two are said to be at one place, or to have one number.
    #[error("{segment} at offset {at:#x} is listed twice")]
    Twice {
        /// Which.
        segment: SegmentId,
        /// Where it should be.
        at: u64,
    },
    /// What is said of it cannot be.
    #[error("what is said of {segment} at offset {at:#x} cannot be: its list is damaged")]
    Nonsense {
        /// Which.
        segment: SegmentId,
        /// Where it should be.
        at: u64,
    },
    /// It is not listed, or more of it is said to live than it had.
    #[error("{segment} has no such entries")]
    Unknown {
        /// Which.
        segment: SegmentId,
    },
}

/// What to do about an area that cannot be used.
fn remedy(store: bool) -> &'static str {
    if store { "put back the whole store as it was, or make a new one" } else { "--force makes a new one" }
}
