//! An address space under management: its blocks, its staging windows, and what the program's own calls do to them.
//!
//! Lock order: `grants`, gate (see `gate`), then the map of blocks, then a block, then `windows`.

use crate::block::{BLOCK_BYTES, Block, BlockState, PAGE_BYTES};
use crate::charge::Charged;
use crate::gate::Gate;
use crate::link::Mover;
use crate::listen::Listeners;
use crate::pager::Shared;
use crate::window::Windows;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use vswap_core::{Bitmap512, GroupId, PAGES_PER_CLUSTER, PageIndex};
use vswap_engine::{Bounds, Lost, Reason};
use vswap_sys::pagemap::Pagemap;
use vswap_sys::procvm;
use vswap_sys::uffd::{Message, READ_BATCH, Uffd};

/// Looks at an eviction in flight before its waiter leaves the CPU to others for longer.
const YIELDS: u32 = 200;

/// How long it is tried to make a pinned page writable.
const UNPROTECT_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// Where pages are staged in an address space.
#[derive(Clone, Copy, Debug)]
pub struct StagingArea {
    /// Address of the first window, a multiple of 2 MiB.
    pub base: u64,
    /// Number of windows of 2 MiB.
    pub windows: u32,
}

/// What a managed address space consists of.
#[derive(Debug)]
pub struct Adopt {
    /// Process whose address space it is.
    pub pid: i32,
    /// The main userfaultfd.
    pub uffd: Uffd,
    /// Who moves pages out.
    pub mover: Mover,
    /// Where to.
    pub staging: StagingArea,
    /// Its page map.
    pub pagemap: Pagemap,
    /// The group that it is of; that of its parent or source if it is made by a fork or a snapshot.
    pub group: GroupId,
}

/// An address space under management.
#[derive(Debug)]
pub struct Space {
    pub(crate) id: u64,
    /// The thread by which it was adopted.
    pub(crate) pid: i32,
    /// The thread by which it is read.
    reached_by: AtomicI32,
    pub(crate) uffd: Uffd,
    pub(crate) gate: Gate,
    pub(crate) blocks: RwLock<BTreeMap<u64, Arc<Block>>>,
    pub(crate) mover: Mover,
    pub(crate) pagemap: Pagemap,
    pub(crate) windows: Mutex<Windows>,
    pub(crate) listeners: Listeners,
    /// Held while mappings are granted or grants called in.
    pub(crate) grants: Mutex<()>,
    /// Pages granted.
    pub(crate) granted: AtomicU64,
    /// Something that was granted was not there when it was called in; it may be there later.
    pub(crate) missed: AtomicBool,
    /// Holders that want no eviction here.
    pub(crate) holds: AtomicU32,
    /// One of these is for good: the stub is gone.
    pub(crate) ended: AtomicBool,
    /// Program gone or replaced.
    pub(crate) dead: AtomicBool,
    /// Managed pages that are resident or staged, and granted ones; and whom they are charged to.
    pub(crate) charged: Charged,
    /// While a fork is followed: until when (milliseconds of the pager's clock) no fault is resolved and no event read. 0: not
    /// frozen.
    frozen_until: AtomicU64,
    /// Staged pages could not be read: no more of this space are taken.
    pub(crate) unreadable: AtomicBool,
    pub(crate) shared: Arc<Shared>,
}

impl Space {
    pub(crate) fn new(id: u64, adopt: Adopt, shared: Arc<Shared>) -> Space {
        Space {
            id,
            pid: adopt.pid,
            reached_by: AtomicI32::new(adopt.pid),
            uffd: adopt.uffd,
            gate: Gate::default(),
            blocks: RwLock::default(),
            mover: adopt.mover,
            pagemap: adopt.pagemap,
            windows: Mutex::new(Windows::new(adopt.staging)),
            listeners: Listeners::default(),
            grants: Mutex::new(()),
            granted: AtomicU64::new(0),
            missed: AtomicBool::new(false),
            holds: AtomicU32::new(0),
            ended: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            charged: Charged::new(adopt.group),
            frozen_until: AtomicU64::new(0),
            unreadable: AtomicBool::new(false),
            shared,
        }
    }

    /// The stub's link; `None` for memory of our own.
    pub fn link(&self) -> Option<&crate::link::StubLink> {
        self.mover.link()
    }

    /// A process or thread whose address space it is.
    pub fn pid(&self) -> i32 {
        self.reached_by.load(Ordering::SeqCst)
    }

    /// Managed pages that are resident or staged now, and granted ones.
    pub fn present_pages(&self) -> u64 {
        self.charged.get().pages()
    }

    /// The group that it is of.
    pub fn group(&self) -> GroupId {
        self.shared.engine.group_tree().resolve(self.charged.get().group())
    }

    /// Whether eviction has to wait for something that passes.
    pub(crate) fn is_held(&self) -> bool {
        self.holds.load(Ordering::Relaxed) > u32::from(self.ended.load(Ordering::Relaxed))
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub(crate) fn block(&self, address: u64) -> Option<Arc<Block>> {
        self.blocks.read().get(&(address / BLOCK_BYTES)).cloned()
    }

    /// Puts `range` under management: registers it, learns which of its pages are there, and answers its faults
    /// from now on. For a new mapping (before the program knows of it), for old ones and for granted ones; repeating it does
    /// no harm.
    ///
    /// # Errors
    /// What registering says (`EINVAL`: not anonymous private memory; `ENOMEM`, `ESRCH`: the program is gone).
    ///
    /// # Panics
    /// If the range is not of whole pages.
    pub fn manage(&self, range: Range<u64>) -> io::Result<()> {
        let _grants = self.grants.lock();
        self.manage_locked(range)
    }

    /// [`Space::manage`], with `grants` held.
    ///
    /// The page map is read while the program runs. What an event says of a page meanwhile counts more than the map, which may
    /// still show a page that a discard is about to take: so pages *join* before they are registered, and events are
    /// noted in them. Those that were managed under another mapping, whose unmap is not applied yet, join after it is; nobody
    /// knows the new mapping then.
    pub(crate) fn manage_locked(&self, range: Range<u64>) -> io::Result<()> {
        assert!(range.start.is_multiple_of(PAGE_BYTES) && range.end.is_multiple_of(PAGE_BYTES));
        if range.is_empty() {
            return Ok(());
        }
        tracing::debug!(pid = self.pid, start = range.start, end = range.end, "manage");
        self.make_blocks(&range)?;
        // A call returns when its events are read. One that is read and not applied yet would be taken for one of this mapping: an
        // mremap's unmap of addresses that its remap has made unmanaged before.
        drop(self.gate.read());
        let mut joined = BTreeMap::new();
        let mut join = |block: &Arc<Block>, pages: Bitmap512| {
            let mut state = block.state.lock();
            let already = joined.entry(block.base).or_insert(Bitmap512::EMPTY);
            let pages = pages.and_not(&(state.mapped | *already));
            *already |= pages;
            state.joining |= pages;
            state.untouched |= pages;
        };
        self.for_blocks(&range, &mut join);
        let present = self.register_and_look(&range, &mut join).inspect_err(|_| {
            self.for_blocks(&range, |block, pages| {
                let mut state = block.state.lock();
                state.joining = state.joining.and_not(&pages);
                state.untouched = state.untouched.and_not(&pages);
            });
            if self.is_unknown(&range) {
                // Registered and not managed, its faults would be nobody's.
                let _ = self.uffd.unregister(range.start, range.end - range.start);
            }
        })?;
        let _gate = self.gate.read();
        for run in present {
            self.for_blocks(&run, |block, pages| {
                let mut state = block.state.lock();
                let fresh = pages & state.joining & state.untouched;
                let fresh = fresh.and_not(&(state.resident | state.staged | state.busy));
                state.resident |= fresh;
                state.heat.install(fresh);
                // From here on an evictor may take them: their charge is that of resident pages, and no grant's any more.
                let granted = fresh & state.granted;
                state.granted = state.granted.and_not(&granted);
                self.charge_forced(fresh.count() - granted.count());
                self.ungranted(granted.count());
            });
        }
        // Only now do handlers answer for these pages; until then their faults are woken and come again.
        self.for_blocks(&range, |block, pages| {
            let mut state = block.state.lock();
            // What is still granted is not there.
            let granted = state.granted & pages;
            state.granted = state.granted.and_not(&granted);
            let joined = state.joining & pages;
            state.mapped |= joined;
            state.joining = state.joining.and_not(&pages);
            state.untouched = state.untouched.and_not(&pages);
            drop(state);
            self.uncharge(granted.count());
            self.ungranted(granted.count());
        });
        Ok(())
    }

    /// Registers `range`, waits for what is unread, has those pages join that could not before, and finds what is there.
    fn register_and_look(
        &self,
        range: &Range<u64>,
        join: impl FnMut(&Arc<Block>, Bitmap512),
    ) -> io::Result<Vec<Range<u64>>> {
        self.uffd.register(range.start, range.end - range.start, true)?;
        self.settle(range.start)?;
        self.for_blocks(range, join);
        let mut present = Vec::new();
        self.pagemap.present(range.clone(), |run| present.push(run))?;
        Ok(present)
    }

    pub(crate) fn make_blocks(&self, range: &Range<u64>) -> io::Result<()> {
        let mut fresh = Vec::new();
        let mut blocks = self.blocks.write();
        for number in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
            if let std::collections::btree_map::Entry::Vacant(vacant) = blocks.entry(number) {
                let owner = self.shared.owner_block(self.group()).map_err(io::Error::other)?;
                let block = Arc::new(Block::new(number * BLOCK_BYTES, owner));
                fresh.push(Arc::clone(&block));
                vacant.insert(block);
            }
        }
        drop(blocks);
        self.shared.clock.add(self.id, &fresh);
        self.shared.passing.reserve(self.shared.clock.len());
        Ok(())
    }

    /// Calls `visit` with each existing block of `range` and the pages of the range in it.
    pub(crate) fn for_blocks(&self, range: &Range<u64>, mut visit: impl FnMut(&Arc<Block>, Bitmap512)) {
        if range.start >= range.end {
            return;
        }
        let (first, last) = (range.start / BLOCK_BYTES, range.end.div_ceil(BLOCK_BYTES));
        for (_, block) in self.blocks.read().range(first..last) {
            let start = range.start.max(block.base);
            let end = range.end.min(block.base + BLOCK_BYTES);
            let count = ((end - start) / PAGE_BYTES) as usize;
            visit(block, Bitmap512::from_range(PageIndex::of_addr(start), count));
        }
    }

    /// Reads and applies events until the kernel says that none is pending anywhere in this address space.
    ///
    /// An unmap of the same addresses may have happened in the kernel and its event not be queued yet; the kernel counts
    /// such calls (`mmap_changing`) and refuses write-protection meanwhile, which is what is asked here at `probe`.
    /// To protect is harmless: at worst a dirty page gets a fault at its next write that finds nothing to do. To lift
    /// protection would let a clean page be written behind our back.
    fn settle(&self, probe: u64) -> io::Result<()> {
        // A large unmap counts as such a call for all of its time.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut tries = 0;
        while std::time::Instant::now() < deadline {
            self.drain();
            tries += 1;
            match self.uffd.protect(probe, PAGE_BYTES, true) {
                Err(error) if error.raw_os_error() == Some(libc_errno::EAGAIN) && tries < 1000 => {
                    std::thread::yield_now();
                }
                Err(error) if error.raw_os_error() == Some(libc_errno::EAGAIN) => {
                    std::thread::sleep(std::time::Duration::from_micros(100));
                }
                Err(error) if error.raw_os_error() == Some(libc_errno::ESRCH) => return Err(error),
                _ => return Ok(()),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Reads what the kernel has to say, applies the events, and hands the faults to the handlers' queue.
    pub(crate) fn drain(&self) {
        let mut messages = [Message::Other(0); READ_BATCH];
        let count = self.read_events(&mut messages);
        for message in &messages[..count] {
            if let Message::Fault { address, .. } = *message {
                // Whoever waits there asks again, and a handler will read it.
                let _ = self.uffd.wake(address, PAGE_BYTES);
            }
        }
    }

    fn freeze_until(&self) -> u64 {
        self.shared.clock_ms() + 1000 + self.present_pages() / 512
    }

    /// Whether the space stands still for a fork.
    pub(crate) fn is_frozen(&self) -> bool {
        let until = self.frozen_until.load(Ordering::SeqCst);
        until != 0 && self.shared.clock_ms() < until
    }

    /// Reads messages and applies those that are events; the faults among them are left to the caller.
    pub(crate) fn read_events(&self, messages: &mut [Message; READ_BATCH]) -> usize {
        let _gate = self.gate.write();
        // Looked at under the gate: who froze the space has passed it since.
        if self.is_frozen() {
            return 0;
        }
        let count = self.uffd.read(messages).unwrap_or(0);
        for message in &messages[..count] {
            if !matches!(message, Message::Fault { .. }) {
                tracing::debug!(pid = self.pid, ?message, "event");
            }
            match *message {
                Message::Remove { start, end } => self.remove(start..end),
                Message::Unmap { start, end } => self.unmap(start..end),
                Message::Remap { from, to, len } => self.remap(from, to, len),
                Message::Fault { .. } | Message::Other(_) => {}
            }
        }
        count
    }

    /// `MADV_DONTNEED`, which goes on once this is read. (Kernel: `userfaultfd_remove`; `mmap_changing` is lowered before the pages are dropped,
    /// so what is installed after this is read may be dropped as well.)
    fn remove(&self, range: Range<u64>) {
        self.for_blocks(&range, |block, pages| {
            let mut state = block.state.lock();
            state.note_removed(&pages, self.shared.clock_ms());
            let (freed, others) = state.discard(&self.shared.engine, pages);
            self.uncharge_shared(freed, others);
        });
    }

    fn unmap(&self, range: Range<u64>) {
        self.for_blocks(&range, |block, pages| {
            let mut state = block.state.lock();
            let (freed, others) = state.discard(&self.shared.engine, pages);
            state.mapped = state.mapped.and_not(&pages);
            state.joining = state.joining.and_not(&pages);
            state.pinned = state.pinned.and_not(&pages);
            self.uncharge_shared(freed, others);
        });
    }

    /// Pages moved from one address to another. Their page table entries went along; the bytes of those that are out
    /// follow here. The caller of `mremap` holds the space, so nothing is in flight or staged.
    fn remap(&self, from: u64, to: u64, len: u64) {
        if self.make_blocks(&(to..to + len)).is_err() {
            tracing::error!(from, to, len, "no memory to follow an mremap");
        }
        self.unmap(to..to + len);
        self.drop_grants(&(to..to + len));
        let mut scratch = self.shared.engine.scratch();
        for offset in (0..len).step_by(PAGE_BYTES as usize) {
            let (Some(old), Some(new)) = (self.block(from + offset), self.block(to + offset)) else {
                continue;
            };
            self.remap_page(&old, &new, from + offset, to + offset, &mut scratch);
        }
    }

    /// Moves what is known of one page. A resident page becomes dirty: should it still be write-protected at its new place,
    /// the fault of its next write finds no backing to drop and lifts that.
    fn remap_page(&self, old: &Block, new: &Block, from: u64, to: u64, scratch: &mut vswap_engine::Scratch) {
        let engine = &self.shared.engine;
        let (i, j) = (PageIndex::of_addr(from), PageIndex::of_addr(to));
        let mut state = old.state.lock();
        if !state.mapped.get(i) {
            return;
        }
        let (resident, pinned) = (state.resident.get(i), state.pinned.get(i));
        // Nothing is staged while a mapping moves, but what cannot be read.
        let staged = state.staged.get(i);
        let unread = staged && !state.backed.get(i);
        // One that cannot be read is lost, whatever was discarded there before.
        let now = self.shared.clock_ms();
        let removed = state.may_be_dropped(now).get(i) && !unread;
        let out = state.backed.get(i) && !resident;
        let slot = state.owner.as_ref().and_then(|owner| owner.slot(i)).filter(|_| out);
        // As if written to: at its new address it is shared with nobody, as far as is known.
        self.force_left(state.leave(engine, &Bitmap512::from_range(i, 1)));
        state.resident.clear(i);
        state.staged.clear(i);
        state.mapped.clear(i);
        state.pinned.clear(i);
        drop(state);
        self.uncharge(usize::from(staged));
        let mut bytes = [0u8; vswap_core::PAGE_SIZE];
        let mut lost = Lost::from(Reason::LeftBehind);
        let moved = !unread
            && slot.is_none_or(|slot| {
                let loaded =
                    engine.load(slot, &mut bytes, scratch).map_err(|error| lost = engine.lost(&error));
                loaded.is_ok() && self.store_at(new, j, &bytes, scratch)
            });
        old.state.lock().forget_backing(engine, i);
        let mut state = new.state.lock();
        state.mapped.set(j);
        state.pinned.assign(j, pinned);
        state.resident.assign(j, resident);
        if removed {
            // The discard goes by the former address: what it had not come to has moved here, and stays.
            match (!out).then(|| self.is_present(to)).flatten() {
                Some(true) if !resident => {
                    state.resident.set(j);
                    self.charge_forced(1);
                }
                Some(false) if resident => {
                    state.resident.clear(j);
                    self.uncharge(1);
                }
                _ => {}
            }
            // It may have moved on already.
            state.note_removed(&Bitmap512::single(j), now);
        }
        if !moved {
            self.shared.will_be_lost(self, to, lost);
            state.forget_removed(j);
            // Another event may be unread, so it cannot be poisoned yet. Down as resident, its first touch finds it nowhere.
            state.resident.set(j);
            self.charge_forced(1);
        }
    }

    fn store_at(
        &self,
        block: &Block,
        page: PageIndex,
        bytes: &vswap_core::Page,
        scratch: &mut vswap_engine::Scratch,
    ) -> bool {
        let engine = &self.shared.engine;
        let mut state = block.state.lock();
        let slot = state.owner.as_mut().and_then(|owner| owner.slot_for_store(engine, page).ok());
        // What it had at its former address is given up only after this, and its group may be at a limit.
        let stored = slot.is_some_and(|slot| engine.store_within(Bounds::None, slot, bytes, scratch).is_ok());
        state.backed.assign(page, stored);
        stored
    }

    /// Keeps the pages of `address..address + len` resident and writable from now on, bringing them in first.
    pub fn pin(&self, address: u64, len: u64) {
        let pages = pages_of(address, len);
        self.for_blocks(&pages, |block, pages| block.state.lock().pinned |= pages);
        self.bring_in(pages.start, pages.end - pages.start);
        // An event that is not read yet keeps it from being writable; none is read while a fork is under way.
        let deadline = std::time::Instant::now() + UNPROTECT_WITHIN;
        while !self.unprotect(&pages) && std::time::Instant::now() < deadline {
            self.drain();
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }

    /// Makes those of `pages` that are there writable, as a write to each would. `false` if an event must be read first.
    pub(crate) fn unprotect(&self, pages: &Range<u64>) -> bool {
        let mut whole = true;
        self.for_blocks(pages, |block, pages| {
            let mut state = block.state.lock();
            let shut = state.resident & (state.backed | state.cow) & pages;
            for page in shut.iter() {
                state.release_slot(&self.shared.engine, page);
            }
            self.force_left(state.leave(&self.shared.engine, &shut));
            // Under the block's lock, as at a first write. What is already dirty may still be protected from a try before.
            for (first, count) in (state.resident & pages).runs() {
                let lifted = self.uffd.lift(block.address(first), count as u64 * PAGE_BYTES, false);
                whole &= !lifted.is_err_and(|error| error.raw_os_error() == Some(libc_errno::EAGAIN))
                    || self.is_dead();
            }
        });
        whole
    }

    /// Makes the pages of `range` the first to be moved out.
    pub fn cool(&self, range: Range<u64>) {
        self.for_blocks(&range, |block, pages| {
            let mut state = block.state.lock();
            state.heat.forget(pages);
        });
    }

    /// Whether an eviction is in flight.
    pub fn is_moving(&self) -> bool {
        self.windows.lock().flying() > 0
    }

    /// Waits until no eviction is in flight whose pages the program has unmapped meanwhile, so that a new mapping at
    /// these addresses cannot be mistaken for the old one. Call before a new mapping is let happen.
    pub fn barrier_for_mapping(self: &Arc<Self>) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut turns = 0;
        while self.windows.lock().flying() > 0 && !self.is_dead() && std::time::Instant::now() < deadline {
            // Evictors that are not wanted any more leave what was answered late.
            self.shared.collect_late(self);
            turns += 1;
            if turns < YIELDS {
                std::thread::yield_now()
            } else {
                std::thread::sleep(std::time::Duration::from_micros(50))
            }
        }
    }

    /// Stops eviction here until the hold is dropped, after writing down what is staged.
    pub fn hold(self: &Arc<Self>) -> Hold {
        self.holds.fetch_add(1, Ordering::SeqCst);
        let hold = Hold { space: Arc::clone(self) };
        self.shared.finish_windows(self);
        hold
    }

    /// Ends eviction here for good, after writing down what is staged: the stub is about to go. From then on the space is
    /// read as that of thread `tid`.
    pub fn end_eviction(self: &Arc<Self>, tid: i32) {
        self.holds.fetch_add(1, Ordering::SeqCst);
        self.ended.store(true, Ordering::SeqCst);
        self.shared.finish_windows(self);
        self.reached_by.store(tid, Ordering::SeqCst);
    }

    /// Moves a window's bytes at page `page` into `bytes`, if the page is there. `ESRCH` if the stub's thread is gone, and with it all
    /// that it staged.
    pub(crate) fn try_read_staged(&self, window: u64, page: PageIndex, bytes: &mut [u8]) -> io::Result<()> {
        match procvm::read(self.pid(), window + page.byte_offset(), bytes)? {
            n if n == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Whether the window has what a doubtful page was before it was discarded. `None` while the page is in the program's page table.
    ///
    /// Nobody else installs it meanwhile, so what is not in the one can come to the other no more; in this order.
    pub(crate) fn has_former_copy(&self, block: &Block, state: &BlockState, page: PageIndex) -> Option<bool> {
        if self.is_present(block.address(page)) == Some(true) {
            return None;
        }
        let Some(window) = state.window.and_then(|window| self.filled_from(window)) else {
            return Some(false);
        };
        // Unknown: it is not to be used.
        Some(self.is_present(window + page.byte_offset()) != Some(false))
    }

    /// The address of a window, unless what was in it before lies there still: then nothing of the block whose window it is now has come there. A page that
    /// was missing from its place when this was asked does not come there either.
    pub(crate) fn filled_from(&self, window: usize) -> Option<u64> {
        let windows = self.windows.lock();
        let empty = windows.is_empty_yet(window, |discard| self.mover.has_emptied(discard));
        (!empty).then(|| windows.address(window))
    }

    /// Whether the page at `address` is in the program's page table. `None` if the kernel does not say.
    pub(crate) fn is_present(&self, address: u64) -> Option<bool> {
        let mut present = false;
        self.pagemap.present(address..address + PAGE_BYTES, |_| present = true).ok().map(|()| present)
    }

    /// Which pages of the 2 MiB at `base` are present in the program's page table.
    pub(crate) fn present_at(&self, base: u64) -> Option<Bitmap512> {
        let mut set = Bitmap512::EMPTY;
        let range = base..base + BLOCK_BYTES;
        let scanned = self.pagemap.present(range, |run| {
            let count = ((run.end - run.start) / PAGE_BYTES) as usize;
            set |= Bitmap512::from_range(PageIndex::of_addr(run.start), count.min(PAGES_PER_CLUSTER));
        });
        scanned.ok().map(|()| set)
    }
}

/// The whole pages that `address..address + len` touches, one at least.
pub(crate) fn pages_of(address: u64, len: u64) -> Range<u64> {
    let start = address & !(PAGE_BYTES - 1);
    start..address.saturating_add(len.max(1)).checked_next_multiple_of(PAGE_BYTES).unwrap_or(start)
}

/// Error numbers told apart here (`asm-generic/errno-base.h`).
pub(crate) mod libc_errno {
    pub const ENOENT: i32 = 2;
    pub const ESRCH: i32 = 3;
    pub const EAGAIN: i32 = 11;
    pub const EEXIST: i32 = 17;
}

/// While it lives nothing of its space is in flight or staged.
#[derive(Debug)]
pub struct Hold {
    pub(crate) space: Arc<Space>,
}

impl Hold {
    /// Stops the space for the moment in which the kernel copies its page table: from here to [`Hold::thaw`] (or the end
    /// of the hold) no page is installed and no event applied, so what is known of the parent's pages is true of
    /// the child's. Whatever the kernel writes for the fork must have been brought in before. Should the fork hang on something
    /// unforeseen, this ends by itself after a second and two for each 4 GiB of resident pages; not after [`Hold::stay_frozen`].
    pub fn freeze(&self) {
        self.space.frozen_until.store(self.space.freeze_until(), Ordering::SeqCst);
        // Whoever is past the look at it holds the gate: wait for that.
        drop(self.space.gate.write());
    }

    /// The kernel has copied the page table: no more of the fork can wait for a page here, so [`Hold::freeze`] does not end by
    /// itself any more. What is left is the child's half, and that takes seconds where many want the CPU. `false` if it was over
    /// already: then what is known of the parent's pages is no more what the child got.
    pub fn stay_frozen(&self) -> bool {
        let until = self.space.frozen_until.swap(u64::MAX, Ordering::SeqCst);
        // Whoever saw the old time holds the gate; after that the clock tells whether it was over for any of them.
        drop(self.space.gate.write());
        let frozen = until != 0 && self.space.shared.clock_ms() < until;
        if !frozen {
            self.thaw();
        }
        frozen
    }

    /// Ends [`Hold::freeze`].
    pub fn thaw(&self) {
        self.space.frozen_until.store(0, Ordering::SeqCst);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.thaw();
        self.space.holds.fetch_sub(1, Ordering::SeqCst);
        self.space.shared.budget.call_eviction();
    }
}
