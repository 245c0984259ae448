//! Memory mappings that free themselves: anonymous arenas, and memory shared with a program.
//!
//! # Safety
//!
//! Every mapping here is made at an address of the kernel's choice, owned by exactly one value, and unmapped by
//! its `Drop` alone; slices borrow from that value, so they cannot outlive it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Private anonymous memory, zero at first, page aligned, given back when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a `Mapping` owns its memory as a `Box<[u8]>` does; nothing in it is bound to a thread.
unsafe impl Send for Mapping {}
// SAFETY: shared references give out `&[u8]` only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes (rounded up to pages) of zeroed memory; pages cost nothing until touched.
    ///
    /// # Errors
    /// What `mmap` says, or `InvalidInput` for a length of 0.
    pub fn anonymous(len: usize) -> io::Result<Mapping> {
        Mapping::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, None)
    }

    /// Maps anonymous memory at an address that is a multiple of `align` (a power of two, at least a page).
    ///
    /// # Errors
    /// As [`Mapping::anonymous`].
    pub fn aligned(len: usize, align: usize) -> io::Result<Mapping> {
        let whole = Mapping::anonymous(len + align)?;
        let base = whole.start.as_ptr() as usize;
        let start = base.next_multiple_of(align);
        let len = len.next_multiple_of(PAGE);
        let (head, tail) = (start - base, base + whole.len - (start + len));
        std::mem::forget(whole);
        // SAFETY: both ranges are parts of the mapping just made that nothing refers to; what stays is
        // `start..start + len`, owned by the value returned.
        unsafe {
            if head > 0 {
                libc::munmap(base as *mut _, head);
            }
            if tail > 0 {
                libc::munmap((start + len) as *mut _, tail);
            }
            Ok(Mapping { start: NonNull::new_unchecked(start as *mut u8), len })
        }
    }

    fn map(len: usize, flags: i32, fd: Option<BorrowedFd>) -> io::Result<Mapping> {
        let len = len.next_multiple_of(PAGE);
        if len == 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let fd = fd.map_or(-1, |fd| fd.as_raw_fd());
        // SAFETY: no fixed address, so no existing mapping is touched; the result is checked.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { start: NonNull::new(at.cast()).ok_or_else(io::Error::last_os_error)?, len })
    }

    /// Address of the first byte.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Length in bytes, a multiple of a page.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: an empty mapping cannot be made.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start..start + len` is mapped readable for as long as `self` lives, initialised (zero), and
        // written only through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Gives the pages of `start..start + len` (whole pages inside the mapping) back; they read as zero again.
    ///
    /// # Panics
    /// If the range is not inside the mapping or not of whole pages.
    pub fn discard(&mut self, start: usize, len: usize) {
        assert!(start.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && start + len <= self.len);
        // SAFETY: the range is inside memory that `self` owns exclusively and that holds plain bytes.
        unsafe { libc::madvise(self.start.as_ptr().add(start).cast(), len, libc::MADV_DONTNEED) };
    }

    /// Asks for (or against) huge pages in the whole mapping; a hint.
    pub fn huge_pages(&self, wanted: bool) {
        let advice = if wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: the advice changes no byte of the range.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, advice) };
    }

    /// Keeps the mapping out of forked children.
    pub fn dont_fork(&self) {
        // SAFETY: the advice changes no byte of the range.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_DONTFORK) };
    }
}

/// Whether the kernel gives huge pages to all who do not ask against them.
pub fn huge_pages_unasked() -> bool {
    std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .is_ok_and(|setting| setting.contains("[always]"))
}

/// Whether this is a virtual machine whose host takes free memory back: a virtio balloon with free page reporting. It takes what is
/// free in large blocks, so the next huge page comes from the host, which took 4.5 ms where 512 small pages took 1.1 ms and a
/// huge page that was still there 0.2 ms.
pub fn hypervisor_takes_free_memory() -> bool {
    // `include/uapi/linux/virtio_balloon.h`: VIRTIO_BALLOON_F_REPORTING.
    const REPORTING: usize = 5;
    let devices = std::fs::read_dir("/sys/bus/virtio/drivers/virtio_balloon").into_iter().flatten().flatten();
    devices
        .filter_map(|device| std::fs::read(device.path().join("features")).ok())
        .any(|features| features.get(REPORTING) == Some(&b'1'))
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is exactly what `map` or `aligned` left to this value, and no borrow of it is alive.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Memory behind a descriptor, shared with another process, looked at through atomics only.
#[derive(Debug)]
pub struct SharedMemory {
    fd: OwnedFd,
    mapping: Mapping,
}

/// A type that may lie in shared memory: only atomics and padding, valid for any bytes, at most a page aligned.
///
/// # Safety
/// Every bit pattern must be a valid value, and every field must allow concurrent change by another process
/// (that is: be an atomic).
pub unsafe trait Shareable: Sync {}

// SAFETY: `Ring` and the commands in it consist of atomics of integers alone.
unsafe impl Shareable for vswap_stub::protocol::Ring {}

// SAFETY: an array of atomics of integers.
unsafe impl<const N: usize> Shareable for [AtomicU64; N] {}

impl SharedMemory {
    /// Makes `len` bytes of zeroed shared memory under a descriptor that is closed on exec.
    ///
    /// # Errors
    /// What `memfd_create`, `ftruncate` or `mmap` say.
    pub fn new(name: &std::ffi::CStr, len: usize) -> io::Result<SharedMemory> {
        // SAFETY: `name` is a valid C string; the result is checked.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and is owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a plain call on an open descriptor.
        if unsafe { libc::ftruncate(fd.as_raw_fd(), len.next_multiple_of(PAGE) as i64) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mapping = Mapping::map(len, libc::MAP_SHARED, Some(fd.as_fd()))?;
        Ok(SharedMemory { fd, mapping })
    }

    /// The descriptor, to be sent to the other side.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.mapping.len
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The memory from its start, seen as a `T`.
    ///
    /// # Panics
    /// If the memory is smaller than a `T`.
    pub fn view<T: Shareable>(&self) -> &T {
        assert!(size_of::<T>() <= self.mapping.len && align_of::<T>() <= PAGE);
        // SAFETY: the mapping is big and aligned enough and lives as long as `self`; `T: Shareable` says that any
        // bytes are valid and that others may change them.
        unsafe { self.mapping.start.cast::<T>().as_ref() }
    }
}
