//! The contestant of this tree: a store of named objects.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
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

/// A quarter for the index's pages, the rest for the pool.
pub fn config(memory: usize) -> StoreConfig {
    let index_cache = memory / 4;
    let pool_limit = Some(ByteCount::new((memory - index_cache) as u64));
    StoreConfig { engine: EngineConfig { pool_limit, ..EngineConfig::default() }, index_cache }
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
        ensure!(read.missing.is_empty(), "bytes {:?} are missing", read.missing);
        Ok(Some(&self.bytes[..read.len]))
    }

    fn found(&self, _gets: u64, size: usize) -> Result<Found> {
        let stats = self.store.engine().stats();
        let gets = |pages: u64| pages as f64 / (size as u64).div_ceil(PAGE) as f64;
        Ok(Found { memory: gets(stats.loaded_pool + stats.loaded_fill), disk: gets(stats.loaded_segment) })
    }

    fn close(self) -> Result<()> {
        Ok(self.store.sync()?)
    }
}
