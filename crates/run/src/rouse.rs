//! Stubs of stopped programs.
//!
//! A stub stops with its program (Ctrl-Z, `SIGSTOP`). Then nothing could be moved out of the program; and a thread of it
//! whose call waits for the stub could not stop, so whoever stopped the program, a shell perhaps, would wait for ever.
//! But a seized thread may be let run while its process is stopped (`ptrace(2)`, group-stop), and only that thread runs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use vswap_sys::process;
use vswap_sys::ptrace::{Stop, Tracee};

use crate::supervisor::Supervisor;
use crate::tree::Managed;

/// How often stubs are looked at.
const EVERY: Duration = Duration::from_millis(100);
/// A stub that nothing is asked of for so long stops again.
const IDLE: Duration = Duration::from_millis(300);
/// How long a thread that has stopped takes to be ours.
const STANDS_WITHIN: Duration = Duration::from_millis(100);

/// Starts the thread that looks for stopped stubs of which something is wanted. It is nobody else's task: whoever wants something of
/// a stub may wait for it.
///
/// # Errors
/// What making a thread says.
pub(crate) fn watch(supervisor: Arc<Supervisor>) -> io::Result<()> {
    let builder = std::thread::Builder::new().name("stub-watch".into()).stack_size(256 << 10);
    builder.spawn(move || {
        loop {
            for process in supervisor.tree.all() {
                if let Some(managed) = process.memory().managed() {
                    managed.rouse();
                }
            }
            std::thread::sleep(EVERY);
        }
    })?;
    Ok(())
}

/// Whether thread `tid` of a process stands still because the process was stopped.
pub(crate) fn is_stopped(pid: i32, tid: i32) -> bool {
    process::thread_state(pid, tid).is_ok_and(|state| state == b'T')
}

/// Has a stopped stub run while its process does not. `None` if it goes on already, or has ended.
///
/// # Errors
/// `EPERM` if a debugger has it.
pub(crate) fn run_alone(tid: i32) -> io::Result<Option<Tracee>> {
    let mut stub = Tracee::seize(tid, 0)?;
    let since = Instant::now();
    let mut stop = stub.poll()?;
    while stop.is_none() {
        if since.elapsed() > STANDS_WITHIN {
            stub.interrupt()?;
            let stop = stub.wait()?;
            return let_go(stub, stop).map(|()| None);
        }
        std::thread::sleep(Duration::from_micros(200));
        stop = stub.poll()?;
    }
    match stop {
        Some(Stop::Rest) => stub.go_on(0).map(|()| Some(stub)),
        other => let_go(stub, other.unwrap_or(Stop::Gone)).map(|()| None),
    }
}

/// Lets a stub go that stands still because of `stop`.
pub(crate) fn let_go(stub: Tracee, stop: Stop) -> io::Result<()> {
    match stop {
        Stop::Gone => Ok(()),
        Stop::Signal(signal) => stub.detach(signal),
        _ => stub.detach(0),
    }
}

impl Managed {
    /// If the stub owes an answer and is stopped, has it run until the program does, or nothing more is wanted of it.
    /// Does not wait.
    pub(crate) fn rouse(self: &Arc<Self>) {
        let owes = self.space.link().is_some_and(|link| link.owes());
        if !owes || !self.stub_is_stopped() || self.roused.swap(true, SeqCst) {
            return;
        }
        let managed = Arc::clone(self);
        let builder = std::thread::Builder::new().name("rousing".into()).stack_size(256 << 10);
        let started = builder.spawn(move || {
            if let Err(error) = managed.run_stub() {
                // A debugger has it.
                tracing::debug!(tid = managed.stub.tid, %error, "the stub of a stopped program cannot be run");
            }
            managed.roused.store(false, SeqCst);
        });
        if started.is_err() {
            self.roused.store(false, SeqCst);
        }
    }

    fn stub_is_stopped(&self) -> bool {
        is_stopped(self.space.pid(), self.stub.tid)
    }

    fn run_stub(&self) -> io::Result<()> {
        let Some(mut stub) = run_alone(self.stub.tid)? else { return Ok(()) };
        let mut wanted = Instant::now();
        // Whatever stops it next, the program's going on for one, ends this.
        let stop = loop {
            if let Some(stop) = stub.poll()? {
                break stop;
            }
            if self.space.link().is_some_and(|link| link.owes()) {
                wanted = Instant::now();
            } else if wanted.elapsed() > IDLE {
                stub.interrupt()?;
                break stub.wait()?;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        // Still stopped with the others, or running with them.
        let_go(stub, stop)
    }
}
