//! What a store, a load and a writeback cost, on the pages of a file (for instance a copy of a heap):
//! `cargo run --release -p vswap-engine --example costs -- FILE [DIR for segments]`.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, Page, PageIndex, SlotId};
use vswap_engine::{CodecChoice, Engine, EngineConfig, Loaded, OwnerBlock, Scratch, TierConfig};

/// Pages used: 128 MiB at most.
const MOST: usize = 32_768;
/// Pages that a run asks for.
const RUN: usize = 32;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("usage: costs FILE [DIR]")?;
    let dir = arguments.next().map(PathBuf::from);
    let bytes = std::fs::read(&file)?;
    let pages: Vec<Page> = bytes.as_chunks::<PAGE_SIZE>().0.iter().take(MOST).copied().collect();
    for codec in [CodecChoice::Lz4, CodecChoice::Zstd, CodecChoice::Auto] {
        let tiers = dir.clone().map(|dir| TierConfig::new(dir, ByteCount::mib(1024))).into_iter().collect();
        let engine = Engine::new(EngineConfig { codec, tiers, ..EngineConfig::default() })?;
        println!("{codec:?}, {} pages of {file}", pages.len());
        measure(&engine, &pages)?;
    }
    Ok(())
}

/// Runs `act` once and says what it took a page.
fn timed<T>(name: &str, pages: usize, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    println!("  {name:24} {:6.0} ns a page", start.elapsed().as_secs_f64() * 1e9 / pages as f64);
    result
}

fn measure(engine: &Arc<Engine>, pages: &[Page]) -> Result<(), Box<dyn std::error::Error>> {
    let mut scratch = engine.scratch();
    let mut blocks: Vec<OwnerBlock> = Vec::new();
    for _ in 0..pages.len().div_ceil(512) {
        blocks.push(engine.owner_block(GroupId::ROOT)?);
    }
    let mut slots: Vec<SlotId> = Vec::new();
    for at in 0..pages.len() {
        let index = PageIndex::of_addr((at * PAGE_SIZE) as u64);
        slots.push(blocks[at / 512].slot_for_store(engine, index)?);
    }
    store_all(engine, "store, before a dictionary", &slots, pages, &mut scratch)?;
    timed("maintain (trains)", 1, || engine.maintain(false));
    store_all(engine, "store", &slots, pages, &mut scratch)?;
    load_all(engine, "load", &slots, &mut scratch)?;
    let stats = engine.stats();
    println!(
        "  {} in {} of pool ({} payload), {} of metadata",
        ByteCount::new((pages.len() * PAGE_SIZE) as u64),
        stats.pool_bytes,
        stats.pool_payload,
        stats.metadata_bytes
    );
    if let Ok(report) =
        timed("write back all", pages.len(), || engine.writeback(stats.pool_payload, &mut scratch))
    {
        println!("  wrote {} for {}, freed {}", report.written, report.pages, report.freed);
        load_all(engine, "load from the disk", &slots[..2048.min(slots.len())], &mut scratch)?;
        load_runs(engine, &slots, &mut scratch);
    }
    timed("dispose", pages.len(), || blocks.into_iter().for_each(|block| block.dispose(engine)));
    Ok(())
}

fn store_all(
    engine: &Engine,
    name: &str,
    slots: &[SlotId],
    pages: &[Page],
    scratch: &mut Scratch,
) -> Result<(), Box<dyn std::error::Error>> {
    timed(name, slots.len(), || {
        slots.iter().zip(pages).try_for_each(|(slot, page)| engine.store(*slot, page, scratch).map(|_| ()))
    })?;
    Ok(())
}

fn load_all(
    engine: &Engine,
    name: &str,
    slots: &[SlotId],
    scratch: &mut Scratch,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut page = [0; PAGE_SIZE];
    timed(name, slots.len(), || {
        // A stride that visits all, in no order that a cache could guess.
        (0..slots.len()).try_for_each(|at| {
            let slot = slots[at * 7919 % slots.len()];
            engine.load(slot, &mut page, scratch).map(|_| ())
        })
    })?;
    Ok(())
}

fn load_runs(engine: &Engine, slots: &[SlotId], scratch: &mut Scratch) {
    let slots: Vec<Option<SlotId>> = slots.iter().copied().map(Some).collect();
    let mut pages = vec![[0; PAGE_SIZE]; RUN];
    let mut loaded: Vec<Loaded> = (0..RUN).map(|_| None).collect();
    timed("load in runs of 32", slots.len(), || {
        let mut at = 0;
        while at < slots.len() {
            let end = slots.len().min(at + RUN);
            engine.load_run(&slots[at..end], 0, &mut pages, &mut loaded, scratch);
            at += loaded.iter().take_while(|result| result.is_some()).count().max(1);
        }
    });
}
