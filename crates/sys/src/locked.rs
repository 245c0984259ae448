//! [`Locked`]: a secret in memory of its own that is neither swapped, dumped, nor inherited, and is overwritten at the end.
//!
//! # Safety
//! One mapping of whole pages, owned alone, that holds one value from `new` to `drop`; the pointer never leaves except as a reference that
//! borrows the whole.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;

const PAGE: usize = 4096;

/// A value on pages that are locked in memory (`mlock`), left out of core dumps (`MADV_DONTDUMP`) and not given to children
/// (`MADV_DONTFORK`: a child that touched it would be killed rather than use it a second time), and that are overwritten when it is dropped.
pub struct Locked<T> {
    value: NonNull<T>,
    len: usize,
    /// Whose pages they are: a forked child has none there, or others by now.
    process: u32,
}

impl<T> Locked<T> {
    /// Makes pages as described and puts what `make` gives there. The stack that `make` used is overwritten afterwards, as well as that can be
    /// done from outside.
    ///
    /// # Errors
    /// What `mmap`, `mlock` or `madvise` says; mostly that `RLIMIT_MEMLOCK` is too small. Then `make` is not called.
    pub fn new(make: impl FnOnce() -> T) -> io::Result<Self> {
        const { assert!(align_of::<T>() <= PAGE) };
        let len = size_of::<T>().max(1).next_multiple_of(PAGE);
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping wherever the kernel likes touches nothing that exists.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: each call is about the mapping just made, which nobody else knows; the checks run in order.
        let guarded = unsafe {
            libc::madvise(at, len, libc::MADV_DONTDUMP) == 0
                && libc::madvise(at, len, libc::MADV_DONTFORK) == 0
                && libc::mlock(at, len) == 0
        };
        let error = io::Error::last_os_error();
        let (true, Some(value)) = (guarded, NonNull::new(at.cast::<T>())) else {
            // SAFETY: as above; nothing refers to it.
            unsafe { libc::munmap(at, len) };
            return Err(error);
        };
        let locked = Unfilled { at: value, len };
        fill(value, make);
        scrub_stack();
        std::mem::forget(locked);
        Ok(Self { value, len, process: std::process::id() })
    }
}

/// Pages without a value yet: unmapped if making it panics.
struct Unfilled<T> {
    at: NonNull<T>,
    len: usize,
}

impl<T> Drop for Unfilled<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is `new`'s own and holds no value.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// In a frame of its own, which `scrub_stack` then lies over.
#[inline(never)]
fn fill<T>(at: NonNull<T>, make: impl FnOnce() -> T) {
    // SAFETY: `at` is writable for a T, aligned to a page, and holds none yet.
    unsafe { at.write(make()) };
}

/// Overwrites what calls before this one left on the stack.
#[inline(never)]
fn scrub_stack() {
    std::hint::black_box(&mut [0_u8; 16 << 10]);
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: it holds a value since `new`, which lives until self is dropped.
        unsafe { self.value.as_ref() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        let bytes = self.value.as_ptr().cast::<u8>();
        // SAFETY: (1) the value is dropped once and not used again; (2) the pages are writable for `len` bytes, and volatile writes are
        // not left out; (3) the mapping is self's alone, in the process that made it, which this
        // is, and self is gone afterwards. Unmapping unlocks.
        unsafe {
            self.value.as_ptr().drop_in_place();
            for at in 0..self.len {
                bytes.add(at).write_volatile(0);
            }
            libc::munmap(bytes.cast(), self.len);
        }
    }
}

impl<T> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locked(..)")
    }
}

// SAFETY: it owns its value as a Box would.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: as above; shared, it only gives shared references.
unsafe impl<T: Sync> Sync for Locked<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags of the mapping around an address.
    fn flags_of(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let range = range.and_then(|(from, to)| {
                Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
            });
            if let Some((from, to)) = range {
                inside = (from..to).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                return flags.to_owned();
            }
        }
        panic!("{address:#x} is not mapped")
    }

    #[test]
    fn a_secret_is_locked_and_neither_dumped_nor_inherited() {
        let secret = Locked::new(|| [7_u8; 300]).unwrap();
        assert!(secret.iter().all(|byte| *byte == 7));
        let flags = flags_of(secret.value.as_ptr().addr());
        for flag in [" lo", " dd", " dc"] {
            assert!(flags.contains(flag), "{flag} is not among {flags}");
        }
        assert_eq!(format!("{secret:?}"), "Locked(..)");
    }

    /// A child that was forked and drops what it was left finds no pages there, or others: it would be killed by that, or spoil them.
    #[test]
    fn a_forked_child_leaves_what_it_was_not_given_as_it_is() {
        let counted = std::sync::Arc::new(());
        let mut locked = Locked::new(|| std::sync::Arc::clone(&counted)).unwrap();
        let mine = std::mem::replace(&mut locked.process, 1);
        let (value, len) = (locked.value, locked.len);
        drop(locked);
        assert_eq!(std::sync::Arc::strong_count(&counted), 2);
        drop(Locked { value, len, process: mine });
        assert_eq!(std::sync::Arc::strong_count(&counted), 1);
    }

    #[test]
    fn what_is_locked_is_dropped_once() {
        let counted = std::sync::Arc::new(());
        let locked = Locked::new(|| std::sync::Arc::clone(&counted)).unwrap();
        assert_eq!(std::sync::Arc::strong_count(&locked), 2);
        drop(locked);
        assert_eq!(std::sync::Arc::strong_count(&counted), 1);
    }
}
