//! What one process may do to its own descendant: trace it, read its memory, take its descriptors.
//!
//! # Safety
//! The descendant is the probe's own helper, which sleeps; it is ended with the probe.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::Trial;
use super::child::{self, Failure, Obstacle, expect, last, refused};
use crate::mapping::{Mapping, PAGE};
use crate::pagemap::Pagemap;

const MARK: u8 = 0xcd;

/// What can be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerTrial {
    /// `PTRACE_SEIZE`, stop, detach.
    Trace,
    /// `process_vm_readv`.
    ReadMemory,
    /// `pidfd_open` and `pidfd_getfd`.
    TakeDescriptor,
    /// A pidfd of one thread (`PIDFD_THREAD`).
    ThreadDescriptor,
    /// `PAGEMAP_SCAN` of another process.
    ScanPages,
}

const STEPS: &[&str] = &[
    "map scratch memory, make a pipe",
    "fork a helper",
    "PTRACE_SEIZE",
    "PTRACE_INTERRUPT",
    "the traced process did not stop",
    "PTRACE_DETACH",
    "process_vm_readv",
    "the bytes read are not those of the other process",
    "pidfd_open",
    "pidfd_getfd",
    "open /proc/PID/pagemap",
    "PAGEMAP_SCAN",
    "a page that is present was not found",
];

impl Trial for PeerTrial {
    fn attempt(self) -> Result<(), Obstacle> {
        child::attempt(STEPS, || {
            let mut memory = Mapping::anonymous(PAGE).map_err(refused(0))?;
            memory.as_mut_slice()[0] = MARK;
            let (kept, _writer) = child::pipe().map_err(|_| last(0))?;
            let helper = child::helper(1, || {
                // SAFETY: no pointers; the helper dies with the probe.
                unsafe { libc::sleep(60) };
                true
            })?;
            // Ours differs from the helper's now.
            memory.as_mut_slice()[0] = 0;
            let found = self.on(helper, memory.address(), kept.as_raw_fd());
            child::end(helper);
            found
        })
    }
}

impl PeerTrial {
    fn on(self, pid: i32, page: u64, descriptor: i32) -> Result<(), Failure> {
        match self {
            PeerTrial::Trace => trace(pid),
            PeerTrial::ReadMemory => {
                let mut byte = [0];
                crate::procvm::read(pid, page, &mut byte).map_err(refused(6))?;
                expect(byte == [MARK], 7)
            }
            PeerTrial::TakeDescriptor => {
                let pidfd = pidfd(pid, 0)?;
                // SAFETY: no pointers; the result is owned and closed at once.
                let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), descriptor, 0) };
                if fd < 0 {
                    return Err(last(9));
                }
                // SAFETY: the descriptor was just made.
                drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
                Ok(())
            }
            PeerTrial::ThreadDescriptor => pidfd(pid, libc::O_EXCL).map(drop),
            PeerTrial::ScanPages => {
                let mut found = false;
                Pagemap::open(pid)
                    .map_err(refused(10))?
                    .present(page..page + PAGE as u64, |range| found |= range.contains(&page))
                    .map_err(refused(11))?;
                expect(found, 12)
            }
        }
    }
}

fn pidfd(pid: i32, flags: i32) -> Result<OwnedFd, Failure> {
    // SAFETY: no pointers; the result is checked and owned.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) };
    if fd < 0 {
        return Err(last(8));
    }
    // SAFETY: the descriptor was just made.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn trace(pid: i32) -> Result<(), Failure> {
    // SAFETY: requests without pointers, on a child of this process.
    unsafe {
        if libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) != 0 {
            return Err(last(2));
        }
        if libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0) != 0 {
            return Err(last(3));
        }
    }
    let until = Instant::now() + Duration::from_secs(1);
    let mut status = 0;
    loop {
        // SAFETY: `status` is live.
        if unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::WNOHANG) } == pid {
            break;
        }
        expect(Instant::now() < until, 4)?;
        std::thread::sleep(Duration::from_millis(1));
    }
    expect(libc::WIFSTOPPED(status), 4)?;
    // SAFETY: as above.
    if unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0) } != 0 { Err(last(5)) } else { Ok(()) }
}
