//! Bringing a page in that is out, and those beside it.
//!
//! While the page is loaded no lock is held: it is *busy*. When it is installed, the gate is.

use crate::block::{Block, BlockState, PAGE_BYTES};
use crate::fault::{Fault, Hands, Outcome, charge_some};
use crate::install::{install_run, installed};
use crate::pager::Shared;
use crate::space::Space;
use crate::stats::FaultKind;
use parking_lot::MutexGuard;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use vswap_core::trail::{READAHEAD, Reach};
use vswap_core::{Back, Bitmap512, Event, PAGES_PER_CLUSTER, PageIndex, SlotId};
use vswap_engine::{Engine, Loaded, LoadedFrom, Lost, Reason};
use vswap_sys::uffd::Install;

/// Pages brought in by one fault at most.
pub(crate) const READAHEAD_MAX: usize = READAHEAD.2;

/// The loads of one fault.
struct Batch {
    run: Range<usize>,
    /// The page that the fault is at.
    asked: PageIndex,
    slots: [Option<SlotId>; READAHEAD_MAX],
    loaded: [Loaded; READAHEAD_MAX],
    installed: Bitmap512,
    /// Installed without write protection: the slot is let go.
    dirty: Bitmap512,
    /// Made unreadable.
    lost: Bitmap512,
    /// How soon after it went the page asked for is back.
    back: Back,
    /// Its slot is this owner's alone.
    sole: bool,
    /// They come because the program reads on, not because they are asked to stay.
    read_on: bool,
}

impl Batch {
    /// Whether the page is to have no backing any more. A lone page that was compressed in memory: most of these come back
    /// by random access, their copies would take room that pages could have, and the first write to each would cost a fault;
    /// compressing them again costs less, and on another CPU. A run is kept: reading on, a program leaves it unwritten.
    /// A page from a tier is kept there, unless it is `promoted`. One that others share since a fork stays shared.
    fn is_exclusive(&self, promoted: impl FnOnce(Back) -> bool) -> bool {
        if !self.sole || self.run.len() != 1 {
            return false;
        }
        match self.loaded[self.at()] {
            Some(Ok(LoadedFrom::Pool)) => true,
            Some(Ok(LoadedFrom::Segment)) => promoted(self.back),
            _ => false,
        }
    }

    /// The position of the page asked for.
    fn at(&self) -> usize {
        self.asked.get() - self.run.start
    }

    /// Why a page did not come.
    fn why(&self, page: PageIndex, engine: &Engine) -> Lost {
        match &self.loaded[page.get() - self.run.start] {
            Some(Err(error)) => engine.lost(error),
            _ => Reason::Nowhere.into(),
        }
    }

    /// The first page.
    fn start(&self) -> PageIndex {
        PageIndex::of_addr(self.run.start as u64 * PAGE_BYTES)
    }
}

/// Pages of a block whose bytes are in their slots only, and that nobody is at.
pub(crate) fn out_of(state: &BlockState) -> Bitmap512 {
    let taken = state.resident | state.staged | state.busy;
    (state.mapped & state.backed).and_not(&taken)
}

impl Shared {
    /// A page that is out: load it, and those after it, or before it, if the program reads on.
    pub(crate) fn swap_in(
        &self,
        space: &Space,
        block: &Block,
        state: MutexGuard<BlockState>,
        page: PageIndex,
        hands: &mut Hands,
        fault: Fault,
    ) -> Outcome {
        let reach = state.trail.reach(page, &state.resident, READAHEAD);
        self.bring_run(space, block, state, (page, reach), hands, fault)
    }

    /// Loads a page that is out and those within reach.
    pub(crate) fn bring_run(
        &self,
        space: &Space,
        block: &Block,
        mut state: MutexGuard<BlockState>,
        (page, reach): (PageIndex, Reach),
        hands: &mut Hands,
        fault: Fault,
    ) -> Outcome {
        let wanted = reach.run(&out_of(&state), page, self.modest(reach.most));
        let Some(charged) = charge_some(space, wanted, page, fault.by_stub) else { return Outcome::NoRoom };
        let whole = charged.len() == READAHEAD_MAX || charged.start == 0 || charged.end == PAGES_PER_CLUSTER;
        let mut slots = [None; READAHEAD_MAX];
        for (slot, at) in slots.iter_mut().zip(charged.clone()) {
            *slot = state.owner.as_ref().zip(PageIndex::new(at)).and_then(|(owner, page)| owner.slot(page));
        }
        // A page that is not going to come is not made busy: a fault at it would wait for this read and then for its own.
        let asked = page.get() - charged.start;
        let part = self.engine.come_together(&slots[..charged.len()], asked, &hands.scratch);
        slots.copy_within(part.clone(), 0);
        slots[part.len()..].fill(None);
        let run = charged.start + part.start..charged.start + part.end;
        let too_many = charged.len() - run.len();
        state.trail.went(run.clone(), reach);
        let mut batch = Batch {
            run,
            asked: page,
            slots,
            loaded: [const { None }; READAHEAD_MAX],
            installed: Bitmap512::EMPTY,
            dirty: Bitmap512::EMPTY,
            lost: Bitmap512::EMPTY,
            back: state.heat.since_gone(page, self.terms.now()),
            sole: state.owner.as_ref().is_some_and(|owner| owner.is_sole(&self.engine, page)),
            read_on: reach.reads_on() && !fault.to_stay,
        };
        let pages = Bitmap512::from_range(batch.start(), batch.run.len());
        state.busy |= pages;
        state.loading |= pages;
        drop(state);
        space.uncharge(too_many);
        if reach.most == READAHEAD_MAX && whole && !fault.ahead && !fault.to_stay {
            self.ask_ahead(space, block.base, &batch.run, reach.down, fault.write);
        }
        self.load(&mut batch, hands);
        let gate = space.gate.read();
        if !space.is_frozen() {
            let lone = !fault.ahead && batch.is_exclusive(|back| self.promotes(back));
            let writable = fault.write || lone;
            self.install(space, block, &mut batch, hands, writable);
        }
        let outcome = self.commit(space, block, &mut batch, hands, fault);
        drop(gate);
        for page in batch.lost.iter() {
            self.is_lost(space, block.address(page), batch.why(page, &self.engine));
        }
        outcome
    }

    /// Whether a page that was read from a tier is let go of there.
    fn promotes(&self, back: Back) -> bool {
        self.promotions.earn();
        let promoted = self.pool_has_room() || back.is_soon() && self.promotions.spend();
        self.counters.promoted.fetch_add(u64::from(promoted), Relaxed);
        promoted
    }

    fn load(&self, batch: &mut Batch, hands: &mut Hands) {
        let asked = batch.at();
        match (&batch.slots[..batch.run.len()], &mut hands.pages[0]) {
            // A page alone is not worth the long read of a run.
            ([Some(slot)], page) => batch.loaded[0] = Some(self.engine.load(*slot, page, &mut hands.scratch)),
            (slots, _) => {
                self.engine.load_run(slots, asked, &mut hands.pages, &mut batch.loaded, &mut hands.scratch);
            }
        }
        for error in batch.loaded.iter().flatten().filter_map(|result| result.as_ref().err()) {
            tracing::debug!(%error, "a page cannot be read back");
        }
    }

    /// Copies the loaded pages into place, in runs that end at a page that must not be installed.
    fn install(&self, space: &Space, block: &Block, batch: &mut Batch, hands: &Hands, writable: bool) {
        // Events are applied under the gate that the caller holds, so nobody cancels a page from here on.
        let cancelled = block.state.lock().cancelled;
        let first = batch.run.start;
        let fit = |at: usize| {
            matches!(batch.loaded[at - first], Some(Ok(_)))
                && PageIndex::new(at).is_some_and(|page| !cancelled.get(page))
        };
        let how = Install { protect: !writable, no_wake: true };
        let came = install_run(batch.run.clone(), batch.asked, fit, |start, count| {
            let bytes = hands.pages[start.get() - first..][..count].as_flattened();
            installed(space.uffd.copy(block.address(start), bytes, how), count)
        });
        batch.installed = came.pages;
        // If for a write: who writes page after page would only be stopped at each of them.
        batch.dirty = if writable { came.pages } else { came.found };
    }

    fn commit(
        &self,
        space: &Space,
        block: &Block,
        batch: &mut Batch,
        hands: &mut Hands,
        fault: Fault,
    ) -> Outcome {
        let all = Bitmap512::from_range(batch.start(), batch.run.len());
        let mut state = block.state.lock();
        let gone = state.end_load(&self.engine, &all);
        // A page that an eviction took just after it was installed is staged already.
        let came = batch.installed.and_not(&state.staged);
        state.resident |= came;
        let now = self.terms.now();
        let (soon, late) = state.heat.returned(batch.installed, now);
        self.passing.insertion.came_back(soon, late, now);
        state.heat.install(came);
        for page in batch.dirty.iter() {
            state.release_slot(&self.engine, page);
        }
        if batch.installed.get(batch.asked) && !fault.ahead {
            state.heat.come_back(batch.asked, batch.back);
        }
        if batch.read_on && !came.is_empty() && self.passes_by(space, block.base, &came) {
            state.heat.pass_by(came);
        }
        let mut lost = Bitmap512::EMPTY;
        for (i, page) in all.iter().enumerate() {
            // Down as stored and no slot: that must not be, but its reader is not to ask for ever.
            let nowhere = i == batch.at() && batch.slots[i].is_none();
            let failed = matches!(batch.loaded[i], Some(Err(_))) || nowhere;
            // What nobody has asked for yet is tried again by whoever does.
            if failed && !fault.ahead && !gone.get(page) {
                lost.set(page);
            }
        }
        drop(state);
        space.uncharge(all.and_not(&batch.installed).count());
        for page in lost.iter() {
            // If it cannot be, its reader asks again, and finds the same or an event that explains it.
            if space.uffd.poison(block.address(page), PAGE_BYTES).is_ok() {
                batch.lost.set(page);
            }
        }
        // Threads may have come to wait for any of these pages while they were busy.
        hands.owe(block.address(batch.start()), batch.run.len() as u64 * PAGE_BYTES);
        let beside = batch.installed.count() - usize::from(batch.installed.get(batch.asked) && !fault.ahead);
        self.counters.read_ahead.fetch_add(beside as u64, Relaxed);
        self.counters.refaulted.fetch_add(batch.installed.count() as u64, Relaxed);
        let group = space.charged.get().group();
        self.count_in_group(group, Event::Refault, batch.installed.count());
        if fault.ahead || !(batch.installed | lost).get(batch.asked) {
            return Outcome::Done;
        }
        let kind = match batch.loaded[batch.at()] {
            Some(Ok(LoadedFrom::Segment)) => FaultKind::Segment,
            Some(Ok(LoadedFrom::Fill | LoadedFrom::Empty)) => FaultKind::Fill,
            _ => FaultKind::Pool,
        };
        if batch.back.is_soon() {
            self.counters.soon[usize::from(kind == FaultKind::Segment)].fetch_add(1, Relaxed);
            self.count_in_group(group, Event::Activate, 1);
        }
        let time = fault.since.elapsed();
        if kind == FaultKind::Segment && !fault.waited {
            self.counters.stall(time);
        }
        self.answered(space, kind, fault, time);
        Outcome::Done
    }
}
