//! An engine with owners whose pages are known by number.
use crate::pages::page;
use std::sync::Arc;
use vswap_core::{ByteCount, GroupId, PAGE_SIZE, PageCount, PageIndex, SlotId};
use vswap_engine::{CodecChoice, Engine, EngineConfig, LoadError, LoadedFrom, OwnerBlock, Scratch};
use vswap_segment::Storage;

/// How often something is to be done that is done so often: one in `VSWAP_TEST_SHARE`, for a sanitizer, under which all is slow.
pub fn share_of(acts: u64) -> u64 {
    let share = std::env::var("VSWAP_TEST_SHARE").map_or(1, |share| share.parse().expect("a number"));
    acts.div_ceil(share)
}

/// A page that compresses to some 2 KiB.
pub fn middling(number: usize) -> [u8; PAGE_SIZE] {
    let mut bytes = page(number as u64 * 8 + 2);
    bytes[2048..].fill(number as u8);
    bytes
}

pub struct Rig {
    pub engine: Arc<Engine>,
    pub scratch: Scratch,
    pub blocks: Vec<OwnerBlock>,
}

impl Rig {
    pub fn over(storage: Arc<dyn Storage>, blocks: usize) -> Self {
        let config = EngineConfig { codec: CodecChoice::Zstd, ..EngineConfig::default() };
        Self::of(Engine::with_storage(config, storage).unwrap(), blocks)
    }

    pub fn of(engine: Arc<Engine>, blocks: usize) -> Self {
        let scratch = engine.scratch();
        let blocks = (0..blocks).map(|_| engine.owner_block(GroupId::ROOT).unwrap()).collect();
        Self { engine, scratch, blocks }
    }

    pub fn place(number: usize) -> (usize, PageIndex) {
        (number / 512, PageIndex::new(number % 512).unwrap())
    }

    pub fn store(&mut self, number: usize, content: usize) -> SlotId {
        let (block, at) = Self::place(number);
        let slot = self.blocks[block].slot_for_store(&self.engine, at).unwrap();
        self.engine.store(slot, &middling(content), &mut self.scratch).unwrap();
        slot
    }

    /// Stores these pages, the content of each by its number.
    pub fn fill(&mut self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            self.store(number, number);
        }
    }

    pub fn load(&mut self, number: usize) -> Result<(LoadedFrom, [u8; PAGE_SIZE]), LoadError> {
        let (block, at) = Self::place(number);
        let slot = self.blocks[block].slot(at).unwrap();
        let mut bytes = [0xee; PAGE_SIZE];
        self.engine.load(slot, &mut bytes, &mut self.scratch).map(|from| (from, bytes))
    }

    pub fn write_all_back(&mut self) -> bool {
        let payload = self.engine.pool_payload();
        self.engine.writeback(payload, &mut self.scratch).unwrap().disk_full
    }

    pub fn finish(self) {
        self.blocks.into_iter().for_each(|block| block.dispose(&self.engine));
        let stats = self.engine.stats();
        assert_eq!((stats.pool_pages, stats.segment_pages), (PageCount::ZERO, PageCount::ZERO));
        assert_eq!((stats.disk_bytes, stats.clusters), (ByteCount::ZERO, 0));
    }
}
