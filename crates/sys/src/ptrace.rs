//! Stopping a thread of the program and having it make system calls for us.
//!
//! Key types: [`Tracee`], a seized thread, let go when dropped; [`Stop`], why it stands still; [`RemoteCalls`], system
//! calls made by a standing thread, with its registers and signal mask put back after. A tracee belongs to the thread
//! that seized it, hence is not `Send`.
//!
//! # Safety
//! `ptrace` gets live structures of the types it names; changing another thread's registers cannot break this process.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;

/// Options of [`Tracee::seize`].
pub mod option {
    /// Mark system-call stops; always set.
    pub const SYSGOOD: i32 = 1;
    /// Stop at fork, vfork and clone, and seize the child before its first instruction.
    pub const CHILDREN: i32 = 2 | 4 | 8;
    /// Stop after a successful exec.
    pub const EXEC: i32 = 1 << 4;
}

/// Why a tracee stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At the entry to or exit from a system call.
    Call,
    /// It has made a child; see [`Tracee::event_message`].
    Child,
    /// It has executed a new program.
    Exec,
    /// Interrupted by us, newly seized, or stopped with its process.
    Rest,
    /// About to get this signal.
    Signal(i32),
    /// It has ended.
    Gone,
}

/// A seized thread.
#[derive(Debug)]
pub struct Tracee {
    tid: i32,
    attached: bool,
    // ptrace answers only the thread that seized.
    bound: PhantomData<*const ()>,
}

/// Number of a request, as the C library at hand has it.
#[cfg(target_env = "musl")]
type Request = libc::c_int;
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;

fn request(what: Request, tid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: private; callers pass the addresses of live structures where the request takes some.
    let n = unsafe { libc::ptrace(what, tid, address, data) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn wait_raw(tid: i32, flags: i32) -> io::Result<Option<i32>> {
    loop {
        let mut status = 0;
        // SAFETY: one live integer.
        let n = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | flags) };
        let error = io::Error::last_os_error();
        match n {
            0 => return Ok(None),
            1.. => return Ok(Some(status)),
            _ if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

fn decode(status: i32) -> Stop {
    const EVENT_FORK: i32 = 1;
    const EVENT_VFORK: i32 = 2;
    const EVENT_CLONE: i32 = 3;
    const EVENT_EXEC: i32 = 4;
    const EVENT_STOP: i32 = 128;
    if !libc::WIFSTOPPED(status) {
        return Stop::Gone;
    }
    match (status >> 16, libc::WSTOPSIG(status)) {
        (EVENT_FORK | EVENT_VFORK | EVENT_CLONE, _) => Stop::Child,
        (EVENT_EXEC, _) => Stop::Exec,
        (EVENT_STOP, _) => Stop::Rest,
        (_, signal) if signal == libc::SIGTRAP | 0x80 => Stop::Call,
        (_, signal) => Stop::Signal(signal),
    }
}

impl Tracee {
    /// Seizes thread `tid`; it goes on running.
    ///
    /// # Errors
    /// `EPERM` if a debugger has it or it is not dumpable (and we are not privileged), `ESRCH`.
    pub fn seize(tid: i32, options: i32) -> io::Result<Tracee> {
        request(libc::PTRACE_SEIZE, tid, 0, (options | option::SYSGOOD) as usize)?;
        Ok(Tracee { tid, attached: true, bound: PhantomData })
    }

    /// The child that a [`Stop::Child`] told of: seized already, stopping or stopped before its first instruction.
    pub fn child(tid: i32) -> Tracee {
        Tracee { tid, attached: true, bound: PhantomData }
    }

    /// Its number.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Replaces the options.
    ///
    /// # Errors
    /// `ESRCH` if it does not stand still.
    pub fn set_options(&self, options: i32) -> io::Result<()> {
        request(libc::PTRACE_SETOPTIONS, self.tid, 0, (options | option::SYSGOOD) as usize)
    }

    /// Has it stop at the next return to user mode.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn interrupt(&self) -> io::Result<()> {
        request(libc::PTRACE_INTERRUPT, self.tid, 0, 0)
    }

    /// Waits until it stands still.
    ///
    /// # Errors
    /// `ECHILD` if it is gone and was collected.
    pub fn wait(&mut self) -> io::Result<Stop> {
        let status = wait_raw(self.tid, 0)?;
        Ok(self.note(status.unwrap_or(0)))
    }

    /// [`Tracee::wait`] without waiting.
    ///
    /// # Errors
    /// As there.
    pub fn poll(&mut self) -> io::Result<Option<Stop>> {
        Ok(wait_raw(self.tid, libc::WNOHANG)?.map(|status| self.note(status)))
    }

    fn note(&mut self, status: i32) -> Stop {
        let stop = decode(status);
        if stop == Stop::Gone {
            self.attached = false;
        }
        stop
    }

    /// What the last event is about: the number of the child.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn event_message(&self) -> io::Result<u64> {
        let mut value = 0u64;
        request(libc::PTRACE_GETEVENTMSG, self.tid, 0, &raw mut value as usize)?;
        Ok(value)
    }

    /// An executing thread takes its leader's number.
    pub fn renumber(&mut self, tid: i32) {
        self.tid = tid;
    }

    fn resume(&self, what: Request, signal: i32) -> io::Result<()> {
        request(what, self.tid, 0, signal as usize)
    }

    /// Lets it run, delivering `signal` (0 for none).
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn go_on(&self, signal: i32) -> io::Result<()> {
        self.resume(libc::PTRACE_CONT, signal)
    }

    /// Lets it go for good, delivering `signal` (0 for none). It must stand still.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn detach(mut self, signal: i32) -> io::Result<()> {
        self.resume(libc::PTRACE_DETACH, signal)?;
        self.attached = false;
        Ok(())
    }

    fn registers(&self) -> io::Result<libc::user_regs_struct> {
        // SAFETY: an all-zero value of this plain structure is valid.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        request(libc::PTRACE_GETREGS, self.tid, 0, &raw mut registers as usize)?;
        Ok(registers)
    }

    fn set_registers(&self, registers: &libc::user_regs_struct) -> io::Result<()> {
        request(libc::PTRACE_SETREGS, self.tid, 0, registers as *const _ as usize)
    }

    fn signal_mask(&self) -> io::Result<u64> {
        let mut mask = 0u64;
        request(libc::PTRACE_GETSIGMASK as Request, self.tid, 8, &raw mut mask as usize)?;
        Ok(mask)
    }

    fn set_signal_mask(&self, mask: u64) -> io::Result<()> {
        request(libc::PTRACE_SETSIGMASK as Request, self.tid, 8, &raw const mask as usize)
    }

    /// Where it stands and what its last system call returned.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn position(&self) -> io::Result<Position> {
        let registers = self.registers()?;
        Ok(Position {
            instruction_pointer: registers.rip,
            stack_pointer: registers.rsp,
            result: registers.rax as i64,
            call: registers.orig_rax as i64,
            thirty_two_bit: registers.cs == 0x23,
        })
    }
}

/// A few registers of a standing thread.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// Next instruction.
    pub instruction_pointer: u64,
    /// Stack pointer.
    pub stack_pointer: u64,
    /// What the last system call returned.
    pub result: i64,
    /// Its number, -1 if it did not stop in one.
    pub call: i64,
    /// It runs in 32-bit mode.
    pub thirty_two_bit: bool,
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if !self.attached || self.resume(libc::PTRACE_DETACH, 0).is_ok() {
            return;
        }
        // It is running: only a standing thread can be let go.
        if self.interrupt().is_ok() && self.wait().is_ok() && self.attached {
            let _ = self.resume(libc::PTRACE_DETACH, 0);
        }
    }
}

/// System calls made by a standing thread of the program.
///
/// Its registers (with the state that restarts an interrupted call) and signal mask are put back by
/// [`RemoteCalls::finish`] or when this is dropped.
#[derive(Debug)]
pub struct RemoteCalls<'a> {
    tracee: &'a mut Tracee,
    registers: libc::user_regs_struct,
    mask: u64,
    first_gate: u64,
    gate: u64,
}

/// What a call returns that the kernel would start again after a signal (`include/linux/errno.h`).
const RESTART: std::ops::RangeInclusive<i32> = 512..=516;

impl<'a> RemoteCalls<'a> {
    /// Begins, with the address of a `syscall` instruction in the program.
    ///
    /// # Errors
    /// `ESRCH` if the thread does not stand still.
    pub fn begin(tracee: &'a mut Tracee, gate: u64) -> io::Result<RemoteCalls<'a>> {
        let registers = tracee.registers()?;
        let mask = tracee.signal_mask()?;
        // A handler of the program must not run on our registers.
        tracee.set_signal_mask(u64::MAX)?;
        Ok(RemoteCalls { tracee, registers, mask, first_gate: gate, gate })
    }

    /// Uses another `syscall` instruction from now on.
    pub fn set_gate(&mut self, gate: u64) {
        self.gate = gate;
    }

    /// Uses the instruction again that it began with.
    pub fn reset_gate(&mut self) {
        self.gate = self.first_gate;
    }

    /// Stack pointer of the program.
    pub fn stack_pointer(&self) -> u64 {
        self.registers.rsp
    }

    /// Makes a system call; returns its result.
    ///
    /// # Errors
    /// The call's own error, `ESRCH` if the thread died meanwhile, `EFAULT` if the gate is not what it was said to be.
    pub fn call(&mut self, nr: i64, args: [u64; 6]) -> io::Result<u64> {
        loop {
            match self.try_call(nr, args) {
                // A stop was pending; it is seen to before the next try.
                Err(error) if error.raw_os_error().is_some_and(|errno| RESTART.contains(&errno)) => {}
                result => return result,
            }
        }
    }

    fn try_call(&mut self, nr: i64, args: [u64; 6]) -> io::Result<u64> {
        let mut registers = self.registers;
        registers.rax = nr as u64;
        // Not in a system call: nothing to restart.
        registers.orig_rax = u64::MAX;
        registers.rip = self.gate;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = args;
        self.tracee.set_registers(&registers)?;
        self.reach_call_stop()?;
        self.reach_call_stop()?;
        let result = self.tracee.registers()?.rax as i64;
        if (-4095..0).contains(&result) {
            return Err(io::Error::from_raw_os_error(-result as i32));
        }
        Ok(result as u64)
    }

    fn reach_call_stop(&mut self) -> io::Result<()> {
        let mut signal = 0;
        loop {
            self.tracee.resume(libc::PTRACE_SYSCALL, signal)?;
            signal = 0;
            match self.tracee.wait()? {
                Stop::Call => return Ok(()),
                // Its process is being stopped; it will join the others once let go.
                Stop::Rest => {}
                // The only one that cannot be blocked and lets it live: the process stops by it, all but this thread.
                Stop::Signal(libc::SIGSTOP) => signal = libc::SIGSTOP,
                Stop::Gone => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
                Stop::Child | Stop::Exec | Stop::Signal(_) => {
                    return Err(io::Error::from_raw_os_error(libc::EFAULT));
                }
            }
        }
    }

    fn restore(&mut self) -> io::Result<()> {
        self.tracee.set_registers(&self.registers)?;
        self.tracee.set_signal_mask(self.mask)
    }

    /// Puts registers and signal mask back.
    ///
    /// # Errors
    /// `ESRCH` if the thread is gone.
    pub fn finish(mut self) -> io::Result<()> {
        self.restore()
    }
}

impl Drop for RemoteCalls<'_> {
    fn drop(&mut self) {
        if self.tracee.attached {
            let _ = self.restore();
        }
    }
}
