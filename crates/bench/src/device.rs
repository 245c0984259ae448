//! What the device does by itself: direct I/O on a plain file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use serde_json::{Value, json};

use crate::latency::Latencies;
use crate::payload::{Random, fill};

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
/// Reads of one block.
const SMALL_READS: usize = 4000;

/// Bytes as direct I/O wants them.
struct Aligned {
    bytes: Vec<u8>,
    from: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        let bytes = vec![0_u8; length + BLOCK];
        let from = bytes.as_ptr().align_offset(BLOCK);
        Self { bytes, from }
    }

    fn get(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + length]
    }
}

fn open(path: &Path, options: &mut OpenOptions) -> Result<File> {
    let direct = options.custom_flags(OFlags::DIRECT.bits().cast_signed());
    direct.open(path).with_context(|| format!("cannot open {} for direct I/O", path.display()))
}

/// Writes a file, reads it once through and here and there, and removes it.
pub fn measure(dir: &Path, bytes: u64) -> Result<Value> {
    let path = dir.join("device");
    let (written, read) = (write(&path, bytes)?, read(&path, bytes)?);
    let (file, mut buf) = (open(&path, OpenOptions::new().read(true))?, Aligned::new(BLOCK));
    let (mut random, mut latencies) = (Random::new(5), Latencies::default());
    for _ in 0..SMALL_READS {
        let at = random.draw() % (bytes / BLOCK as u64) * BLOCK as u64;
        let begin = Instant::now();
        file.read_exact_at(buf.get(BLOCK), at)?;
        latencies.add(begin.elapsed());
    }
    let small = latencies.say(BLOCK);
    let flush = flushes(&path)?;
    std::fs::remove_file(&path)?;
    Ok(json!({ "device": {
        "write_mb_per_s": written, "read_mb_per_s": read, "read_4k_per_s": small["gets_per_s"],
        "read_4k_p50_us": small["p50_us"], "read_4k_p99_us": small["p99_us"], "write_4k_sync_us": flush,
    }}))
}

/// Writes so many bytes, a MiB at a time, and syncs. Gives MB/s.
pub fn write(path: &Path, bytes: u64) -> Result<f64> {
    let file = open(path, OpenOptions::new().write(true).create(true).truncate(true))?;
    let mut buf = Aligned::new(MIB);
    fill(0, buf.get(MIB));
    let begin = Instant::now();
    for at in (0..bytes).step_by(MIB) {
        file.write_all_at(buf.get(MIB), at)?;
    }
    file.sync_all()?;
    Ok(bytes as f64 / 1e6 / begin.elapsed().as_secs_f64())
}

/// Reads so many bytes, a MiB at a time. Gives MB/s.
pub fn read(path: &Path, bytes: u64) -> Result<f64> {
    let (file, mut buf) = (open(path, OpenOptions::new().read(true))?, Aligned::new(MIB));
    let begin = Instant::now();
    for at in (0..bytes).step_by(MIB) {
        file.read_exact_at(buf.get(MIB), at)?;
    }
    Ok(bytes as f64 / 1e6 / begin.elapsed().as_secs_f64())
}

/// Microseconds, in the middle, of a block that is written in place and synced.
fn flushes(path: &Path) -> Result<Value> {
    let (file, mut buf) = (open(path, OpenOptions::new().write(true))?, Aligned::new(BLOCK));
    let mut latencies = Latencies::default();
    for at in 0..100 {
        let begin = Instant::now();
        file.write_all_at(buf.get(BLOCK), at * BLOCK as u64)?;
        file.sync_data()?;
        latencies.add(begin.elapsed());
    }
    Ok(latencies.say(BLOCK)["p50_us"].clone())
}
