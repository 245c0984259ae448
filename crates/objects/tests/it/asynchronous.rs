//! Objects and stores for tasks: no thread of the caller's waits, what is fetched is fetched once, and who gives up keeps nobody waiting.
use crate::{bytes, finish, objects};
use async_executor::Executor;
use futures_lite::future::{block_on, or, pending, poll_once, yield_now, zip};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, ready};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use vswap_engine::EngineConfig;
use vswap_objects::{
    AsyncNamedObject, AsyncObject, AsyncStore, ByteCount, FetchError, NamedError, NamedFetchError, Object,
    ObjectError, Store, StoreConfig,
};

/// More than there are threads that may wait.
const TASKS: usize = 600;

type Brought = Result<Vec<u8>, Infallible>;

fn part(source: &[u8], wanted: Range<u64>) -> Vec<u8> {
    source[wanted.start as usize..wanted.end as usize].to_vec()
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        yield_now().await;
    }
}

/// Time passes; nobody waits for it.
async fn pass(time: Duration) {
    let begin = Instant::now();
    until(|| begin.elapsed() > time).await;
}

fn small() -> StoreConfig {
    StoreConfig { index_cache: 1 << 20, page_cache: 1 << 20, ..StoreConfig::default() }
}

/// As [`finish`], once jobs that nobody waits for have let go.
fn finish_soon(engine: &vswap_engine::Engine, objects: Arc<vswap_objects::Objects>) {
    while Arc::strong_count(&objects) > 1 {
        thread::yield_now();
    }
    finish(engine, objects);
}

/// Polls it until it has come so far, and drops it then.
async fn give_up<T>(future: impl Future<Output = T>, when: impl Fn() -> bool) {
    let given_up = or(
        async {
            future.await;
            false
        },
        async {
            until(when).await;
            true
        },
    );
    assert!(given_up.await, "it came to its end before");
}

#[test]
fn the_source_is_called_once_while_more_tasks_than_threads_ask_for_the_same_bytes() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = AsyncObject::from(objects.create());
    let source = Arc::new(bytes(2, 100_000));
    let (asking, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks = Executor::new();
    block_on(tasks.run(async {
        object.set_len(100_000).await.unwrap();
        let readers: Vec<_> = (0..TASKS)
            .map(|_| {
                let (object, source) = (object.clone(), Arc::clone(&source));
                let (asking, calls) = (Arc::clone(&asking), Arc::clone(&calls));
                tasks.spawn(async move {
                    asking.fetch_add(1, Ordering::Relaxed);
                    let get = |wanted: Range<u64>| {
                        calls.fetch_add(1, Ordering::Relaxed);
                        let (bytes, asking) = (part(&source, wanted), &asking);
                        async move {
                            // Until all of them wait.
                            until(|| asking.load(Ordering::Relaxed) == TASKS).await;
                            pass(Duration::from_millis(100)).await;
                            Brought::Ok(bytes)
                        }
                    };
                    let (read, bytes) = object.read_through(0, vec![0; 100_000], get).await;
                    assert_eq!(read.unwrap(), 100_000);
                    assert!(bytes == *source);
                })
            })
            .collect();
        // Of these threads some are free all the time.
        until(|| calls.load(Ordering::Relaxed) == 1).await;
        assert_eq!(object.len().await, 100_000);
        for reader in readers {
            reader.await;
        }
    }));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    drop(object);
    finish_soon(&engine, objects);
}

#[test]
fn tasks_and_threads_wait_for_each_others_fetches() {
    let (engine, objects) = objects(EngineConfig::default());
    let object: Arc<Object> = Arc::new(objects.create());
    object.set_len(8192).unwrap();
    let source = bytes(3, 8192);
    let of_tasks = AsyncObject::from(Arc::clone(&object));
    let (begun, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let slow = |wanted: Range<u64>| {
        calls.fetch_add(1, Ordering::Relaxed);
        begun.store(true, Ordering::Relaxed);
        let bytes = part(&source, wanted);
        async {
            pass(Duration::from_millis(50)).await;
            Brought::Ok(bytes)
        }
    };
    let slow_thread = |offset: u64, buf: &mut [u8]| {
        calls.fetch_add(1, Ordering::Relaxed);
        begun.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(50));
        buf.copy_from_slice(&source[offset as usize..][..buf.len()]);
        Ok::<_, Infallible>(())
    };
    let by_task = || {
        let (read, bytes) = block_on(of_tasks.read_through(0, vec![0; 8192], &slow));
        assert_eq!(read.unwrap(), 8192);
        assert!(bytes == source);
    };
    let by_thread = || {
        let mut bytes = vec![0; 8192];
        assert_eq!(object.read_through(0, &mut bytes, &slow_thread).unwrap(), 8192);
        assert!(bytes == source);
    };
    for task_first in [true, false] {
        begun.store(false, Ordering::Relaxed);
        let (first, second): (&(dyn Fn() + Sync), &(dyn Fn() + Sync)) =
            if task_first { (&by_task, &by_thread) } else { (&by_thread, &by_task) };
        thread::scope(|scope| {
            scope.spawn(first);
            block_on(until(|| begun.load(Ordering::Relaxed)));
            second();
        });
        object.punch(0..8192);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    drop((object, of_tasks));
    finish_soon(&engine, objects);
}

#[test]
fn a_fetch_that_is_dropped_leaves_its_bytes_to_tasks_and_threads_that_wait() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = Arc::new(objects.create());
    object.set_len(8192).unwrap();
    let of_tasks = AsyncObject::from(Arc::clone(&object));
    let (begun, other) = (AtomicBool::new(false), AtomicUsize::new(0));
    let never = |_: Range<u64>| {
        begun.store(true, Ordering::Relaxed);
        pending::<Brought>()
    };
    let by_task = || {
        other.fetch_add(1, Ordering::Relaxed);
        let get = |wanted: Range<u64>| {
            other.fetch_add(10, Ordering::Relaxed);
            ready(Brought::Ok(vec![7; (wanted.end - wanted.start) as usize]))
        };
        let (read, bytes) = block_on(of_tasks.read_through(0, vec![0; 8192], get));
        assert_eq!(read.unwrap(), 8192);
        assert!(bytes == [7; 8192]);
    };
    let by_thread = || {
        other.fetch_add(1, Ordering::Relaxed);
        let get = |_: u64, buf: &mut [u8]| {
            other.fetch_add(10, Ordering::Relaxed);
            buf.fill(7);
            Ok::<_, Infallible>(())
        };
        let mut bytes = vec![0; 8192];
        assert_eq!(object.read_through(0, &mut bytes, get).unwrap(), 8192);
        assert!(bytes == [7; 8192]);
    };
    thread::scope(|scope| {
        block_on(give_up(of_tasks.fetch(0..8192, never), || {
            if begun.swap(false, Ordering::Relaxed) {
                scope.spawn(by_task);
                scope.spawn(by_thread);
            }
            let both = other.load(Ordering::Relaxed) == 2;
            if both {
                // They have come to where they wait.
                thread::sleep(Duration::from_millis(50));
                assert_eq!(other.load(Ordering::Relaxed), 2, "nobody fetches what is being fetched");
            }
            both
        }));
        block_on(until(|| other.load(Ordering::Relaxed) == 12));
    });
    drop((object, of_tasks));
    finish_soon(&engine, objects);
}

#[test]
fn a_fetch_may_be_dropped_wherever_it_stands() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = AsyncObject::from(objects.create());
    let source = bytes(2, 30_000);
    let get = |wanted: Range<u64>| {
        let bytes = part(&source, wanted);
        async {
            yield_now().await;
            Brought::Ok(bytes)
        }
    };
    block_on(async {
        object.set_len(30_000).await.unwrap();
        let mut ended = 0;
        for polls in (0..12).cycle().take(300) {
            {
                let mut read = pin!(object.read_through(0, vec![0; 30_000], get));
                for _ in 0..polls {
                    if poll_once(read.as_mut()).await.is_some() {
                        ended += 1;
                        break;
                    }
                    // Jobs come to their end, or not.
                    pass(Duration::from_micros(polls * 20)).await;
                }
            }
            let (read, bytes) = object.read_through(0, vec![0; 30_000], get).await;
            assert_eq!(read.unwrap(), 30_000);
            assert!(bytes == source);
            object.punch(0..30_000).await;
            object.with(|object| object.audit()).await.unwrap();
        }
        assert!(ended < 300, "{ended} were not dropped");
    });
    drop(object);
    finish_soon(&engine, objects);
}

#[test]
fn a_write_that_is_dropped_is_there_whole_or_not_at_all() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = AsyncObject::from(objects.create());
    block_on(async {
        object.write(0, vec![0; 300_000]).await.0.unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for (number, polls) in (1..=200_u8).zip((0..3).cycle()) {
            {
                let mut write = pin!(object.write(0, vec![number; 300_000]));
                for _ in 0..polls {
                    if poll_once(write.as_mut()).await.is_some() {
                        break;
                    }
                    pass(Duration::from_micros(50)).await;
                }
            }
            let (read, bytes) = object.read(0, vec![0; 300_000]).await;
            assert_eq!((read.unwrap().len, bytes.iter().all(|byte| *byte == bytes[0])), (300_000, true));
            seen.insert(bytes[0]);
        }
        assert!(seen.len() > 2 && seen.iter().all(|number| number % 3 != 1), "{seen:?}");
    });
    drop(object);
    finish_soon(&engine, objects);
}

#[test]
fn what_the_source_says_is_passed_on() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = AsyncObject::from(objects.create());
    block_on(async {
        object.set_len(100).await.unwrap();
        let fails = |_: Range<u64>| ready(Err::<Vec<u8>, _>("it is gone"));
        let (read, buf) = object.read_through(10, vec![9; 20], fails).await;
        assert!(matches!(read, Err(FetchError::Source("it is gone"))));
        assert_eq!(buf.len(), 20, "the buffer comes back all the same");
        for brought in [9, 11] {
            let wrong = |_: Range<u64>| ready(Brought::Ok(vec![1; brought]));
            let failed = object.fetch(20..30, wrong).await;
            let Err(FetchError::Length { wanted, got }) = failed else { panic!("{failed:?}") };
            assert_eq!((wanted, got), (20..30, brought));
        }
        assert_eq!(object.missing(0..100).await, Vec::from_iter(Some(0..100)));
        engine.starve(true);
        let failed = object.fetch(0..10, |_| ready(Brought::Ok(vec![1; 10]))).await;
        assert!(matches!(failed, Err(FetchError::Object(ObjectError::NoSlot { offset: 0, .. }))));
        engine.starve(false);
        object.fetch(0..u64::MAX, |_| ready(Brought::Ok(vec![1; 100]))).await.unwrap();
        assert_eq!(object.missing(0..100).await, []);
    });
    drop(object);
    finish_soon(&engine, objects);
}

#[test]
fn what_a_task_fetches_never_takes_the_place_of_what_is_newer() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = AsyncObject::from(objects.create());
    block_on(async {
        object.set_len(100).await.unwrap();
        let calls = Cell::new(0_u8);
        let get = |_: Range<u64>| {
            calls.set(calls.get() + 1);
            let (object, call) = (&object, calls.get());
            async move {
                match call {
                    1 => object.punch(40..50).await,
                    _ => object.write(10, b"new").await.0.unwrap(),
                }
                Brought::Ok(vec![call; 100])
            }
        };
        let (read, bytes) = object.read_through(0, vec![0; 100], get).await;
        assert_eq!((read.unwrap(), calls.get()), (100, 2), "what was punched meanwhile is of before");
        assert!(bytes[..10] == [2; 10] && &bytes[10..13] == b"new" && bytes[13..] == [2; 87]);
    });
    drop(object);
    finish_soon(&engine, objects);
}

#[test]
fn tasks_do_with_a_store_what_threads_do() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let noise = bytes(2, 50_000);
    let tasks = Executor::new();
    block_on(tasks.run(async {
        let store = AsyncStore::create(dir.path(), 64 << 20, small()).await.unwrap();
        assert!(AsyncStore::open(dir.path(), small()).await.is_err(), "somebody has it");
        let writers: Vec<_> = (0..20_u8)
            .map(|number| {
                let (store, noise) = (store.clone(), noise.clone());
                tasks.spawn(async move {
                    let object = store.object("v", [number], 1).await.unwrap();
                    let (written, noise) = object.write(u64::from(number), noise).await;
                    written.unwrap();
                    object.set_aux("aux").await.unwrap();
                    if number == 3 {
                        object.pin().await.unwrap();
                    }
                    store.sync().await.unwrap();
                    noise
                })
            })
            .collect();
        for writer in writers {
            assert!(writer.await == noise);
        }
        assert!(store.remove("v", [5]).await.unwrap());
        store.invalidate("v", [6]).await.unwrap();
        let newer = store.object("v", [7], 2).await.unwrap();
        assert!(newer.is_empty().await);
        assert!(matches!(store.object("v", [7], 1).await, Err(NamedError::Older { wanted: 1, has: 2 })));
        newer.write_dirty(0, b"dirty").await.0.unwrap();
        store.sync().await.unwrap();
        drop(newer);
        store.close().await;

        let store = AsyncStore::open(dir.path(), small()).await.unwrap();
        assert_eq!(store.volumes().await, ["v".as_bytes()]);
        let (sender, listed) = std::sync::mpsc::channel();
        store.list("v", "", move |one| sender.send(one).is_ok()).await.unwrap();
        let listed: Vec<_> =
            listed.iter().map(|one| (one.key[0], one.version, one.pinned, one.dirty)).collect();
        let wanted = (0..20).filter(|number| ![5, 6].contains(number));
        let wanted: Vec<_> = wanted
            .map(|number| (number, if number == 7 { 2 } else { 1 }, number == 3, number == 7))
            .collect();
        assert_eq!(listed, wanted);
        let found = store.find("v", [3]).await.unwrap().unwrap();
        let (read, bytes) = found.read(3, vec![0; 50_000]).await;
        assert_eq!(read.unwrap().missing, []);
        assert!(bytes == noise);
        assert_eq!((found.version(), found.key(), found.aux().await), (1, &[3][..], b"aux".to_vec()));
        found.unpin().await;
        store.reclaim(ByteCount::new(1 << 20)).await.unwrap();
        store.with(|store| store.audit()).await.unwrap();
    }));
}

#[test]
fn what_is_fetched_for_a_store_is_kept_and_finds_room() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let source = bytes(2, 6 << 20);
    let get = |wanted: Range<u64>| ready(Brought::Ok(part(&source, wanted)));
    let store = Store::create(dir.path(), 32 << 20, &StoreConfig { marks: None, ..small() }).unwrap();
    let of_tasks = AsyncStore::from(Arc::clone(&store));
    block_on(async {
        let mut filled = 0_u64;
        let full = loop {
            let object = of_tasks.object("v", filled.to_le_bytes(), 0).await.unwrap();
            object.set_len(source.len() as u64).await.unwrap();
            match object.read_through(0, vec![0; source.len()], get).await {
                (Ok(len), bytes) => assert!(len == source.len() && bytes == source),
                (Err(error), _) => break error,
            }
            filled += 1;
        };
        assert!(matches!(full, NamedFetchError::Store(NamedError::Full)), "{full}");
        assert!(filled > 1);
        of_tasks.sync().await.unwrap();
        // Two at once have what each of them wants.
        of_tasks.remove("v", 0_u64.to_le_bytes()).await.unwrap();
        of_tasks.sync().await.unwrap();
        let object: AsyncNamedObject = of_tasks.object("w", "", 0).await.unwrap();
        object.set_len(1 << 20).await.unwrap();
        let calls = Cell::new(0);
        let counted = |wanted| {
            calls.set(calls.get() + 1);
            get(wanted)
        };
        let both = zip(object.fetch(0..1 << 20, counted), object.fetch(0..1 << 20, counted)).await;
        assert!(both.0.is_ok() && both.1.is_ok());
        assert_eq!((calls.get(), object.missing(0..1 << 20).await), (1, vec![]));
    });
    store.audit().unwrap();
}
