//! Objects that have names: found again, replaced, removed, in a directory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vswap_engine::{CodecChoice, EngineConfig};
use vswap_objects::{MAX_AUX, MAX_KEY, NamedError, NamedObject, ObjectError, Store, StoreConfig};

fn config() -> StoreConfig {
    let engine = EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() };
    StoreConfig { engine, page_cache: 0, marks: None, ..StoreConfig::default() }
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn create(dir: &Path) -> Arc<Store> {
    Store::create(dir, 64 << 20, &config()).unwrap()
}

fn open(dir: &Path) -> Arc<Store> {
    Store::open(dir, &config()).unwrap()
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(word).flatten().take(len).collect()
}

fn read(object: &NamedObject) -> Vec<u8> {
    let mut buf = vec![1; object.len() as usize];
    let read = object.read(0, &mut buf).unwrap();
    assert_eq!((read.len, read.missing), (buf.len(), Vec::new()));
    buf
}

#[test]
fn what_was_synced_is_found_again_and_what_was_not_is_as_it_was() {
    let dir = dir();
    let (long, zeroes) = (bytes(1, 5 << 20), vec![0; 100_000]);
    {
        let store = create(dir.path());
        let object = store.object(b"volume", b"long", 7).unwrap();
        object.write(0, &long).unwrap();
        object.set_aux(b"beside it").unwrap();
        store.object(b"volume", b"zeroes", 1).unwrap().write(0, &zeroes).unwrap();
        let part = store.object(b"other", b"long", 1).unwrap();
        part.set_len(20_000).unwrap();
        part.write_dirty(5000, b"some").unwrap();
        store.sync().unwrap();
        store.object(b"volume", b"long", 7).unwrap().write(0, b"changed, and lost").unwrap();
        store.object(b"volume", b"late", 1).unwrap().write(0, b"lost").unwrap();
        assert!(store.remove(b"volume", b"zeroes").unwrap());
    }
    let store = open(dir.path());
    let object = store.find(b"volume", b"long").unwrap().unwrap();
    assert_eq!((object.version(), object.aux(), object.key()), (7, b"beside it".to_vec(), &b"long"[..]));
    assert!(read(&object) == long);
    assert!(read(&store.find(b"volume", b"zeroes").unwrap().unwrap()) == zeroes);
    let part = store.find(b"other", b"long").unwrap().unwrap();
    let some = std::slice::from_ref(&(5000..5004));
    assert_eq!(part.present(0..u64::MAX), some);
    assert_eq!(part.dirty().iter().map(|dirty| dirty.range()).collect::<Vec<_>>(), some);
    assert_eq!(part.len(), 20_000);
    for (volume, key) in [(&b"volume"[..], &b"late"[..]), (b"other", b"zeroes"), (b"none", b"long")] {
        assert!(store.find(volume, key).unwrap().is_none());
    }
    assert!(!store.remove(b"none", b"long").unwrap());
}

#[test]
fn a_newer_version_takes_the_place_of_an_older_one_which_its_user_goes_on_reading() {
    let dir = dir();
    let store = create(dir.path());
    let old = store.object(b"v", b"k", 1).unwrap();
    old.write(0, b"old").unwrap();
    store.sync().unwrap();
    let new = store.object(b"v", b"k", 2).unwrap();
    assert!(new.is_empty() && old.is_gone() && !new.is_gone());
    assert_eq!(read(&old), b"old");
    old.write(3, b"er").unwrap();
    new.write(0, b"new").unwrap();
    let refused = store.object(b"v", b"k", 1).unwrap_err();
    assert!(matches!(refused, NamedError::Older { wanted: 1, has: 2 }), "{refused}");
    store.sync().unwrap();
    assert_eq!(read(&old), b"older");
    drop((old, new, store));
    let store = open(dir.path());
    assert_eq!(read(&store.object(b"v", b"k", 2).unwrap()), b"new");
    assert!(store.remove(b"v", b"k").unwrap());
    store.sync().unwrap();
    let pages = store.engine().stats().segment_pages;
    assert!(pages.is_zero(), "{pages:?} of removed objects live");
    assert_eq!(store.object(b"v", b"k", 1).unwrap().len(), 0);
}

/// A read finds a page damaged; the segment of its newest entry would die of that, and the older one be found next time.
#[test]
fn a_page_that_was_found_damaged_is_never_an_older_one_later() {
    let dir = dir();
    let path = dir.path().join("data");
    {
        let store = create(dir.path());
        let object = store.object(b"v", b"k", 1).unwrap();
        object.write(0, &bytes(1, 4096)).unwrap();
        object.write(4096, &bytes(2, 4096)).unwrap();
        store.sync().unwrap();
        object.write(0, &bytes(3, 4096)).unwrap();
        store.sync().unwrap();
        let (_, offset, len) = {
            let extents = object.extents(0..1);
            let vswap_objects::Holder::Tier { tier, block, blocks } = extents[0].holder else {
                panic!("{extents:?}")
            };
            (tier, block * 4096, blocks * 4096)
        };
        let mut data = std::fs::read(&path).unwrap();
        data[offset as usize..(offset + len) as usize].iter_mut().for_each(|byte| *byte ^= 0x10);
        std::fs::write(&path, data).unwrap();
        let mut buf = [0; 4096];
        object.read(0, &mut buf).unwrap_err();
        object.write(5000, b"changed").unwrap();
        store.sync().unwrap();
        object.read(0, &mut buf).unwrap_err();
    }
    for round in 0..2 {
        let store = open(dir.path());
        let object = store.find(b"v", b"k").unwrap().unwrap();
        let mut buf = [0; 4096];
        assert!(object.read(0, &mut buf).is_err(), "round {round}: {:?}", buf == bytes(1, 4096)[..]);
        object.write(5000, &[round]).unwrap();
        store.sync().unwrap();
    }
    // Written anew it is whole.
    let store = open(dir.path());
    let object = store.find(b"v", b"k").unwrap().unwrap();
    object.write(0, &bytes(4, 4096)).unwrap();
    store.sync().unwrap();
    drop((object, store));
    let object = open(dir.path()).find(b"v", b"k").unwrap().unwrap();
    assert!(read(&object)[..4096] == bytes(4, 4096));
}

#[test]
fn what_was_written_after_it_was_asked_what_is_dirty_stays_so_though_the_object_was_let_out_meanwhile() {
    let dir = dir();
    let store = create(dir.path());
    let object = store.object(b"v", b"k", 1).unwrap();
    object.write_dirty(0, b"one").unwrap();
    let dirty = object.dirty();
    object.write_dirty(0, b"two").unwrap();
    drop(object);
    store.sync().unwrap();
    let object = store.find(b"v", b"k").unwrap().unwrap();
    object.cleaned(&dirty[0]);
    assert!(object.is_dirty());
    let dirty = object.dirty();
    object.cleaned(&dirty[0]);
    assert!(!object.is_dirty());
}

#[test]
fn what_is_missing_is_fetched_once_and_found_again() {
    let dir = dir();
    let elsewhere = bytes(5, 3_000_000);
    let mut asked = 0;
    {
        let store = create(dir.path());
        let object = store.object(b"v", b"k", 1).unwrap();
        object.set_len(elsewhere.len() as u64).unwrap();
        let mut get = |offset: u64, buf: &mut [u8]| {
            asked += buf.len();
            buf.copy_from_slice(&elsewhere[offset as usize..][..buf.len()]);
            Ok::<_, std::io::Error>(())
        };
        let mut buf = vec![0; 2_500_000];
        for _ in 0..2 {
            assert_eq!(object.read_through(100_000, &mut buf, &mut get).unwrap(), buf.len());
            assert!(buf == elsewhere[100_000..2_600_000]);
        }
        store.sync().unwrap();
    }
    assert_eq!(asked, 2_500_000);
    let object = open(dir.path()).find(b"v", b"k").unwrap().unwrap();
    let mut buf = vec![0; 2_500_000];
    assert!(
        object.read(100_000, &mut buf).unwrap().missing.is_empty() && buf == elsewhere[100_000..2_600_000]
    );
}

#[test]
fn small_pages_fill_a_store_and_can_be_committed() {
    let dir = dir();
    let store = Store::create(dir.path(), 20 << 20, &config()).unwrap();
    let mut written = 0_u64;
    let full = loop {
        let mut page = vec![0; 64 * 4096];
        for (at, page) in page.chunks_mut(4096).enumerate() {
            page[..120].copy_from_slice(&bytes(written + at as u64, 120));
        }
        let object = store.object(b"v", b"k", 0).unwrap();
        match object.write(written * 4096, &page) {
            Ok(()) => written += 64,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, NamedError::Full) && written > 5_000, "{full} after {written} pages");
    store.sync().unwrap();
    assert!(store.remove(b"v", b"k").unwrap());
    store.sync().unwrap();
    store.object(b"v", b"k", 0).unwrap().write(0, &bytes(7, 1 << 20)).unwrap();
    store.sync().unwrap();
}

#[test]
fn a_sync_ends_beside_a_reader_and_the_stores_group_stays() {
    let dir = dir();
    let store = create(dir.path());
    let object = store.object(b"v", b"k", 0).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buf = [0; 4096];
            while !ended.load(Ordering::Relaxed) {
                object.read(0, &mut buf).unwrap();
            }
        });
        for round in 0..50 {
            object.write(0, &bytes(round, 8192)).unwrap();
            store.sync().unwrap();
        }
        ended.store(true, Ordering::Relaxed);
    });
    let engine = store.engine();
    let group = engine.groups().into_iter().map(|group| group.id).find(|id| *id != vswap_core::GroupId::ROOT);
    let group = group.expect("the store has one");
    engine.remove_group(group).unwrap_err();
    engine.new_group(group).unwrap_err();
}

#[test]
fn keys_are_any_bytes_and_have_a_longest() {
    let dir = dir();
    let long = vec![b'/'; MAX_KEY];
    let keys: [&[u8]; 6] = [b"", b"\0", b"a/../b", b"\xff\xfe", "\u{fc}".as_bytes(), &long];
    {
        let store = create(dir.path());
        for (at, volume) in keys.iter().enumerate() {
            for (other, key) in keys.iter().enumerate() {
                store.object(volume, key, 0).unwrap().write(0, &[at as u8, other as u8]).unwrap();
            }
        }
        store.sync().unwrap();
    }
    let store = open(dir.path());
    for (at, volume) in keys.iter().enumerate() {
        for (other, key) in keys.iter().enumerate() {
            let found = store.find(volume, key).unwrap().unwrap();
            assert_eq!(read(&found), [at as u8, other as u8]);
        }
    }
    let too_long = vec![0; MAX_KEY + 1];
    assert!(matches!(store.object(&too_long, b"", 0), Err(NamedError::KeyTooLong { .. })));
    assert!(matches!(store.find(b"", &too_long), Err(NamedError::KeyTooLong { .. })));
    let object = store.object(b"", b"", 0).unwrap();
    object.set_aux(&vec![1; MAX_AUX]).unwrap();
    assert!(matches!(object.set_aux(&vec![1; MAX_AUX + 1]), Err(NamedError::AuxTooLong { .. })));
    assert_eq!(object.aux(), vec![1; MAX_AUX]);
    assert!(matches!(object.snapshot(), Err(ObjectError::Kept)));
}

#[test]
fn a_full_store_says_so_and_goes_on_when_something_is_removed() {
    let dir = dir();
    let store = create(dir.path());
    let mut kept = 0;
    let full = loop {
        let object = store.object(b"v", &[kept], 0).unwrap();
        match object.write(0, &bytes(kept.into(), 3 << 20)) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, NamedError::Full), "{full}");
    assert!(kept > 10, "{kept} objects of 3 MiB in 64");
    // What was written in part, and one more: full to the brim, not every object of a size finds the room of another.
    kept -= 1;
    for key in [kept, kept + 1] {
        store.remove(b"v", &[key]).unwrap();
    }
    store.sync().unwrap();
    // Others take their place, over and over.
    for round in 0..40_u8 {
        let key = [round % kept];
        store
            .object(b"v", &key, 1 + u64::from(round))
            .unwrap()
            .write(0, &bytes(round.into(), 3 << 20))
            .unwrap();
    }
    store.sync().unwrap();
    drop(store);
    let store = open(dir.path());
    for round in 40 - kept..40 {
        let found = store.find(b"v", &[round % kept]).unwrap().unwrap();
        assert!(read(&found) == bytes(round.into(), 3 << 20), "{round}");
    }
}

#[test]
fn what_a_crash_has_left_of_a_store_that_was_being_made_is_made_anew_and_what_is_somebodys_is_left() {
    let dir = dir();
    let (data, index, left) =
        (dir.path().join("data"), dir.path().join("index"), dir.path().join(".vswap-index.unfinished"));
    let again = || {
        create(dir.path()).object(b"v", b"k", 0).unwrap().write(0, b"here").unwrap();
        assert!(index.exists() && !left.exists());
        // As it was a moment before it was whole.
        std::fs::rename(&index, &left).unwrap();
    };
    again();
    again();
    // Before anything was written to it.
    std::fs::File::create(&data).unwrap().set_len(10_000).unwrap();
    again();
    std::fs::remove_file(&data).unwrap();
    again();
    for theirs in [b"somebody's".to_vec(), [vec![0; 8192], b"somebody's".to_vec()].concat()] {
        std::fs::write(&data, &theirs).unwrap();
        for _ in 0..2 {
            let refused = Store::create(dir.path(), 64 << 20, &config()).unwrap_err().to_string();
            assert!(refused.contains("exists"), "{refused}");
        }
        assert!(std::fs::read(&data).unwrap() == theirs);
    }
    std::fs::remove_file(&left).unwrap();
    Store::create(dir.path(), 64 << 20, &config()).unwrap_err();
    assert!(!left.exists(), "and nothing is beside it");
    std::fs::remove_file(&data).unwrap();
    std::fs::write(&index, b"somebody's too").unwrap();
    Store::create(dir.path(), 64 << 20, &config()).unwrap_err();
    assert_eq!(std::fs::read(&index).unwrap(), b"somebody's too");
    std::fs::remove_file(&index).unwrap();
    let lock = std::fs::File::open(dir.path()).unwrap();
    lock.lock().unwrap();
    let refused = Store::create(dir.path(), 64 << 20, &config()).unwrap_err().to_string();
    assert!(refused.contains("somebody else"), "{refused}");
}

#[test]
fn a_second_user_and_what_is_no_store_are_refused() {
    let dir = dir();
    let store = create(dir.path());
    let says = |opened: Result<Arc<Store>, NamedError>, words: &str| {
        let said = opened.unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    };
    let before = std::fs::read(dir.path().join("index")).unwrap();
    says(Store::open(dir.path(), &config()), &format!("in use: process {} (", std::process::id()));
    assert!(before == std::fs::read(dir.path().join("index")).unwrap(), "it was written to");
    drop(store);
    says(Store::create(dir.path(), 64 << 20, &config()), "exists");
    let other = self::dir();
    says(Store::open(other.path(), &config()), "cannot examine");
    drop(create(other.path()));
    std::fs::copy(other.path().join("data"), dir.path().join("data")).unwrap();
    says(Store::open(dir.path(), &config()), "not the one that the index is of");
    std::fs::write(other.path().join("index"), b"").unwrap();
    says(Store::open(other.path(), &config()), "not that of a store");
    std::fs::write(other.path().join("index"), vec![b'x'; 10_000]).unwrap();
    says(Store::open(other.path(), &config()), "index");
}

#[test]
fn threads_write_while_others_sync_and_each_commit_is_of_one_moment() {
    let dir = dir();
    let store = create(dir.path());
    let ended = AtomicBool::new(false);
    // Each thread writes the same number to the beginning of two objects, the first of them first.
    std::thread::scope(|scope| {
        for thread in 0..3_u8 {
            let (store, ended) = (&store, &ended);
            scope.spawn(move || {
                let pair = [0, 1].map(|at| store.object(b"v", &[thread, at], 0).unwrap());
                let mut number = 0_u64;
                while !ended.load(Ordering::Relaxed) {
                    number += 1;
                    std::thread::yield_now();
                    for object in &pair {
                        object.write(number % 3 * 4096, &number.to_le_bytes()).unwrap();
                        object.write(100_000, &number.to_le_bytes()).unwrap();
                    }
                }
            });
        }
        let synced: Result<Vec<()>, NamedError> = (0..30).map(|_| store.sync()).collect();
        ended.store(true, Ordering::Relaxed);
        synced.unwrap();
    });
    drop(store);
    let store = open(dir.path());
    for thread in 0..3 {
        let newest = |at| {
            let object = store.find(b"v", &[thread, at]).unwrap()?;
            let mut word = [0; 8];
            let found = object.read(100_000, &mut word).unwrap();
            (found.len == 8).then(|| u64::from_le_bytes(word))
        };
        let (first, second) = (newest(0).unwrap_or(0), newest(1).unwrap_or(0));
        assert!(first == second || first == second + 1, "{first} and {second} of one moment");
    }
}

fn keys(store: &Store, volume: &[u8], prefix: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    store
        .list(volume, prefix, |listed| {
            keys.push(listed.key);
            true
        })
        .unwrap();
    keys
}

#[test]
fn a_prefix_is_invalidated_at_once_and_what_comes_later_is_not() {
    let dir = dir();
    let number = |at: u32| at.to_be_bytes();
    let key = |tree: &[u8], at: u32| [tree, &number(at)].concat();
    {
        let store = create(dir.path());
        for tree in [&b"a/"[..], b"b/"] {
            for at in 0..1500 {
                let object = store.object(b"v", &key(tree, at), 1).unwrap();
                if at % 300 == 0 {
                    object.write(0, &number(at)).unwrap();
                }
            }
        }
        store.object(b"w", b"a/", 1).unwrap().write(0, b"another volume").unwrap();
        store.sync().unwrap();
        let held = store.find(b"v", &key(b"a/", 300)).unwrap().unwrap();
        store.object(b"v", b"a/late", 1).unwrap().write(0, b"not synced").unwrap();

        store.invalidate(b"v", b"a/").unwrap();
        assert!(keys(&store, b"v", b"a/").is_empty());
        assert_eq!(keys(&store, b"v", b"").len(), 1500);
        assert!(store.find(b"v", &key(b"a/", 0)).unwrap().is_none() && held.is_gone());
        assert_eq!(read(&held), number(300));
        // A name may be used again, of an older version too.
        store.object(b"v", &key(b"a/", 7), 0).unwrap().write(0, b"new").unwrap();
        assert_eq!(keys(&store, b"v", b"a/"), [key(b"a/", 7)]);
        store.invalidate(b"none", b"").unwrap();
    }
    // The invalidation was not synced.
    let store = open(dir.path());
    assert_eq!(keys(&store, b"v", b"a/").len(), 1500);
    store.invalidate(b"v", b"a/").unwrap();
    store.object(b"v", &key(b"a/", 8), 0).unwrap().write(0, b"newer").unwrap();
    store.sync().unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(keys(&store, b"v", b"a/"), [key(b"a/", 8)]);
    assert_eq!(keys(&store, b"v", b"").len(), 1501);
    assert_eq!(read(&store.find(b"v", &key(b"a/", 8)).unwrap().unwrap()), b"newer");
    store.invalidate(b"v", b"").unwrap();
    assert!(keys(&store, b"v", b"").is_empty());
    // By and by nothing is left of them.
    store.sync().unwrap();
    store.sync().unwrap();
    assert_eq!(store.engine().stats().segment_pages.get(), 1, "only the other volume's");
    assert_eq!(keys(&store, b"w", b"").len(), 1);
    assert_eq!(store.volumes(), [b"v", b"w"]);
    drop(store);
    assert!(keys(&open(dir.path()), b"v", b"").is_empty());
}

#[test]
fn a_list_goes_on_where_it_was_and_has_what_is_not_synced() {
    let dir = dir();
    let store = create(dir.path());
    let mut wanted = Vec::new();
    for at in 0..3000_u32 {
        let key = at.wrapping_mul(2_654_435_761).to_be_bytes();
        store.object(b"v", &key, 1).unwrap();
        if at == 2000 {
            store.sync().unwrap();
        }
        if at % 7 == 0 {
            store.remove(b"v", &key).unwrap();
        } else {
            wanted.push(key.to_vec());
        }
    }
    wanted.sort_unstable();
    assert!(keys(&store, b"v", b"") == wanted);
    let some: Vec<_> = wanted.iter().filter(|key| key[0] == 9).cloned().collect();
    assert!(!some.is_empty() && keys(&store, b"v", &[9]) == some);
    let mut seen = 0;
    store
        .list(b"v", b"", |_| {
            seen += 1;
            seen < 5
        })
        .unwrap();
    assert_eq!(seen, 5);
}

/// Every read is exact or an error, and nothing panics. (What is behind the checksums of a last, short group of blocks is of no use to anybody.)
#[test]
fn damage_anywhere_is_found_or_does_no_harm() {
    let dir = dir();
    let objects: Vec<(Vec<u8>, Vec<u8>)> =
        (0..5_u8).map(|at| (vec![at], bytes(at.into(), 3000 * usize::from(at)))).collect();
    {
        let store = create(dir.path());
        for _ in 0..2 {
            for (key, bytes) in &objects {
                let object = store.object(b"v", key, 1).unwrap();
                object.write(0, bytes).unwrap();
                object.set_aux(&bytes[..bytes.len().min(40)]).unwrap();
            }
            store.sync().unwrap();
        }
    }
    let mut refused = 0;
    for file in ["index", "data"] {
        let path = dir.path().join(file);
        let whole = std::fs::read(&path).unwrap();
        let end = whole.len().min(4 << 20).min(whole.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        let step = end / 100 + 1;
        for at in (0..end).step_by(step).chain((0..80).step_by(3)) {
            let other = tempfile::tempdir_in("/var/tmp").unwrap();
            for name in ["index", "data"] {
                std::process::Command::new("cp")
                    .arg("--sparse=always")
                    .arg(dir.path().join(name))
                    .arg(other.path().join(name))
                    .status()
                    .unwrap();
            }
            let damaged = std::fs::OpenOptions::new().write(true).open(other.path().join(file)).unwrap();
            std::os::unix::fs::FileExt::write_at(&damaged, &[whole[at] ^ 0x20], at as u64).unwrap();
            let Ok(store) = Store::open(other.path(), &config()) else {
                refused += 1;
                continue;
            };
            for (key, bytes) in &objects {
                let Ok(Some(object)) = store.find(b"v", key).inspect_err(|_| refused += 1) else { continue };
                assert_eq!(object.len(), bytes.len() as u64, "{file} {at:#x}");
                assert!(object.aux() == bytes[..bytes.len().min(40)], "{file} {at:#x}");
                let mut buf = vec![0; bytes.len()];
                match object.read(0, &mut buf) {
                    Ok(read) => assert!(read.missing.is_empty() && buf == *bytes, "{file} {at:#x}"),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 40, "{refused} were found");
}
