//! Tiers of two levels under a pager: what is cold sinks, what is wanted again rises, and every byte stays.

use crate::fixture::{Fixture, PAGE, config, fixture, fixture_over};
use vswap_core::ByteCount;
use vswap_engine::{Engine, EngineConfig, TierConfig};

/// Noise, so that each page takes a page wherever it is.
fn fill(page: &mut [u8], number: usize, version: u64) {
    let mut state = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version << 32;
    for word in page.as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
}

#[test]
fn cold_pages_sink_to_the_slow_tier_and_those_wanted_again_leave_it() {
    let dir = std::env::temp_dir();
    let fast = TierConfig { priority: 5, ..TierConfig::new(&dir, ByteCount::mib(16)) };
    let slow = TierConfig::new(&dir, ByteCount::mib(256));
    let engine = Engine::new(EngineConfig { tiers: vec![fast, slow], ..EngineConfig::default() }).unwrap();
    let blocks = 24;
    let mut fixture = fixture_over(engine, blocks, config());
    let pages = blocks * 512;
    fixture.manage(0..pages);
    let mut versions = vec![0u64; pages];
    let mut expected = vec![0; PAGE];
    let mut random = 1u64;
    for round in 0..2 {
        for (number, version) in versions.iter_mut().enumerate() {
            *version += 1;
            fill(&mut fixture.bytes.as_mut_slice()[number * PAGE..][..PAGE], number, *version);
        }
        // Few pages, over and over, each time as much as does not fit; in no order, so that each is a read of its own.
        for _ in 0..8 * 1024 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (random >> 40) as usize % 3000;
            let page = &mut fixture.bytes.as_mut_slice()[number * PAGE..][..PAGE];
            fill(&mut expected, number, versions[number]);
            assert!(page == expected, "page {number} in round {round}");
        }
    }
    for (number, version) in versions.iter().enumerate() {
        fill(&mut expected, number, *version);
        assert!(fixture.bytes.as_slice()[number * PAGE..][..PAGE] == expected, "page {number} at the end");
    }
    let (stats, engine) = (fixture.pager.stats(), fixture.pager.engine().stats());
    assert!(engine.demoted_bytes >= ByteCount::mib(2), "{engine:?}");
    assert!(stats.promoted > 0, "{stats:?}");
    let segments = stats.faults.iter().find(|faults| faults.name == "segment").unwrap().count;
    assert!(stats.promoted <= segments, "{} of {segments} reads", stats.promoted);
    println!("{} of {segments} promoted, {} demoted", stats.promoted, engine.demoted_bytes);
    let slow = fixture.pager.engine().tiers()[1].used;
    assert!(slow > ByteCount::mib(8), "{slow} on the slow tier");
}

/// A removal of the last tier was let begin, and the limit was passed: what is moved out for what comes back to the pool goes to the pool too.
#[test]
fn memory_that_what_does_not_compress_would_have_to_make_is_not_promised() {
    let mut fixture = fixture(16);
    fixture.manage(0..16 * 512);
    let free = |fixture: &Fixture| {
        let stats = fixture.pager.stats();
        stats.limit.saturating_sub(stats.used)
    };
    for (number, page) in fixture.bytes.as_mut_slice().chunks_exact_mut(PAGE).enumerate() {
        fill(page, number, 0);
        if fixture.pager.engine().stats().pool_pages.get() > 200 {
            break;
        }
    }
    let room = fixture.pager.room_for_compressed().get();
    assert!(room <= free(&fixture), "{room} of {}", free(&fixture));
    // Written over, all but the last are out, and take next to nothing.
    for round in 1..3 {
        fixture.bytes.as_mut_slice().chunks_exact_mut(PAGE).for_each(|page| {
            page.fill(0);
            page[9] = round;
        });
    }
    fixture.pager.wait_for_room(std::time::Duration::from_secs(10));
    let room = fixture.pager.room_for_compressed().get();
    assert!(room > free(&fixture) + (1 << 20), "{room}, and {} is free", free(&fixture));
}
