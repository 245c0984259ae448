//! Where the faults of a block went last, to tell a program that reads or writes on from one that jumps about.
//!
//! Upwards or downwards: `sort` keeps its lines in an array that it fills and reads from the end.

use core::ops::Range;

use crate::bitmap::Bitmap512;
use crate::units::{PAGES_PER_CLUSTER, PageIndex};

/// The run of pages that came with the last fault of a block.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// Pages; empty before the first fault.
    last: Range<u16>,
    /// How many pages were wanted with it.
    ahead: u16,
}

/// The pages that a fault may bring: some neighbours, the page itself among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Most pages, the one asked for included.
    pub most: usize,
    /// Towards lower pages.
    pub down: bool,
}

impl Trail {
    /// How far a fault at `page` should reach: twice as far as the last one, from `least` to `most`, if it goes on where that one
    /// ended, over nothing but pages of `present`; else `alone`.
    pub fn reach(
        &self,
        page: PageIndex,
        present: &Bitmap512,
        (alone, least, most): (usize, usize, usize),
    ) -> Reach {
        let at = page.get();
        let (start, end) = (usize::from(self.last.start), usize::from(self.last.end));
        let all_there = |from: usize, to: usize| {
            PageIndex::new(from)
                .is_none_or(|first| Bitmap512::from_range(first, to - from).and_not(present).is_empty())
        };
        let up = start < end && end <= at && all_there(end, at);
        let down = start < end && at < start && all_there(at + 1, start);
        let grown = (usize::from(self.ahead) * 2).clamp(least, most);
        Reach { most: if up || down { grown } else { alone }, down }
    }

    /// A fault that wanted to reach so far has brought `pages`.
    pub fn went(&mut self, pages: Range<usize>, reach: Reach) {
        // All below 512.
        self.last = pages.start as u16..pages.end as u16;
        self.ahead = reach.most as u16;
    }
}

/// Pages that a fault reaches over when the two before it went on as well, if it began with [`READAHEAD`].
const READS_ON: usize = 8;

/// Pages that a fault alone brings in, one that goes on where another ended at least, and at most.
pub const READAHEAD: (usize, usize, usize) = (1, 4, 32);

impl Reach {
    /// Whether the program reads on: this is the third fault in a row at least.
    pub fn reads_on(self) -> bool {
        self.most >= READS_ON
    }

    /// The pages of `wanted` next to `page` within reach, at most `most`; `page` is one whether `wanted` has it or not.
    pub fn run(self, wanted: &Bitmap512, page: PageIndex, most: usize) -> Range<usize> {
        let (at, most) = (page.get(), self.most.min(most).max(1));
        if self.down {
            let lowest = (at + 1).saturating_sub(most);
            let below = (lowest..at).rev().take_while(|&at| is_set(wanted, at)).count();
            at - below..at + 1
        } else {
            at..at + run_length(wanted, page, most)
        }
    }
}

fn is_set(set: &Bitmap512, at: usize) -> bool {
    PageIndex::new(at).is_some_and(|page| set.get(page))
}

/// The run of set pages that `page` is in.
pub fn run_around(set: &Bitmap512, page: PageIndex) -> Range<usize> {
    let start = (0..page.get()).rev().take_while(|&at| is_set(set, at)).last().unwrap_or(page.get());
    start..page.get() + run_length(set, page, PAGES_PER_CLUSTER)
}

/// Length of the run of set pages at `page`, at most `most`, at least 1.
pub fn run_length(set: &Bitmap512, page: PageIndex, most: usize) -> usize {
    let end = (page.get() + most).min(PAGES_PER_CLUSTER);
    let more = (page.get() + 1..end).take_while(|&at| is_set(set, at)).count();
    1 + more
}

#[cfg(test)]
mod tests {
    use super::{Reach, Trail, run_around, run_length};
    use crate::bitmap::Bitmap512;
    use crate::units::PageIndex;

    fn page(at: usize) -> PageIndex {
        PageIndex::new(at).unwrap()
    }

    const LIMITS: (usize, usize, usize) = (1, 4, 32);

    #[test]
    fn a_fault_goes_on_over_pages_that_are_there_up_and_down() {
        let mut trail = Trail::default();
        let mut there = Bitmap512::EMPTY;
        assert_eq!(
            trail.reach(page(0), &there, LIMITS),
            Reach { most: 1, down: false },
            "nothing came before it"
        );
        trail.went(8..10, Reach { most: 4, down: false });
        there |= Bitmap512::from_range(page(10), 3) | Bitmap512::from_range(page(6), 2);
        for (at, most, down) in [
            (10, 8, false),
            (13, 8, false),
            (14, 1, false),
            (8, 1, false),
            (7, 8, true),
            (5, 8, true),
            (4, 1, false),
            (511, 1, false),
        ] {
            assert_eq!(trail.reach(page(at), &there, LIMITS), Reach { most, down }, "{at}");
        }
        trail.went(500..512, Reach { most: 32, down: false });
        assert_eq!(trail.reach(page(511), &there, LIMITS).most, 1);
        assert_eq!(trail.reach(page(499), &there, LIMITS), Reach { most: 32, down: true });
    }

    #[test]
    fn a_run_ends_where_a_page_is_not_wanted_or_the_block_ends() {
        let wanted = Bitmap512::from_range(page(4), 8) | Bitmap512::from_range(page(0), 2);
        let up = |at: usize, most: usize| Reach { most, down: false }.run(&wanted, page(at), 32);
        let down = |at: usize, most: usize| Reach { most, down: true }.run(&wanted, page(at), 32);
        assert_eq!((up(4, 4), up(8, 32), up(20, 8)), (4..8, 8..12, 20..21));
        assert_eq!((down(11, 4), down(11, 32), down(1, 32), down(20, 8)), (8..12, 4..12, 0..2, 20..21));
        assert_eq!(
            Reach { most: 32, down: true }.run(&wanted, page(11), 2),
            10..12,
            "the caller has room for two"
        );
        assert_eq!(Reach { most: 32, down: false }.run(&Bitmap512::FULL, page(500), 32), 500..512);
        assert_eq!((run_around(&wanted, page(7)), run_length(&wanted, page(0), 9)), (4..12, 2));
    }
}
