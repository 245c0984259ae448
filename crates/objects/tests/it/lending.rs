//! A store's room that others have for a while.

use super::bytes;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use vswap_core::{ByteCount, GroupId};
use vswap_engine::{CodecChoice, Engine, EngineConfig, EngineError, TierConfig, TierKind};
use vswap_objects::{NamedError, Object, Objects, Store, StoreConfig};
use vswap_segment::{Extent, Lender, Loan, Storage};

const SIZE: u64 = 96 << 20;
const MIB: usize = 1 << 20;

fn engine() -> EngineConfig {
    EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() }
}

fn config() -> StoreConfig {
    StoreConfig { engine: engine(), page_cache: 0, ..StoreConfig::default() }
}

/// Noise: what does not compress takes all its room.
fn noise(number: u64) -> Vec<u8> {
    bytes(number << 2 | 2, MIB)
}

/// Fills a store with objects of 1 MiB, of which the first are pinned.
fn filled(dir: &Path, config: &StoreConfig, pinned: u64, many: u64) -> Arc<Store> {
    let store = Store::create(dir, SIZE, config).unwrap();
    for number in 0..many {
        let object = store.object(b"v", &number.to_be_bytes(), 0).unwrap();
        object.write(0, &noise(number)).unwrap();
        if number < pinned {
            object.pin().unwrap();
        }
        if number % 8 == 0 {
            store.sync().unwrap();
        }
    }
    store.sync().unwrap();
    store
}

/// How many bytes of the objects are there, all of them right.
fn there(store: &Arc<Store>, numbers: Range<u64>) -> u64 {
    let mut all = 0;
    for number in numbers {
        let Some(found) = store.find(b"v", &number.to_be_bytes()).unwrap() else { continue };
        let mut buf = vec![0; MIB];
        let missing = found.read(0, &mut buf).unwrap().missing;
        let mut wanted = noise(number);
        missing.iter().for_each(|gap| wanted[gap.start as usize..gap.end as usize].fill(0));
        assert!(buf == wanted, "{number} has other bytes");
        all += MIB as u64 - missing.into_iter().map(|gap| gap.end - gap.start).sum::<u64>();
    }
    all
}

/// Another engine, whose only tier is the store's room.
fn borrower(dir: &Path) -> Result<Arc<Engine>, EngineError> {
    Engine::new(EngineConfig { tiers: vec![TierConfig::of(TierKind::Store, dir)], ..engine() })
}

/// Objects of another engine, a MiB each, as far as they can be on its tier.
fn borrowed(engine: &Arc<Engine>, objects: &Arc<Objects>, numbers: Range<u64>) -> Vec<Object> {
    let mut scratch = engine.scratch();
    // A few whole segments at once.
    let mut down = |least| {
        if engine.pool_payload() >= least {
            let _ = engine.writeback(engine.pool_payload(), &mut scratch);
        }
    };
    let mut write = |number| {
        let object = objects.create();
        object.write(0, &noise(number)).unwrap();
        down(ByteCount::mib(8));
        object
    };
    let written = numbers.map(|number| write(1000 + number)).collect();
    down(ByteCount::ZERO);
    written
}

fn check(objects: &[Object]) {
    for (number, object) in (1000..).zip(objects) {
        let mut buf = vec![0; MIB];
        assert!(object.read(0, &mut buf).unwrap().missing.is_empty());
        assert!(buf == noise(number), "{number} has other bytes");
    }
}

fn until(mut done: impl FnMut() -> bool, what: &str) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_cache_gives_way_to_others_pages_what_is_pinned_stays_and_the_room_comes_back() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = filled(dir.path(), &config(), 8, 72);
    let before = there(&store, 0..72);
    let _lending = store.lend(dir.path()).unwrap();
    let engine = borrower(dir.path()).unwrap();
    let objects = Objects::new(Arc::clone(&engine), GroupId::ROOT).unwrap();
    let mut theirs = borrowed(&engine, &objects, 0..48);
    check(&theirs);
    // What is on a tier is all of it but the last few pages.
    assert!(engine.pool_payload() < ByteCount::mib(4), "{} are in memory", engine.pool_payload());
    assert!(store.lent() >= ByteCount::mib(48), "{} are lent", store.lent());
    assert_eq!(there(&store, 0..8), 8 * MIB as u64, "what is pinned");
    let now = there(&store, 0..72);
    assert!(now < before && now > 8 * MIB as u64, "{before} bytes of it were there, and {now}");
    // Both go on.
    for number in 0..24 {
        store
            .object(b"v", &(500_u64 + number).to_be_bytes(), 0)
            .unwrap()
            .write(0, &noise(500 + number))
            .unwrap();
    }
    store.sync().unwrap();
    assert!(there(&store, 500..524) > 0);
    check(&theirs);
    store.audit().unwrap();
    store.engine().audit_tiers().unwrap();
    // Of what the borrower has no use for it keeps a few segments.
    theirs.truncate(8);
    let at_leisure = || {
        (0..4096).for_each(|_| _ = engine.maintain(false));
        store.lent() < ByteCount::mib(8 + 2 * 8 + 4)
    };
    until(at_leisure, "its room did not come back");
    check(&theirs);
    assert_eq!(there(&store, 0..8), 8 * MIB as u64, "what is pinned");
    drop((theirs, objects, engine));
    until(|| store.lent().is_zero(), "the rest did not come back");
    store.audit().unwrap();
    drop(_lending);
    assert!(!dir.path().join(".vswap-room").exists());
}

#[test]
fn what_is_pinned_is_lent_to_nobody_and_others_pages_stay_in_memory() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = filled(dir.path(), &StoreConfig { pinned: 1.0, ..config() }, 64, 64);
    let _lending = store.lend(dir.path()).unwrap();
    let engine = borrower(dir.path()).unwrap();
    let objects = Objects::new(Arc::clone(&engine), GroupId::ROOT).unwrap();
    let theirs = borrowed(&engine, &objects, 0..40);
    check(&theirs);
    assert!(engine.pool_payload() > ByteCount::mib(8), "{} in memory", engine.pool_payload());
    assert!(!store.lent().is_zero());
    assert_eq!(there(&store, 0..64), 64 * MIB as u64);
    // What is unpinned may go, and then theirs finds room.
    for number in 0..64_u64 {
        store.find(b"v", &number.to_be_bytes()).unwrap().unwrap().unpin();
    }
    store.sync().unwrap();
    let mut scratch = engine.scratch();
    until(
        || {
            let _ = engine.writeback(engine.pool_payload(), &mut scratch);
            engine.pool_payload() < ByteCount::mib(4)
        },
        "there is no room in spite of that",
    );
    check(&theirs);
    there(&store, 0..64);
}

#[test]
fn who_has_borrowed_keeps_what_he_has_when_the_store_is_gone_and_it_is_not_opened_meanwhile() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = filled(dir.path(), &config(), 8, 8);
    let lending = store.lend(dir.path()).unwrap();
    let engine = borrower(dir.path()).unwrap();
    let objects = Objects::new(Arc::clone(&engine), GroupId::ROOT).unwrap();
    let mut theirs = borrowed(&engine, &objects, 0..16);
    drop((lending, store));
    let refused = Store::open(dir.path(), &config()).unwrap_err().to_string();
    assert!(refused.contains("in use"), "{refused}");
    // More is not to be had, and stays in memory.
    theirs.extend(borrowed(&engine, &objects, 16..40));
    check(&theirs);
    assert!(engine.pool_payload() > ByteCount::mib(8), "{} in memory", engine.pool_payload());
    let failing = engine.tiers().into_iter().map(|tier| tier.state.name()).collect::<Vec<_>>();
    assert_eq!(failing, ["failing"]);
    drop((theirs, objects, engine));
    let store = Store::open(dir.path(), &config()).unwrap();
    assert_eq!(there(&store, 0..8), 8 * MIB as u64);
    assert!(store.lent().is_zero());
    store.audit().unwrap();
}

#[test]
fn a_store_that_never_gives_anything_up_lends_what_is_free() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = filled(dir.path(), &StoreConfig { marks: None, ..config() }, 0, 40);
    let _lending = store.lend(dir.path()).unwrap();
    let engine = borrower(dir.path()).unwrap();
    let objects = Objects::new(Arc::clone(&engine), GroupId::ROOT).unwrap();
    let theirs = borrowed(&engine, &objects, 0..60);
    check(&theirs);
    assert!(store.lent() >= ByteCount::mib(16) && engine.pool_payload() > ByteCount::mib(8));
    assert_eq!(there(&store, 0..40), 40 * MIB as u64);
}

#[test]
fn a_store_that_nobody_lends_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = filled(dir.path(), &config(), 0, 1);
    let refused = |dir: &Path| borrower(dir).unwrap_err().to_string();
    let says = refused(dir.path());
    assert!(says.contains(dir.path().to_str().unwrap()) && says.contains("vswap cache mount"), "{says}");
    drop(store.lend(dir.path()).unwrap());
    assert_eq!(refused(dir.path()), says);
    assert!(refused(Path::new("/no/such")).contains("/no/such"));
}

/// The address of a socket has room for 107 bytes.
#[test]
fn the_path_of_a_store_may_be_long() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let dir = dir.path().join("x".repeat(120)).join("y".repeat(120));
    let store = filled(&dir, &config(), 0, 1);
    let _lending = store.lend(&dir).unwrap();
    let engine = borrower(&dir).unwrap();
    let objects = Objects::new(Arc::clone(&engine), GroupId::ROOT).unwrap();
    check(&borrowed(&engine, &objects, 0..4));
    assert!(!store.lent().is_zero());
}

#[test]
fn several_borrowers_and_the_store_write_at_once_and_none_finds_anothers_bytes() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = filled(dir.path(), &config(), 4, 60);
    let _lending = store.lend(dir.path()).unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0..3 {
                    let engine = borrower(dir.path()).unwrap();
                    let objects = Objects::new(Arc::clone(&engine), GroupId::ROOT).unwrap();
                    let mut theirs = borrowed(&engine, &objects, 0..16 + 4 * round);
                    check(&theirs);
                    theirs.truncate(4);
                    (0..4096).for_each(|_| _ = engine.maintain(false));
                    theirs.extend(borrowed(&engine, &objects, 4..12));
                    check(&theirs);
                }
            });
        }
        scope.spawn(|| {
            for number in 100..180_u64 {
                let object = store.object(b"v", &number.to_be_bytes(), 0).unwrap();
                // It may be refused, when too much is lent.
                match object.write(0, &noise(number)) {
                    Ok(()) | Err(NamedError::Full) => {}
                    Err(error) => panic!("{error}"),
                }
                if number % 8 == 0 {
                    store.sync().unwrap();
                    there(&store, 90..number);
                }
            }
        });
    });
    assert_eq!(there(&store, 0..4), 4 * MIB as u64);
    there(&store, 4..180);
    until(|| store.lent().is_zero(), "not all came back");
    store.sync().unwrap();
    store.audit().unwrap();
    drop(_lending);
    drop(store);
    let store = Store::open(dir.path(), &config()).unwrap();
    assert_eq!(there(&store, 0..4), 4 * MIB as u64);
    there(&store, 4..180);
}

/// Segments are numbered from the beginning of the file, whose first is its header's: what counted only those behind it had the last one refused.
#[test]
fn every_segment_of_a_store_can_be_lent() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = filled(dir.path(), &config(), 0, 1);
    let _lending = store.lend(dir.path()).unwrap();
    assert_eq!(Loan::of_store(dir.path(), None).unwrap().capacity(), SIZE);
}

/// Marks are parts of what is the store's own: else a store that has lent most of it gave up all that it had, at each commit.
#[test]
fn a_store_that_has_lent_most_of_its_room_keeps_what_fits_the_rest() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::create(dir.path(), 400 << 20, &config()).unwrap();
    // All but 40 MiB.
    let lent = store.engine().lend_durable(180 - 1);
    assert_eq!(lent.len(), 179);
    for number in 0..24_u64 {
        store.object(b"v", &number.to_be_bytes(), 0).unwrap().write(0, &noise(number)).unwrap();
        store.sync().unwrap();
    }
    // As many as look for what to give up.
    for number in 0..20_u64 {
        store.object(b"w", &number.to_be_bytes(), 0).unwrap().write(0, &[number as u8]).unwrap();
        store.sync().unwrap();
    }
    assert_eq!(there(&store, 0..24), 24 * MIB as u64);
    store.engine().take_back_durable(&lent);
    assert!(store.lent().is_zero());
}

/// Lending takes nothing that the next commit needs.
#[test]
fn what_waits_for_a_commit_finds_room_however_much_is_lent() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::create(dir.path(), 48 << 20, &StoreConfig { lent: 1.0, ..config() }).unwrap();
    for round in 0..3_u64 {
        for number in 8 * round..8 * (round + 1) {
            store.object(b"v", &number.to_be_bytes(), 0).unwrap().write(0, &noise(number)).unwrap();
        }
        let mut lent = Vec::new();
        loop {
            let more = store.lend_segments(64);
            if more.is_empty() {
                break;
            }
            lent.extend(more);
        }
        assert!(lent.len() > 4, "{} segments are lent", lent.len());
        // As many as were lent, or as few as it takes to keep what is new.
        store.sync().unwrap();
        store.object(b"w", b"", round).unwrap().write(0, &[1; 5000]).unwrap();
        store.sync().unwrap();
        there(&store, 0..8 * (round + 1));
        store.take_back(&lent);
    }
}

#[test]
fn what_was_not_lent_is_not_taken_back() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = filled(dir.path(), &config(), 24, 24);
    let lent = store.lend_segments(4);
    let all: Vec<_> = (0..64).map(Extent::new).chain(lent).collect();
    store.take_back(&all);
    store.take_back(&all);
    assert!(store.lent().is_zero());
    store.engine().audit_tiers().unwrap();
    for number in 24..60_u64 {
        store.object(b"v", &number.to_be_bytes(), 0).unwrap().write(0, &noise(number)).unwrap();
        store.sync().unwrap();
    }
    assert_eq!(there(&store, 0..24), 24 * MIB as u64);
    there(&store, 24..60);
}

#[test]
fn no_more_is_lent_than_may_be() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::create(dir.path(), SIZE, &StoreConfig { lent: 0.25, ..config() }).unwrap();
    let lent: Vec<_> = (0..8).flat_map(|_| store.lend_segments(5)).collect();
    assert_eq!(store.lent(), ByteCount::mib(2 * lent.len() as u64));
    assert!((ByteCount::mib(20)..=ByteCount::mib(24)).contains(&store.lent()), "{} are lent", store.lent());
    assert_eq!(store.spare(), 0);
}
