//! foyer's hybrid cache: memory, and below it blocks in files.
//!
//! Written on insertion, so that a sync has the same to do as the others'; compressed (lz4), as the store is; direct I/O, so that no page cache adds to its memory; one
//! shard, since there is one client. Its sync waits until its queue is empty. It never syncs a file: what it says is less than what the others say.

use std::path::Path;

use anyhow::{Result, anyhow};
use foyer::{
    BlockEngineConfig, Compression, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCacheEntry, HybridCachePolicy, PsyncIoEngineConfig, Source,
};
use tokio::runtime::{Builder, Runtime};

use crate::contestant::{Budget, Contestant, Found};

/// More waits to be written than is put between two syncs: beyond that, it drops what is put.
const QUEUE: usize = 64 << 20;

pub struct Foyer {
    runtime: Runtime,
    cache: HybridCache<u64, Vec<u8>>,
    found: Found,
}

/// An object as foyer has it: not copied.
pub struct Entry(HybridCacheEntry<u64, Vec<u8>>);

impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}

impl Foyer {
    pub fn open(dir: &Path, budget: Budget) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let cache = runtime.block_on(async {
            let device =
                FsDeviceBuilder::new(dir).with_capacity(budget.disk as usize).with_direct(true).build()?;
            HybridCacheBuilder::new()
                .with_policy(HybridCachePolicy::WriteOnInsertion)
                .memory(budget.memory)
                .with_shards(1)
                .with_weighter(|_, value: &Vec<u8>| value.len())
                .storage()
                .with_io_engine_config(PsyncIoEngineConfig::new())
                .with_engine_config(BlockEngineConfig::new(device).with_submit_queue_size_threshold(QUEUE))
                .with_compression(Compression::Lz4)
                .build()
                .await
        })?;
        Ok(Self { runtime, cache, found: Found::default() })
    }
}

impl Contestant for Foyer {
    type Got<'c> = Entry;

    fn put(&mut self, number: u64, bytes: &[u8]) -> Result<()> {
        let _runtime = self.runtime.enter();
        self.cache.insert(number, bytes.to_vec());
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.runtime.block_on(self.cache.storage().wait());
        Ok(())
    }

    fn get(&mut self, number: u64, _size: usize) -> Result<Option<Entry>> {
        let asked = {
            let _runtime = self.runtime.enter();
            self.cache.get(&number)
        };
        let entry = match asked.try_unwrap() {
            Ok(entry) => Some(entry),
            Err(asked) => self.runtime.block_on(asked).map_err(|error| anyhow!("{error}"))?,
        };
        match entry.as_ref().map(HybridCacheEntry::source) {
            Some(Source::Memory) => self.found.memory += 1.0,
            Some(_) => self.found.disk += 1.0,
            None => {}
        }
        Ok(entry.map(Entry))
    }

    fn found(&self, _gets: u64, _size: usize) -> Result<Found> {
        Ok(self.found)
    }

    fn close(self) -> Result<()> {
        Ok(self.runtime.block_on(self.cache.close())?)
    }
}
