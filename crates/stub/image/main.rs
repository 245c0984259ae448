//! The stub's image: what runs as one more thread in a managed program.
//!
//! Its life: block signals, close every descriptor that is not its own, receive the ring, open two userfaultfds,
//! map the staging area, give up privileges, say hello with the main userfaultfd, then do what the ring says. No
//! allocator, no statics, no state but this stack and the ring. If the supervisor goes away it ends the program, so
//! that a missing page is never read as zero.
//!
//! # Safety
//! Pointers here are to locals that outlive the system call, or to the ring, mapped once and never unmapped.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

mod kernel;
#[path = "../src/logic.rs"]
mod logic;
#[path = "../src/protocol.rs"]
mod protocol;
#[path = "../src/start.rs"]
mod start;

use core::ptr::null;
use core::sync::atomic::Ordering::{Acquire, SeqCst};
use kernel::*;
use logic::Kernel;
use protocol::*;
use start::{Start, step};

const EAGAIN: isize = -11;
const EINTR: isize = -4;
const SIGKILL: usize = 9;
/// How often a stub with nothing to do looks whether its supervisor is still there.
const LOOK_EVERY_NS: i64 = 250_000_000;

/// A step that failed: the step of [`Hello`] and a negative errno.
type Failed = (u64, isize);

/// What the thread does. Called with the address of a [`Start`] on its own stack.
extern "C" fn stub(start: *const Start) -> ! {
    // SAFETY: the injector has written it where the stack pointer points.
    let start = unsafe { core::ptr::read(start) };
    let mut kernel = Marked { mark: start.mark as usize };
    let socket = start.socket as usize;
    settle(&mut kernel, socket);
    let mut hello = Hello { magic: u64::from(RING_MAGIC), ..Hello::default() };
    match prepare(&mut kernel, socket) {
        Ok((ring, uffd, staging)) => {
            hello.staging = staging as u64;
            drop_privileges(&mut kernel);
            say_hello(&mut kernel, socket, &hello, Some(uffd));
            serve(&mut kernel, ring, socket);
        }
        Err((step, error)) => {
            (hello.step, hello.error) = (step, error as i64);
            say_hello(&mut kernel, socket, &hello, None);
        }
    }
    leave(&mut kernel)
}

/// Ends this thread alone.
fn leave(kernel: &mut Marked) -> ! {
    loop {
        kernel.syscall(EXIT, [0; 6]);
    }
}

/// Ends the whole program.
pub fn end_program() -> ! {
    let mut kernel = Marked { mark: 0 };
    loop {
        let pid = kernel.syscall(GETPID, [0; 6]) as usize;
        kernel.syscall(KILL, [pid, SIGKILL, 0, 0, 0, 0]);
    }
}

/// Makes the thread its own: no signals, no descriptors of the program's, no hold on its directory.
fn settle(kernel: &mut Marked, socket: usize) {
    let all = u64::MAX;
    kernel.syscall(SIGPROCMASK, [0, &raw const all as usize, 0, 8, 0, 0]);
    if socket > 0 {
        kernel.syscall(CLOSE_RANGE, [0, socket - 1, 0, 0, 0, 0]);
    }
    kernel.syscall(CLOSE_RANGE, [socket + 1, u32::MAX as usize, 0, 0, 0, 0]);
    kernel.syscall(CHDIR, [c"/".as_ptr() as usize, 0, 0, 0, 0, 0]);
    const PR_SET_NAME: usize = 15;
    kernel.syscall(PRCTL, [PR_SET_NAME, c"vswap-stub".as_ptr() as usize, 0, 0, 0, 0]);
}

/// Everything before the hello: the ring, the main userfaultfd and the staging area.
fn prepare(kernel: &mut Marked, socket: usize) -> Result<(&'static Ring, usize, usize), Failed> {
    let [ring_fd, device] = receive(kernel, socket).map_err(|e| (step::RECEIVE, e))?;
    const READ_WRITE: usize = 3;
    const MAP_SHARED: usize = 1;
    let ring = check(kernel.syscall(MMAP, [0, RING_BYTES, READ_WRITE, MAP_SHARED, ring_fd as usize, 0]))
        .map_err(|e| (step::RING, e))?;
    dont_fork(kernel, ring, RING_BYTES);
    kernel.syscall(CLOSE, [ring_fd as usize, 0, 0, 0, 0, 0]);
    // SAFETY: just mapped, of the size of a `Ring` or more, never unmapped; all its fields are atomics.
    let ring: &'static Ring = unsafe { &*(ring as *const Ring) };
    let main = open_userfaultfd(kernel, device, MAIN_FEATURES)?;
    let staging_fd = open_userfaultfd(kernel, device, STAGING_FEATURES)?;
    if device >= 0 {
        kernel.syscall(CLOSE, [device as usize, 0, 0, 0, 0, 0]);
    }
    let staging = map_staging(kernel).map_err(|e| (step::STAGING, e))?;
    register(kernel, staging_fd, staging).map_err(|e| (step::REGISTER, e))?;
    ring.staging_fd.store(staging_fd as u32, SeqCst);
    Ok((ring, main, staging))
}

fn check(result: isize) -> Result<usize, isize> {
    if result < 0 && result > -4096 { Err(result) } else { Ok(result as usize) }
}

/// `struct msghdr`, `struct iovec` and room for a `cmsghdr` with three descriptors.
#[repr(C)]
struct Message {
    name: *const u8,
    name_len: usize,
    vector: *const [usize; 2],
    vectors: usize,
    control: *const Control,
    control_len: usize,
    flags: usize,
}

#[repr(C)]
struct Control {
    len: usize,
    level: i32,
    kind: i32,
    fds: [i32; 2],
}

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const CONTROL_HEAD: usize = 16;

/// Receives the ring's descriptor and, if there is one, that of `/dev/userfaultfd` (else -1).
fn receive(kernel: &mut Marked, socket: usize) -> Result<[i32; 2], isize> {
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    const EPROTO: isize = -71;
    let mut byte = 0u64;
    let vector = [&raw mut byte as usize, 8];
    let control = Control { len: 0, level: 0, kind: 0, fds: [-1; 2] };
    let message = Message {
        name: null(),
        name_len: 0,
        vector: &raw const vector,
        vectors: 1,
        control: &raw const control,
        control_len: size_of::<Control>(),
        flags: 0,
    };
    loop {
        match kernel.syscall(RECVMSG, [socket, &raw const message as usize, MSG_CMSG_CLOEXEC, 0, 0, 0]) {
            EINTR => {}
            0 => end_program(),
            result => {
                check(result)?;
                break;
            }
        }
    }
    // SAFETY: a live local that the kernel has just written to behind the compiler's back.
    let control = unsafe { core::ptr::read_volatile(&raw const control) };
    match (control.kind, control.len) {
        (SCM_RIGHTS, len) if len >= CONTROL_HEAD + 8 => Ok(control.fds),
        (SCM_RIGHTS, len) if len >= CONTROL_HEAD + 4 => Ok([control.fds[0], -1]),
        _ => Err(EPROTO),
    }
}

/// Sends `hello`, with the main userfaultfd if there is one.
fn say_hello(kernel: &mut Marked, socket: usize, hello: &Hello, uffd: Option<usize>) {
    const MSG_NOSIGNAL: usize = 0x4000;
    let vector = [hello as *const Hello as usize, size_of::<Hello>()];
    let len = CONTROL_HEAD + 4;
    let control = Control { len, level: SOL_SOCKET, kind: SCM_RIGHTS, fds: [uffd.unwrap_or(0) as i32, 0] };
    let message = Message {
        name: null(),
        name_len: 0,
        vector: &raw const vector,
        vectors: 1,
        control: if uffd.is_some() { &raw const control } else { null() },
        control_len: if uffd.is_some() { size_of::<Control>() } else { 0 },
        flags: 0,
    };
    kernel.syscall(SENDMSG, [socket, &raw const message as usize, MSG_NOSIGNAL, 0, 0, 0]);
}

/// Opens a userfaultfd of this address space, by the device if there is one.
fn open_userfaultfd(kernel: &mut Marked, device: i32, features: u64) -> Result<usize, Failed> {
    const O_CLOEXEC_NONBLOCK: usize = 0o2_004_000;
    const USERFAULTFD_IOC_NEW: usize = 0xaa00;
    const UFFDIO_API: usize = 0xc018_aa3f;
    let fd = if device >= 0 {
        kernel.syscall(IOCTL, [device as usize, USERFAULTFD_IOC_NEW, O_CLOEXEC_NONBLOCK, 0, 0, 0])
    } else {
        kernel.syscall(USERFAULTFD, [O_CLOEXEC_NONBLOCK, 0, 0, 0, 0, 0])
    };
    let fd = check(fd).map_err(|e| (step::USERFAULTFD, e))?;
    let api = [0xaau64, features, 0];
    check(kernel.syscall(IOCTL, [fd, UFFDIO_API, &raw const api as usize, 0, 0, 0]))
        .map_err(|e| (step::FEATURES, e))?;
    Ok(fd)
}

/// Maps the staging area, aligned to its windows; a forked child does not get it.
fn map_staging(kernel: &mut Marked) -> Result<usize, isize> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS_NORESERVE: usize = 0x4022;
    let align = WINDOW_BYTES as usize;
    let len = align * STAGING_WINDOWS as usize;
    let whole = kernel.syscall(MMAP, [0, len + align, READ_WRITE, PRIVATE_ANONYMOUS_NORESERVE, 0, 0]);
    let whole = check(whole)?;
    let start = (whole + align - 1) & !(align - 1);
    if start > whole {
        kernel.syscall(MUNMAP, [whole, start - whole, 0, 0, 0, 0]);
    }
    if start < whole + align {
        kernel.syscall(MUNMAP, [start + len, whole + align - start, 0, 0, 0, 0]);
    }
    dont_fork(kernel, start, len);
    Ok(start)
}

fn dont_fork(kernel: &mut Marked, start: usize, len: usize) {
    const MADV_DONTFORK: usize = 10;
    kernel.syscall(MADVISE, [start, len, MADV_DONTFORK, 0, 0, 0]);
}

fn register(kernel: &mut Marked, fd: usize, start: usize) -> Result<(), isize> {
    const UFFDIO_REGISTER: usize = 0xc020_aa00;
    const MISSING: u64 = 1;
    let request = [start as u64, WINDOW_BYTES * u64::from(STAGING_WINDOWS), MISSING, 0];
    check(kernel.syscall(IOCTL, [fd, UFFDIO_REGISTER, &raw const request as usize, 0, 0, 0])).map(|_| ())
}

/// Gives up every capability but those to follow the program's changes of user and group, where it has them.
fn drop_privileges(kernel: &mut Marked) {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SETGID_SETUID: u32 = 1 << 6 | 1 << 7;
    let header = [VERSION_3, 0];
    let mut sets = [0u32; 6];
    kernel.syscall(CAPGET, [&raw const header as usize, &raw mut sets as usize, 0, 0, 0, 0]);
    // SAFETY: a live local that the kernel has written to.
    let permitted = unsafe { core::ptr::read_volatile(&raw const sets[1]) } & CAP_SETGID_SETUID;
    let kept = [permitted, permitted, 0, 0, 0, 0];
    kernel.syscall(CAPSET, [&raw const header as usize, &raw const kept as usize, 0, 0, 0, 0]);
}

/// Does what the ring says until it says to leave.
fn serve(kernel: &mut Marked, ring: &Ring, socket: usize) {
    // Only this thread changes `done`.
    let mut done = ring.done.load(Acquire);
    loop {
        // Acquire: the command's fields were written before `posted` was raised.
        if ring.posted.load(Acquire) == done {
            wait(kernel, ring, done, socket);
            continue;
        }
        let go_on = logic::execute(kernel, ring, &ring.commands[(done % RING_LEN) as usize]);
        done = done.wrapping_add(1);
        // SeqCst on both words, here and in the client: either it sees `done`, or we see that it sleeps.
        ring.done.store(done, SeqCst);
        if ring.client_sleeps.load(SeqCst) != 0 {
            const FUTEX_WAKE: usize = 1;
            kernel.syscall(FUTEX, [ring.done.as_ptr() as usize, FUTEX_WAKE, i32::MAX as usize, 0, 0, 0]);
        }
        if !go_on {
            return;
        }
    }
}

/// Sleeps until something is posted; ends the program if the supervisor is gone.
fn wait(kernel: &mut Marked, ring: &Ring, done: u32, socket: usize) {
    const FUTEX_WAIT: usize = 0;
    const ETIMEDOUT: isize = -110;
    // SeqCst: see `serve`, the other way round.
    ring.stub_sleeps.store(1, SeqCst);
    if ring.posted.load(SeqCst) == done {
        let time = [0i64, LOOK_EVERY_NS];
        let futex =
            [ring.posted.as_ptr() as usize, FUTEX_WAIT, done as usize, &raw const time as usize, 0, 0];
        if kernel.syscall(FUTEX, futex) == ETIMEDOUT && supervisor_gone(kernel, socket) {
            end_program();
        }
    }
    ring.stub_sleeps.store(0, SeqCst);
}

fn supervisor_gone(kernel: &mut Marked, socket: usize) -> bool {
    const PEEK_DONTWAIT: usize = 0x2 | 0x40;
    let mut byte = 0u64;
    let result = kernel.syscall(RECVFROM, [socket, &raw mut byte as usize, 8, PEEK_DONTWAIT, 0, 0]);
    result != EAGAIN && result != EINTR && result <= 0
}
