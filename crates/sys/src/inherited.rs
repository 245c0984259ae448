//! What this process was started with and Rust's runtime, or we, change: whether `SIGPIPE` and `SIGCHLD` were ignored, which
//! signals were blocked, and which of the standard descriptors were closed. A program run on someone's behalf must get back what they gave.
//!
//! The runtime sets `SIGPIPE` to be ignored and opens `/dev/null` for closed standard descriptors without a record
//! of either, so a function that the loader calls before it takes the record.
//!
//! # Safety
//! The recording function runs once, before `main` and before any other thread, and makes calls that need no runtime.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Bits 0 to 2: that descriptor was closed; bit 3: `SIGPIPE` was ignored; bit 4: `SIGCHLD` was.
static RECORD: AtomicU8 = AtomicU8::new(0);
/// Signals that were blocked. Asked for and put back without the C library, which keeps some for itself.
static BLOCKED: AtomicU64 = AtomicU64::new(0);
const SIGPIPE_IGNORED: u8 = 1 << 3;
const SIGCHLD_IGNORED: u8 = 1 << 4;

// SAFETY: `.init_array` holds pointers to functions of this signature, called once each by the C library's start code
// (glibc passes arguments, which a C function of no parameters may be given on x86-64).
// Not under Miri, which cannot make these calls and would make them in the tests of every crate above.
#[cfg(not(miri))]
#[used]
#[unsafe(link_section = ".init_array")]
static RECORDER: extern "C" fn() = record;

#[cfg_attr(miri, allow(dead_code))]
extern "C" fn record() {
    let mut seen = 0;
    // SAFETY: calls without pointers, or with one live zeroed structure.
    unsafe {
        for fd in 0..3 {
            if libc::fcntl(fd, libc::F_GETFD) < 0 {
                seen |= 1 << fd;
            }
        }
        for (signal, bit) in [(libc::SIGPIPE, SIGPIPE_IGNORED), (libc::SIGCHLD, SIGCHLD_IGNORED)] {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
                && action.sa_sigaction == libc::SIG_IGN
            {
                seen |= bit;
            }
        }
    }
    let mut blocked = 0u64;
    // SAFETY: writes the eight bytes of the kernel's signal set.
    unsafe {
        let nothing = std::ptr::null::<u64>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, nothing, &raw mut blocked, 8);
    }
    // Relaxed, both: one thread so far; later ones are started after this.
    BLOCKED.store(blocked, Ordering::Relaxed);
    RECORD.store(seen, Ordering::Relaxed);
}

/// Whether `SIGPIPE` was ignored when this process started (as under `nohup`-like wrappers).
pub fn sigpipe_ignored() -> bool {
    RECORD.load(Ordering::Relaxed) & SIGPIPE_IGNORED != 0
}

/// Whether standard descriptor `fd` (0, 1 or 2) was closed when this process started.
pub fn was_closed(fd: i32) -> bool {
    (0..3).contains(&fd) && RECORD.load(Ordering::Relaxed) & (1 << fd) != 0
}

/// Gives a child, between `fork` and `exec`, what this process was started with.
///
/// Undoes the runtime's changes and ours only: `SIGPIPE`, `SIGCHLD`, blocked signals, and standard descriptors that stand for closed
/// ones.
pub fn restore_for_exec() {
    let action = if sigpipe_ignored() { libc::SIG_IGN } else { libc::SIG_DFL };
    let ignores_children = RECORD.load(Ordering::Relaxed) & SIGCHLD_IGNORED != 0;
    // SAFETY: the dispositions are of the two that need no handler; the descriptors closed are the runtime's own
    // `/dev/null`, which nothing refers to in a child that is about to execute a program.
    unsafe {
        libc::signal(libc::SIGPIPE, action);
        if ignores_children {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        }
        for fd in (0..3).filter(|&fd| was_closed(fd)) {
            libc::close(fd);
        }
    }
    restore_blocked();
}

/// Blocks the signals again, and no others, that were blocked when this process started.
pub fn restore_blocked() {
    let blocked = BLOCKED.load(Ordering::Relaxed);
    let nothing = std::ptr::null_mut::<u64>();
    // SAFETY: the signal set is eight live bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const blocked, nothing, 8) };
}

/// Ends this process by `signal`, as the program that it stands for was ended; without a core dump of its own.
pub fn end_by_signal(signal: i32) -> ! {
    crate::process::no_core();
    // SAFETY: plain calls and one live signal set, initialised by `sigemptyset`; `raise` of an unblocked signal with
    // its default action does not return for those that end a process, and `_exit` is there for the others.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::raise(signal);
        libc::_exit(128 + signal)
    }
}
