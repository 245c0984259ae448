//! Segments: 2 MiB sealed containers of compressed pages on a tier.
//!
//! Cold pool entries are packed, still compressed, into a [`SegmentBuilder`]; a full one is sealed and
//! written as one sequential aligned write; from then on it is immutable. What a slot remembers of a
//! page here is its [`EntryAddr`] (46 bits), which is enough to read it: one aligned read of the one to
//! three blocks that hold it, checked against the slot, the segment's sequence number and a key of the run.
//!
//! - [`format`](mod@format): the bytes (see `docs/segment-format.md`); [`SegmentView`] reads a whole one back.
//! - [`Keys`]: entries are encrypted when the segment is sealed, and decrypted in the reader's buffer; [`Cipher`] says why that is sound.
//! - [`SegmentTable`]: pure accounting. Segment -> (tier, extent), live entries, what to clean next; and who may have how much of which tier ([`ClassId`]).
//! - [`Storage`]: the one narrow interface to a tier; [`FileStorage`] is an unlinked file with direct I/O, [`Area`] a file or device with a name, [`Ghost`] memory, [`Loan`] room that a store of objects lends.
//! - [`SegmentMover`]: takes segments, as they are, to other tiers.
//! - [`SegmentStore`]: table + storage. Reads take no allocation and no lock longer than a look-up;
//!   [`SegmentWriter`] keeps a few writes in flight and waits outside of every lock.
//!
//! # Invariants
//! - A segment is `Writing` until its write has succeeded; only then can its addresses be read.
//! - A move to another tier copies a segment, checked, and changes its row if that is still as it was: no address changes.
//! - Its extent is not reused before its last live entry was released.
//! - An address that is out of date gives an error or the slot's own bytes, never another's: each
//!   entry's checksum or cipher tag covers its slot and depends on key, sequence number and offset.
//! - No nonce is used twice: see [`Cipher`].
//!
//! Neighbours: the engine above decides what is written and when; the pool beside is unknown here.
#![forbid(unsafe_code)]

mod addr;
mod area;
mod builder;
mod cipher;
mod classes;
mod error;
mod extents;
mod fit;
pub mod format;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod ghost;
mod loan;
mod mover;
#[cfg(feature = "power")]
pub mod power;
mod queues;
mod signatures;
mod storage;
mod store;
mod table;
mod tiers;
mod view;
mod writer;

pub use addr::{EntryAddr, SegmentId};
pub use area::{Area, AreaConfig};
pub use builder::{Appended, SegmentBuilder};
pub use cipher::{Cipher, Keys};
pub use classes::{ClassId, Share};
pub use error::{AreaError, FormatError, Full, KeptError, ReadError, ReleaseError, TierError};
pub use extents::{Extent, TierId};
pub use format::{CodecTag, Guard, RunKey};
pub use ghost::{Ghost, GhostMemory};
pub use loan::{Lender, Lending, Loan, LoanError, is_lent};
pub use mover::{Moved, SegmentMover, Started};
pub use storage::{FileStorage, RoomOf, SharedRoom, Storage, SyncQueue, TierKind, WriteQueue, is_full};
pub use store::{AGES, SegmentStore, StoreStats};
pub use table::{Candidate, KeptSegment, Place, Purpose, Reservation, SegmentTable, Wanted};
pub use tiers::{MAX_TIERS, TierState, TierStatus};
pub use view::{Entry, Run, RunIter, SegmentView};
pub use vswap_sys::direct::{AlignedBuf, WriteDone};
pub use writer::{SegmentWriter, Written};

/// Bytes of a segment.
pub const SEGMENT_BYTES: usize = 2 << 20;
/// The unit of reads and writes.
pub const BLOCK: usize = 4096;
/// The greatest encoded length of an entry: a raw page.
pub const MAX_ENTRY_BYTES: usize = 4096;
/// The greatest number of blocks that hold one entry.
pub const MAX_ENTRY_BLOCKS: usize = 3;
