//! One long object, written and read from its beginning to its end, and a plain file beside it.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use serde_json::{Value, json};
use vswap_objects::Store;

use crate::device;
use crate::payload::{Check, fill};
use crate::store::config;

const MIB: usize = 1 << 20;
/// Bytes that are written between two syncs.
const SYNC_EVERY: u64 = 64 << 20;
const MEMORY: usize = 64 << 20;

#[derive(Subcommand)]
pub enum Act {
    /// Writes the object.
    Write { dir: PathBuf, bytes: u64 },
    /// Reads it.
    Read { dir: PathBuf, bytes: u64 },
    /// Writes the file.
    WriteFile { dir: PathBuf, bytes: u64 },
    /// Reads it.
    ReadFile { dir: PathBuf, bytes: u64 },
}

pub fn run(act: &Act) -> Result<Value> {
    let rate = match act {
        Act::Write { dir, bytes } => write(dir, *bytes)?,
        Act::Read { dir, bytes } => read(dir, *bytes)?,
        Act::WriteFile { dir, bytes } => device::write(&dir.join("long"), *bytes)?,
        Act::ReadFile { dir, bytes } => device::read(&dir.join("long"), *bytes)?,
    };
    Ok(json!({ "long": { "mb_per_s": rate } }))
}

fn write(dir: &std::path::Path, bytes: u64) -> Result<f64> {
    let store = Store::create(&dir.join("store"), bytes * 2 + (256 << 20), &config(MEMORY))?;
    let object = store.object(b"bench", b"long", 1)?;
    let (mut buf, begin) = (vec![0; MIB], Instant::now());
    for at in (0..bytes).step_by(MIB) {
        fill(at, &mut buf);
        object.write(at, &buf)?;
        if (at + MIB as u64).is_multiple_of(SYNC_EVERY) {
            store.sync()?;
        }
    }
    store.sync()?;
    Ok(bytes as f64 / 1e6 / begin.elapsed().as_secs_f64())
}

/// Only the reads are timed, not the look at what they gave.
fn read(dir: &std::path::Path, bytes: u64) -> Result<f64> {
    let store = Store::open(&dir.join("store"), &config(MEMORY))?;
    let object = store.find(b"bench", b"long")?.context("the object is not there")?;
    let (mut buf, mut check, mut seconds) = (vec![0; MIB], Check::new(MIB), 0.0);
    for at in (0..bytes).step_by(MIB) {
        let begin = Instant::now();
        let read = object.read(at, &mut buf)?;
        seconds += begin.elapsed().as_secs_f64();
        ensure!(read.missing.is_empty(), "bytes {:?} are missing", read.missing);
        check.check(at, &buf[..read.len])?;
    }
    Ok(bytes as f64 / 1e6 / seconds)
}
