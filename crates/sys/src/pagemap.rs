//! Which pages of an address space are present (`PAGEMAP_SCAN`, Linux 6.7).
//!
//! # Safety
//! The ioctl writes only into the vector whose address and length it is given.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_SWAPPED: u64 = 1 << 4;

/// `struct pm_scan_arg` of `include/uapi/linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

const PAGEMAP_SCAN: u64 = 0xc060_6610;

/// The page map of a process.
#[derive(Debug)]
pub struct Pagemap {
    file: File,
}

impl Pagemap {
    /// Opens the page map of process `pid`.
    ///
    /// # Errors
    /// `NotFound` if it is gone, `PermissionDenied` if it may not be looked into.
    pub fn open(pid: i32) -> io::Result<Pagemap> {
        Ok(Pagemap { file: File::open(format!("/proc/{pid}/pagemap"))? })
    }

    /// Calls `found` with each run of present pages (or pages in the kernel's own swap; file pages of private
    /// mappings left out) in `range`.
    ///
    /// # Errors
    /// What the ioctl says; `ESRCH` if the address space is gone.
    pub fn present(&self, range: Range<u64>, mut found: impl FnMut(Range<u64>)) -> io::Result<()> {
        let mut regions = [PageRegion::default(); 128];
        let mut at = range.start;
        while at < range.end {
            let mut arg = PmScanArg {
                size: size_of::<PmScanArg>() as u64,
                start: at,
                end: range.end,
                vec: regions.as_mut_ptr() as u64,
                vec_len: regions.len() as u64,
                category_inverted: PAGE_IS_FILE,
                category_mask: PAGE_IS_FILE,
                category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
                return_mask: PAGE_IS_PRESENT,
                ..PmScanArg::default()
            };
            // SAFETY: `arg` is a live `pm_scan_arg` of the size it states, and `vec`/`vec_len` describe the live
            // array `regions`, which nobody else looks at during the call.
            let n = unsafe { libc::ioctl(self.file.as_raw_fd(), PAGEMAP_SCAN as libc::Ioctl, &raw mut arg) };
            if n < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            for region in &regions[..n as usize] {
                found(region.start..region.end);
            }
            // The walk may end short of the range even when the vector has room left.
            if arg.walk_end <= at {
                break;
            }
            at = arg.walk_end;
        }
        Ok(())
    }
}
