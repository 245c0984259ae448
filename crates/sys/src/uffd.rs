//! Userfaultfd: who answers when a page is missing (`include/uapi/linux/userfaultfd.h`).
//!
//! Key types: [`Uffd`], the descriptor; [`Message`], what is read from it. All calls
//! here work on the descriptor of another address space too; moving pages does not, see [`crate::staging`].
//!
//! # Safety
//! Each ioctl is given the live structure that its number names. Installing or moving pages changes memory
//! of the address space that made the descriptor; when that is our own, ranges are those of a mapping whose
//! owner accepts that its bytes come from a pager.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const UFFD_API: u64 = 0xaa;
const IOC_API: u64 = 0xc018_aa3f;
const IOC_REGISTER: u64 = 0xc020_aa00;
const IOC_UNREGISTER: u64 = 0x8010_aa01;
const IOC_WAKE: u64 = 0x8010_aa02;
const IOC_COPY: u64 = 0xc028_aa03;
const IOC_ZEROPAGE: u64 = 0xc020_aa04;
const IOC_WRITEPROTECT: u64 = 0xc018_aa06;
const IOC_POISON: u64 = 0xc020_aa08;
/// `UFFDIO_POISON_MODE_DONTWAKE`.
const POISON_DONTWAKE: u64 = 1;
const USERFAULTFD_IOC_NEW: u64 = 0xaa00;

const REGISTER_MISSING: u64 = 1;
const REGISTER_WP: u64 = 2;

/// Feature bits asked for when a descriptor is made.
pub mod feature {
    pub use vswap_stub::protocol::{MAIN_FEATURES, STAGING_FEATURES};
}

/// A userfaultfd, non-blocking and closed on exec.
#[derive(Debug)]
pub struct Uffd(OwnedFd);

/// What a pager has to do something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A thread waits for the page that holds `address`.
    Fault {
        /// Address as the thread used it, rounded down to a page.
        address: u64,
        /// It wants to write.
        write: bool,
        /// The page is there but write-protected.
        protected: bool,
        /// Number of the thread, in its own process-number space; for telling threads apart.
        thread: u32,
    },
    /// `start..end` was discarded (`MADV_DONTNEED` and its kin): reads as zero from now on.
    Remove {
        /// First byte.
        start: u64,
        /// Past the last byte.
        end: u64,
    },
    /// `start..end` was unmapped.
    Unmap {
        /// First byte.
        start: u64,
        /// Past the last byte.
        end: u64,
    },
    /// `len` bytes moved from `from` to `to` (`mremap`).
    Remap {
        /// Old address.
        from: u64,
        /// New address.
        to: u64,
        /// Bytes.
        len: u64,
    },
    /// An event that was not asked for.
    Other(u8),
}

/// `struct uffd_msg`: 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawMessage {
    event: u8,
    reserved: [u8; 7],
    a: u64,
    b: u64,
    c: u64,
}

/// How a page is installed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Install {
    /// Write-protected, so that the first write is reported.
    pub protect: bool,
    /// Leave the threads that wait for it asleep.
    pub no_wake: bool,
}

impl Uffd {
    /// Opens a userfaultfd for this process's address space with `features`.
    ///
    /// Tries the system call, then `/dev/userfaultfd`.
    ///
    /// # Errors
    /// What the second try says; `EINVAL` if the kernel lacks a feature.
    pub fn open(features: u64) -> io::Result<Uffd> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: no pointers are passed; the result is checked.
        let mut fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) } as i32;
        if fd < 0 {
            let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/userfaultfd")?;
            // SAFETY: the argument of this ioctl is a plain integer of flags.
            fd = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW as libc::Ioctl, flags) };
        }
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and is owned by nobody else.
        let uffd = Uffd(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut api = [UFFD_API, features, 0];
        uffd.ioctl(IOC_API, &mut api)?;
        Ok(uffd)
    }

    /// Takes over a descriptor that a stub made (and has agreed the API on).
    pub fn from_fd(fd: OwnedFd) -> Uffd {
        Uffd(fd)
    }

    fn ioctl<const N: usize>(&self, request: u64, argument: &mut [u64; N]) -> io::Result<()> {
        // SAFETY: every caller passes the array that mirrors the structure of `request`, all of it 64-bit words;
        // it is live and exclusively borrowed during the call.
        let n = unsafe { libc::ioctl(self.0.as_raw_fd(), request as libc::Ioctl, argument.as_mut_ptr()) };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Registers `start..start + len` for missing pages, and for write protection if `protect`.
    ///
    /// # Errors
    /// `EINVAL` for mappings that cannot be registered, `EBUSY` if another descriptor has them, `ENOMEM`.
    pub fn register(&self, start: u64, len: u64, protect: bool) -> io::Result<()> {
        let mode = if protect { REGISTER_MISSING | REGISTER_WP } else { REGISTER_MISSING };
        self.ioctl(IOC_REGISTER, &mut [start, len, mode, 0])
    }

    /// Takes `start..start + len` out again; threads that wait there go on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unregister(&self, start: u64, len: u64) -> io::Result<()> {
        self.ioctl(IOC_UNREGISTER, &mut [start, len])
    }

    /// Lets the threads that wait for pages of the range try again.
    ///
    /// # Errors
    /// `EINVAL` for a bad range.
    pub fn wake(&self, start: u64, len: u64) -> io::Result<()> {
        self.ioctl(IOC_WAKE, &mut [start, len])
    }

    /// Installs `bytes` (whole pages) at `address`. Returns the bytes installed before an error, with the error.
    ///
    /// # Errors
    /// `EEXIST` if a page is there, `EAGAIN` while an event is unread, `ENOENT` if nothing is mapped there,
    /// `ESRCH` if the address space is gone.
    pub fn copy(&self, address: u64, bytes: &[u8], how: Install) -> Result<(), (u64, io::Error)> {
        let mode = u64::from(how.no_wake) | u64::from(how.protect) << 1;
        let mut arg = [address, bytes.as_ptr() as u64, bytes.len() as u64, mode, 0];
        self.ioctl(IOC_COPY, &mut arg).map_err(|error| ((arg[4] as i64).max(0) as u64, error))
    }

    /// Maps the zero page over `start..start + len`. Returns the bytes done before an error, with the error.
    ///
    /// # Errors
    /// As [`Uffd::copy`].
    pub fn zero(&self, start: u64, len: u64, no_wake: bool) -> Result<(), (u64, io::Error)> {
        let mut arg = [start, len, u64::from(no_wake), 0];
        self.ioctl(IOC_ZEROPAGE, &mut arg).map_err(|error| ((arg[3] as i64).max(0) as u64, error))
    }

    /// Write-protects the present pages of the range, or lifts that and wakes writers that wait.
    ///
    /// # Errors
    /// `EAGAIN` while an event is unread, `ENOENT` if not registered for it.
    pub fn protect(&self, start: u64, len: u64, on: bool) -> io::Result<()> {
        self.ioctl(IOC_WRITEPROTECT, &mut [start, len, u64::from(on)])
    }

    /// Lifts the write protection of the range, and wakes writers that wait unless `no_wake`.
    ///
    /// # Errors
    /// As [`Uffd::protect`].
    pub fn lift(&self, start: u64, len: u64, no_wake: bool) -> io::Result<()> {
        self.ioctl(IOC_WRITEPROTECT, &mut [start, len, u64::from(no_wake) << 1])
    }

    /// Marks missing pages of the range as unreadable: `SIGBUS` to whoever touches them from now on. Those who wait for them already get it
    /// when they are woken ([`Uffd::wake`]).
    ///
    /// # Errors
    /// As [`Uffd::copy`].
    pub fn poison(&self, start: u64, len: u64) -> io::Result<()> {
        self.ioctl(IOC_POISON, &mut [start, len, POISON_DONTWAKE, 0])
    }

    /// Reads up to `out.len()` messages without blocking; returns how many came.
    ///
    /// # Errors
    /// What `read` says, except "nothing there", which is 0.
    pub fn read(&self, out: &mut [Message; READ_BATCH]) -> io::Result<usize> {
        let mut raw = [RawMessage::default(); READ_BATCH];
        // SAFETY: `raw` is a live array of plain integers of exactly the length given.
        let n = unsafe { libc::read(self.0.as_raw_fd(), raw.as_mut_ptr().cast(), size_of_val(&raw)) };
        if n < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        }
        let count = n as usize / size_of::<RawMessage>();
        for (message, raw) in out.iter_mut().zip(&raw[..count]) {
            *message = Message::from_raw(raw);
        }
        Ok(count)
    }
}

/// Messages read at a time.
pub const READ_BATCH: usize = 16;

impl Message {
    fn from_raw(raw: &RawMessage) -> Message {
        match raw.event {
            0x12 => Message::Fault {
                address: raw.b & !4095,
                write: raw.a & 1 != 0,
                protected: raw.a & 2 != 0,
                thread: raw.c as u32,
            },
            0x14 => Message::Remap { from: raw.a, to: raw.b, len: raw.c },
            0x15 => Message::Remove { start: raw.a, end: raw.b },
            0x16 => Message::Unmap { start: raw.a, end: raw.b },
            other => Message::Other(other),
        }
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
