//! What can go wrong, by family of operations.

use vswap_core::{ByteCount, ChargeError, GroupId, Resource, SlotId};
use vswap_segment::{AreaError, KeptError, LoanError, ReadError, SegmentId, TierError, TierId};
use vswap_sys::direct::PlaceError;

/// An engine could not be made, or could not give another cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Every cluster is in use.
    #[error("the virtual swap space is full: all {clusters} clusters of 2 MiB are in use")]
    SpaceFull {
        /// How many there are.
        clusters: u64,
    },
    /// The system gave no memory for slots.
    #[error("no memory for another {wanted} of slots: {source}; lower --memory or free memory")]
    NoMemory {
        /// What was asked for.
        wanted: ByteCount,
        /// What the system said.
        source: std::io::Error,
    },
    /// The segment file could not be made.
    #[error("segment file: {source}")]
    Disk {
        /// What is wrong with the place, and what to do.
        #[from]
        source: PlaceError,
    },
    /// A file or device is not to be used.
    #[error(transparent)]
    Area(#[from] AreaError),
    /// Nobody lends room of a store.
    #[error(transparent)]
    Loan(#[from] LoanError),
    /// No key to encrypt pages with.
    #[error(
        "no key for encrypting pages on disk: {source}; allow the process 64 KiB of locked memory (ulimit -l), or switch encryption off (`vswap run --encrypt off`, `Builder::encryption` of a region)"
    )]
    Key {
        /// What the kernel said.
        source: std::io::Error,
    },
    /// There can be no other tier.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// A group is at one of its limits.
    #[error("{0}")]
    GroupFull(GroupFull),
    /// There were too many groups.
    #[error("no other group can be made: {made} were made since the start")]
    TooManyGroups {
        /// How many.
        made: u32,
    },
    /// Every class of segments is taken.
    #[error("no other group can have limits of tiers: 255 have, or had and still have something there")]
    TooManyTierLimits,
    /// What it holds is to outlive the run.
    #[error("group {group} is a store's: it stays, and has no groups below it", group = group.get())]
    Kept {
        /// Which.
        group: GroupId,
    },
    /// No such group.
    #[error("there is no group {group}", group = group.get())]
    NoGroup {
        /// Which.
        group: GroupId,
    },
}

/// A group would pass one of its limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub struct GroupFull {
    /// Which.
    pub group: GroupId,
    /// Of what.
    pub resource: Resource,
    /// What it has: pages, or bytes of the pool.
    pub usage: u64,
    /// What it may have.
    pub limit: u64,
}

impl std::fmt::Display for GroupFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { group, usage, limit, .. } = *self;
        let what = match self.resource {
            Resource::Pool => "bytes in the pool",
            Resource::Swap => "pages in the swap space",
            Resource::Resident => "pages in memory",
        };
        write!(f, "group {group} has {usage} {what}, its limit is {limit}", group = group.get())
    }
}

impl From<ChargeError> for EngineError {
    fn from(error: ChargeError) -> Self {
        match error {
            ChargeError::OverLimit { group, resource, usage, limit } => {
                Self::GroupFull(GroupFull { group, resource, usage, limit })
            }
            ChargeError::Unknown { group } => Self::NoGroup { group },
            // The core may learn to refuse for other reasons; to us they are all refusals of the root.
            _ => Self::NoGroup { group: GroupId::ROOT },
        }
    }
}

/// A page could not be read back. Its bytes are not to be trusted; the reader must not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes that came back are not those that were written: the page is lost.
    #[error("{slot}: {source}")]
    Corrupt {
        /// The page.
        slot: SlotId,
        /// Where in the segment file its entry is (0 if even that is not known).
        file_offset: u64,
        /// What is wrong.
        source: ReadError,
    },
    /// The device did not give the bytes. Another attempt may.
    #[error("{slot}: {source}")]
    Io {
        /// The page.
        slot: SlotId,
        /// Where in the segment file its entry is.
        file_offset: u64,
        /// What the device said.
        source: ReadError,
    },
    /// An earlier load found the bytes lost.
    #[error("{slot}: the page was found lost before")]
    Poisoned {
        /// The page.
        slot: SlotId,
    },
    /// The entry's bytes are those that were written but do not decode, or the pool lost the entry: a fault
    /// of this program or of the machine's memory. The page is lost.
    #[error("{slot}: its compressed bytes are damaged: the page is lost")]
    Damaged {
        /// The page.
        slot: SlotId,
    },
    /// No such slot was ever handed out.
    #[error("{slot} was never handed out")]
    NoSlot {
        /// The page.
        slot: SlotId,
    },
}

/// A page could not be stored; it stays with its owner.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The pool is at its limit, or the system gave it no memory.
    #[error("{slot}: no room for {length} bytes in the pool, which holds {held}; write back first")]
    PoolFull {
        /// The page.
        slot: SlotId,
        /// Its compressed length.
        length: usize,
        /// What the pool holds now.
        held: ByteCount,
    },
    /// A group, or one above it, is at its limit.
    #[error("{slot}: {full}")]
    GroupFull {
        /// The page.
        slot: SlotId,
        /// Which group, and of what.
        full: GroupFull,
    },
    /// No such slot was ever handed out.
    #[error("{slot} was never handed out")]
    NoSlot {
        /// The page.
        slot: SlotId,
    },
}

/// Pages could not be written to the disk; they stay in the pool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WritebackError {
    /// The engine has no tier.
    #[error("writeback without a tier: all pages stay in memory (--disk none)")]
    NoTier,
    /// The write failed.
    #[error("writing a segment: {source}; the pages stay in memory")]
    Io {
        /// What the device said.
        #[from]
        source: std::io::Error,
    },
}

/// A tier could not be removed. It is as it was before, but for what has been moved by then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveTierError {
    /// It cannot be begun.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// Another tier is being emptied.
    #[error("another tier is being emptied: one at a time")]
    Busy,
    /// Whoever watched wanted it to end.
    #[error("cancelled: {left} are still on {tier}, which goes on as before")]
    Cancelled {
        /// Which.
        tier: TierId,
        /// What is still on it.
        left: ByteCount,
    },
    /// The other tiers have filled up meanwhile.
    #[error(
        "no room is left elsewhere: {left} are still on {tier}, which goes on as before; add a tier first, or raise a limit"
    )]
    NoRoom {
        /// Which.
        tier: TierId,
        /// What is still on it.
        left: ByteCount,
    },
    /// Some of its pages cannot be read.
    #[error(
        "{pages} pages in {segments} segments of {tier} cannot be read: {source}; all others have been moved"
    )]
    Unreadable {
        /// Which.
        tier: TierId,
        /// Segments that are left.
        segments: u64,
        /// Pages that live in them.
        pages: u64,
        /// What the first attempt said.
        source: ReadError,
    },
    /// Nothing more could be written elsewhere.
    #[error("writing what was on {tier} elsewhere: {source}; {left} are still on it")]
    Io {
        /// Which.
        tier: TierId,
        /// What is still on it.
        left: ByteCount,
        /// What the other device said.
        source: std::io::Error,
    },
}

/// What is to outlive the run cannot be found, or not be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DurableError {
    /// It has been used.
    #[error("what a former run has left can only be taken over by an engine that has done nothing yet")]
    InUse,
    /// There is no other group, tier or cluster.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// There is no other tier.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// The list of segments cannot be right.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// The list of clusters cannot be right.
    #[error("a cluster is listed twice")]
    ClusterTwice,
    /// The list of clusters cannot be right.
    #[error("cluster {number} is listed, which no run can have had")]
    Cluster {
        /// Its number.
        number: u32,
    },
    /// The list of a segment's entries cannot be right.
    #[error("{segment} is said to have an entry of {slot} that is not in it")]
    Stray {
        /// Which.
        segment: SegmentId,
        /// Whose.
        slot: SlotId,
    },
    /// A page is in memory only.
    #[error("{slot} has not been written down")]
    NotWritten {
        /// The page.
        slot: SlotId,
    },
    /// A page is on another tier.
    #[error("{slot} is not among the segments that are kept")]
    Elsewhere {
        /// The page.
        slot: SlotId,
    },
    /// Not everything finds room.
    #[error("no room for {left} that are to be kept")]
    Full {
        /// What is still in the pool only.
        left: ByteCount,
    },
    /// A write failed.
    #[error(transparent)]
    Write(#[from] WritebackError),
}
