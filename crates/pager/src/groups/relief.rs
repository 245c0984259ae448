//! Making room in groups that are at a limit.
//!
//! A group at its limit of resident pages has its own pages moved out, in the order of a hand of its own that goes round the blocks of its spaces; a fault in it
//! waits for that as one waits for room in the limit of all. As there, some pages are kept free, so that few wait. A group at its limit of the pool
//! has pages of it written to a tier, by whoever stores one or by the keeper before that.

use crate::block::Block;
use crate::evict::{Among, Effort, Tools};
use crate::pager::{Full, FullPolicy, Shared};
use crate::space::Space;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use vswap_core::{ByteCount, Event, GroupId, Page, Resource, SlotId};
use vswap_engine::{Bounds, SEGMENT_BYTES, Scratch, StoreError};
use vswap_sys::process;

/// Milliseconds without progress, with faults waiting, after which a group has nothing left to move.
const GIVE_UP_AFTER: u64 = 300;
/// The same while one of its spaces is held, as for the limit of all.
const GIVE_UP_HELD_AFTER: u64 = 5000;
/// Milliseconds without a refused charge after which nobody waits any more.
const RETRIED_WITHIN: u64 = 100;
/// Milliseconds for which no pool of a group is written down after nothing of one could be.
const REST: u64 = 100;
/// The pool of a group may always hold as much as is written at a time: a limit below it means that pages only pass through.
const PASSING: u64 = SEGMENT_BYTES as u64;
/// Times that a page is tried to be stored after room was made for it.
const TRIES: u32 = 3;

/// A group with a limit of resident pages.
#[derive(Debug)]
pub(super) struct Limited {
    pub group: GroupId,
    /// The space and the number of the block that are next.
    hand: Mutex<(u64, u64)>,
    /// Nothing more can be moved out of it: its pages are charged past the limit.
    pub over: AtomicBool,
    told: AtomicBool,
    /// When something was moved out of it last, or nothing had to be.
    moved: AtomicU64,
    /// Since when a charge was refused again and again, and when one was last.
    refused: AtomicU64,
    refused_last: AtomicU64,
}

/// What came of a look at all groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relief {
    /// None wants pages moved out.
    None,
    /// Some were.
    Some,
    /// None could be.
    Stuck,
}

/// Pages that are kept free below a limit.
fn reserve(limit: u64) -> u64 {
    (limit / 64).clamp(8, 1024)
}

impl Shared {
    /// Notes for the evictors if a group has little room left.
    pub(crate) fn note_if_short(&self, group: GroupId) {
        if self.groups.any_limited.load(Relaxed) {
            let tree = self.engine.group_tree();
            let limit = tree.effective_limit(group, Resource::Resident);
            if limit < u64::MAX && tree.room(group, Resource::Resident) < reserve(limit) / 2 {
                self.budget.note_short_group(false);
            }
        }
    }

    /// Whether a group could be charged `pages` and an eighth of its limit still be free.
    pub(crate) fn group_has_plenty(&self, group: GroupId, pages: usize) -> bool {
        if group == GroupId::ROOT {
            return true;
        }
        let tree = self.engine.group_tree();
        let limit = tree.effective_limit(group, Resource::Resident);
        limit == u64::MAX || tree.room(group, Resource::Resident) >= limit / 8 + pages as u64
    }

    /// Whether a group may have no more pages in the swap space.
    pub(crate) fn is_swap_full(&self, group: GroupId) -> bool {
        self.engine.group_tree().room(group, Resource::Swap) == 0
    }

    /// Pages that are to be moved out of a group: those that it has over its limit, and the reserve.
    fn group_wants(&self, group: GroupId) -> u64 {
        let tree = self.engine.group_tree();
        let limit = tree.limit(group, Resource::Resident);
        tree.usage(group, Resource::Resident).saturating_sub(limit.saturating_sub(reserve(limit)))
    }

    fn is_group_at_limit(&self, group: GroupId) -> bool {
        let tree = self.engine.group_tree();
        tree.usage(group, Resource::Resident) >= tree.limit(group, Resource::Resident)
    }

    /// Moves some pages out of each group that has too little room.
    pub(crate) fn relieve_groups(&self, tools: &mut Tools) -> Relief {
        self.budget.take_short_group();
        if !self.groups.any_limited.load(Relaxed) {
            return Relief::None;
        }
        let all = self.groups.limited.read().clone();
        let mut relief = Relief::None;
        for limited in all {
            let now = self.clock_ms();
            let at_limit = self.is_group_at_limit(limited.group);
            if self.group_wants(limited.group) == 0 && !at_limit {
                limited.over.store(false, Relaxed);
                limited.moved.store(now, Relaxed);
                continue;
            }
            let before = tools.progress();
            if self.relieve_group(&limited, tools) && !tools.is_futile_since(before) {
                limited.moved.store(now, Relaxed);
                if !self.is_group_at_limit(limited.group) {
                    limited.over.store(false, Relaxed);
                }
                self.room_came();
                relief = Relief::Some;
            } else {
                if at_limit && limited.waits_too_long(now, self.patience(&limited)) {
                    self.group_is_stuck(&limited);
                }
                if relief == Relief::None {
                    relief = Relief::Stuck;
                }
            }
        }
        relief
    }

    fn relieve_group(&self, limited: &Limited, tools: &mut Tools) -> bool {
        let tree = self.engine.group_tree();
        let mut spaces =
            self.spaces_where(|space| tree.is_within(space.charged.get().group(), limited.group));
        spaces.sort_unstable_by_key(|space| space.id);
        if self.call_in_grants_of(&spaces) {
            return true;
        }
        let hard = self.is_group_at_limit(limited.group);
        let efforts = [Effort::Plenty, Effort::Any, Effort::Any, Effort::Forced];
        efforts.into_iter().take(if hard { 4 } else { 3 }).any(|effort| {
            self.evict_some_of(limited, &spaces, effort, tools)
                || spaces.iter().any(|space| self.write_down_one(space, tools))
        })
    }

    fn evict_some_of(
        &self,
        limited: &Limited,
        spaces: &[Arc<Space>],
        effort: Effort,
        tools: &mut Tools,
    ) -> bool {
        let limit = self.engine.group_tree().limit(limited.group, Resource::Resident);
        let most = (reserve(limit) as usize).clamp(32, 512).min(self.batch());
        let rounds: usize = spaces.iter().map(|space| space.blocks.read().len()).sum();
        for _ in 0..rounds {
            let Some((space, block)) = limited.next(spaces) else { return false };
            if block.state.lock().is_out() {
                continue;
            }
            if self.evict_from(&space, &block, effort, (most, Among::All), tools) {
                // What is staged still counts.
                while self.write_down_one(&space, tools) {}
                return true;
            }
        }
        false
    }

    /// Milliseconds without progress after which a group is given up. A hold of one of its spaces ends, and to kill for the want of a moment's
    /// patience does more harm than to wait.
    fn patience(&self, limited: &Limited) -> u64 {
        let tree = self.engine.group_tree();
        let held =
            |space: &Space| space.is_held() && tree.is_within(space.charged.get().group(), limited.group);
        let waits = self.config.full == FullPolicy::Kill && !self.spaces_where(held).is_empty();
        if waits { GIVE_UP_HELD_AFTER } else { GIVE_UP_AFTER }
    }

    /// Nothing more can be moved out of a group, and faults wait: the user's choice decides.
    fn group_is_stuck(&self, limited: &Limited) {
        let group = limited.group;
        let tree = self.engine.group_tree();
        if !limited.over.swap(true, Relaxed) {
            tree.count(group, Event::Oom, 1);
        }
        if !limited.told.swap(true, Relaxed)
            && let Some(tell) = &self.config.on_full
        {
            tell(Full {
                group: Some(self.path(&self.groups.names.lock(), group)),
                limit: tree.limit(group, Resource::Resident) * 4096,
                used: tree.usage(group, Resource::Resident) * 4096,
                resident: tree.usage(group, Resource::Resident) * 4096,
                pool: tree.usage(group, Resource::Pool),
                disk_full: self.disk_full.load(Relaxed) || !self.engine.has_room_for(group),
            });
        }
        if self.config.full == FullPolicy::Kill {
            let within =
                |space: &Space| space.link().is_some() && tree.is_within(space.charged.get().group(), group);
            for space in self.spaces_where(within) {
                let _ = process::kill(space.pid(), vswap_sys::signal::SIGKILL);
            }
        }
        self.room_came();
    }

    /// Whether pages of a group would go on to a tier, as far as is known.
    pub(crate) fn is_room_below(&self, group: GroupId) -> bool {
        self.engine.has_tiers() && !self.disk_full.load(Relaxed) && self.engine.has_room_for(group)
    }

    /// Stores a page, making room in its group's pool if that is what is missing.
    pub(crate) fn store(&self, slot: SlotId, page: &Page, scratch: &mut Scratch) -> Result<(), StoreError> {
        let mut tries = TRIES;
        loop {
            let error = match self.engine.store(slot, page, scratch) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let StoreError::GroupFull { full, .. } = error else { return Err(error) };
            if full.resource != Resource::Pool {
                self.engine.group_tree().count(full.group, Event::SwapMax, 1);
                return Err(error);
            }
            let passes = full.limit < PASSING && full.usage < PASSING;
            if passes && self.is_room_below(self.engine.group_of(slot)) {
                return self.engine.store_within(Bounds::Swap, slot, page, scratch).map(drop);
            }
            let want = ByteCount::new(full.usage.saturating_sub(full.limit) + PASSING);
            tries -= 1;
            if tries == 0 || !self.write_back_of(full.group, want, scratch) {
                return Err(error);
            }
        }
    }

    /// Writes pools of groups down that come near their limits, so that evictors need not wait for that. `false` if nothing was done.
    pub(crate) fn shrink_pools_of_groups(&self, scratch: &mut Scratch) -> bool {
        if !self.groups.any_pool.load(Relaxed) {
            return false;
        }
        let now = self.clock_ms();
        self.groups.rest_until.lock().retain(|_, until| now < *until);
        let tree = self.engine.group_tree();
        let mut any = false;
        for group in tree.all() {
            let limit = match tree.limit(group, Resource::Pool) {
                u64::MAX => continue,
                limit => limit.max(PASSING),
            };
            let usage = tree.usage(group, Resource::Pool);
            if usage > limit / 8 * 7 && !self.groups.rest_until.lock().contains_key(&group) {
                let wrote = self.write_back_of(group, ByteCount::new(usage - limit / 4 * 3), scratch);
                if !wrote {
                    self.groups.rest_until.lock().insert(group, self.clock_ms() + REST);
                }
                any |= wrote;
            }
        }
        any
    }
}

impl Limited {
    pub fn new(group: GroupId, now: u64) -> Limited {
        Limited {
            group,
            hand: Mutex::default(),
            over: AtomicBool::new(false),
            told: AtomicBool::new(false),
            moved: AtomicU64::new(now),
            refused: AtomicU64::new(0),
            refused_last: AtomicU64::new(0),
        }
    }

    /// A charge was refused; whoever waits for it tries again each millisecond.
    pub fn note_refusal(&self, now: u64) {
        if now.saturating_sub(self.refused_last.swap(now, Relaxed)) > RETRIED_WITHIN {
            self.refused.store(now, Relaxed);
        }
    }

    /// Whether somebody waits now and has for longer than `patience`, in which nothing was moved out.
    fn waits_too_long(&self, now: u64, patience: u64) -> bool {
        let waits = now.saturating_sub(self.refused_last.load(Relaxed)) <= RETRIED_WITHIN;
        let since = self.refused.load(Relaxed).max(self.moved.load(Relaxed));
        waits && now.saturating_sub(since) > patience
    }

    /// The next block of these spaces, which are sorted by number.
    fn next(&self, spaces: &[Arc<Space>]) -> Option<(Arc<Space>, Arc<Block>)> {
        let mut hand = self.hand.lock();
        let first = spaces.partition_point(|space| space.id < hand.0);
        for at in 0..=spaces.len() {
            let space = spaces.get((first + at) % spaces.len().max(1))?;
            let from = if at == 0 && space.id == hand.0 { hand.1 } else { 0 };
            if let Some((number, block)) = space.blocks.read().range(from..).next() {
                *hand = (space.id, number + 1);
                return Some((Arc::clone(space), Arc::clone(block)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Limited;
    use crate::noise::Noise;
    use crate::pager::{Pager, PagerConfig};
    use std::sync::atomic::Ordering::Relaxed;
    use vswap_core::{ByteCount, Event, PAGE_SIZE, PAGES_PER_CLUSTER, PageIndex, Resource};
    use vswap_engine::{Engine, EngineConfig, TierConfig};

    /// Before there is a space there is no keeper that would have made room already.
    #[test]
    fn whoever_stores_makes_room_in_the_pool_of_the_group_by_writing_its_pages_down() {
        const LIMIT: u64 = 4 << 20;
        let tiers = vec![TierConfig::new(std::env::temp_dir(), ByteCount::mib(64))];
        let engine = Engine::new(EngineConfig { tiers, ..EngineConfig::default() }).unwrap();
        let pager = Pager::new(PagerConfig::new(ByteCount::mib(64)), engine.clone()).unwrap();
        let group = pager.add_group("/a").unwrap();
        pager.limit_group("/a", Resource::Pool, Some(LIMIT)).unwrap();
        let mut scratch = engine.scratch();
        let mut blocks: Vec<_> = (0..8).map(|_| engine.owner_block(group).unwrap()).collect();
        let mut noise = Noise::new();
        for at in 0..8 * PAGES_PER_CLUSTER {
            let mut page = [0; PAGE_SIZE];
            noise.fill(&mut page[..PAGE_SIZE / 2]);
            let index = PageIndex::new(at % PAGES_PER_CLUSTER).unwrap();
            let slot = blocks[at / PAGES_PER_CLUSTER].slot_for_store(&engine, index).unwrap();
            pager.shared.store(slot, &page, &mut scratch).unwrap();
            assert!(engine.group(group).unwrap().pool.usage <= LIMIT);
        }
        let described = engine.group(group).unwrap();
        assert!(described.pool.usage > LIMIT / 4, "{described:?}");
        assert!(described.events[Event::Zswpwb as usize] > 1000, "{described:?}");
        blocks.into_iter().for_each(|block| block.dispose(&engine));
    }

    /// It rested for all when nothing of one could be written.
    #[test]
    fn the_pool_of_a_group_is_written_down_while_that_of_another_rests() {
        let tiers = vec![TierConfig::new(std::env::temp_dir(), ByteCount::mib(64))];
        let engine = Engine::new(EngineConfig { tiers, ..EngineConfig::default() }).unwrap();
        let pager = Pager::new(PagerConfig::new(ByteCount::mib(64)), engine.clone()).unwrap();
        let mut scratch = engine.scratch();
        let paths = ["/a", "/b"];
        let groups = paths.map(|path| pager.add_group(path).unwrap());
        let mut noise = Noise::new();
        let owners = groups.map(|group| {
            let mut owner = engine.owner_block(group).unwrap();
            for at in 0..PAGES_PER_CLUSTER {
                let mut page = [0; PAGE_SIZE];
                noise.fill(&mut page);
                let slot = owner.slot_for_store(&engine, PageIndex::new(at).unwrap()).unwrap();
                engine.store(slot, &page, &mut scratch).unwrap();
            }
            owner
        });
        paths.iter().for_each(|path| pager.limit_group(path, Resource::Pool, Some(0)).unwrap());
        let pools = || groups.map(|group| engine.group(group).unwrap().pool.usage);
        let before = pools();
        pager.shared.groups.rest_until.lock().insert(groups[0], u64::MAX);
        assert!(pager.shared.shrink_pools_of_groups(&mut scratch));
        let after = pools();
        assert!(after[0] == before[0] && after[1] < before[1], "{before:?} {after:?}");
        owners.into_iter().for_each(|owner| owner.dispose(&engine));
    }

    /// They passed through to nowhere: over the limit, 2 MiB at a time, as long as others had room on a disk.
    #[test]
    fn pages_that_may_go_to_no_tier_do_not_pass_through_the_pool() {
        let tiers = vec![TierConfig::new(std::env::temp_dir(), ByteCount::mib(64))];
        let engine = Engine::new(EngineConfig { tiers, ..EngineConfig::default() }).unwrap();
        let pager = Pager::new(PagerConfig::new(ByteCount::mib(64)), engine.clone()).unwrap();
        let group = pager.add_group("/a").unwrap();
        let tier = engine.tiers()[0].id;
        pager.limit_group("/a", Resource::Pool, Some(0)).unwrap();
        pager.limit_group_on_tier("/a", tier, Some(ByteCount::ZERO)).unwrap();
        let mut scratch = engine.scratch();
        let mut owners = [group, vswap_core::GroupId::ROOT]
            .map(|group| (0..2).map(|_| engine.owner_block(group).unwrap()).collect::<Vec<_>>());
        let mut page = [0; PAGE_SIZE];
        Noise::new().fill(&mut page);
        let mut store = |owner: usize, at: usize| {
            let index = PageIndex::new(at % PAGES_PER_CLUSTER).unwrap();
            let slot = owners[owner][at / PAGES_PER_CLUSTER].slot_for_store(&engine, index).unwrap();
            pager.shared.store(slot, &page, &mut scratch)
        };
        assert!((0..512).all(|at| store(0, at).is_ok()), "nobody has tried yet");
        assert!(store(0, 600).is_err());
        // Others have room, and write; that is none for these.
        (0..600).for_each(|at| store(1, at).unwrap());
        assert!(pager.shared.write_back(ByteCount::mib(1), &mut engine.scratch()));
        assert!(!pager.shared.disk_full.load(Relaxed));
        owners[0][0].release(&engine, PageIndex::new(7).unwrap());
        let mut store = |at: usize| {
            let slot = owners[0][1].slot_for_store(&engine, PageIndex::new(at).unwrap()).unwrap();
            pager.shared.store(slot, &page, &mut scratch)
        };
        assert!(store(0).is_err());
        pager.limit_group_on_tier("/a", tier, None).unwrap();
        (0..100).for_each(|at| store(at).unwrap());
        owners.into_iter().flatten().for_each(|block| block.dispose(&engine));
    }

    /// Whoever asked last said so for all: a group with nothing to write, that there was room.
    #[test]
    fn a_disk_that_is_full_stays_so_whatever_groups_without_pages_ask() {
        let tiers = vec![TierConfig::new(std::env::temp_dir(), ByteCount::mib(2))];
        let engine = Engine::new(EngineConfig { tiers, ..EngineConfig::default() }).unwrap();
        let pager = Pager::new(PagerConfig::new(ByteCount::mib(64)), engine.clone()).unwrap();
        let groups = ["/a", "/b"].map(|path| pager.add_group(path).unwrap());
        pager.limit_group_on_tier("/a", engine.tiers()[0].id, Some(ByteCount::mib(64))).unwrap();
        let mut scratch = engine.scratch();
        let mut owners = [0, 0].map(|_| engine.owner_block(groups[1]).unwrap());
        let mut page = [0; PAGE_SIZE];
        Noise::new().fill(&mut page);
        for owner in &mut owners {
            for at in 0..PAGES_PER_CLUSTER {
                let slot = owner.slot_for_store(&engine, PageIndex::new(at).unwrap()).unwrap();
                engine.store(slot, &page, &mut scratch).unwrap();
            }
        }
        while pager.shared.write_back(ByteCount::mib(4), &mut scratch) {}
        let is_full = || pager.shared.disk_full.load(Relaxed);
        assert!(is_full());
        pager.shared.write_back_of(groups[0], ByteCount::mib(4), &mut scratch);
        assert!(is_full(), "it had nothing to write");
        (0..PAGES_PER_CLUSTER).for_each(|at| owners[0].release(&engine, PageIndex::new(at).unwrap()));
        assert!(pager.shared.write_back_of(groups[1], ByteCount::mib(1), &mut scratch));
        assert!(!is_full(), "there was room for its pages");
        owners.into_iter().for_each(|block| block.dispose(&engine));
    }

    /// A group at its limit that asked for nothing was given up as soon as somebody waited in another; one that asked at last, at once.
    #[test]
    fn a_group_is_given_up_for_the_waiting_of_another() {
        let limited = Limited::new(vswap_core::GroupId::ROOT, 1000);
        assert!(!limited.waits_too_long(9000, 300), "nobody has asked");
        (9000..=9300).for_each(|now| limited.note_refusal(now));
        assert!(!limited.waits_too_long(9300, 300), "for 300 ms only");
        limited.note_refusal(9301);
        assert!(limited.waits_too_long(9301, 300));
        assert!(!limited.waits_too_long(9500, 300), "nobody asks any more");
        limited.note_refusal(9500);
        assert!(!limited.waits_too_long(9500, 300), "it has begun to wait anew");
    }
}
