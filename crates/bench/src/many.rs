//! A store of very many objects of one page each: what it takes to make, to open, to keep in memory and to end them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use serde_json::{Value, json};
use vswap_objects::{Store, StoreConfig};

use crate::payload::{Check, fill};
use crate::process;

const VOLUME: &[u8] = b"server/share";
const PAGE: usize = 4096;
const SYNC_EVERY: u64 = 4096;
/// Objects that are looked at after an opening.
const LOOKED_AT: u64 = 100;

#[derive(Subcommand)]
pub enum Act {
    /// Makes them.
    Create { dir: PathBuf, objects: u64 },
    /// Opens the store and says what it takes.
    Open { dir: PathBuf, objects: u64 },
    /// Opens the store, writes to an object and waits to be killed.
    Hold { dir: PathBuf },
    /// Ends them all.
    Invalidate { dir: PathBuf, objects: u64 },
}

pub fn run(act: &Act) -> Result<Value> {
    let said = match act {
        Act::Create { dir, objects } => create(dir, *objects)?,
        Act::Open { dir, objects } => open(dir, *objects)?,
        Act::Hold { dir } => hold(dir)?,
        Act::Invalidate { dir, objects } => invalidate(dir, *objects)?,
    };
    Ok(json!({ "many": said }))
}

fn key(number: u64) -> String {
    format!("dir/{number:012}")
}

fn create(dir: &Path, objects: u64) -> Result<Value> {
    let bytes = objects * 2 * PAGE as u64 + (256 << 20);
    let begin = Instant::now();
    let store = Store::create(dir, bytes, &StoreConfig::default())?;
    let mut page = [0; PAGE];
    for number in 0..objects {
        fill(number, &mut page);
        store.object(VOLUME, key(number).as_bytes(), 1)?.write(0, &page)?;
        if (number + 1).is_multiple_of(SYNC_EVERY) {
            store.sync()?;
        }
    }
    store.sync()?;
    Ok(json!({ "create_s": begin.elapsed().as_secs_f64() }))
}

fn opened(dir: &Path) -> Result<(Arc<Store>, f64)> {
    let begin = Instant::now();
    let store = Store::open(dir, &StoreConfig::default())?;
    Ok((store, begin.elapsed().as_secs_f64()))
}

fn open(dir: &Path, objects: u64) -> Result<Value> {
    let (store, seconds) = opened(dir)?;
    let resident = process::resident()?;
    let metadata = store.engine().stats().metadata_bytes.get();
    let (mut page, mut check) = ([0; PAGE], Check::new(PAGE));
    for number in (0..objects).step_by((objects / LOOKED_AT).max(1) as usize) {
        let object = store.find(VOLUME, key(number).as_bytes())?.context("an object is not there")?;
        let read = object.read(0, &mut page)?;
        ensure!(read.missing.is_empty(), "object {number} has lost bytes");
        check.check(number, &page[..read.len])?;
    }
    Ok(json!({ "open_s": seconds, "resident": resident, "metadata": metadata }))
}

fn hold(dir: &Path) -> Result<Value> {
    let (store, _) = opened(dir)?;
    store.object(b"other", b"not synced", 1)?.write(0, b"gone")?;
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    loop {
        std::thread::park();
    }
}

fn invalidate(dir: &Path, objects: u64) -> Result<Value> {
    let (store, _) = opened(dir)?;
    let begin = Instant::now();
    store.invalidate(VOLUME, b"dir/")?;
    let call = begin.elapsed().as_secs_f64();
    ensure!(store.find(VOLUME, key(0).as_bytes())?.is_none(), "an object is there still");
    let begin = Instant::now();
    store.sync()?;
    let first = begin.elapsed().as_secs_f64();
    // Some end at each commit.
    let (mut syncs, begin) = (1_u64, Instant::now());
    while store.engine().stats().clusters > 1 && syncs < objects / 1000 + 10 {
        store.sync()?;
        syncs += 1;
    }
    let rest = begin.elapsed().as_secs_f64();
    let left = store.engine().stats().clusters;
    Ok(
        json!({ "call_ms": call * 1e3, "sync_s": first, "rest_s": rest, "syncs": syncs, "clusters_left": left }),
    )
}
