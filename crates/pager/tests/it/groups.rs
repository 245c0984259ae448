//! Groups: what is charged to them, and that each keeps its own limit.

use crate::fixture::{Fixture, PAGE, fixture_over, fixture_with};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use vswap_core::{ByteCount, Event, GroupId, Resource};
use vswap_engine::{Engine, EngineConfig, Group, TierConfig};
use vswap_pager::{FullPolicy, GroupError, PagerConfig};

const MIB: u64 = 256;

fn group(fixture: &Fixture, path: &str) -> Group {
    let groups = fixture.pager.groups();
    groups.into_iter().find(|group| group.path == path).unwrap_or_else(|| panic!("no {path}")).group
}

fn has_nothing(group: &Group) -> bool {
    (group.resident.usage, group.swap.usage, group.pool.usage) == (0, 0, 0)
}

fn within_a_while(what: &str, mut is: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Both counts are those of all pages and slots. Evictors and the keeper may be at their last ones.
fn audit(fixture: &Fixture) {
    let mut wrong = String::new();
    for _ in 0..200 {
        let found = fixture.pager.audit_groups().and_then(|()| fixture.pager.engine().audit_groups());
        match found {
            Ok(()) => return,
            Err(error) => wrong = error,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{wrong}");
}

/// Content of a page that half can be compressed away of, by page and round.
fn write(bytes: &mut [u8], page: usize, round: u8) {
    bytes[page * PAGE..][..PAGE / 2].copy_from_slice(&content(page, round));
}

fn content(page: usize, round: u8) -> [u8; PAGE / 2] {
    let mut half = [0; PAGE / 2];
    let mut seed = (page as u64) << 8 | u64::from(round) | 1 << 60;
    for word in half.as_chunks_mut::<8>().0 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *word = seed.to_le_bytes();
    }
    half
}

fn is_right(bytes: &[u8], page: usize, round: u8) -> bool {
    bytes[page * PAGE..][..PAGE / 2] == content(page, round)
}

#[test]
fn a_group_keeps_its_own_limit_while_there_is_room_for_all() {
    let mut fixture = fixture_with(16, PagerConfig::new(ByteCount::mib(256)));
    fixture.manage(0..16 * 512);
    let small = fixture.pager.add_group("/small").unwrap();
    fixture.pager.add_group("/small/part").unwrap();
    // The least on the way up counts.
    fixture.pager.limit_group("/small", Resource::Resident, Some(8 * MIB)).unwrap();
    fixture.pager.limit_group("/small/part", Resource::Resident, Some(64 * MIB)).unwrap();
    let part = fixture.pager.group("/small/part").unwrap();
    fixture.pager.move_to_group(&fixture.space, part).unwrap();
    for page in 0..16 * 512 {
        write(fixture.bytes.as_mut_slice(), page, 1);
        if page % 64 == 0 {
            let has = group(&fixture, "/small").resident;
            assert!(has.usage <= 8 * MIB, "{has:?}");
        }
    }
    // Evictors may be at their last pages, and the two are read one after the other.
    within_a_while("the same of both", || {
        group(&fixture, "/small").resident.usage == group(&fixture, "/small/part").resident.usage
    });
    within_a_while("all of the root", || group(&fixture, "/").resident.usage == fixture.charged());
    let (small_group, part_group) = (group(&fixture, "/small"), group(&fixture, "/small/part"));
    assert_eq!(small_group.id, small);
    assert_eq!(part_group.resident.effective, Some(8 * MIB));
    assert!(small_group.resident.usage > 6 * MIB, "too much was moved out: {small_group:?}");
    assert!(small_group.peak > 7 * MIB && small_group.peak <= 8 * MIB, "{small_group:?}");
    assert!(part_group.swap.usage > 22 * MIB, "{part_group:?}");
    assert!((0..16 * 512).step_by(7).all(|page| is_right(fixture.bytes.as_slice(), page, 1)));
    let refaults = group(&fixture, "/small").events[Event::Refault as usize];
    assert!(refaults > 500, "{refaults}");
    assert_eq!(group(&fixture, "/").events[Event::Refault as usize], refaults);
    audit(&fixture);
    // Lowered, it is kept without any fault.
    fixture.pager.limit_group("/small", Resource::Resident, Some(3 * MIB)).unwrap();
    within_a_while("the lower limit", || group(&fixture, "/small").resident.usage <= 3 * MIB);
    // Moved away, nothing is left behind. Who was storing a page just then charges the group once more, and takes it back.
    fixture.pager.move_to_group(&fixture.space, GroupId::ROOT).unwrap();
    within_a_while("nothing left", || has_nothing(&group(&fixture, "/small")));
    for page in 0..16 * 512 {
        assert!(is_right(fixture.bytes.as_slice(), page, 1), "page {page}");
    }
    assert!(fixture.charged() > 28 * MIB);
    audit(&fixture);
}

#[test]
fn memory_that_was_granted_before_is_called_in_when_its_group_gets_a_limit() {
    let mut fixture = fixture_with(16, PagerConfig::new(ByteCount::mib(256)));
    fixture.take(0..16 * 512);
    assert_eq!(fixture.space.granted_pages(), 16 * 512);
    (0..16 * 512).for_each(|page| write(fixture.bytes.as_mut_slice(), page, 1));
    let small = fixture.pager.add_group("/small").unwrap();
    fixture.pager.move_to_group(&fixture.space, small).unwrap();
    assert_eq!(group(&fixture, "/small").resident.usage, 16 * 512);
    fixture.pager.limit_group("/small", Resource::Resident, Some(4 * MIB)).unwrap();
    within_a_while("the limit", || group(&fixture, "/small").resident.usage <= 4 * MIB);
    assert!((0..16 * 512).all(|page| is_right(fixture.bytes.as_slice(), page, 1)));
    audit(&fixture);
}

#[test]
fn a_limit_of_the_pool_sends_pages_to_the_tier_and_none_at_all_lets_them_only_pass() {
    for limit in [0, 6 << 20] {
        let tiers = vec![TierConfig::new("/var/tmp", ByteCount::mib(256))];
        let engine = Engine::new(EngineConfig { tiers, ..EngineConfig::default() }).unwrap();
        let mut fixture = fixture_over(engine, 24, PagerConfig::new(ByteCount::mib(256)));
        fixture.manage(0..24 * 512);
        let small = fixture.pager.add_group("/small").unwrap();
        fixture.pager.limit_group("/small", Resource::Pool, Some(limit)).unwrap();
        fixture.pager.limit_group("/small", Resource::Resident, Some(8 * MIB)).unwrap();
        fixture.pager.move_to_group(&fixture.space, small).unwrap();
        for page in 0..24 * 512 {
            write(fixture.bytes.as_mut_slice(), page, 1);
            if page % 64 == 0 {
                let has = group(&fixture, "/small");
                assert!(has.pool.usage <= limit.max((2 << 20) + 4096), "{has:?}");
                assert!(has.resident.usage <= 8 * MIB, "{has:?}");
            }
        }
        let has = group(&fixture, "/small");
        assert!(has.events[Event::Zswpwb as usize] > 8 * MIB, "{has:?}");
        assert_eq!(has.events[Event::Oom as usize], 0, "{has:?}");
        assert!((0..24 * 512).all(|page| is_right(fixture.bytes.as_slice(), page, 1)));
        audit(&fixture);
    }
}

/// Its pages stay where they are: there is nothing to wait for, and the limit of memory gives way.
#[test]
fn a_group_that_may_have_nothing_in_the_swap_space_grows_past_its_limit_and_the_root_keeps_its_own() {
    let config = PagerConfig { full: FullPolicy::Grow, ..PagerConfig::new(ByteCount::mib(256)) };
    let mut fixture = fixture_with(8, config);
    fixture.manage(0..8 * 512);
    let small = fixture.pager.add_group("/small").unwrap();
    fixture.pager.limit_group("/small", Resource::Swap, Some(MIB)).unwrap();
    fixture.pager.limit_group("/small", Resource::Resident, Some(4 * MIB)).unwrap();
    fixture.pager.move_to_group(&fixture.space, small).unwrap();
    (0..8 * 512).for_each(|page| write(fixture.bytes.as_mut_slice(), page, 1));
    let has = group(&fixture, "/small");
    assert!(has.swap.usage <= MIB, "{has:?}");
    assert!(has.resident.usage > 14 * MIB, "{has:?}");
    assert!(has.events[Event::Oom as usize] > 0 && has.events[Event::Max as usize] > 0, "{has:?}");
    // More is allowed: it is kept again.
    fixture.pager.limit_group("/small", Resource::Swap, None).unwrap();
    within_a_while("the limit", || group(&fixture, "/small").resident.usage <= 4 * MIB);
    assert!((0..8 * 512).all(|page| is_right(fixture.bytes.as_slice(), page, 1)));
    audit(&fixture);
}

#[test]
fn the_limit_of_all_can_be_changed_while_there_are_pages() {
    let mut fixture = fixture_with(16, PagerConfig::new(ByteCount::mib(64)));
    fixture.manage(0..16 * 512);
    (0..16 * 512).for_each(|page| write(fixture.bytes.as_mut_slice(), page, 1));
    assert!(fixture.charged() > 28 * MIB);
    fixture.pager.set_limit(ByteCount::mib(24));
    within_a_while("the lower limit", || fixture.pager.stats().used <= 24 << 20);
    assert_eq!(group(&fixture, "/").resident.limit, Some(24 * MIB));
    assert!((0..16 * 512).all(|page| is_right(fixture.bytes.as_slice(), page, 1)));
}

#[test]
fn names_are_kept_apart_and_a_group_that_is_removed_leaves_all_to_its_parent() {
    let mut fixture = fixture_with(4, PagerConfig::new(ByteCount::mib(64)));
    fixture.manage(0..4 * 512);
    let pager = &fixture.pager;
    for path in ["/a", "/a/b", "/a/b/c", "/a/d"] {
        pager.add_group(path).unwrap();
    }
    assert!(matches!(pager.add_group("/a/b"), Err(GroupError::Exists(_))));
    assert!(matches!(pager.add_group("/"), Err(GroupError::Exists(_))));
    assert!(matches!(pager.add_group("/x/y"), Err(GroupError::Unknown(_))));
    assert!(matches!(pager.add_group("x"), Err(GroupError::BadName(_))));
    assert!(matches!(pager.remove_group("/"), Err(GroupError::Root(_))));
    assert!(pager.limit_group("/", Resource::Resident, Some(5)).is_err());
    pager.move_to_group(&fixture.space, pager.group("/a/b/c").unwrap()).unwrap();
    (0..4 * 512).for_each(|page| write(fixture.bytes.as_mut_slice(), page, 1));
    let pager = &fixture.pager;
    // Two groups would be /a/c.
    pager.add_group("/a/c").unwrap();
    assert!(matches!(pager.remove_group("/a/b"), Err(GroupError::NameTaken { .. })));
    pager.remove_group("/a/c").unwrap();
    pager.remove_group("/a/b").unwrap();
    let paths: Vec<String> = pager.groups().into_iter().map(|group| group.path).collect();
    assert_eq!(paths, ["/", "/a", "/a/c", "/a/d"]);
    pager.remove_group("/a/c").unwrap();
    assert_eq!(pager.path_of(fixture.space.group()), "/a");
    assert_eq!(group(&fixture, "/a").resident.usage, 4 * 512);
    audit(&fixture);
    // A limit of the parent is its as well.
    fixture.pager.limit_group("/a", Resource::Resident, Some(2 * MIB)).unwrap();
    within_a_while("the parent's limit", || group(&fixture, "/a").resident.usage <= 2 * MIB);
    assert!((0..4 * 512).all(|page| is_right(fixture.bytes.as_slice(), page, 1)));
    fixture.pager.remove_group("/a").unwrap();
    assert!((0..4 * 512).all(|page| is_right(fixture.bytes.as_slice(), page, 1)));
    audit(&fixture);
}

/// Each takes what a job had for a moment; the one that is left has what there is, under its name.
#[test]
fn a_space_that_went_through_thousands_of_groups_is_charged_to_the_last() {
    const TURNS: usize = 3_000;
    let mut fixture = fixture_with(1, PagerConfig::new(ByteCount::mib(64)));
    fixture.manage(0..512);
    (0..512).for_each(|page| write(fixture.bytes.as_mut_slice(), page, 1));
    let pager = &fixture.pager;
    for turn in 0..TURNS {
        let path = format!("/job {turn}");
        let group = pager.add_group(&path).unwrap();
        pager.limit_group(&path, Resource::Resident, Some(4 * MIB)).unwrap();
        pager.move_to_group(&fixture.space, group).unwrap();
        if turn > 0 {
            pager.remove_group(&format!("/job {}", turn - 1)).unwrap();
        }
    }
    let last = group(&fixture, "/job 2999");
    assert_eq!((last.id.get() as usize, last.resident.usage), (TURNS, 512));
    assert_eq!(pager.groups().len(), 2);
    assert_eq!(pager.path_of(fixture.space.group()), "/job 2999");
    audit(&fixture);
}

/// Writes, reads and discards while the space goes from group to group, groups come and go, and their limits change all the time.
#[test]
fn charges_are_exact_after_faults_met_moves_limits_and_removals() {
    let tiers = vec![TierConfig::new("/var/tmp", ByteCount::mib(256))];
    let engine = Engine::new(EngineConfig { tiers, ..EngineConfig::default() }).unwrap();
    let mut fixture = fixture_over(engine, 12, PagerConfig::new(ByteCount::mib(48)));
    fixture.manage(0..12 * 512);
    let over = AtomicBool::new(false);
    let Fixture { bytes, pager, space, .. } = &mut fixture;
    let (pager, space) = (&*pager, &*space);
    let turns = std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            for path in ["/a", "/b", "/b/c"] {
                pager.add_group(path).unwrap();
            }
            let mut turn = 0u64;
            while !over.load(Relaxed) {
                let paths = ["/a", "/b/c", "/", "/b"];
                let group = pager.group(paths[turn as usize % 4]).unwrap();
                pager.move_to_group(space, group).unwrap();
                pager.limit_group("/a", Resource::Resident, Some((2 + turn % 7) * MIB)).unwrap();
                pager.limit_group("/b", Resource::Pool, Some((turn % 5) << 20)).unwrap();
                pager
                    .limit_group("/b/c", Resource::Resident, (!turn.is_multiple_of(3)).then_some(5 * MIB))
                    .unwrap();
                if turn.is_multiple_of(16) {
                    pager.remove_group("/b/c").unwrap();
                    pager.add_group("/b/c").unwrap();
                }
                std::thread::sleep(Duration::from_micros(turn * 37 % 3000));
                turn += 1;
            }
            turn
        });
        let since = Instant::now();
        let mut rounds = vec![0u8; 12 * 512];
        let mut step = 0usize;
        let mut wrong = 0;
        while since.elapsed() < Duration::from_secs(6) && step < 400_000 {
            step += 1;
            let page = step * 7919 % rounds.len();
            if rounds[page] > 0 && !is_right(bytes.as_slice(), page, rounds[page]) {
                wrong += 1;
            }
            if step.is_multiple_of(3) {
                rounds[page] = (step % 250) as u8 + 1;
                write(bytes.as_mut_slice(), page, rounds[page]);
            }
            if step.is_multiple_of(5000) {
                bytes.discard(page / 512 * 512 * PAGE, 512 * PAGE);
                rounds[page / 512 * 512..][..512].fill(0);
            }
        }
        over.store(true, Relaxed);
        assert_eq!(wrong, 0, "of {step} steps");
        changes.join().unwrap()
    });
    assert!(turns > 100, "{turns}");
    audit(&fixture);
    fixture.pager.move_to_group(&fixture.space, GroupId::ROOT).unwrap();
    within_a_while("nothing left", || {
        let groups = fixture.pager.groups();
        groups.iter().skip(1).map(|named| &named.group).all(has_nothing)
    });
    audit(&fixture);
}

/// A program of 8 MiB in a group that may have nothing in the pool, or at all, where no tier takes it.
fn fill_in_a_group(limits: &[(Resource, u64)]) -> Group {
    let config = PagerConfig { full: FullPolicy::Grow, ..PagerConfig::new(ByteCount::mib(256)) };
    let mut fixture = fixture_with(8, config);
    fixture.manage(0..8 * 512);
    let small = fixture.pager.add_group("/small").unwrap();
    for (resource, limit) in limits {
        fixture.pager.limit_group("/small", *resource, Some(*limit)).unwrap();
    }
    fixture.pager.move_to_group(&fixture.space, small).unwrap();
    (0..8 * 512).for_each(|page| write(fixture.bytes.as_mut_slice(), page, 1));
    assert!((0..8 * 512).all(|page| is_right(fixture.bytes.as_slice(), page, 1)));
    audit(&fixture);
    group(&fixture, "/small")
}

/// Pages were moved out, could not be stored, and were put back, again and again: that counted as progress, and a fault waited for ever.
#[test]
fn a_group_whose_pool_is_full_without_a_tier_moves_pages_to_and_fro_for_ever() {
    let small = fill_in_a_group(&[(Resource::Pool, 1 << 20), (Resource::Resident, 4 * MIB)]);
    assert!(small.events[Event::Oom as usize] > 0 && small.resident.usage > 4 * MIB, "{small:?}");
}

/// A group without any page wanted nothing to be moved out, so it was never stuck.
#[test]
fn a_group_that_may_have_no_page_waits_for_ever_for_the_first() {
    let small = fill_in_a_group(&[(Resource::Resident, 0)]);
    assert!(small.events[Event::Max as usize] > 0, "{small:?}");
}

/// The limit of the swap space of `/` was not looked at before pages were moved out.
#[test]
fn a_full_swap_space_of_all_moves_pages_to_and_fro_for_ever() {
    let config = PagerConfig { full: FullPolicy::Grow, ..PagerConfig::new(ByteCount::mib(12)) };
    let mut fixture = fixture_with(16, config);
    fixture.manage(0..16 * 512);
    fixture.pager.limit_group("/", Resource::Swap, Some(MIB)).unwrap();
    (0..16 * 512).for_each(|page| write(fixture.bytes.as_mut_slice(), page, 1));
    assert!((0..16 * 512).all(|page| is_right(fixture.bytes.as_slice(), page, 1)));
    assert!(group(&fixture, "/").swap.usage <= MIB);
    assert!(fixture.pager.stats().peak > 12 << 20);
}
