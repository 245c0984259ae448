//! What of the tree is not managed, looked at ten times a second: small processes, stacks, shared memory. Also finds
//! processes that have made no notified call (32-bit ones never do), and those that grew without one.

use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use vswap_core::ByteCount;
use vswap_sys::process;
use vswap_sys::ptrace::{Stop, Tracee};

use crate::rouse;
use crate::supervisor::Supervisor;
use crate::tree::{Memory, Process};

const EVERY: Duration = Duration::from_millis(100);
/// However long a look takes.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// Above this a small process's pages are weighed by how many share them.
const WORTH_WEIGHING: u64 = 2 << 20;
/// A thread that is asked to stop and has not after so long is left alone.
const STOPS_WITHIN: Duration = Duration::from_secs(1);

/// The sampler's thread.
pub(crate) struct Sampler {
    supervisor: Arc<Supervisor>,
    /// The most that the tree had resident, bytes.
    peak: Arc<AtomicU64>,
    round: u32,
    /// Whether the thread for stubs of stopped programs was started: when there is the first stub.
    watches_stubs: Cell<bool>,
}

impl Sampler {
    /// Starts it; it ends with the engine's process.
    ///
    /// # Errors
    /// What making a thread says.
    ///
    /// `soon` is called once, at the second look.
    pub(crate) fn start(
        supervisor: Arc<Supervisor>,
        peak: Arc<AtomicU64>,
        soon: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let mut sampler = Sampler { supervisor, peak, round: 0, watches_stubs: Cell::new(false) };
        let builder = std::thread::Builder::new().name("sampler".into()).stack_size(256 << 10);
        builder.spawn(move || {
            let mut soon = Some(soon);
            loop {
                let began = Instant::now();
                sampler.sample();
                if sampler.round > 1
                    && let Some(soon) = soon.take()
                {
                    soon();
                }
                // At most a twentieth of a CPU, however many processes there are.
                std::thread::sleep((began.elapsed() * 20).clamp(EVERY, AT_LEAST_EVERY));
            }
        })?;
        Ok(())
    }

    fn sample(&mut self) {
        self.round += 1;
        if self.round.is_multiple_of(5) {
            self.discover();
        }
        // What is seen of their growth from here on may be in what is read below or not: it counts.
        self.supervisor.grown.store(0, Relaxed);
        let (mut unmanaged, mut untouched) = (0, 0);
        for process in self.supervisor.tree.all() {
            let (a, b) = self.unmanaged_of(&process);
            unmanaged += a;
            untouched += b;
        }
        self.supervisor
            .pager()
            .set_unmanaged(ByteCount::new(unmanaged + self.supervisor.grown.load(Relaxed)));
        let used = self.supervisor.pager().stats().used.saturating_sub(untouched);
        self.peak.fetch_max(used, Relaxed);
    }

    /// Bytes of a process that are not managed, and bytes that are granted to it and not there.
    fn unmanaged_of(&self, process: &Arc<Process>) -> (u64, u64) {
        if process.lender().is_some() {
            return (0, 0);
        }
        let memory = process.memory();
        if memory.managed().is_some() && !self.watches_stubs.get() {
            // Failed, it is tried again at the next look.
            self.watches_stubs.set(rouse::watch(Arc::clone(&self.supervisor)).is_ok());
        }
        let Ok(status) = process::status(process.pid) else { return (0, 0) };
        if let Some(managed) = memory.managed() {
            if managed.space.take_missed() {
                memory.unseen.fetch_add(1, Relaxed);
            }
            if memory.unseen.load(Relaxed) > 0
                && let Some(_work) = memory.work.try_lock()
            {
                let _ = managed.look(&memory);
            }
            let granted = managed.space.granted_pages() * 4096;
            let known = (managed.space.present_pages() * 4096).saturating_sub(granted);
            let beyond = status.anonymous.saturating_sub(known);
            let unmanaged = beyond.saturating_sub(granted) + status.shared_memory;
            return (unmanaged, granted.saturating_sub(beyond));
        }
        if memory.newborn.load(Relaxed) {
            return (0, 0);
        }
        memory.counted.store(status.anonymous, Relaxed);
        memory.grown.store(0, Relaxed);
        self.watch_growth(process, &memory, status.anonymous);
        let plain = status.anonymous + status.shared_memory;
        let weighed = plain >= WORTH_WEIGHING;
        let unmanaged = if weighed { process::proportional(process.pid).unwrap_or(plain) } else { plain };
        (unmanaged, 0)
    }

    /// A process can grow without a notified call: into a large `.bss`, or as a 32-bit one.
    fn watch_growth(&self, process: &Arc<Process>, memory: &Arc<Memory>, resident: u64) {
        let threshold = self.supervisor.threshold;
        if resident <= threshold / 2 || memory.hopeless.load(Relaxed) {
            return;
        }
        let mapped = process.statm.read().map_or(0, |size| size.private_mapped);
        if mapped <= threshold {
            return;
        }
        if is_thirty_two_bit(process.pid) {
            memory.hopeless.store(true, Relaxed);
            self.supervisor.say_once(&self.supervisor.warned.thirty_two_bit, || {
                format!("process {} is a 32-bit program: those run without being managed, and their memory counts", process.pid)
            });
            return;
        }
        let (supervisor, process, memory) =
            (Arc::clone(&self.supervisor), Arc::clone(process), Arc::clone(memory));
        let builder = std::thread::Builder::new().name("adopting".into()).stack_size(256 << 10);
        let _ = builder.spawn(move || adopt_running(&supervisor, &process, &memory));
    }

    fn discover(&self) {
        let known: HashSet<i32> = self.supervisor.tree.all().iter().map(|process| process.pid).collect();
        let mut new: Vec<i32> = Vec::new();
        for &pid in &known {
            new.extend(
                process::children(pid).unwrap_or_default().into_iter().filter(|pid| !known.contains(pid)),
            );
        }
        while let Some(pid) = new.pop() {
            if self.supervisor.process_of(pid).is_some() {
                new.extend(
                    process::children(pid).unwrap_or_default().into_iter().filter(|pid| !known.contains(pid)),
                );
            }
        }
    }
}

fn is_thirty_two_bit(pid: i32) -> bool {
    let mut header = [0; 5];
    std::fs::File::open(format!("/proc/{pid}/exe"))
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut header))
        .is_ok_and(|()| header == *b"\x7fELF\x01")
}

/// Puts a process under management that runs and calls nobody.
fn adopt_running(supervisor: &Supervisor, process: &Process, memory: &Memory) {
    let Some(_work) = memory.work.try_lock() else { return };
    if memory.managed().is_some() || !supervisor.may_adopt(process, memory) {
        return;
    }
    let Ok(mut tracee) = Tracee::seize(process.pid, 0) else { return };
    if tracee.interrupt().is_err() {
        return;
    }
    let since = Instant::now();
    let stop = loop {
        match tracee.poll() {
            Ok(Some(stop)) => break stop,
            Ok(None) if since.elapsed() < STOPS_WITHIN => std::thread::sleep(Duration::from_micros(200)),
            // Deep in the kernel. Letting go waits for it.
            Ok(None) => return,
            Err(_) => return,
        }
    };
    let signal = match stop {
        Stop::Signal(signal) => signal,
        Stop::Gone => return,
        _ => 0,
    };
    if let Err(error) = supervisor.adopt(&mut tracee, process, memory) {
        supervisor.give_up(memory, &error);
    }
    let _ = tracee.detach(signal);
}
