//! What encryption costs, with and without it in turns in one run: `encryption [DIR] [MIB]`.
//!
//! In memory: sealing and copying a segment, and opening its entries, per page. On the disk of DIR: writing segments, and reading one entry.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use vswap_core::SlotId;
use vswap_segment::{
    AlignedBuf, Appended, BLOCK, ClassId, CodecTag, EntryAddr, FileStorage, Keys, MAX_ENTRY_BLOCKS, Purpose,
    SEGMENT_BYTES, SegmentStore, Storage, SyncQueue, WriteQueue,
};
use vswap_sys::direct::place;

type Failure = Box<dyn std::error::Error>;

/// One segment of memory.
#[derive(Debug)]
struct Memory(std::sync::Mutex<Vec<u8>>);

impl Storage for Memory {
    fn capacity(&self) -> u64 {
        SEGMENT_BYTES as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.0.lock().expect("nobody panics with it");
        into.copy_from_slice(&bytes[offset as usize..][..into.len()]);
        Ok(into.len())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> std::io::Result<()> {
        self.0.lock().expect("nobody panics with it")[offset as usize..][..from.len()].copy_from_slice(from);
        Ok(())
    }

    fn punch(&self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(SyncQueue::new(self, depth))
    }
}

/// Where each slot's entry is.
type Places = Vec<(SlotId, EntryAddr)>;

/// Writes segments until the tier is full, or so many; gives where entries are, and nanoseconds an entry: for all of it, and for the quickest handing over of
/// a segment, which seals (and, in memory, copies) it and is too short to be interrupted each time.
fn fill(store: &Arc<SegmentStore>, page: &[u8]) -> Result<(Places, [f64; 2]), Failure> {
    let mut writer = store.writer(2);
    let (mut placed, mut spare) = (Vec::new(), Vec::new());
    let (start, mut sealing) = (Instant::now(), f64::MAX);
    loop {
        let buf = spare.pop().unwrap_or_else(|| AlignedBuf::zeroed(SEGMENT_BYTES));
        let Ok(mut builder) = store.begin(Purpose::Writeback, ClassId::COMMON, buf) else { break };
        for slot in (0..).map_while(SlotId::new) {
            let Appended::At(_) = builder.append(slot, CodecTag { codec: 1, dictionary: 0 }, page) else {
                break;
            };
        }
        let (entries, clock) = (builder.len() as f64, Instant::now());
        writer.submit(builder)?;
        sealing = sealing.min(clock.elapsed().as_nanos() as f64 / entries);
        while writer.outstanding() >= 2 {
            let Some(written) = writer.wait()? else { break };
            placed.extend(written.entries());
            written.result?;
            spare.push(written.buf);
        }
    }
    while let Some(written) = writer.wait()? {
        placed.extend(written.entries());
        written.result?;
    }
    let whole = start.elapsed().as_nanos() as f64 / placed.len() as f64;
    Ok((placed, [whole, sealing]))
}

/// Reads `count` entries at random; the median in nanoseconds.
fn read(store: &SegmentStore, placed: &[(SlotId, EntryAddr)], count: usize) -> Result<f64, Failure> {
    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    let mut times = Vec::with_capacity(count);
    let mut at = 1_usize;
    for _ in 0..count {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (slot, addr) = placed[(at >> 33) % placed.len()];
        let start = Instant::now();
        black_box(store.read_entry(addr, slot, &mut buf)?);
        times.push(start.elapsed().as_nanos() as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(place::default_dir, |dir| Ok(PathBuf::from(dir)))?;
    let mib: u64 = args.next().map_or(Ok(512), |mib| mib.parse())?;
    for (what, rounds) in [("memory", 40), ("disk", 3)] {
        for len in [1365, 4096] {
            let page: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
            // The least of several rounds, in turns: others use the machine as well.
            let mut best = [[f64::MAX; 2]; 2];
            for _ in 0..rounds {
                for encrypt in [false, true] {
                    let storage: Arc<dyn Storage> = match what {
                        "memory" => Arc::new(Memory(vec![0; SEGMENT_BYTES].into())),
                        _ => Arc::new(FileStorage::create(&dir, mib << 20)?),
                    };
                    let store = SegmentStore::new(storage, Keys::random(encrypt)?);
                    let (placed, [whole, sealing]) = fill(&store, &page)?;
                    let write = if what == "memory" { sealing } else { whole };
                    let best = &mut best[usize::from(encrypt)];
                    *best = [best[0].min(write), best[1].min(read(&store, &placed, 4000)?)];
                }
            }
            let [[write, read], [write_on, read_on]] = best;
            println!(
                "{what}, entries of {len} B: {} {write:.0} -> {write_on:.0} ns a page ({:.2} times), read {read:.0} -> {read_on:.0} ns ({:.2} times)",
                if what == "memory" { "seal and copy" } else { "write" },
                write_on / write,
                read_on / read
            );
        }
    }
    Ok(())
}
