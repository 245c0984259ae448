//! The contestant of this tree: a store of named objects.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use vswap_core::ByteCount;
use vswap_engine::EngineConfig;
use vswap_objects::{Store, StoreConfig};

use crate::contestant::{Budget, Contestant, Found, Open};

const VOLUME: &[u8] = b"bench";
const PAGE: u64 = 4096;

pub struct Objects {
    store: Arc<Store>,
    bytes: Vec<u8>,
}

/// An eighth for the index, as much for the pool, which has what is not committed yet, and the rest for pages that are read often.
pub fn config(memory: usize) -> StoreConfig {
    let index_cache = memory / 8;
    let pool_limit = Some(ByteCount::new(index_cache as u64));
    let engine = EngineConfig { pool_limit, ..EngineConfig::default() };
    StoreConfig { engine, index_cache, page_cache: memory - 2 * index_cache, ..StoreConfig::default() }
}

impl Objects {
    pub fn open(dir: &Path, budget: Budget, how: Open) -> Result<Self> {
        let config = config(budget.memory);
        let store = match how {
            Open::Fresh => Store::create(dir, budget.disk, &config)?,
            Open::Found => Store::open(dir, &config)?,
        };
        Ok(Self { store, bytes: Vec::new() })
    }
}

impl Contestant for Objects {
    type Got<'c> = &'c [u8];

    fn put(&mut self, number: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.store.object(VOLUME, &number.to_be_bytes(), 1)?.write(0, bytes)?)
    }

    fn sync(&mut self) -> Result<()> {
        self.store.sync()?;
        // As a program's own thread would, at leisure.
        self.store.engine().maintain(false);
        Ok(())
    }

    fn get(&mut self, number: u64, size: usize) -> Result<Option<&[u8]>> {
        let Some(object) = self.store.find(VOLUME, &number.to_be_bytes())? else { return Ok(None) };
        self.bytes.resize(size, 0);
        let read = object.read(0, &mut self.bytes)?;
        // It may have been given up.
        Ok(read.missing.is_empty().then_some(&self.bytes[..read.len]))
    }

    fn found(&self, gets: u64, size: usize) -> Result<Found> {
        let stats = self.store.engine().stats();
        let disk = stats.loaded_segment as f64 / (size as u64).div_ceil(PAGE) as f64;
        Ok(Found { memory: (gets as f64 - disk).max(0.0), disk })
    }

    fn close(self) -> Result<()> {
        Ok(self.store.sync()?)
    }
}
