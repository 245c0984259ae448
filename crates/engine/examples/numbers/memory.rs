//! Memory besides the data: what the process holds (resident and page tables) less what it held before there was an engine and less the
//! pages' own bytes, after so many pages have really been stored. Slots, headers, owners' blocks, tables, buffers and codec contexts are in it.
use crate::common::{Drain, Failure, fill};
use std::fs;
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PAGES_PER_CLUSTER, PageIndex};
use vswap_engine::{CodecChoice, Engine, EngineConfig, OwnerBlock};

/// Pool that is held before it is written back.
const POOL: u64 = 8 << 20;
/// Bytes of a tier of which nothing is kept.
const TIER: u64 = 64 << 40;

/// Bytes that the process has: resident, and page tables.
fn held() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = |key: &str| -> Option<u64> {
        status.lines().find(|line| line.starts_with(key))?.split_whitespace().nth(1)?.parse().ok()
    };
    let (Some(resident), Some(tables)) = (kib("VmRSS:"), kib("VmPTE:")) else {
        return Err("/proc/self/status lacks VmRSS or VmPTE".into());
    };
    Ok((resident + tables) << 10)
}

pub fn run(what: &str, count: usize, noise: usize) -> Result<(), Failure> {
    let disk = match what {
        "disk" => true,
        "pool" => false,
        "space" => return space(),
        _ => return Err("disk, pool or space".into()),
    };
    let before = held()?;
    let config = EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() };
    let engine = if disk {
        Engine::with_storage(config, std::sync::Arc::new(Drain(TIER)))?
    } else {
        Engine::new(config)?
    };
    let mut scratch = engine.scratch();
    let mut page = [0; PAGE_SIZE];
    fill(&mut page, noise, 3);
    let mut blocks: Vec<OwnerBlock> = Vec::with_capacity(count.div_ceil(PAGES_PER_CLUSTER));
    for number in 0..count {
        if number % PAGES_PER_CLUSTER == 0 {
            blocks.push(engine.owner_block(GroupId::ROOT)?);
        }
        let index = PageIndex::of_addr((number * PAGE_SIZE) as u64);
        let slot = blocks[number / PAGES_PER_CLUSTER].slot_for_store(&engine, index)?;
        page[..8].copy_from_slice(&(number as u64 ^ 0x5555_aaaa_1234_8765).to_le_bytes());
        engine.store(slot, &page, &mut scratch)?;
        if disk && engine.pool_payload().get() > POOL {
            engine.writeback(engine.pool_payload(), &mut scratch)?;
        }
    }
    if disk {
        engine.writeback(ByteCount::new(u64::MAX >> 1).min(engine.pool_payload()), &mut scratch)?;
    }
    let stats = engine.stats();
    let there = if disk { stats.segment_pages } else { stats.pool_pages };
    if there.get() != count as u64 {
        return Err(format!("{} of {count} pages are where they should be", there.get()).into());
    }
    let payload = stats.pool_payload.get();
    let overhead = held()?.saturating_sub(before).saturating_sub(payload);
    let counted = stats.metadata_bytes.get() + stats.pool_bytes.get() - payload;
    println!(
        "{{\"part\":\"memory\",\"what\":\"{what}\",\"pages\":{count},\"stored_as\":{:.1},\"bytes_a_page\":{:.4},\"by_our_books\":{:.4}}}",
        stats.stored_bytes.get() as f64 / count as f64,
        overhead as f64 / count as f64,
        counted as f64 / count as f64
    );
    // It ends here: giving each page back would take as long again.
    std::mem::forget(blocks);
    Ok(())
}

/// An engine with 1 TiB on a tier, of which nothing is used.
fn space() -> Result<(), Failure> {
    let before = held()?;
    let config = EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() };
    let engine = Engine::with_storage(config, std::sync::Arc::new(Drain(1 << 40)))?;
    let size = engine.tiers()[0].size;
    println!(
        "{{\"part\":\"memory\",\"what\":\"space\",\"size\":{},\"bytes\":{},\"by_our_books\":{}}}",
        size.get(),
        held()?.saturating_sub(before),
        engine.stats().metadata_bytes.get()
    );
    Ok(())
}
