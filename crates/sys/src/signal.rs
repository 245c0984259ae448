//! Signals of this process: read as messages, ignored, raised.
//!
//! # Safety
//! Signal sets are initialised by `sigemptyset`/`sigfillset` before use; no handler of ours is ever installed.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Ctrl-C.
pub const SIGINT: i32 = libc::SIGINT;
/// Cannot be caught.
pub const SIGKILL: i32 = libc::SIGKILL;
/// Cannot be caught either.
pub const SIGSTOP: i32 = libc::SIGSTOP;
/// A timer of the process ran out.
pub const SIGALRM: i32 = libc::SIGALRM;
/// A child has changed.
pub const SIGCHLD: i32 = libc::SIGCHLD;
/// Ctrl-Z.
pub const SIGTSTP: i32 = libc::SIGTSTP;
/// Go on.
pub const SIGCONT: i32 = libc::SIGCONT;

/// What stops a process unless it is handled.
pub const STOPS: [i32; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// What someone may send to a process to have it do something.
pub const FOR_PROGRAMS: [i32; 14] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGCONT,
    libc::SIGWINCH,
    libc::SIGURG,
    libc::SIGPWR,
];

/// What the kernel sends to a process past its own limits, of the length of files and of time; unhandled, each ends it.
pub const OF_LIMITS: [i32; 2] = [libc::SIGXFSZ, libc::SIGXCPU];

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises it; `sigaddset` is given an initialised set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Which.
    pub signal: i32,
    /// The kernel sent it by itself, as for a key pressed on a terminal.
    pub by_kernel: bool,
}

/// Signals read as messages; they are blocked from then on.
#[derive(Debug)]
pub struct Signals(File);

impl Signals {
    /// Blocks `signals` in this thread (and those it starts) and makes them readable.
    ///
    /// # Errors
    /// `EMFILE` and its kin.
    pub fn take(signals: &[i32]) -> io::Result<Signals> {
        let set = set_of(signals);
        // SAFETY: `set` is initialised and live; the result is checked and owned here.
        unsafe {
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Signals(File::from(OwnedFd::from_raw_fd(fd))))
        }
    }

    /// The next signal that has arrived, if any.
    pub fn next(&self) -> Option<Arrived> {
        let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
        let n = (&self.0).read(&mut bytes).ok()?;
        // The first and the third word of `struct signalfd_siginfo`: number and code.
        let word = |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        (n == bytes.len()).then(|| Arrived { signal: word(0), by_kernel: word(8) > 0 })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives a signal its default action.
pub fn reset(signal: i32) {
    // SAFETY: `SIG_DFL` is no function to be called.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Blocks signals in this thread and those that it starts.
pub fn block(signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: the set is initialised, and nothing is wanted back.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Ignores a signal from now on.
pub fn ignore(signal: i32) {
    // SAFETY: `SIG_IGN` is no function to be called.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}
