//! The pure centre of vswap: slot word, clusters, groups and policy.
//!
//! No allocation, no I/O, no clock, no thread, no `unsafe`: time and randomness come in as arguments, so
//! everything here can be simulated and model-checked. The crate builds for a bare target, which proves it.
//!
//! - [`units`]: distinct types for pages, bytes, slots, clusters, groups.
//! - [`bitmap`]: 512 bits, one for each page of a 2 MiB block.
//! - [`slot`]: the 8 bytes of a slot; [`fill`] and [`place`]: what its locator can say.
//! - [`cluster`]: who shares 512 slots; [`charge`]: what they take, and whom that is charged to; [`group`]: the tree of those.
//! - [`age`]: generations and the clock hand's judgement: which pages are cold.
//! - [`heat`]: the same for what is resident, by how soon pages come back.
//! - [`insertion`]: whether what is read on through comes in like any other page, or passes by; [`trail`]: who reads on.
//! - [`last`]: the last few of something.
//! - [`pressure`]: the share of time in which somebody waits for memory.
//! - [`reclaim`]: how fast memory is looked through for what can go ahead of need.
//! - [`recording`]: faults as they are recorded, and the form of such a file.
//! - [`sparse`]: where an item of the top-level array is.
//! - [`sync`]: the atomics, which loom replaces.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(loom)]
extern crate std;

pub mod age;
pub mod bitmap;
pub mod charge;
pub mod cluster;
pub mod fill;
pub mod group;
pub mod heat;
pub mod insertion;
pub mod last;
pub mod place;
pub mod pressure;
pub mod reclaim;
pub mod recording;
pub mod slot;
pub mod sparse;
pub mod sync;
pub mod trail;
pub mod units;

pub use age::{Generations, Verdict};
pub use bitmap::Bitmap512;
pub use charge::{ClusterCharge, Load, MAX_GROUPS};
pub use cluster::ClusterState;
pub use fill::FillPattern;
pub use group::{ChargeError, Event, GROUP_WORDS, Groups, Resource};
pub use heat::{Back, Heat, Terms};
pub use insertion::{Insertion, Kinds};
pub use last::Last;
pub use place::{MoveId, Moving, PoolHandle, SegmentAddr};
pub use pressure::Pressure;
pub use reclaim::Pace;
pub use slot::{Age, Backing, SlotCell, SlotWord, SwapCount};
pub use sparse::Sparse;
pub use trail::{Reach, Trail};
pub use units::{
    ByteCount, ClusterId, GroupId, PAGE_SIZE, PAGES_PER_CLUSTER, Page, PageCount, PageIndex, SlotId,
};
