//! Who listens for the faults of a space.
//!
//! A fault wakes every handler that listens, and waking one on another CPU costs more than the fault itself. So while
//! all faults of a space come from one thread on one CPU, only that CPU's *quick* handler listens. It runs under
//! `SCHED_IDLE`: a CPU that runs nothing else counts as idle when the kernel looks for a place for the woken thread
//! (`select_idle_sibling` in `kernel/sched/fair.c`), which therefore stays where it is, and where its next fault finds
//! the handler again. What that policy costs, never getting the CPU while others want it, is watched for by the keeper.
//!
//! Which CPU a thread is on nobody tells; but when all handlers listen, the one beside it is first by far. So
//! now and then all do, for a few faults.

use crate::pager::Shared;
use crate::space::Space;
use parking_lot::Mutex;
use std::os::fd::AsFd;
use vswap_sys::poll::EVENTS;

/// Faults of one thread read on one CPU in a row, after which only that CPU's quick handler listens.
const STREAK: u32 = 8;
/// Faults after which it is looked again where they come from.
const TERM: u32 = 256;
/// Milliseconds without quick handlers after one did not get its CPU.
const REST: u64 = 1000;

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
    /// Value of `count` when the keeper looked last and found faults unread.
    seen_late: Option<u32>,
    /// Until when nobody is to be quick, milliseconds of the pager's clock.
    rest_until: u64,
}

impl Shared {
    /// All handlers that are not quick listen to `space` from now on.
    ///
    /// # Errors
    /// What adding its descriptor says.
    pub(crate) fn listen(&self, space: &Space) -> std::io::Result<()> {
        self.polls.iter().try_for_each(|poll| poll.add(space.uffd.as_fd(), space.id))
    }

    /// Nobody listens to `space` any more, which is dead.
    pub(crate) fn listen_no_more(&self, space: &Space) {
        let _state = space.listeners.0.lock();
        for poll in self.polls.iter().chain(&self.quick_polls) {
            let _ = poll.remove(space.uffd.as_fd());
        }
    }

    /// Handler `index` has read a fault of `thread`.
    pub(crate) fn heard(&self, space: &Space, index: usize, thread: u32) {
        let mut state = space.listeners.0.lock();
        let same = state.last == (thread, index);
        state.last = (thread, index);
        state.count = if same { state.count + 1 } else { 1 };
        match state.quick {
            None if state.count >= STREAK && self.clock_ms() >= state.rest_until => {
                self.only(space, &mut state, index);
            }
            Some(_) if !same || state.count >= TERM => self.all(space, &mut state),
            _ => {}
        }
    }

    fn only(&self, space: &Space, state: &mut State, index: usize) {
        if space.is_dead() || self.quick_polls[index].add(space.uffd.as_fd(), space.id).is_err() {
            return;
        }
        for poll in &self.polls {
            let _ = poll.remove(space.uffd.as_fd());
        }
        (state.quick, state.count, state.seen_late) = (Some(index), 0, None);
    }

    fn all(&self, space: &Space, state: &mut State) {
        let Some(index) = state.quick else { return };
        if space.is_dead() || self.listen(space).is_err() {
            // Better one slow listener than none.
            return;
        }
        let _ = self.quick_polls[index].remove(space.uffd.as_fd());
        (state.quick, state.count) = (None, 0);
    }

    /// The keeper's look, every few milliseconds: a quick handler that leaves faults unread does not get its CPU.
    pub(crate) fn watch_listeners(&self) {
        for space in self.all_spaces() {
            let mut state = space.listeners.0.lock();
            let Some(index) = state.quick else { continue };
            let mut tokens = [0; EVENTS];
            let ready = self.quick_polls[index].wait(&mut tokens, 0).unwrap_or(0);
            if !tokens[..ready].contains(&space.id) {
                state.seen_late = None;
            } else if state.seen_late == Some(state.count) {
                state.rest_until = self.clock_ms() + REST;
                tracing::debug!(pid = space.pid, index, "a quick handler did not get its CPU");
                self.all(&space, &mut state);
            } else {
                state.seen_late = Some(state.count);
            }
        }
    }
}
