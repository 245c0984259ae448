//! What was written and is to be stored elsewhere by the object's owner before it may be given up.
//!
//! Each dirty range has a stamp. There is another one whenever somebody asks what is dirty, so that whatever is written from then on is told apart
//! from what that one takes along; and no stamp is used twice, since whoever asked may come back after the object was let out of memory and found again.

use rangemap::{RangeMap, RangeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that were dirty when they were asked for; [`Object::cleaned`](crate::Object::cleaned) takes it back when they are stored.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "stays dirty until `cleaned` is told"]
pub struct Dirty {
    range: Range<u64>,
    stamp: u64,
}

impl Dirty {
    /// Which bytes of the object.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }
}

/// 0 is that of an object which nobody has asked yet, nor found again.
fn new_stamp() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    // Relaxed: they only have to differ.
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

#[derive(Clone, Debug, Default)]
pub(crate) struct DirtyRanges {
    ranges: RangeMap<u64, u64>,
    stamp: u64,
}

impl DirtyRanges {
    pub(crate) fn found(ranges: &[Range<u64>]) -> Self {
        let mut found = Self { stamp: new_stamp(), ..Self::default() };
        ranges.iter().for_each(|range| found.add(range.clone()));
        found
    }

    /// All of them, neighbours joined.
    pub(crate) fn ranges(&self) -> Vec<Range<u64>> {
        let all: RangeSet<u64> = self.ranges.iter().map(|(range, _)| range.clone()).collect();
        all.into_iter().collect()
    }

    pub(crate) fn add(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.ranges.insert(range, self.stamp);
        }
    }

    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.ranges.remove(range);
        }
    }

    pub(crate) fn ask(&mut self) -> Vec<Dirty> {
        self.stamp = new_stamp();
        self.ranges.iter().map(|(range, stamp)| Dirty { range: range.clone(), stamp: *stamp }).collect()
    }

    /// What was written since stays dirty.
    pub(crate) fn clean(&mut self, stored: &Dirty) {
        let unchanged = |(range, stamp): (&Range<u64>, &u64)| {
            (*stamp == stored.stamp).then(|| crate::presence::common(range, &stored.range))
        };
        let clean: Vec<_> = self.ranges.overlapping(&stored.range).filter_map(unchanged).collect();
        clean.into_iter().for_each(|range| self.remove(range));
    }

    /// Whether some of a range is dirty.
    pub(crate) fn touches(&self, range: &Range<u64>) -> bool {
        self.ranges.overlaps(range)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}
