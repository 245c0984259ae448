//! Eviction: choose, move to staging, give a second chance, write down, discard.
//!
//! The steps for one block: its victims are put *in flight* and a stub asked to move them to a free window; when it has,
//! the page map of the window says which lie there, and these are *staged*; when the window's turn comes, the dirty ones
//! are copied out and stored, and with that all of them are *out* and the window is discarded.
//! No step holds a lock while it waits for a stub, reads memory of the program, or compresses.

use crate::block::{Block, PAGE_BYTES};
use crate::link::Evicted;
use crate::pager::Shared;
use crate::space::{Space, libc_errno};
use crate::window::{Flight, Staged};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use vswap_core::{Bitmap512, PAGE_SIZE, Page, PageIndex, SlotId};
use vswap_engine::Scratch;
use vswap_sys::procvm::{PAGES_AT_ONCE, read_pages};
use vswap_sys::uffd::Install;

/// How long an evictor waits for a stub before it leaves the eviction in flight.
const PATIENCE: Duration = Duration::from_millis(20);

/// An evictor's own tools.
pub(crate) struct Tools {
    pub scratch: Scratch,
    buffer: Box<[Page]>,
}

impl Tools {
    pub fn new(shared: &Shared) -> Tools {
        Tools { scratch: shared.engine.scratch(), buffer: vec![[0; PAGE_SIZE]; PAGES_AT_ONCE].into() }
    }
}

/// How hard an evictor looks for victims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effort {
    /// Blocks with plenty of cold pages.
    Plenty,
    /// Any block with a cold page.
    Any,
    /// Young and hot pages too, and those that could not be moved before.
    Forced,
    /// Even pages that others share.
    Desperate,
}

impl Shared {
    /// Moves out one block's worth of pages and writes down what that displaces. `false` if nothing could be done.
    pub(crate) fn evict_some(&self, tools: &mut Tools, effort: Effort) -> bool {
        let rounds = self.clock.len();
        for _ in 0..rounds {
            let Some((id, block)) = self.clock.next() else { return false };
            let Some(space) = self.space(id) else { continue };
            self.collect_late(&space);
            let closed = space.is_dead() || space.unreadable.load(Relaxed) || space.holds.load(Relaxed) > 0;
            if closed || space.windows.lock().unanswered() > 0 {
                continue;
            }
            if self.evict_block(&space, &block, effort) {
                self.write_down_surplus(&space, tools);
                return true;
            }
        }
        false
    }

    /// Pages to take from a block at a time: small limits must not be emptied by one block.
    fn batch(&self) -> usize {
        (self.budget.reserve() as usize).clamp(32, 512)
    }

    fn evict_block(&self, space: &Arc<Space>, block: &Arc<Block>, effort: Effort) -> bool {
        let Some(window) = space.windows.lock().take_free() else { return false };
        let mut state = block.state.lock();
        let mut victims = Bitmap512::EMPTY;
        if state.window.is_none() && state.owner.is_some() {
            let force = effort >= Effort::Forced;
            if force {
                state.stuck = Bitmap512::EMPTY;
            }
            // Moved out of one owner, a shared page still is the other's, and takes room in the pool besides.
            let spare_shared = effort < Effort::Desperate && self.budget.is_tight();
            victims = state.choose_victims(self.batch(), force, spare_shared);
        }
        let least = if effort == Effort::Plenty { 16 } else { 1 };
        // A hold may have begun since the caller looked; it waits for windows that are taken, so look again.
        if victims.count() < least || space.holds.load(Relaxed) > 0 {
            drop(state);
            space.windows.lock().give_up(window);
            return false;
        }
        state.flight = victims;
        state.window = Some(window);
        // What is not managed is not ours to move: the stub's own stack may lie in the same 2 MiB.
        let strange = Bitmap512::FULL.and_not(&state.mapped);
        let avoid = (state.resident | state.busy | state.pinned | strange).and_not(&victims);
        let address = space.windows.lock().address(window);
        let Some(eviction) = space.mover.evict(block.base, address, &victims, &avoid) else {
            state.flight = Bitmap512::EMPTY;
            state.window = None;
            drop(state);
            space.windows.lock().give_up(window);
            return false;
        };
        drop(state);
        match space.mover.finish(eviction, PATIENCE) {
            Ok(evicted) => self.landed(space, block, window, &evicted),
            Err(eviction) => {
                let flight = Flight { window, block: Arc::clone(block), eviction };
                space.windows.lock().put_flight(flight);
                false
            }
        }
    }

    /// Sees to what a stub had no room for or answers late.
    pub(crate) fn collect_late(&self, space: &Arc<Space>) {
        let undiscarded = space.windows.lock().take_undiscarded();
        if let Some(window) = undiscarded {
            self.retire(space, window);
        }
        let Some(flight) = space.windows.lock().take_flight() else { return };
        match space.mover.finish(flight.eviction, Duration::ZERO) {
            Ok(evicted) => {
                self.landed(space, &flight.block, flight.window, &evicted);
            }
            Err(eviction) => space.windows.lock().put_flight(Flight { eviction, ..flight }),
        }
    }

    /// An eviction has happened: what lies in the window is staged. Returns whether anything is.
    fn landed(&self, space: &Space, block: &Arc<Block>, window: usize, evicted: &Evicted) -> bool {
        let address = space.windows.lock().address(window);
        // Only `DISCARD` of this window, which comes later, changes what lies in it from here on.
        let there = space.present_at(address).unwrap_or_else(|| {
            // Unknown: as if all lay there, and then nothing of it may be discarded.
            space.unreadable.store(true, Relaxed);
            Bitmap512::FULL
        });
        let mut state = block.state.lock();
        let moved = there & state.flight;
        let failed = evicted.failed & state.flight;
        state.stuck |= failed;
        self.counters.stuck.fetch_add(failed.count() as u64, Relaxed);
        state.flight = Bitmap512::EMPTY;
        // Pages in the window that were not (or no more) in flight: stale copies of pages that were taken back, or
        // pages installed meanwhile and taken unasked. The page table of the program tells which.
        let odd = there.and_not(&moved) & (state.resident | state.busy);
        let mut staged = moved;
        if !odd.is_empty() {
            let source = space.present_at(block.base).unwrap_or(Bitmap512::FULL);
            staged |= odd.and_not(&source);
        }
        state.staged |= staged;
        state.resident = state.resident.and_not(&staged);
        // Moved, they are this owner's alone; mostly the stub's unsharing has told that already.
        self.budget.force(state.leave(&staged));
        let any = !staged.is_empty();
        if !any {
            state.window = None;
        }
        drop(state);
        self.counters.evicted.fetch_add(staged.count() as u64, Relaxed);
        if any {
            let staged = Staged { window, block: Arc::clone(block), pages: staged.count() as u64 };
            self.staged.fetch_add(staged.pages, Relaxed);
            space.windows.lock().put_staged(staged);
            self.drop_staged_of_dead(space);
        } else {
            // Stale copies may lie in it.
            space.windows.lock().landed_empty();
            self.retire(space, window);
        }
        any
    }

    /// Discards a window of which nothing is wanted any more, and frees it; later, if the stub has no room for commands now.
    fn retire(&self, space: &Space, window: usize) {
        let address = space.windows.lock().address(window);
        let posted = space.mover.discard(address);
        let mut windows = space.windows.lock();
        if posted || space.is_dead() { windows.recycle(window) } else { windows.put_undiscarded(window) }
    }

    /// Writes down the windows that have been staged longest, until what is staged is a small part of the limit.
    fn write_down_surplus(&self, space: &Arc<Space>, tools: &mut Tools) {
        while self.staged.load(Relaxed) > self.budget.limit() / 32 && !space.unreadable.load(Relaxed) {
            let Some(staged) = self.take_staged(space) else { return };
            self.write_down(space, staged, tools);
        }
    }

    /// Writes down whatever is staged anywhere, oldest first. Returns whether there was anything.
    pub(crate) fn write_down_any(&self, tools: &mut Tools) -> bool {
        for space in self.all_spaces() {
            self.collect_late(&space);
            if space.unreadable.load(Relaxed) {
                continue;
            }
            if let Some(staged) = self.take_staged(&space) {
                self.write_down(&space, staged, tools);
                return true;
            }
        }
        false
    }

    /// Waits for what is in flight in `space` and writes down all that is staged; for a hold.
    pub(crate) fn finish_windows(&self, space: &Arc<Space>) {
        let mut tools = Tools::new(self);
        while !space.is_dead() && !self.stopping() && !space.unreadable.load(Relaxed) {
            self.collect_late(space);
            match self.take_staged(space) {
                Some(staged) => self.write_down(space, staged, &mut tools),
                None if space.windows.lock().all_free() => return,
                None => std::thread::sleep(Duration::from_micros(50)),
            }
        }
    }

    /// Takes the window of `space` that has been staged longest.
    pub(crate) fn take_staged(&self, space: &Space) -> Option<Staged> {
        let staged = space.windows.lock().take_staged()?;
        self.staged.fetch_sub(staged.pages, Relaxed);
        Some(staged)
    }

    /// Nobody writes down what a space has staged that was let go. Whoever lets it go says so before it calls this, whoever stages
    /// something puts it down before: one of the two finds it.
    pub(crate) fn drop_staged_of_dead(&self, space: &Space) {
        while space.is_dead() && self.take_staged(space).is_some() {}
    }

    /// Waits until no staged page is still being installed.
    ///
    /// A page may be taken unasked between its install and the handler's note of it. Only that note tells whether its
    /// backing still holds: let out before, a write would be lost and the note would call the page resident. No page
    /// that is staged becomes busy, so this is over once and for all.
    fn wait_for_installs(&self, space: &Space, block: &Block) {
        loop {
            let state = block.state.lock();
            if (state.staged & state.busy).is_empty() || space.is_dead() || self.stopping() {
                return;
            }
            drop(state);
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// Stores the dirty pages of a staged window, lets all of its pages be out, and discards it.
    fn write_down(&self, space: &Space, staged: Staged, tools: &mut Tools) {
        let (window, block) = (staged.window, &staged.block);
        self.wait_for_installs(space, block);
        let address = space.windows.lock().address(window);
        let before = block.state.lock().staged.count();
        let mut dirty_pages = 0;
        loop {
            let count = self.store_chunk(space, block, address, tools);
            if count == 0 {
                break;
            }
            dirty_pages += count;
        }
        let mut out = Bitmap512::EMPTY;
        loop {
            match self.let_out(space, block, address, tools, &mut out) {
                LetOut::Done => break,
                // An event must be read before pages can be put back.
                LetOut::Again => space.drain(),
                LetOut::Unreadable => {
                    // Discarded, they would be lost. Where they are, each fault can still try to get its page.
                    if !space.unreadable.swap(true, Relaxed) {
                        tracing::error!(
                            pid = space.pid,
                            "staged pages cannot be read: no more of it are moved out"
                        );
                    }
                    space.uncharge(out.count());
                    self.staged.fetch_add(staged.pages, Relaxed);
                    space.windows.lock().put_back(staged);
                    self.drop_staged_of_dead(space);
                    return;
                }
            }
        }
        self.retire(space, window);
        let clean = before.saturating_sub(dirty_pages);
        self.counters.evicted_clean.fetch_add(clean as u64, Relaxed);
        self.budget.set_pool(self.engine.pool_bytes());
        space.uncharge(out.count());
        self.room_came();
    }

    /// Stores up to 64 staged dirty pages. Returns how many it took in hand.
    fn store_chunk(&self, space: &Space, block: &Block, window: u64, tools: &mut Tools) -> usize {
        let mut chunk = [(PageIndex::of_addr(0), None::<SlotId>); PAGES_AT_ONCE];
        let mut addresses = [0u64; PAGES_AT_ONCE];
        let mut count = 0;
        let mut state = block.state.lock();
        let dirty = state.staged.and_not(&(state.backed | state.storing | state.stuck));
        for page in dirty.iter().take(PAGES_AT_ONCE) {
            let slot = state.owner.as_mut().and_then(|owner| owner.slot_for_store(&self.engine, page).ok());
            chunk[count] = (page, slot);
            addresses[count] = window + page.byte_offset();
            state.storing.set(page);
            count += 1;
        }
        drop(state);
        if count == 0 {
            return 0;
        }
        let buffer = tools.buffer.as_flattened_mut();
        let came = read_pages(space.pid, &addresses[..count], buffer).unwrap_or(0);
        let mut stored = Bitmap512::EMPTY;
        for (i, (page, slot)) in chunk[..came.min(count)].iter().enumerate() {
            let Some(slot) = slot else { continue };
            match self.engine.store(*slot, &tools.buffer[i], &mut tools.scratch) {
                Ok(_) => stored.set(*page),
                Err(error) => tracing::debug!(%error, "page cannot be stored and stays in memory"),
            }
        }
        let mut state = block.state.lock();
        for (page, slot) in &chunk[..count] {
            state.storing.clear(*page);
            let wanted = state.staged.get(*page);
            if wanted && stored.get(*page) {
                state.backed.set(*page);
            } else {
                if wanted {
                    state.stuck.set(*page);
                }
                if slot.is_some() {
                    state.release_slot(&self.engine, *page);
                }
            }
        }
        count
    }

    /// Lets the staged pages be out, and puts those that could not be stored back to where they were.
    fn let_out(
        &self,
        space: &Space,
        block: &Block,
        window: u64,
        tools: &mut Tools,
        out: &mut Bitmap512,
    ) -> LetOut {
        let mut state = block.state.lock();
        let gone = state.staged & state.backed;
        *out |= gone;
        self.terms.advance(self.counters.evicted.load(Relaxed), self.budget.charged());
        state.heat.go(gone, self.terms.now());
        state.staged = state.staged.and_not(&gone);
        if state.staged.is_empty() {
            state.window = None;
            return LetOut::Done;
        }
        drop(state);
        // To put pages back is to install them.
        let _gate = space.gate.read();
        let mut state = block.state.lock();
        for page in state.staged.iter() {
            let bytes = &mut tools.buffer[0];
            if !space.read_staged(window, page, bytes) {
                // An exit is seen here before anybody has told.
                if space.is_dead() || space.uffd.is_gone() {
                    break;
                }
                return LetOut::Unreadable;
            }
            let put = space.uffd.copy(block.address(page), bytes, Install::default());
            if put.is_err_and(|(_, error)| error.raw_os_error() == Some(libc_errno::EAGAIN))
                && !space.is_dead()
            {
                return LetOut::Again;
            }
            let _ = space.uffd.wake(block.address(page), PAGE_BYTES);
            state.staged.clear(page);
            state.resident.set(page);
        }
        state.window = None;
        LetOut::Done
    }
}

/// How letting the pages of a window be out ended.
enum LetOut {
    /// None is staged any more.
    Done,
    /// An event must be read first.
    Again,
    /// Pages that must go back cannot be read.
    Unreadable,
}
