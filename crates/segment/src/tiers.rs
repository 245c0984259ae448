//! Tiers as the table knows them: which of them take segments, in which order, and what is free on each. No I/O.
//!
//! As with the kernel's swap areas the highest priority that has room is taken first, and those of one priority take turns.

use crate::extents::{Extent, Extents, TierId};
use crate::storage::RoomOf;
use crate::{Purpose, SEGMENT_BYTES};
use std::cmp::Reverse;

/// The most tiers at once.
pub const MAX_TIERS: usize = 32;

/// Extents of a tier that only cleaning may take, so that a full one can still be compacted.
const CLEANING_RESERVE: u32 = 2;
/// Tiers smaller than this have no such reserve.
const RESERVE_FROM: u32 = 8;
/// A tier is crowded when less than this part of it is free,
const CROWDED: u32 = 16;
/// but no more than so many extents need be.
const MOST_KEPT_FREE: u32 = 32;
/// Segments for which a tier is passed over after its device said that it is full: it may share its file system with others.
const PASSED_OVER: u32 = 64;

/// Extents that a new tier is to have, so that `segments` can be moved to it: those that only cleaning may take besides, and an eighth for what is
/// written there before or meanwhile.
pub(crate) fn extents_to_move(segments: u64) -> u64 {
    segments + segments.div_ceil(8) + u64::from(CLEANING_RESERVE)
}

/// What a tier does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TierState {
    /// It takes segments.
    Open,
    /// It is being emptied, and takes none.
    Draining,
    /// A write to it failed: it takes none, and what it has is still read.
    Failing,
}

impl TierState {
    /// One word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Draining => "draining",
            Self::Failing => "failing",
        }
    }
}

/// A tier at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TierStatus {
    /// Which.
    pub tier: TierId,
    /// The highest is written first.
    pub priority: i16,
    /// What it does.
    pub state: TierState,
    /// Bytes that it may hold as things stand, in whole segments.
    pub capacity: u64,
    /// Bytes of the segments on it.
    pub used: u64,
    /// Bytes of the entries in them that live, from the mean of each.
    pub live: u64,
}

#[derive(Debug)]
struct Tier {
    extents: Extents,
    priority: i16,
    state: TierState,
    /// When it was taken last, by the count of all takings.
    taken: u64,
    /// Segments for which it is still passed over.
    passed_over: u32,
    /// Segments for which its storage has room, whatever its extents say.
    room: u32,
    /// Whose room that is, where others may have it too.
    room_of: Option<RoomOf>,
    /// What is on it never leaves memory.
    in_memory: bool,
}

impl Tier {
    /// Extents that must stay free.
    fn reserve(&self, purpose: Purpose) -> u32 {
        if purpose != Purpose::Cleaning && self.extents.capacity() >= RESERVE_FROM {
            CLEANING_RESERVE
        } else {
            0
        }
    }

    /// Extents that may be taken, whatever room there is for them.
    fn vacant(&self) -> u32 {
        let free = self.extents.capacity() - self.extents.in_use();
        free.saturating_sub(self.reserve(Purpose::Migration))
    }

    fn free(&self) -> u32 {
        self.vacant().min(self.room)
    }

    /// Has less room than writeback should find.
    fn is_crowded(&self) -> bool {
        self.free() < (self.size() / CROWDED).clamp(1, MOST_KEPT_FREE)
    }

    /// Extents that it may hold as things stand.
    fn size(&self) -> u32 {
        self.extents.capacity().min(self.extents.in_use().saturating_add(self.room))
    }

    fn take(&mut self, purpose: Purpose) -> Option<Extent> {
        if self.room == 0 {
            return None;
        }
        self.take_beyond_room(purpose)
    }

    fn take_beyond_room(&mut self, purpose: Purpose) -> Option<Extent> {
        let extent = self.extents.take(self.reserve(purpose))?;
        self.room = self.room.saturating_sub(1);
        Some(extent)
    }
}

/// What an open tier could still take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Free {
    pub(crate) tier: TierId,
    /// Extents that may be taken, whatever room there is for them.
    pub(crate) extents: u64,
    /// Segments for which there is room.
    pub(crate) room: u64,
    /// Whose room that is: where others have it too, it is there once.
    pub(crate) of: Option<RoomOf>,
}

/// All tiers; a removed one leaves its number to the next that is added.
#[derive(Debug, Default)]
pub(crate) struct Tiers {
    tiers: Vec<Option<Tier>>,
    takings: u64,
}

impl Tiers {
    /// Adds a tier, open. `None` if there are [`MAX_TIERS`].
    pub(crate) fn add(&mut self, extents: Extents, priority: i16, in_memory: bool) -> Option<TierId> {
        let at = match self.tiers.iter().position(Option::is_none) {
            Some(vacant) => vacant,
            None if self.tiers.len() < MAX_TIERS => {
                self.tiers.push(None);
                self.tiers.len() - 1
            }
            None => return None,
        };
        let (state, room) = (TierState::Open, u32::MAX);
        let (taken, passed_over, room_of) = (0, 0, None);
        let tier = Tier { extents, priority, state, taken, passed_over, room, room_of, in_memory };
        self.tiers[at] = Some(tier);
        Some(TierId(at as u8))
    }

    /// Forgets a tier on which nothing is, or being punched. Tells whether it did.
    pub(crate) fn remove(&mut self, id: TierId) -> bool {
        let idle = self.get(id).is_some_and(|tier| tier.extents.is_idle());
        if idle {
            self.tiers[usize::from(id.0)] = None;
        }
        idle
    }

    /// Takes an extent of the best open tier that has one, of those that `may` be taken.
    pub(crate) fn take(
        &mut self,
        purpose: Purpose,
        may: &dyn Fn(TierId) -> bool,
    ) -> Option<(TierId, Extent)> {
        self.takings += 1;
        let mut order: Vec<usize> =
            (0..self.tiers.len()).filter(|at| self.takes(*at, purpose) && may(TierId(*at as u8))).collect();
        order.sort_by_key(|at| self.tiers[*at].as_ref().map(|tier| (Reverse(tier.priority), tier.taken)));
        let mut full = Vec::new();
        let mut taken = None;
        for at in order {
            let Some(tier) = &mut self.tiers[at] else { continue };
            if tier.passed_over > 0 {
                tier.passed_over -= 1;
                full.push(at);
                continue;
            }
            if let Some(extent) = tier.take(purpose) {
                tier.taken = self.takings;
                taken = Some((TierId(at as u8), extent));
                break;
            }
        }
        // Where nothing else is left, one that was full a while ago is better than nothing; but nothing moves to it.
        if matches!(purpose, Purpose::Migration | Purpose::Demotion { .. }) {
            return taken;
        }
        taken
            .or_else(|| {
                full.into_iter().find_map(|at| {
                    let tier = self.tiers[at].as_mut()?;
                    let extent = tier.take(purpose)?;
                    tier.taken = self.takings;
                    Some((TierId(at as u8), extent))
                })
            })
            .or_else(|| if purpose == Purpose::Cleaning { self.take_to_clean(may) } else { None })
    }

    /// Cleaning gives more back than it takes, so a tier without room may be taken for it - unless that is memory, and what is cleaned may come
    /// from a disk.
    fn take_to_clean(&mut self, may: &dyn Fn(TierId) -> bool) -> Option<(TierId, Extent)> {
        let open = |tier: &&mut Tier| tier.state == TierState::Open;
        let disks = self.tiers.iter().flatten().any(|tier| tier.state == TierState::Open && !tier.in_memory);
        let may = |at: usize| may(TierId(at as u8));
        let takings = self.takings;
        let tiers = self.tiers.iter_mut().enumerate().filter_map(|(at, tier)| Some((at, tier.as_mut()?)));
        let fit = |at: usize, tier: &&mut Tier| open(tier) && may(at) && (!disks || !tier.in_memory);
        tiers.filter(|(at, tier)| fit(*at, tier)).find_map(|(at, tier)| {
            let extent = tier.take_beyond_room(Purpose::Cleaning)?;
            tier.taken = takings;
            Some((TierId(at as u8), extent))
        })
    }

    /// Whether a tier is one that takes segments, for this purpose.
    fn takes(&self, at: usize, purpose: Purpose) -> bool {
        let below = |priority| !matches!(purpose, Purpose::Demotion { below } if priority >= below);
        self.tiers[at].as_ref().is_some_and(|tier| tier.state == TierState::Open && below(tier.priority))
    }

    /// The tiers of lower priority than `below` that have room now.
    pub(crate) fn roomy_below(&self, below: i16) -> impl Iterator<Item = TierId> + '_ {
        let roomy = |tier: &Tier| tier.passed_over == 0 && tier.free() > 0;
        (0..self.tiers.len())
            .filter(move |at| self.takes(*at, Purpose::Demotion { below }))
            .filter(move |at| self.tiers[*at].as_ref().is_some_and(roomy))
            .map(|at| TierId(at as u8))
    }

    /// The open tiers that have room now.
    pub(crate) fn roomy(&self) -> impl Iterator<Item = TierId> + '_ {
        let roomy = |tier: &Tier| tier.passed_over == 0 && tier.free() > 0;
        self.open().filter(move |tier| self.get(*tier).is_some_and(roomy))
    }

    /// Whether tiers differ in priority.
    pub(crate) fn has_levels(&self) -> bool {
        let mut priorities = self.tiers.iter().flatten().map(|tier| tier.priority);
        let first = priorities.next();
        priorities.any(|priority| Some(priority) != first)
    }

    /// Tiers with hardly any room left above one that has some, and their priorities, the lowest first.
    pub(crate) fn crowded(&self) -> Vec<(TierId, i16)> {
        let open = || self.tiers.iter().flatten().filter(|tier| tier.state == TierState::Open);
        // Where the room is the same, nothing is won.
        let takes = |from: &Tier, to: &Tier| {
            let same = to.room_of.is_some() && to.room_of == from.room_of;
            to.priority < from.priority && to.passed_over == 0 && to.free() > 0 && !same
        };
        let tiers = self.tiers.iter().zip(0..).filter_map(|(tier, at)| Some((tier.as_ref()?, TierId(at))));
        let mut crowded: Vec<(TierId, i16)> = tiers
            .filter(|(tier, _)| tier.state == TierState::Open && tier.extents.in_use() > 0)
            .filter(|(tier, _)| tier.is_crowded() && open().any(|to| takes(tier, to)))
            .map(|(tier, id)| (id, tier.priority))
            .collect();
        crowded.sort_by_key(|(_, priority)| *priority);
        crowded
    }

    pub(crate) fn give_back(&mut self, id: TierId, extent: Extent) {
        if let Some(tier) = self.get_mut(id) {
            tier.extents.give_back(extent);
        }
    }

    /// The device has no room, whatever its size says.
    pub(crate) fn pass_over(&mut self, id: TierId) {
        if let Some(tier) = self.get_mut(id) {
            tier.passed_over = PASSED_OVER;
        }
    }

    /// Somebody wants room: whoever was full is asked again.
    pub(crate) fn pass_nobody_over(&mut self) {
        self.tiers.iter_mut().flatten().for_each(|tier| tier.passed_over = 0);
    }

    /// The storage has room for so many segments now.
    pub(crate) fn set_room(&mut self, id: TierId, segments: u32, of: RoomOf) {
        if let Some(tier) = self.get_mut(id) {
            (tier.room, tier.room_of) = (segments, Some(of));
        }
    }

    /// Whether what is on it never leaves memory.
    pub(crate) fn in_memory(&self, id: TierId) -> bool {
        self.get(id).is_some_and(|tier| tier.in_memory)
    }

    pub(crate) fn state(&self, id: TierId) -> Option<TierState> {
        self.get(id).map(|tier| tier.state)
    }

    /// Changes what a tier does; gives what it did before, `None` if there is no such tier.
    pub(crate) fn set_state(&mut self, id: TierId, state: TierState) -> Option<TierState> {
        let tier = self.get_mut(id)?;
        tier.passed_over = 0;
        Some(std::mem::replace(&mut tier.state, state))
    }

    /// The open tiers, those of the highest priority first, and the segments that could still be moved to each.
    pub(crate) fn free(&self) -> Vec<Free> {
        let known = self.tiers.iter().enumerate().filter_map(|(at, tier)| Some((at, tier.as_ref()?)));
        let mut open: Vec<(usize, &Tier)> = known.filter(|(_, tier)| tier.state == TierState::Open).collect();
        open.sort_by_key(|(_, tier)| (Reverse(tier.priority), tier.taken));
        let sharing = |of: Option<RoomOf>| open.iter().filter(move |(_, tier)| tier.room_of == of);
        let free = |(at, tier): &(usize, &Tier)| Free {
            tier: TierId(*at as u8),
            extents: tier.vacant().into(),
            // What one of those has that share it, all have.
            room: match tier.room_of {
                None => tier.room.into(),
                of => sharing(of).map(|(_, tier)| u64::from(tier.room)).max().unwrap_or(0),
            },
            of: tier.room_of,
        };
        open.iter().map(free).collect()
    }

    /// All there are.
    pub(crate) fn all(&self) -> impl Iterator<Item = TierId> {
        (0..self.tiers.len()).filter(|at| self.tiers[*at].is_some()).map(|at| TierId(at as u8))
    }

    /// Those that take segments.
    pub(crate) fn open(&self) -> impl Iterator<Item = TierId> {
        (0..self.tiers.len()).filter(|at| self.takes(*at, Purpose::Writeback)).map(|at| TierId(at as u8))
    }

    /// How many tiers the next segments go to in turn; 0 if none is open.
    pub(crate) fn stripes(&self) -> usize {
        let open =
            || self.tiers.iter().flatten().filter(|tier| tier.state == TierState::Open && tier.free() > 0);
        let Some(highest) = open().map(|tier| tier.priority).max() else { return 0 };
        open().filter(|tier| tier.priority == highest).count()
    }

    /// Tells whether there is any tier.
    pub(crate) fn any(&self) -> bool {
        self.tiers.iter().any(Option::is_some)
    }

    pub(crate) fn extents(&self, id: TierId) -> Option<&Extents> {
        self.get(id).map(|tier| &tier.extents)
    }

    pub(crate) fn extents_mut(&mut self, id: TierId) -> Option<&mut Extents> {
        self.get_mut(id).map(|tier| &mut tier.extents)
    }

    /// Segments that have an extent.
    pub(crate) fn in_use(&self) -> u64 {
        self.tiers.iter().flatten().map(|tier| u64::from(tier.extents.in_use())).sum()
    }

    /// Segments that have an extent on this one.
    pub(crate) fn in_use_on(&self, id: TierId) -> u64 {
        self.get(id).map_or(0, |tier| u64::from(tier.extents.in_use()))
    }

    /// Segments that fit.
    pub(crate) fn capacity(&self) -> u64 {
        self.tiers.iter().flatten().map(|tier| u64::from(tier.extents.capacity())).sum()
    }

    /// Every tier, without what lives there.
    pub(crate) fn statuses(&self) -> Vec<TierStatus> {
        let known = self.tiers.iter().enumerate().filter_map(|(at, tier)| Some((at, tier.as_ref()?)));
        known
            .map(|(at, tier)| TierStatus {
                tier: TierId(at as u8),
                priority: tier.priority,
                state: tier.state,
                capacity: u64::from(tier.size()) * SEGMENT_BYTES as u64,
                used: u64::from(tier.extents.in_use()) * SEGMENT_BYTES as u64,
                live: 0,
            })
            .collect()
    }

    pub(crate) fn metadata_bytes(&self) -> usize {
        self.tiers.capacity() * size_of::<Option<Tier>>()
            + self.tiers.iter().flatten().map(|tier| tier.extents.metadata_bytes()).sum::<usize>()
    }

    fn get(&self, id: TierId) -> Option<&Tier> {
        self.tiers.get(usize::from(id.0))?.as_ref()
    }

    fn get_mut(&mut self, id: TierId) -> Option<&mut Tier> {
        self.tiers.get_mut(usize::from(id.0))?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classes::{ClassId, Classes};
    use crate::fit::Fit;

    fn with(tiers: &[(u32, i16, bool)]) -> Tiers {
        let mut all = Tiers::default();
        for (segments, priority, in_memory) in tiers {
            let bytes = u64::from(*segments) * SEGMENT_BYTES as u64;
            all.add(Extents::new(bytes, 0), *priority, *in_memory).unwrap();
        }
        all
    }

    /// A full disk was cleaned into memory that had no room either, segment by segment: the limit was passed by all that the disk held.
    #[test]
    fn a_disk_is_cleaned_into_memory_that_has_no_room() {
        let mut tiers = with(&[(1000, 5, true), (16, 0, false)]);
        tiers.set_room(TierId(0), 0, RoomOf::Memory);
        while let Some((tier, _)) = tiers.take(Purpose::Cleaning, &|_| true) {
            assert_eq!(tier, TierId(1));
        }
        assert_eq!((tiers.in_use_on(TierId(0)), tiers.in_use_on(TierId(1))), (0, 16));
    }

    #[test]
    fn what_is_memory_throughout_may_still_be_packed_when_that_is_full() {
        let mut tiers = with(&[(1000, 5, true)]);
        tiers.set_room(TierId(0), 0, RoomOf::Memory);
        assert_eq!(tiers.take(Purpose::Writeback, &|_| true), None);
        assert!(tiers.take(Purpose::Cleaning, &|_| true).is_some());
    }

    #[test]
    fn a_tier_is_crowded_when_hardly_anything_is_free_and_there_is_somewhere_to_go() {
        let mut tiers = with(&[(32, 5, false), (32, 5, false), (4, 3, false), (16, 0, false)]);
        assert_eq!(tiers.crowded(), []);
        let fill = |tiers: &mut Tiers, purpose, until: &dyn Fn(&Tiers) -> bool| {
            while !until(tiers) {
                tiers.take(purpose, &|_| true).unwrap();
            }
        };
        fill(&mut tiers, Purpose::Writeback, &|tiers| !tiers.crowded().is_empty());
        // Of 30 each that writeback may take, fewer than 2 are free on one.
        assert_eq!((tiers.in_use_on(TierId(0)), tiers.in_use_on(TierId(1))), (29, 28));
        assert_eq!(tiers.crowded(), [(TierId(0), 5)]);
        // The next below is filled first, and is crowded itself then, before those above.
        let demotion = Purpose::Demotion { below: 5 };
        for _ in 0..4 {
            assert_eq!(tiers.take(demotion, &|_| true).unwrap().0, TierId(2));
        }
        assert_eq!(tiers.crowded(), [(TierId(2), 3), (TierId(0), 5)]);
        fill(&mut tiers, demotion, &|tiers| tiers.in_use_on(TierId(3)) == 14);
        assert_eq!((tiers.take(demotion, &|_| true), tiers.crowded()), (None, vec![]));
        assert_eq!(tiers.take(Purpose::Demotion { below: 0 }, &|_| true), None);
    }

    /// A part of its declared size was to be free: what a small memory let it have was taken from it at once.
    #[test]
    fn a_ghost_of_any_size_is_crowded_by_what_the_memory_lets_it_have() {
        let mut tiers = with(&[(100_000, 5, true), (100, 0, false)]);
        for taken in 0..20 {
            tiers.set_room(TierId(0), 20 - taken, RoomOf::Memory);
            assert_eq!(tiers.crowded(), [], "{taken} taken");
            assert_eq!(tiers.take(Purpose::Writeback, &|_| true).unwrap().0, TierId(0));
        }
        assert_eq!(tiers.crowded(), [(TierId(0), 5)]);
    }

    #[test]
    fn nothing_goes_to_where_the_room_is_the_same() {
        let mut tiers = with(&[(8, 5, true), (8, 0, true)]);
        tiers.take(Purpose::Writeback, &|_| true).unwrap();
        for tier in [0, 1] {
            tiers.set_room(TierId(tier), 0, RoomOf::Memory);
        }
        assert_eq!(tiers.crowded(), []);
        tiers.set_room(TierId(1), 3, RoomOf::FileSystem(1));
        assert_eq!(tiers.crowded(), [(TierId(0), 5)]);
    }

    /// A removal that could not end was begun.
    #[test]
    fn room_that_tiers_share_was_promised_by_each() {
        let mut tiers = with(&[(100, 0, true), (100, 0, true), (4, 0, false), (50, 0, false)]);
        tiers.set_room(TierId(0), 7, RoomOf::Memory);
        tiers.set_room(TierId(1), 7, RoomOf::Memory);
        tiers.set_room(TierId(3), 20, RoomOf::FileSystem(3));
        let free =
            |tiers: &Tiers| Fit::of(&tiers.free(), &Classes::default(), vec![(ClassId::COMMON, 0)]).room;
        assert_eq!(free(&tiers), 7 + 4 + 20);
        // No more than there are extents for.
        tiers.set_room(TierId(0), 1000, RoomOf::Memory);
        tiers.set_room(TierId(1), 1000, RoomOf::Memory);
        assert_eq!(free(&tiers), 196 + 4 + 20);
    }
}
