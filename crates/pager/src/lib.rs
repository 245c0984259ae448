//! Residence: which pages of which program are in memory, within one limit.
//!
//! - [`Pager`] owns the threads: a fault handler for each CPU, evictors, a keeper.
//! - [`Space`] is an address space under management; [`Hold`] stops eviction in it for a while.
//! - [`StubLink`] and [`Mover`] are the way to the hand inside an address space.
//!
//! **Architecture invariants.** This crate never learns where bytes are, only that a slot has them. A fault is
//! resolved from outside of the program: it waits for no stub, allocates nothing, and for at most one read of a device.

mod ahead;
mod block;
mod bring;
mod budget;
mod charge;
mod clock;
mod evict;
mod fault;
mod fork;
mod gate;
mod grant;
mod groups;
mod handler;
mod install;
mod keeper;
mod link;
mod listen;
mod losses;
#[cfg(test)]
mod noise;
mod pager;
mod passing;
mod promotion;
mod quick;
mod reclaim;
mod record;
mod share;
mod sharing;
mod snapshot;
mod space;
mod stats;
mod swap_in;
mod window;

pub use budget::LEAST_LIMIT;
pub use groups::{GroupError, Leaving, NamedGroup};
pub use link::{Discard, Evicted, Eviction, Mover, StubLink};
pub use losses::LostPage;
pub use pager::{Full, FullPolicy, HugePages, OnFailedWrite, OnFull, Pager, PagerConfig, RECLAIM_TURN};
pub use record::Recorder;
pub use space::{Adopt, Hold, Space, StagingArea};
pub use stats::{FaultStats, PagerStats};
