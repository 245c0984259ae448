//! Snapshot: a second space with the content of another, in the same process.
//!
//! As after a fork the two have their slots in common, cluster by cluster, by count. But no kernel copies a page table here, so
//! resident pages are not shared: those of the source whose bytes are nowhere else are written down where they are (they stay
//! resident, clean and write-protected from then on), and all pages of the copy start *out*. So a snapshot costs a count for each
//! cluster, and one store for each page that was written to since it was stored last.
//!
//! The caller sees to it that nobody writes to the source meanwhile. Therefore blocks may be copied one after the other, and
//! evictors may work in between, which keeps the limit: what is written down takes room until something is moved out.

use crate::block::{Block, BlockState, PAGE_BYTES};
use crate::pager::{Pager, Shared};
use crate::space::{Adopt, Hold, Space, libc_errno};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use vswap_core::{Bitmap512, ByteCount, Event, GroupId, PAGE_SIZE, Page, PageIndex, Resource, SlotId};
use vswap_engine::{Bounds, SEGMENT_BYTES, Scratch, StoreError};
use vswap_sys::procvm::{PAGES_AT_ONCE, read_pages};

/// Blocks written down before eviction in the source may go on: some 10 ms of work.
const BLOCKS_AT_ONCE: usize = 16;
/// How long a limit that is exceeded is waited for before more is written down.
const PATIENCE: Duration = Duration::from_secs(1);

/// Times that a group's pool is tried to be made smaller for a block.
const TRIES: u32 = 3;

/// What writing down takes.
struct Tools {
    scratch: Scratch,
    buffer: Box<[Page]>,
}

/// A block of the source and that of the copy.
type Pair = (Arc<Block>, Arc<Block>);

impl Pager {
    /// Takes `copy` under management, with the content that `range` of `source` has now at `to..`: the source's pages are shared
    /// until either writes to them. Nobody may write to the source before this returns; it may be read.
    ///
    /// # Errors
    /// As [`Pager::adopt`] and [`Space::manage`]; when the engine has no room for the pages that must be written down, or one of
    /// them is lost.
    ///
    /// # Panics
    /// If range or destination are not of whole blocks of 2 MiB.
    pub fn snapshot(
        &self,
        source: &Arc<Space>,
        range: Range<u64>,
        copy: Adopt,
        to: u64,
    ) -> io::Result<Arc<Space>> {
        assert!([range.start, range.end, to].iter().all(|end| end.is_multiple_of(crate::block::BLOCK_BYTES)));
        let space = self.adopt(Adopt { group: source.charged.get().group(), ..copy })?;
        match self.copy_range(source, &range, &space, to) {
            Ok(()) => Ok(space),
            Err(error) => {
                self.release(&space);
                Err(error)
            }
        }
    }

    fn copy_range(
        &self,
        source: &Arc<Space>,
        range: &Range<u64>,
        copy: &Arc<Space>,
        to: u64,
    ) -> io::Result<()> {
        // What the program discarded before this is applied: it goes on when the event was read, under the gate, and that may be before.
        drop(source.gate.read());
        let end = to + (range.end - range.start);
        copy.make_blocks(&(to..end))?;
        copy.uffd.register(to, end - to, true)?;
        let mut pairs: Vec<Pair> = Vec::new();
        source.for_blocks(range, |block, _| {
            if let Some(twin) = copy.block(block.base - range.start + to) {
                pairs.push((Arc::clone(block), twin));
            }
        });
        let shared = &self.shared;
        // Most blocks of a large region have nothing in memory but what is stored as well.
        pairs.retain(|(block, twin)| !shared.copy_if_stored(block, twin));
        if pairs.is_empty() {
            return Ok(());
        }
        let mut tools =
            Tools { scratch: shared.engine.scratch(), buffer: vec![[0; PAGE_SIZE]; PAGES_AT_ONCE].into() };
        let mut rest = pairs.as_slice();
        while !rest.is_empty() {
            // Now: once the source is held, and all the more once it is frozen, nobody who faults is to wait for a device.
            let bounds =
                shared.make_room_in_pool(source.group(), rest[0].0.unstored_bytes(), &mut tools.scratch);
            let hold = source.hold();
            let mut copied = 0;
            for (block, twin) in rest.iter().take(BLOCKS_AT_ONCE) {
                if copied > 0 && shared.pool_over(source.group(), block.unstored_bytes()).is_some() {
                    break;
                }
                shared.store_and_copy(&hold, block, twin, bounds, &mut tools)?;
                shared.count_compressed();
                copied += 1;
                if self.is_short() {
                    break;
                }
            }
            drop(hold);
            rest = &rest[copied..];
            self.wait_for_room(PATIENCE);
        }
        Ok(())
    }
}

impl Block {
    /// Bytes of its pages that are in memory only.
    fn unstored_bytes(&self) -> u64 {
        let state = self.state.lock();
        state.resident.and_not(&state.backed).count() as u64 * PAGE_BYTES
    }
}

impl Shared {
    /// Copies a block all of whose pages have their bytes in their slots. `false` if there are others.
    ///
    /// A handler may be loading some, and install them: they are what the slots hold.
    fn copy_if_stored(&self, block: &Block, twin: &Block) -> bool {
        let mut state = block.state.lock();
        // What is being stored goes to a slot that must not be shared meanwhile.
        let unstored = (state.resident | state.staged).and_not(&state.backed) | state.storing;
        let stored = unstored.is_empty();
        if stored {
            self.copy_block(&mut state, &mut twin.state.lock());
        }
        stored
    }

    fn copy_block(&self, state: &mut BlockState, copy: &mut BlockState) {
        debug_assert!(copy.mapped.is_empty(), "nobody knows of the copy yet");
        let slots = state.owner.as_mut().map(|owner| owner.fork(&self.engine));
        if let Some(unused) = std::mem::replace(&mut copy.owner, slots) {
            unused.dispose(&self.engine);
        }
        copy.mapped = state.mapped;
        copy.backed = state.backed & state.mapped;
    }

    /// Writes down the pages of a block that are in memory only, and copies it.
    ///
    /// The space is frozen for that: nobody is let write to a page between its being read and its being down as stored.
    fn store_and_copy(
        &self,
        hold: &Hold,
        block: &Block,
        twin: &Block,
        bounds: Bounds,
        tools: &mut Tools,
    ) -> io::Result<()> {
        loop {
            hold.freeze();
            // It ends by itself if this thread does not get a CPU for a second.
            if !hold.stay_frozen() {
                continue;
            }
            let stored = self.store_resident(&hold.space, block, bounds, tools);
            if stored.is_ok() {
                self.copy_block(&mut block.state.lock(), &mut twin.state.lock());
            }
            hold.thaw();
            match stored {
                // An event must be read first.
                Err(error) if error.raw_os_error() == Some(libc_errno::EAGAIN) => hold.space.drain(),
                other => return other,
            }
        }
    }

    /// Makes the dirty pages of a block of a frozen space clean: they are write-protected first, then read, then stored.
    fn store_resident(
        &self,
        space: &Space,
        block: &Block,
        bounds: Bounds,
        tools: &mut Tools,
    ) -> io::Result<()> {
        let (dirty, removed) = {
            let state = block.state.lock();
            // The hold waits for these, but for those of a space that can no more be read.
            if !((state.staged | state.flight).and_not(&state.backed) | state.storing).is_empty() {
                return Err(io::Error::other("pages of it that are staged cannot be read"));
            }
            (state.resident.and_not(&state.backed), state.may_be_dropped(self.clock_ms()))
        };
        // To read what is not there would be a fault, and nobody answers it now.
        let there = space.present_at(block.base).ok_or(io::ErrorKind::PermissionDenied)?;
        if !dirty.and_not(&(there | removed)).is_empty() {
            return Err(io::Error::other("a page of it is lost"));
        }
        let dirty = dirty & there;
        for (start, count) in dirty.runs() {
            space.uffd.protect(block.address(start), count as u64 * PAGE_BYTES, true)?;
        }
        let pages: Vec<PageIndex> = dirty.iter().collect();
        pages.chunks(PAGES_AT_ONCE).try_for_each(|pages| self.store_pages(space, block, pages, bounds, tools))
    }

    fn store_pages(
        &self,
        space: &Space,
        block: &Block,
        pages: &[PageIndex],
        bounds: Bounds,
        tools: &mut Tools,
    ) -> io::Result<()> {
        let slots = {
            let mut state = block.state.lock();
            let owner = state.owner.as_mut().ok_or(io::ErrorKind::NotFound)?;
            let slots = pages.iter().map(|page| owner.slot_for_store(&self.engine, *page));
            slots.collect::<Result<Vec<SlotId>, _>>().map_err(io::Error::other)?
        };
        let addresses: Vec<u64> = pages.iter().map(|page| block.address(*page)).collect();
        let buffer = tools.buffer[..pages.len()].as_flattened_mut();
        if read_pages(space.pid(), &addresses, buffer)? != pages.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut stored = Bitmap512::EMPTY;
        let mut result = Ok(());
        for ((page, slot), bytes) in pages.iter().zip(slots).zip(&tools.buffer) {
            match self.store_at_once(slot, bytes, bounds, &mut tools.scratch) {
                Ok(()) => stored.set(*page),
                Err(error) => result = Err(error),
            }
        }
        block.state.lock().backed |= stored;
        result
    }

    /// Which of a group and those above it would have too much in its pool with so many bytes more, and how much. As with pages that only pass
    /// through, what is written at a time has room always.
    fn pool_over(&self, group: GroupId, bytes: u64) -> Option<(GroupId, ByteCount)> {
        let tree = self.engine.group_tree();
        let above = |at: &GroupId| tree.parent(*at).map(|parent| tree.resolve(parent));
        std::iter::successors(Some(tree.resolve(group)), above).find_map(|group| {
            let limit = tree.limit(group, Resource::Pool).max(SEGMENT_BYTES as u64);
            let over = tree.usage(group, Resource::Pool).saturating_add(bytes).saturating_sub(limit);
            (over > 0).then_some((group, ByteCount::new(over)))
        })
    }

    /// Has so many bytes find room in the pools of a group and those above it, by writing some down. Within which limits they may be stored then: if
    /// nothing can be written, within all.
    fn make_room_in_pool(&self, group: GroupId, bytes: u64, scratch: &mut Scratch) -> Bounds {
        let mut wrote = true;
        for _ in 0..TRIES {
            let Some((full, over)) = self.pool_over(group, bytes) else {
                wrote = true;
                break;
            };
            // If there was nothing to write, somebody else may just have done it.
            wrote = self.write_back_of(full, over, scratch);
        }
        if wrote && self.is_room_below(group) { Bounds::Swap } else { Bounds::All }
    }

    /// Stores a page, and waits for nothing.
    fn store_at_once(
        &self,
        slot: SlotId,
        page: &Page,
        bounds: Bounds,
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        let stored = self.engine.store_within(bounds, slot, page, scratch);
        if let Err(StoreError::GroupFull { full, .. }) = &stored
            && full.resource == Resource::Swap
        {
            self.engine.group_tree().count(full.group, Event::SwapMax, 1);
        }
        stored.map(drop).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;
    use crate::pager::PagerConfig;
    use vswap_core::PAGES_PER_CLUSTER;
    use vswap_engine::{Engine, EngineConfig, TierConfig};

    /// Stored while the space is frozen, the pages of a block wrote segments: faults waited for the device. Before there is a space there is
    /// no keeper that would write.
    #[test]
    fn room_for_a_block_is_made_in_the_pool_of_its_group_before_it_is_stored_and_not_by_its_stores() {
        for limit in [0, 4 << 20] {
            let tiers = vec![TierConfig::new(std::env::temp_dir(), ByteCount::mib(64))];
            let engine = Engine::new(EngineConfig { tiers, ..EngineConfig::default() }).unwrap();
            let pager = Pager::new(PagerConfig::new(ByteCount::mib(64)), Arc::clone(&engine)).unwrap();
            let group = pager.add_group("/a").unwrap();
            pager.limit_group("/a", Resource::Pool, Some(limit)).unwrap();
            let written = || engine.group(group).unwrap().events[Event::Zswpwb as usize];
            let mut scratch = engine.scratch();
            let mut owners: Vec<_> = (0..6).map(|_| engine.owner_block(group).unwrap()).collect();
            let mut noise = Noise::new();
            for owner in &mut owners {
                let bytes = (PAGES_PER_CLUSTER * PAGE_SIZE) as u64;
                let bounds = pager.shared.make_room_in_pool(group, bytes, &mut scratch);
                assert_eq!(bounds, Bounds::Swap);
                let before = written();
                for index in Bitmap512::FULL.iter() {
                    let mut page = [0; PAGE_SIZE];
                    noise.fill(&mut page);
                    let slot = owner.slot_for_store(&engine, index).unwrap();
                    pager.shared.store_at_once(slot, &page, bounds, &mut scratch).unwrap();
                }
                assert_eq!(written(), before);
                assert!(engine.group(group).unwrap().pool.usage <= limit.max(SEGMENT_BYTES as u64));
            }
            assert!(written() > 1000, "{}", written());
            owners.into_iter().for_each(|owner| owner.dispose(&engine));
        }
    }

    /// Where nothing can be written, what a group may have in the pool is all that it gets.
    #[test]
    fn without_a_tier_a_block_is_stored_within_the_limit_of_the_pool_of_its_group() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let pager = Pager::new(PagerConfig::new(ByteCount::mib(64)), Arc::clone(&engine)).unwrap();
        let group = pager.add_group("/a").unwrap();
        pager.limit_group("/a", Resource::Pool, Some(0)).unwrap();
        let bounds = pager.shared.make_room_in_pool(group, 4096, &mut engine.scratch());
        assert_eq!(bounds, Bounds::All);
    }

    /// The bytes of such a page are in nobody's slot yet, or on their way into one that the store takes for its own.
    #[test]
    fn a_block_of_which_a_page_is_not_stored_or_just_being_stored_is_not_shared_as_it_is() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let pager = Pager::new(PagerConfig::new(ByteCount::mib(16)), engine).unwrap();
        let shared = &pager.shared;
        let block = || Block::new(0, shared.owner_block(vswap_core::GroupId::ROOT).unwrap());
        let page = Bitmap512::single(PageIndex::of_addr(0));
        let shares = |set: fn(&mut BlockState, Bitmap512)| {
            let (source, twin) = (block(), block());
            set(&mut source.state.lock(), page);
            let shares = shared.copy_if_stored(&source, &twin);
            assert!(shares || twin.state.lock().backed.is_empty());
            for owner in [source, twin].iter().filter_map(|block| block.state.lock().owner.take()) {
                owner.dispose(&shared.engine);
            }
            shares
        };
        assert!(shares(|_, _| {}));
        assert!(shares(|state, page| (state.resident, state.backed) = (page, page)));
        assert!(shares(|state, page| (state.staged, state.backed) = (page, page)));
        assert!(!shares(|state, page| state.resident = page));
        assert!(!shares(|state, page| state.staged = page));
        // Discarded by the program while an evictor stores it.
        assert!(!shares(|state, page| state.storing = page));
    }
}
