//! Ratio and speed of the codecs on the pages of a file, for instance a copy of a heap:
//! `cargo run --release -p vswap-codec --example codecs -- FILE`.
use std::time::Instant;
use vswap_codec::{Compressor, Decompressor, Dictionaries, Dictionary, Method};
use vswap_core::{FillPattern, PAGE_SIZE, Page};

/// Pages measured; a fixed pseudo-random choice of those that are no fill pattern.
const PAGES: usize = 12_000;

fn pages_of(bytes: &[u8]) -> Vec<Page> {
    let all = bytes.as_chunks::<PAGE_SIZE>().0.iter();
    let mut pages: Vec<Page> = all.filter(|page| FillPattern::of_page(page).is_none()).copied().collect();
    let mut state = 12_345_u64;
    for at in (1..pages.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        pages.swap(at, (state >> 33) as usize % (at + 1));
    }
    pages
}

fn measure(name: &str, compressor: &mut Compressor, dictionaries: &Dictionaries, pages: &[Page]) {
    let mut encoded = Vec::with_capacity(pages.len());
    let mut best = [f64::MAX; 2];
    for round in 0..3 {
        let start = Instant::now();
        for page in pages {
            let done = std::hint::black_box(compressor.compress(page));
            if round == 0 {
                encoded.push((done.tag, done.bytes.to_vec()));
            }
        }
        best[0] = best[0].min(start.elapsed().as_secs_f64());
    }
    let mut decompressor = Decompressor::new();
    let mut out = [0; PAGE_SIZE];
    for _ in 0..3 {
        let start = Instant::now();
        for (tag, bytes) in &encoded {
            decompressor.decompress(*tag, bytes, dictionaries, &mut out).expect("what was just encoded");
        }
        best[1] = best[1].min(start.elapsed().as_secs_f64());
    }
    let total: usize = encoded.iter().map(|(_, bytes)| bytes.len()).sum();
    let count = pages.len() as f64;
    let ratio = count * PAGE_SIZE as f64 / total as f64;
    let [store, load] = best.map(|seconds| seconds * 1e6 / count);
    println!("{name:16} ratio {ratio:5.2}  in {store:5.2} us  out {load:5.2} us a page");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("usage: codecs FILE")?;
    let pages = pages_of(&std::fs::read(&file)?);
    let (measured, rest) = pages.split_at(PAGES.min(pages.len() / 2));
    println!("{file}: {} pages that are no fill pattern, {} measured", pages.len(), measured.len());

    let dictionaries = Dictionaries::default();
    let started = Instant::now();
    let bytes = Dictionary::train(&rest[..Dictionary::SAMPLES.min(rest.len())])?;
    let trained = started.elapsed();
    let dictionary = dictionaries.add(bytes)?;

    measure("lz4", &mut Compressor::new(Method::Lz4, None), &dictionaries, measured);
    for level in [-3, -1, 1] {
        let method = Method::Zstd { level };
        measure(&format!("zstd {level}"), &mut Compressor::new(method, None), &dictionaries, measured);
        let mut with = Compressor::new(method, Some(dictionary));
        measure(&format!("zstd {level} dict"), &mut with, &dictionaries, measured);
    }
    println!("training took {trained:?}");
    Ok(())
}
