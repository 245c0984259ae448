//! Quick handlers (see `listen`) that do not get their CPU.
//!
//! Under `SCHED_IDLE` a thread weighs 3 where others weigh 1024, and whoever else wakes on its CPU takes that at once. A quick
//! handler may be in the middle of a fault then, with a space's gate held for which evictors and the other handlers wait. What it
//! has used since the last tick puts it up to 341 times as much behind, times the number of those that are busy there (`entity_lag`
//! and `place_entity` of `kernel/sched/fair.c`): seconds, until its turn comes again. So it tells when it is at a fault, and a watch
//! puts one that has come no further under the usual policy until the fault is answered. Without `CAP_SYS_NICE` there is no way
//! out of `SCHED_IDLE`; then the spaces do without it for so long that little time is lost by such waits.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use vswap_sys::poll::Epoll;
use vswap_sys::sched::{own_thread, run_normally, run_when_idle};

use crate::pager::Shared;

/// How often quick handlers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A quick handler that was stuck for some time is not listened through for so many times that.
const REST_FOR_LOSS: u32 = 20;

/// A quick handler as others see it.
#[derive(Debug)]
pub(crate) struct Quick {
    pub poll: Epoll,
    /// Spaces to which it alone listens.
    spaces: AtomicUsize,
    /// Odd while it is at a fault.
    beat: AtomicU64,
    /// Number of its thread.
    thread: AtomicI32,
    /// It has the usual policy until it is done.
    raised: AtomicBool,
}

impl Quick {
    pub fn new(poll: Epoll) -> Quick {
        Quick {
            poll,
            spaces: AtomicUsize::new(0),
            beat: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            raised: AtomicBool::new(false),
        }
    }

    /// This thread is it.
    pub fn begin(&self) {
        self.thread.store(own_thread(), Relaxed);
        run_when_idle();
    }

    /// It has read faults.
    pub fn at_work(&self) {
        // Nobody else writes it.
        let beat = self.beat.load(Relaxed);
        self.beat.store(beat + 1 + (beat & 1), Relaxed);
    }

    /// It has answered all that it has read.
    pub fn done(&self) {
        let beat = self.beat.load(Relaxed);
        self.beat.store(beat + (beat & 1), Relaxed);
        if self.raised.load(Relaxed) && self.raised.swap(false, Relaxed) {
            run_when_idle();
        }
    }

    /// Whether some space has nobody else.
    pub fn is_needed(&self) -> bool {
        self.spaces.load(Relaxed) > 0
    }

    /// Whether it has come no further since it told `last`, with a fault unanswered.
    fn is_stuck(&self, last: u64) -> bool {
        last & 1 == 1 && self.beat.load(Relaxed) == last
    }
}

/// Wakes the watch.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    lock: Mutex<()>,
    wanted: Condvar,
}

impl Watch {
    pub fn wake(&self) {
        // With the lock, so that one that has just found nothing to do hears it.
        let _lock = self.lock.lock();
        self.wanted.notify_one();
    }
}

impl Shared {
    /// One space more or less has the quick handler `index`. The evictor on its CPU leaves the work to the others, if there
    /// is one beside which no quick handler works.
    pub(crate) fn count_quick(&self, index: usize, more: bool) {
        let count = &self.quick[index].spaces;
        if more {
            count.fetch_add(1, Relaxed);
            self.watch.wake();
        } else {
            count.fetch_sub(1, Relaxed);
        }
        self.settle_patience();
    }

    /// Two that do this at once may leave it wrong; the watch sets it right.
    fn settle_patience(&self) {
        let all = self.quick.iter().all(Quick::is_needed);
        for (i, quick) in self.quick.iter().enumerate() {
            self.budget.set_patient(i, quick.is_needed() && !all);
        }
    }

    /// The watch's life. It takes no lock that a quick handler may hold.
    pub(crate) fn watch(&self) {
        // What each has told last, and since when.
        let mut told = vec![(0, Instant::now()); self.quick.len()];
        while !self.stopping() {
            let mut lock = self.watch.lock.lock();
            if !self.quick.iter().any(Quick::is_needed) && !self.stopping() {
                self.settle_patience();
                self.watch.wanted.wait(&mut lock);
            }
            drop(lock);
            std::thread::sleep(LOOK_EVERY);
            self.settle_patience();
            for (index, (quick, (beat, since))) in self.quick.iter().zip(&mut told).enumerate() {
                if quick.is_stuck(*beat) {
                    self.hurry(index, since.elapsed());
                } else {
                    (*beat, *since) = (quick.beat.load(Relaxed), Instant::now());
                }
            }
            self.watch_late();
        }
    }

    /// Sees to it that a quick handler that has come no further for so long gets its CPU back.
    fn hurry(&self, index: usize, stuck: Duration) {
        let quick = &self.quick[index];
        if !quick.raised.swap(true, Relaxed) {
            let raised = run_normally(quick.thread.load(Relaxed)).is_ok();
            quick.raised.store(raised, Relaxed);
            tracing::debug!(index, raised, "a quick handler has lost its CPU at a fault");
        }
        self.rest_of(index, stuck * REST_FOR_LOSS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pager::{Pager, PagerConfig};
    use std::sync::Arc;
    use vswap_core::ByteCount;
    use vswap_engine::{Engine, EngineConfig};
    use vswap_sys::sched::runs_when_idle;

    /// Beside ten busy threads on its CPU a quick handler that was interrupted at a fault stood still for as long as they were busy, and
    /// with it the program, and whoever wanted the gate: three seconds where that was tried.
    #[test]
    fn a_quick_handler_that_lost_its_cpu_at_a_fault_gets_it_back_and_then_gives_way_again() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let pager = Pager::new(PagerConfig::new(ByteCount::mib(64)), engine).unwrap();
        let shared = Arc::clone(&pager.shared);
        let watch = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.watch()
        });
        let handler = std::thread::spawn(move || {
            let (quick, own) = (&shared.quick[0], own_thread());
            quick.begin();
            shared.count_quick(0, true);
            if run_normally(own).is_err() {
                return eprintln!("without CAP_SYS_NICE nobody can put it back: nothing to test");
            }
            run_when_idle();
            for _ in 0..3 {
                quick.at_work();
                while runs_when_idle(own) {
                    std::thread::yield_now();
                }
                quick.done();
                // The watch may have been just about to put it back.
                while !runs_when_idle(own) {
                    quick.done();
                }
            }
        });
        handler.join().unwrap();
        drop(pager);
        watch.join().unwrap();
    }
}
