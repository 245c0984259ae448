//! Writeback and the removal of a tier beside the device: how fast each writes, and what loads take meanwhile.
//!
//! In each of three rounds, one after the other on one file system: the device (2 MiB direct writes, two in flight, of a buffer that is ready; the same
//! while another thread reads 4 KiB at random from it; a copy of as much, read while it is written), writeback of as much from the pool, loads alone,
//! loads beside such writes of the device with nothing of ours, writeback while another thread loads, the removal of a tier with all that is on it to another.
use crate::common::{Chance, Failure, fill, quantile};
use std::ops::ControlFlow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PAGES_PER_CLUSTER, PageIndex, SlotId};
use vswap_engine::{
    CodecChoice, Engine, EngineConfig, LoadedFrom, OwnerBlock, SEGMENT_BYTES, TierConfig, Unreadable,
};
use vswap_segment::AlignedBuf;
use vswap_sys::direct::{DirectFile, DirectWriter};

const ROUNDS: usize = 3;
/// Segments written at a time, as the engine does.
const DEPTH: usize = 2;
/// Bytes of a page that do not compress.
const NOISE: usize = 2048;
/// For how long there are loads alone.
const ALONE: Duration = Duration::from_secs(1);

/// MB a second of the device at `range` of a file, with what `make` puts into each buffer.
fn device(
    file: &Arc<DirectFile>,
    range: Range<u64>,
    mut make: impl FnMut(&mut AlignedBuf) -> Result<(), Failure>,
) -> Result<f64, Failure> {
    let bytes = range.end - range.start;
    let mut writer = DirectWriter::new(Arc::clone(file), DEPTH);
    let mut spare: Vec<AlignedBuf> = (0..DEPTH).map(|_| AlignedBuf::zeroed(SEGMENT_BYTES)).collect();
    spare.iter_mut().for_each(|buf| buf.fill(0x5a));
    let began = Instant::now();
    for offset in range.step_by(SEGMENT_BYTES) {
        let mut buf = match spare.pop() {
            Some(buf) => buf,
            None => {
                let done = writer.wait()?.ok_or("nothing is under way")?;
                done.result?;
                done.buf
            }
        };
        make(&mut buf)?;
        writer.submit(offset, buf, SEGMENT_BYTES, 0).map_err(|(error, _)| error)?;
    }
    while let Some(done) = writer.wait()? {
        done.result?;
    }
    Ok(rate(bytes, began))
}

/// Times in ns of 4 KiB reads at random until told to stop.
fn device_reads(file: &DirectFile, bytes: u64, stop: &AtomicBool) -> Result<Vec<u64>, String> {
    let (mut buf, mut chance, mut times) = (AlignedBuf::zeroed(PAGE_SIZE), Chance::new(17), Vec::new());
    // Relaxed: nothing is read on the strength of it.
    while !stop.load(Ordering::Relaxed) {
        let offset = chance.below((bytes / PAGE_SIZE as u64) as usize) * PAGE_SIZE;
        let began = Instant::now();
        file.read_at(offset as u64, &mut buf).map_err(|error| error.to_string())?;
        times.push(began.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    Ok(times)
}

/// What `act` gives, and what `other`, which is told when to stop, gives meanwhile.
fn beside<T, R: Send>(
    other: impl FnOnce(&AtomicBool) -> Result<R, String> + Send,
    act: impl FnOnce() -> Result<T, Failure>,
) -> Result<(T, R), Failure> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| other(&stop));
        let done = act();
        stop.store(true, Ordering::Relaxed);
        let there = other.join().map_err(|_| "the other thread ended badly")??;
        Ok((done?, there))
    })
}

fn rest() -> Result<(), Failure> {
    std::thread::sleep(ALONE);
    Ok(())
}

/// What the device does by itself.
struct Device {
    /// MB a second.
    write: f64,
    write_with_reads: f64,
    copy: f64,
    /// Of its reads, ns.
    alone: Vec<u64>,
    meanwhile: Vec<u64>,
}

impl Device {
    fn measure(dir: &Path, bytes: u64) -> Result<Self, Failure> {
        let as_it_is = |_: &mut AlignedBuf| Ok(());
        // One file, as a tier is: while it is read, it is written in smaller pieces.
        let file = Arc::new(DirectFile::create(dir)?);
        file.set_len(2 * bytes)?;
        let write = device(&file, 0..bytes, as_it_is)?;
        let reads = |stop: &AtomicBool| device_reads(&file, bytes, stop);
        let ((), alone) = beside(reads, rest)?;
        let (write_with_reads, meanwhile) = beside(reads, || device(&file, bytes..2 * bytes, as_it_is))?;
        let copied = Arc::new(DirectFile::create(dir)?);
        copied.set_len(bytes)?;
        let ((full, ready), (used, empty)) = (channel(), channel());
        (0..DEPTH).try_for_each(|_| used.send(AlignedBuf::zeroed(SEGMENT_BYTES)))?;
        let from = &file;
        // Whichever of the two ends first, the other one's channel ends with it.
        let read = move |_: &AtomicBool| {
            for offset in (0..bytes).step_by(SEGMENT_BYTES) {
                let Ok(mut buf) = empty.recv() else { break };
                from.read_at(offset, &mut buf).map_err(|error| error.to_string())?;
                if full.send(buf).is_err() {
                    break;
                }
            }
            Ok(())
        };
        let (copy, ()) = beside(read, move || {
            device(&copied, 0..bytes, |buf| {
                let _ = used.send(std::mem::replace(buf, ready.recv()?));
                Ok(())
            })
        })?;
        Ok(Self { write, write_with_reads, copy, alone, meanwhile })
    }
}

/// The device's writes to a file of their own, for as long as they take; MB a second.
fn write_plainly(dir: &Path, bytes: u64) -> Result<f64, Failure> {
    let file = Arc::new(DirectFile::create(dir)?);
    file.set_len(bytes)?;
    device(&file, 0..bytes, |_| Ok(()))
}

fn rate(bytes: u64, since: Instant) -> f64 {
    bytes as f64 / 1e6 / since.elapsed().as_secs_f64()
}

struct Pages {
    engine: Arc<Engine>,
    blocks: Vec<OwnerBlock>,
    slots: Vec<SlotId>,
}

impl Pages {
    fn new(dir: &Path, count: usize) -> Result<Self, Failure> {
        let room = ByteCount::new((count * (NOISE + 256)) as u64 + (64 << 20));
        let tiers = vec![TierConfig::new(dir, room)];
        let engine = Engine::new(EngineConfig { codec: CodecChoice::Lz4, tiers, ..EngineConfig::default() })?;
        let (mut blocks, mut slots): (Vec<OwnerBlock>, _) = (Vec::new(), Vec::new());
        for number in 0..count {
            if number % PAGES_PER_CLUSTER == 0 {
                blocks.push(engine.owner_block(GroupId::ROOT)?);
            }
            let index = PageIndex::of_addr((number * PAGE_SIZE) as u64);
            slots.push(blocks[number / PAGES_PER_CLUSTER].slot_for_store(&engine, index)?);
        }
        Ok(Self { engine, blocks, slots })
    }

    fn store(&self, from: usize, to: usize) -> Result<(), Failure> {
        let (mut page, mut scratch) = ([0; PAGE_SIZE], self.engine.scratch());
        for at in from..to {
            fill(&mut page, NOISE, at as u64);
            self.engine.store(self.slots[at], &page, &mut scratch)?;
        }
        Ok(())
    }

    /// Writes all back; MB a second of what the device was given.
    fn write_back(&self) -> Result<f64, Failure> {
        let mut scratch = self.engine.scratch();
        let began = Instant::now();
        let report = self.engine.writeback(self.engine.pool_payload(), &mut scratch)?;
        if report.disk_full {
            return Err("the tier is full".into());
        }
        Ok(rate(report.written.get(), began))
    }

    /// Loads at random until told to stop; times in ns, from the pool and from the disk.
    fn load(&self, stop: &AtomicBool) -> Result<[Vec<u64>; 2], String> {
        let (mut page, mut scratch) = ([0; PAGE_SIZE], self.engine.scratch());
        let (mut chance, mut times) = (Chance::new(11), [Vec::new(), Vec::new()]);
        // Relaxed: nothing is read on the strength of it.
        while !stop.load(Ordering::Relaxed) {
            let slot = self.slots[chance.below(self.slots.len())];
            let began = Instant::now();
            let from = self.engine.load(slot, &mut page, &mut scratch).map_err(|error| error.to_string())?;
            times[usize::from(from == LoadedFrom::Segment)].push(began.elapsed().as_nanos() as u64);
        }
        times.iter_mut().for_each(|times| times.sort_unstable());
        Ok(times)
    }

    /// What `act` gives, and loads while it lasts.
    fn while_loading<T>(
        &self,
        act: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<(T, [Vec<u64>; 2]), Failure> {
        beside(|stop| self.load(stop), act)
    }
}

pub fn run(dir: &Path, mib: usize) -> Result<(), Failure> {
    let count = (mib << 20) / NOISE;
    for _ in 0..ROUNDS {
        let device = Device::measure(dir, (mib as u64) << 20)?;
        let pages = Pages::new(dir, count)?;
        pages.store(0, count)?;
        let quiet = pages.write_back()?;
        // Half of them anew: loads are from both.
        pages.store(0, count / 2)?;
        let ((), alone) = pages.while_loading(rest)?;
        let (_, beside) = pages.while_loading(|| write_plainly(dir, (mib as u64) << 20))?;
        let (busy, meanwhile) = pages.while_loading(|| pages.write_back())?;
        let size = ByteCount::new((count * (NOISE + 256)) as u64 + (64 << 20));
        pages.engine.add_tier(&TierConfig { priority: -1, ..TierConfig::new(dir, size) })?;
        let tier = pages.engine.tiers().swap_remove(0);
        let began = Instant::now();
        let emptied =
            pages.engine.remove_tier(tier.id, Unreadable::Keep, &mut |_| ControlFlow::Continue(()))?;
        let removal = rate(emptied.bytes.get(), began);
        let us = |times: &[u64], part| quantile(times, part) as f64 / 1e3;
        println!(
            "{{\"part\":\"demotion\",\"mib\":{mib},\"device\":{:.0},\"device_with_reads\":{:.0},\"device_copy\":{:.0},\
             \"device_p99\":{:.1},\"device_p99_meanwhile\":{:.1},\"writeback\":{quiet:.0},\"writeback_with_loads\":{busy:.0},\
             \"removal\":{removal:.0},\"pool_p99\":{:.1},\"pool_p99_meanwhile\":{:.1},\"pool_p99_beside_device\":{:.1},\
             \"disk_p99\":{:.1},\"disk_p99_meanwhile\":{:.1},\"disk_p99_beside_device\":{:.1},\
             \"loads_meanwhile\":[{},{}]}}",
            device.write,
            device.write_with_reads,
            device.copy,
            us(&device.alone, 0.99),
            us(&device.meanwhile, 0.99),
            us(&alone[0], 0.99),
            us(&meanwhile[0], 0.99),
            us(&beside[0], 0.99),
            us(&alone[1], 0.99),
            us(&meanwhile[1], 0.99),
            us(&beside[1], 0.99),
            meanwhile[0].len(),
            meanwhile[1].len()
        );
        let Pages { engine, blocks, .. } = pages;
        blocks.into_iter().for_each(|block| block.dispose(&engine));
    }
    Ok(())
}
