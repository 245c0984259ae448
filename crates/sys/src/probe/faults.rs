//! Userfaultfd, feature by feature: each is used once on a scratch page.
//!
//! # Safety
//! The scratch mapping belongs to the probe's child; system calls that are expected to fail on it get its address as
//! a number, and no reference to a page exists while the page is missing.
#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::Trial;
use super::child::{self, Failure, Obstacle, expect, last, refused, went_well};
use crate::mapping::{Mapping, PAGE};
use crate::uffd::{Install, Message, READ_BATCH, Uffd};

const USERFAULTFD_IOC_NEW: libc::c_ulong = 0xaa00;
const UFFDIO_MOVE: libc::c_ulong = 0xc028_aa05;
const WP: u64 = 1 << 0;
const EVENT_REMAP: u64 = 1 << 2;
const EVENT_REMOVE: u64 = 1 << 3;
const EVENT_UNMAP: u64 = 1 << 6;
const SIGBUS: u64 = 1 << 7;
const POISON: u64 = 1 << 14;
const MOVE: u64 = 1 << 16;
/// How long a helper waits for an event.
const EVENT_LIMIT: Duration = Duration::from_secs(1);
/// A byte that no zeroed page holds.
const MARK: u8 = 0xab;

/// The ways to a userfaultfd that also answers faults inside system calls, each with the kernel's answer.
#[derive(Debug)]
pub struct Access {
    /// The system call (root, or `vm.unprivileged_userfaultfd=1`).
    pub system_call: io::Result<()>,
    /// `/dev/userfaultfd` (whoever may open it; Linux 6.1).
    pub device: io::Result<()>,
}

/// Tries the system call.
///
/// # Errors
/// What it says.
pub fn userfaultfd_by_call() -> io::Result<()> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: no pointers are passed; `own` checks the result.
    own(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) } as i32)
}

/// Tries both ways.
pub fn userfaultfd_access() -> Access {
    let system_call = userfaultfd_by_call();
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let device =
        std::fs::OpenOptions::new().read(true).write(true).open("/dev/userfaultfd").and_then(|device| {
            // SAFETY: the argument of this ioctl is a plain integer of flags.
            own(unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW as libc::Ioctl, flags) })
        });
    Access { system_call, device }
}

fn own(fd: i32) -> io::Result<()> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and is owned by nobody else.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// A feature of userfaultfd that `vswap` uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultTrial {
    /// A missing page is served by another process.
    Missing,
    /// Write protection of anonymous pages.
    WriteProtect,
    /// Discards are reported.
    EventRemove,
    /// Unmaps are reported.
    EventUnmap,
    /// Moves of mappings are reported.
    EventRemap,
    /// Pages move without a copy.
    Move,
    /// Unreadable pages can be marked.
    Poison,
    /// A missing page in a system call is an error, not a hang.
    Sigbus,
}

const STEPS: &[&str] = &[
    "map scratch memory",
    "open a userfaultfd with this feature",
    "UFFDIO_REGISTER",
    "fork a helper",
    "the fault or event was not seen by the helper",
    "UFFDIO_COPY",
    "the page that was installed holds other bytes",
    "UFFDIO_WRITEPROTECT",
    "write protection did not stop a write",
    "a write did not pass after the protection was lifted",
    "UFFDIO_MOVE",
    "the page that was moved holds other bytes",
    "UFFDIO_POISON",
    "a poisoned page could be read",
    "a missing page did not give an error",
];
const MAP: u8 = 0;
const OPEN: u8 = 1;
const REGISTER: u8 = 2;
const FORK: u8 = 3;
const SEEN: u8 = 4;
const COPY: u8 = 5;
const BYTES: u8 = 6;
const PROTECT: u8 = 7;
const STOPPED: u8 = 8;
const PASSED: u8 = 9;
const MOVED: u8 = 10;
const MOVED_BYTES: u8 = 11;
const POISONED: u8 = 12;
const UNREADABLE: u8 = 13;
const REFUSED: u8 = 14;

impl FaultTrial {
    /// All of them.
    pub const ALL: [FaultTrial; 8] = [
        FaultTrial::Missing,
        FaultTrial::WriteProtect,
        FaultTrial::EventRemove,
        FaultTrial::EventUnmap,
        FaultTrial::EventRemap,
        FaultTrial::Move,
        FaultTrial::Poison,
        FaultTrial::Sigbus,
    ];
}

impl Trial for FaultTrial {
    fn attempt(self) -> Result<(), Obstacle> {
        child::attempt(STEPS, || match self {
            FaultTrial::Missing => missing(),
            FaultTrial::WriteProtect => write_protect(),
            FaultTrial::EventRemove => event(EVENT_REMOVE, discard, |m| matches!(m, Message::Remove { .. })),
            FaultTrial::EventUnmap => event(EVENT_UNMAP, unmap, |m| matches!(m, Message::Unmap { .. })),
            FaultTrial::EventRemap => event(EVENT_REMAP, remap, |m| matches!(m, Message::Remap { .. })),
            FaultTrial::Move => move_page(),
            FaultTrial::Poison => poison(),
            FaultTrial::Sigbus => sigbus(),
        })
    }
}

/// Scratch memory of four pages, registered with a userfaultfd of `features`.
struct Scratch {
    /// Never unmapped: that would be one more event, which nobody reads. The child's end frees it.
    memory: ManuallyDrop<Mapping>,
    uffd: Uffd,
}

impl Scratch {
    fn new(features: u64) -> Result<Scratch, Failure> {
        let memory = ManuallyDrop::new(Mapping::anonymous(4 * PAGE).map_err(refused(MAP))?);
        memory.huge_pages(false);
        let uffd = Uffd::open(features).map_err(refused(OPEN))?;
        uffd.register(memory.address(), memory.len() as u64, features & WP != 0)
            .map_err(refused(REGISTER))?;
        Ok(Scratch { memory, uffd })
    }

    /// Address of a page.
    fn page(&self, index: usize) -> u64 {
        self.memory.address() + (index * PAGE) as u64
    }

    fn install(&self, index: usize) -> Result<(), Failure> {
        let install = Install::default();
        self.uffd.copy(self.page(index), &[MARK; PAGE], install).map_err(|(_, error)| refused(COPY)(error))
    }

    /// The first byte of a page.
    fn byte(&self, index: usize) -> io::Result<u8> {
        self.byte_at(self.page(index))
    }

    /// A byte of the scratch memory, fetched by a system call as a program's buffer would be.
    fn byte_at(&self, address: u64) -> io::Result<u8> {
        let (reader, writer) = child::pipe().map_err(|_| io::Error::last_os_error())?;
        let mut byte = 0u8;
        // SAFETY: the kernel checks the address of `write` itself and answers EFAULT; `byte` is live.
        unsafe {
            if libc::write(writer.as_raw_fd(), address as *const _, 1) != 1 {
                return Err(io::Error::last_os_error());
            }
            if libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1) != 1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(byte)
    }

    /// Lets the kernel write a byte into a page.
    fn write(&self, index: usize) -> io::Result<()> {
        let zero = std::fs::File::open("/dev/zero")?;
        // SAFETY: one byte of the scratch mapping, to which no reference exists; the kernel answers EFAULT if it cannot.
        let n = unsafe { libc::read(zero.as_raw_fd(), self.page(index) as *mut _, 1) };
        if n == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn missing() -> Result<(), Failure> {
    let scratch = Scratch::new(0)?;
    let helper = child::helper(FORK, || {
        next_message(&scratch.uffd).is_some_and(|m| matches!(m, Message::Fault { protected: false, .. }))
            && scratch.install(1).is_ok()
    })?;
    // The kernel faults here, inside `read`: what a userfaultfd for user mode only could not serve. (A call that takes
    // its bytes *from* the page would hang an strace of this process, which looks at them beforehand.)
    scratch.write(1).map_err(refused(REFUSED))?;
    expect(went_well(helper), SEEN)?;
    // The first byte was overwritten, the others are as installed.
    expect(scratch.byte_at(scratch.page(1) + 1).is_ok_and(|byte| byte == MARK), BYTES)
}

fn write_protect() -> Result<(), Failure> {
    let scratch = Scratch::new(WP | SIGBUS)?;
    scratch.install(0)?;
    scratch.uffd.protect(scratch.page(0), PAGE as u64, true).map_err(refused(PROTECT))?;
    expect(scratch.write(0).is_err(), STOPPED)?;
    scratch.uffd.protect(scratch.page(0), PAGE as u64, false).map_err(refused(PROTECT))?;
    expect(scratch.write(0).is_ok(), PASSED)
}

/// Does `act`, which waits until its event was read, while a helper reads.
fn event(features: u64, act: fn(&Scratch) -> bool, wanted: fn(&Message) -> bool) -> Result<(), Failure> {
    let scratch = Scratch::new(features)?;
    scratch.install(0)?;
    let helper = child::helper(FORK, || next_message(&scratch.uffd).is_some_and(|message| wanted(&message)))?;
    expect(act(&scratch), SEEN)?;
    expect(went_well(helper), SEEN)
}

fn discard(scratch: &Scratch) -> bool {
    // SAFETY: one page of the scratch mapping, to which no reference exists.
    unsafe { libc::madvise(scratch.page(0) as *mut _, PAGE, libc::MADV_DONTNEED) == 0 }
}

fn unmap(scratch: &Scratch) -> bool {
    // SAFETY: the last page of the scratch mapping, to which no reference exists and which is never unmapped again.
    unsafe { libc::munmap(scratch.page(3) as *mut _, PAGE) == 0 }
}

fn remap(scratch: &Scratch) -> bool {
    // SAFETY: as `unmap`, for the first page; it goes to an address of the kernel's choice and ends with the child.
    unsafe {
        let to = libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        to != libc::MAP_FAILED
            && libc::mremap(
                scratch.page(0) as *mut _,
                PAGE,
                PAGE,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                to,
            ) != libc::MAP_FAILED
    }
}

fn move_page() -> Result<(), Failure> {
    let scratch = Scratch::new(MOVE | SIGBUS)?;
    scratch.install(0)?;
    let mut argument = [scratch.page(2), scratch.page(0), PAGE as u64, 0, 0];
    // SAFETY: `argument` is a live `struct uffdio_move` (five 64-bit words); both pages are the scratch mapping's.
    let done = unsafe {
        libc::ioctl(scratch.uffd.as_fd().as_raw_fd(), UFFDIO_MOVE as libc::Ioctl, argument.as_mut_ptr())
    };
    if done != 0 {
        return Err(last(MOVED));
    }
    expect(scratch.byte(2).is_ok_and(|byte| byte == MARK) && scratch.byte(0).is_err(), MOVED_BYTES)
}

fn poison() -> Result<(), Failure> {
    let scratch = Scratch::new(POISON)?;
    scratch.uffd.poison(scratch.page(0), PAGE as u64).map_err(refused(POISONED))?;
    expect(scratch.byte(0).is_err(), UNREADABLE)
}

fn sigbus() -> Result<(), Failure> {
    let scratch = Scratch::new(SIGBUS)?;
    expect(scratch.byte(0).is_err(), REFUSED)?;
    scratch.install(0)?;
    expect(scratch.byte(0).is_ok_and(|byte| byte == MARK), BYTES)
}

fn next_message(uffd: &Uffd) -> Option<Message> {
    if !child::readable_within(&uffd.as_fd(), EVENT_LIMIT) {
        return None;
    }
    let mut messages = [Message::Other(0); READ_BATCH];
    match uffd.read(&mut messages) {
        Ok(1..) => Some(messages[0]),
        _ => None,
    }
}
