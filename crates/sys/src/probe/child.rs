//! A child process with a time limit, that says by one number how far it came.
//!
//! # Safety
//! `fork` leaves one thread in the child; whatever runs there is a probe of this crate, which makes system calls on
//! memory of its own and ends by `_exit`, so no lock of another thread is waited for and nothing of the parent's is
//! dropped or flushed twice.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long one probe may take. What hangs, hangs for ever; what works takes less than a millisecond.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// The kernel refused a call.
    #[error("{call}: {source}")]
    Refused {
        /// The call.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The call was accepted but did not do what it should.
    #[error("{0}")]
    Wrong(&'static str),
    /// Nothing happened within the time limit.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The child was ended by a signal, say by a seccomp filter of a container.
    #[error("the probe was killed by signal {0}")]
    Killed(i32),
}

impl Obstacle {
    /// The kernel's error number, if it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Obstacle::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// How a step of a probe failed: which, and the error number (0: it was accepted, with the wrong effect).
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    /// Index into the probe's list of steps.
    pub step: u8,
    /// Error number or 0.
    pub errno: i32,
}

/// Fails with the error number of the last call.
pub(super) fn last(step: u8) -> Failure {
    Failure { step, errno: io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) }
}

/// Fails with the error number of `error`.
pub(super) fn refused(step: u8) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure { step, errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

/// Fails unless `right`.
pub(super) fn expect(right: bool, step: u8) -> Result<(), Failure> {
    if right { Ok(()) } else { Err(Failure { step, errno: 0 }) }
}

/// Runs `probe` in a child; `steps` names the steps that its failures refer to.
pub(super) fn attempt(
    steps: &'static [&'static str],
    probe: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Obstacle> {
    let (reader, writer) = pipe()?;
    // SAFETY: the child runs `probe` (see the module's note) and `_exit`s in `serve`; it never returns from here.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Obstacle::Refused { call: "fork", source: io::Error::last_os_error() }),
        0 => serve(&writer, probe),
        _ => {
            drop(writer);
            judge(pid, &reader, steps)
        }
    }
}

/// Whether there can be children with pipes at all; without, no probe says anything.
///
/// # Errors
/// The [`Obstacle`].
pub fn can_fork() -> Result<(), Obstacle> {
    attempt(&["wait for a helper"], || expect(went_well(helper(0, || true)?), 0))
}

/// The child's part: the answer is 8 bytes, step and error number; step 255 is success.
fn serve(writer: &OwnedFd, probe: impl FnOnce() -> Result<(), Failure>) -> ! {
    // SAFETY: a plain call; a child that outlived its parent would wait for nobody.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let failure = probe().err().unwrap_or(Failure { step: u8::MAX, errno: 0 });
    let mut answer = [0u8; 8];
    answer[0] = failure.step;
    answer[4..].copy_from_slice(&failure.errno.to_le_bytes());
    // SAFETY: eight live bytes are written; `_exit` runs no destructor of the parent's values.
    unsafe {
        libc::write(writer.as_raw_fd(), answer.as_ptr().cast(), answer.len());
        libc::_exit(0)
    }
}

/// The parent's part.
fn judge(pid: i32, reader: &OwnedFd, steps: &'static [&'static str]) -> Result<(), Obstacle> {
    let mut answer = [0u8; 8];
    let answered = readable_within(reader, TIME_LIMIT);
    let mut got = 0;
    if answered {
        // SAFETY: the buffer is live and of the length given; the read cannot block after `readable_within`.
        got = unsafe { libc::read(reader.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len()) };
    }
    let status = end(pid);
    match (answered, got) {
        (false, _) => Err(Obstacle::TimedOut(TIME_LIMIT)),
        (true, 8) => match answer[0] {
            u8::MAX => Ok(()),
            step => {
                let call = steps.get(usize::from(step)).copied().unwrap_or("a step without a name");
                match i32::from_le_bytes([answer[4], answer[5], answer[6], answer[7]]) {
                    0 => Err(Obstacle::Wrong(call)),
                    errno => Err(Obstacle::Refused { call, source: io::Error::from_raw_os_error(errno) }),
                }
            }
        },
        _ if libc::WIFSIGNALED(status) => Err(Obstacle::Killed(libc::WTERMSIG(status))),
        _ => Err(Obstacle::Wrong("the probe ended without an answer")),
    }
}

/// Ends a child of ours for certain and reaps it; returns its wait status.
pub(super) fn end(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `pid` is a child of this process that was not reaped yet, so the number is still its own; `status` is
    // live. A child that has written its answer is on its way to `_exit(0)`; the kill then changes nothing we look at.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        while libc::waitpid(pid, &raw mut status, libc::__WALL) < 0 {
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                break;
            }
        }
    }
    status
}

/// Whether `fd` can be read (or has hung up) before `limit` is over.
pub(super) fn readable_within(fd: &impl AsRawFd, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live `pollfd`.
        let n = unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left.as_millis()).unwrap_or(i32::MAX)) };
        if n > 0 {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

/// A helper of a probe: forked by the probe's child, dies with it. `task` runs there; its answer is the exit code.
pub(super) fn helper(step: u8, task: impl FnOnce() -> bool) -> Result<i32, Failure> {
    // SAFETY: no pointers.
    let parent = unsafe { libc::getpid() };
    // SAFETY: as in `attempt`.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(last(step)),
        0 => {
            // SAFETY: plain calls; see `serve`. A parent that died before the first of them is noticed by the second.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid() != parent {
                    libc::_exit(1);
                }
                let good = task();
                libc::_exit(i32::from(!good))
            }
        }
        _ => Ok(pid),
    }
}

/// Waits for a helper that ends by itself; whether its task went well.
pub(super) fn went_well(pid: i32) -> bool {
    let mut status = 0;
    // SAFETY: `pid` is an unreaped child; `status` is live.
    let reaped = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    reaped == pid && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// A pipe, closed on exec.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd), Obstacle> {
    let mut ends = [0i32; 2];
    // SAFETY: two live integers, which are owned descriptors afterwards.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(Obstacle::Refused { call: "pipe2", source: io::Error::last_os_error() });
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}
