//! A staging area in our own address space: what the stub does in a program, done here for regions of our own.
//!
//! # Safety
//!
//! Pages are moved from a [`PagedMemory`], whose owner agreed by making one that a pager takes its pages and brings
//! the same bytes back, to the area's own mapping. Both ranges are checked.
#![allow(unsafe_code)]

use crate::mapping::Mapping;
use crate::uffd::{Uffd, feature};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use vswap_stub::logic::{self, Kernel};
use vswap_stub::protocol::WINDOW_BYTES;

/// Memory whose pages a pager takes and brings back: to whoever reads and writes it, plain bytes.
///
/// It keeps its bytes only while a pager with a registered userfaultfd answers for it; the pager must outlive
/// every use of the bytes.
#[derive(Debug)]
pub struct PagedMemory(Mapping);

impl PagedMemory {
    /// Maps `windows` times 2 MiB, aligned to that: the memory for the pager, and the one right to its bytes.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn new(windows: usize) -> io::Result<(Arc<PagedMemory>, PagedBytes)> {
        let mapping = Mapping::aligned(windows * WINDOW_BYTES as usize, WINDOW_BYTES as usize)?;
        mapping.dont_fork();
        // For a fault in what is registered the kernel would clear a huge page first, and then ask all the same.
        mapping.huge_pages(false);
        let memory = Arc::new(PagedMemory(mapping));
        Ok((Arc::clone(&memory), PagedBytes(memory)))
    }

    /// Address of the first byte.
    pub fn address(&self) -> u64 {
        self.0.address()
    }

    /// Bytes, a multiple of 2 MiB.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// The right to the bytes of a [`PagedMemory`]; there is one.
#[derive(Debug)]
pub struct PagedBytes(Arc<PagedMemory>);

impl PagedBytes {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.0.0.as_slice()
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the range is mapped for as long as `self` holds the `Arc`; `PagedMemory` itself gives out no
        // reference to its bytes and there is one `PagedBytes` for it, here exclusively borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.0.0.address() as *mut u8, self.0.0.len()) }
    }

    /// Gives the pages of `start..start + len` back; they read as zero. The pager learns of it by an event.
    ///
    /// # Panics
    /// If the range is not of whole pages inside the memory.
    pub fn discard(&mut self, start: usize, len: usize) {
        assert!(start.is_multiple_of(4096) && len.is_multiple_of(4096) && start + len <= self.0.0.len());
        let at = self.0.0.address() as usize + start;
        // SAFETY: the range is inside memory whose bytes are exclusively borrowed, plain bytes valid as zero.
        unsafe { libc::madvise(at as *mut _, len, libc::MADV_DONTNEED) };
    }
}

/// Staging windows of 2 MiB in this process.
#[derive(Debug)]
pub struct LocalStaging {
    // Dropped before the descriptor: unmapping needs no handler, but nothing may fault in between.
    area: Mapping,
    uffd: Uffd,
    source: Arc<PagedMemory>,
}

/// Makes system calls as they come; private, so that only the ones `logic` makes can happen.
struct Direct;

impl Kernel for Direct {
    fn syscall(&mut self, nr: usize, args: [usize; 6]) -> isize {
        // SAFETY: only `logic::evict` and `logic::discard` call this: `ioctl(UFFDIO_MOVE)` with the address of a
        // live structure, `madvise` with `MADV_DONTNEED` on the staging area or `MADV_POPULATE_WRITE` on the
        // source (which changes no byte), and `sched_yield`.
        let result =
            unsafe { libc::syscall(nr as i64, args[0], args[1], args[2], args[3], args[4], args[5]) };
        if result < 0 {
            -(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) as isize)
        } else {
            result as isize
        }
    }
}

impl LocalStaging {
    /// Makes an area of `windows` windows for the pages of `source`.
    ///
    /// # Errors
    /// What `mmap` and `userfaultfd` say.
    pub fn new(windows: u32, source: Arc<PagedMemory>) -> io::Result<LocalStaging> {
        let area = Mapping::aligned(windows as usize * WINDOW_BYTES as usize, WINDOW_BYTES as usize)?;
        area.dont_fork();
        let uffd = Uffd::open(feature::STAGING_FEATURES)?;
        uffd.register(area.address(), area.len() as u64, false)?;
        Ok(LocalStaging { area, uffd, source })
    }

    /// Address of the first window.
    pub fn base(&self) -> u64 {
        self.area.address()
    }

    /// Moves the pages `want` of the 2 MiB at `src` to the window at `window`, sparing `avoid`; returns those
    /// that could not be moved.
    ///
    /// # Panics
    /// If `src` is not inside the memory this area serves, or `window` not inside the area.
    pub fn evict(&self, src: u64, window: u64, want: &[u64; 8], avoid: &[u64; 8]) -> [u64; 8] {
        assert!(
            src >= self.source.address() && src + WINDOW_BYTES <= self.source.address() + self.source.len()
        );
        self.check(window);
        logic::evict(&mut Direct, self.uffd.as_fd().as_raw_fd() as u32, src, window, want, avoid)
    }

    fn check(&self, window: u64) {
        assert!(window >= self.base() && window + WINDOW_BYTES <= self.base() + self.area.len() as u64);
    }

    /// Frees the pages of a window. Returns 0 or a negative errno.
    ///
    /// # Panics
    /// If the window is not one of this area.
    pub fn discard(&self, window: u64) -> i64 {
        self.check(window);
        logic::discard(&mut Direct, window)
    }
}
