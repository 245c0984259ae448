//! What a cluster has charged to its group: one word, so that a cluster goes to another group with all of it at one moment.
//!
//! | bits | what |
//! | --- | --- |
//! | 0..16 | group |
//! | 16..32 | slots of it that hold a page |
//! | 32..64 | bytes of its pages in the pool |
//!
//! The group lies lowest: a sum that is changed by addition cannot reach it. A charge is added before the page comes and taken off after it
//! went, so no sum is ever below what is there, and none is below zero.

use crate::PAGES_PER_CLUSTER;
use crate::units::GroupId;

/// Groups that a word can name.
pub const MAX_GROUPS: u32 = 1 << 16;
const PAGES_SHIFT: u32 = 16;
const POOL_SHIFT: u32 = 32;

// A page more than the cluster has, while one is replaced; each at most as long as itself.
const _: () = assert!(PAGES_PER_CLUSTER + 1 < 1 << (POOL_SHIFT - PAGES_SHIFT));

/// What pages take: a difference, never below zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Slots that hold a page.
    pub pages: u16,
    /// Bytes in the pool.
    pub pool: u32,
}

impl Load {
    /// As an addend of [`ClusterCharge`]'s word.
    pub const fn to_word(self) -> u64 {
        (self.pages as u64) << PAGES_SHIFT | (self.pool as u64) << POOL_SHIFT
    }

    /// Whether there is nothing.
    pub const fn is_nothing(self) -> bool {
        self.pages == 0 && self.pool == 0
    }
}

/// The word of a cluster in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClusterCharge(u64);

impl ClusterCharge {
    /// Of a fresh cluster.
    ///
    /// # Panics
    /// If the group's number is [`MAX_GROUPS`] or more.
    pub const fn new(group: GroupId) -> Self {
        assert!(group.get() < MAX_GROUPS);
        Self(group.get() as u64)
    }

    /// From the word.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word.
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// Whom it is charged to.
    pub const fn group(self) -> GroupId {
        GroupId::new((self.0 % MAX_GROUPS as u64) as u32)
    }

    /// What is charged.
    pub const fn load(self) -> Load {
        Load { pages: (self.0 >> PAGES_SHIFT) as u16, pool: (self.0 >> POOL_SHIFT) as u32 }
    }

    /// The same, charged to another group.
    #[must_use]
    pub const fn of_group(self, group: GroupId) -> Self {
        Self(self.0 & !(MAX_GROUPS as u64 - 1) | Self::new(group).0)
    }
}
