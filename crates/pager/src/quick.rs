//! Quick handlers (see `listen`) that do not get their CPU.
//!
//! Under `SCHED_IDLE` a thread weighs 3 where others weigh 1024, and whoever else wakes on its CPU takes that at once. A quick
//! handler may be in the middle of a fault then, with a space's gate held for which evictors and the other handlers wait. What it
//! has used since the last tick puts it up to 341 times as much behind, times the number of those that are busy there (`entity_lag`
//! and `place_entity` of `kernel/sched/fair.c`): seconds, until its turn comes again. So it tells when it is at a fault, and a watch
//! puts one that has come no further under the usual policy until the fault is answered. Without `CAP_SYS_NICE` there is no way
//! out of `SCHED_IDLE`; then the spaces do without it for so long that little time is lost by such waits.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use vswap_sys::poll::Epoll;
use vswap_sys::sched::{own_thread, run_normally, run_when_idle};

use crate::pager::Shared;

/// How often quick handlers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
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
    /// Milliseconds for which its spaces are to do without it.
    rest: AtomicU64,
}

impl Quick {
    pub fn new(poll: Epoll) -> Quick {
        Quick {
            poll,
            spaces: AtomicUsize::new(0),
            beat: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            raised: AtomicBool::new(false),
            rest: AtomicU64::new(0),
        }
    }

    /// This thread is it.
    pub fn begin(&self) {
        self.thread.store(own_thread(), Relaxed);
        run_when_idle();
    }

    /// It has something to do.
    pub fn at_work(&self) {
        // Nobody else writes it.
        let beat = self.beat.load(Relaxed);
        self.beat.store(beat + 1 + (beat & 1), Relaxed);
    }

    /// It has nothing to do any more.
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

    /// It has come no further for so long: gives it its CPU back, if that is what it lacks.
    fn hurry(&self, stuck: Duration) {
        // Again and again while it is stuck, and told afterwards: whichever of this and its being done comes first, it ends up under
        // the usual policy only until it is done the next time.
        if run_normally(self.thread.load(Relaxed)).is_ok() {
            self.raised.store(true, Relaxed);
        }
        self.rest.fetch_max((stuck * REST_FOR_LOSS).as_millis() as u64, Relaxed);
    }

    /// For how many milliseconds its spaces are to do without it from now on, if it has lost its CPU.
    pub fn take_rest(&self) -> Option<u64> {
        Some(self.rest.swap(0, Relaxed)).filter(|rest| *rest > 0)
    }

    /// Whether it has come no further since it told `last`, with a fault unanswered.
    fn is_stuck(&self, last: u64) -> bool {
        last & 1 == 1 && self.beat.load(Relaxed) == last
    }
}

impl Shared {
    /// One space more or less has the quick handler `index`. The evictor on its CPU leaves the work to the others, if there
    /// is one beside which no quick handler works.
    pub(crate) fn count_quick(&self, index: usize, more: bool) {
        let count = &self.quick[index].spaces;
        if more {
            count.fetch_add(1, Relaxed);
        } else {
            count.fetch_sub(1, Relaxed);
        }
        self.settle_patience();
    }

    /// Two that do this at once may leave it wrong; the keeper sets it right.
    pub(crate) fn settle_patience(&self) {
        let all = self.quick.iter().all(Quick::is_needed);
        for (i, quick) in self.quick.iter().enumerate() {
            self.budget.set_patient(i, quick.is_needed() && !all);
        }
    }

    /// The watch's life. It takes no lock and no memory: a quick handler may be what it would have to wait for.
    pub(crate) fn watch(&self) {
        // What each has told last, and since when.
        let mut told = vec![(0, Instant::now()); self.quick.len()];
        while !self.stopping() {
            std::thread::sleep(LOOK_EVERY);
            for (quick, (beat, since)) in self.quick.iter().zip(&mut told) {
                if quick.is_stuck(*beat) {
                    quick.hurry(since.elapsed());
                } else {
                    (*beat, *since) = (quick.beat.load(Relaxed), Instant::now());
                }
            }
        }
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
