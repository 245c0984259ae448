//! Reading another process's memory (`process_vm_readv`).
//!
//! # Safety
//! The local side is always a live mutable slice; the remote side is another process's and cannot break ours.
#![allow(unsafe_code)]

use std::io;

/// Copies `buffer.len()` bytes at `address` of process `pid` into `buffer`; returns how many came.
///
/// A missing page of a userfaultfd range is faulted in by its handler first, except where that descriptor is in
/// `SIGBUS` mode: then the copy ends there.
///
/// # Errors
/// `EFAULT` if not even the first byte can be read, `ESRCH` if the process is gone, `EPERM`.
pub fn read(pid: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: buffer.len() };
    // SAFETY: `local` describes exactly the exclusively borrowed `buffer`; both iovecs live through the call.
    let n = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

/// Pages that [`read_pages`] copies at most.
pub const PAGES_AT_ONCE: usize = 64;

/// Copies the pages at `addresses` of process `pid` one after the other into `buffer`; returns how many came.
///
/// # Errors
/// As [`read`].
///
/// # Panics
/// If there are more than [`PAGES_AT_ONCE`] addresses, or `buffer` is too short for them.
pub fn read_pages(pid: i32, addresses: &[u64], buffer: &mut [u8]) -> io::Result<usize> {
    assert!(addresses.len() <= PAGES_AT_ONCE && buffer.len() >= addresses.len() * 4096);
    let mut remote = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 4096 }; PAGES_AT_ONCE];
    for (vector, address) in remote.iter_mut().zip(addresses) {
        vector.iov_base = *address as *mut _;
    }
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: addresses.len() * 4096 };
    // SAFETY: `local` lies inside the exclusively borrowed `buffer` (asserted); the remote vectors are live, and of them
    // only the first `addresses.len()` are looked at.
    let n = unsafe {
        libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), addresses.len() as u64, 0)
    };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize / 4096) }
}
