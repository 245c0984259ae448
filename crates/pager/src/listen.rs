//! Who listens for the faults of a space.
//!
//! A fault wakes every handler that listens, and waking one on another CPU costs more than the fault itself. So while
//! all faults of a space come from one thread on one CPU, only that CPU's *quick* handler listens. It runs under
//! `SCHED_IDLE`: a CPU that runs nothing else counts as idle when the kernel looks for a place for the woken thread
//! (`select_idle_sibling` in `kernel/sched/fair.c`), which therefore stays where it is, and where its next fault finds
//! the handler again. What that policy costs, never getting the CPU while others want it, is watched for (see `quick`).
//!
//! While all handlers listen, the one beside the thread is first by far, which tells where it is. Where it has gone later
//! `/proc` tells, and that it has gone, that no next fault is there when one is done with.

use crate::pager::Shared;
use crate::space::Space;
use parking_lot::Mutex;
use std::os::fd::AsFd;
use vswap_sys::poll::EVENTS;
use vswap_sys::sched::last_cpu;

/// Faults of one thread read on one CPU in a row, after which only that CPU's quick handler listens.
const STREAK: u32 = 8;
/// Faults between two looks, at least, at the CPU that their thread is on.
const LOOK_EVERY: u32 = 4;
/// Milliseconds without quick handlers after one did not get its CPU, the first time and at most. Each time that follows
/// soon doubles them.
const REST: (u64, u64) = (8, 1024);

/// Who listens.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The only one: index of a quick handler. `None`: all that are not quick.
    quick: Option<usize>,
    /// Whose faults came last, and to which handler.
    last: (u32, usize),
    /// How many in a row.
    count: u32,
    /// Faults heard so far.
    heard: u64,
    /// Value of `heard` when the keeper looked last and found faults unread.
    seen_late: Option<u64>,
    /// Until when nobody is to be quick, milliseconds of the pager's clock.
    rest_until: u64,
    /// How long that rest was.
    rest: u64,
}

impl Shared {
    /// All handlers that are not quick listen to `space` from now on.
    ///
    /// # Errors
    /// What adding its descriptor says.
    pub(crate) fn listen(&self, space: &Space) -> std::io::Result<()> {
        self.polls.iter().try_for_each(|poll| match poll.add(space.uffd.as_fd(), space.id) {
            // Left there when the last try failed half-way.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        })
    }

    /// Nobody listens to `space` any more, which is dead.
    pub(crate) fn listen_no_more(&self, space: &Space) {
        let mut state = space.listeners.0.lock();
        if let Some(index) = state.quick.take() {
            self.count_quick(index, false);
        }
        for poll in self.polls.iter().chain(self.quick.iter().map(|quick| &quick.poll)) {
            let _ = poll.remove(space.uffd.as_fd());
        }
    }

    /// Handler `index` has read a fault of `thread`. Returns whether a quick handler is to go on reading.
    pub(crate) fn heard(&self, space: &Space, index: usize, thread: u32) -> bool {
        // Whoever holds it changes who listens. It may be a quick handler that has lost its CPU: nobody waits for it here.
        let Some(mut state) = space.listeners.0.try_lock() else { return false };
        state.heard += 1;
        let same = state.last == (thread, index);
        state.last = (thread, index);
        state.count = if same { state.count + 1 } else { 1 };
        match state.quick {
            None if state.count >= STREAK && self.clock_ms() >= state.rest_until => {
                self.only(space, &mut state, index);
            }
            Some(_) if !same => {
                self.all(space, &mut state);
            }
            _ => {}
        }
        state.quick == Some(index)
    }

    fn only(&self, space: &Space, state: &mut State, index: usize) {
        if space.is_dead() || self.quick[index].poll.add(space.uffd.as_fd(), space.id).is_err() {
            return;
        }
        for poll in &self.polls {
            let _ = poll.remove(space.uffd.as_fd());
        }
        (state.quick, state.count, state.seen_late) = (Some(index), 0, None);
        self.count_quick(index, true);
    }

    /// Returns whether all listen now.
    fn all(&self, space: &Space, state: &mut State) -> bool {
        let Some(index) = state.quick else { return true };
        if space.is_dead() || self.listen(space).is_err() {
            // Better one slow listener than none.
            return false;
        }
        let _ = self.quick[index].poll.remove(space.uffd.as_fd());
        (state.quick, state.count) = (None, 0);
        self.count_quick(index, false);
        true
    }

    /// A quick handler has a fault for which there is no room: others are to wait with it, which get the CPU when there is.
    /// Returns whether they do.
    pub(crate) fn hand_over(&self, space: &Space) -> bool {
        self.all(space, &mut space.listeners.0.lock())
    }

    /// Quick handler `index` has found no next fault when it was done with one. Where its thread still is beside it, it
    /// mostly does find one, since the thread took the CPU when it was woken and gave it back by the next fault. So the thread
    /// may have been moved; then the quick handler there takes over.
    pub(crate) fn heard_nothing(&self, space: &Space, index: usize) {
        let mut state = space.listeners.0.lock();
        if state.quick != Some(index) || state.count < LOOK_EVERY {
            return;
        }
        state.count = 0;
        let thread = state.last.0;
        drop(state);
        let there = last_cpu(thread).ok().and_then(|cpu| self.cpus.iter().position(|&c| c == cpu));
        let mut state = space.listeners.0.lock();
        if state.quick != Some(index) || there == Some(index) || space.is_dead() {
            return;
        }
        match there {
            Some(there) if self.quick[there].poll.add(space.uffd.as_fd(), space.id).is_ok() => {
                let _ = self.quick[index].poll.remove(space.uffd.as_fd());
                self.count_quick(index, false);
                self.count_quick(there, true);
                state.quick = Some(there);
                state.last.1 = there;
                state.seen_late = None;
            }
            _ => {
                self.all(space, &mut state);
            }
        }
    }

    /// All spaces whose last faults came to quick handler `index`, which has lost its CPU at one, are to do without for `rest`
    /// milliseconds.
    fn rest_from(&self, index: usize, rest: u64) {
        let until = self.clock_ms() + rest;
        tracing::debug!(index, rest, "a quick handler has lost its CPU at a fault");
        for space in self.all_spaces() {
            let mut state = space.listeners.0.lock();
            if state.last.1 == index {
                state.rest_until = state.rest_until.max(until);
                self.all(&space, &mut state);
            }
        }
    }

    /// The keeper's look: a quick handler that leaves faults unread does not get its CPU, and one that the watch found stuck had
    /// lost it.
    pub(crate) fn watch_listeners(&self) {
        self.settle_patience();
        for (index, quick) in self.quick.iter().enumerate() {
            if let Some(rest) = quick.take_rest() {
                self.rest_from(index, rest);
            }
        }
        for space in self.all_spaces() {
            let mut state = space.listeners.0.lock();
            let Some(index) = state.quick.filter(|_| !space.is_frozen()) else { continue };
            let mut tokens = [0; EVENTS];
            let ready = self.quick[index].poll.wait(&mut tokens, 0).unwrap_or(0);
            if !tokens[..ready].contains(&space.id) {
                state.seen_late = None;
            } else if state.seen_late == Some(state.heard) {
                self.give_rest(&space, &mut state);
            } else {
                state.seen_late = Some(state.heard);
            }
        }
    }

    /// All listen to a space again, and nobody is quick for a while.
    fn give_rest(&self, space: &Space, state: &mut State) {
        let now = self.clock_ms();
        let soon = now < state.rest_until + 8 * state.rest;
        state.rest = if soon { (2 * state.rest).clamp(REST.0, REST.1) } else { REST.0 };
        state.rest_until = now + state.rest;
        tracing::debug!(pid = space.pid, quick = state.quick, "a quick handler did not get its CPU");
        self.all(space, state);
    }
}
