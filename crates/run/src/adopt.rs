//! Putting a process under management: stop a thread, start a stub, hand the address space to the pager.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use thiserror::Error;
use vswap_core::GroupId;
use vswap_pager::{Adopt, Mover, StagingArea, StubLink};
use vswap_sys::pagemap::Pagemap;
use vswap_sys::process;
use vswap_sys::ptrace::{Stop, Tracee};
use vswap_sys::uffd::Uffd;

use crate::inject::{Gifts, InjectError, Stub, inject};
use crate::supervisor::{Call, STUB_TOKEN, Supervisor};
use crate::tree::{Managed, Memory, Process};

/// A fork that was let pass is over after so long: until then eviction must not begin.
const FORK_TAKES: Duration = Duration::from_millis(20);

/// Why a process is not managed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum AdoptError {
    /// It may not be traced.
    #[error("process {pid} cannot be stopped: {source}")]
    Refused {
        /// The process.
        pid: i32,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It got no stub.
    #[error(transparent)]
    Inject(#[from] InjectError),
    /// Something of ours failed.
    #[error("managing process {pid}: {source}")]
    System {
        /// The process.
        pid: i32,
        /// What failed.
        source: std::io::Error,
    },
}

/// A started stub with what the pager needs beside it.
pub(crate) struct Newborn {
    pub(crate) stub: Stub,
    pub(crate) probe: Uffd,
    pub(crate) adopt: Adopt,
}

impl Supervisor {
    /// Starts a stub in the process of a thread that stands still.
    pub(crate) fn start_stub(&self, tracee: &mut Tracee, pid: i32) -> Result<Newborn, AdoptError> {
        let failed = |source| AdoptError::System { pid, source };
        let link = StubLink::new().map_err(failed)?;
        let gifts = Gifts {
            mark: self.mark,
            ring: link.memory().fd(),
            device: self.device.as_ref().map(|device| device.as_fd()),
        };
        let (stub, uffd) = inject(tracee, pid, gifts)?;
        let probe = Uffd::from_fd(uffd.as_fd().try_clone_to_owned().map_err(failed)?);
        let staging = StagingArea { base: stub.staging, windows: self.windows };
        // By the stub's number, not the process's: a main thread that has ended alone has no memory to show.
        let pagemap = Pagemap::open(stub.tid).map_err(failed)?;
        let (mover, group) = (Mover::Stub(link), GroupId::ROOT);
        let adopt = Adopt { pid: stub.tid, uffd, mover, staging, pagemap, group };
        Ok(Newborn { stub, probe, adopt })
    }

    /// The pager has the address space: publishes it, keeps the pinned words resident.
    pub(crate) fn install(
        &self,
        process: &Process,
        memory: &Memory,
        (stub, probe, space): (Stub, Uffd, Arc<vswap_pager::Space>),
    ) -> Arc<Managed> {
        let _ = self.poll.add(stub.thread.as_fd(), process.pid as u64 | STUB_TOKEN);
        memory.heap_end.store(0, Relaxed);
        let managed = Arc::new(Managed {
            space,
            stub,
            probe,
            leaving: AtomicBool::new(false),
            roused: AtomicBool::new(false),
        });
        *memory.managed.lock() = Some(Arc::clone(&managed));
        for &(address, len) in memory.pins.lock().iter() {
            managed.space.pin(address, len);
        }
        self.release_if_ended(process);
        managed
    }

    /// Lets go of what was made for a process whose end was seen meanwhile: whoever saw it found nothing to let go of. It takes the
    /// process out of the tree first and then looks for what manages it; here it is the other way round.
    fn release_if_ended(&self, process: &Process) {
        let known = self.tree.get(process.pid);
        let memory = process.memory();
        if !known.is_some_and(|known| std::ptr::eq(&raw const *known, process))
            && let Some(managed) = memory.managed()
        {
            self.release(process, &memory, &managed);
        }
    }

    /// Takes the process of a standing thread under management.
    pub(crate) fn adopt(
        &self,
        tracee: &mut Tracee,
        process: &Process,
        memory: &Memory,
    ) -> Result<Arc<Managed>, AdoptError> {
        let pid = process.pid;
        let newborn = self.start_stub(tracee, pid)?;
        let failed = |source| AdoptError::System { pid, source };
        let adopt = Adopt { group: process.group(), ..newborn.adopt };
        let space = self.pager().adopt(adopt).map_err(failed)?;
        let managed = self.install(process, memory, (newborn.stub, newborn.probe, space));
        managed.look(memory).map_err(failed)?;
        // Pinned words in ranges that were not managed yet a moment ago.
        for &(address, len) in memory.pins.lock().iter() {
            managed.space.pin(address, len);
        }
        Ok(managed)
    }

    /// Whether a process that has grown can be managed now.
    pub(crate) fn may_adopt(&self, process: &Process, memory: &Memory) -> bool {
        if memory.hopeless.load(Relaxed) || process.lender().is_some() {
            return false;
        }
        let Ok(status) = process::status(process.pid) else { return false };
        if status.filters > self.filters {
            // Its own filter may kill it for a call that it would not make itself.
            memory.hopeless.store(true, Relaxed);
            self.say_once(&self.warned.filtered, || {
                format!(
                    "process {} has a seccomp filter of its own: such programs run without being managed, and their memory counts",
                    process.pid
                )
            });
            return false;
        }
        let forking = memory.forked.lock().is_some_and(|when: Instant| when.elapsed() < FORK_TAKES);
        !(forking && status.threads > 1)
    }

    /// It cannot be managed, and will not be tried again until it executes something else.
    pub(crate) fn give_up(&self, memory: &Memory, error: &AdoptError) {
        memory.hopeless.store(true, Relaxed);
        if matches!(error, AdoptError::System { source, .. } if source.raw_os_error() == Some(3)) {
            return;
        }
        self.say_once(&self.warned.refused, || {
            format!("{error}; it runs on without being managed, and its memory counts against the limit")
        });
    }
}

impl Call<'_> {
    /// Lets the call happen and puts its process under management before it returns.
    pub(crate) fn proceed_and_manage(&self) {
        self.supervisor.let_another_read();
        // Somebody else is at it, and may be waiting for this very call to be answered.
        let Some(_work) = self.memory.work.try_lock() else { return self.proceed() };
        if self.memory.managed().is_some() || !self.supervisor.may_adopt(&self.process, &self.memory) {
            return self.proceed();
        }
        let mut tracee = match Tracee::seize(self.tid(), 0) {
            Ok(tracee) => tracee,
            Err(source) => {
                self.proceed();
                let error = AdoptError::Refused { pid: self.process.pid, source };
                return self.supervisor.give_up(&self.memory, &error);
            }
        };
        let asked = tracee.interrupt();
        self.proceed();
        if asked.is_err() {
            return;
        }
        let Some(signal) = rest(&mut tracee) else { return };
        if let Err(error) = self.supervisor.adopt(&mut tracee, &self.process, &self.memory) {
            self.supervisor.give_up(&self.memory, &error);
        }
        let _ = tracee.detach(signal);
    }
}

/// Waits until the thread stands still after an interruption; gives the signal that it is about to get, or 0. `None`
/// if it is gone.
pub(crate) fn rest(tracee: &mut Tracee) -> Option<i32> {
    match tracee.wait() {
        Ok(Stop::Rest | Stop::Call | Stop::Exec | Stop::Child) => Some(0),
        Ok(Stop::Signal(signal)) => Some(signal),
        Ok(Stop::Gone) | Err(_) => None,
    }
}
