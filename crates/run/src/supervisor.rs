//! The supervisor: reads what the tree notifies and does what each call needs before the kernel executes it.
//!
//! One thread at a time reads notifications, and attends to what it has read: each is another call that wakes one
//! thread only. One that is about to wait, for a program or for others who may, first lets another read on, so that
//! a stopped program holds up nobody but itself.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, MutexGuard};
use vswap_pager::Pager;
use vswap_sys::poll::Epoll;
use vswap_sys::seccomp::{Listener, Notification};
use vswap_sys::{call, pidfd};

use crate::census::Census;
use crate::engine::comes_before_end_of;
use crate::message::Message;
use crate::tree::{Found, Managed, Memory, Process, Tree, UNKNOWN};

/// Threads that read notifications, or wait for a program, at most.
const READERS: usize = 256;
/// Calls in a row that are gone when they are read, after which it may be that nobody is left to call.
const EMPTY_READS: u32 = 16;
/// Threads that wait to read on.
const SPARE_READERS: usize = 4;
/// Bit of an epoll token: the process's stub, not the process.
pub(crate) const STUB_TOKEN: u64 = 1 << 40;

/// What all threads of the engine's process share.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) listener: Listener,
    pub(crate) mark: u64,
    /// There before anything is notified but the program's exec.
    pub(crate) pager: OnceLock<Pager>,
    /// Private memory from which on a process is managed.
    pub(crate) threshold: u64,
    /// An open `/dev/userfaultfd` for programs that may not make a userfaultfd.
    pub(crate) device: Option<OwnedFd>,
    /// Staging windows of each address space that are used.
    pub(crate) windows: u32,
    /// Seccomp filters on a program that installed none itself.
    pub(crate) filters: u32,
    pub(crate) tree: Tree,
    pub(crate) census: Census,
    pub(crate) poll: Epoll,
    pub(crate) front: OwnedFd,
    pub(crate) readers: Readers,
    /// Bytes by which processes that are not managed were seen to grow since the sampler began to look at them.
    pub(crate) grown: AtomicU64,
    pub(crate) warned: Warned,
}

/// The threads that read notifications, one of which does at a time.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    crew: Mutex<Crew>,
    /// There is something for a spare one.
    relief: Condvar,
}

#[derive(Debug, Default)]
struct Crew {
    threads: usize,
    spare: usize,
    /// A spare one is to read, and none has noticed yet.
    called: bool,
}

thread_local! {
    /// This thread is the one that reads.
    static READS: Cell<bool> = const { Cell::new(false) };
}

/// What has been said once.
#[derive(Debug, Default)]
pub(crate) struct Warned {
    pub(crate) refused: AtomicBool,
    pub(crate) thirty_two_bit: AtomicBool,
    pub(crate) filtered: AtomicBool,
}

/// One notified call and whose it is.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) supervisor: &'a Arc<Supervisor>,
    pub(crate) notification: Notification,
    pub(crate) process: Arc<Process>,
    pub(crate) memory: Arc<Memory>,
}

impl Supervisor {
    /// The pager.
    pub(crate) fn pager(&self) -> &Pager {
        self.pager.wait()
    }

    /// Prints a line through the front.
    pub(crate) fn say(&self, text: String) {
        let _ = Message::Say(text).send(self.front.as_fd());
    }

    /// Prints a line unless `said` tells that it was said.
    pub(crate) fn say_once(&self, said: &AtomicBool, text: impl FnOnce() -> String) {
        if !said.swap(true, Relaxed) {
            self.say(text());
        }
    }

    /// Attends to the program's first call, its exec, before there is a thread that does. It is let go first and the
    /// process entered then: nothing is to be known of it yet, and the kernel loads the program meanwhile.
    /// `false` if the front ends before that.
    pub(crate) fn let_execute(self: &Arc<Self>) -> bool {
        if !comes_before_end_of(self.front.as_fd(), self.listener.as_fd()) {
            return false;
        }
        // An error: the program's process was killed.
        if let Ok(first) = self.listener.receive() {
            let _ = self.listener.proceed(first.id);
            if let Some(process) = self.process_of(first.tid as i32) {
                process.will_execute();
            }
        }
        true
    }

    /// Starts a thread that reads notifications, when none does.
    ///
    /// # Errors
    /// What making a thread says.
    pub(crate) fn start_reader(self: &Arc<Self>) -> io::Result<()> {
        self.start_thread(&mut self.readers.crew.lock())
    }

    fn start_thread(self: &Arc<Self>, crew: &mut Crew) -> io::Result<()> {
        let supervisor = Arc::clone(self);
        let builder = std::thread::Builder::new().name("notified".into()).stack_size(256 << 10);
        builder.spawn(move || supervisor.read())?;
        crew.threads += 1;
        Ok(())
    }

    fn read(self: Arc<Self>) {
        // A signal that comes before a notification has been read interrupts the call: be quick.
        vswap_sys::sched::hurry();
        READS.set(true);
        let mut nothing = 0;
        while READS.get() || self.relieves() {
            match self.listener.receive() {
                Ok(notification) => {
                    nothing = 0;
                    self.attend(notification);
                }
                // The caller was interrupted or killed before.
                Err(_) if nothing < EMPTY_READS => nothing += 1,
                // Or nobody is left: the engine's main thread sees to that.
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
    }

    /// Waits until it is this thread's turn to read. `false` if there are enough that do.
    fn relieves(&self) -> bool {
        let mut crew = self.readers.crew.lock();
        if crew.spare == SPARE_READERS && !crew.called {
            crew.threads -= 1;
            return false;
        }
        crew.spare += 1;
        self.readers.relief.wait_while(&mut crew, |crew| !crew.called);
        crew.called = false;
        crew.spare -= 1;
        READS.set(true);
        true
    }

    /// The calling thread is about to wait, for a program or for others who may: if it reads, another has to meanwhile.
    pub(crate) fn let_another_read(self: &Arc<Self>) {
        if !READS.get() {
            return;
        }
        READS.set(false);
        let mut crew = self.readers.crew.lock();
        if crew.spare == 0 && crew.threads < READERS && self.start_thread(&mut crew).is_ok() {
            return;
        }
        // Only who reads calls, so none has been called before. Where there is none to be had, whoever is done first comes.
        crew.called = true;
        drop(crew);
        self.readers.relief.notify_one();
    }

    fn attend(self: &Arc<Self>, notification: Notification) {
        let Some(process) = self.process_of(notification.tid as i32) else {
            let _ = self.listener.proceed(notification.id);
            return;
        };
        self.notice_exec(&process);
        let memory = process.memory();
        let call = Call { supervisor: self, notification, process, memory };
        match i64::from(notification.nr) {
            call::MMAP => call.map(),
            call::BRK => call.set_break(),
            call::MREMAP => call.remap(),
            call::FORK | call::VFORK | call::CLONE | call::CLONE3 => call.birth(),
            call::EXECVE | call::EXECVEAT => {
                call.process.will_execute();
                call.proceed();
            }
            call::EXIT => call.thread_exit(),
            call::SET_TID_ADDRESS => call.pin_and_proceed(0, 4),
            call::SET_ROBUST_LIST => call.pin_and_proceed(0, 24),
            call::RSEQ => call.pin_and_proceed(0, notification.args[1].clamp(32, 4096)),
            call::MADVISE => call.advise(),
            call::MLOCK | call::MLOCK2 => call.pin_and_proceed(0, notification.args[1]),
            call::MLOCKALL => call.lock_all(),
            call::UNSHARE | call::SETNS => call.change_namespaces(),
            _ => call.change_user(),
        }
    }

    /// The process of a thread, welcomed if it is new; `None` if it is gone or cannot be seen.
    pub(crate) fn process_of(self: &Arc<Self>, tid: i32) -> Option<Arc<Process>> {
        if tid == 0 {
            return None;
        }
        match self.tree.process_of(tid).ok()? {
            Found::Known(process) => Some(process),
            Found::New(process) => {
                self.welcome(&process);
                Some(process)
            }
        }
    }

    /// A process has been entered into the tree.
    pub(crate) fn welcome(&self, process: &Process) {
        self.census.enter(process.pid);
        let _ = self.poll.add(process.handle.as_fd(), process.pid as u64);
    }

    /// Finds out whether a process that was let execute something has done so: its call comes from the new image.
    fn notice_exec(&self, process: &Arc<Process>) {
        if !process.take_executed() {
            return;
        }
        if let Some(lender) = process.lender() {
            if !pidfd::same_memory(process.pid, lender).unwrap_or(false) {
                process.replace_memory(Memory::new());
                process.memory().counted.store(0, Relaxed);
            }
            return;
        }
        let memory = process.memory();
        // It may have failed.
        memory.counted.store(UNKNOWN, Relaxed);
        if let Some(managed) = memory.managed()
            && managed.memory_gone()
        {
            self.release(process, &memory, &managed);
        }
    }

    /// The address space of a process is gone: frees what was kept for it.
    pub(crate) fn release(&self, process: &Process, memory: &Arc<Memory>, managed: &Managed) {
        let now = process.memory();
        if Arc::ptr_eq(&now, memory) {
            process.replace_memory(Memory::new());
        }
        if memory.managed.lock().take().is_some() {
            let _ = self.poll.remove(managed.stub.thread.as_fd());
            self.pager().release(&managed.space);
        }
    }
}

impl Call<'_> {
    pub(crate) fn proceed(&self) {
        let _ = self.supervisor.listener.proceed(self.notification.id);
    }

    pub(crate) fn answer(&self, result: i64) {
        let _ = self.supervisor.listener.answer(self.notification.id, result);
    }

    pub(crate) fn answer_with(&self, result: io::Result<i64>) {
        self.answer(result.unwrap_or_else(|error| -i64::from(error.raw_os_error().unwrap_or(5))));
    }

    pub(crate) fn arg(&self, index: usize) -> u64 {
        self.notification.args[index]
    }

    pub(crate) fn tid(&self) -> i32 {
        self.notification.tid as i32
    }

    /// Begins what is done to the whole address space.
    pub(crate) fn work(&self) -> MutexGuard<'_, ()> {
        self.memory.work.try_lock().unwrap_or_else(|| {
            // Who works may be waiting for the program.
            self.supervisor.let_another_read();
            self.memory.work.lock()
        })
    }

    /// Before a mapping is made: nothing of what was at its addresses may still be on its way out.
    pub(crate) fn await_evictions(&self, managed: &Managed) {
        if managed.space.is_moving() {
            self.supervisor.let_another_read();
        }
        managed.space.barrier_for_mapping();
    }

    /// Has the stub make a call, however long the program is stopped meanwhile.
    pub(crate) fn through_stub(&self, managed: &Managed, nr: i64, args: [u64; 6]) -> io::Result<i64> {
        const ESRCH: i32 = 3;
        self.supervisor.let_another_read();
        let gone = || io::Error::from_raw_os_error(ESRCH);
        let link = managed.space.link().ok_or_else(gone)?;
        link.syscall_while(nr, args, || !managed.stub.thread.has_ended()).ok_or_else(gone)?
    }
}
