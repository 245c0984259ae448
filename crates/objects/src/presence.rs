//! Which bytes of an object are there.
//!
//! Whether a page has any is told by its slot; only of pages that have some and not all of theirs are the ranges kept here. The page
//! in which the object ends has all of its bytes if it has those before the end.
//!
//! # Invariants
//! - A range that is kept lies before the end, in pages that have bytes.
//! - No page is kept with all of its bytes: then it is not kept at all. None is kept with none: then it has no slot in use.

use rangemap::RangeSet;
use std::ops::Range;
use vswap_core::PAGE_SIZE;

/// Bytes of a page, as offsets count.
pub(crate) const PAGE: u64 = PAGE_SIZE as u64;

/// The bytes of page `page`, of those before `len`.
pub(crate) fn page_range(page: u64, len: u64) -> Range<u64> {
    let start = page * PAGE;
    start..(start + PAGE).min(len)
}

/// Pages with a byte in the range.
pub(crate) fn pages_of(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / PAGE..range.end.div_ceil(PAGE) }
}

/// What both have.
pub(crate) fn common(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// The ranges of pages that have some of their bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presence {
    some: RangeSet<u64>,
}

impl Presence {
    /// As it was kept, but for pages that have been given up since; `has` tells which have bytes.
    pub(crate) fn found(some: &[Range<u64>], has: impl Fn(u64) -> bool) -> Self {
        let pages = |range: &Range<u64>| pages_of(range).map(|page| page * PAGE..(page + 1) * PAGE);
        let parts = some.iter().flat_map(|range| pages(range).map(|page| common(&page, range)));
        Self { some: parts.filter(|part| has(part.start / PAGE)).collect() }
    }

    /// What is to be kept.
    pub(crate) fn ranges(&self) -> Vec<Range<u64>> {
        self.some.iter().cloned().collect()
    }

    /// Whether page `page`, which has bytes, lacks others.
    pub(crate) fn lacks_some(&self, page: u64) -> bool {
        self.some.overlaps(&(page * PAGE..(page + 1) * PAGE))
    }

    /// Bytes of `range`, in one page that has some, that are there.
    pub(crate) fn there(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        if range.is_empty() {
            return Vec::new();
        }
        if self.lacks_some(range.start / PAGE) {
            self.some.overlapping(range).map(|found| common(found, range)).collect()
        } else {
            vec![range.clone()]
        }
    }

    /// Page `page` has been told of until `len`; from now on it ends later, so that it lacks what is new.
    pub(crate) fn lengthen(&mut self, page: u64, len: u64) {
        let had = page_range(page, len);
        if !had.is_empty() && had.end < (page + 1) * PAGE && !self.lacks_some(page) {
            self.some.insert(had);
        }
    }

    /// The bytes of `range`, in one page, are there now; `had` tells whether the page had any before. The object ends at `len`.
    pub(crate) fn add(&mut self, range: Range<u64>, had: bool, len: u64) {
        let page = range.start / PAGE;
        if had && !self.lacks_some(page) {
            return;
        }
        self.some.insert(range);
        self.settle(page, len);
    }

    /// The bytes of `range`, in one page that has some, are no longer there. Tells whether the page has any left.
    pub(crate) fn take(&mut self, range: Range<u64>, len: u64) -> bool {
        let page = range.start / PAGE;
        let all = page_range(page, len);
        if !self.lacks_some(page) && !all.is_empty() {
            self.some.insert(all);
        }
        if !range.is_empty() {
            self.some.remove(range);
        }
        self.lacks_some(page)
    }

    /// These pages have nothing any more, or all.
    pub(crate) fn forget(&mut self, pages: Range<u64>) {
        if !pages.is_empty() {
            self.some.remove(pages.start * PAGE..pages.end * PAGE);
        }
    }

    /// The object ends at `len` now, in page `page`, which had bytes. Tells whether it has any left.
    pub(crate) fn shorten(&mut self, page: u64, len: u64) -> bool {
        if !self.lacks_some(page) {
            return true;
        }
        if len < (page + 1) * PAGE {
            self.some.remove(len..(page + 1) * PAGE);
        }
        let left = self.lacks_some(page);
        self.settle(page, len);
        left
    }

    /// A page that has all is not kept.
    fn settle(&mut self, page: u64, len: u64) {
        let all = page_range(page, len);
        if self.some.gaps(&all).next().is_none() {
            self.forget(page..page + 1);
        }
    }

    /// Whether what the module says of itself holds; `has` tells which pages have bytes. For tests, and for whoever doubts.
    pub(crate) fn audit(&self, len: u64, has: impl Fn(u64) -> bool) -> Result<(), String> {
        for range in self.some.iter() {
            if range.end > len {
                return Err(format!("{range:?} is kept of an object of {len} bytes"));
            }
            for page in pages_of(range) {
                if !has(page) {
                    return Err(format!("{range:?} is kept of page {page}, which has no bytes"));
                }
                if self.some.gaps(&page_range(page, len)).next().is_none() {
                    return Err(format!("page {page} has all its bytes and is kept"));
                }
            }
        }
        Ok(())
    }
}
