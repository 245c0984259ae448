//! [`Large`]: an allocator that asks the kernel for what is large, so that of a buffer only the pages that are used take memory.
//!
//! # Safety
//! What is large is decided by the layout alone, which whoever frees or changes a block has to give as it was: so each block goes back to where it came from.
//! A mapping is page-aligned, zeroed, of nobody else, and there until it is unmapped.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};

/// Bytes from which on each block is a mapping of its own. High enough for what is allocated again and again to come from the other allocator.
pub const LARGE: usize = 8 << 20;
/// Mappings have no greater alignment.
const PAGE: usize = 4096;

/// The allocator `A`, and the kernel for blocks of [`LARGE`] bytes and more.
#[derive(Debug)]
pub struct Large<A>(pub A);

fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= PAGE
}

// SAFETY: blocks are `A`'s, or mappings of their own of at least their layout's size and alignment; see the module.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Large<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout) {
            // SAFETY: the caller's layout, of a size above 0.
            return unsafe { self.0.alloc(layout) };
        }
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever there is room.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), layout.size(), access, kind, -1, 0) };
        if at == libc::MAP_FAILED { std::ptr::null_mut() } else { at.cast() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            // SAFETY: the caller's layout. Mappings are zeroed.
            unsafe { self.alloc(layout) }
        } else {
            // SAFETY: the caller's layout, of a size above 0.
            unsafe { self.0.alloc_zeroed(layout) }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_large(layout) {
            // SAFETY: by its layout it is a mapping of this size from `alloc` or `realloc`, which nobody uses any more.
            unsafe { libc::munmap(block.cast(), layout.size()) };
        } else {
            // SAFETY: by its layout it is a block of `A`'s.
            unsafe { self.0.dealloc(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: `size`, rounded up to the alignment, is no longer than `isize` allows.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_large(layout), is_large(new)) {
            // SAFETY: a block of `A`'s, which stays one.
            (false, false) => unsafe { self.0.realloc(block, layout, size) },
            (true, true) => {
                // SAFETY: a mapping of this size, all of it, which nobody else uses; where it is moved to is new.
                let at = unsafe { libc::mremap(block.cast(), layout.size(), size, libc::MREMAP_MAYMOVE) };
                if at == libc::MAP_FAILED { std::ptr::null_mut() } else { at.cast() }
            }
            _ => {
                // SAFETY: as in `alloc`: the size is above 0 by the caller's promise.
                let at = unsafe { self.alloc(new) };
                if !at.is_null() {
                    // SAFETY: both are at least so long, and they are two blocks; the old one is not used any more.
                    unsafe {
                        std::ptr::copy_nonoverlapping(block, at, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                }
                at
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LARGE, Large};
    use std::alloc::{GlobalAlloc, Layout, System};

    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn a_large_buffer_takes_no_memory_until_it_is_used() {
        let (large, layout) = (Large(System), Layout::from_size_align(8 * LARGE, 16).unwrap());
        let before = resident();
        // SAFETY: a size above 0; of what is there 4096 bytes are written, and it is freed once by its layout.
        unsafe {
            let block = large.alloc_zeroed(layout);
            assert!(!block.is_null());
            block.write_bytes(7, 4096);
            assert_eq!((block.add(4095).read(), block.add(4096).read()), (7, 0));
            assert!(resident() < before + 4 * LARGE, "other tests have some");
            large.dealloc(block, layout);
        }
    }

    #[test]
    fn a_block_keeps_its_bytes_as_it_grows_and_shrinks_past_what_is_large() {
        let large = Large(System);
        let sizes = [100, LARGE - 1, LARGE, 3 * LARGE + 5, LARGE + 1, 70, 2 * LARGE, 1];
        for align in [1, 64, 4096, 8192] {
            // The last is the other allocator's, however large.
            let (mut layout, mut last) = (Layout::from_size_align(sizes[0], align).unwrap(), 69);
            // SAFETY: sizes above 0, each block used within its size and given back once by its last layout.
            unsafe {
                let mut block = large.alloc(layout);
                block.write_bytes(9, 1);
                block.add(last).write(8);
                for size in sizes {
                    block = large.realloc(block, layout, size);
                    layout = Layout::from_size_align(size, align).unwrap();
                    assert!(!block.is_null() && (block as usize).is_multiple_of(align), "{size} {align}");
                    assert_eq!(block.read(), 9, "{size} {align}");
                    assert!(size < 70 || block.add(69).read() == 8, "{size} {align}");
                    assert!(last >= size || block.add(last).read() == 8, "{size} {align}");
                    last = size - 1;
                    block.add(last).write(if last == 0 { 9 } else { 8 });
                }
                large.dealloc(block, layout);
            }
        }
    }
}
