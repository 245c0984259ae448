//! Starting a stub in a program that stands still.
//!
//! The program's own thread, seized, makes a dozen system calls for us: through a `syscall` instruction that is there
//! already (the one it has just come from, or one in the vdso) until the stub's image is mapped, then through the image's
//! gate. No byte of the program's text is changed, no mapping of its own touched, and its registers, signal mask
//! and restart state are put back.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use thiserror::Error;
use vswap_stub::image;
use vswap_stub::protocol::{Hello, STAGING_WINDOWS, WINDOW_BYTES};
use vswap_stub::start::step;
use vswap_sys::pidfd::PidFd;
use vswap_sys::ptrace::{RemoteCalls, Tracee};
use vswap_sys::uffd::Uffd;
use vswap_sys::{call, process, procvm, scm};

use crate::rouse;

const PAGE: u64 = 4096;
/// The stub's stack; its frames are a few hundred bytes.
const STACK: u64 = 4 * PAGE;
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// A stub that has not said hello after so long may have been stopped.
const LOOK_EVERY_MS: i32 = 5;

/// Why a program got no stub. It runs on unharmed, without being managed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InjectError {
    /// It is a 32-bit program.
    #[error("process {pid} is a 32-bit program")]
    ThirtyTwoBit {
        /// The process.
        pid: i32,
    },
    /// No system call instruction was found in it.
    #[error("process {pid} has no system call instruction where one is expected, nor a vdso")]
    NoGate {
        /// The process.
        pid: i32,
    },
    /// A step failed in the program.
    #[error("process {pid}: {step} failed: {source}")]
    Step {
        /// The process.
        pid: i32,
        /// What was tried.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The stub started but could not prepare itself.
    #[error("the stub in process {pid} could not {step}: {source}")]
    Stub {
        /// The process.
        pid: i32,
        /// What it tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The stub said nothing, or nonsense.
    #[error("the stub in process {pid} did not say hello")]
    NoHello {
        /// The process.
        pid: i32,
    },
}

/// What a stub is given.
#[derive(Clone, Copy, Debug)]
pub struct Gifts<'a> {
    /// The run's mark.
    pub mark: u64,
    /// The memory of its ring.
    pub ring: BorrowedFd<'a>,
    /// An open `/dev/userfaultfd`, where the program may not make a userfaultfd itself.
    pub device: Option<BorrowedFd<'a>>,
}

/// A stub that is ready.
#[derive(Debug)]
pub struct Stub {
    /// Address of the staging area.
    pub staging: u64,
    /// Our end of its socket: closing it ends the program.
    pub socket: OwnedFd,
    /// The thread.
    pub thread: PidFd,
    /// Its number.
    pub tid: i32,
    /// Its image and stack.
    pub own: Range<u64>,
}

impl Stub {
    /// Its staging area.
    pub fn staging_range(&self) -> Range<u64> {
        self.staging..self.staging + WINDOW_BYTES * u64::from(STAGING_WINDOWS)
    }
}

/// Starts a stub in process `pid`, one thread of which stands still as `tracee`. Returns it with the main userfaultfd of
/// the address space.
///
/// # Errors
/// The step that failed; the program has then lost nothing and gained nothing.
pub fn inject(tracee: &mut Tracee, pid: i32, gifts: Gifts) -> Result<(Stub, Uffd), InjectError> {
    let gate = find_gate(tracee, pid)?;
    let failed = |step| move |source| InjectError::Step { pid, step, source };
    let calls = RemoteCalls::begin(tracee, gate).map_err(failed("stopping"))?;
    let mut host = Host { pid, calls, mark: gifts.mark, base: 0 };
    let (socket, tid) = match host.start(gifts) {
        Ok(started) => started,
        Err(error) => {
            host.undo();
            return Err(error);
        }
    };
    let own = host.base..host.base + image_bytes() + STACK;
    host.calls.finish().map_err(failed("restoring its registers"))?;
    let thread = PidFd::open_thread(tid).map_err(failed("opening the stub's thread"))?;
    let (uffd, staging) = hear_hello(pid, tid, socket.as_fd())?;
    Ok((Stub { staging, socket, thread, tid, own }, uffd))
}

fn image_bytes() -> u64 {
    (image::IMAGE.len() as u64).next_multiple_of(PAGE)
}

/// Finds a `syscall` instruction in the program.
fn find_gate(tracee: &Tracee, pid: i32) -> Result<u64, InjectError> {
    let position = tracee.position().map_err(|source| InjectError::Step {
        pid,
        step: "reading its registers",
        source,
    })?;
    if position.thirty_two_bit {
        return Err(InjectError::ThirtyTwoBit { pid });
    }
    let just_made = position.instruction_pointer.wrapping_sub(2);
    let mut two = [0; 2];
    if procvm::read(pid, just_made, &mut two).is_ok() && two == SYSCALL {
        return Ok(just_made);
    }
    let maps =
        process::maps(pid).map_err(|source| InjectError::Step { pid, step: "reading its maps", source })?;
    let vdso = maps.iter().find(|m| m.name == "[vdso]").ok_or(InjectError::NoGate { pid })?.range.clone();
    let mut code = vec![0; (vdso.end - vdso.start) as usize];
    let n = procvm::read(pid, vdso.start, &mut code).unwrap_or(0);
    let at = code[..n].windows(2).position(|bytes| bytes == SYSCALL).ok_or(InjectError::NoGate { pid })?;
    Ok(vdso.start + at as u64)
}

const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// The program's thread, making calls for us.
struct Host<'a> {
    pid: i32,
    calls: RemoteCalls<'a>,
    mark: u64,
    /// Where the image is; 0 before it is.
    base: u64,
}

impl Host<'_> {
    fn call(&mut self, step: &'static str, nr: i64, args: [u64; 6]) -> Result<u64, InjectError> {
        let pid = self.pid;
        self.calls.call(nr, args).map_err(|source| InjectError::Step { pid, step, source })
    }

    /// Maps image and stack, makes the socket, starts the thread; leaves no descriptor behind.
    fn start(&mut self, gifts: Gifts) -> Result<(OwnedFd, i32), InjectError> {
        let pid = self.pid;
        let failed = |step| move |source| InjectError::Step { pid, step, source };
        let code = image_bytes();
        let len = code + STACK;
        let flags = call::PRIVATE_ANONYMOUS;
        let map = [0, len, call::READ_WRITE, flags, self.mark, 0];
        self.base = self.call("mapping the stub", call::MMAP, map)?;
        let socketpair = [call::UNIX, call::PACKETS_CLOEXEC, 0, self.base, 0, 0];
        self.call("making its socket", call::SOCKETPAIR, socketpair)?;
        let mut numbers = [0; 8];
        procvm::read(pid, self.base, &mut numbers).map_err(failed("reading its socket's number"))?;
        let [ours, its] = [&numbers[..4], &numbers[4..]]
            .map(|bytes| i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        let result = self.start_with(gifts, ours, its, len);
        for number in [ours, its] {
            let _ = self.calls.call(call::CLOSE, [number as u64, 0, 0, 0, 0, 0]);
        }
        result
    }

    fn start_with(
        &mut self,
        gifts: Gifts,
        ours: i32,
        its: i32,
        len: u64,
    ) -> Result<(OwnedFd, i32), InjectError> {
        let pid = self.pid;
        let failed = |step| move |source| InjectError::Step { pid, step, source };
        let socket = PidFd::open(pid)
            .and_then(|process| process.get(ours))
            .map_err(failed("taking our end of its socket"))?;
        let mut fds = vec![gifts.ring];
        fds.extend(gifts.device);
        scm::send(socket.as_fd(), b"vswap", &fds).map_err(failed("sending it the ring"))?;
        let stack_pointer = self.base + len - 64;
        let mut bytes = vec![0; len as usize];
        image::load(self.base, &mut bytes);
        let start = (stack_pointer - self.base) as usize;
        bytes[start..start + 8].copy_from_slice(&self.mark.to_le_bytes());
        bytes[start + 8..start + 16].copy_from_slice(&(its as u64).to_le_bytes());
        // Not the zeroes between: the stack's other pages need not exist.
        let code = image::IMAGE.len();
        process::write_memory(pid, self.base, &bytes[..code])
            .and_then(|()| process::write_memory(pid, stack_pointer, &bytes[start..]))
            .map_err(failed("writing the stub"))?;
        self.call(
            "making the stub executable",
            call::MPROTECT,
            [self.base, image_bytes(), call::READ_EXECUTE, 0, 0, 0],
        )?;
        self.call(
            "keeping the stub from children",
            call::MADVISE,
            [self.base, len, call::DONTFORK, 0, 0, 0],
        )?;
        self.calls.set_gate(self.base + image::ENTRY);
        let clone = [call::STUB_CLONE_FLAGS, stack_pointer, 0, 0, 0, self.mark];
        let tid = self.call("starting the stub", call::CLONE, clone)?;
        Ok((socket, tid as i32))
    }

    /// Takes the image out again.
    fn undo(&mut self) {
        if self.base != 0 {
            let len = image_bytes() + STACK;
            // Through an instruction outside of what is unmapped.
            self.calls.reset_gate();
            let _ = self.calls.call(call::MUNMAP, [self.base, len, 0, 0, 0, 0]);
        }
    }
}

/// Waits for the hello of stub `tid`. If it was stopped with its process, it is let run until then.
fn says_hello(pid: i32, tid: i32, socket: BorrowedFd) -> bool {
    let since = Instant::now();
    let mut alone: Option<Tracee> = None;
    while !scm::wait_readable(socket, LOOK_EVERY_MS) {
        if since.elapsed() > HELLO_WITHIN {
            return false;
        }
        alone = match alone {
            None if rouse::is_stopped(pid, tid) => rouse::run_alone(tid).unwrap_or(None),
            None => None,
            // Whatever stops it next, its process's going on for one, ends this.
            Some(mut stub) => match stub.poll() {
                Ok(None) => Some(stub),
                Ok(Some(stop)) => {
                    // Failed, it has ended.
                    let _ = rouse::let_go(stub, stop);
                    None
                }
                Err(_) => None,
            },
        };
    }
    true
}

fn hear_hello(pid: i32, tid: i32, socket: BorrowedFd) -> Result<(Uffd, u64), InjectError> {
    let mut bytes = [0; size_of::<Hello>()];
    if !says_hello(pid, tid, socket) {
        return Err(InjectError::NoHello { pid });
    }
    let (n, mut fds) = scm::receive(socket, &mut bytes).map_err(|_| InjectError::NoHello { pid })?;
    let said = bytes.get(..n).and_then(Hello::parse).ok_or(InjectError::NoHello { pid })?;
    if said.error != 0 {
        let source = io::Error::from_raw_os_error(said.error.unsigned_abs() as i32);
        return Err(InjectError::Stub { pid, step: step_name(said.step), source });
    }
    let uffd = fds.pop().ok_or(InjectError::NoHello { pid })?;
    Ok((Uffd::from_fd(uffd), said.staging))
}

fn step_name(at: u64) -> &'static str {
    match at {
        step::RECEIVE => "receive its ring",
        step::RING => "map its ring",
        step::USERFAULTFD => "make a userfaultfd",
        step::FEATURES => "get the userfaultfd features it needs",
        step::STAGING => "map its staging area",
        step::REGISTER => "register its staging area",
        _ => "start",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use vswap_sys::signal;

    /// A stub that was let run while its process was stopped stands still when that goes on. Nobody looked: it never said hello.
    #[test]
    fn a_stopped_one_that_goes_on_before_its_hello_says_it() {
        let (ours, its) = scm::pair().unwrap();
        // It is a process here, but stops and goes on as a stub does.
        let script = "kill -STOP $$; sleep 0.6; echo hello";
        let mut stub = Command::new("sh").args(["-c", script]).stdout(Stdio::from(its)).spawn().unwrap();
        let pid = stub.id() as i32;
        let going_on = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            process::kill(pid, signal::SIGCONT).unwrap();
        });
        assert!(says_hello(pid, pid, ours.as_fd()), "it stands still");
        going_on.join().unwrap();
        assert!(stub.wait().unwrap().success());
    }
}
