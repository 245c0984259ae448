//! What is known of a cluster as a whole: who shares it. One word, cast in and out like the slot's.
//!
//! An owner refers to a cluster in one of three ways: *directly* (all 512 positions are its, whatever they
//! hold), through *single slots* in its private list, or by *holding* it as the place for its own new slots.
//! A slot's owners are the direct owners of its cluster plus the lists that name it (the swap count in its
//! word). The cluster is free when nobody is left: no direct owner, no slot named by a list, nobody holding
//! it.

/// Who refers to a cluster. 0 is a free cluster. Changed under the cluster's lock (see the engine), except
/// that an owner may read [`ClusterState::is_sole_direct`] of its own cluster without it: if true it stays
/// true until that owner forks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClusterState(u64);

const LISTED_SHIFT: u32 = 32;
const LISTED_MASK: u64 = 0x3ff << LISTED_SHIFT;
const HELD: u64 = 1 << 62;
const IN_USE: u64 = 1 << 63;

const _: () = assert!(size_of::<ClusterState>() == 8);

impl ClusterState {
    /// A free cluster.
    pub const FREE: Self = Self(0);

    /// A fresh cluster of one direct owner.
    pub const fn direct() -> Self {
        Self(IN_USE | 1)
    }

    /// A fresh cluster that an owner with a private list holds for its new slots.
    pub const fn held() -> Self {
        Self(IN_USE | HELD)
    }

    /// The state from its word.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word.
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// Whether it is allocated.
    pub const fn in_use(self) -> bool {
        self.0 & IN_USE != 0
    }

    /// How many owners have it as a whole.
    pub const fn direct_owners(self) -> u32 {
        self.0 as u32
    }

    /// Whether exactly one owner has it as a whole.
    pub const fn is_sole_direct(self) -> bool {
        self.direct_owners() == 1
    }

    /// How many of its slots are named by private lists.
    pub const fn listed_slots(self) -> usize {
        ((self.0 & LISTED_MASK) >> LISTED_SHIFT) as usize
    }

    /// Whether nobody refers to it any more, though it is still allocated.
    pub const fn is_abandoned(self) -> bool {
        self.0 == IN_USE
    }

    /// With one direct owner more; `None` past 2^32.
    pub const fn share(self) -> Option<Self> {
        if self.direct_owners() == u32::MAX { None } else { Some(Self(self.0 + 1)) }
    }

    /// With one direct owner less; `None` if there is none.
    pub const fn unshare(self) -> Option<Self> {
        if self.direct_owners() == 0 { None } else { Some(Self(self.0 - 1)) }
    }

    /// With one slot more that lists name; `None` past 512.
    pub const fn list_slot(self) -> Option<Self> {
        if self.listed_slots() < 512 { Some(Self(self.0 + (1 << LISTED_SHIFT))) } else { None }
    }

    /// With one slot less that lists name; `None` if there is none.
    pub const fn unlist_slot(self) -> Option<Self> {
        if self.listed_slots() == 0 { None } else { Some(Self(self.0 - (1 << LISTED_SHIFT))) }
    }

    /// No longer held for new slots.
    #[must_use]
    pub const fn let_go(self) -> Self {
        Self(self.0 & !HELD)
    }
}
