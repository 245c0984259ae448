//! System calls from the stub, and what the compiler expects a C library to have.
//!
//! # Safety
//! A system call can do anything; the callers in `main.rs` pass addresses of live locals or of mappings they made.
#![allow(unsafe_code)]

use crate::logic::Kernel;
use core::arch::{asm, global_asm};

pub const MMAP: usize = 9;
pub const MUNMAP: usize = 11;
pub const SIGPROCMASK: usize = 14;
pub const IOCTL: usize = 16;
pub const MADVISE: usize = 28;
pub const GETPID: usize = 39;
pub const RECVFROM: usize = 45;
pub const SENDMSG: usize = 46;
pub const RECVMSG: usize = 47;
pub const EXIT: usize = 60;
pub const KILL: usize = 62;
pub const CLOSE: usize = 3;
pub const CHDIR: usize = 80;
pub const CAPGET: usize = 125;
pub const CAPSET: usize = 126;
pub const PRCTL: usize = 157;
pub const FUTEX: usize = 202;
pub const USERFAULTFD: usize = 323;
pub const CLOSE_RANGE: usize = 436;

const PROCESS_VM_READV: usize = 310;
const PROCESS_VM_WRITEV: usize = 311;
const MAP_ANONYMOUS: usize = 0x20;

/// Makes system calls that the run's seccomp filter knows as ours by the mark in an unused argument.
pub struct Marked {
    /// The run's mark.
    pub mark: usize,
}

impl Kernel for Marked {
    fn syscall(&mut self, nr: usize, mut args: [usize; 6]) -> isize {
        match nr {
            MMAP if args[3] & MAP_ANONYMOUS != 0 => args[4] = self.mark,
            // All six arguments mean something.
            MMAP | FUTEX | RECVFROM | PROCESS_VM_READV | PROCESS_VM_WRITEV => {}
            _ => args[5] = self.mark,
        }
        // SAFETY: see the module; what the supervisor asks for through the ring is its own responsibility, as
        // anything it does to the program that it supervises.
        unsafe { raw(nr, args) }
    }
}

/// # Safety
/// As the system call.
unsafe fn raw(nr: usize, args: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel clobbers rax, rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") nr as isize => result, in("rdi") args[0], in("rsi") args[1],
            in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

// The first instruction is the gate: the injector has the program make system calls here. A `clone` returns 0 in
// the new thread, whose stack pointer is the address of its `Start`; the program's own thread never gets past the
// gate, since the injector takes it back at the end of each call.
global_asm!(
    ".globl _start",
    "_start:",
    "syscall",
    "test rax, rax",
    "jnz 2f",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {stub}",
    "2: ud2",
    stub = sym crate::stub,
);

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") len => _, options(nostack))
    };
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: as in `memcpy`.
    unsafe {
        asm!("rep stosb", inout("rdi") to => _, in("al") byte as u8, inout("rcx") len => _, options(nostack))
    };
    to
}

/// Named by the precompiled `core`, never called: panics abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// A panic ends the program: a stub that does not work must not leave it waiting.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    crate::end_program()
}
