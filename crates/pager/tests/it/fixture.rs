//! Memory of this process under a pager.

use std::os::fd::AsFd;
use std::sync::Arc;
use vswap_core::{ByteCount, GroupId};
use vswap_engine::{Engine, EngineConfig};
use vswap_pager::{Adopt, Mover, Pager, PagerConfig, Space, StagingArea};
use vswap_sys::pagemap::Pagemap;
use vswap_sys::staging::{LocalStaging, PagedBytes, PagedMemory};
use vswap_sys::uffd::{Uffd, feature};

pub const PAGE: usize = 4096;
pub const LIMIT: u64 = 8 << 20;
/// Staging windows.
pub const WINDOWS: u32 = 3;

/// Memory of 2 MiB blocks under a pager with the least limit; nothing is managed yet.
pub struct Fixture {
    pub bytes: PagedBytes,
    pub start: u64,
    /// The space's descriptor, to end its faults with when nobody answers them any more.
    pub uffd: Uffd,
    pub space: Arc<Space>,
    pub pager: Pager,
}

pub fn fixture(blocks: usize) -> Fixture {
    fixture_with(blocks, config())
}

/// The configuration with the least limit.
pub fn config() -> PagerConfig {
    PagerConfig::new(ByteCount::new(LIMIT))
}

pub fn fixture_with(blocks: usize, config: PagerConfig) -> Fixture {
    fixture_over(Engine::new(EngineConfig::default()).unwrap(), blocks, config)
}

pub fn fixture_over(engine: Arc<Engine>, blocks: usize, config: PagerConfig) -> Fixture {
    fixture_moved_by(engine, blocks, config, Mover::Local)
}

/// Whoever moves its pages is made of its staging area.
pub fn fixture_moved_by(
    engine: Arc<Engine>,
    blocks: usize,
    config: PagerConfig,
    mover: impl FnOnce(LocalStaging) -> Mover,
) -> Fixture {
    let pager = Pager::new(config, engine).unwrap();
    let (memory, bytes) = PagedMemory::new(blocks).unwrap();
    // One more than the pager knows of, for tests.
    let staging = LocalStaging::new(WINDOWS + 1, Arc::clone(&memory)).unwrap();
    let pid = std::process::id() as i32;
    let main = Uffd::open(feature::MAIN_FEATURES).unwrap();
    let uffd = Uffd::from_fd(main.as_fd().try_clone_to_owned().unwrap());
    let adopt = Adopt {
        pid,
        uffd: main,
        staging: StagingArea { base: staging.base(), windows: WINDOWS },
        mover: mover(staging),
        pagemap: Pagemap::open(pid).unwrap(),
        group: GroupId::ROOT,
    };
    let space = pager.adopt(adopt).unwrap();
    Fixture { bytes, start: memory.address(), uffd, space, pager }
}

impl Fixture {
    pub fn manage(&self, pages: std::ops::Range<usize>) {
        self.space.manage(self.range(pages)).unwrap();
    }

    pub fn range(&self, pages: std::ops::Range<usize>) -> std::ops::Range<u64> {
        let address = |page: usize| self.start + (page * PAGE) as u64;
        address(pages.start)..address(pages.end)
    }

    pub fn take(&self, pages: std::ops::Range<usize>) {
        self.space.take(self.range(pages), true).unwrap();
    }

    pub fn charged(&self) -> u64 {
        self.pager.stats().resident / PAGE as u64
    }

    /// Faults of a kind so far.
    pub fn faults(&self, kind: &str) -> u64 {
        self.pager.stats().faults.iter().find(|faults| faults.name == kind).unwrap().count
    }

    /// Writes to every page of `pages`, so that all others are moved out if there are enough of these.
    pub fn press(&mut self, pages: std::ops::Range<usize>, value: u8) {
        for page in pages {
            self.bytes.as_mut_slice()[page * PAGE + 9] = value;
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.pager.release(&self.space);
    }
}
