//! Seccomp user notification: a call is caught, answered by another process, and let go on.
//!
//! # Safety
//! The filter is installed in the probe's child only, which ends with the probe. Structures are live and of the
//! kernel's layout, checked by size.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::Trial;
use super::child::{self, Failure, Obstacle, expect, last, readable_within, went_well};

const NEW_LISTENER: libc::c_ulong = 1 << 3;
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
const NOTIF_RECV: libc::c_ulong = 0xc050_2100;
const NOTIF_SEND: libc::c_ulong = 0xc018_2101;
const NOTIF_SET_FLAGS: libc::c_ulong = 0x4008_2104;
const SYNC_WAKE_UP: u64 = 1;
const CONTINUE: u32 = 1;
/// What the helper answers in place of a process group.
const ANSWER: i64 = 424_242;

/// What can be tried of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyTrial {
    /// Catch, answer, and let go on; a signal does not restart the call.
    Catch,
    /// The listener is woken on the caller's CPU.
    SyncWakeUp,
}

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    instruction: u64,
    arguments: [u64; 6],
}
const _: () = assert!(size_of::<Notification>() == 80);

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}
const _: () = assert!(size_of::<Response>() == 24);

const STEPS: &[&str] = &[
    "PR_SET_NO_NEW_PRIVS",
    "install a filter with a listener (WAIT_KILLABLE_RECV)",
    "SECCOMP_IOCTL_NOTIF_SET_FLAGS (SYNC_WAKE_UP)",
    "fork a helper",
    "the caught call was not answered",
    "the call that was let go on did not run",
    "the listener was not served",
];

impl Trial for NotifyTrial {
    fn attempt(self) -> Result<(), Obstacle> {
        child::attempt(STEPS, || probe(self == NotifyTrial::SyncWakeUp))
    }
}

fn probe(sync: bool) -> Result<(), Failure> {
    // SAFETY: a plain call, in effect for this child only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(last(0));
    }
    let own_group = group();
    let listener = listen()?;
    if sync {
        // SAFETY: the argument of this ioctl is a plain integer.
        if unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SET_FLAGS as libc::Ioctl, SYNC_WAKE_UP) } != 0 {
            return Err(last(2));
        }
    }
    let helper = child::helper(3, || answer(&listener, ANSWER, 0) && answer(&listener, 0, CONTINUE))?;
    expect(group() == ANSWER, 4)?;
    expect(group() == own_group, 5)?;
    expect(went_well(helper), 6)
}

/// `getpgid(0)`, the call that the filter catches: nothing else here makes it.
fn group() -> i64 {
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_getpgid, 0) }
}

fn listen() -> Result<OwnedFd, Failure> {
    // Load the number; the one call: notify; else: allow.
    let mut code = [
        libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: libc::SYS_getpgid as u32 },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_USER_NOTIF },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: `program` describes the live array `code`; the filter binds this child and its helper alone.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            NEW_LISTENER | WAIT_KILLABLE_RECV,
            &raw const program,
        )
    };
    if fd < 0 {
        return Err(last(1));
    }
    // SAFETY: the descriptor was just made.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Takes one notification and answers it.
fn answer(listener: &OwnedFd, value: i64, flags: u32) -> bool {
    if !readable_within(listener, Duration::from_secs(1)) {
        return false;
    }
    let mut notification = Notification::default();
    // SAFETY: both structures are live, zeroed where the kernel asks for that, and of its layout.
    unsafe {
        if libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as libc::Ioctl, &raw mut notification) != 0 {
            return false;
        }
        let response = Response { id: notification.id, value, error: 0, flags };
        libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as libc::Ioctl, &raw const response) == 0
    }
}
