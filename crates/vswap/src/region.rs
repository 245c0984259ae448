//! Regions: memory larger than RAM in one's own program.

use bytemuck::Pod;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use vswap_core::{ByteCount, GroupId};
use vswap_engine::{CodecChoice, Encryption, Engine, EngineConfig, TierConfig, TierKind};
use vswap_pager::{Adopt, Mover, Pager, PagerConfig, PagerStats, Space, StagingArea};
use vswap_sys::pagemap::Pagemap;
use vswap_sys::staging::{LocalStaging, PagedBytes, PagedMemory};
use vswap_sys::uffd::{Uffd, feature};

const BLOCK: u64 = 2 << 20;
/// The least limit.
const LEAST_LIMIT: u64 = vswap_pager::LEAST_LIMIT.get();

/// Why a region could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// A region of no bytes, or more than the address space holds.
    #[error("a region of {0} bytes cannot be made: choose between 1 byte and 64 TiB")]
    Length(u64),
    /// The limit is too low to work in.
    #[error("a limit of {0} bytes is too low: the least is {LEAST_LIMIT}")]
    Limit(u64),
    /// The engine refused, mostly because of the disk.
    #[error("the region's engine cannot start: {0}")]
    Engine(#[from] vswap_engine::EngineError),
    /// The kernel refused.
    #[error("{what} failed: {source}; `vswap doctor` says what this machine lacks")]
    Kernel {
        /// The step.
        what: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

fn kernel(what: &'static str) -> impl Fn(std::io::Error) -> RegionError {
    move |source| RegionError::Kernel { what, source }
}

/// How a region is to be; see [`Region::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    length: u64,
    limit: u64,
    codec: CodecChoice,
    encryption: Encryption,
    tier: Option<TierConfig>,
    #[cfg(feature = "control")]
    name: Option<String>,
}

impl Builder {
    /// The most memory in bytes that the region may take, compressed pages included. The default is 256 MiB.
    #[must_use]
    pub fn limit(mut self, bytes: u64) -> Builder {
        self.limit = bytes;
        self
    }

    /// How pages are compressed.
    #[must_use]
    pub fn codec(mut self, codec: CodecChoice) -> Builder {
        self.codec = codec;
        self
    }

    /// Whether pages are encrypted before they go to a file; they are, unless this is called. The key takes a page of locked memory.
    #[must_use]
    pub fn encryption(mut self, encryption: Encryption) -> Builder {
        self.encryption = encryption;
        self
    }

    /// Lets cold pages go to an unlinked file in `dir`, `capacity` bytes at most. Without it all stays in memory.
    #[must_use]
    pub fn disk(mut self, dir: impl AsRef<Path>, capacity: u64) -> Builder {
        self.tier = Some(TierConfig::new(dir.as_ref(), ByteCount::new(capacity)));
        self
    }

    /// Lets cold pages go to room of the store of objects in `dir`, `capacity` bytes at most, in the place of a file of their own. Somebody has the store open and lends its room: `vswap cache mount`, or
    /// a program, this one perhaps, that has called `objects::Store::lend`. What the store need not keep gives way to the region's pages; when it has nothing more to give, they stay in memory.
    #[must_use]
    pub fn store(mut self, dir: impl AsRef<Path>, capacity: u64) -> Builder {
        let tier = TierConfig::of(TierKind::Store, dir.as_ref());
        self.tier = Some(TierConfig { size: Some(ByteCount::new(capacity)), ..tier });
        self
    }

    /// Lets `vswap status`, `vswap tiers` and `vswap tier add|remove|reopen` see and change the region and its snapshots, as they do a
    /// `vswap run`: by the number of this process or by `name`. Only this user and root are answered. For that there is a socket in the
    /// user's runtime directory (`$XDG_RUNTIME_DIR/vswap`) until the last of them is dropped; should the process be killed, the
    /// next `vswap status` removes it. Without this call there is none.
    ///
    /// Groups (`vswap groups`) are those of this region and its snapshots: a move takes all of them along, and a snapshot is of the group of what it was
    /// made of. Another region has groups of its own, and begins in its `/`.
    #[cfg(feature = "control")]
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Makes the region.
    ///
    /// # Errors
    /// [`RegionError`], saying what is wrong or what this machine does not allow.
    pub fn build(self) -> Result<Region, RegionError> {
        if self.length == 0 || self.length > 64 << 40 {
            return Err(RegionError::Length(self.length));
        }
        if self.limit < LEAST_LIMIT {
            return Err(RegionError::Limit(self.limit));
        }
        let tiers = self.tier.iter().cloned().collect();
        let engine = Engine::new(EngineConfig {
            codec: self.codec,
            tiers,
            encryption: self.encryption,
            ..EngineConfig::default()
        })?;
        let pager = Pager::new(PagerConfig::new(ByteCount::new(self.limit)), engine)
            .map_err(kernel("starting the pager's threads"))?;
        let made = Made::new(self.length, self.limit)?;
        let space = pager.adopt(made.adopt).map_err(kernel("watching the region's faults"))?;
        space.manage(made.range.clone()).map_err(kernel("registering the region"))?;
        let (bytes, range, length, limit) = (made.bytes, made.range, self.length as usize, self.limit);
        let family = Family::new(pager, self)?;
        Ok(Region { bytes, length, range, limit, snapshots: Mutex::default(), space, family })
    }
}

/// What a region and its snapshots have in common.
#[derive(Debug)]
struct Family {
    /// Nobody may ask any more before the pager stops.
    #[cfg(feature = "control")]
    _server: Option<vswap_control::Server>,
    #[cfg(feature = "control")]
    moves: crate::visible::Moves,
    pager: Arc<Pager>,
}

impl Family {
    fn new(pager: Pager, _how: Builder) -> Result<Arc<Family>, RegionError> {
        let pager = Arc::new(pager);
        #[cfg(feature = "control")]
        let moves = crate::visible::Moves::default();
        #[cfg(feature = "control")]
        let _server = {
            let show = |name| crate::visible::show(&pager, &moves, name);
            _how.name.map(show).transpose().map_err(kernel("making a socket for `vswap status`"))?
        };
        Ok(Arc::new(Family {
            #[cfg(feature = "control")]
            _server,
            #[cfg(feature = "control")]
            moves,
            pager,
        }))
    }
}

/// Memory for a region that no pager has yet.
struct Made {
    bytes: PagedBytes,
    range: Range<u64>,
    adopt: Adopt,
}

impl Made {
    fn new(length: u64, limit: u64) -> Result<Made, RegionError> {
        let (memory, bytes) = PagedMemory::new(length.div_ceil(BLOCK) as usize)
            .map_err(kernel("reserving addresses for the region"))?;
        let range = memory.address()..memory.address() + memory.len();
        let windows = (limit / (16 * BLOCK)).clamp(3, 16) as u32;
        let staging = LocalStaging::new(windows, memory).map_err(kernel("making the staging area"))?;
        let pid = std::process::id() as i32;
        let adopt = Adopt {
            pid,
            uffd: Uffd::open(feature::MAIN_FEATURES).map_err(kernel("opening a userfaultfd"))?,
            staging: StagingArea { base: staging.base(), windows },
            mover: Mover::Local(staging),
            pagemap: Pagemap::open(pid).map_err(kernel("opening the page map"))?,
            group: GroupId::ROOT,
        };
        Ok(Made { bytes, range, adopt })
    }
}

/// Memory that may be larger than RAM. Zero at first; as fast as memory while what is used fits the limit.
///
/// Dropping it frees everything that no [snapshot](Region::snapshot) shares. A child made by `fork` does not have it (its addresses are not mapped there).
/// System calls may be given its bytes like any others.
#[derive(Debug)]
pub struct Region {
    // Dropped in this order: nobody can use the bytes any more, then the space goes and with it the descriptor, then
    // the pager stops, if this was the last of its regions. The memory is unmapped with the last of its owners.
    bytes: PagedBytes,
    length: usize,
    range: Range<u64>,
    limit: u64,
    /// Held while a snapshot is made: one at a time.
    snapshots: Mutex<()>,
    space: Arc<Space>,
    family: Arc<Family>,
}

/// A region in numbers, together with all that came from it by snapshots or it came from.
pub type RegionStats = PagerStats;

impl Region {
    /// Begins a region of `length` bytes.
    pub fn builder(length: u64) -> Builder {
        Builder {
            length,
            limit: 256 << 20,
            codec: CodecChoice::default(),
            encryption: Encryption::default(),
            tier: None,
            #[cfg(feature = "control")]
            name: None,
        }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes.as_slice()[..self.length]
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes.as_mut_slice()[..self.length]
    }

    /// As many whole `T`s as fit.
    pub fn as_slice_of<T: Pod>(&self) -> &[T] {
        let whole = self.length - self.length % size_of::<T>().max(1);
        bytemuck::cast_slice(&self.as_slice()[..whole])
    }

    /// As many whole `T`s as fit, to write.
    pub fn as_mut_slice_of<T: Pod>(&mut self) -> &mut [T] {
        let whole = self.length - self.length % size_of::<T>().max(1);
        bytemuck::cast_slice_mut(&mut self.as_mut_slice()[..whole])
    }

    /// Brings a range of bytes in now.
    ///
    /// # Panics
    /// If the range is not inside the region.
    pub fn will_need(&self, range: Range<usize>) {
        let range = self.check(range);
        self.space.bring_in(range.start, range.end - range.start);
    }

    /// Forgets the whole pages inside a range of bytes: they read as zero from now on, and take no room.
    ///
    /// # Panics
    /// If the range is not inside the region.
    pub fn dont_need(&mut self, range: Range<usize>) {
        let start = range.start.next_multiple_of(4096);
        let end = range.end / 4096 * 4096;
        self.check(range);
        if start < end {
            self.bytes.discard(start, end - start);
        }
    }

    /// Tells that a range of bytes will not be used for a while: its pages are the next to be moved out.
    ///
    /// # Panics
    /// If the range is not inside the region.
    pub fn cold(&self, range: Range<usize>) {
        let range = self.check(range);
        self.space.cool(range);
    }

    /// A second region with the content that this one has now. From then on each may be read, written and dropped without
    /// the other's noticing; it may have snapshots of its own. Both, and all of one family, have their limit, threads and disk in
    /// common, and every page that none has changed is kept once for all of them.
    ///
    /// That nobody writes meanwhile is what `&self` says: there is no `&mut` slice then. Others may read. It
    /// takes a count for each 2 MiB, and a store for each page that is in memory and was written to since it was stored last;
    /// so a second snapshot right after the first is cheap. The first write to a page of either costs a fault.
    ///
    /// ```no_run
    /// let mut table = vswap::Region::builder(1 << 30).build()?;
    /// table.as_mut_slice()[5] = 1;
    /// let before = table.snapshot()?;
    /// table.as_mut_slice()[5] = 2;
    /// assert_eq!((before.as_slice()[5], table.as_slice()[5]), (1, 2));
    /// # Ok::<(), vswap::RegionError>(())
    /// ```
    ///
    /// # Errors
    /// [`RegionError::Kernel`] when this machine refuses more mappings or descriptors (a region has three), or there is no room
    /// to write pages down. This region is then what it was.
    pub fn snapshot(&self) -> Result<Region, RegionError> {
        let _one = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        let made = Made::new(self.length as u64, self.limit)?;
        #[cfg(feature = "control")]
        let _no_move = self.family.moves.read();
        let space = self
            .family
            .pager
            .snapshot(&self.space, self.range.clone(), made.adopt, made.range.start)
            .map_err(kernel("copying the region"))?;
        let (length, limit, family) = (self.length, self.limit, Arc::clone(&self.family));
        Ok(Region {
            bytes: made.bytes,
            length,
            range: made.range,
            limit,
            snapshots: Mutex::default(),
            space,
            family,
        })
    }

    /// What has happened so far.
    pub fn stats(&self) -> RegionStats {
        self.family.pager.stats()
    }

    fn check(&self, range: Range<usize>) -> Range<u64> {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "range {range:?} is not inside a region of {} bytes",
            self.length
        );
        self.range.start + range.start as u64..self.range.start + range.end as u64
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.family.pager.release(&self.space);
    }
}

#[cfg(all(test, feature = "control"))]
mod tests {
    use super::Region;
    use std::time::Duration;
    use vswap_core::Resource;

    #[test]
    fn a_snapshot_waits_for_a_move_of_all_regions_and_is_of_their_group() {
        let mut region = Region::builder(4 << 20).limit(8 << 20).build().unwrap();
        region.as_mut_slice().fill(1);
        let pager = &region.family.pager;
        let group = pager.add_group("/a").unwrap();
        let moving = region.family.moves.write();
        let copy = std::thread::scope(|scope| {
            let copy = scope.spawn(|| region.snapshot().unwrap());
            std::thread::sleep(Duration::from_millis(200));
            assert!(!copy.is_finished());
            pager.move_all_to_group(group).unwrap();
            drop(moving);
            copy.join().unwrap()
        });
        assert_eq!(copy.space.group(), group);
        assert!(copy.as_slice().iter().all(|byte| *byte == 1));
    }

    #[test]
    fn a_snapshot_of_regions_whose_pool_may_hold_nothing_passes_through_to_the_disk() {
        let disk = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut region =
            Region::builder(24 << 20).limit(64 << 20).disk(disk.path(), 128 << 20).build().unwrap();
        let content = |at: usize| {
            let at = at as u64;
            (at ^ at << 32).wrapping_mul(6_364_136_223_846_793_005).rotate_left(29).wrapping_mul(at | 1)
        };
        for (at, word) in region.as_mut_slice_of::<u64>().iter_mut().enumerate() {
            *word = content(at);
        }
        let pager = &region.family.pager;
        let group = pager.add_group("/a").unwrap();
        pager.limit_group("/a", Resource::Pool, Some(0)).unwrap();
        pager.move_all_to_group(group).unwrap();
        let copy = region.snapshot().unwrap();
        let has = pager.engine().group(group).unwrap();
        assert!(has.pool.usage <= 4 << 20 && has.swap.usage == 6144, "{has:?}");
        for kept in [&region, &copy] {
            assert!(kept.as_slice_of::<u64>().iter().enumerate().all(|(at, word)| *word == content(at)));
        }
    }
}
