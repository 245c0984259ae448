//! What a program reads on through, beside what it works on.

use crate::fixture::{Fixture, PAGE, fixture_with};
use vswap_core::ByteCount;
use vswap_pager::PagerConfig;
use vswap_sys::pagemap::Pagemap;

const LIMIT_MIB: usize = 24;

/// Some memory of which all was written once, in this order: `first`, `then`.
fn written(blocks: usize, first: std::ops::Range<usize>, then: std::ops::Range<usize>) -> Fixture {
    let mut fixture = fixture_with(blocks, PagerConfig::new(ByteCount::mib(LIMIT_MIB as u64)));
    fixture.manage(0..blocks * 512);
    for page in first.chain(then) {
        fixture.bytes.as_mut_slice()[page * PAGE + 9] = page as u8 | 1;
    }
    fixture
}

fn read(fixture: &Fixture, pages: std::ops::Range<usize>) {
    for page in pages {
        assert_eq!(fixture.bytes.as_slice()[page * PAGE + 9], page as u8 | 1, "page {page}");
    }
}

fn there(fixture: &Fixture, pages: std::ops::Range<usize>) -> usize {
    let mut count = 0;
    let pagemap = Pagemap::open(std::process::id() as i32).unwrap();
    pagemap.present(fixture.range(pages), |run| count += (run.end - run.start) as usize / PAGE).unwrap();
    count
}

/// It pushed out everything else, and was gone itself before it was read again.
#[test]
fn a_scan_of_more_than_fits_leaves_what_was_there() {
    // 10 MiB that are worked on, 40 MiB that are read through.
    let (work, scanned) = (0..2560, 2560..12800);
    let fixture = written(25, scanned.clone(), work.clone());
    let before = there(&fixture, work.clone());
    assert!(before > 2300, "{before} of what was written last");
    for round in 0..3 {
        read(&fixture, scanned.clone());
        let left = there(&fixture, work.clone());
        assert!(left > 1600, "{left} of {before} are left after {} rounds", round + 1);
    }
    assert!(there(&fixture, scanned.clone()) > 500, "what was read last stays for a while");
    read(&fixture, work);
    read(&fixture, scanned);
}

/// What is there and not used any more must not keep out for ever what is read through again and again.
#[test]
fn what_is_read_through_again_and_again_pushes_out_what_is_dead() {
    let (dead, looped) = (4096..12800, 0..4096);
    let fixture = written(25, looped.clone(), dead);
    let mut faults = fixture.faults("pool") + fixture.faults("fill");
    let mut rounds = Vec::new();
    for _ in 0..40 {
        read(&fixture, looped.clone());
        let now = fixture.faults("pool") + fixture.faults("fill");
        rounds.push(now - faults);
        faults = now;
        if rounds.ends_with(&[0]) {
            return;
        }
    }
    panic!("faults of each round: {rounds:?}");
}
