//! What several parts need: chance, pages, a tier in memory and one that keeps nothing.
use std::io;
use std::sync::Arc;
use std::sync::RwLock;
use vswap_core::{PAGE_SIZE, Page};
use vswap_segment::{Storage, SyncQueue, WriteQueue};

pub type Failure = Box<dyn std::error::Error>;

/// A generator that is quick and the same in every run (splitmix64).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, which is below 2^32.
    pub fn below(&mut self, end: usize) -> usize {
        (((self.next() >> 32) * end as u64) >> 32) as usize
    }

    /// From 0 up to but not 1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Fills the first `noise` bytes with what no codec makes shorter, the rest with zeroes.
pub fn fill(page: &mut Page, noise: usize, seed: u64) {
    let mut chance = Chance::new(seed);
    for part in page[..noise].chunks_mut(8) {
        part.copy_from_slice(&chance.next().to_le_bytes()[..part.len()]);
    }
    page[noise..PAGE_SIZE].fill(0);
}

/// A tier in memory.
#[derive(Debug)]
pub struct InMemory(RwLock<Vec<u8>>);

impl InMemory {
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self(RwLock::new(vec![0; bytes])))
    }
}

impl Storage for InMemory {
    fn capacity(&self) -> u64 {
        self.0.read().map_or(0, |bytes| bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.read().map_err(|_| io::ErrorKind::Other)?;
        into.copy_from_slice(&bytes[offset as usize..][..into.len()]);
        Ok(into.len())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.write().map_err(|_| io::ErrorKind::Other)?;
        bytes[offset as usize..][..from.len()].copy_from_slice(from);
        Ok(())
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(SyncQueue::new(self, depth))
    }
}

/// A tier that takes everything and keeps nothing, so that its size is no matter. Nothing can be read from it.
#[derive(Debug)]
pub struct Drain(pub u64);

impl Storage for Drain {
    fn capacity(&self) -> u64 {
        self.0
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(SyncQueue::new(self, depth))
    }
}

/// The value below which so much (0 to 1) of the sorted lie.
pub fn quantile(sorted: &[u64], part: f64) -> u64 {
    sorted.get(((sorted.len().max(1) - 1) as f64 * part) as usize).copied().unwrap_or(0)
}
