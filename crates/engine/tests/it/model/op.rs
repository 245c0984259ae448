//! What may happen to an engine, its owners and its devices.

use crate::flaky::{ReadTrouble, WriteTrouble};
use proptest::prelude::*;
use vswap_core::{PAGES_PER_CLUSTER, Resource};

#[derive(Clone, Debug)]
pub enum Op {
    Store {
        owner: usize,
        at: usize,
        number: u64,
    },
    Load {
        owner: usize,
        at: usize,
    },
    Release {
        owner: usize,
        at: usize,
    },
    Fork {
        owner: usize,
    },
    Move {
        from: usize,
        at: usize,
        owner: usize,
        to: usize,
    },
    Adopt {
        from: usize,
        owner: usize,
        at: usize,
        to: usize,
    },
    LoadRun {
        owner: usize,
        at: usize,
        asked: usize,
    },
    Dispose {
        owner: usize,
    },
    New,
    Writeback {
        kib: u64,
    },
    Maintain,
    AddTier {
        priority: i16,
        segments: usize,
    },
    AddGhost {
        priority: i16,
    },
    /// Emptied until it is, or until so many segments have been looked at.
    RemoveTier {
        at: usize,
        cancel_after: usize,
        lose: bool,
        /// So many segments may come back to the pool.
        memory: u64,
    },
    Reopen {
        at: usize,
    },
    Demote {
        most: usize,
    },
    NewGroup {
        parent: u32,
    },
    RemoveGroup {
        group: u32,
    },
    MoveToGroup {
        owner: usize,
        group: u32,
    },
    Limit {
        group: u32,
        resource: Resource,
        limit: Option<u64>,
    },
    WritebackOf {
        group: u32,
    },
    LimitTier {
        group: u32,
        at: usize,
        segments: Option<u64>,
    },
    /// A disk is in trouble, or no more.
    Trouble {
        at: usize,
        trouble: Trouble,
    },
    /// The system gives no memory, or does again.
    Starve(bool),
}

#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    Over,
    Reads(ReadTrouble, u32),
    Writes(WriteTrouble, u32),
    /// A byte changes by itself.
    Rot(usize),
}

/// Segments of a tier that never fills.
pub const LARGE: usize = 32;

pub fn op() -> impl Strategy<Value = Op> {
    // Few positions, so that owners meet often; the last one is there for the ends of ranges.
    let at = || prop_oneof![0..12usize, Just(PAGES_PER_CLUSTER - 1)];
    let owner = || 0..5usize;
    let group = || 0..6u32;
    prop_oneof![
        20 => (owner(), at(), 0..4000u64).prop_map(|(owner, at, number)| Op::Store { owner, at, number }),
        10 => (owner(), at()).prop_map(|(owner, at)| Op::Load { owner, at }),
        8 => (owner(), at()).prop_map(|(owner, at)| Op::Release { owner, at }),
        3 => (owner(), at(), owner(), at()).prop_map(|(from, at, owner, to)| Op::Move { from, at, owner, to }),
        3 => (owner(), owner(), at(), at()).prop_map(|(from, owner, at, to)| Op::Adopt { from, owner, at, to }),
        4 => (owner(), 0..12usize, 0..14usize).prop_map(|(owner, at, asked)| Op::LoadRun { owner, at, asked }),
        4 => owner().prop_map(|owner| Op::Fork { owner }),
        2 => owner().prop_map(|owner| Op::Dispose { owner }),
        1 => Just(Op::New),
        2 => (1..64u64).prop_map(|kib| Op::Writeback { kib }),
        1 => Just(Op::Maintain),
        1 => (-1..2i16).prop_map(|priority| Op::AddTier { priority, segments: LARGE }),
        1 => (-1..2i16).prop_map(|priority| Op::AddGhost { priority }),
        2 => (0..4usize, 0..6usize, any::<bool>(), memory())
            .prop_map(|(at, cancel_after, lose, memory)| Op::RemoveTier { at, cancel_after, lose, memory }),
        1 => (0..4usize).prop_map(|at| Op::Reopen { at }),
        1 => (1..4usize).prop_map(|most| Op::Demote { most }),
        2 => group().prop_map(|parent| Op::NewGroup { parent }),
        1 => group().prop_map(|group| Op::RemoveGroup { group }),
        4 => (owner(), group()).prop_map(|(owner, group)| Op::MoveToGroup { owner, group }),
        1 => (group(), prop::option::of(0..24u64))
            .prop_map(|(group, limit)| Op::Limit { group, resource: Resource::Swap, limit }),
        1 => (group(), prop::option::of(0..20_000u64))
            .prop_map(|(group, limit)| Op::Limit { group, resource: Resource::Pool, limit }),
        1 => group().prop_map(|group| Op::WritebackOf { group }),
        2 => (group(), 0..4usize, prop::option::of(0..3u64))
            .prop_map(|(group, at, segments)| Op::LimitTier { group, at, segments }),
    ]
}

/// Segments of a tier that may fill: one of eight and more keeps room for cleaning.
fn memory() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0), 1 => 1..4u64]
}

pub fn segments() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![LARGE, 8, 3, 2, 1])
}

/// The same, with devices that fail and fill and a system that gives no memory.
pub fn troubled() -> impl Strategy<Value = Op> {
    let reads = prop::sample::select(vec![ReadTrouble::Error, ReadTrouble::Short, ReadTrouble::Flipped]);
    let writes = prop::sample::select(vec![
        WriteTrouble::Error,
        WriteTrouble::Partial,
        WriteTrouble::Full,
        WriteTrouble::Torn,
        WriteTrouble::Lost,
        WriteTrouble::Misplaced,
        WriteTrouble::Queue,
    ]);
    // A few, or until it is over.
    let times = || prop_oneof![3 => 1..4u32, 1 => Just(u32::MAX)];
    let trouble = prop_oneof![
        2 => Just(Trouble::Over),
        3 => (reads, times()).prop_map(|(trouble, times)| Trouble::Reads(trouble, times)),
        4 => (writes, times()).prop_map(|(trouble, times)| {
            // A queue that breaks for ever is not one.
            Trouble::Writes(trouble, if trouble == WriteTrouble::Queue { times.min(3) } else { times })
        }),
        // Often where a segment says what is in it.
        2 => prop_oneof![0..64usize, 0..65536usize].prop_map(Trouble::Rot),
    ];
    prop_oneof![
        80 => op(),
        12 => (1..64u64).prop_map(|kib| Op::Writeback { kib }),
        12 => (0..5usize, 0..12usize).prop_map(|(owner, at)| Op::Load { owner, at }),
        4 => (0..4usize, 0..20usize, any::<bool>(), memory())
            .prop_map(|(at, cancel_after, lose, memory)| Op::RemoveTier { at, cancel_after, lose, memory }),
        2 => (-1..2i16, segments()).prop_map(|(priority, segments)| Op::AddTier { priority, segments }),
        12 => (0..4usize, trouble).prop_map(|(at, trouble)| Op::Trouble { at, trouble }),
        2 => (0..4usize).prop_map(|at| Op::Reopen { at }),
        1 => any::<bool>().prop_map(Op::Starve),
    ]
}
