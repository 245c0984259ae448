//! [`AtomicArray`]: a large array of zeroes that takes memory page by page as it is written.
//!
//! # Safety
//!
//! The memory is one anonymous mapping owned by the value; it is read and written only as `AtomicU64`, for
//! which every bit pattern is valid. A discard makes words zero at any moment, which is what a concurrent
//! atomic store of zero would do.
#![allow(unsafe_code)]

use crate::mapping::{Mapping, PAGE};
use std::io;
use std::sync::atomic::AtomicU64;

/// Words in a page.
const WORDS: usize = PAGE / size_of::<AtomicU64>();

/// An array of 64-bit atomics, zero at first, that costs nothing where it was never written.
#[derive(Debug)]
pub struct AtomicArray {
    mapping: Mapping,
}

impl AtomicArray {
    /// Reserves room for `len` words (rounded up to whole pages), without huge pages: they would commit what
    /// nobody wrote.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn new(len: usize) -> io::Result<AtomicArray> {
        let mapping = Mapping::anonymous(len * size_of::<AtomicU64>())?;
        mapping.huge_pages(false);
        Ok(AtomicArray { mapping })
    }

    /// Asks for huge pages, for an array of which all will be written; a hint.
    pub fn ask_for_huge_pages(&self) {
        self.mapping.huge_pages(true);
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.mapping.len() / size_of::<AtomicU64>()
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// All words.
    pub fn words(&self) -> &[AtomicU64] {
        let start = self.mapping.address() as *const AtomicU64;
        // SAFETY: (1) the mapping is `len` words long, page aligned, mapped and initialised (zero) for as
        // long as `self` lives; (2) every bit pattern is a valid `AtomicU64`; (3) nothing reaches these bytes
        // but through this slice (the mapping's own slices are never asked for), so all accesses are atomic.
        unsafe { std::slice::from_raw_parts(start, self.len()) }
    }

    /// Gives the memory of the page of words that starts at `first` (a multiple of 512) back; they read as
    /// zero.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn discard_page(&self, first: usize) {
        assert!(first.is_multiple_of(WORDS) && first < self.len(), "no page of words starts at {first}");
        let start = self.mapping.address() as usize + first * size_of::<AtomicU64>();
        // SAFETY: the page is inside the mapping; it holds nothing but atomics, which may become zero at any
        // time.
        unsafe { libc::madvise(start as *mut libc::c_void, PAGE, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_discarded_page_reads_as_zero_and_its_neighbours_stay() {
        let array = AtomicArray::new(1024).unwrap();
        assert_eq!(array.len(), 1024);
        for (at, word) in array.words().iter().enumerate() {
            assert_eq!(word.swap(at as u64 + 1, Ordering::Relaxed), 0);
        }
        array.discard_page(512);
        assert!(array.words()[512..].iter().all(|word| word.load(Ordering::Relaxed) == 0));
        assert_eq!(array.words()[511].load(Ordering::Relaxed), 512);
    }
}
