//! Groups with limits of tiers: where their pages are, and where they never are, whatever is done.
use crate::flaky::{Faults, Flaky};
use crate::pages::page;
use crate::rig::middling;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PAGES_PER_CLUSTER, PageIndex, SlotId};
use vswap_engine::{
    BackingKind, CodecChoice, Engine, EngineConfig, EngineError, OwnerBlock, RemoveTierError, SEGMENT_BYTES,
    Scratch, TierError, TierId, TierShare, Unreadable, WritebackReport,
};

const FAST: TierId = TierId::new(0);
const SLOW: TierId = TierId::new(1);
const LAST: TierId = TierId::new(2);

fn segments(count: u64) -> ByteCount {
    ByteCount::new(count * SEGMENT_BYTES as u64)
}

fn index(at: usize) -> PageIndex {
    PageIndex::new(at).unwrap()
}

struct World {
    engine: Arc<Engine>,
    scratch: Scratch,
    owners: Vec<Owner>,
    state: u64,
}

struct Owner {
    group: GroupId,
    block: OwnerBlock,
    pages: BTreeMap<usize, usize>,
}

/// What there is of a number: some compress to half, one in four does not.
fn content(number: usize) -> [u8; PAGE_SIZE] {
    if number.is_multiple_of(4) { page(number as u64 * 8 + 2) } else { middling(number) }
}

impl World {
    /// Tiers of so many segments, priorities from high to low.
    fn over(sizes: &[u64]) -> Self {
        let engine =
            Engine::new(EngineConfig { codec: CodecChoice::Zstd, ..EngineConfig::default() }).unwrap();
        for (at, size) in sizes.iter().enumerate() {
            let disk = Flaky::new(segments(*size).get() as usize, Faults::default());
            engine.add_storage(disk, -(at as i16)).unwrap();
        }
        let scratch = engine.scratch();
        Self { engine, scratch, owners: Vec::new(), state: 88_172_645_463_325_252 }
    }

    fn group(&self, parent: GroupId, limits: &[(TierId, u64)]) -> GroupId {
        let group = self.engine.new_group(parent).unwrap();
        for (tier, limit) in limits {
            self.engine.set_tier_limit(group, *tier, Some(segments(*limit))).unwrap();
        }
        group
    }

    fn owners(&mut self, group: GroupId, count: usize) {
        for _ in 0..count {
            let block = self.engine.owner_block(group).unwrap();
            self.owners.push(Owner { group, block, pages: BTreeMap::new() });
        }
    }

    fn random(&mut self, below: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % below as u64) as usize
    }

    fn store(&mut self, owner: usize, at: usize, number: usize) {
        let Owner { block, pages, .. } = &mut self.owners[owner];
        let slot = block.slot_for_store(&self.engine, index(at)).unwrap();
        self.engine.store(slot, &content(number), &mut self.scratch).unwrap();
        pages.insert(at, number);
    }

    fn release(&mut self, owner: usize, at: usize) {
        let Owner { block, pages, .. } = &mut self.owners[owner];
        block.release(&self.engine, index(at));
        pages.remove(&at);
    }

    fn fill(&mut self, owner: usize) {
        (0..PAGES_PER_CLUSTER).for_each(|at| self.store(owner, at, owner * 1000 + at * 4 + 1));
    }

    /// Fills one segment.
    fn write(&mut self) {
        let most = ByteCount::new(SEGMENT_BYTES as u64 - 200_000);
        self.engine.writeback(most, &mut self.scratch).unwrap();
    }

    fn write_all(&mut self) -> WritebackReport {
        self.engine.writeback(self.engine.pool_payload(), &mut self.scratch).unwrap()
    }

    fn slots(&self, of: GroupId) -> Vec<SlotId> {
        let owners = self.owners.iter().filter(|owner| owner.group == of);
        owners.flat_map(|owner| owner.pages.keys().map(|at| owner.block.slot(index(*at)).unwrap())).collect()
    }

    fn count(&self, of: GroupId, is: impl Fn(SlotId) -> bool) -> usize {
        self.slots(of).into_iter().filter(|slot| is(*slot)).count()
    }

    fn on(&self, of: GroupId, tier: TierId) -> usize {
        self.count(of, |slot| self.engine.tier_of(slot) == Some(tier))
    }

    fn pooled(&self, of: GroupId) -> usize {
        self.count(of, |slot| self.engine.backing(slot) == BackingKind::Pool)
    }

    fn share(&self, of: GroupId, tier: TierId) -> TierShare {
        let group = self.engine.group(of).unwrap();
        *group.tiers.iter().find(|share| share.tier == tier).expect("it has limits")
    }

    /// Segments on each tier.
    fn usage(&self, of: GroupId) -> Vec<u64> {
        let shares = self.engine.group(of).unwrap().tiers;
        shares.iter().map(|share| share.usage.get() / SEGMENT_BYTES as u64).collect()
    }

    fn remove(&self, tier: TierId) -> Result<(), RemoveTierError> {
        let go_on = &mut |_| ControlFlow::Continue(());
        self.engine.remove_tier(tier, Unreadable::Keep, go_on).map(drop)
    }

    fn audit(&self) {
        self.engine.audit_tiers().unwrap();
        self.engine.audit_groups().unwrap();
    }

    fn finish(mut self) {
        let mut bytes = [0; PAGE_SIZE];
        for owner in &self.owners {
            for (at, number) in &owner.pages {
                let slot = owner.block.slot(index(*at)).unwrap();
                self.engine.load(slot, &mut bytes, &mut self.scratch).unwrap();
                assert!(bytes == content(*number), "page {at} is not number {number}");
            }
        }
        self.audit();
        self.owners.into_iter().for_each(|owner| owner.block.dispose(&self.engine));
        self.engine.audit_tiers().unwrap();
        let used = self.engine.groups().into_iter().flat_map(|group| group.tiers).map(|share| share.usage);
        assert!(used.into_iter().all(|used| used == ByteCount::ZERO), "{:?}", self.engine.groups());
    }
}

/// Stores, releases, writebacks of all and of groups, cleaning, and a tier that is emptied: at no time is a page of the group on the tier.
#[test]
fn a_group_that_may_have_nothing_on_a_tier_never_has_a_byte_there() {
    let mut world = World::over(&[6, 8, 9]);
    let barred = world.group(GroupId::ROOT, &[(SLOW, 0)]);
    let below = world.group(barred, &[]);
    let small = world.group(barred, &[(FAST, 1)]);
    let groups = [GroupId::ROOT, barred, below, small];
    groups.into_iter().for_each(|group| world.owners(group, 2));
    let look = |world: &World| {
        for group in [barred, below, small] {
            assert_eq!(world.on(group, SLOW), 0, "group {}", group.get());
        }
        assert!(world.share(small, FAST).usage <= segments(1));
        world.audit();
    };
    for turn in 0..1500 {
        let (owner, from) = (world.random(8), world.random(PAGES_PER_CLUSTER));
        for at in from..PAGES_PER_CLUSTER.min(from + 40) {
            if turn % 5 == 4 {
                let Owner { block, pages, .. } = &mut world.owners[owner];
                block.release(&world.engine, index(at));
                pages.remove(&at);
            } else {
                world.store(owner, at, turn * 50 + at);
            }
        }
        if turn % 25 == 24 {
            let group = groups[world.random(4)];
            let want = ByteCount::new(1 << (12 + world.random(11)));
            world.engine.writeback_of(group, want, &mut world.scratch).unwrap();
            world.write_all();
            look(&world);
        }
        if turn % 500 == 499 {
            // Of the free ones some goes to the other, of the barred ones none.
            let removed = world.remove(LAST);
            look(&world);
            if removed.is_ok() {
                let disk = Flaky::new(segments(9).get() as usize, Faults::default());
                assert_eq!(world.engine.add_storage(disk, -2).unwrap(), LAST);
            }
        }
    }
    assert!(world.engine.stats().cleaned_pages.get() > 1000, "{:?}", world.engine.stats());
    assert!(world.on(GroupId::ROOT, SLOW) > 0 && world.on(below, LAST) > 0, "{:?}", world.engine.groups());
    world.finish();
}

/// What may be nowhere stays in the pool, and does not keep others from going.
#[test]
fn a_group_that_has_no_room_anywhere_gives_its_turn_to_the_others() {
    let mut world = World::over(&[16, 16]);
    let barred = world.group(GroupId::ROOT, &[(FAST, 0), (SLOW, 0)]);
    world.owners(barred, 6);
    world.owners(GroupId::ROOT, 2);
    for owner in 0..8 {
        world.fill(owner);
    }
    // Of both kinds there are some that do not compress.
    (0..100).for_each(|at| world.store(0, at, at * 4));
    (0..100).for_each(|at| world.store(7, at, at * 4));
    world.write_all();
    assert_eq!(world.pooled(GroupId::ROOT), 0, "all of the others has gone");
    assert_eq!(world.pooled(barred), 6 * PAGES_PER_CLUSTER);
    let report = world.write_all();
    assert!(report.limited && !report.disk_full && report.pages.get() == 0, "{report:?}");
    let pooled = world.engine.group(barred).unwrap().pool.usage;
    assert_eq!(world.engine.stuck(), [(barred, ByteCount::new(pooled))]);
    assert!(!world.engine.has_room_for(barred) && world.engine.has_room_for(GroupId::ROOT));
    // What does not compress is still the first to go when it may.
    world.engine.set_tier_limit(barred, SLOW, None).unwrap();
    assert!(world.engine.stuck().is_empty() && world.engine.has_room_for(barred));
    world.engine.writeback(ByteCount::new(300_000), &mut world.scratch).unwrap();
    let gone = (0..100).filter(|at| {
        let slot = world.owners[0].block.slot(index(*at)).unwrap();
        world.engine.tier_of(slot) == Some(SLOW)
    });
    assert_eq!(gone.count(), 100);
    world.write_all();
    assert_eq!((world.pooled(barred), world.on(barred, FAST)), (0, 0));
    world.finish();
}

/// What can go nowhere gets older than all else. No other page was old beside it; and when no generation was left, none got any older.
#[test]
fn cold_pages_of_others_go_before_hot_ones_whatever_waits_for_room_for_ever() {
    let mut world = World::over(&[64]);
    let barred = world.group(GroupId::ROOT, &[(FAST, 0)]);
    world.owners(barred, 4);
    world.owners(GroupId::ROOT, 4);
    // The hot ones come first in the order of the hand, too.
    (0..6).for_each(|owner| world.fill(owner));
    let pooled = |world: &World, owner: usize| {
        let Owner { block, pages, .. } = &world.owners[owner];
        let slots = pages.keys().map(|at| block.slot(index(*at)).unwrap());
        slots.filter(|slot| world.engine.backing(*slot) == BackingKind::Pool).count()
    };
    for phase in 0..5 {
        (6..8).for_each(|owner| world.fill(owner));
        for _ in 0..if phase == 0 { 1 } else { 3 } {
            (4..6).for_each(|owner| world.fill(owner));
        }
        world.write();
        let left = [4, 5, 6, 7].map(|owner| pooled(&world, owner));
        let (hot, cold) = (left[0] + left[1], left[2] + left[3]);
        assert!(hot > 900 && cold < 200, "{hot} hot ones and {cold} cold ones are left: {phase}");
    }
    assert_eq!(world.pooled(barred), 4 * PAGES_PER_CLUSTER);
    world.finish();
}

/// Of each owner of a world in which later ones are older, pages in the pool.
fn pooled_by_owner(world: &World) -> Vec<usize> {
    let pooled = |owner: &Owner| {
        let slots = owner.pages.keys().map(|at| owner.block.slot(index(*at)).unwrap());
        slots.filter(|slot| world.engine.backing(*slot) == BackingKind::Pool).count()
    };
    world.owners.iter().map(pooled).collect()
}

/// Owners of a group of so many generations of pages that there is no more; those who come first have the youngest.
fn older_and_older(world: &mut World, group: GroupId) {
    world.owners(group, 12);
    (0..12).for_each(|owner| world.store(owner, 0, owner * 1000 + 1));
    (0..12).rev().for_each(|owner| world.fill(owner));
}

/// Without any limits, too, whatever was old became the youngest: when room came, the coldest went last.
#[test]
fn what_waits_for_room_on_a_full_disk_stays_as_old_as_it_is() {
    let mut world = World::over(&[1]);
    older_and_older(&mut world, GroupId::ROOT);
    for _ in 0..3 {
        assert!(world.write_all().disk_full);
    }
    world.engine.add_storage(Flaky::new(9 * SEGMENT_BYTES, Faults::default()), 0).unwrap();
    let before = pooled_by_owner(&world);
    world.write();
    let after = pooled_by_owner(&world);
    let gone: Vec<usize> = before.iter().zip(&after).map(|(before, after)| before - after).collect();
    assert!(gone[8..].iter().sum::<usize>() > 800 && gone[..7].iter().all(|gone| *gone == 0), "{gone:?}");
    world.finish();
}

/// That others' pages can get old does not make the coldest of who waits for room the last to go when it comes.
#[test]
fn what_a_group_without_room_has_longest_is_first_to_go_when_it_has_some() {
    let mut world = World::over(&[32]);
    let barred = world.group(GroupId::ROOT, &[(FAST, 0)]);
    older_and_older(&mut world, barred);
    world.owners(GroupId::ROOT, 2);
    (12..14).for_each(|owner| world.fill(owner));
    world.write_all();
    assert_eq!((world.pooled(GroupId::ROOT), world.pooled(barred)), (0, 12 * PAGES_PER_CLUSTER));
    world.engine.set_tier_limit(barred, FAST, None).unwrap();
    world.write();
    let left = pooled_by_owner(&world);
    let gone =
        |owners: std::ops::Range<usize>| owners.map(|owner| PAGES_PER_CLUSTER - left[owner]).sum::<usize>();
    assert!(gone(8..12) > 300 && gone(0..6) == 0, "{left:?}");
    world.finish();
}

#[test]
fn groups_are_written_by_turns_as_their_parts_of_the_pool_say() {
    let mut world = World::over(&[32]);
    let groups = [0, 1, 2].map(|_| world.group(GroupId::ROOT, &[(FAST, 30)]));
    for (group, owners) in groups.into_iter().zip([12, 6, 2]) {
        world.owners(group, owners);
    }
    // All as old as one another: else those would go that are old.
    for at in 0..PAGES_PER_CLUSTER {
        (0..20).for_each(|owner| world.store(owner, at, owner * 1000 + at * 4 + 1));
    }
    (0..5).for_each(|_| world.write());
    let written: Vec<u64> = groups.iter().map(|group| world.usage(*group)[0]).collect();
    assert!(written[0] == 3 && written[1] >= 1 && written.iter().sum::<u64>() == 5, "{written:?}");
    world.finish();
}

#[test]
fn one_group_is_written_without_others_whatever_is_above_or_below_it() {
    let mut world = World::over(&[32]);
    let above = world.group(GroupId::ROOT, &[(FAST, 20)]);
    let (inside, other) = (world.group(above, &[]), world.group(above, &[]));
    let own = world.group(inside, &[(FAST, 10)]);
    for group in [above, inside, other, own] {
        world.owners(group, 1);
    }
    (0..4).for_each(|owner| world.fill(owner));
    let all = world.engine.pool_payload();
    world.engine.writeback_of(inside, all, &mut world.scratch).unwrap();
    let pooled = [above, inside, other, own].map(|group| world.pooled(group));
    assert_eq!(pooled, [PAGES_PER_CLUSTER, 0, PAGES_PER_CLUSTER, 0]);
    assert_eq!((world.usage(own), world.usage(above)), (vec![1], vec![2]), "each in segments of its own");
    world.engine.writeback_of(other, all, &mut world.scratch).unwrap();
    assert_eq!([world.pooled(above), world.pooled(other)], [PAGES_PER_CLUSTER, 0]);
    world.engine.writeback_of(above, all, &mut world.scratch).unwrap();
    assert_eq!(world.engine.stats().pool_pages.get(), 0);
    world.finish();
}

/// What is above has less; then what is full of dead pages is cleaned, within the limit.
#[test]
fn the_least_limit_on_the_way_up_holds_and_what_is_dead_below_it_makes_room() {
    let mut world = World::over(&[32]);
    let above = world.group(GroupId::ROOT, &[(FAST, 5)]);
    let groups = [world.group(above, &[(FAST, 9)]), world.group(above, &[])];
    // Of no use to them: it is not at a limit.
    world.owners(GroupId::ROOT, 2);
    (0..2).for_each(|owner| world.fill(owner));
    world.write_all();
    for Owner { block, pages, .. } in &mut world.owners {
        (40..PAGES_PER_CLUSTER).for_each(|at| block.release(&world.engine, index(at)));
        pages.retain(|at, _| *at < 40);
    }
    let places = |world: &World| -> Vec<_> {
        world.slots(GroupId::ROOT).into_iter().map(|slot| world.engine.peek(slot).backing()).collect()
    };
    let before = places(&world);
    groups.into_iter().for_each(|group| world.owners(group, 8));
    (2..18).for_each(|owner| world.fill(owner));
    let share = world.share(groups[0], FAST);
    assert_eq!((share.limit, share.effective), (Some(segments(9)), Some(segments(5))));
    let report = world.write_all();
    assert!(report.limited && !report.disk_full);
    assert_eq!(world.usage(above), [4], "the last one is for cleaning");
    let (cleaned, pooled) = (world.engine.stats().cleaned_pages, [0, 1].map(|at| world.pooled(groups[at])));
    assert!(pooled.iter().all(|count| *count > 0), "{pooled:?}");
    for at in (0..PAGES_PER_CLUSTER).filter(|at| at % 4 != 0) {
        for owner in &mut world.owners[2..] {
            let slot = owner.block.slot(index(at)).unwrap();
            if world.engine.backing(slot) == BackingKind::Segment {
                owner.block.release(&world.engine, index(at));
                owner.pages.remove(&at);
            }
        }
    }
    world.write_all();
    assert!(world.engine.stats().cleaned_pages > cleaned);
    assert!([0, 1].map(|at| world.pooled(groups[at])).iter().sum::<usize>() < pooled.iter().sum());
    assert!(world.usage(above)[0] <= 5);
    assert!(places(&world) == before, "what is half dead elsewhere was packed for them");
    world.finish();
}

#[test]
fn what_a_removed_group_had_on_a_tier_is_its_parents() {
    let mut world = World::over(&[32]);
    let above = world.group(GroupId::ROOT, &[(FAST, 9)]);
    let between = world.group(above, &[(FAST, 8)]);
    let below = world.group(between, &[(FAST, 7)]);
    for group in [between, below] {
        world.owners(group, 3);
    }
    (0..6).for_each(|owner| world.fill(owner));
    world.write_all();
    assert_eq!([world.usage(below), world.usage(between), world.usage(above)], [[2], [4], [4]]);
    world.engine.remove_group(between).unwrap();
    assert!(world.engine.group(between).is_err());
    assert_eq!([world.usage(below), world.usage(above)], [[2], [4]]);
    // Of owners that had it, and of the group below it, what is written from now on is charged to the one above.
    (0..6).for_each(|owner| world.fill(owner));
    assert_eq!(world.usage(above), [0], "all of it was stored anew");
    world.engine.set_tier_limit(above, FAST, Some(segments(2))).unwrap();
    assert!(world.write_all().limited);
    assert_eq!(world.usage(above), [2]);
    assert_eq!(world.share(below, FAST).effective, Some(segments(2)));
    world.finish();
}

/// A class of segments is one of 255, and who has removed its group is not to keep one.
#[test]
fn so_many_groups_may_have_limits_of_tiers_and_removed_ones_count_no_more() {
    let world = World::over(&[8]);
    for _ in 0..300 {
        let group = world.group(GroupId::ROOT, &[(FAST, 3)]);
        world.engine.remove_group(group).unwrap();
    }
    let all: Vec<GroupId> = (0..255).map(|_| world.group(GroupId::ROOT, &[(FAST, 3)])).collect();
    let another = world.engine.new_group(all[7]).unwrap();
    let limited = |limit| world.engine.set_tier_limit(another, FAST, limit);
    assert!(matches!(limited(Some(segments(1))), Err(EngineError::TooManyTierLimits)));
    limited(None).unwrap();
    world.engine.remove_group(all[3]).unwrap();
    limited(Some(segments(1))).unwrap();
    assert_eq!(world.share(another, FAST).effective, Some(segments(1)));
    let none = world.engine.set_tier_limit(another, SLOW, None);
    assert!(matches!(none, Err(EngineError::Tier(TierError::NoTier { tier })) if tier == SLOW), "{none:?}");
    assert!(world.engine.set_tier_limit(all[3], FAST, None).is_err(), "it was removed");
}

/// A group that gets a limit after the one below it counts what that has, too.
#[test]
fn a_limit_that_comes_above_another_counts_what_is_below() {
    let mut world = World::over(&[32, 32]);
    let above = world.group(GroupId::ROOT, &[]);
    let below = world.group(above, &[(FAST, 9)]);
    world.owners(below, 8);
    (0..8).for_each(|owner| world.fill(owner));
    (0..2).for_each(|_| world.write());
    assert_eq!(world.usage(below), [2, 0]);
    assert_eq!(world.usage(above), [0; 0], "nothing is known of it");
    world.engine.set_tier_limit(above, FAST, Some(segments(3))).unwrap();
    assert_eq!(world.usage(above), [2, 0]);
    world.write_all();
    assert_eq!((world.usage(above)[0], world.usage(above)[1] > 0), (3, true));
    assert_eq!(world.usage(GroupId::ROOT), world.usage(above));
    world.finish();
}

#[test]
fn a_tier_goes_only_if_its_groups_may_be_elsewhere() {
    let mut world = World::over(&[16, 16]);
    let barred = world.group(GroupId::ROOT, &[(SLOW, 1)]);
    world.owners(barred, 8);
    world.owners(GroupId::ROOT, 8);
    (0..16).for_each(|owner| world.fill(owner));
    world.write_all();
    let go_on = &mut |_| panic!("nothing is begun");
    let refused = world.engine.remove_tier(FAST, Unreadable::Keep, go_on).unwrap_err();
    let live = world.engine.tiers()[0].live.get();
    // The others could fill all but two of the 16, that is 14; the group could have one of these.
    assert!(
        matches!(refused, RemoveTierError::Tier(TierError::NoRoom { holds, room, .. })
            if holds == live && room == segments(14).get()),
        "{refused}"
    );
    world.engine.set_tier_limit(barred, SLOW, Some(segments(7))).unwrap();
    world.remove(FAST).unwrap();
    assert_eq!(world.on(barred, SLOW), 8 * PAGES_PER_CLUSTER);
    assert_eq!(world.usage(barred).len(), 1);
    world.finish();
}

/// Its header is damaged, so each page is asked for by itself.
#[test]
fn what_is_saved_page_by_page_goes_where_it_may() {
    let mut world = World::over(&[]);
    let disk = Flaky::new(8 * SEGMENT_BYTES, Faults::default());
    world.engine.add_storage(Arc::clone(&disk) as _, 0).unwrap();
    for priority in [-1, -2] {
        world.engine.add_storage(Flaky::new(8 * SEGMENT_BYTES, Faults::default()), priority).unwrap();
    }
    let barred = world.group(GroupId::ROOT, &[(SLOW, 0)]);
    world.owners(barred, 1);
    world.fill(0);
    world.write_all();
    disk.damage(20);
    world.remove(FAST).unwrap();
    assert_eq!(world.on(barred, LAST), PAGES_PER_CLUSTER);
    world.finish();
}

/// What is written after a move goes by the new group; what was before stays with the former one until it is stored anew.
#[test]
fn what_moves_to_another_group_stays_where_it_was_written() {
    let mut world = World::over(&[32]);
    let groups = [0, 1].map(|_| world.group(GroupId::ROOT, &[(FAST, 9)]));
    world.owners(groups[0], 6);
    (0..3).for_each(|owner| world.fill(owner));
    world.write_all();
    (3..6).for_each(|owner| world.fill(owner));
    let engine = Arc::clone(&world.engine);
    for owner in &mut world.owners {
        owner.block.move_to_group(&engine, groups[1]).unwrap();
        owner.group = groups[1];
    }
    world.write_all();
    assert_eq!(groups.map(|group| world.usage(group)[0]), [2, 2]);
    world.audit();
    (0..3).for_each(|owner| world.fill(owner));
    assert_eq!(groups.map(|group| world.usage(group)[0]), [0, 2]);
    world.finish();
}

/// Stores, writeback with cleaning, tiers that come and go, moves between groups: no limit is passed for a moment.
#[test]
fn limits_hold_at_every_moment_under_threads() {
    const LIMIT: u64 = 3;
    let mut world = World::over(&[12, 12]);
    let above = world.group(GroupId::ROOT, &[(FAST, LIMIT)]);
    let groups = [world.group(above, &[(FAST, 2)]), world.group(above, &[]), GroupId::ROOT];
    groups.into_iter().for_each(|group| world.owners(group, 2));
    let over = AtomicBool::new(false);
    let owners: Vec<_> = world.owners.drain(..).map(|owner| parking_lot::Mutex::new(owner.block)).collect();
    let engine = &world.engine;
    let until_over = |act: &mut dyn FnMut(usize)| {
        (0..).take_while(|_| !over.load(Ordering::Relaxed)).for_each(act);
    };
    std::thread::scope(|scope| {
        let storers: Vec<_> = (0..2usize)
            .map(|thread| {
                let owners = &owners;
                scope.spawn(move || {
                    let mut scratch = engine.scratch();
                    for step in 0..24_000usize {
                        let owner = &owners[(step / 600 * 2 + thread) % 6];
                        let at = index(step * 31 % PAGES_PER_CLUSTER);
                        let slot = owner.lock().slot_for_store(engine, at).unwrap();
                        engine.store(slot, &middling(step), &mut scratch).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut scratch = engine.scratch();
            until_over(&mut |_| assert!(engine.writeback(segments(1), &mut scratch).is_ok()));
        });
        scope.spawn(|| {
            until_over(&mut |turn| {
                owners[turn % 6].lock().move_to_group(engine, groups[turn / 6 % 3]).unwrap();
                if turn % 50 == 0
                    && engine.remove_tier(SLOW, Unreadable::Keep, &mut |_| ControlFlow::Continue(())).is_ok()
                {
                    engine.add_storage(Flaky::new(12 * SEGMENT_BYTES, Faults::default()), -1).unwrap();
                }
                std::thread::yield_now();
            });
        });
        scope.spawn(|| {
            until_over(&mut |_| {
                for (group, most) in [(above, LIMIT), (groups[0], 2)] {
                    let usage = engine.group(group).unwrap().tiers[0].usage;
                    assert!(usage <= segments(most), "{usage}");
                }
            });
        });
        let went_well: Vec<_> = storers.into_iter().map(|thread| thread.join()).collect();
        over.store(true, Ordering::Relaxed);
        went_well.into_iter().for_each(|went| went.unwrap());
    });
    world.audit();
    owners.into_iter().for_each(|owner| owner.into_inner().dispose(&world.engine));
    world.finish();
}

/// What lived in its last segment, half of it, was written anew sixteen times for each page that was to be stored.
#[test]
fn a_group_at_its_limit_with_little_to_win_writes_nothing_again_and_again() {
    let mut world = World::over(&[64]);
    let group = world.group(GroupId::ROOT, &[(FAST, 4)]);
    world.owners(group, 8);
    (0..6).for_each(|owner| world.fill(owner));
    world.write_all();
    assert!(world.engine.tiers()[0].used >= segments(3));
    // A part of what is in the last one is dead, less than a segment in all.
    (0..256).for_each(|at| world.release(5, at));
    (6..8).for_each(|owner| world.fill(owner));
    world.write_all();
    let before = world.engine.stats().written_bytes;
    for _ in 0..10 {
        world.engine.writeback_of(group, ByteCount::mib(2), &mut world.scratch).unwrap();
    }
    let written = world.engine.stats().written_bytes.saturating_sub(before);
    assert!(written <= segments(2), "{written} for nothing");
    world.finish();
}

/// The one segment of a group could not be read, and was the first to be cleaned, as it was the emptiest; after it nothing else was.
#[test]
fn what_cannot_be_read_of_one_group_does_not_make_a_disk_full_that_could_be_cleaned() {
    let disk = Flaky::new(segments(8).get() as usize, Faults::default());
    let mut world = World::over(&[]);
    world.engine.add_storage(disk.clone(), 0).unwrap();
    let group = world.group(GroupId::ROOT, &[(FAST, 8)]);
    world.owners(group, 1);
    world.owners(GroupId::ROOT, 16);
    world.fill(0);
    world.write_all();
    (8..512).for_each(|at| world.release(0, at));
    while world.engine.tiers()[0].used < segments(6) {
        let owner = 1 + world.random(12);
        world.fill(owner);
        world.write_all();
    }
    (1..13).for_each(|owner| (0..512).step_by(2).for_each(|at| world.release(owner, at)));
    disk.break_reads_below(SEGMENT_BYTES as u64);
    (13..16).for_each(|owner| world.fill(owner));
    let report = world.write_all();
    assert!(!report.disk_full && world.pooled(GroupId::ROOT) == 0, "{report:?}");
    disk.break_reads_below(0);
    world.finish();
}
