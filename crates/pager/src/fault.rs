//! Resolving a fault, from outside, without allocating and without waiting for a stub.
//!
//! Every path takes the space's gate for reading, then the block's lock, decides by the sets of [`BlockState`], and
//! installs under the gate. A load from a backing happens under neither, with the page marked busy.

use crate::block::{BLOCK_BYTES, Block, BlockState, PAGE_BYTES};
use crate::install::{Installed, install_beside, installed};
use crate::pager::Shared;
use crate::space::{Space, libc_errno};
use crate::stats::FaultKind;
use crate::swap_in::READAHEAD_MAX;
use parking_lot::MutexGuard;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use vswap_core::trail::{run_around, run_length};
use vswap_core::{Back, Bitmap512, PAGE_SIZE, Page, PageIndex};
use vswap_engine::{Reason, Scratch};
use vswap_sys::mapping::Mapping;
use vswap_sys::uffd::Install;

/// Zero pages given by one fault at most.
const ZERO_AHEAD_MAX: usize = 256;
/// Zero pages given by a fault alone, by one that goes on where another ended at least, and at most.
const ZERO_AHEAD: (usize, usize, usize) = (8, 16, ZERO_AHEAD_MAX);
/// What a fault costs its thread besides the time in the handler: until that has read it, and until the thread goes on. On one CPU; measured.
const WAKING: Duration = Duration::from_micros(6);
/// Clean pages that one write fault makes dirty when the program writes page after page.
const WRITE_AHEAD: usize = 16;

/// A fault to resolve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub address: u64,
    pub write: bool,
    pub protected: bool,
    /// Of the stub, at pages that it is to move: it must not wait for the room that it is about to make.
    pub by_stub: bool,
    /// Of nobody: the page will be asked for soon.
    pub ahead: bool,
    /// Of nobody: the page is to be there from now on.
    pub to_stay: bool,
    /// It has waited for room; the wait is counted when it is over.
    pub waited: bool,
    pub since: Instant,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The thread goes on (or will ask again by itself).
    Done,
    /// An event must be read first.
    Again,
    /// There is no room: to be tried again when there is.
    NoRoom,
}

/// A handler's own tools, made before the first fault.
pub(crate) struct Hands {
    pub scratch: Scratch,
    pub pages: Box<[Page]>,
    /// Zeroes to copy. Never written, so no memory of ours.
    zeroes: Option<Mapping>,
    /// Of a quick handler.
    pub quick: bool,
    /// Addresses whose waiters are to be woken. Whoever is woken may take the CPU at once, so that happens when no lock is held:
    /// the gate above all, for which the other handlers would wait.
    owed: Option<Range<u64>>,
}

impl Hands {
    pub fn new(shared: &Shared, quick: bool) -> Hands {
        let pages = vec![[0; PAGE_SIZE]; READAHEAD_MAX].into();
        let zeroes = Mapping::anonymous(ZERO_AHEAD_MAX * PAGE_SIZE).ok();
        // Read only, they stay the kernel's one page of zeroes, unless it makes a huge page of them.
        zeroes.iter().for_each(|zeroes| zeroes.huge_pages(false));
        Hands { scratch: shared.engine.scratch_for_runs(), pages, zeroes, quick, owed: None }
    }

    /// Those who wait for `address..address + len` are to be woken once the locks are free.
    pub(crate) fn owe(&mut self, address: u64, len: u64) {
        let owed = self.owed.take().unwrap_or(address..address);
        self.owed = Some(owed.start.min(address)..owed.end.max(address + len));
    }

    /// Wakes whom it owes that. All locks are free.
    pub fn pay(&mut self, space: &Space) {
        if let Some(owed) = self.owed.take() {
            let _ = space.uffd.wake(owed.start, owed.end - owed.start);
        }
    }
}

impl Shared {
    /// Resolves one fault.
    pub(crate) fn resolve(&self, space: &Space, hands: &mut Hands, fault: Fault) -> Outcome {
        let Some(block) = space.block(fault.address) else { return self.stranger(hands, fault) };
        let page = PageIndex::of_addr(fault.address);
        let gate = space.gate.read();
        if space.is_frozen() {
            // It comes again until the fork is over.
            return self.stranger(hands, fault);
        }
        let state = block.state.lock();
        if fault.protected {
            return self.first_write(space, state, page, hands, fault);
        }
        if state.busy.get(page) {
            return Outcome::Done;
        }
        if !state.mapped.get(page) {
            return self.stranger(hands, fault);
        }
        if state.staged.get(page) || state.resident.get(page) {
            return self.take_back(space, &block, state, page, hands, fault);
        }
        if state.backed.get(page) {
            drop(gate);
            return self.swap_in(space, &block, state, page, hands, fault);
        }
        self.first_touch(space, &block, state, page, hands, fault)
    }

    /// A fault outside of what is managed: the mapping is being put under management, or its unmap is not applied
    /// yet. The thread asks again.
    fn stranger(&self, hands: &mut Hands, fault: Fault) -> Outcome {
        self.counters.spurious.fetch_add(1, Relaxed);
        hands.owe(fault.address, PAGE_BYTES);
        Outcome::Done
    }

    /// The first write to a clean page, whose backing is out of date then, or to a shared one, of which the kernel makes a copy.
    fn first_write(
        &self,
        space: &Space,
        mut state: MutexGuard<BlockState>,
        page: PageIndex,
        hands: &mut Hands,
        fault: Fault,
    ) -> Outcome {
        if !state.resident.get(page) {
            // Moved out since: the thread comes back with a missing page.
            hands.owe(fault.address, PAGE_BYTES);
            return Outcome::Done;
        }
        let Some(run) = self.take_for_write(space, &mut state, page, fault.by_stub) else {
            return Outcome::NoRoom;
        };
        let (first, count, backed) = (run.start, run.len(), state.backed.get(page));
        for page in Bitmap512::from_range(PageIndex::of_addr(first as u64 * PAGE_BYTES), count).iter() {
            if state.backed.get(page) {
                state.release_slot(&self.engine, page);
            }
        }
        let start = (fault.address & !(BLOCK_BYTES - 1)) + first as u64 * PAGE_BYTES;
        // Under the block's lock, so that nobody makes the pages clean again in between.
        let mut lifted = space.uffd.lift(start, count as u64 * PAGE_BYTES, true);
        if count > 1 && lifted.as_ref().is_err_and(|error| error.raw_os_error() != Some(libc_errno::EAGAIN)) {
            // The run crosses mappings. The others are dirty and still protected: their next write comes here again.
            lifted = space.uffd.lift(fault.address, PAGE_BYTES, true);
        }
        drop(state);
        let lifted = lifted.map_err(|error| error.raw_os_error());
        if lifted == Err(Some(libc_errno::EAGAIN)) {
            return Outcome::Again;
        }
        let time = fault.since.elapsed();
        if backed && !fault.waited {
            // It would not be protected if it had not been moved out and come back.
            self.counters.delay(time + WAKING);
        }
        self.answered(space, FaultKind::Write, fault, time);
        match lifted {
            Err(_) => hands.owe(fault.address, PAGE_BYTES),
            Ok(()) => hands.owe(start, count as u64 * PAGE_BYTES),
        }
        Outcome::Done
    }

    /// Leaves a protected page to its writer, and those around it that will be written too: charges the copies that the kernel
    /// will make of those that others share. `None` if there is no room for that, and it is not forced. While faults are recorded, that page alone.
    fn take_for_write(
        &self,
        space: &Space,
        state: &mut BlockState,
        page: PageIndex,
        forced: bool,
    ) -> Option<Range<usize>> {
        let at = page.get();
        let shut = state.resident & (state.backed | state.cow);
        let alone = if state.cow.get(page) { state.alone().and_not(&state.backed) } else { Bitmap512::EMPTY };
        // Nobody else has it any more: one fault for all such pages.
        let run = if self.records() {
            at..at + 1
        } else if alone.get(page) {
            run_around(&alone, page)
        } else {
            let ahead = if state.next_write as usize == at { WRITE_AHEAD } else { 1 };
            at..at + run_length(&shut, page, ahead)
        };
        let run = [run, at..at + 1].into_iter().find(|run| {
            let start = PageIndex::of_addr(run.start as u64 * PAGE_BYTES);
            let pages = Bitmap512::from_range(start, run.len());
            state.leave_if(&self.engine, &pages, |others| {
                if forced {
                    space.force_left(others);
                }
                forced || others == 0 || space.charge_left(others)
            })
        })?;
        state.next_write = run.end as u16;
        Some(run)
    }

    /// A page that has no bytes anywhere: zeroes, for it and for untouched pages beside it.
    fn first_touch(
        &self,
        space: &Space,
        block: &Block,
        mut state: MutexGuard<BlockState>,
        page: PageIndex,
        hands: &mut Hands,
        fault: Fault,
    ) -> Outcome {
        let taken = state.resident | state.staged | state.busy | state.backed;
        let absent = state.mapped.and_not(&(taken | state.doubtful));
        let reach = state.trail.reach(page, &state.resident, ZERO_AHEAD);
        let (wanted, stale) = if !state.doubtful.get(page) {
            (reach.run(&absent, page, self.modest(reach.most)), false)
        } else if let Some(stale) = space.has_former_copy(block, &state, page) {
            (page.get()..page.get() + 1, stale)
        } else {
            // There still: the discard has not come to it yet.
            hands.owe(fault.address, PAGE_BYTES);
            return Outcome::Done;
        };
        let Some(run) = charge_some(space, wanted, page, fault.by_stub) else { return Outcome::NoRoom };
        let came = install_beside(run.clone(), page, |start, count| {
            let (address, bytes) = (block.address(start), count * PAGE_SIZE);
            let result = match hands.zeroes.as_ref().filter(|_| fault.write) {
                // Mapped zeroes would cost a fault at the first write to each of them.
                Some(zeroes) => {
                    let how = Install { protect: false, no_wake: true };
                    space.uffd.copy(address, &zeroes.as_slice()[..bytes], how)
                }
                None => space.uffd.zero(address, bytes as u64, true),
            };
            installed(result, count)
        });
        // What is there still of discarded pages is about to be dropped.
        let old = came.found & state.may_be_dropped(self.clock_ms());
        let fresh = came.pages.and_not(&old);
        state.resident |= fresh;
        state.heat.install(fresh);
        state.doubtful = state.doubtful.and_not(&fresh);
        if stale {
            state.stale |= fresh;
        }
        if let Some(came) = came.pages.bounds() {
            state.trail.went(came, reach);
        }
        drop(state);
        space.uncharge(run.len() - fresh.count());
        self.counters.zero_ahead.fetch_add(fresh.count().saturating_sub(1) as u64, Relaxed);
        if came.must_ask_again(page) {
            return Outcome::Again;
        }
        self.answered(space, FaultKind::First, fault, fault.since.elapsed());
        hands.owe(block.base + run.start as u64 * PAGE_BYTES, run.len() as u64 * PAGE_BYTES);
        Outcome::Done
    }

    /// What to tell the thread after an install of the page at `address`.
    fn after_install(&self, hands: &mut Hands, address: u64, done: &Installed) -> Outcome {
        if done.is_refused() {
            return Outcome::Again;
        }
        hands.owe(address, done.done.max(1) as u64 * PAGE_BYTES);
        Outcome::Done
    }

    /// A fault is answered, but for the thread's being woken: it is counted, and noted if faults are recorded.
    pub(crate) fn answered(&self, space: &Space, kind: FaultKind, fault: Fault, time: Duration) {
        self.counters.fault(kind, time);
        // A wait for room is counted as a whole when it is over.
        if !fault.waited && !matches!(kind, FaultKind::First | FaultKind::Write) {
            self.counters.delay(time + WAKING);
        }
        if let Some(recorder) = &self.config.record
            && !fault.by_stub
        {
            recorder.note(space.id, fault.address / PAGE_BYTES, kind);
        }
    }

    /// Whether faults are recorded now.
    pub(crate) fn records(&self) -> bool {
        self.config.record.as_ref().is_some_and(|recorder| recorder.is_on())
    }

    /// How many pages ahead there is room for. None while faults are recorded: what came unasked would not be seen.
    pub(crate) fn modest(&self, wanted: usize) -> usize {
        if self.records() {
            return 1;
        }
        let room = self.budget.limit().saturating_sub(self.budget.used()) as usize;
        wanted.min(room / 8).max(1)
    }

    /// A page that is (or was, as far as is known) in the page table or in staging.
    ///
    /// While an eviction of the block is under way, the page may lie in its window even if it is down as resident: the eviction has
    /// moved it and not been answered yet, or took it unasked just after it was installed. The copy into place fails
    /// with `EEXIST` if it is not missing at all, so a former copy in staging cannot replace the page; but a discard may drop it when that copy is
    /// there, and so it is known which those are (`stale`).
    fn take_back(
        &self,
        space: &Space,
        block: &Block,
        mut state: MutexGuard<BlockState>,
        page: PageIndex,
        hands: &mut Hands,
        fault: Fault,
    ) -> Outcome {
        let window = state.window.filter(|_| state.may_be_in_window(page));
        let window = window.and_then(|window| space.filled_from(window));
        let bytes = &mut hands.pages[0];
        let read = window.map(|window| space.try_read_staged(window, page, bytes));
        if matches!(&read, Some(Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied) {
            // It has made itself undumpable, and we are no root.
            space.unreadable.store(true, Relaxed);
            if state.staged.get(page) && state.backed.get(page) {
                // A clean one: its slot has it, too.
                state.staged.clear(page);
                drop(state);
                space.uncharge(1);
                return Outcome::Again;
            }
        }
        if !matches!(read, Some(Ok(()))) {
            return self.missing_unexpectedly(space, block, state, page, hands, fault);
        }
        let clean = state.backed.get(page) && !fault.write;
        let how = Install { protect: clean, no_wake: true };
        let done = installed(space.uffd.copy(fault.address, bytes, how), 1);
        if done.errno == 0 {
            if state.backed.get(page) && !clean {
                state.release_slot(&self.engine, page);
            }
            if !state.landed {
                // Its place there stays taken, so it cannot be moved there again.
                state.stale.set(page);
            }
            state.staged.clear(page);
            state.flight.clear(page);
            state.resident.set(page);
            state.heat.install(Bitmap512::single(page));
            state.heat.come_back(page, Back::Soon);
            self.answered(space, FaultKind::Second, fault, fault.since.elapsed());
        } else if done.found && state.staged.get(page) {
            // The page is there after all; staging holds an older copy of it.
            state.staged.clear(page);
            state.resident.set(page);
        }
        drop(state);
        self.after_install(hands, fault.address, &done)
    }

    /// A page that is down as present but raised a fault, and does not lie in staging: mostly two threads asked for it.
    fn missing_unexpectedly(
        &self,
        space: &Space,
        block: &Block,
        state: MutexGuard<BlockState>,
        page: PageIndex,
        hands: &mut Hands,
        fault: Fault,
    ) -> Outcome {
        self.counters.spurious.fetch_add(1, Relaxed);
        let known = space.is_present(fault.address);
        // In a window that may be read before long. What is neither there nor in its place does not come to either by itself, and the end of the eviction is not to be waited
        // for: if it was answered late, nobody may look until room is wanted.
        let elsewhere = if state.staged.get(page) {
            !space.unreadable.load(Relaxed)
        } else {
            state.may_be_in_window(page) && space.has_former_copy(block, &state, page) != Some(false)
        };
        if known != Some(false) || elsewhere || space.is_dead() {
            hands.owe(fault.address, PAGE_BYTES);
            return Outcome::Done;
        }
        if state.resident.get(page) && state.may_be_dropped(self.clock_ms()).get(page) {
            return self.renew_dropped(space, state, page, hands, fault);
        }
        // Its bytes are nowhere: nothing must ever read as zero that was not. (Refused with "again" while an event
        // is unread that may explain it.)
        match space.uffd.poison(fault.address, PAGE_BYTES) {
            Err(error) if error.raw_os_error() == Some(libc_errno::EAGAIN) => Outcome::Again,
            Err(_) => {
                hands.owe(fault.address, PAGE_BYTES);
                Outcome::Done
            }
            Ok(()) => {
                drop(state);
                self.is_lost(space, fault.address, Reason::Nowhere.into());
                hands.owe(fault.address, PAGE_BYTES);
                Outcome::Done
            }
        }
    }

    /// A page that came between a discard's being read and its being done, and was dropped with the rest: zeroes again, as the discard made it.
    fn renew_dropped(
        &self,
        space: &Space,
        mut state: MutexGuard<BlockState>,
        page: PageIndex,
        hands: &mut Hands,
        fault: Fault,
    ) -> Outcome {
        // The kernel says whether it is missing, and that no event is unread which would explain it otherwise.
        let done = installed(space.uffd.zero(fault.address, PAGE_BYTES, true), 1);
        if done.errno == 0 {
            if state.backed.get(page) {
                state.release_slot(&self.engine, page);
            }
            space.force_left(state.leave(&self.engine, &Bitmap512::single(page)));
            tracing::debug!(
                pid = space.pid,
                address = fault.address,
                "dropped by a discard in the middle of which it came"
            );
        }
        drop(state);
        self.after_install(hands, fault.address, &done)
    }
}

/// Charges the pages of `wanted`, or the one asked for if there is no room for all. Returns which; `None` if there is none even for
/// one, and it is not forced.
pub(crate) fn charge_some(
    space: &Space,
    wanted: Range<usize>,
    asked: PageIndex,
    forced: bool,
) -> Option<Range<usize>> {
    let alone = asked.get()..asked.get() + 1;
    let charged = [wanted, alone.clone()].into_iter().find(|run| space.charge(run.len()));
    if charged.is_none() && forced {
        space.charge_forced(1);
        return Some(alone);
    }
    charged
}
