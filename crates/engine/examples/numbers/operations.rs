//! Look-up, store and load at 1 and 2 threads, without a tier. Threads work on slots of the same clusters, taken in turn; at two threads
//! both load the same slots. What the codec takes alone is measured beside, in the same rounds; medians of the rounds.
use crate::common::{Chance, Failure, quantile};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};
use vswap_codec::{Compressor, Decompressor, Dictionaries, Method};
use vswap_core::{GroupId, PAGE_SIZE, PAGES_PER_CLUSTER, Page, PageIndex, SlotId};
use vswap_engine::{BackingKind, CodecChoice, Engine, EngineConfig, Scratch};

/// 64 MiB of pages.
const PAGES: usize = 16_384;
/// Different pages among them.
const CONTENTS: usize = 256;
const ROUNDS: u32 = 7;

#[derive(Clone, Copy)]
enum Act {
    LookUp,
    Compress,
    Store,
    Decompress,
    Load,
}

const ACTS: [(Act, &str); 5] = [
    (Act::LookUp, "look_up"),
    (Act::Compress, "compress"),
    (Act::Store, "store"),
    (Act::Decompress, "decompress"),
    (Act::Load, "load"),
];

/// A page as heaps have them: pointers near each other, small numbers, some noise.
fn heap_like(seed: usize) -> Page {
    let mut chance = Chance::new(seed as u64);
    let mut page = [0; PAGE_SIZE];
    for (at, word) in page.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let random = chance.next();
        let value = match at % 4 {
            0 => 0x7f3a_1000_0000 | random & 0xfff8,
            1 => random & 0xff,
            2 => 0,
            _ => random & 0xffff_ffff,
        };
        *word = value.to_le_bytes();
    }
    page
}

struct Bench<'a> {
    engine: &'a Engine,
    slots: &'a [SlotId],
    pages: &'a [Page],
    encoded: Vec<(vswap_codec::CodecTag, Vec<u8>)>,
}

impl Bench<'_> {
    /// Nanoseconds that one act takes, of a thread that has every `of`-th slot.
    fn measure(&self, act: Act, thread: usize, of: usize, time: Duration) -> Result<f64, String> {
        let mut own = (self.engine.scratch(), Compressor::new(Method::Lz4, None), Decompressor::new());
        let known = Dictionaries::default();
        let (mut page, mut chance) = ([0; PAGE_SIZE], Chance::new(thread as u64));
        let (began, mut done) = (Instant::now(), 0_u64);
        while began.elapsed() < time {
            for _ in 0..256 {
                let at = chance.below(PAGES / of) * of + thread;
                self.once(act, at, &mut own, &known, &mut page)?;
            }
            done += 256;
        }
        Ok(began.elapsed().as_secs_f64() * 1e9 / done as f64)
    }

    fn once(
        &self,
        act: Act,
        at: usize,
        (scratch, compressor, decompressor): &mut (Scratch, Compressor, Decompressor),
        known: &Dictionaries,
        page: &mut Page,
    ) -> Result<(), String> {
        match act {
            Act::LookUp => {
                if black_box(self.engine.backing(self.slots[at])) != BackingKind::Pool {
                    return Err("a page is not in the pool".into());
                }
            }
            Act::Compress => {
                black_box(compressor.compress(&self.pages[at % CONTENTS]).bytes);
            }
            Act::Store => {
                let stored = self.engine.store(self.slots[at], &self.pages[at % CONTENTS], scratch);
                stored.map_err(|error| error.to_string())?;
            }
            Act::Decompress => {
                let (tag, bytes) = &self.encoded[at % CONTENTS];
                decompressor.decompress(*tag, bytes, known, page).map_err(|error| error.to_string())?;
            }
            // The even ones, whatever the thread: two load the same.
            Act::Load => {
                let slot = self.slots[at / 2 * 2];
                self.engine.load(slot, page, scratch).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Nanoseconds an act of each thread, all of them at it.
    fn together(&self, act: Act, threads: usize, time: Duration) -> Result<f64, String> {
        let start = Barrier::new(threads);
        let each: Vec<Result<f64, String>> = std::thread::scope(|scope| {
            let run = |thread| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    self.measure(act, thread, threads, time)
                })
            };
            let running: Vec<_> = (0..threads).map(run).collect();
            running
                .into_iter()
                .map(|thread| thread.join().map_err(|_| "a thread ended badly".to_owned())?)
                .collect()
        });
        let rates: f64 = each.into_iter().map(|ns| ns.map(|ns| 1.0 / ns)).sum::<Result<f64, String>>()?;
        Ok(threads as f64 / rates)
    }
}

pub fn run(seconds: f64) -> Result<(), Failure> {
    let engine = Engine::new(EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() })?;
    let pages: Vec<Page> = (0..CONTENTS).map(heap_like).collect();
    let mut scratch = engine.scratch();
    let (mut blocks, mut slots) = (Vec::new(), Vec::new());
    for number in 0..PAGES {
        if number % PAGES_PER_CLUSTER == 0 {
            blocks.push(engine.owner_block(GroupId::ROOT)?);
        }
        let index = PageIndex::of_addr((number * PAGE_SIZE) as u64);
        let slot = blocks[number / PAGES_PER_CLUSTER].slot_for_store(&engine, index)?;
        engine.store(slot, &pages[number % CONTENTS], &mut scratch)?;
        slots.push(slot);
    }
    let mut compressor = Compressor::new(Method::Lz4, None);
    let encode = |page| {
        let encoded = compressor.compress(page);
        (encoded.tag, encoded.bytes.to_vec())
    };
    let encoded = pages.iter().map(encode).collect();
    let bench = Bench { engine: &engine, slots: &slots, pages: &pages, encoded };
    let kinds = ACTS.len() * 2;
    let time = Duration::from_secs_f64(seconds / f64::from(ROUNDS) / kinds as f64);
    let mut found: Vec<Vec<u64>> = vec![Vec::new(); kinds];
    for _ in 0..ROUNDS {
        for (at, (act, _)) in ACTS.iter().enumerate() {
            for threads in [1, 2] {
                // In picoseconds, to sort them.
                found[at * 2 + threads - 1].push((bench.together(*act, threads, time)? * 1e3) as u64);
            }
        }
    }
    for (at, (_, name)) in ACTS.iter().enumerate() {
        let median = |sorted: &mut Vec<u64>| {
            sorted.sort_unstable();
            quantile(sorted, 0.5) as f64 / 1e3
        };
        let (one, two) = (median(&mut found[at * 2]), median(&mut found[at * 2 + 1]));
        println!(
            "{{\"part\":\"operations\",\"act\":\"{name}\",\"ns_1\":{one:.1},\"ns_2\":{two:.1},\"scaling\":{:.3}}}",
            2.0 * one / two
        );
    }
    blocks.into_iter().for_each(|block| block.dispose(&engine));
    Ok(())
}
