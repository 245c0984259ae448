//! Proactive reclaim on memory of this process. Counts are compared, not times; what is waited for comes or the test hangs into its deadline.

use crate::fixture::{PAGE, fixture_with};
use std::time::{Duration, Instant};
use vswap_core::ByteCount;
use vswap_pager::PagerConfig;

const BLOCKS: usize = 16;
const PAGES: usize = BLOCKS * 512;

/// With room for all.
fn config(target: u64) -> PagerConfig {
    let mut config = PagerConfig::new(ByteCount::mib(256));
    config.reclaim_target = target;
    config.reclaim_turn = Duration::from_secs(2);
    config
}

fn within_a_minute(what: &str, mut is: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
    }
}

#[test]
fn what_is_not_touched_leaves_and_what_is_touched_stays() {
    let mut fixture = fixture_with(BLOCKS, config(200_000));
    fixture.manage(0..PAGES);
    fixture.press(0..PAGES, 7);
    assert_eq!(fixture.charged(), PAGES as u64);
    // One block of all, and some pages of another.
    let hot: Vec<usize> = (512..1024).chain((2048..2560).step_by(8)).collect();
    let mut rounds = 0u64;
    within_a_minute("the cold part is out", || {
        for &page in &hot {
            assert_eq!(fixture.bytes.as_slice()[page * PAGE + 9], 7, "page {page}");
        }
        rounds += 1;
        fixture.charged() < 2 * hot.len() as u64
    });
    let (then, looked) = (fixture.pager.stats(), rounds);
    assert!(then.reclaimed >= (PAGES - 2 * hot.len()) as u64, "{then:?}");
    assert!(then.peak >= (PAGES * PAGE) as u64 && !then.grown && then.waited == 0, "{then:?}");
    // The hot ones were taken once or twice each, if that, whatever the number of rounds.
    let back = then.refaulted + fixture.faults("second chance");
    assert!(back <= 3 * hot.len() as u64, "{back} came back of {}, in {looked} rounds", hot.len());
    for page in 0..PAGES {
        assert_eq!(fixture.bytes.as_slice()[page * PAGE + 9], 7, "page {page}");
    }
}

#[test]
fn without_a_target_nothing_goes_and_it_can_be_set_and_ended_meanwhile() {
    let mut fixture = fixture_with(BLOCKS, config(0));
    fixture.manage(0..PAGES);
    fixture.press(0..PAGES, 7);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((fixture.charged(), fixture.pager.stats().reclaim_looked), (PAGES as u64, 0));
    fixture.pager.set_reclaim_target(500_000);
    within_a_minute("pages go", || fixture.pager.stats().reclaimed > 1000);
    fixture.pager.set_reclaim_target(0);
    // What the keeper was at may still come.
    std::thread::sleep(Duration::from_millis(200));
    let then = fixture.pager.stats().reclaim_looked;
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(fixture.pager.stats().reclaim_looked, then);
}

/// All of it is used all the time: each page that is taken is asked for at once, and with a low target hardly any is.
#[test]
fn with_pressure_it_stops() {
    let mut fixture = fixture_with(BLOCKS, config(500));
    fixture.manage(0..PAGES);
    fixture.press(0..PAGES, 7);
    let mut at = 0;
    let mut touch = |count: usize| {
        for _ in 0..count {
            at = (at * 5 + 12_345) % PAGES;
            assert_eq!(fixture.bytes.as_slice()[at * PAGE + 9], 7, "page {at}");
        }
        fixture.pager.stats()
    };
    within_a_minute("somebody waits", || touch(1000).reclaim_pressure >= 500);
    let (mut samples, mut moved, mut last) = (0, 0, touch(1000));
    within_a_minute("it was looked at often enough", || {
        let now = touch(1000);
        // The pressure is that of the last sample; nothing may be looked at between two that are both above the target.
        if last.reclaim_pressure >= 600 && now.reclaim_pressure >= 600 {
            samples += 1;
            moved += u64::from(now.reclaim_looked > last.reclaim_looked);
        }
        last = now;
        samples > 200
    });
    // A sample may have been taken and the pressure have fallen and risen between two looks; hardly ever.
    assert!(moved * 20 <= samples, "{moved} of {samples}");
}

/// The pool's cold end goes to a tier, at the same pace.
#[test]
fn what_stays_in_the_pool_goes_on_to_a_tier() {
    let tiers = vec![vswap_engine::TierConfig::new(std::env::temp_dir(), ByteCount::mib(256))];
    let engine =
        vswap_engine::Engine::new(vswap_engine::EngineConfig { tiers, ..Default::default() }).unwrap();
    let mut fixture = crate::fixture::fixture_over(engine, BLOCKS, config(500_000));
    fixture.manage(0..PAGES);
    let mut state = 1u64;
    for byte in fixture.bytes.as_mut_slice() {
        // A third of each page is noise.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = if (state >> 33).is_multiple_of(3) { (state >> 40) as u8 } else { 0 };
    }
    let sum = |fixture: &crate::fixture::Fixture| {
        fixture.bytes.as_slice().iter().fold(0u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte))
    };
    let before = sum(&fixture);
    within_a_minute("it is on the tier", || {
        std::thread::sleep(Duration::from_millis(10));
        let stats = fixture.pager.stats();
        stats.reclaimed > PAGES as u64 / 2
            && stats.reclaim_written > 1000
            && fixture.pager.engine().pool_bytes() < ByteCount::mib(6)
    });
    assert_eq!(sum(&fixture), before);
}
