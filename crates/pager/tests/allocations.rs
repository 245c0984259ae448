//! A handler must not allocate to resolve a fault: it may be what makes room that an allocation waits for. Alone in its process,
//! since all allocations of it are counted.

#[path = "it/fixture.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod fixture;

use fixture::{PAGE, fixture};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

#[test]
fn faults_allocate_nothing() {
    let mut fixture = fixture(32);
    fixture.manage(0..32 * 512);
    // Twice, so that whatever is made once is there.
    fixture.press(0..32 * 512, 1);
    fixture.press(0..32 * 512, 2);
    let _profiler = dhat::Profiler::builder().testing().build();
    let faults = |fixture: &fixture::Fixture| {
        ["pool", "fill", "second chance", "first write"].map(|kind| fixture.faults(kind)).iter().sum::<u64>()
    };
    let before = (faults(&fixture), dhat::HeapStats::get().total_blocks);
    for at in 0..20_000 {
        let page = at * 2_731 % (32 * 512);
        assert_eq!(fixture.bytes.as_slice()[page * PAGE + 9], 2);
    }
    let after = (faults(&fixture), dhat::HeapStats::get().total_blocks);
    let (faults, blocks) = (after.0 - before.0, after.1 - before.1);
    assert!(faults > 10_000, "only {faults} faults");
    // Evictors and keeper allocate now and then: lists of spaces, text of `/proc`, compressors for a new dictionary.
    assert!(blocks < faults / 8, "{blocks} allocations for {faults} faults");
    println!("{blocks} allocations for {faults} faults");
}
