//! A table larger than the memory it may take: fills it, reads it back at random, says what that cost.
//!
//! `cargo run --release --no-default-features -p vswap --example region -- 512 128` makes a region of 512 MiB that stays within 128 MiB.

use std::time::Instant;
use vswap::Region;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut mib = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let length = mib.next().unwrap_or(Ok(256))? << 20;
    let limit = mib.next().unwrap_or(Ok(64))? << 20;

    let mut region = Region::builder(length).limit(limit).build()?;
    let words: &mut [u64] = region.as_mut_slice_of();
    let per_page = 4096 / size_of::<u64>();

    let begin = Instant::now();
    for (page, chunk) in words.chunks_mut(per_page).enumerate() {
        for (at, word) in chunk.iter_mut().enumerate() {
            *word = value(page, at);
        }
    }
    println!("filled in {:.2} s", begin.elapsed().as_secs_f64());

    let begin = Instant::now();
    let (pages, mut random) = (words.len() / per_page, 88_172_645_463_325_252u64);
    let reads = 100_000;
    for _ in 0..reads {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (page, at) = (random as usize % pages, (random >> 40) as usize % per_page);
        assert_eq!(words[page * per_page + at], value(page, at), "page {page}");
    }
    println!("read at random: {:.2} us each", begin.elapsed().as_secs_f64() * 1e6 / reads as f64);

    let stats = region.stats();
    println!("limit {} MiB, peak {} MiB, moved out {} pages", limit >> 20, stats.peak >> 20, stats.evicted);
    for kind in stats.faults.iter().filter(|kind| kind.count > 0) {
        println!("{:>8} {} faults, p50 {:?}, p99 {:?}", kind.count, kind.name, kind.p50, kind.p99);
    }
    Ok(())
}

/// What a word holds: compresses to about a third, as heaps do.
fn value(page: usize, at: usize) -> u64 {
    if at.is_multiple_of(3) {
        (page as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at as u64
    } else {
        page as u64
    }
}
