//! Measures this machine's disk through a segment store: `throughput [DIR] [MIB]`. Compare with `dd oflag=direct bs=2M`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use vswap_core::SlotId;
use vswap_segment::{
    AlignedBuf, Appended, BLOCK, ClassId, CodecTag, EntryAddr, FileStorage, MAX_ENTRY_BLOCKS, Purpose,
    RunKey, SEGMENT_BYTES, SegmentStore, Storage,
};
use vswap_sys::direct::{DirectFile, DirectWriter, place};

type Failure = Box<dyn std::error::Error>;

fn rate(bytes: u64, since: Instant) -> f64 {
    bytes as f64 / 1e6 / since.elapsed().as_secs_f64()
}

/// Sequential 2 MiB writes of ready buffers: the device and the kernel, nothing of ours.
fn raw(dir: &std::path::Path, bytes: u64, ring: bool, depth: usize) -> Result<(), Failure> {
    let file = Arc::new(DirectFile::create(dir)?);
    file.set_len(bytes)?;
    let mut writer = if ring {
        DirectWriter::new(Arc::clone(&file), depth)
    } else {
        DirectWriter::without_io_uring(Arc::clone(&file), depth)
    };
    let mut spare: Vec<_> = (0..depth).map(|_| AlignedBuf::zeroed(SEGMENT_BYTES)).collect();
    spare.iter_mut().for_each(|buf| buf.fill(0x5a));
    for pass in ["first write", "overwrite"] {
        let start = Instant::now();
        for offset in (0..bytes).step_by(SEGMENT_BYTES) {
            let buf = match spare.pop() {
                Some(buf) => buf,
                None => {
                    let done = writer.wait()?.ok_or("nothing outstanding")?;
                    done.result?;
                    done.buf
                }
            };
            writer.submit(offset, buf, SEGMENT_BYTES, 0).map_err(|(error, _)| error)?;
        }
        while let Some(done) = writer.wait()? {
            done.result?;
            spare.push(done.buf);
        }
        let way = if writer.uses_io_uring() { "io_uring" } else { "pwrite" };
        println!(
            "{pass}, 2 MiB {way} depth {depth}, direct {}: {:.0} MB/s",
            file.is_direct(),
            rate(bytes, start)
        );
    }
    Ok(())
}

fn percentile(sorted: &[u64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize] as f64 / 1e3
}

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map_or_else(place::default_dir, |dir| Ok(PathBuf::from(dir)))?;
    let mib: u64 = args.next().map_or(Ok(1024), |mib| mib.parse())?;
    println!("{}: {} MiB free", dir.display(), place::free_space(&dir)? >> 20);
    for (ring, depth) in [(false, 1), (true, 1), (true, 2), (true, 4)] {
        raw(&dir, mib << 20, ring, depth)?;
    }

    let storage = Arc::new(FileStorage::create(&dir, mib << 20)?);
    let store = SegmentStore::new(Arc::clone(&storage) as Arc<dyn Storage>, RunKey::random());
    let mut writer = store.writer(2);
    let page: Vec<u8> = (0..1365_u32).map(|i| (i * 31 % 251) as u8).collect();
    let mut placed: Vec<(SlotId, EntryAddr)> = Vec::new();
    let (mut number, mut payload, mut spare) = (0_u64, 0_u64, Vec::new());
    let start = Instant::now();
    loop {
        let buf = spare.pop().unwrap_or_else(|| AlignedBuf::zeroed(SEGMENT_BYTES));
        let Ok(mut builder) = store.begin(Purpose::Writeback, ClassId::COMMON, buf) else { break };
        while let Some(slot) = SlotId::new(number)
            && let Appended::At(_) = builder.append(slot, CodecTag { codec: 1, dictionary: 0 }, &page)
        {
            number += 1;
            payload += page.len() as u64;
        }
        writer.submit(builder)?;
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
    let stats = store.stats();
    println!(
        "pack, checksum and write {} entries of 1365 B: {:.0} MB/s of entries; {:.2} % of the file is not payload",
        placed.len(),
        rate(payload, start),
        100.0 - 100.0 * payload as f64 / stats.bytes_written as f64,
    );

    let mut buf = AlignedBuf::zeroed(MAX_ENTRY_BLOCKS * BLOCK);
    let mut times = Vec::new();
    let mut at = 1_usize;
    for _ in 0..20_000 {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (slot, addr) = placed[(at >> 33) % placed.len()];
        let start = Instant::now();
        let entry = store.read_entry(addr, slot, &mut buf)?;
        times.push(start.elapsed().as_nanos() as u64);
        assert_eq!(entry.bytes, page);
    }
    times.sort_unstable();
    println!(
        "random read of one entry: p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us",
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        percentile(&times, 0.999)
    );

    let mut run_buf = AlignedBuf::zeroed(16 * BLOCK);
    let (mut entries, start) = (0, Instant::now());
    let mut next = 0;
    while next < placed.len().min(200_000) {
        let (slot, addr) = placed[next];
        let got = 1 + store.read_run(addr, slot, run_buf.len(), &mut run_buf)?.neighbours().count();
        entries += got;
        next += got;
    }
    println!(
        "in order, 64 KiB runs: {:.2} us an entry",
        start.elapsed().as_secs_f64() * 1e6 / entries as f64
    );

    let start = Instant::now();
    for (_, addr) in &placed {
        store.release(*addr)?;
    }
    println!("release: {:.0} ns an entry", start.elapsed().as_nanos() as f64 / placed.len() as f64);
    let start = Instant::now();
    let given = store.trim(false);
    println!("trim: {} MiB given back in {:.1} ms", given >> 20, start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}
