//! `fork`, `vfork`, `clone`: threads, processes that borrow the memory, and copies of a managed one.
//!
//! A copy gets a stub of its own before its first instruction. The parent's space is held from before the kernel copies
//! its page tables until the child's half is set up, so that each page is either resident in both or out in both.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use vswap_sys::ptrace::{Stop, Tracee, option};
use vswap_sys::{call, process, procvm};

use crate::adopt::{AdoptError, Newborn};
use crate::grow::manageable_ranges;
use crate::inject::Stub;
use crate::supervisor::Call;
use crate::tree::{Managed, Memory};

/// A fork that has made no child after so long has failed, or is about to tell.
const FORK_SOON: Duration = Duration::from_millis(20);
/// How long pages are kept in for a fork that cannot be followed.
const FORK_UNSEEN: Duration = Duration::from_millis(500);

/// What a new thread or process is to share, and the words that the kernel writes for it.
#[derive(Clone, Copy, Debug, Default)]
struct Birth {
    flags: u64,
    parent_tid: u64,
    child_tid: u64,
    /// Where the parent gets a descriptor of the child.
    pidfd: u64,
}

impl Birth {
    /// Addresses of words that the kernel writes in the parent while it forks.
    fn written_in_parent(&self) -> [u64; 2] {
        [self.parent_tid, self.pidfd]
    }

    fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

impl Call<'_> {
    fn asked_birth(&self) -> Birth {
        match i64::from(self.notification.nr) {
            call::FORK => Birth { flags: call::SIGCHLD, ..Birth::default() },
            call::VFORK => Birth { flags: call::SIGCHLD | call::CLONE_VM, ..Birth::default() },
            // A descriptor goes to where the number would.
            call::CLONE => {
                Birth { flags: self.arg(0), parent_tid: self.arg(2), child_tid: self.arg(3), pidfd: 0 }
            }
            _ => {
                // `struct clone_args`: flags, pidfd, child_tid, parent_tid.
                let mut bytes = [0; 32];
                let _ = procvm::read(self.tid(), self.arg(0), &mut bytes);
                let word = |i: usize| u64::from_le_bytes(bytes[i * 8..][..8].try_into().unwrap_or_default());
                Birth { flags: word(0), parent_tid: word(3), child_tid: word(2), pidfd: word(1) }
            }
        }
    }

    /// `fork`, `vfork`, `clone`, `clone3`.
    pub(crate) fn birth(&self) {
        let birth = self.asked_birth();
        if birth.has(call::CLONE_VM) {
            if birth.has(call::CLONE_CHILD_CLEARTID) {
                if self.memory.managed().is_some() {
                    self.supervisor.let_another_read();
                }
                self.memory.pin(birth.child_tid, 4);
            }
            if !birth.has(call::CLONE_THREAD) {
                self.memory.shared.store(true, Relaxed);
            }
            return self.proceed();
        }
        let Some(managed) = self.memory.managed() else {
            *self.memory.forked.lock() = Some(Instant::now());
            return self.proceed();
        };
        self.supervisor.let_another_read();
        let _work = self.work();
        if birth.has(call::CLONE_CHILD_SETTID | call::CLONE_CHILD_CLEARTID) {
            self.memory.pin(birth.child_tid, 4);
        }
        for word in birth.written_in_parent() {
            managed.space.bring_in(word, 4);
        }
        let _ = managed.look(&self.memory);
        // The child's half is made from what is known of the pages.
        managed.space.call_in();
        let traced = if birth.has(call::CLONE_UNTRACED) {
            Err(std::io::ErrorKind::Unsupported.into())
        } else {
            Tracee::seize(self.tid(), option::CHILDREN)
        };
        match traced {
            Ok(tracee) => self.follow(&managed, tracee, birth),
            Err(source) => self.fork_unseen(&managed, source),
        }
    }

    /// Lets the fork happen and takes the child in before it runs.
    fn follow(&self, managed: &Arc<Managed>, mut parent: Tracee, birth: Birth) {
        let hold = managed.space.hold();
        // Other threads of the parent run on: what is known of its pages must be what the child gets.
        hold.freeze_to_share(&birth.written_in_parent());
        self.proceed();
        let (child_pid, signal) = match wait_for_child(&mut parent) {
            Outcome::Child(pid) => {
                // If it is too late, taking the child in fails.
                hold.stay_frozen();
                (pid, 0)
            }
            Outcome::None(signal) => {
                drop(hold);
                let _ = parent.detach(signal);
                return;
            }
            Outcome::Gone => return,
        };
        let mut child = Tracee::child(child_pid);
        let stopped = child.wait();
        // Kept until it is decided what becomes of the child: without its other end a stub ends its program, without a word.
        let mut stub = None;
        let taken = match stopped {
            Ok(Stop::Gone) | Err(_) => Ok(()),
            // Our options would have its stub traced too.
            Ok(_) => child
                .set_options(0)
                .map_err(|source| AdoptError::System { pid: child_pid, source })
                .and_then(|()| self.take_child(managed, &hold, &mut child, &mut stub)),
        };
        // One that was killed meanwhile is nobody's loss.
        if let Err(error) = taken
            && !process::is_ending(child_pid)
        {
            // It lacks the pages that are out: better no child than one that reads zeroes.
            tracing::error!(%error, "a forked child could not be managed");
            self.supervisor.say(format!("{error}; the forked process was ended"));
            let _ = process::kill(child_pid, vswap_sys::signal::SIGKILL);
        }
        drop(hold);
        let _ = child.detach(0);
        let _ = parent.detach(signal);
    }

    fn take_child(
        &self,
        parent: &Managed,
        hold: &vswap_pager::Hold,
        child: &mut Tracee,
        half_made: &mut Option<Stub>,
    ) -> Result<(), AdoptError> {
        let supervisor = self.supervisor;
        let pid = child.tid();
        let failed = |source| AdoptError::System { pid, source };
        let process = supervisor.tree.enter(pid).map_err(failed)?;
        process.set_group(parent.space.group());
        supervisor.welcome(&process);
        let memory = process.memory();
        memory.newborn.store(true, Relaxed);
        // The sampler may have found it already, and be about to put it under management itself.
        let _work = memory.work.lock();
        memory.pins.lock().extend(self.memory.pins.lock().iter());
        memory.wipes.store(self.memory.wipes.load(Relaxed), Relaxed);
        let Newborn { stub, probe, adopt } = supervisor.start_stub(child, pid)?;
        let own = [stub.own.clone(), stub.staging_range()];
        *half_made = Some(stub);
        let ranges = self.inherited_ranges(pid, &own, parent, &memory).map_err(failed)?;
        let space = supervisor.pager().fork(hold, adopt, &ranges).map_err(failed)?;
        // Whatever was made of it since: it may have been moved when it was not managed yet.
        process.set_group(space.group());
        for range in &ranges {
            // What the parent had not registered, if anything, is whole in the child.
            let _ = space.manage(range.clone());
        }
        hold.thaw();
        if let Some(stub) = half_made.take() {
            supervisor.install(&process, &memory, (stub, probe, space));
        }
        memory.newborn.store(false, Relaxed);
        Ok(())
    }

    /// What the child has of its parent's memory.
    fn inherited_ranges(
        &self,
        pid: i32,
        own: &[Range<u64>],
        _parent: &Managed,
        memory: &Memory,
    ) -> std::io::Result<Vec<Range<u64>>> {
        let mut ranges = manageable_ranges(pid, own)?;
        if memory.wipes.load(Relaxed) {
            let wiped = process::wiped_on_fork(pid)?;
            ranges.retain(|range| !wiped.iter().any(|w| w.start < range.end && range.start < w.end));
        }
        Ok(ranges)
    }

    /// A fork that cannot be followed: everything is brought in first, so that the kernel copies all of it; the child
    /// is left alone and counted.
    fn fork_unseen(&self, managed: &Managed, source: std::io::Error) {
        let error = AdoptError::Refused { pid: self.process.pid, source };
        self.supervisor.say_once(&self.supervisor.warned.refused, || {
            format!(
                "{error}; what it forks runs without being managed, and its memory counts against the limit"
            )
        });
        let hold = managed.space.hold();
        if !managed.space.bring_in_all() {
            const EAGAIN: i64 = 11;
            // Better no child than one that reads zeroes.
            return self.answer(-EAGAIN);
        }
        let children = || process::children(self.process.pid).unwrap_or_default();
        let before = children();
        self.proceed();
        let since = Instant::now();
        while since.elapsed() < FORK_UNSEEN && children().iter().all(|child| before.contains(child)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(hold);
    }
}

enum Outcome {
    Child(i32),
    /// No child: the call failed or starts again after this signal.
    None(i32),
    Gone,
}

/// Waits for the news of a child. A fork that fails makes none: then the thread is interrupted to learn that.
fn wait_for_child(parent: &mut Tracee) -> Outcome {
    let since = Instant::now();
    let mut interrupted = false;
    loop {
        let stop = if interrupted { parent.wait().map(Some) } else { parent.poll() };
        match stop {
            Ok(Some(Stop::Child)) => {
                return parent.event_message().map_or(Outcome::Gone, |pid| Outcome::Child(pid as i32));
            }
            Ok(Some(Stop::Signal(signal))) => return Outcome::None(signal),
            Ok(Some(Stop::Gone)) | Err(_) => return Outcome::Gone,
            Ok(Some(_)) => return Outcome::None(0),
            Ok(None) if since.elapsed() > FORK_SOON => interrupted = parent.interrupt().is_ok(),
            // The tracee wants this CPU more than we do.
            Ok(None) if since.elapsed() < Duration::from_millis(1) => std::thread::yield_now(),
            Ok(None) => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}
