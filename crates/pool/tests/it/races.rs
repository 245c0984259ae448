//! Several threads: an entry is read whole or not at all while others free and reuse its place.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vswap_core::{PoolHandle, SlotId};
use vswap_pool::{EntryTag, HeapSource, Pool, PoolConfig};

const ROUNDS: u64 = if cfg!(miri) { 30 } else { 20_000 };
const PLACES: usize = 32;

/// Bytes that tell whose they are in every byte.
fn bytes_of(slot: u64) -> Vec<u8> {
    vec![(slot % 251) as u8; 64 + (slot % 7) as usize * 200]
}

#[test]
fn a_reader_never_sees_another_slots_bytes() {
    let pool = Pool::with_source(PoolConfig { chunk_bytes: 16 << 10, limit: None }, HeapSource);
    // What readers try, as slot and handle packed by hand: a hint that may be out of date at any time.
    let shared: Vec<[AtomicU64; 4]> = (0..PLACES).map(|_| Default::default()).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (pool, shared, done) = (&pool, &shared, &done);
            scope.spawn(move || {
                let mut mine: Vec<Option<(PoolHandle, SlotId)>> = vec![None; PLACES];
                for round in 0..ROUNDS {
                    let at = (round * 7 % PLACES as u64) as usize;
                    if let Some((handle, slot)) = mine[at].take() {
                        assert!(pool.remove(handle, slot).is_some());
                    }
                    let slot = SlotId::new(round * 2 + writer).unwrap();
                    let handle = pool.insert(slot, EntryTag::new(1).unwrap(), &bytes_of(slot.get())).unwrap();
                    mine[at] = Some((handle, slot));
                    let parts =
                        [slot.get(), handle.class() as u64, handle.chunk() as u64, handle.index() as u64];
                    for (cell, part) in shared[at].iter().zip(parts) {
                        cell.store(part, Ordering::Relaxed);
                    }
                }
                for (handle, slot) in mine.into_iter().flatten() {
                    assert!(pool.remove(handle, slot).is_some());
                }
                done.store(true, Ordering::Relaxed);
            });
        }
        let (pool, shared, done) = (&pool, &shared, &done);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for hint in shared {
                    let [slot, class, chunk, index] = [0, 1, 2, 3].map(|at| hint[at].load(Ordering::Relaxed));
                    let handle = PoolHandle::new(class as usize, chunk as usize, index as usize);
                    let (Some(slot), Some(handle)) = (SlotId::new(slot), handle) else { continue };
                    pool.read(handle, slot, |_, bytes| {
                        assert!(bytes == bytes_of(slot.get()), "{slot}: torn or another's");
                    });
                }
            }
        });
    });
    assert_eq!(pool.stats().entries, 0);
}
