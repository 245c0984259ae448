//! Handlers: one thread per CPU, pinned, each waiting for every userfaultfd. All wake for a fault; the one beside the
//! faulting thread reads it first, and a wake-up on the same CPU is several times cheaper than across CPUs. Beside each
//! there is a quick one (see `listen`).

use crate::block::PAGE_BYTES;
use crate::fault::{Fault, Hands, Outcome};
use crate::pager::Shared;
use crate::space::Space;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use vswap_sys::poll::EVENTS;
use vswap_sys::sched::bind_to_cpu;
use vswap_sys::uffd::{Message, READ_BATCH};

/// Token of the event that ends handlers.
pub(crate) const STOP: u64 = u64::MAX;
/// Token of the event that says that room has come.
pub(crate) const ROOM: u64 = u64::MAX - 1;
/// Faults that one handler keeps waiting for room; more than that ask again by themselves.
const PARKED_MAX: usize = 256;
/// Times that a quick handler reads one space's faults before it looks for others'.
const READS_AT_ONCE: usize = 64;

/// Serves faults on CPU `cpu` until the pager stops.
pub(crate) fn run(shared: &Arc<Shared>, index: usize, cpu: usize, quick: bool) {
    bind_to_cpu(cpu);
    let quick = quick.then(|| &shared.quick[index]);
    if let Some(quick) = quick {
        quick.begin();
    }
    let poll = quick.map_or(&shared.polls[index], |quick| &quick.poll);
    let mut hands = Hands::new(shared, quick.is_some());
    let mut tokens = [0; EVENTS];
    let mut parked: Vec<(u64, Fault)> = Vec::with_capacity(PARKED_MAX);
    loop {
        let timeout = if parked.is_empty() { -1 } else { 1 };
        let count = poll.wait(&mut tokens, timeout).unwrap_or(0);
        if let Some(quick) = quick {
            quick.at_work();
        }
        for &token in &tokens[..count] {
            match token {
                STOP => return,
                ROOM => shared.room.clear(),
                id => {
                    if let Some(space) = shared.space(id) {
                        if space.is_frozen() {
                            std::thread::yield_now();
                        } else {
                            serve(shared, &space, index, &mut hands, &mut parked);
                        }
                    }
                }
            }
        }
        if !parked.is_empty() {
            retry(shared, &mut hands, &mut parked);
        }
        if let Some(quick) = quick {
            quick.done();
        }
    }
}

fn serve(shared: &Shared, space: &Space, index: usize, hands: &mut Hands, parked: &mut Vec<(u64, Fault)>) {
    let mut messages = [Message::Other(0); READ_BATCH];
    // A quick handler finds the next fault when it comes back from waking the thread.
    for _ in 0..if hands.quick { READS_AT_ONCE } else { 1 } {
        if hands.quick {
            shared.quick[index].at_work();
        }
        let count = space.read_events(&mut messages);
        if count == 0 {
            if hands.quick {
                shared.heard_nothing(space, index);
            }
            return;
        }
        let since = Instant::now();
        let mut go_on = true;
        for message in &messages[..count] {
            if let Message::Fault { address, write, protected, thread } = *message {
                go_on = shared.heard(space, index, thread);
                answer(
                    shared,
                    space,
                    hands,
                    parked,
                    Fault {
                        address,
                        write,
                        protected,
                        by_stub: space.link().is_some() && thread as i32 == space.pid,
                        ahead: false,
                        to_stay: false,
                        waited: false,
                        since,
                    },
                );
            }
        }
        if !go_on || !parked.is_empty() {
            return;
        }
    }
}

/// Resolves a fault, reading events in between for as long as the kernel asks for that.
fn answer(shared: &Shared, space: &Space, hands: &mut Hands, parked: &mut Vec<(u64, Fault)>, fault: Fault) {
    loop {
        let outcome = shared.resolve(space, hands, fault);
        hands.pay(space);
        shared.budget.call_if_short();
        match outcome {
            Outcome::Done => return,
            Outcome::Again if space.is_dead() => return,
            Outcome::Again => {
                space.drain();
                std::thread::yield_now();
            }
            Outcome::NoRoom if hands.quick && shared.hand_over(space) => {
                let _ = space.uffd.wake(fault.address, PAGE_BYTES);
                return;
            }
            Outcome::NoRoom => {
                shared.counters.waited.fetch_add(1, Relaxed);
                if parked.len() < PARKED_MAX {
                    shared.parked.fetch_add(1, Relaxed);
                    parked.push((space.id, Fault { waited: true, ..fault }));
                } else {
                    let _ = space.uffd.wake(fault.address, PAGE_BYTES);
                }
                return;
            }
        }
    }
}

/// Tries the faults that waited for room again, oldest first.
fn retry(shared: &Shared, hands: &mut Hands, parked: &mut Vec<(u64, Fault)>) {
    let mut kept = 0;
    for at in 0..parked.len() {
        let (id, fault) = parked[at];
        let Some(space) = shared.space(id) else {
            shared.parked.fetch_sub(1, Relaxed);
            continue;
        };
        let outcome = if space.is_dead() { Outcome::Done } else { shared.resolve(&space, hands, fault) };
        hands.pay(&space);
        shared.budget.call_if_short();
        match outcome {
            Outcome::Done => {
                shared.counters.stall(fault.since.elapsed());
                shared.counters.delay(fault.since.elapsed());
                shared.parked.fetch_sub(1, Relaxed);
            }
            Outcome::Again => {
                space.drain();
                parked[kept] = (id, fault);
                kept += 1;
            }
            Outcome::NoRoom => {
                parked[kept] = (id, fault);
                kept += 1;
            }
        }
    }
    parked.truncate(kept);
}
