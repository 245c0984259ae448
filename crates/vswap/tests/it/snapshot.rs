//! Snapshots of regions: against plain vectors, in every state of a page, in every order of drops.

use proptest::prelude::*;
use vswap::{Region, RegionStats};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;

/// A page that names itself; some compress well, some not at all.
fn content(page: usize, version: u64) -> Vec<u8> {
    let mut seed = (page as u64) << 32 | version | 1 << 63;
    let noise = [0, 64, 1400, PAGE][version as usize % 4];
    let mut bytes = vec![version as u8; PAGE];
    for cell in &mut bytes[..noise] {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        *cell = seed as u8;
    }
    bytes
}

fn write(region: &mut Region, page: usize, version: u64) {
    region.as_mut_slice()[page * PAGE..(page + 1) * PAGE].copy_from_slice(&content(page, version));
}

fn check(region: &Region, page: usize, version: u64) {
    let found = &region.as_slice()[page * PAGE..(page + 1) * PAGE];
    let wanted = if version == 0 { vec![0; PAGE] } else { content(page, version) };
    assert!(found == wanted, "page {page}: not version {version}");
}

fn no_harm(stats: &RegionStats) {
    assert_eq!(stats.poisoned, 0, "{stats:?}");
}

fn filled(mib: usize, limit: usize, version: u64) -> Region {
    let mut region = Region::builder((mib * MIB) as u64).limit(limit as u64).build().unwrap();
    (0..mib * MIB / PAGE).for_each(|page| write(&mut region, page, version));
    region
}

#[test]
fn a_snapshot_of_what_is_in_memory_out_and_on_its_way_keeps_its_bytes_when_the_source_is_written() {
    // 24 MiB in 8: some is out, some staged, some resident.
    let mut region = filled(24, 8 * MIB, 2);
    let snapshot = region.snapshot().unwrap();
    let pages = region.len() / PAGE;
    (0..pages).step_by(3).for_each(|page| write(&mut region, page, 6));
    for page in 0..pages {
        check(&snapshot, page, 2);
        check(&region, page, if page.is_multiple_of(3) { 6 } else { 2 });
    }
    no_harm(&region.stats());
}

#[test]
fn a_snapshot_of_clean_pages_and_of_pages_on_disk_is_right() {
    let dir = tempfile::Builder::new().prefix("vswap-snapshot").tempdir_in("/var/tmp").unwrap();
    let mut region = Region::builder(24 << 20).limit(8 << 20).disk(dir.path(), 256 << 20).build().unwrap();
    let pages = region.len() / PAGE;
    (0..pages).for_each(|page| write(&mut region, page, 3));
    (0..pages).for_each(|page| check(&region, page, 3));
    let mut snapshot = region.snapshot().unwrap();
    drop(region);
    (0..pages).step_by(2).for_each(|page| write(&mut snapshot, page, 7));
    for page in 0..pages {
        check(&snapshot, page, if page.is_multiple_of(2) { 7 } else { 3 });
    }
    no_harm(&snapshot.stats());
}

#[test]
fn what_is_forgotten_in_one_is_still_in_the_other() {
    let mut region = filled(12, 8 * MIB, 1);
    let mut snapshot = region.snapshot().unwrap();
    region.dont_need(0..6 * MIB);
    snapshot.dont_need(6 * MIB..12 * MIB);
    for page in 0..region.len() / PAGE {
        let first = page < 6 * MIB / PAGE;
        check(&region, page, if first { 0 } else { 1 });
        check(&snapshot, page, if first { 1 } else { 0 });
    }
}

#[test]
fn fifty_snapshots_take_no_more_room_than_one() {
    let region = filled(16, 8 * MIB, 2);
    let first = region.snapshot().unwrap();
    let stored = first.stats();
    let many: Vec<Region> = (0..50).map(|_| region.snapshot().unwrap()).collect();
    let pages = region.len() / PAGE;
    for (number, snapshot) in many.iter().enumerate() {
        (number..pages).step_by(97).for_each(|page| check(snapshot, page, 2));
    }
    let stats = region.stats();
    no_harm(&stats);
    assert!(stats.peak <= stats.limit + stats.limit / 8, "{} after {}", stats.peak, stored.peak);
    drop((region, first));
    (0..pages).for_each(|page| check(&many[7], page, 2));
}

#[test]
fn threads_read_while_snapshots_are_made() {
    let region = filled(16, 8 * MIB, 2);
    let pages = region.len() / PAGE;
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let region = &region;
            scope.spawn(move || {
                (0..2 * pages).for_each(|at| check(region, (at * (7 + 2 * thread) + thread) % pages, 2));
            });
        }
        for _ in 0..2 {
            let region = &region;
            scope.spawn(move || {
                for _ in 0..4 {
                    let snapshot = region.snapshot().unwrap();
                    (0..pages).step_by(11).for_each(|page| check(&snapshot, page, 2));
                }
            });
        }
    });
    no_harm(&region.stats());
}

#[test]
fn threads_write_to_a_family_whose_pages_are_checked_all_the_time() {
    let region = filled(8, 12 * MIB, 2);
    let pages = region.len() / PAGE;
    let family: Vec<Region> = (0..3).map(|_| region.snapshot().unwrap()).collect();
    std::thread::scope(|scope| {
        for (number, mut region) in family.into_iter().chain([region]).enumerate() {
            scope.spawn(move || {
                let mut versions = vec![2; pages];
                let mut random = 0x9e37_79b9_7f4a_7c15u64 ^ number as u64;
                for turn in 0..6000 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let page = random as usize % pages;
                    check(&region, page, versions[page]);
                    if random >> 40 & 1 == 1 {
                        versions[page] = 3 + (number as u64) * 10_000 + turn;
                        write(&mut region, page, versions[page]);
                    }
                    if turn % 2000 == 1999 {
                        // Its content goes on in a snapshot, and the original is gone.
                        region = region.snapshot().unwrap();
                    }
                }
                (0..pages).for_each(|page| check(&region, page, versions[page]));
                no_harm(&region.stats());
            });
        }
    });
}

/// What is done to a family of regions; numbers are taken modulo those that live.
#[derive(Clone, Debug)]
enum Op {
    Snapshot(usize),
    Write(usize, usize, u64),
    WriteRun(usize, usize, u64),
    Check(usize, usize),
    Forget(usize, usize),
    Cold(usize),
    Drop(usize),
}

fn op(pages: usize) -> impl Strategy<Value = Op> {
    let who = || 0..8usize;
    prop_oneof![
        2 => who().prop_map(Op::Snapshot),
        4 => (who(), 0..pages, 1..64u64).prop_map(|(who, page, version)| Op::Write(who, page, version)),
        4 => (who(), 0..pages, 1..64u64).prop_map(|(who, page, version)| Op::WriteRun(who, page, version)),
        4 => (who(), 0..pages).prop_map(|(who, page)| Op::Check(who, page)),
        1 => (who(), 0..pages).prop_map(|(who, page)| Op::Forget(who, page)),
        1 => who().prop_map(Op::Cold),
        1 => who().prop_map(Op::Drop),
    ]
}

const RUN: usize = 700;

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn a_family_of_regions_is_what_a_family_of_vectors_is(ops in prop::collection::vec(op(12 * 256), 40)) {
        let region = Region::builder(12 << 20).limit(8 << 20).build().unwrap();
        let pages = region.len() / PAGE;
        let mut family = vec![(region, vec![0u64; pages])];
        for op in ops {
            let count = family.len();
            match op {
                Op::Snapshot(who) if count < 8 => {
                    let (region, versions) = &family[who % count];
                    let snapshot = (region.snapshot().unwrap(), versions.clone());
                    family.push(snapshot);
                }
                Op::Write(who, page, version) => {
                    let (region, versions) = &mut family[who % count];
                    write(region, page, version);
                    versions[page] = version;
                }
                Op::WriteRun(who, first, version) => {
                    let (region, versions) = &mut family[who % count];
                    let end = (first + RUN).min(pages);
                    (first..end).for_each(|page| write(region, page, version));
                    versions[first..end].fill(version);
                }
                Op::Check(who, first) => {
                    let (region, versions) = &family[who % count];
                    (first..(first + RUN).min(pages)).for_each(|page| check(region, page, versions[page]));
                }
                Op::Forget(who, first) => {
                    let (region, versions) = &mut family[who % count];
                    let end = (first + RUN).min(pages);
                    region.dont_need(first * PAGE..end * PAGE);
                    versions[first..end].fill(0);
                }
                Op::Cold(who) => family[who % count].0.cold(0..pages * PAGE),
                Op::Drop(who) if count > 1 => drop(family.swap_remove(who % count)),
                Op::Snapshot(_) | Op::Drop(_) => {}
            }
        }
        for (region, versions) in &family {
            (0..pages).for_each(|page| check(region, page, versions[page]));
            no_harm(&region.stats());
        }
    }
}
