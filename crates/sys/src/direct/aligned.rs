//! [`AlignedBuf`]: zeroed page-aligned memory for direct I/O.
//!
//! # Safety
//! One allocation made with `alloc_zeroed` and freed with the same layout, or none and no bytes; the
//! pointer never leaves except as a slice that borrows the buffer.
#![allow(unsafe_code)]

use super::BLOCK;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Owned memory that starts at a page boundary and is a whole number of pages long.
pub struct AlignedBuf {
    start: NonNull<u8>,
    len: usize,
}

impl AlignedBuf {
    /// A buffer of no bytes, which allocates nothing: a stand-in while another is lent out.
    #[must_use]
    pub const fn empty() -> Self {
        Self { start: NonNull::dangling(), len: 0 }
    }

    /// Allocates `len` zero bytes, rounded up to whole blocks; 0 is [`empty`](Self::empty).
    ///
    /// # Panics
    /// If `len` rounded up does not fit `isize`.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let len = len.checked_next_multiple_of(BLOCK).expect("buffer length overflows");
        if len == 0 {
            return Self::empty();
        }
        let layout = Self::layout(len);
        // SAFETY: `alloc_zeroed` needs a layout of non-zero size: `len` is at least BLOCK here.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, len }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, BLOCK).expect("a block-aligned layout of this length exists")
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: (1) `start` is valid for `len` bytes, all initialised (allocated zeroed, only written
        // through slices or by the kernel); for no bytes a dangling pointer of a byte will do; (2) one allocation, `len` <= isize::MAX by its layout;
        // (3) the shared borrow of self keeps it alive and unwritten.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the exclusive borrow of self makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: a buffer of some bytes was (1) allocated by `alloc_zeroed` of the same global allocator; (2) with this layout;
        // (3) freed once, since self is gone afterwards.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.len)) }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf").field("len", &self.len).finish_non_exhaustive()
    }
}

// SAFETY: the buffer owns its memory exclusively, nothing of it is tied to a thread.
unsafe impl Send for AlignedBuf {}
// SAFETY: a shared reference only gives shared slices of plain bytes.
unsafe impl Sync for AlignedBuf {}
