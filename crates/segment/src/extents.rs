//! Extents of a tier: places of one segment each, taken and given back.
//!
//! Freed extents are used again first while their disk blocks are still there; beyond a few, their
//! blocks are given back to the file system. Relation: every extent below the high-water mark is in
//! use, `warm` (free, blocks kept), `cold` (free, punched) or being punched, and in one of them only.

use crate::SEGMENT_BYTES;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;

/// The number of a tier; used again when the tier has been removed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TierId(pub(crate) u8);

impl TierId {
    /// The number as text and tools show it.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The tier of a number; whether there is one is another question.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(number)
    }
}

impl fmt::Display for TierId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tier {}", self.0)
    }
}

/// The place of a segment on a tier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Extent(pub(crate) u32);

impl Extent {
    /// The place of that number, from the beginning of the file.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The byte offset of its start in the tier's file.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 as u64 * SEGMENT_BYTES as u64
    }
}

/// Which extents of one tier are free.
#[derive(Debug)]
pub(crate) struct Extents {
    /// The first one, behind what the tier keeps for itself.
    first: u32,
    capacity: u32,
    high_water: u32,
    warm: VecDeque<Extent>,
    cold: Vec<Extent>,
    in_use: u32,
    punching: u32,
}

impl Extents {
    /// Extents of so many bytes, from `start` (whole segments) of the tier on.
    pub(crate) fn new(capacity_bytes: u64, start: u64) -> Self {
        let segments = |bytes: u64| u32::try_from(bytes / SEGMENT_BYTES as u64).unwrap_or(u32::MAX);
        let first = segments(start);
        let capacity = segments(capacity_bytes).min(u32::MAX - first);
        Self {
            first,
            capacity,
            high_water: 0,
            warm: VecDeque::new(),
            cold: Vec::new(),
            in_use: 0,
            punching: 0,
        }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(crate) fn in_use(&self) -> u32 {
        self.in_use
    }

    /// The extent that begins at such an offset of the tier.
    pub(crate) fn at(&self, offset: u64) -> Option<Extent> {
        let number = u32::try_from(offset / SEGMENT_BYTES as u64).ok()?;
        let there = offset.is_multiple_of(SEGMENT_BYTES as u64)
            && number.checked_sub(self.first).is_some_and(|at| at < self.capacity);
        there.then_some(Extent(number))
    }

    /// These are in use, before any was taken.
    pub(crate) fn claim(&mut self, numbers: &BTreeSet<u32>) {
        debug_assert_eq!(self.high_water, 0, "some have been taken");
        self.high_water = numbers.last().map_or(0, |last| last - self.first + 1);
        self.in_use = numbers.len() as u32;
        let free = (self.first..self.first + self.high_water).filter(|number| !numbers.contains(number));
        self.warm = free.map(Extent).collect();
    }

    /// Takes an extent, if more than `keep` are free.
    pub(crate) fn take(&mut self, keep: u32) -> Option<Extent> {
        if self.capacity - self.in_use <= keep {
            return None;
        }
        let extent = match self.warm.pop_back().or_else(|| self.cold.pop()) {
            Some(extent) => extent,
            None if self.high_water < self.capacity => {
                self.high_water += 1;
                Extent(self.first + self.high_water - 1)
            }
            // The rest is just being punched.
            None => return None,
        };
        self.in_use += 1;
        Some(extent)
    }

    pub(crate) fn give_back(&mut self, extent: Extent) {
        debug_assert!(extent.0 - self.first < self.high_water && self.in_use > 0);
        self.in_use -= 1;
        self.warm.push_back(extent);
    }

    /// An extent whose blocks should go back to the file system. It belongs to the caller until
    /// [`punched`](Self::punched). So many keep theirs.
    pub(crate) fn take_to_punch(&mut self, keep: usize) -> Option<Extent> {
        // The oldest first: the newest is the next to be used.
        let taken = if self.warm.len() > keep { self.warm.pop_front() } else { None };
        self.punching += u32::from(taken.is_some());
        taken
    }

    /// Nothing is on it and nobody works on it.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_use == 0 && self.punching == 0
    }

    pub(crate) fn punched(&mut self, extent: Extent) {
        self.punching -= 1;
        self.cold.push(extent);
    }

    /// Bytes of memory that the lists take.
    pub(crate) fn metadata_bytes(&self) -> usize {
        (self.warm.capacity() + self.cold.capacity()) * size_of::<Extent>()
    }
}
