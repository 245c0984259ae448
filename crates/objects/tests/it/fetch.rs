//! What is missing is brought from elsewhere: once, and never in the place of something newer.
use crate::{bytes, finish, objects};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;
use vswap_engine::EngineConfig;
use vswap_objects::{FetchError, ObjectError};

const MIB: usize = 1 << 20;

fn copy(source: &[u8], offset: u64, buf: &mut [u8]) {
    buf.copy_from_slice(&source[offset as usize..][..buf.len()]);
}

#[test]
fn each_byte_is_fetched_once_however_many_ask_for_it() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = objects.create();
    let source = bytes(2, 5 * MIB + 777);
    object.set_len(source.len() as u64).unwrap();
    object.write(3000, &source[3000..9000]).unwrap();
    let (fetched, flying) = (Mutex::new(vec![0_u8; source.len()]), AtomicU64::new(0));
    let begin = Barrier::new(6);
    thread::scope(|scope| {
        for reader in 0..6_usize {
            let (object, source, fetched, flying, begin) = (&object, &source, &fetched, &flying, &begin);
            scope.spawn(move || {
                begin.wait();
                // From different places, so that they meet in the middle of what the others fetch.
                let from = reader * 333_333;
                let mut buf = vec![0; source.len() - from];
                let read = object.read_through(from as u64, &mut buf, |offset, buf| {
                    flying.fetch_max(buf.len() as u64, Ordering::Relaxed);
                    for count in &mut fetched.lock().unwrap()[offset as usize..][..buf.len()] {
                        *count += 1;
                    }
                    thread::sleep(Duration::from_millis(2));
                    copy(source, offset, buf);
                    Ok::<_, Infallible>(())
                });
                assert_eq!(read.unwrap(), buf.len());
                assert!(buf == source[from..]);
            });
        }
    });
    let fetched = fetched.into_inner().unwrap();
    assert!(fetched[3000..9000].iter().all(|count| *count == 0), "what is there is not fetched");
    assert!(fetched[..3000].iter().chain(&fetched[9000..]).all(|count| *count == 1));
    assert!(flying.into_inner() <= MIB as u64);
    assert_eq!(object.missing(0..u64::MAX), []);
    drop(object);
    finish(&engine, objects);
}

#[test]
fn whoever_waits_for_a_fetch_that_fails_tries_by_itself() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = objects.create();
    object.set_len(8192).unwrap();
    let (source, begin) = (bytes(3, 8192), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let failed = object.fetch(0..8192, |_, _| {
                begin.wait();
                thread::sleep(Duration::from_millis(20));
                Err("it is gone")
            });
            assert!(matches!(failed, Err(FetchError::Source("it is gone"))));
        });
        begin.wait();
        let mut buf = vec![0; 8192];
        let get = |offset, buf: &mut [u8]| {
            copy(&source, offset, buf);
            Ok::<_, Infallible>(())
        };
        assert_eq!(object.read_through(0, &mut buf, get).unwrap(), 8192);
        assert!(buf == source);
    });
    drop(object);
    finish(&engine, objects);
}

#[test]
fn what_somebody_else_fetches_is_there_when_a_fetch_returns() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = objects.create();
    object.set_len(3 * MIB as u64).unwrap();
    let begin = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let slowly = |offset: u64, _: &mut [u8]| {
                if offset == 5000 {
                    begin.wait();
                }
                thread::sleep(Duration::from_millis(20));
                Ok::<_, Infallible>(())
            };
            object.fetch(5000..9000, slowly).unwrap();
        });
        begin.wait();
        object.fetch(0..u64::MAX, |_, _| Ok::<_, Infallible>(())).unwrap();
        assert_eq!(object.missing(0..u64::MAX), []);
    });
    drop(object);
    finish(&engine, objects);
}

#[test]
fn a_fetch_that_panics_keeps_nobody_waiting() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = objects.create();
    object.set_len(100).unwrap();
    let panics = std::panic::AssertUnwindSafe(|| {
        let _ = object.fetch(0..100, |_, _| -> Result<(), Infallible> { panic!("as it is meant to") });
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    object.fetch(0..100, |_, _| Ok::<_, Infallible>(())).unwrap();
    assert_eq!(object.missing(0..100), []);
    drop(object);
    finish(&engine, objects);
}

#[test]
fn what_was_given_up_while_it_was_fetched_is_fetched_again() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = objects.create();
    object.set_len(20_000).unwrap();
    // The source changes just after it was read, and its owner gives up what the object has, or cuts it off.
    for way in 0..2 {
        let mut calls = 0;
        let mut buf = [0; 4];
        let get = |_: u64, buf: &mut [u8]| {
            calls += 1;
            if calls > 1 {
                buf.fill(2);
                return Ok::<_, Infallible>(());
            }
            buf.fill(1);
            if way == 0 {
                object.punch(10_001..10_002);
            } else {
                object.set_len(10_000).unwrap();
                object.set_len(20_000).unwrap();
            }
            Ok(())
        };
        assert_eq!(object.read_through(10_000, &mut buf, get).unwrap(), 4);
        assert_eq!((buf, calls), ([2; 4], 2));
        object.punch(0..20_000);
    }
    // Of no concern to it.
    let get = |_: u64, buf: &mut [u8]| {
        buf.fill(3);
        object.punch(0..10_000);
        object.punch(10_004..20_000);
        Ok::<_, Infallible>(())
    };
    object.fetch(10_000..10_004, get).unwrap();
    assert_eq!(object.present(0..u64::MAX), Vec::from_iter(Some(10_000..10_004)));
    drop(object);
    finish(&engine, objects);
}

#[test]
fn what_was_written_while_it_was_fetched_stays() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = objects.create();
    object.set_len(100).unwrap();
    let get = |offset: u64, buf: &mut [u8]| {
        object.write(offset + 10, b"new").unwrap();
        buf.fill(b'o');
        Ok::<_, Infallible>(())
    };
    let mut buf = [0; 100];
    object.read_through(0, &mut buf, get).unwrap();
    assert!(buf[..10] == [b'o'; 10] && &buf[10..13] == b"new" && buf[13..] == [b'o'; 87]);
    // Cut off meanwhile: nothing beyond the end comes back.
    object.punch(0..100);
    let get = |_: u64, _: &mut [u8]| {
        object.set_len(40).unwrap();
        Ok::<_, Infallible>(())
    };
    assert_eq!(object.read_through(0, &mut buf, get).unwrap(), 40);
    assert_eq!(object.len(), 40);
    drop(object);
    finish(&engine, objects);
}

#[test]
fn what_cannot_be_kept_says_so() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = objects.create();
    object.set_len(100).unwrap();
    engine.starve(true);
    let failed = object.fetch(0..100, |_, _| Ok::<_, Infallible>(()));
    assert!(matches!(failed, Err(FetchError::Object(ObjectError::NoSlot { offset: 0, .. }))));
    engine.starve(false);
    object.fetch(0..100, |_, _| Ok::<_, Infallible>(())).unwrap();
    drop(object);
    finish(&engine, objects);
}

#[test]
fn what_is_written_after_it_was_asked_for_stays_dirty() {
    let (engine, objects) = objects(EngineConfig::default());
    let object = objects.create();
    object.write_dirty(0, &[1; 10_000]).unwrap();
    let asked = object.dirty();
    assert_eq!(asked.iter().map(|dirty| dirty.range()).collect::<Vec<_>>(), Vec::from_iter(Some(0..10_000)));
    object.write_dirty(5000, &[2; 10]).unwrap();
    asked.iter().for_each(|dirty| object.cleaned(dirty));
    let ranges = |object: &vswap_objects::Object| -> Vec<_> {
        object.dirty().iter().map(|dirty| dirty.range()).collect()
    };
    assert_eq!(ranges(&object), Vec::from_iter(Some(5000..5010)));
    assert!(object.is_dirty() && !object.snapshot().unwrap().is_dirty());
    // Written through, given up, cut off: not dirty.
    object.write(5000, &[3; 3]).unwrap();
    object.punch(5003..5006);
    assert_eq!(ranges(&object), Vec::from_iter(Some(5006..5010)));
    object.set_len(5008).unwrap();
    assert_eq!(ranges(&object), Vec::from_iter(Some(5006..5008)));
    object.set_len(0).unwrap();
    assert!(!object.is_dirty());
    // A write without room: what it did write is dirty.
    object.write_dirty(2 << 20, &[1; 4096]).unwrap();
    engine.starve(true);
    object.write_dirty((4 << 20) - 4096, &[1; 8192]).unwrap_err();
    engine.starve(false);
    assert_eq!(ranges(&object), vec![2 << 20..(2 << 20) + 4096, (4 << 20) - 4096..4 << 20]);
    drop(object);
    finish(&engine, objects);
}
