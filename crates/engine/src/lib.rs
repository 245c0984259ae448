//! Space, slots and backings: where the bytes are, under a stable slot.
//!
//! - [`Engine`] keeps the virtual swap space and moves pages between backings: [`Engine::store`],
//!   [`Engine::load`], [`Engine::writeback`]; at leisure [`Engine::maintain`]. It has no thread of its own; a
//!   load allocates nothing.
//! - [`Engine::add_tier`] and [`Engine::remove_tier`] change where segments go while all that runs.
//! - [`Engine::new_group`] and [`Engine::set_group_limit`]: whose pages may take how much; [`Engine::groups`] tells what they take.
//!   [`Engine::set_tier_limit`]: of which tier.
//! - [`OwnerBlock`] is what an owner remembers for 2 MiB of itself; owners share clusters by count after a
//!   fork.
//! - [`Scratch`] holds one thread's buffers and codec contexts.
//!
//! Below: the core decides (slot word, ages), the pool and the segment store keep bytes, the codec makes them
//! small. The pool and the segments do not know each other; only this crate does.
//!
//! # Invariants
//! - Whoever changes a word away from a backing, by compare-and-swap, owns that backing alone and frees it:
//!   nothing is freed twice and nothing is forgotten.
//! - The content of a slot changes by its exclusive owner alone; the engine changes only where it is.
//! - What a group is charged is what the words of its clusters' slots hold, exactly, whenever nothing is under way.
//! - Bytes come back as they were stored, or there is an error: segment entries are checked by checksum, pool
//!   entries by the slot in their header.
//!
//! # Lock order
//! removal of a tier -> demotion -> writer (one writeback at a time) | compaction -> cluster (1 of 64) -> large counts | free list; below all, one at a
//! time: pool class -> chunk; segment table; the losses. The tree of groups -> segment table. A load takes a chunk's lock (shared) or a look at the segment
//! table, nothing else.
#![forbid(unsafe_code)]

mod ages;
mod classes;
mod clean;
mod comeback;
mod compact;
mod config;
mod demote;
mod disk;
mod durable;
mod engine;
mod error;
mod groups;
mod losses;
mod maintain;
mod movement;
mod owner;
mod raw;
mod run;
mod scratch;
mod share;
mod space;
mod stats;
mod swapoff;
mod tiers;
mod train;
mod writeback;

pub use classes::TierShare;
pub use config::{CodecChoice, Encryption, EngineConfig, TierConfig};
pub use demote::Demoted;
pub use durable::{Commit, DurableTier, Kept, KeptCluster, KeptEntry, Passed};
pub use engine::Engine;
pub use error::{
    DurableError, EngineError, GroupFull, LoadError, RemoveTierError, StoreError, WritebackError,
};
pub use groups::{Bounds, Figure, Group};
pub use losses::{Lost, Place, Reason};
pub use owner::OwnerBlock;
pub use run::Loaded;
pub use scratch::Scratch;
pub use stats::{BackingKind, EngineStats, LoadedFrom, StoredAs, WritebackReport};
pub use swapoff::{Emptied, Emptying, Removing, Unreadable};
pub use tiers::Tier;
pub use vswap_segment::{AGES, SEGMENT_BYTES, TierError, TierId, TierKind, TierState, is_lent};
