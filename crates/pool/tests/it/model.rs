//! One thread: every operation against a map.
use proptest::prelude::*;
use std::collections::HashMap;
use vswap_core::{ByteCount, PoolHandle, SlotId};
use vswap_pool::{EntryTag, HeapSource, Pool, PoolConfig, PoolError};

#[derive(Clone, Debug)]
enum Op {
    Insert {
        length: usize,
        tag: u16,
    },
    Remove(prop::sample::Index),
    Read(prop::sample::Index),
    ReadStale(prop::sample::Index),
    RemoveMost,
    /// Entries of a sparse chunk move, but for every `leave`th.
    Pack {
        leave: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    // Few distinct lengths, so that classes fill, empty and fill again.
    let length = prop_oneof![
        4 => prop::sample::select(vec![1usize, 31, 700, 701, 1500, 4095, 4096]),
        1 => 0..=4096usize,
    ];
    prop_oneof![
        8 => (length, 1..1024u16).prop_map(|(length, tag)| Op::Insert { length, tag }),
        5 => any::<prop::sample::Index>().prop_map(Op::Remove),
        3 => any::<prop::sample::Index>().prop_map(Op::Read),
        1 => any::<prop::sample::Index>().prop_map(Op::ReadStale),
        1 => Just(Op::RemoveMost),
        2 => (1..5usize).prop_map(|leave| Op::Pack { leave }),
    ]
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    (0..length).map(|at| (seed.wrapping_mul(31).wrapping_add(at as u64 * 7) >> 3) as u8).collect()
}

#[derive(Clone, Debug)]
struct Known {
    handle: PoolHandle,
    slot: SlotId,
    tag: u16,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Model {
    live: Vec<Known>,
    dead: Vec<Known>,
    next: u64,
}

fn pool(chunk_kib: usize) -> Pool<HeapSource> {
    Pool::with_source(PoolConfig { chunk_bytes: chunk_kib << 10, limit: None }, HeapSource)
}

fn check_read(pool: &Pool<HeapSource>, known: &Known) -> Result<(), TestCaseError> {
    let same =
        pool.read(known.handle, known.slot, |tag, bytes| tag.get() == known.tag && bytes == known.bytes);
    prop_assert_eq!(same, Some(true));
    Ok(())
}

fn remove(pool: &Pool<HeapSource>, model: &mut Model, at: usize) -> Result<(), TestCaseError> {
    let known = model.live.swap_remove(at);
    prop_assert_eq!(pool.remove(known.handle, known.slot), Some(known.bytes.len()));
    prop_assert_eq!(pool.remove(known.handle, known.slot), None);
    model.dead.push(known);
    Ok(())
}

fn pack(pool: &Pool<HeapSource>, model: &mut Model, leave: usize) -> Result<(), TestCaseError> {
    for class in 0..pool.classes().count() {
        let Some(sparse) = pool.take_sparse(class, 3) else { continue };
        for (handle, header) in sparse.entries.iter().skip(leave % 2).step_by(leave) {
            let known = model.live.iter_mut().find(|known| known.handle == *handle).expect("a live entry");
            prop_assert_eq!(header.slot, known.slot);
            let new = pool.insert(known.slot, header.tag, &known.bytes).unwrap();
            prop_assert!(new.chunk() != handle.chunk(), "moved into the chunk that it should leave");
            prop_assert_eq!(pool.remove(*handle, known.slot), Some(known.bytes.len()));
            known.handle = new;
        }
        pool.put_back(sparse);
    }
    Ok(())
}

fn apply(pool: &Pool<HeapSource>, model: &mut Model, op: Op) -> Result<(), TestCaseError> {
    match op {
        Op::Insert { length, tag } => {
            model.next += 1;
            let slot = SlotId::new(model.next * 977).unwrap();
            let bytes = bytes(model.next, length);
            let handle = pool.insert(slot, EntryTag::new(tag).unwrap(), &bytes).unwrap();
            model.live.push(Known { handle, slot, tag, bytes });
        }
        Op::Remove(index) if !model.live.is_empty() => {
            let at = index.index(model.live.len());
            remove(pool, model, at)?;
        }
        Op::Read(index) if !model.live.is_empty() => check_read(pool, index.get(&model.live))?,
        Op::ReadStale(index) if !model.dead.is_empty() => {
            let known = index.get(&model.dead);
            prop_assert_eq!(pool.read(known.handle, known.slot, |_, _| ()), None);
        }
        Op::Pack { leave } => pack(pool, model, leave)?,
        Op::RemoveMost => {
            while model.live.len() > 3 {
                remove(pool, model, 0)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn check_whole(pool: &Pool<HeapSource>, model: &Model) -> Result<(), TestCaseError> {
    let stats = pool.stats();
    prop_assert_eq!(stats.entries, model.live.len() as u64);
    let payload: usize = model.live.iter().map(|known| known.bytes.len()).sum();
    prop_assert_eq!(stats.payload, ByteCount::new(payload as u64));
    prop_assert!(stats.held >= stats.payload);
    let mut seen = HashMap::new();
    pool.for_each(|handle, header| {
        assert!(seen.insert(handle, header).is_none());
    });
    prop_assert_eq!(seen.len(), model.live.len());
    for known in &model.live {
        prop_assert_eq!(seen[&known.handle].slot, known.slot);
        check_read(pool, known)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 200 })
    })]

    #[test]
    fn the_pool_is_a_map_whose_memory_goes_back(
        ops in prop::collection::vec(op(), 0..if cfg!(miri) { 40 } else { 600 }),
        chunk in prop::sample::select(vec![16usize, 32, 64, 128]),
    ) {
        let pool = pool(chunk);
        let mut model = Model::default();
        for op in ops {
            apply(&pool, &mut model, op)?;
        }
        check_whole(&pool, &model)?;
        while !model.live.is_empty() {
            remove(&pool, &mut model, 0)?;
        }
        pool.trim();
        // Nothing but the table of chunks is left: 1 % of one chunk or so, whatever was in it.
        prop_assert_eq!(pool.stats().payload, ByteCount::ZERO);
        prop_assert!(pool.held() <= ByteCount::new(8 << 10), "{} held by an empty pool", pool.held());
    }
}

#[test]
fn what_is_counted_is_what_was_touched() {
    let pool = pool(64);
    let before = pool.held().get();
    let raw = bytes(1, 4096);
    let slot = |n| SlotId::new(n).unwrap();
    pool.insert(slot(0), EntryTag::new(1).unwrap(), &raw).unwrap();
    let one = pool.held().get() - before;
    assert!((4096..6144).contains(&one), "{one} bytes for one raw page");
    for n in 1..16 {
        pool.insert(slot(n), EntryTag::new(1).unwrap(), &raw).unwrap();
    }
    let sixteen = pool.held().get() - before;
    assert!((65536..68000).contains(&sixteen), "{sixteen} bytes for sixteen raw pages");
}

#[test]
fn the_limit_is_never_passed_and_says_so() {
    let limit = ByteCount::mib(1);
    let pool = Pool::with_source(PoolConfig { chunk_bytes: 32 << 10, limit: Some(limit) }, HeapSource);
    let raw = bytes(1, 4096);
    let mut put = 0;
    let error = loop {
        match pool.insert(SlotId::new(put).unwrap(), EntryTag::new(1).unwrap(), &raw) {
            Ok(_) => put += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, PoolError::Full { .. }), "{error}");
    assert!(pool.held() <= limit && put >= 200, "{put} pages, {}", pool.held());
}

#[test]
fn an_entry_longer_than_a_page_is_refused() {
    let error = pool(64).insert(SlotId::new(1).unwrap(), EntryTag::new(1).unwrap(), &[0; 4097]).unwrap_err();
    assert!(matches!(error, PoolError::TooLong { length: 4097 }));
}

#[test]
fn another_slots_handle_is_out_of_date() {
    let pool = pool(64);
    let (a, b) = (SlotId::new(1).unwrap(), SlotId::new(2).unwrap());
    let handle = pool.insert(a, EntryTag::new(1).unwrap(), b"bytes").unwrap();
    assert_eq!(pool.read(handle, b, |_, _| ()), None);
    assert_eq!(pool.remove(handle, b), None);
    assert_eq!(pool.remove(handle, a), Some(5));
    let reused = pool.insert(b, EntryTag::new(1).unwrap(), b"other").unwrap();
    assert_eq!(reused, handle, "the latest freed is the first taken");
    assert_eq!(pool.read(handle, a, |_, _| ()), None);
}
