//! Eviction: choose, move to staging, give a second chance, write down, discard.
//!
//! The steps for one block: its victims are put *in flight* and a stub asked to move them to a free window; when it has,
//! the page map of the window says which lie there, and these are *staged*; when the window's turn comes, the dirty ones
//! are copied out and stored, and with that all of them are *out* and the window is discarded.
//! No step holds a lock while it waits for a stub, reads memory of the program, or compresses.

use crate::block::{Block, PAGE_BYTES};
use crate::install::installed;
use crate::link::{Discard, Evicted};
use crate::pager::Shared;
use crate::sharing::{Parting, Sharing};
use crate::space::Space;
use crate::window::{Flight, Staged};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use vswap_core::{Bitmap512, PAGE_SIZE, Page, PageIndex, SlotId};
use vswap_engine::Scratch;
use vswap_sys::process;
use vswap_sys::procvm::{PAGES_AT_ONCE, read_pages};
use vswap_sys::uffd::Install;

/// How long an evictor waits for a stub before it leaves the eviction in flight.
const PATIENCE: Duration = Duration::from_millis(20);

/// An evictor's own tools.
pub(crate) struct Tools {
    pub scratch: Scratch,
    buffer: Box<[Page]>,
    /// What a slot holds, to be compared.
    other: Box<Page>,
    /// Evictions before blocks with plenty of cold pages are looked for again.
    sparse: usize,
    progress: Progress,
    /// Pages are moved ahead of need: none is left stuck for it, for when there is need it may be otherwise.
    ahead: bool,
    /// Pages of the window being written down that could not be stored.
    unstored: Bitmap512,
}

/// What came of what was written down.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Pages that are out.
    pub out: u64,
    /// Pages that could not be stored and were put back where they were.
    pub put_back: u64,
}

impl Progress {
    /// What has come since `before`.
    pub fn since(self, before: Progress) -> Progress {
        Progress { out: self.out - before.out, put_back: self.put_back - before.put_back }
    }
}

impl Tools {
    pub fn new(shared: &Shared) -> Tools {
        let buffer = vec![[0; PAGE_SIZE]; PAGES_AT_ONCE].into();
        Tools {
            scratch: shared.engine.scratch(),
            buffer,
            other: Box::new([0; PAGE_SIZE]),
            sparse: 0,
            progress: Progress::default(),
            ahead: false,
            unstored: Bitmap512::EMPTY,
        }
    }

    /// Of whoever moves pages ahead of need.
    pub fn ahead(shared: &Shared) -> Tools {
        Tools { ahead: true, ..Tools::new(shared) }
    }

    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether since `before` pages were moved only to be put back: that is to count as nothing done, or it would go on for ever.
    pub fn is_futile_since(&self, before: Progress) -> bool {
        let since = self.progress.since(before);
        since.out == 0 && since.put_back > 0
    }

    /// Whether there was no block with plenty of cold pages a short while ago; asked once for each eviction.
    pub fn is_sparse(&mut self) -> bool {
        let sparse = self.sparse > 0;
        self.sparse = self.sparse.saturating_sub(1);
        sparse
    }

    /// A whole turn of the hand over `blocks` found none with plenty: not again before that is paid for. A thousand sparse blocks,
    /// a few pages each of many children, were all looked at for each page that was moved out.
    pub fn found_sparse(&mut self, blocks: usize) {
        self.sparse = blocks / 32;
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
}

/// Which pages of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Among<'a> {
    /// Any.
    All,
    /// Those that pass by.
    Passing,
    /// These of a relative's, if it still has them in common.
    Common(&'a Bitmap512),
}

impl Shared {
    /// Moves out one block's worth of pages and writes down what that displaces. `false` if nothing could be done.
    pub(crate) fn evict_some(&self, tools: &mut Tools, effort: Effort) -> bool {
        let rounds = self.clock.len();
        for _ in 0..rounds {
            let Some((id, block)) = self.clock.next() else { return false };
            // Of a hundred children most blocks are like this: everything out.
            if block.state.lock().is_out() {
                continue;
            }
            let Some(space) = self.space(id) else { continue };
            if self.evict_from(&space, &block, effort, (self.batch(), Among::All), tools) {
                return true;
            }
        }
        false
    }

    /// Moves up to `most` pages of a block out, of `among` only, and what others have of them. `false` if there were none.
    pub(crate) fn evict_from(
        &self,
        space: &Arc<Space>,
        block: &Arc<Block>,
        effort: Effort,
        (most, among): (usize, Among<'_>),
        tools: &mut Tools,
    ) -> bool {
        self.collect_late(space);
        if !self.is_open(space) {
            return false;
        }
        // Others keep what is staged in all too small for its windows to be written down: nothing more would leave it.
        if !space.windows.lock().any_free() {
            self.write_down_one(space, tools);
        }
        let Some(shared) = self.evict_block(space, block, effort, (most, among), tools.ahead) else {
            return false;
        };
        if let Some((sharing, pages)) = shared {
            self.evict_from_others(block, &sharing, &pages, effort, tools);
        }
        self.write_down_surplus(space, tools);
        true
    }

    /// Pages that one owner has left are to leave the others' memory too: else nothing was gained.
    fn evict_from_others(
        &self,
        left: &Arc<Block>,
        sharing: &Sharing,
        pages: &Bitmap512,
        effort: Effort,
        tools: &mut Tools,
    ) {
        for (id, block) in sharing.members() {
            if let Some(space) = self.space(id).filter(|space| self.is_open(space))
                && !Arc::ptr_eq(left, &block)
            {
                let among = Among::Common(pages);
                self.evict_block(&space, &block, effort.max(Effort::Any), (self.batch(), among), tools.ahead);
                if self.budget.is_tight() {
                    // Each owner's are in memory once more until they are written down: one owner's at a time.
                    while self.write_down_one(&space, tools) {}
                } else {
                    self.write_down_surplus(&space, tools);
                }
            }
        }
    }

    /// Pages that relatives have in common with `block` and that cannot be moved out of them now, whether the space is held or
    /// its stub is: moved out of this one, they would take room twice.
    fn anchored(&self, block: &Arc<Block>) -> Bitmap512 {
        let sharing = block.state.lock().sharing.clone();
        let mut anchored = Bitmap512::EMPTY;
        for (id, other) in sharing.iter().flat_map(|sharing| sharing.members()) {
            if !Arc::ptr_eq(&other, block)
                && self.space(id).is_some_and(|space| !space.is_dead() && !self.is_open(&space))
            {
                let other = other.state.lock();
                anchored |= other.cow | other.flight;
            }
        }
        anchored
    }

    /// Whether pages of the space can be moved now.
    fn is_open(&self, space: &Space) -> bool {
        let closed = space.is_dead() || space.unreadable.load(Relaxed) || space.holds.load(Relaxed) > 0;
        !closed && space.windows.lock().unanswered() == 0
    }

    /// Pages to take from a block at a time: small limits must not be emptied by one block.
    pub(crate) fn batch(&self) -> usize {
        (self.budget.reserve() as usize).clamp(32, 512)
    }

    /// Moves up to `most` pages of a block to staging, of `among` only, because of need or `ahead` of it. `None` if there were none; else
    /// what others share, if they do.
    fn evict_block(
        &self,
        space: &Arc<Space>,
        block: &Arc<Block>,
        effort: Effort,
        (most, among): (usize, Among<'_>),
        ahead: bool,
    ) -> Option<Option<(Arc<Sharing>, Bitmap512)>> {
        let tight = self.budget.is_tight();
        // While room is short, only pages that make some at once are looked for first; of the others a few go at a time.
        let common = matches!(among, Among::Common(_));
        let spared = !common && effort == Effort::Plenty && tight;
        let anchored = if spared { Bitmap512::EMPTY } else { self.anchored(block) };
        let window = space.windows.lock().take_free()?;
        let mut state = block.state.lock();
        let mut victims = Bitmap512::EMPTY;
        if state.window.is_none() && state.owner.is_some() {
            if effort == Effort::Forced {
                state.retry_stuck(self.clock_ms());
            }
            // Shared pages take more room until the last owner's have gone: few at a time.
            let (among, passing) = match among {
                Among::All => (Bitmap512::FULL, false),
                Among::Passing => (state.heat.passing(), true),
                Among::Common(pages) => (*pages, false),
            };
            let shared = among & state.cow.and_not(&state.alone());
            let wanted = if spared {
                among.and_not(&shared)
            } else if !common {
                among.and_not(&(shared & anchored))
            } else {
                // Of a relative's pages only those that it still has in common.
                (among & state.cow).and_not(&anchored)
            };
            // What cannot be stored would only come back.
            let wanted =
                if self.is_swap_full(space.charged.get().group()) { wanted & state.backed } else { wanted };
            let most = match (spared || shared.is_empty(), tight) {
                (true, _) => most,
                (false, false) => most / 4,
                (false, true) => (self.budget.reserve() as usize / 8).clamp(8, 64).min(most),
            };
            victims = state.choose_victims(&wanted, most, passing || effort == Effort::Forced);
        }
        let least = if effort == Effort::Plenty { 16 } else { 1 };
        // A hold may have begun since the caller looked; it waits for windows that are taken, so look again.
        if victims.count() < least || space.holds.load(Relaxed) > 0 {
            drop(state);
            space.windows.lock().give_up(window);
            return None;
        }
        state.begin_flight(window, victims, self.clock_ms());
        // What is not managed is not ours to move: the stub's own stack may lie in the same 2 MiB.
        let strange = Bitmap512::FULL.and_not(&state.mapped);
        let avoid = (state.resident | state.busy | state.pinned | strange).and_not(&victims);
        let address = space.windows.lock().address(window);
        let Some(eviction) = space.mover.evict(block.base, address, &victims, &avoid) else {
            state.leave_window();
            drop(state);
            space.windows.lock().give_up(window);
            return None;
        };
        // The stub will make them the program's own.
        let (others, parting) = state.part(&self.engine, &victims);
        space.force_left(others);
        drop(state);
        let parted = parting.as_ref().filter(|_| others > 0);
        let shared = parted.map(|parting| (Arc::clone(parting.sharing()), parting.pages()));
        match space.mover.finish(eviction, PATIENCE) {
            Ok(evicted) => self.landed(space, block, window, (&evicted, ahead), parting).then_some(shared),
            Err(eviction) => {
                let flight = Flight { window, block: Arc::clone(block), eviction, parting, ahead };
                space.windows.lock().put_flight(flight);
                None
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
                self.landed(space, &flight.block, flight.window, (&evicted, flight.ahead), flight.parting);
            }
            Err(eviction) => space.windows.lock().put_flight(Flight { eviction, ..flight }),
        }
    }

    /// An eviction has happened: what lies in the window is staged. Returns whether anything is.
    fn landed(
        &self,
        space: &Space,
        block: &Arc<Block>,
        window: usize,
        (evicted, ahead): (&Evicted, bool),
        parting: Option<Parting>,
    ) -> bool {
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
        let missing = (state.flight & state.may_be_dropped(self.clock_ms())).and_not(&(moved | failed));
        if !missing.is_empty()
            && let Some(source) = space.present_at(block.base)
        {
            // Dropped by a discard that was read before they came.
            let (freed, others) = state.discard(&self.engine, missing.and_not(&source));
            space.uncharge_shared(freed, others);
        }
        if !ahead {
            state.stuck |= failed;
        }
        self.counters.stuck.fetch_add(failed.count() as u64, Relaxed);
        // Pages in the window that were not (or no more) in flight: stale copies of pages that were taken back, or
        // pages installed meanwhile and taken unasked. The page table of the program tells which; not of those that were discarded and have come
        // again, which it may have dropped since.
        let odd = there.and_not(&(moved | state.stale)) & (state.resident | state.busy);
        state.end_flight();
        let mut staged = moved;
        if !odd.is_empty() {
            let source = space.present_at(block.base).unwrap_or(Bitmap512::FULL);
            staged |= odd.and_not(&source);
        }
        state.staged |= staged;
        state.resident = state.resident.and_not(&staged);
        // Taken unasked, they are this owner's alone as well.
        space.force_left(state.leave(&self.engine, &staged));
        let any = !staged.is_empty();
        if !any {
            state.leave_window();
        }
        drop(state);
        self.counters.evicted.fetch_add(staged.count() as u64, Relaxed);
        if any {
            let (pages, since) = (staged.count() as u64, self.now());
            let staged = Staged { window, block: Arc::clone(block), pages, since, parting };
            self.staged.fetch_add(staged.pages, Relaxed);
            space.windows.lock().put_staged(staged);
            self.drop_staged_of_dead(space);
        } else {
            space.windows.lock().landed_empty();
            if there.is_empty() {
                space.windows.lock().recycle(window, Discard::Done);
            } else {
                // Stale copies lie in it.
                self.retire(space, window);
            }
        }
        any
    }

    /// Discards a window of which nothing is wanted any more, and frees it; later, if the stub has no room for commands now.
    fn retire(&self, space: &Space, window: usize) {
        let address = space.windows.lock().address(window);
        let posted = space.mover.discard(address);
        let mut windows = space.windows.lock();
        match posted.or(space.is_dead().then_some(Discard::Done)) {
            Some(discard) => windows.recycle(window, discard),
            None => windows.put_undiscarded(window),
        }
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
            if self.write_down_one(&space, tools) {
                return true;
            }
        }
        false
    }

    /// Writes the window of `space` down that has been staged longest. `false` if there is none.
    pub(crate) fn write_down_one(&self, space: &Space, tools: &mut Tools) -> bool {
        if space.unreadable.load(Relaxed) {
            return false;
        }
        let staged = self.take_staged(space);
        let any = staged.is_some();
        staged.into_iter().for_each(|staged| self.write_down(space, staged, tools));
        any
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
    fn write_down(&self, space: &Space, mut staged: Staged, tools: &mut Tools) {
        let (window, block) = (staged.window, &Arc::clone(&staged.block));
        self.wait_for_installs(space, block);
        let address = space.windows.lock().address(window);
        let before = block.state.lock().staged.count();
        let mut dirty_pages = 0;
        tools.unstored = Bitmap512::EMPTY;
        loop {
            let count = self.store_chunk(space, block, address, staged.parting.as_mut(), tools);
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
        if tools.ahead {
            let mut state = block.state.lock();
            state.stuck = state.stuck.and_not(&tools.unstored);
        }
        self.retire(space, window);
        tools.progress.out += out.count() as u64;
        let clean = before.saturating_sub(dirty_pages);
        self.counters.evicted_clean.fetch_add(clean as u64, Relaxed);
        self.count_compressed();
        space.uncharge(out.count());
        self.room_came();
    }

    /// Stores up to 64 staged dirty pages. Returns how many it took in hand.
    fn store_chunk(
        &self,
        space: &Space,
        block: &Block,
        window: u64,
        mut parting: Option<&mut Parting>,
        tools: &mut Tools,
    ) -> usize {
        let mut chunk = [(PageIndex::of_addr(0), Place::None); PAGES_AT_ONCE];
        let mut addresses = [0u64; PAGES_AT_ONCE];
        let mut count = 0;
        let mut state = block.state.lock();
        let dirty = state.staged.and_not(&(state.backed | state.storing | state.stuck));
        for page in dirty.iter().take(PAGES_AT_ONCE) {
            let relatives = parting.as_mut().and_then(|parting| parting.inherit(page));
            let place = relatives.map(Place::Relatives).or_else(|| {
                let slot = state.owner.as_mut()?.slot_for_store(&self.engine, page);
                slot.ok().map(Place::Own)
            });
            chunk[count] = (page, place.unwrap_or(Place::None));
            addresses[count] = window + page.byte_offset();
            state.storing.set(page);
            count += 1;
        }
        drop(state);
        if count == 0 {
            return 0;
        }
        let buffer = tools.buffer.as_flattened_mut();
        let came = read_pages(space.pid(), &addresses[..count], buffer).unwrap_or(0);
        let (mut stored, mut changed) = (Bitmap512::EMPTY, Bitmap512::EMPTY);
        for (i, (page, place)) in chunk[..came.min(count)].iter().enumerate() {
            match *place {
                Place::Own(slot) => match self.store(slot, &tools.buffer[i], &mut tools.scratch) {
                    Ok(()) => stored.set(*page),
                    Err(error) => tracing::debug!(%error, "page cannot be stored and stays in memory"),
                },
                Place::Relatives(slot) => {
                    let loaded = self.engine.load(slot, &mut tools.other, &mut tools.scratch);
                    let same = loaded.is_ok() && *tools.other == tools.buffer[i];
                    if same { stored.set(*page) } else { changed.set(*page) }
                }
                Place::None => {}
            }
        }
        let mut state = block.state.lock();
        for (page, place) in &chunk[..count] {
            state.storing.clear(*page);
            let wanted = state.staged.get(*page);
            match *place {
                Place::Relatives(slot) if wanted && stored.get(*page) => {
                    state.adopt(&self.engine, *page, slot);
                    self.counters.adopted.fetch_add(1, Relaxed);
                }
                Place::Own(slot) if wanted && stored.get(*page) => {
                    state.backed.set(*page);
                    if let Some(parting) = &mut parting {
                        parting.bequeath(*page, slot);
                    }
                }
                Place::Relatives(slot) => self.engine.let_slot_go(slot),
                Place::Own(_) => state.release_slot(&self.engine, *page),
                Place::None => {}
            }
            // What has changed since the fork is stored like any other, next time.
            if wanted && !(stored | changed).get(*page) {
                state.stuck.set(*page);
                tools.unstored.set(*page);
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
        let now = self.terms.now();
        self.passing.insertion.went(state.heat.go(gone, now), now);
        state.staged = state.staged.and_not(&gone);
        if state.staged.is_empty() {
            state.leave_window();
            return LetOut::Done;
        }
        drop(state);
        // To put pages back is to install them.
        let _gate = space.gate.read();
        let mut state = block.state.lock();
        for page in state.staged.iter() {
            let bytes = &mut tools.buffer[0];
            if let Err(error) = space.try_read_staged(window, page, bytes) {
                // An exit is seen here before anybody has told.
                if space.is_dead() || process::is_gone(&error) {
                    break;
                }
                return LetOut::Unreadable;
            }
            let put = installed(space.uffd.copy(block.address(page), bytes, Install::default()), 1);
            if put.is_refused() && !space.is_dead() {
                return LetOut::Again;
            }
            let _ = space.uffd.wake(block.address(page), PAGE_BYTES);
            tools.progress.put_back += 1;
            if put.done == 0 {
                // It is lost, and its reader is to be told.
                state.forget_removed(page);
            }
            state.staged.clear(page);
            state.resident.set(page);
        }
        state.leave_window();
        LetOut::Done
    }
}

/// Where a page's bytes are to go.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Nowhere: there is no slot.
    None,
    /// To this slot.
    Own(SlotId),
    /// They are in this slot of a relative already, of which this is an ownership, unless they have changed.
    Relatives(SlotId),
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
