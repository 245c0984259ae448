//! Calls of threads: their end, words that the kernel writes for them, locks on memory, users and namespaces.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use vswap_sys::{call, process};

use crate::supervisor::Call;
use crate::tree::Managed;

/// How long the stub may take to follow a change of user before the program goes on without it.
const FOLLOW_WITHIN: Duration = Duration::from_millis(200);
const STUB_LEAVES_WITHIN_MS: i32 = 2000;

impl Call<'_> {
    /// A call that names a word (or a range) which has to stay resident.
    pub(crate) fn pin_and_proceed(&self, argument: usize, len: u64) {
        if self.memory.managed().is_some() {
            self.supervisor.let_another_read();
        }
        self.memory.pin(self.arg(argument), len);
        self.proceed();
    }

    /// `mlockall`: the kernel would wait for ever for pages that are out, and a limit cannot hold everything. The
    /// program is told that there is not so much lockable memory, as any program must expect.
    pub(crate) fn lock_all(&self) {
        const ENOMEM: i64 = 12;
        if self.memory.managed().is_some() {
            return self.answer(-ENOMEM);
        }
        self.memory.hopeless.store(true, Relaxed);
        self.proceed();
    }

    /// `exit` of one thread. When none but the stub would be left, the stub goes first, or the process would stay.
    pub(crate) fn thread_exit(&self) {
        self.supervisor.tree.forget_thread(self.tid());
        let managed = self.memory.managed();
        if let Some(managed) = &managed {
            self.pin_robust_list(managed);
        }
        if let Some(managed) = managed
            && !managed.is_left()
            && self.process.lender().is_none()
            && self.is_last(&managed)
        {
            self.send_away(&managed);
        }
        self.proceed();
    }

    /// The kernel marks the robust mutexes that a thread holds at its end, without raising faults any more.
    fn pin_robust_list(&self, managed: &Managed) {
        // To read them may raise faults.
        self.supervisor.let_another_read();
        let words = process::robust_words(self.tid()).unwrap_or_default();
        words.into_iter().for_each(|word| managed.space.pin(word, 4));
    }

    fn is_last(&self, managed: &Managed) -> bool {
        let mut exiting = self.memory.exiting.lock();
        let Ok(threads) = process::threads(self.process.pid) else { return false };
        exiting.retain(|tid| threads.contains(tid));
        exiting.insert(self.tid());
        threads
            .iter()
            .all(|tid| *tid == managed.stub.tid || exiting.contains(tid) || is_zombie(self.process.pid, *tid))
    }

    /// Sends the stub away, after writing down what is staged: without it nothing can be read from there.
    fn send_away(&self, managed: &Managed) {
        self.supervisor.let_another_read();
        // Nothing is asked of it from here on, or it would never be answered.
        managed.space.end_eviction(self.process.pid);
        managed.leaving.store(true, SeqCst);
        if let Some(link) = managed.space.link() {
            link.close();
        }
        managed.stub.thread.wait_end(STUB_LEAVES_WITHIN_MS);
    }

    /// `setuid` and its kin: the stub follows, so that it is never more than the program.
    pub(crate) fn change_user(&self) {
        if let Some(managed) = self.memory.managed()
            && !managed.is_left()
            && let Some(link) = managed.space.link()
        {
            self.supervisor.let_another_read();
            let mut args = self.notification.args;
            args[5] = self.supervisor.mark;
            let _ = link.syscall_within(FOLLOW_WITHIN, i64::from(self.notification.nr), args);
        }
        self.proceed();
    }

    /// `unshare` and `setns`, some kinds of which need a process of one thread. Then the stub goes for good: what is out
    /// is still brought in from outside, nothing more is moved out, and new mappings are not managed.
    pub(crate) fn change_namespaces(&self) {
        let flags = if i64::from(self.notification.nr) == call::UNSHARE { self.arg(0) } else { self.arg(1) };
        // `setns` with 0 leaves the kind to the descriptor.
        let needs_one_thread = flags == 0 || flags & (call::CLONE_NEWUSER | call::CLONE_NEWTIME) != 0;
        if needs_one_thread
            && let Some(managed) = self.memory.managed()
            && !managed.is_left()
            && self.is_alone(&managed)
        {
            let _work = self.work();
            self.send_away(&managed);
        }
        self.proceed();
    }

    fn is_alone(&self, managed: &Managed) -> bool {
        process::threads(self.process.pid)
            .is_ok_and(|threads| threads.iter().all(|&tid| tid == managed.stub.tid || tid == self.tid()))
    }
}

/// A thread that has ended but is still listed: the leader, waiting for the others.
fn is_zombie(pid: i32, tid: i32) -> bool {
    process::thread_state(pid, tid).is_ok_and(|state| matches!(state, b'Z' | b'X'))
}
