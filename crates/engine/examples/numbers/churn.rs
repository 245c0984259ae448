//! Write amplification: what cleaning adds to what writeback gives to a tier, while pages are stored anew at random.
//!
//! A tier in memory of so many segments; pages that do not compress, as many as keep so much of the tier alive; a pool of so much of the
//! tier, written back a segment at a time as it fills. Pages are stored anew uniformly or by Zipf's law (exponent 0.99, as in the
//! Yahoo! Cloud Serving Benchmark), which page has which rank being a matter of chance. Measured after the tier has been written three times over:
//! bytes written to the tier / bytes of them that came from the pool; beside it, bytes written to the tier / bytes stored, which is
//! what a device with a buffer of its own would be said to amplify.
use crate::common::{Chance, Failure, InMemory, fill};
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PAGES_PER_CLUSTER, PageIndex};
use vswap_engine::{CodecChoice, Engine, EngineConfig, OwnerBlock, SEGMENT_BYTES};

/// Exponent of Zipf's law.
const EXPONENT: f64 = 0.99;
/// How much of the tier is written before, and while, it is measured.
const BEFORE: u64 = 3;
const MEASURED: u64 = 3;
/// Pages that do not compress in a segment.
const PAGES: usize = 509;

/// Which page is stored next.
enum Choice {
    Uniform(usize),
    /// The part of all stores that goes to the ranks up to each; the page of each rank.
    Zipf(Vec<f64>, Vec<u32>),
}

impl Choice {
    fn zipf(pages: usize, chance: &mut Chance) -> Self {
        let mut sum = 0.0;
        let weight = |rank: usize| 1.0 / (rank as f64).powf(EXPONENT);
        let sums: Vec<f64> = (1..=pages)
            .map(|rank| {
                sum += weight(rank);
                sum
            })
            .collect();
        let mut order: Vec<u32> = (0..pages as u32).collect();
        (1..pages).for_each(|at| order.swap(at, chance.below(at + 1)));
        Self::Zipf(sums.iter().map(|part| part / sum).collect(), order)
    }

    fn next(&self, chance: &mut Chance) -> usize {
        match self {
            Self::Uniform(pages) => chance.below(*pages),
            Self::Zipf(sums, order) => {
                let part = chance.part();
                order[sums.partition_point(|sum| *sum < part).min(order.len() - 1)] as usize
            }
        }
    }
}

pub fn run(how: &str, full: usize, segments: usize, part: usize) -> Result<(), Failure> {
    let tier = segments * SEGMENT_BYTES;
    let config = EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() };
    let engine = Engine::with_storage(config, InMemory::new(tier))?;
    let mut scratch = engine.scratch();
    let mut chance = Chance::new(7);
    let pool = tier / part;
    // After a writeback the pool has a segment less than it may have, or two.
    let pages = (segments * PAGES * full) / 100 + pool / PAGE_SIZE - 2 * PAGES;
    let mut blocks: Vec<OwnerBlock> = Vec::new();
    for _ in 0..pages.div_ceil(PAGES_PER_CLUSTER) {
        blocks.push(engine.owner_block(GroupId::ROOT)?);
    }
    let choice = match how {
        "uniform" => Choice::Uniform(pages),
        "zipf" => Choice::zipf(pages, &mut chance),
        _ => return Err("uniform or zipf".into()),
    };
    let mut page = [0; PAGE_SIZE];
    fill(&mut page, PAGE_SIZE, 1);
    let (mut from_pool, mut written, mut stores) = (0_u64, 0_u64, 0_u64);
    let (mut alive, mut samples) = (0.0, 0_u32);
    let mut at = 0;
    loop {
        let number = if at < pages { at } else { choice.next(&mut chance) };
        at += 1;
        page[..8].copy_from_slice(&at.to_le_bytes());
        let index = PageIndex::of_addr((number * PAGE_SIZE) as u64);
        let slot = blocks[number / PAGES_PER_CLUSTER].slot_for_store(&engine, index)?;
        engine.store(slot, &page, &mut scratch)?;
        stores += 1;
        if engine.pool_payload().get() <= pool as u64 {
            continue;
        }
        let report = engine.writeback(ByteCount::new(SEGMENT_BYTES as u64), &mut scratch)?;
        if report.disk_full {
            return Err("the tier is full".into());
        }
        let before = written / tier as u64;
        from_pool += report.written.get();
        written = engine.stats().written_bytes.get();
        alive += engine.tiers()[0].live.get() as f64 / tier as f64;
        samples += 1;
        if before < BEFORE && written / tier as u64 >= BEFORE {
            (from_pool, stores, alive, samples) = (0, 0, 0.0, 0);
        } else if written / tier as u64 >= BEFORE + MEASURED && before >= BEFORE {
            break;
        }
    }
    let measured = written - BEFORE * tier as u64;
    println!(
        "{{\"part\":\"churn\",\"how\":\"{how}\",\"full\":{:.4},\"segments\":{segments},\"pool_part\":{:.4},\"stores\":{stores},\
         \"from_pool\":{from_pool},\"written\":{measured},\"amplification\":{:.4},\"written_for_stored\":{:.4}}}",
        alive / f64::from(samples.max(1)),
        1.0 / part as f64,
        measured as f64 / from_pool.max(1) as f64,
        measured as f64 / (stores.max(1) * PAGE_SIZE as u64) as f64
    );
    blocks.into_iter().for_each(|block| block.dispose(&engine));
    Ok(())
}
