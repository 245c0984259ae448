//! [`World`]: an engine, its devices, and the map of what every page of every owner must be.
//!
//! A page is what was stored last. A device in trouble changes that in two ways only: what it does not give is an error for as long as it does not; and
//! what comes back otherwise than it was written is lost, from then on for all who have the page. Nothing is ever anything else, nothing that a device
//! was told about is lost when a write fails, and each error is one that a device explains.

use super::op::{LARGE, Op, Trouble};
use crate::flaky::{Faults, Flaky, Struck};
use crate::pages::page;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PAGES_PER_CLUSTER, PageCount, PageIndex, Resource, SlotId};
use vswap_engine::{
    BackingKind, CodecChoice, Engine, EngineConfig, EngineError, Group, LoadError, Loaded, LoadedFrom,
    OwnerBlock, RemoveTierError, Removing, SEGMENT_BYTES, Scratch, StoreError, Tier, TierConfig, TierError,
    TierId, TierKind, TierShare, TierState, Unreadable, WritebackError, WritebackReport,
};

/// What one or several owners have at a position: they share it from a fork on until they store anew.
#[derive(Debug)]
pub struct Content {
    number: u64,
    /// Some reader, or who removed its tier, has found that its bytes are gone.
    lost: Cell<bool>,
}

impl Content {
    pub fn of(number: u64) -> Rc<Self> {
        Rc::new(Self { number, lost: Cell::new(false) })
    }
}

pub struct Owner {
    pub block: OwnerBlock,
    pub pages: BTreeMap<usize, Rc<Content>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Devices {
    None,
    Sound,
    /// The first of so many segments.
    Troubled(usize),
}

impl Devices {
    fn may_fail(self) -> bool {
        matches!(self, Self::Troubled(_))
    }
}

pub struct World {
    pub engine: Arc<Engine>,
    pub scratch: Scratch,
    pub owners: Vec<Owner>,
    devices: Devices,
    /// By the number of their tier.
    disks: BTreeMap<u8, Arc<Flaky>>,
    /// Tiers that take nothing since a write to them failed.
    failing: BTreeSet<u8>,
    /// Tiers of which a write failed, or found no room, in a queue that broke: who writes next may hear of it.
    unheard: BTreeSet<u8>,
    /// Tiers that said that they were full: they are passed over for a while, though they may have room.
    said_full: BTreeSet<u8>,
    starving: bool,
}

/// How finely is looked for damage.
const STEP: usize = 512;

/// Whether any of the entry of a page may be damaged.
fn is_among(damaged: &BTreeSet<u64>, entry: u64, content: &Content) -> bool {
    // With its header and seal; half of a page's bytes tell all of those that compress.
    let most = 64 + if content.number % 8 < 4 { PAGE_SIZE } else { PAGE_SIZE / 2 } as u64;
    damaged.range((entry + 1).saturating_sub(STEP as u64)..entry + most).next().is_some()
}

pub fn index(at: usize) -> PageIndex {
    PageIndex::new(at).unwrap()
}

fn disk(segments: usize) -> Arc<Flaky> {
    Flaky::new(segments * SEGMENT_BYTES, Faults::default())
}

impl World {
    pub fn new(codec: CodecChoice, devices: Devices) -> Self {
        let engine = Engine::new(EngineConfig { codec, ..EngineConfig::default() }).unwrap();
        let scratch = engine.scratch_for_runs();
        let mut world = Self {
            engine,
            scratch,
            owners: Vec::new(),
            devices,
            disks: BTreeMap::new(),
            failing: BTreeSet::new(),
            unheard: BTreeSet::new(),
            said_full: BTreeSet::new(),
            starving: false,
        };
        match devices {
            Devices::None => {}
            Devices::Sound => world.add_tier(0, LARGE),
            Devices::Troubled(segments) => world.add_tier(0, segments),
        }
        world.add();
        world
    }

    fn add(&mut self) {
        let block = self.engine.owner_block(GroupId::ROOT).unwrap();
        self.owners.push(Owner { block, pages: BTreeMap::new() });
    }

    fn add_tier(&mut self, priority: i16, segments: usize) {
        let disk = disk(segments);
        let tier = self.engine.add_storage(Arc::clone(&disk) as _, priority).unwrap();
        self.disks.insert(tier.get(), disk);
    }

    pub fn run(mut self, ops: Vec<Op>) -> Result<(), TestCaseError> {
        for op in ops {
            self.apply(op)?;
        }
        // What a device did not give it gives now.
        self.disks.values().for_each(|disk| disk.heal());
        self.engine.starve(false);
        self.check_all()?;
        self.check_nothing_left()
    }

    pub fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        let before = shares(&self.engine);
        let struck: Vec<_> = self.disks.iter().map(|(tier, disk)| (*tier, disk.struck())).collect();
        let changes_limits = matches!(op, Op::LimitTier { .. });
        let writes = matches!(op, Op::Writeback { .. });
        let emptied = match op {
            Op::RemoveTier { at, cancel_after, lose, memory } if self.engine.tiers().len() > 1 => {
                Some(self.remove_tier(at, cancel_after, lose, memory)?)
            }
            Op::RemoveTier { .. } => None,
            op => {
                self.act(op)?;
                None
            }
        };
        self.check_states(&struck, emptied, writes)?;
        let audit = self.engine.audit_groups().and(self.engine.audit_tiers());
        prop_assert!(audit.is_ok(), "{:?}", audit);
        let after = shares(&self.engine);
        for (key, (usage, limit)) in after.iter().filter(|_| !changes_limits) {
            let had = before.get(key).map_or(ByteCount::ZERO, |(usage, _)| *usage);
            prop_assert!(limit.is_none_or(|limit| *usage <= limit.max(had)), "{:?}: {:?}", key, after);
        }
        Ok(())
    }

    fn act(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::New => self.add(),
            Op::Maintain => {
                self.engine.maintain(false);
                self.engine.compact(3, 3);
            }
            Op::Starve(starving) => {
                self.starving = starving;
                self.engine.starve(starving);
            }
            Op::NewGroup { .. }
            | Op::RemoveGroup { .. }
            | Op::Limit { .. }
            | Op::LimitTier { .. }
            | Op::MoveToGroup { .. } => self.act_on_groups(op)?,
            Op::Writeback { .. }
            | Op::WritebackOf { .. }
            | Op::Demote { .. }
            | Op::AddTier { .. }
            | Op::AddGhost { .. }
            | Op::RemoveTier { .. }
            | Op::Reopen { .. }
            | Op::Trouble { .. } => self.act_on_tiers(op)?,
            _ if self.owners.is_empty() => {}
            op => self.act_on_pages(op)?,
        }
        Ok(())
    }

    fn act_on_groups(&mut self, op: Op) -> Result<(), TestCaseError> {
        let Self { engine, owners, .. } = self;
        match op {
            Op::NewGroup { parent } => {
                // The parent may not be there.
                let _ = engine.new_group(GroupId::new(parent));
            }
            Op::RemoveGroup { group } => {
                let there = group > 0 && engine.group(GroupId::new(group)).is_ok();
                prop_assert_eq!(engine.remove_group(GroupId::new(group)).is_ok(), there);
            }
            Op::Limit { group, resource, limit } => {
                let there = engine.group(GroupId::new(group)).is_ok();
                prop_assert_eq!(engine.set_group_limit(GroupId::new(group), resource, limit).is_ok(), there);
            }
            Op::LimitTier { group, at, segments } if !engine.tiers().is_empty() => {
                let tiers = engine.tiers();
                let (group, tier) = (GroupId::new(group), tiers[at % tiers.len()].id);
                let bytes = segments.map(|segments| ByteCount::new((segments << 21) + 4095));
                let there = engine.group(group).is_ok();
                prop_assert_eq!(engine.set_tier_limit(group, tier, bytes).is_ok(), there);
            }
            Op::MoveToGroup { owner, group } if !owners.is_empty() => {
                let count = owners.len();
                let block = &mut owners[owner % count].block;
                let there = engine.group(GroupId::new(group)).is_ok();
                let moved = block.move_to_group(engine, GroupId::new(group));
                prop_assert!(there || moved.is_err());
                prop_assert_eq!(
                    block.group() == GroupId::new(group),
                    moved.is_ok() || block.group().get() == group
                );
            }
            _ => {}
        }
        Ok(())
    }

    fn act_on_tiers(&mut self, op: Op) -> Result<(), TestCaseError> {
        let before = self.struck();
        match op {
            _ if self.devices == Devices::None => {}
            Op::Writeback { kib } => {
                let result = self.engine.writeback(ByteCount::new(kib << 10), &mut self.scratch);
                self.check_written(result, before)?;
            }
            Op::WritebackOf { group } => {
                let group = GroupId::new(group);
                let others = |engine: &Engine| {
                    let (all, own) = (engine.group(GroupId::ROOT), engine.group(group));
                    all.unwrap().pool.usage - own.map_or(0, |group| group.pool.usage)
                };
                let of_others = others(&self.engine);
                let there = self.engine.group(group).is_ok();
                let result = self.engine.writeback_of(group, ByteCount::mib(2), &mut self.scratch);
                let report = self.check_written(result, before)?;
                if there {
                    prop_assert_eq!(others(&self.engine), of_others, "of others nothing is written");
                    let left = self.engine.group(group).unwrap().pool.usage;
                    let stays = report.is_none_or(|report| report.limited || report.disk_full);
                    prop_assert!(left == 0 || stays, "{} bytes, {:?}", left, report);
                }
            }
            Op::Demote { most } => {
                let done = self.engine.demote(most);
                self.check_error(done.err(), before)?;
            }
            Op::AddTier { priority, segments } if self.engine.tiers().len() < 5 => {
                self.add_tier(priority, segments);
            }
            Op::AddGhost { priority } if self.engine.tiers().len() < 5 => {
                let ghost = TierConfig { priority, ..TierConfig::of(TierKind::Ghost, "") };
                self.engine.add_tier(&ghost).unwrap();
            }
            Op::Reopen { at } => {
                let tiers = self.engine.tiers();
                let tier = tiers[at % tiers.len()].id;
                self.engine.reopen_tier(tier).unwrap();
                self.failing.remove(&tier.get());
            }
            Op::Trouble { at, trouble } => {
                let disk = self.disks.values().nth(at % self.disks.len().max(1));
                let Some(disk) = disk else { return Ok(()) };
                match trouble {
                    Trouble::Over => disk.heal(),
                    Trouble::Reads(trouble, times) => disk.trouble_reads(trouble, times),
                    Trouble::Writes(trouble, times) => disk.trouble_writes(trouble, times),
                    Trouble::Rot(at) => disk.rot(at),
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn act_on_pages(&mut self, op: Op) -> Result<(), TestCaseError> {
        let count = self.owners.len();
        let Self { engine, owners, .. } = self;
        match op {
            Op::Store { owner, at, number } => self.store(owner % count, at, number)?,
            Op::Load { owner, at } => self.check(owner % count, at)?,
            Op::LoadRun { owner, at, asked } => self.check_run(owner % count, at, asked)?,
            Op::Move { from, at, owner, to } if from % count != owner % count => {
                let [source, target] = owners.get_disjoint_mut([from % count, owner % count]).unwrap();
                source.block.move_page(engine, index(at), &mut target.block, index(to));
                match source.pages.remove(&at) {
                    Some(content) => target.pages.insert(to, content),
                    None => target.pages.remove(&to),
                };
            }
            Op::Adopt { from, owner, at, to } => {
                let source = &owners[from % count];
                let (Some(slot), Some(content)) =
                    (source.block.slot(index(at)), source.pages.get(&at).cloned())
                else {
                    return Ok(());
                };
                engine.keep_slot(slot);
                if to == at && from % count == owner % count {
                    // Thought better of.
                    engine.let_slot_go(slot);
                } else {
                    owners[owner % count].block.adopt(engine, index(to), slot);
                    owners[owner % count].pages.insert(to, content);
                }
            }
            Op::Release { owner, at } => {
                let owner = &mut owners[owner % count];
                owner.block.release(engine, index(at));
                owner.pages.remove(&at);
                prop_assert!(!owner.block.has_backing(engine, index(at)));
            }
            Op::Fork { owner } if count < 8 => {
                let owner = &mut owners[owner % count];
                let child = Owner { block: owner.block.fork(engine), pages: owner.pages.clone() };
                owners.push(child);
            }
            Op::Dispose { owner } => owners.swap_remove(owner % count).block.dispose(engine),
            _ => {}
        }
        Ok(())
    }

    /// The page is there, or refused: then the slot holds what it held, which is the former page if the slot is the former one.
    fn store(&mut self, owner: usize, at: usize, number: u64) -> Result<(), TestCaseError> {
        let Self { engine, owners, scratch, starving, .. } = self;
        let owner = &mut owners[owner];
        let before = owner.block.slot(index(at));
        let slot = match owner.block.slot_for_store(engine, index(at)) {
            Ok(slot) => slot,
            Err(EngineError::NoMemory { .. }) if *starving => {
                let known = owner.pages.contains_key(&at);
                prop_assert!(!known || owner.block.slot(index(at)) == before, "page {}", at);
                prop_assert_eq!(owner.block.has_backing(engine, index(at)), known, "page {}", at);
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(format!("a slot for {at}: {error}"))),
        };
        prop_assert_eq!(owner.block.slot(index(at)), Some(slot));
        if before != Some(slot) {
            owner.pages.remove(&at);
        }
        match engine.store(slot, &page(number), scratch) {
            Ok(_) => drop(owner.pages.insert(at, Content::of(number))),
            Err(StoreError::GroupFull { full, .. }) => {
                let most = if full.resource == Resource::Swap { 1 } else { PAGE_SIZE as u64 };
                prop_assert!(full.usage + most > full.limit, "{}", full);
            }
            Err(StoreError::PoolFull { .. }) if *starving => {}
            Err(error) => return Err(TestCaseError::fail(format!("storing page {number} at {at}: {error}"))),
        }
        let known = owner.pages.contains_key(&at);
        prop_assert_eq!(owner.block.has_backing(engine, index(at)), known, "page {}", at);
        Ok(())
    }

    fn check(&mut self, owner: usize, at: usize) -> Result<(), TestCaseError> {
        let before = self.struck();
        let Self { engine, owners, scratch, .. } = self;
        let owner = &owners[owner];
        let known = owner.pages.get(&at);
        prop_assert_eq!(owner.block.has_backing(engine, index(at)), known.is_some(), "page {}", at);
        let (Some(content), Some(slot)) = (known, owner.block.slot(index(at))) else { return Ok(()) };
        let content = Rc::clone(content);
        let mut bytes = [0xee; PAGE_SIZE];
        let loaded = engine.load(slot, &mut bytes, scratch);
        self.judge(&loaded, &content, &bytes, before)
    }

    /// What a reader got is what was stored, or an error that a device has just given cause for.
    fn judge(
        &self,
        loaded: &Result<LoadedFrom, LoadError>,
        content: &Content,
        bytes: &[u8; PAGE_SIZE],
        before: Struck,
    ) -> Result<(), TestCaseError> {
        let (lost, told) = (content.lost.get(), self.struck() - before);
        let right = match loaded {
            Ok(_) => !lost && *bytes == page(content.number),
            Err(LoadError::Poisoned { .. }) => lost,
            Err(error @ LoadError::Io { .. }) => !lost && told.reads > 0 && self.place(error).is_some(),
            Err(error @ LoadError::Corrupt { .. }) => {
                content.lost.set(true);
                !lost && told.wrong > 0 && self.is_damaged(error, content, told)
            }
            Err(_) => false,
        };
        prop_assert!(right, "{:?} of {:?}, read wrongly: {:?}", loaded, content, told);
        Ok(())
    }

    /// Where a page is that could not be loaded.
    fn place(&self, error: &LoadError) -> Option<(&Flaky, u64)> {
        let place = self.engine.lost(error).place?;
        Some((self.disks.get(&place.tier.get())?, place.offset))
    }

    /// Whether the bytes of a page are not as they were written, if no read had only come wrong this time.
    fn is_damaged(&self, error: &LoadError, content: &Content, told: Struck) -> bool {
        let place = self.place(error);
        place.is_some_and(|(disk, at)| told.passing > 0 || is_among(&disk.damaged(STEP), at, content))
    }

    /// A run gives the page asked for and, of the others, those that it says, all of them right.
    fn check_run(&mut self, owner: usize, from: usize, asked: usize) -> Result<(), TestCaseError> {
        let before = self.struck();
        let Self { engine, owners, scratch, .. } = self;
        let (owner, of) = (&owners[owner], owner);
        let slots: Vec<_> = (from..14).map(|at| owner.block.slot(index(at))).collect();
        let asked = asked % slots.len();
        let mut pages = vec![[0xee; PAGE_SIZE]; slots.len()];
        let mut loaded: Vec<Loaded> = slots.iter().map(|_| None).collect();
        engine.load_run(&slots, asked, &mut pages, &mut loaded, scratch);
        prop_assert_eq!(loaded[asked].is_some(), slots[asked].is_some());
        for (at, (result, bytes)) in loaded.iter().zip(&pages).enumerate() {
            let known = self.owners[of].pages.get(&(from + at));
            let (Some(result), Some(content)) = (result, known) else { continue };
            // For the others the device is not asked twice.
            let others =
                at != asked && matches!(result, Err(LoadError::Io { .. } | LoadError::Corrupt { .. }));
            prop_assert!(!others, "page {} of the run: {:?}", at, result);
            self.judge(result, content, bytes, before)?;
        }
        Ok(())
    }

    /// What all disks have done.
    fn struck(&self) -> Struck {
        self.disks.values().fold(Struck::default(), |sum, disk| sum + disk.struck())
    }

    /// Whether an open tier takes another segment. One that said that it was full is written when there is no other, but whoever may not have more
    /// of it is not told that it has room.
    fn has_room(&self) -> bool {
        let limited = self.is_limited();
        let counts = |tier: &Tier| !limited || !self.said_full.contains(&tier.id.get());
        let tiers = self.engine.tiers();
        tiers.iter().any(|tier| tier.state == TierState::Open && free(tier) > 0 && counts(tier))
    }

    fn is_limited(&self) -> bool {
        shares(&self.engine).into_values().any(|(_, limit)| limit.is_some())
    }

    fn check_written(
        &self,
        result: Result<WritebackReport, WritebackError>,
        before: Struck,
    ) -> Result<Option<WritebackReport>, TestCaseError> {
        let told = self.struck() - before;
        let (report, error) = match result {
            Ok(report) => (Some(report), None),
            Err(error) => (None, Some(error)),
        };
        self.check_error(error, before)?;
        if report.is_some_and(|report| report.disk_full) {
            prop_assert!(self.devices.may_fail(), "{:?}", report);
            let full = told.full > 0 || !self.unheard.is_empty() || !self.has_room();
            prop_assert!(full, "{:?}: {:?}", report, self.engine.tiers());
        }
        Ok(report)
    }

    /// What could not be written is an error, unless it was for want of room; and nothing else is.
    fn check_error(&self, error: Option<WritebackError>, before: Struck) -> Result<(), TestCaseError> {
        let told = self.struck() - before;
        let failed = told.writes > told.full || told.queues > 0;
        match error {
            None => prop_assert!(!failed, "nobody was told: {:?}", told),
            Some(WritebackError::Io { .. }) => {
                prop_assert!(failed || !self.unheard.is_empty(), "{:?}", told);
            }
            Some(error) => prop_assert!(false, "{}", error),
        }
        Ok(())
    }

    /// A tier fails from a write that failed until somebody reopens it, and none else.
    fn check_states(
        &mut self,
        before: &[(u8, Struck)],
        emptied: Option<TierId>,
        writes: bool,
    ) -> Result<(), TestCaseError> {
        let told: BTreeMap<u8, Struck> = before
            .iter()
            .filter_map(|(tier, struck)| Some((*tier, self.disks.get(tier)?.struck() - *struck)))
            .collect();
        let broken = told.values().any(|told| told.queues > 0);
        for tier in self.engine.tiers() {
            let fails = tier.state == TierState::Failing;
            prop_assert!(fails || tier.state == TierState::Open, "{:?}", tier);
            let failed = told.get(&tier.id.get()).is_some_and(|told| told.writes > told.full);
            if told.get(&tier.id.get()).is_some_and(|told| told.full > 0) {
                self.said_full.insert(tier.id.get());
            }
            if broken && told.get(&tier.id.get()).is_some_and(|told| told.writes > 0) {
                self.unheard.insert(tier.id.get());
            }
            if fails && (failed || self.unheard.contains(&tier.id.get())) {
                self.failing.insert(tier.id.get());
            }
            let must = self.failing.contains(&tier.id.get()) || failed && !broken && emptied != Some(tier.id);
            prop_assert_eq!(fails, must, "{:?}, {:?}", tier, told);
        }
        if writes && !broken {
            self.unheard.clear();
        }
        Ok(())
    }

    /// The tier is gone afterwards, or all of them are as they were; nobody's page has gone with it but what its device did not give, where that is
    /// wanted.
    fn remove_tier(
        &mut self,
        at: usize,
        cancel_after: usize,
        lose: bool,
        memory: u64,
    ) -> Result<TierId, TestCaseError> {
        let before = self.engine.tiers();
        let tier = &before[at % before.len()];
        let struck = self.struck();
        let disk = self.disks.get(&tier.id.get()).cloned();
        let of_it = disk.as_ref().map(|disk| (disk.struck(), disk.damaged(STEP)));
        let elsewhere: u64 = before
            .iter()
            .filter(|other| other.id != tier.id && other.state == TierState::Open)
            .map(free)
            .sum();
        let holds = segments(tier.used);
        let (stats, poisoned) = (self.engine.stats(), self.poisoned().len() as u64);
        let mut looks = 0;
        let unreadable = if lose { Unreadable::Lose } else { Unreadable::Keep };
        let most = ByteCount::new(memory * SEGMENT_BYTES as u64);
        let left = || most.saturating_sub(self.engine.pool_payload().saturating_sub(stats.pool_payload));
        let removing = Removing { unreadable, memory: &left };
        let removed = self.engine.remove_tier(tier.id, removing, &mut |_| {
            looks += 1;
            if looks > cancel_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let told = self.struck() - struck;
        let (told_of_it, damaged) = disk
            .as_ref()
            .zip(of_it)
            .map_or_else(Default::default, |(disk, before)| (disk.struck() - before.0, before.1));
        drop(disk);
        let bad = told_of_it.reads + told_of_it.wrong > 0;
        let after = self.engine.tiers();
        let there = after.iter().find(|other| other.id == tier.id);
        let (mut lost, mut told_back) = (0, None);
        match removed {
            Ok(done) => {
                told_back = Some(done.came_back);
                prop_assert!(after.len() + 1 == before.len() && there.is_none());
                prop_assert!(done.lost == 0 || lose && bad, "{} lost, {:?}", done.lost, told);
                lost = done.lost;
                self.failing.remove(&tier.id.get());
                self.unheard.remove(&tier.id.get());
                self.said_full.remove(&tier.id.get());
                if let Some(disk) = self.disks.remove(&tier.id.get()) {
                    prop_assert_eq!(Arc::strong_count(&disk), 1, "its device is held");
                }
            }
            Err(RemoveTierError::Cancelled { left, .. }) => {
                prop_assert_eq!(there.map(|other| other.used), Some(left));
                prop_assert!(looks > cancel_after && after.len() == before.len());
            }
            Err(RemoveTierError::Tier(TierError::NoRoom { .. }) | RemoveTierError::NoRoom { .. }) => {
                let limited = self.is_limited();
                let little = self.devices.may_fail()
                    && (elsewhere + memory < holds + 2 || told.full > 0 || self.starving);
                prop_assert!(limited || little, "{} of {} elsewhere, {:?}", holds, elsewhere, told);
            }
            Err(RemoveTierError::Unreadable { .. }) => prop_assert!(bad && !lose, "{:?}", told),
            Err(RemoveTierError::Io { .. }) => {
                prop_assert!(told.writes + told.queues > 0, "{:?}", told);
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
        let now = self.engine.stats();
        let came_back = now.pool_pages.get() - stats.pool_pages.get();
        prop_assert_eq!(now.segment_pages.get() + came_back, stats.segment_pages.get() - lost);
        prop_assert!(told_back.is_none_or(|told| told == came_back));
        let grew = now.pool_payload.saturating_sub(stats.pool_payload);
        prop_assert!(grew <= most, "{} of {}", grew, most);
        let now = self.poisoned();
        prop_assert_eq!(now.len() as u64, poisoned + lost, "pages that are lost now, as told");
        for (content, slot) in now.into_iter().filter(|(content, _)| !content.lost.replace(true)) {
            // Where all reads told the truth, none went that could be read.
            let place = self.engine.lost(&LoadError::Poisoned { slot }).place;
            let damaged =
                place.is_none_or(|place| place.tier == tier.id && is_among(&damaged, place.offset, &content));
            let untrue = told_of_it.reads + told_of_it.passing > 0;
            prop_assert!(damaged || untrue, "{:?} was lost: {:?}", content, told_of_it);
        }
        Ok(tier.id)
    }

    /// All that is lost as the engine knows it, each once.
    fn poisoned(&self) -> Vec<(Rc<Content>, SlotId)> {
        let mut found: Vec<(Rc<Content>, SlotId)> = Vec::new();
        for owner in &self.owners {
            for (at, content) in &owner.pages {
                let Some(slot) = owner.block.slot(index(*at)) else { continue };
                let known = found.iter().any(|(other, _)| Rc::ptr_eq(other, content));
                if self.engine.backing(slot) == BackingKind::Poisoned && !known {
                    found.push((Rc::clone(content), slot));
                }
            }
        }
        found
    }

    pub fn check_all(&mut self) -> Result<(), TestCaseError> {
        for owner in 0..self.owners.len() {
            for at in (0..14).chain([PAGES_PER_CLUSTER - 1]) {
                self.check(owner, at)?;
            }
        }
        Ok(())
    }

    pub fn check_nothing_left(mut self) -> Result<(), TestCaseError> {
        let engine = self.engine;
        for owner in self.owners {
            owner.block.dispose(&engine);
        }
        if self.devices.may_fail() {
            // What a broken queue has left behind is taken in by the next who writes.
            engine.writeback(ByteCount::new(PAGE_SIZE as u64), &mut self.scratch).unwrap();
        }
        let stats = engine.stats();
        prop_assert_eq!(stats.pool_pages, PageCount::ZERO);
        prop_assert_eq!(stats.pool_payload, ByteCount::ZERO);
        prop_assert_eq!(stats.segment_pages, PageCount::ZERO);
        prop_assert_eq!(stats.disk_bytes, ByteCount::ZERO);
        prop_assert_eq!(stats.clusters, 0);
        let empty = engine.groups().iter().all(|group| group.swap.usage == 0 && group.pool.usage == 0);
        prop_assert!(empty, "{:?}", engine.groups());
        let used: Vec<ByteCount> = shares(&engine).into_values().map(|(usage, _)| usage).collect();
        prop_assert!(used.iter().all(|usage| *usage == ByteCount::ZERO), "{:?}", used);
        for tier in engine.tiers() {
            prop_assert_eq!(tier.used, ByteCount::ZERO, "{:?}", tier);
            let gone = engine.remove_tier(tier.id, Unreadable::Keep, &mut |_| ControlFlow::Continue(()));
            prop_assert!(gone.is_ok(), "{:?}", gone);
        }
        Ok(())
    }
}

fn segments(bytes: ByteCount) -> u64 {
    bytes.get() / SEGMENT_BYTES as u64
}

/// Segments that a tier takes; those of eight and more keep two for cleaning.
fn free(tier: &Tier) -> u64 {
    let kept = if segments(tier.size) < 8 { 0 } else { 2 };
    segments(tier.size).saturating_sub(segments(tier.used) + kept)
}

/// What each group has of each tier, and may have.
fn shares(engine: &Engine) -> BTreeMap<(GroupId, u8), (ByteCount, Option<ByteCount>)> {
    let of = |group: Group| {
        let share = move |share: TierShare| ((group.id, share.tier.get()), (share.usage, share.limit));
        group.tiers.into_iter().map(share)
    };
    engine.groups().into_iter().flat_map(of).collect()
}
