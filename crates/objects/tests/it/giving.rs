//! What a store gives up, and what it does not.

use std::sync::Arc;
use vswap_core::ByteCount;
use vswap_engine::{CodecChoice, EngineConfig};
use vswap_objects::{Marks, NamedError, NamedObject, Store, StoreConfig};

const MIB: usize = 1 << 20;

fn config() -> StoreConfig {
    let engine = EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() };
    StoreConfig { engine, ..StoreConfig::default() }
}

/// Noise.
fn bytes(number: u64, len: usize) -> Vec<u8> {
    super::bytes(number << 2 | 2, len)
}

fn object(store: &Arc<Store>, number: u64) -> NamedObject {
    store.object(b"v", &number.to_be_bytes(), 0).unwrap()
}

fn put(store: &Arc<Store>, number: u64, len: usize) {
    object(store, number).write(0, &bytes(number, len)).unwrap();
}

/// How much of an object is there, which is right.
fn there(store: &Arc<Store>, number: u64, len: usize) -> u64 {
    let Some(found) = store.find(b"v", &number.to_be_bytes()).unwrap() else { return 0 };
    let mut buf = vec![0; found.len() as usize];
    let missing = found.read(0, &mut buf).unwrap().missing;
    let mut wanted = bytes(number, len);
    missing.iter().for_each(|gap| wanted[gap.start as usize..gap.end as usize].fill(0));
    assert!(buf == wanted, "{number} has other bytes");
    len as u64 - missing.into_iter().map(|gap| gap.end - gap.start).sum::<u64>()
}

#[test]
fn a_store_takes_more_than_it_has_room_for_and_keeps_what_is_read_pinned_or_dirty() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::create(dir.path(), 64 << 20, &config()).unwrap();
    // The first are pinned, dirty, read now and then, and not read.
    const LEN: usize = 300_000;
    for number in 0..12 {
        put(&store, number, LEN);
    }
    (0..3).for_each(|number| object(&store, number).pin().unwrap());
    for number in 3..6 {
        object(&store, number).write_dirty(LEN as u64 / 2, &bytes(number, LEN)[LEN / 2..]).unwrap();
    }
    store.sync().unwrap();
    const MANY: u64 = 450;
    for number in 12..MANY {
        put(&store, number, LEN);
        if number % 20 == 0 {
            (6..9).for_each(|number| assert_eq!(there(&store, number, LEN), LEN as u64, "{number} is read"));
            store.sync().unwrap();
        }
    }
    store.sync().unwrap();
    let check = |store: &Arc<Store>| {
        (0..3).for_each(|number| assert_eq!(there(store, number, LEN), LEN as u64, "{number} is pinned"));
        (3..6).for_each(|number| {
            assert!(there(store, number, LEN) >= LEN as u64 / 2 - 4096, "{number} is dirty")
        });
        (9..12).for_each(|number| assert_eq!(there(store, number, LEN), 0, "{number} was never read"));
        let all: u64 = (0..MANY).map(|number| there(store, number, LEN)).sum();
        assert!(all > 40 << 20, "{all} bytes are left");
        assert_eq!(there(store, MANY - 1, LEN), LEN as u64, "the last one");
        store.audit().unwrap();
        all
    };
    let all = check(&store);
    // Of what nothing is left the names are gone too, but for some that nobody has looked at yet.
    let mut names = 0;
    store
        .list(b"v", b"", |_| {
            names += 1;
            true
        })
        .unwrap();
    assert!(names < 400, "{names}");
    drop(store);
    let store = Store::open(dir.path(), &config()).unwrap();
    assert_eq!(check(&store), all);
    assert!((0..3).all(|number| object(&store, number).is_pinned()));
    assert_eq!(object(&store, 4).dirty().len(), 1);
}

#[test]
fn room_is_given_back_when_it_is_asked_for() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::create(dir.path(), 128 << 20, &config()).unwrap();
    for number in 0..60 {
        put(&store, number, MIB);
    }
    object(&store, 7).pin().unwrap();
    let given = store.reclaim(ByteCount::new(20 << 20)).unwrap().get() as usize;
    assert!((20 * MIB..30 * MIB).contains(&given), "{given}");
    // The oldest.
    let left: Vec<u64> = (0..60).map(|number| there(&store, number, MIB)).collect();
    assert!(left[..15].iter().enumerate().all(|(number, left)| *left == 0 || number == 7), "{left:?}");
    assert!(left[7] == MIB as u64 && left[40..].iter().all(|left| *left == MIB as u64), "{left:?}");
    // All of it, and no more than there is.
    store.reclaim(ByteCount::new(1 << 40)).unwrap();
    let left: u64 = (0..60).map(|number| there(&store, number, MIB)).sum();
    assert_eq!(left, MIB as u64);
    // And it is taken again.
    for number in 0..60 {
        put(&store, number, MIB);
    }
    store.sync().unwrap();
    assert!((0..60).all(|number| there(&store, number, MIB) == MIB as u64));
}

/// Objects that nobody has had in memory in this run, or that are let out of it at once.
#[test]
fn what_is_pinned_or_dirty_stays_also_if_it_is_not_in_memory() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let lean = StoreConfig { index_cache: 0, ..config() };
    const LEN: usize = 50_000;
    let all = |store: &Arc<Store>| (0..40).map(|number| there(store, number, LEN)).collect::<Vec<_>>();
    {
        let store = Store::create(dir.path(), 64 << 20, &lean).unwrap();
        for number in 0..40 {
            put(&store, number, LEN);
        }
        (0..10).for_each(|number| object(&store, number).pin().unwrap());
        (10..20).for_each(|number| {
            object(&store, number).write_dirty(40_000, &bytes(number, LEN)[40_000..40_001]).unwrap();
        });
        // Pinned for a while only, and stored elsewhere by now.
        (20..30).for_each(|number| object(&store, number).pin().unwrap());
        (30..35).for_each(|number| object(&store, number).write_dirty(0, &bytes(number, LEN)).unwrap());
        store.sync().unwrap();
        (20..30).for_each(|number| object(&store, number).unpin());
        (30..35).for_each(|number| {
            let one = object(&store, number);
            one.dirty().iter().for_each(|dirty| one.cleaned(dirty));
        });
        store.sync().unwrap();
    }
    let store = Store::open(dir.path(), &lean).unwrap();
    store.reclaim(ByteCount::new(u64::MAX)).unwrap();
    let wanted: Vec<_> = (0..40).map(|number| if number < 20 { LEN as u64 } else { 0 }).collect();
    assert_eq!(all(&store), wanted, "found by nobody before");
    // They have been in memory since, and are not any more.
    (0..5).for_each(|number| object(&store, number).unpin());
    (10..15).for_each(|number| {
        let one = object(&store, number);
        one.dirty().iter().for_each(|dirty| one.cleaned(dirty));
    });
    assert_eq!(all(&store), wanted);
    store.sync().unwrap();
    store.reclaim(ByteCount::new(u64::MAX)).unwrap();
    let stays = |number: usize| (5..10).contains(&number) || (15..20).contains(&number);
    let wanted: Vec<_> = (0..40).map(|number| if stays(number) { LEN as u64 } else { 0 }).collect();
    assert_eq!(all(&store), wanted, "let out of memory");
    store.audit().unwrap();
}

#[test]
fn a_page_that_was_there_in_part_and_was_given_up_has_only_what_is_written_to_it_since() {
    let noise = bytes(1, 40_000);
    let write = |one: &NamedObject, range: std::ops::Range<usize>| {
        one.write(range.start as u64, &noise[range]).unwrap();
    };
    let check = |one: &NamedObject, there: &[(u64, u64)]| {
        one.audit().unwrap();
        let found: Vec<_> =
            one.present(0..40_000).into_iter().map(|range| (range.start, range.end)).collect();
        assert_eq!(found, there);
        let mut buf = vec![0; 40_000];
        one.read(0, &mut buf).unwrap();
        for (start, end) in there {
            let range = *start as usize..*end as usize;
            assert!(buf[range.clone()] == noise[range]);
        }
    };
    for in_memory in [true, false] {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut store = Store::create(dir.path(), 64 << 20, &config()).unwrap();
        let mut one = object(&store, 0);
        one.set_len(40_000).unwrap();
        write(&one, 5000..6000);
        write(&one, 20_000..21_000);
        put(&store, 10, 3 * MIB);
        store.sync().unwrap();
        // What is written last is in the newest segment, and so is the name kept.
        put(&store, 11, 6 * MIB);
        store.sync().unwrap();
        write(&one, 8192..12_288);
        store.sync().unwrap();
        assert_eq!(one.present(0..40_000).len(), 3);
        if !in_memory {
            drop((one, store));
            store = Store::open(dir.path(), &config()).unwrap();
        }
        store.reclaim(ByteCount::new(2 << 20)).unwrap();
        one = object(&store, 0);
        check(&one, &[(8192, 12_288)]);
        write(&one, 4096..4196);
        check(&one, &[(4096, 4196), (8192, 12_288)]);
        store.sync().unwrap();
        drop((one, store));
        let store = Store::open(dir.path(), &config()).unwrap();
        check(&object(&store, 0), &[(4096, 4196), (8192, 12_288)]);
    }
}

#[test]
fn what_was_given_up_or_let_go_is_so_for_the_next_user_too() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    const LEN: usize = 2 * MIB;
    let open = || Store::open(dir.path(), &config()).unwrap();
    {
        // Each has a cluster of its own, but for the two small ones.
        let store = Store::create(dir.path(), 128 << 20, &config()).unwrap();
        (0..20).for_each(|number| put(&store, number, LEN));
        (20..22).for_each(|number| put(&store, number, 4096));
        store.sync().unwrap();
    }
    let left = {
        // Nobody has them in memory.
        let store = open();
        store.reclaim(ByteCount::new(9 << 20)).unwrap();
        // Nothing else of this one's cluster changes.
        object(&store, 21).punch(0..4096);
        store.sync().unwrap();
        (0..22).map(|number| there(&store, number, if number < 20 { LEN } else { 4096 })).collect::<Vec<_>>()
    };
    let all: u64 = left.iter().sum();
    assert!(all > 20 << 20 && all < 36 << 20 && left[21] == 0, "{left:?}");
    let store = open();
    store.audit().unwrap();
    let found: Vec<_> =
        (0..22).map(|number| there(&store, number, if number < 20 { LEN } else { 4096 })).collect();
    assert_eq!(found, left);
}

#[test]
fn a_name_goes_with_the_last_of_its_bytes_that_took_room() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::create(dir.path(), 64 << 20, &config()).unwrap();
    // As files are: some pages are zeroes, or one word again and again.
    for number in 0..20 {
        let one = object(&store, number);
        one.write(0, &bytes(number, 20_000)).unwrap();
        one.write(20_480, &[number as u8; 40_000]).unwrap();
    }
    let whole = object(&store, 100);
    whole.write(0, &[0; 100_000]).unwrap();
    drop(whole);
    store.sync().unwrap();
    for round in 0..2 {
        store.reclaim(ByteCount::new(u64::MAX)).unwrap();
        store.sync().unwrap();
        let mut names = Vec::new();
        store
            .list(b"v", b"", |one| {
                names.push(one.key);
                true
            })
            .unwrap();
        // One that takes no room and is whole is worth its name.
        assert_eq!(names, [100_u64.to_be_bytes()], "round {round}");
    }
    store.audit().unwrap();
}

#[test]
fn what_is_read_again_comes_from_memory_and_is_what_was_written_last() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let small = StoreConfig { page_cache: 4 * MIB, ..config() };
    let store = Store::create(dir.path(), 128 << 20, &small).unwrap();
    (0..40).for_each(|number| put(&store, number, MIB));
    store.sync().unwrap();
    let read = |store: &Store| store.engine().stats().read_bytes.get();
    let twice = |store: &Arc<Store>, number| {
        assert_eq!(there(store, number, MIB), MIB as u64);
        let before = read(store);
        assert_eq!(there(store, number, MIB), MIB as u64);
        read(store) - before
    };
    assert_eq!(twice(&store, 0), 0, "the second time nothing is read");
    // More than is kept goes by.
    (1..40).for_each(|number| assert_eq!(there(&store, number, MIB), MIB as u64));
    assert!(read(&store) > 30 << 20);
    // What is changed is not what was there.
    let changed = object(&store, 0);
    for at in [0, 5000, 900_000] {
        assert_eq!(twice(&store, 0), 0);
        changed.write(at, b"changed").unwrap();
        store.sync().unwrap();
        let mut buf = [0; 7];
        changed.read(at, &mut buf).unwrap();
        assert_eq!(&buf, b"changed");
        changed.write(at, &bytes(0, MIB)[at as usize..][..7]).unwrap();
    }
    changed.punch(4096..8192);
    assert_eq!(there(&store, 0, MIB), MIB as u64 - 4096);
    // Slots that were another's.
    store.remove(b"v", &0_u64.to_be_bytes()).unwrap();
    drop(changed);
    put(&store, 100, MIB);
    assert_eq!(there(&store, 100, MIB), MIB as u64);
    let none = StoreConfig { page_cache: 0, ..config() };
    drop(store);
    let store = Store::open(dir.path(), &none).unwrap();
    assert!(twice(&store, 3) > 0);
}

#[test]
fn what_is_pinned_has_a_limit_of_its_own() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let config = StoreConfig { pinned: 0.25, ..config() };
    let store = Store::create(dir.path(), 64 << 20, &config).unwrap();
    let most = store.pinned().1.get();
    assert!((15 << 20..=16 << 20).contains(&most), "{most}");
    let first = object(&store, 0);
    first.pin().unwrap();
    // What is written to it counts, what is written again does not.
    for _ in 0..3 {
        (0..10).for_each(|at| first.write(at << 20, &bytes(0, MIB)).unwrap());
        store.sync().unwrap();
        assert_eq!(store.pinned().0.get(), 10 << 20);
    }
    let refused = first.write(10 << 20, &bytes(0, 8 * MIB)).unwrap_err();
    assert!(matches!(refused, NamedError::PinnedFull { .. }), "{refused}");
    put(&store, 1, 8 * MIB);
    let refused = object(&store, 1).pin().unwrap_err().to_string();
    assert!(refused.contains("MiB are pinned"), "{refused}");
    store.sync().unwrap();
    drop((first, store));
    let store = Store::open(dir.path(), &config).unwrap();
    let pinned = store.pinned().0.get();
    assert!((10 << 20..=16 << 20).contains(&pinned), "{pinned}");
    object(&store, 0).unpin();
    assert!(!object(&store, 0).is_pinned());
    object(&store, 1).pin().unwrap();
    assert_eq!(store.pinned().0.get(), 8 << 20);
    store.remove(b"v", &1_u64.to_be_bytes()).unwrap();
    assert_eq!(store.pinned().0.get(), 0);
    // A pin is the name's, whatever the version.
    object(&store, 0).pin().unwrap();
    let newer = store.object(b"v", &0_u64.to_be_bytes(), 1).unwrap();
    assert!(newer.is_pinned() && store.pinned().0.get() == 0);
    newer.write(0, &bytes(0, MIB)).unwrap();
    assert_eq!(store.pinned().0.get(), 1 << 20);
    store.sync().unwrap();
    drop((newer, store));
    let store = Store::open(dir.path(), &config).unwrap();
    assert!(store.find(b"v", &0_u64.to_be_bytes()).unwrap().unwrap().is_pinned());
    assert_eq!(store.pinned().0.get(), 1 << 20);
    store.remove(b"v", &0_u64.to_be_bytes()).unwrap();
    // One that is gone cannot be.
    let gone = object(&store, 0);
    store.object(b"v", &0_u64.to_be_bytes(), 1).unwrap();
    assert!(matches!(gone.pin(), Err(NamedError::Gone)));
}

#[test]
fn what_is_all_pinned_is_full_and_says_so() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let config = StoreConfig { pinned: 1.0, marks: Some(Marks { high: 1.0, low: 1.0 }), ..config() };
    let store = Store::create(dir.path(), 64 << 20, &config).unwrap();
    let mut number = 0;
    let full = loop {
        let one = object(&store, number);
        one.pin().unwrap();
        match one.write(0, &bytes(number, 3 * MIB)) {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, NamedError::Full), "{full}");
    assert!(number > 10);
    (0..number).for_each(|number| assert_eq!(there(&store, number, 3 * MIB), 3 * MIB as u64));
    // What is not pinned any more gives way; below the marks what was written just now would go as well.
    (0..4).for_each(|number| object(&store, number).unpin());
    put(&store, number + 1, 3 * MIB);
    store.sync().unwrap();
    (4..number).for_each(|number| assert_eq!(there(&store, number, 3 * MIB), 3 * MIB as u64));
    assert_eq!(there(&store, number + 1, 3 * MIB), 3 * MIB as u64);
}

#[test]
fn a_fetch_that_comes_after_its_bytes_were_written_and_given_up_brings_nothing_old() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::create(dir.path(), 64 << 20, &config()).unwrap();
    let one = object(&store, 0);
    one.set_len(8192).unwrap();
    let (old, new) = (bytes(1, 4096), bytes(2, 4096));
    let mut calls = 0;
    one.fetch(0..4096, |_, buf| {
        calls += 1;
        if calls > 1 {
            buf.copy_from_slice(&new);
            return Ok(());
        }
        // The source has answered, and before that arrives somebody stores something newer there and here, which is given up.
        buf.copy_from_slice(&old);
        let same = object(&store, 0);
        same.write_dirty(0, &new).unwrap();
        same.dirty().iter().for_each(|dirty| same.cleaned(dirty));
        store.sync().unwrap();
        store.reclaim(ByteCount::new(u64::MAX)).unwrap();
        assert!(same.present(0..4096).is_empty());
        Ok::<_, std::io::Error>(())
    })
    .unwrap();
    let mut buf = vec![0; 4096];
    one.read(0, &mut buf).unwrap();
    assert!(buf == new && calls == 2, "asked {calls} times");
}

#[test]
fn giving_up_beside_a_writer_leaves_the_room_that_was_promised_to_it() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let config = StoreConfig { marks: Some(Marks { high: 0.6, low: 0.5 }), pinned: 1.0, ..config() };
    let store = Store::create(dir.path(), 96 << 20, &config).unwrap();
    // Three of four stay, so that every segment is worth packing and none dies by itself.
    const LEN: usize = 100_000;
    for number in 0..500 {
        put(&store, number, LEN);
        if number % 4 != 0 {
            object(&store, number).pin().unwrap();
        }
    }
    let end = std::time::Instant::now() + std::time::Duration::from_secs(4);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 1000;
            while std::time::Instant::now() < end {
                put(&store, number, MIB);
                number = 1000 + (number + 1) % 40;
            }
        });
        while !writer.is_finished() {
            store.sync().unwrap();
            store.reclaim(ByteCount::new(u64::MAX)).unwrap();
        }
        writer.join().unwrap();
    });
    store.sync().unwrap();
    store.audit().unwrap();
    let pinned = (0..500).filter(|number| number % 4 != 0);
    pinned.for_each(|number| assert_eq!(there(&store, number, LEN), LEN as u64, "{number} is pinned"));
}

#[test]
fn what_is_not_written_after_all_is_not_counted_as_pinned() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::create(dir.path(), 64 << 20, &config()).unwrap();
    let one = object(&store, 0);
    one.set_len(MIB as u64).unwrap();
    one.write(0, &bytes(0, 4096)).unwrap();
    one.pin().unwrap();
    for _ in 0..100 {
        let failed = one.fetch(0..u64::MAX, |_, _| Err(std::io::Error::other("the source is gone")));
        assert!(failed.unwrap_err().to_string().contains("gone"));
        assert_eq!(store.pinned().0.get(), 4096);
    }
    // Written anew in its place, it is larger than what is left beside what it had.
    for _ in 0..3 {
        one.set_len(0).unwrap();
        (0..20).for_each(|at| one.write(at << 20, &bytes(at, MIB)).unwrap());
    }
    assert_eq!(store.pinned().0.get(), 20 << 20);
}

/// Whenever a commit finds more than the high mark allows, so much goes that the low one is kept.
#[test]
fn a_store_stays_below_its_high_mark_and_falls_to_the_low_one() {
    let (high, low) = (0.6, 0.4);
    let config = StoreConfig { marks: Some(Marks { high, low }), ..config() };
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::create(dir.path(), 64 << 20, &config).unwrap();
    let size = store.engine().tiers()[0].size.get();
    let used = || size - store.engine().durable_room().get();
    let (mut before, mut falls) = (0, 0);
    for at in 0..60_u64 {
        let noise: Vec<u8> = (0..2_000_000_u32)
            .map(|byte| ((u64::from(byte) ^ at << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8)
            .collect();
        store.object(b"v", &at.to_be_bytes(), 1).unwrap().write(0, &noise).unwrap();
        store.sync().unwrap();
        let now = used();
        assert!(now as f64 <= high * size as f64, "{now} of {size} after {at}");
        if now < before {
            falls += 1;
            // By whole segments.
            assert!(now as f64 <= low * size as f64 + 4e6, "{now} of {size} after {at}");
        }
        before = now;
    }
    assert!((4..40).contains(&falls), "{falls}");
}
