//! The processes of the tree, and their address spaces.
//!
//! [`Process`] is a process as the kernel numbers it; [`Memory`] is an address space, which `vfork` has two processes
//! share and an exec replaces. A [`Memory`] is managed from the moment that its [`Managed`] is there.
//!
//! Lock order: `Memory::work`, then `Memory::managed`, then [`Tree`]'s map; none is held while waiting for a program
//! but `work`, which serialises what is done to one address space.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64};
use std::time::Instant;

use parking_lot::Mutex;
use vswap_core::GroupId;
use vswap_pager::Space;
use vswap_sys::pidfd::{self, PidFd};
use vswap_sys::process::{self, Statm};
use vswap_sys::uffd::Uffd;

use crate::inject::Stub;

/// An address space that the pager manages.
#[derive(Debug)]
pub(crate) struct Managed {
    pub(crate) space: Arc<Space>,
    pub(crate) stub: Stub,
    /// Another descriptor of the main userfaultfd, to ask whether the address space still exists.
    pub(crate) probe: Uffd,
    /// Its stub was sent away because the program ends.
    pub(crate) leaving: AtomicBool,
    /// A thread has the stub run while its program is stopped.
    pub(crate) roused: AtomicBool,
}

impl Managed {
    /// Whether the address space is gone: by exec, or with its process.
    pub(crate) fn memory_gone(&self) -> bool {
        // Staging is not registered with the main userfaultfd: the answer is an error either way.
        let asked = self.probe.protect(self.stub.staging, 4096, false);
        asked.is_err_and(|error| process::is_gone(&error))
    }
}

/// An address space.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Held while something is done to the whole of it: stub started, fork followed, mapping made.
    pub(crate) work: Mutex<()>,
    pub(crate) managed: Mutex<Option<Arc<Managed>>>,
    /// Words that the kernel writes when nobody can fault: (address, length).
    pub(crate) pins: Mutex<BTreeSet<(u64, u64)>>,
    /// Bytes that may be mapped at most: what was seen last, and what was asked for since.
    pub(crate) bound: AtomicU64,
    /// Bytes mapped without any right, which the kernel does not count.
    pub(crate) reserved: AtomicU64,
    /// Bytes of small mappings made since its maps were looked at.
    pub(crate) unseen: AtomicU64,
    /// Of what it has resident, the anonymous bytes that count, as they were when somebody looked; [`UNKNOWN`] if nobody has.
    pub(crate) counted: AtomicU64,
    /// By how much it was seen to grow since the sampler looked.
    pub(crate) grown: AtomicU64,
    /// Bytes asked for since somebody looked.
    pub(crate) asked: AtomicU64,
    /// End of the heap, 0 if not known.
    pub(crate) heap_end: AtomicU64,
    /// A copy that is being made: what it has is its parent's, and counted there.
    pub(crate) newborn: AtomicBool,
    /// No stub can live in it.
    pub(crate) hopeless: AtomicBool,
    /// It has ranges that a child sees empty.
    pub(crate) wipes: AtomicBool,
    /// Processes without their own memory may have been made of it.
    pub(crate) shared: AtomicBool,
    /// When a fork was last let pass without being followed.
    pub(crate) forked: Mutex<Option<Instant>>,
    /// Threads on their way out.
    pub(crate) exiting: Mutex<HashSet<i32>>,
}

impl Memory {
    /// A new one, of which nothing is known.
    pub(crate) fn new() -> Arc<Memory> {
        Arc::new(Memory {
            bound: AtomicU64::new(UNKNOWN),
            counted: AtomicU64::new(UNKNOWN),
            ..Memory::default()
        })
    }

    /// What manages it, if something does.
    pub(crate) fn managed(&self) -> Option<Arc<Managed>> {
        self.managed.lock().clone()
    }

    /// Remembers a word that the kernel will write; keeps it resident if it is managed.
    pub(crate) fn pin(&self, address: u64, len: u64) {
        if address == 0 {
            return;
        }
        self.pins.lock().insert((address, len));
        if let Some(managed) = self.managed() {
            managed.space.pin(address, len);
        }
    }
}

/// More than any program has mapped: it has to be asked.
pub(crate) const UNKNOWN: u64 = 1 << 62;

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) handle: PidFd,
    pub(crate) statm: Statm,
    memory: Mutex<Arc<Memory>>,
    /// The process whose memory it uses until it executes something; 0 if it has its own.
    lender: AtomicI32,
    /// It was let execute something: its memory may be new.
    executed: AtomicBool,
    /// The group that its memory is of, from its parent on, until it is moved.
    group: AtomicU32,
}

impl Process {
    /// Its address space.
    pub(crate) fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory.lock())
    }

    /// Gives it another address space.
    pub(crate) fn replace_memory(&self, memory: Arc<Memory>) {
        *self.memory.lock() = memory;
        self.lender.store(0, Relaxed);
    }

    /// The process whose memory it uses, if not its own.
    pub(crate) fn lender(&self) -> Option<i32> {
        Some(self.lender.load(Relaxed)).filter(|&lender| lender != 0)
    }

    /// The group that it is of; one that was removed stands for the nearest above it.
    pub(crate) fn group(&self) -> GroupId {
        GroupId::new(self.group.load(Relaxed))
    }

    /// It is of another group from now on. Its memory does not follow by itself.
    pub(crate) fn set_group(&self, group: GroupId) {
        self.group.store(group.get(), Relaxed);
    }

    /// It is let execute something, which may fail.
    pub(crate) fn will_execute(&self) {
        self.executed.store(true, Relaxed);
        self.memory().bound.store(UNKNOWN, Relaxed);
    }

    /// After [`Process::will_execute`]: whether nothing has looked since.
    pub(crate) fn take_executed(&self) -> bool {
        self.executed.load(Relaxed) && self.executed.swap(false, Relaxed)
    }
}

/// All processes that are known, by their number and by those of their threads.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    maps: Mutex<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    processes: HashMap<i32, Arc<Process>>,
    threads: HashMap<i32, Arc<Process>>,
}

/// Whether a process was known before.
pub(crate) enum Found {
    Known(Arc<Process>),
    New(Arc<Process>),
}

impl Tree {
    /// The process of thread `tid`, entered if it is new.
    ///
    /// # Errors
    /// `NotFound` or `ESRCH` if it is gone.
    pub(crate) fn process_of(&self, tid: i32) -> io::Result<Found> {
        let mut maps = self.maps.lock();
        if let Some(process) = maps.threads.get(&tid) {
            return Ok(Found::Known(Arc::clone(process)));
        }
        let status = process::status(tid)?;
        if let Some(process) = maps.processes.get(&status.process).cloned() {
            maps.threads.insert(tid, Arc::clone(&process));
            return Ok(Found::Known(process));
        }
        let parent = maps.processes.get(&status.parent);
        let group = parent.map_or(GroupId::ROOT, |parent| parent.group());
        let lender = parent.map(|parent| parent.memory());
        let borrowed = lender.filter(|memory| {
            memory.shared.load(Relaxed) && pidfd::same_memory(status.process, status.parent).unwrap_or(false)
        });
        let process = maps.enter(status.process, borrowed.map(|memory| (memory, status.parent)), group)?;
        maps.threads.insert(tid, Arc::clone(&process));
        Ok(Found::New(process))
    }

    /// Enters a process that was just made, with an address space of its own. Whoever looks for new ones may have entered it already;
    /// it is one process all the same.
    ///
    /// # Errors
    /// `ESRCH` if it is gone.
    pub(crate) fn enter(&self, pid: i32) -> io::Result<Arc<Process>> {
        let mut maps = self.maps.lock();
        match maps.processes.get(&pid) {
            Some(known) if !known.handle.has_ended() => Ok(Arc::clone(known)),
            _ => maps.enter(pid, None, GroupId::ROOT),
        }
    }

    /// A process by its number.
    pub(crate) fn get(&self, pid: i32) -> Option<Arc<Process>> {
        self.maps.lock().processes.get(&pid).cloned()
    }

    /// All processes.
    pub(crate) fn all(&self) -> Vec<Arc<Process>> {
        self.maps.lock().processes.values().cloned().collect()
    }

    /// A process has ended.
    pub(crate) fn remove(&self, pid: i32) -> Option<Arc<Process>> {
        let mut maps = self.maps.lock();
        maps.threads.retain(|_, process| process.pid != pid);
        maps.processes.remove(&pid)
    }

    /// A thread has ended, or its process has executed something.
    pub(crate) fn forget_thread(&self, tid: i32) {
        self.maps.lock().threads.remove(&tid);
    }
}

impl Maps {
    fn enter(
        &mut self,
        pid: i32,
        borrowed: Option<(Arc<Memory>, i32)>,
        group: GroupId,
    ) -> io::Result<Arc<Process>> {
        let process = Arc::new(Process {
            pid,
            handle: PidFd::open(pid)?,
            statm: Statm::open(pid)?,
            lender: AtomicI32::new(borrowed.as_ref().map_or(0, |(_, lender)| *lender)),
            memory: Mutex::new(borrowed.map_or_else(Memory::new, |(memory, _)| memory)),
            executed: AtomicBool::new(false),
            group: AtomicU32::new(group.get()),
        });
        self.processes.insert(pid, Arc::clone(&process));
        Ok(process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A child that was found by its parent's list of children before its fork was seen to was entered twice. Its threads were then those
    /// of the one that was not managed: that was put under management too, and the second stub, of which nobody wanted anything,
    /// ended the program.
    #[test]
    fn a_child_that_was_found_before_its_fork_was_seen_to_is_entered_once() {
        let tree = Tree::default();
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let pid = child.id() as i32;
        let Found::New(found) = tree.process_of(pid).unwrap() else { panic!("it was not known") };
        let entered = tree.enter(pid).unwrap();
        assert!(Arc::ptr_eq(&found, &entered));
        assert!(
            matches!(tree.process_of(pid).unwrap(), Found::Known(known) if Arc::ptr_eq(&known, &entered))
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(tree.enter(pid).is_err(), "it has ended");
    }
}
