//! What owners do, each act against the map of what their pages must be.

use crate::deeds::{Deed, KINDS};
use crate::disk::{Device, SimDisk, SimGhost};
use crate::random::page;
use crate::table::Event;
use crate::world::{Owner, World, index};
use std::ops::ControlFlow;
use std::sync::Arc;
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, Resource};
use vswap_engine::{
    Emptied, EngineError, LoadError, LoadedFrom, RemoveTierError, Removing, SEGMENT_BYTES, StoreError, Tier,
    TierError, TierId, TierState, Unreadable, WritebackError,
};
use vswap_segment::TierKind;

/// Bytes that change before a tier is removed of which may be lost what cannot be read.
const ROTTEN: u64 = 16;

impl World {
    /// One act, of the choices of the moment.
    pub(crate) fn act(self: &World) {
        match self.draw(1000) {
            0..370 => self.store(),
            370..700 => self.load(),
            700..740 => self.load_run(),
            740..850 => self.release(),
            850..865 => self.fork(),
            865..875 => self.dispose(),
            875..880 if self.state().owners.len() < 8 => self.add_owner(),
            880..900 => self.move_page(),
            900..925 => self.adopt(),
            925..940 => self.writeback(),
            940..955 => self.load(),
            955..960 => self.compact(),
            960..966 => self.maintain(),
            966..968 => self.rot(),
            968 => self.regroup(),
            969..972 => self.reopen(),
            972..975 => self.remove_some(),
            975..978 => self.check_sums(),
            978..980 => self.starve(),
            981..984 => self.demote(),
            980 => self.change_groups(),
            984..987 => self.limit_tier(),
            987 => self.limit_ghosts(),
            _ => {}
        }
    }

    fn store(&self) {
        let (at, number) = (self.position(), self.number());
        let Some(mut owner) = self.take_owner() else { return };
        let before = owner.block.slot(index(at));
        match owner.block.slot_for_store(&self.engine, index(at)) {
            Ok(slot) => {
                if before != Some(slot) {
                    owner.pages.remove(&at);
                    self.resync(Event::Release);
                }
                // Whoever else wants to, before it is filled.
                if self.draw(8) == 0 {
                    self.interlude(Event::Store);
                }
                self.watch(slot, Event::Count);
                let stored = self.with_scratch(|scratch| self.engine.store(slot, &page(number), scratch));
                match stored {
                    Ok(stored) => {
                        owner.pages.insert(at, number);
                        self.state().lost.remove(&slot);
                        self.digest(matches!(stored, vswap_engine::StoredAs::Fill).into());
                    }
                    Err(StoreError::PoolFull { .. }) if self.limited || self.starves() => self.digest(7),
                    Err(StoreError::GroupFull { .. }) => self.digest(8),
                    Err(error) => panic!("storing page {number} at {at}: {error}"),
                }
                self.watch(slot, Event::Store);
            }
            Err(EngineError::NoMemory { .. }) if self.starves() => {
                // It may have gone over to a list; its page is where it was.
                self.resync(Event::Count);
                let kept = !owner.pages.contains_key(&at) || owner.block.slot(index(at)) == before;
                assert!(kept, "position {at} after a store that found no memory");
            }
            Err(error) => panic!("a slot for {at}: {error}"),
        }
        let known = owner.pages.contains_key(&at);
        assert_eq!(owner.block.has_backing(&self.engine, index(at)), known, "position {at} after a store");
        self.give_owner(owner);
    }

    /// An owner goes to another group, or a group may have more or less.
    fn regroup(&self) {
        let Some(mut owner) = self.take_owner() else { return };
        let group = self.any_group();
        match owner.block.move_to_group(&self.engine, group) {
            Ok(()) => assert_eq!(owner.block.group(), group),
            Err(EngineError::GroupFull(_)) => self.digest(9),
            Err(error) => panic!("moving to group {}: {error}", group.get()),
        }
        self.give_owner(owner);
        let (group, resource) = (self.any_group(), [Resource::Swap, Resource::Pool][self.draw(2) as usize]);
        let limit = (group != GroupId::ROOT)
            .then(|| self.draw(64) * if resource == Resource::Pool { 4096 } else { 1 });
        self.engine.set_group_limit(group, resource, limit).expect("groups stay");
    }

    /// A group may have more or less of a tier.
    fn limit_tier(&self) {
        let (group, tiers) = (self.any_group(), self.engine.tiers());
        if tiers.is_empty() {
            return;
        }
        let tier = tiers[self.draw(tiers.len() as u64) as usize].id;
        let limit = self.draw(8);
        let bytes = (limit < 6)
            .then(|| ByteCount::new(limit * SEGMENT_BYTES as u64 + self.draw(SEGMENT_BYTES as u64)));
        // The root is not to be left without room for long.
        let bytes = bytes.filter(|_| group != GroupId::ROOT || limit > 2);
        self.engine.set_tier_limit(group, tier, bytes).expect("group and tier are there");
        let shares = self.engine.group(group).expect("it is there").tiers;
        let share = shares.into_iter().find(|share| share.tier == tier);
        // From here on it has what it may have, or less and less.
        let most = share.and_then(|share| Some(share.limit?.max(share.usage)));
        let key = (group, tier);
        match most {
            Some(most) => drop(self.state().most.insert(key, most)),
            None => drop(self.state().most.remove(&key)),
        }
    }

    /// There is room for so much in memory, or no limit.
    fn limit_ghosts(&self) {
        let segments = self.draw(8);
        let most = if segments < 6 { segments * SEGMENT_BYTES as u64 } else { u64::MAX };
        self.ghosts.set_limit(most);
    }

    fn has_ghosts(&self) -> bool {
        self.state().disks.values().any(|device| device.kind().is_memory())
    }

    /// A group comes or goes.
    fn change_groups(&self) {
        let group = self.any_group();
        if self.draw(2) == 0 && self.state().groups.len() < 12 {
            let made = self.engine.new_group(group).expect("few groups were made");
            self.state().groups.push(made);
        } else if group != GroupId::ROOT {
            self.engine.remove_group(group).expect("it is there");
            self.state().groups.retain(|other| *other != group);
            self.state().most.retain(|(other, _), _| *other != group);
            assert!(self.engine.group(group).is_err(), "a group that was removed");
        }
    }

    /// The system has no memory for a while: neither for chunks of the pool nor for clusters.
    fn starve(&self) {
        let starving = !self.starves() && self.faulty();
        self.state().starving = starving;
        self.engine.starve(starving);
    }

    pub(crate) fn starves(&self) -> bool {
        self.state().starving
    }

    fn load(&self) {
        let at = self.position();
        let Some(owner) = self.take_owner() else { return };
        // Mostly a page that is there.
        let there = owner.pages.range(at..).next().map(|(at, _)| *at).filter(|_| self.draw(8) > 0);
        self.load_at(&owner, there.unwrap_or(at));
        self.give_owner(owner);
    }

    pub(crate) fn load_at(&self, owner: &Owner, at: usize) {
        let known = owner.pages.get(&at).copied();
        let backed = owner.block.has_backing(&self.engine, index(at));
        assert_eq!(backed, known.is_some(), "whether position {at} has a page");
        let Some(slot) = owner.block.slot(index(at)) else { return };
        self.watch(slot, Event::Count);
        let before = self.state().suspects;
        // Another reader may be told so while this one has the right bytes already.
        let was_lost = self.state().lost.contains(&slot);
        let mut bytes = [0xee; PAGE_SIZE];
        let loaded = self.with_scratch(|scratch| self.engine.load(slot, &mut bytes, scratch));
        let lost = self.state().lost.contains(&slot);
        let explained = self.state().suspects > before || lost;
        match (loaded, known) {
            (Ok(from), None) => assert_eq!(from, LoadedFrom::Empty, "{slot}"),
            (Ok(from), Some(number)) => {
                assert!(bytes == page(number), "{slot} from {from:?} is not page {number}");
                assert!(!was_lost, "{slot} was lost and is there again");
                self.digest(from as u64);
            }
            (Err(error), None) => panic!("{slot} holds no page: {error}"),
            (Err(LoadError::Poisoned { .. }), Some(_)) => {
                let just_found = self.state().loading.contains(&slot);
                assert!(lost || just_found, "{slot} is lost, and nobody said so");
                self.state().lost.insert(slot);
            }
            (Err(error @ LoadError::Io { .. }), Some(_)) => assert!(explained, "no fault explains: {error}"),
            (Err(error), Some(_)) => {
                assert!(explained, "no fault explains: {error}");
                self.state().lost.insert(slot);
                self.digest(9);
            }
        }
        self.watch(slot, Event::Load);
    }

    fn load_run(&self) {
        let from = self.position().min(480);
        let (count, asked) = (1 + self.draw(16) as usize, self.draw(16) as usize);
        let Some(owner) = self.take_owner() else { return };
        let slots: Vec<_> = (from..from + count).map(|at| owner.block.slot(index(at))).collect();
        let asked = asked % count;
        let mut pages = vec![[0xee; PAGE_SIZE]; count];
        let mut loaded: Vec<vswap_engine::Loaded> = slots.iter().map(|_| None).collect();
        let before = self.state().suspects;
        for slot in slots.iter().flatten() {
            self.watch(*slot, Event::Count);
        }
        let others = self.state().loading.len();
        self.state().loading.extend(slots.iter().flatten());
        self.with_scratch(|scratch| self.engine.load_run(&slots, asked, &mut pages, &mut loaded, scratch));
        self.state().loading.truncate(others);
        assert_eq!(loaded[asked].is_some(), slots[asked].is_some(), "the page asked for");
        for (at, (result, bytes)) in loaded.iter().zip(&pages).enumerate() {
            let (Some(result), Some(slot)) = (result, slots[at]) else { continue };
            let lost = self.state().lost.contains(&slot) || self.state().loading.contains(&slot);
            let explained = self.state().suspects > before || lost;
            match (result, owner.pages.get(&(from + at))) {
                (Ok(_), Some(number)) => assert!(*bytes == page(*number), "{slot} is not page {number}"),
                (Ok(from), None) => assert_eq!(*from, LoadedFrom::Empty, "{slot}"),
                (Err(LoadError::Io { .. }), Some(_)) => {
                    assert!(explained, "no fault explains it: {result:?}")
                }
                (Err(_), Some(_)) => {
                    assert!(explained, "no fault explains it: {result:?}");
                    self.state().lost.insert(slot);
                }
                (Err(error), None) => panic!("{slot} holds no page: {error}"),
            }
            self.watch(slot, Event::Load);
        }
        self.give_owner(owner);
    }

    fn release(&self) {
        let at = self.position();
        let Some(mut owner) = self.take_owner() else { return };
        let slot = owner.block.slot(index(at));
        slot.into_iter().for_each(|slot| self.watch(slot, Event::Count));
        owner.block.release(&self.engine, index(at));
        owner.pages.remove(&at);
        assert!(!owner.block.has_backing(&self.engine, index(at)), "position {at} was released");
        self.forget(slot);
        slot.into_iter().for_each(|slot| self.watch(slot, Event::Release));
        self.give_owner(owner);
    }

    /// A slot that is empty now is nobody's lost page.
    fn forget(&self, slot: Option<vswap_core::SlotId>) {
        if let Some(slot) = slot.filter(|slot| self.engine.peek(*slot).is_empty()) {
            self.state().lost.remove(&slot);
        }
    }

    fn forget_all(&self) {
        let engine = &self.engine;
        self.state().lost.retain(|slot| !engine.peek(*slot).is_empty());
    }

    fn fork(&self) {
        if self.state().owners.len() >= 8 {
            return self.dispose();
        }
        let Some(mut owner) = self.take_owner() else { return };
        let child = Owner { block: owner.block.fork(&self.engine), pages: owner.pages.clone() };
        self.give_owner(owner);
        self.give_owner(child);
    }

    fn dispose(&self) {
        let Some(owner) = self.take_owner() else { return };
        self.resync(Event::Count);
        owner.block.dispose(&self.engine);
        self.resync(Event::Release);
        self.forget_all();
        if self.state().owners.is_empty() {
            self.add_owner();
        }
    }

    fn move_page(&self) {
        let (at, to) = (self.position(), self.position());
        let (Some(mut from), other) = (self.take_owner(), self.take_owner()) else { return };
        if let Some(mut other) = other {
            self.resync(Event::Count);
            from.block.move_page(&self.engine, index(at), &mut other.block, index(to));
            match from.pages.remove(&at) {
                Some(number) => other.pages.insert(to, number),
                None => other.pages.remove(&to),
            };
            self.resync(Event::Release);
            self.forget_all();
            self.give_owner(other);
        }
        self.give_owner(from);
    }

    fn adopt(&self) {
        let (at, to) = (self.position(), self.position());
        let Some(from) = self.take_owner() else { return };
        let known = (from.block.slot(index(at)), from.pages.get(&at).copied());
        if let (Some(slot), _) = known
            && known.1.is_some()
        {
            self.engine.keep_slot(slot);
        }
        self.give_owner(from);
        let (Some(slot), Some(number)) = known else { return };
        // Its owner may do with it what it likes meanwhile.
        self.interlude(Event::Count);
        self.resync(Event::Count);
        match self.take_owner() {
            Some(mut owner) if owner.block.slot(index(to)) != Some(slot) => {
                owner.block.adopt(&self.engine, index(to), slot);
                owner.pages.insert(to, number);
                self.give_owner(owner);
            }
            owner => {
                self.engine.let_slot_go(slot);
                owner.into_iter().for_each(|owner| self.give_owner(owner));
            }
        }
        self.resync(Event::Release);
        self.forget_all();
    }

    fn writeback(&self) {
        if self.state().writer {
            return;
        }
        let want = ByteCount::new(4096 << self.draw(10));
        let group = if self.draw(4) == 0 { self.any_group() } else { GroupId::ROOT };
        let result = self.engine_does(Event::Writeback, true, || {
            self.with_scratch(|scratch| self.engine.writeback_of(group, want, scratch))
        });
        match result {
            Ok(report) => self.digest(report.pages.get()),
            Err(WritebackError::NoTier) => self.add_tier(),
            Err(WritebackError::Io { .. }) if self.faults.write > 0 => {}
            Err(error) => panic!("{error}"),
        }
        if self.engine.tiers().len() < 3 && self.draw(40) == 0 {
            self.add_tier();
        }
    }

    fn demote(&self) {
        if self.state().writer {
            return;
        }
        match self.engine_does(Event::Demotion, true, || self.engine.demote(2)) {
            Ok(done) => self.digest(done.segments),
            Err(WritebackError::Io { .. }) if self.faults.write > 0 => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn add_tier(&self) {
        let world = self.state().this.upgrade().expect("it is alive");
        // Tiers of eight and more keep room for cleaning.
        let segments = if self.draw(2) == 0 { 8 } else { 1 + self.draw(4) as usize };
        let (priority, kind) = (self.draw(3) as i16, KINDS[self.draw(4) as usize]);
        let device = match kind {
            TierKind::Ghost => Device::Ghost(SimGhost::new(segments, Arc::clone(&self.ghosts), &world)),
            kind => Device::Disk(SimDisk::new(kind, segments, self.faults, &world)),
        };
        let tier = self.engine.add_storage(device.storage(), priority).expect("few tiers");
        self.state().disks.insert(tier, device);
        self.note(Deed::Added, kind);
    }

    fn compact(&self) {
        let moved = self.engine_does(Event::Compaction, false, || self.engine.compact(3, 3));
        self.digest(moved as u64);
    }

    fn maintain(&self) {
        self.engine_does(Event::Compaction, false, || self.engine.maintain(false));
    }

    fn rot(&self) {
        let (tiers, at) = (self.engine.tiers(), self.draw(u64::MAX));
        if self.faults.read == 0 || tiers.is_empty() {
            return;
        }
        self.rot_on(tiers[self.draw(tiers.len() as u64) as usize].id, at);
    }

    fn rot_on(&self, tier: TierId, at: u64) {
        if let Device::Disk(disk) = &self.state().disks[&tier] {
            disk.rot(at);
        }
    }

    fn reopen(&self) {
        for tier in self.engine.tiers().iter().filter(|tier| tier.state == TierState::Failing) {
            self.engine.reopen_tier(tier.id).expect("it is there, and failing");
        }
    }

    fn remove_some(&self) {
        let tiers = self.engine.tiers();
        // It would wait for who is just giving room back.
        if self.state().writer || self.state().tidying > 0 || tiers.is_empty() {
            return;
        }
        let lose = self.draw(3) == 0 && self.state().depth == 0;
        let tier = &tiers[self.draw(tiers.len() as u64) as usize];
        if lose {
            self.make_losses(tier.id);
        }
        self.remove(tier, lose);
    }

    /// Something on a tier cannot be read, and there is room for the rest.
    fn make_losses(&self, tier: TierId) {
        for _ in 0..if self.faults.read > 0 { ROTTEN } else { 0 } {
            self.rot_on(tier, self.draw(u64::MAX));
        }
        if self.engine.tiers().len() < 4 {
            self.add_tier();
        }
    }

    /// Removes a tier, or begins to; whoever watches lets the others act, and ends it sometimes.
    pub(crate) fn remove(&self, Tier { id: tier, kind, live, .. }: &Tier, lose: bool) {
        let (tier, kind) = (*tier, *kind);
        let unreadable = if lose { Unreadable::Lose } else { Unreadable::Keep };
        let most = ByteCount::new(self.draw(3) * 4 * SEGMENT_BYTES as u64);
        let memory = &|| most;
        let mut left = self.draw(10);
        let healthy = self.state().healthy;
        let before = self.state().suspects;
        self.begin_to_count_losses();
        let has_ghosts = self.has_ghosts();
        let emptied = self.state().emptied.replace(kind);
        let removed = self.engine_does(Event::Removal, true, || {
            self.engine.remove_tier(tier, Removing { unreadable, memory }, &mut |_| {
                self.state().writer = false;
                self.interlude(Event::Removal);
                self.state().writer = true;
                left = left.wrapping_sub(1);
                if left == 0 && !healthy { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        self.state().emptied = emptied;
        let gone = !self.engine.tiers().iter().any(|other| other.id == tier);
        match removed {
            Ok(done) => {
                assert!(gone, "{tier} was removed");
                self.has_lost(done.lost);
                assert!(done.lost == 0 || self.state().suspects > before, "pages lost that were readable");
                self.state().most.retain(|(_, other), _| *other != tier);
                let disk = self.state().disks.remove(&tier).expect("it was there");
                // A reader further up may be just reading it.
                let held = disk.is_held() && self.state().depth == 0;
                assert!(!held, "{tier} is gone, its device is held");
                self.digest(done.segments);
                self.note_removal(kind, *live, &done);
            }
            Err(error) => {
                self.note_refusal(kind, &error);
                let busy = matches!(error, RemoveTierError::Busy);
                assert!(!gone || busy, "{error}, but {tier} is gone");
                let excused = match &error {
                    RemoveTierError::Cancelled { .. } => left == 0,
                    RemoveTierError::Tier(TierError::NoRoom { .. }) | RemoveTierError::NoRoom { .. } => true,
                    RemoveTierError::Busy => self.state().depth > 0,
                    RemoveTierError::Unreadable { .. } => self.state().suspects > before && !lose,
                    // A ghost may be full before its time.
                    RemoveTierError::Io { source, .. } => {
                        self.faults.write > 0 || vswap_segment::is_full(source) && has_ghosts
                    }
                    _ => false,
                };
                assert!(excused, "nothing explains: {error}");
                self.has_lost(0);
            }
        }
    }

    fn note_removal(&self, kind: TierKind, live: ByteCount, done: &Emptied) {
        let note = |deed, happened: bool| happened.then(|| self.note(deed, kind));
        note(Deed::Removed, live > ByteCount::ZERO);
        note(Deed::Lost, done.lost > 0);
    }

    fn note_refusal(&self, kind: TierKind, error: &RemoveTierError) {
        let deed = match error {
            RemoveTierError::Tier(TierError::NoRoom { .. }) | RemoveTierError::NoRoom { .. } => Deed::NoRoom,
            RemoveTierError::Cancelled { .. } => Deed::Cancelled,
            RemoveTierError::Unreadable { .. } => Deed::Unreadable,
            _ => return,
        };
        self.note(deed, kind);
    }

    /// So many pages have been lost with a tier.
    fn has_lost(&self, told: u64) {
        let lost = self.lost_since();
        if self.state().depth > 0 {
            return assert_eq!(told, 0, "lost, though nothing may be");
        }
        assert_eq!(told, lost, "pages told of that went with the tier, and pages that did");
    }
}
