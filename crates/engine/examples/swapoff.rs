//! What emptying a tier costs, with so many owners of every page:
//! `cargo run --release -p vswap-engine --example swapoff -- DIR GIB OWNERS`. Prints a line of JSON.
use std::ops::ControlFlow;
use std::time::Instant;
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PageIndex};
use vswap_engine::{CodecChoice, Engine, EngineConfig, OwnerBlock, TierConfig, Unreadable};

/// Written back at a time.
const AT_ONCE: ByteCount = ByteCount::mib(64);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, gib, owners] = &arguments[..] else { return Err("usage: swapoff DIR GIB OWNERS".into()) };
    let (gib, owners): (usize, usize) = (gib.parse()?, owners.parse()?);
    let room = ByteCount::mib(gib as u64 * 1024 + 64);
    let tiers = vec![TierConfig::new(dir, room), TierConfig { priority: -1, ..TierConfig::new(dir, room) }];
    let engine = Engine::new(EngineConfig { codec: CodecChoice::Lz4, tiers, ..EngineConfig::default() })?;
    let mut scratch = engine.scratch();
    let mut blocks: Vec<OwnerBlock> = Vec::new();
    let mut page = [0; PAGE_SIZE];
    for number in 0..gib << 9 {
        let mut block = engine.owner_block(GroupId::ROOT)?;
        for at in PageIndex::all() {
            fill(&mut page, (number * 512 + at.get()) as u64);
            let slot = block.slot_for_store(&engine, at)?;
            engine.store(slot, &page, &mut scratch)?;
        }
        blocks.push(block);
        if engine.pool_payload() > AT_ONCE {
            engine.writeback(AT_ONCE, &mut scratch)?;
        }
    }
    engine.writeback(engine.pool_payload(), &mut scratch)?;
    let children: Vec<OwnerBlock> = (1..owners)
        .flat_map(|_| blocks.iter_mut().map(|block| block.fork(&engine)).collect::<Vec<_>>())
        .collect();
    let (pages, tier) = (engine.stats().segment_pages.get(), engine.tiers().swap_remove(0));
    let began = Instant::now();
    let done = engine.remove_tier(tier.id, Unreadable::Keep, &mut |_| ControlFlow::Continue(()))?;
    let us = began.elapsed().as_micros();
    println!("{{\"pages\":{pages},\"bytes\":{},\"us\":{us},\"owners\":{owners}}}", done.bytes.get());
    children.into_iter().chain(blocks).for_each(|block| block.dispose(&engine));
    Ok(())
}

/// A page of which half is noise: the rest is what a codec takes away.
fn fill(page: &mut [u8; PAGE_SIZE], seed: u64) {
    let mut noise = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in page[..PAGE_SIZE / 2].as_chunks_mut::<8>().0 {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        *word = noise.to_le_bytes();
    }
}
