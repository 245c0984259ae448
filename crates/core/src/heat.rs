//! How long the resident pages of a block are spared by the clock hand, and which of them it takes.
//!
//! The pager and the simulation of traces (`cargo xtask traces`) run this same code.
//!
//! Nobody tells when a resident page is touched; only faults are seen. So a page's rank is learnt from how soon it is asked for
//! again after it was moved out: soon, and the rank rises; late, and it sinks. When it comes back, the page is spared
//! for as many passes of the hand as its rank is worth. The distance of a refault in place of an accessed bit is the idea of the
//! kernel's `mm/workingset.c`; that several quick ones are needed to stay for long keeps a scan from doing so.

use crate::bitmap::Bitmap512;
use crate::insertion::Kinds;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;
use crate::units::PageIndex;

/// Passes that a page of each rank is spared. `cargo xtask traces` shows what comes of it. A steeper order (15 passes for the highest rank, two
/// ranks at once for what comes back in the term in which it went, one that comes late not young) hits more often there, 2 points on Zipf with
/// memory for a tenth and 30 on a loop over twice the memory; but real Zipf touches took a tenth more time under it (the median of 30 pairs of runs; quartiles
/// 0.94 and 1.21), so it is not what is done.
const PASSES: [u8; 4] = [0, 1, 3, 7];

/// The highest rank.
const TOP: u8 = 3;

/// How soon a page was asked for after it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// While it was on its way, in the term in which it went, or in the one after that.
    Soon,
    /// Later, or nobody knows when it went.
    Late,
}

impl Back {
    /// Whether it would still have been there with about half as much memory more.
    pub fn is_soon(self) -> bool {
        self == Back::Soon
    }
}

/// What a block's pages did of late.
#[derive(Clone, Copy, Debug)]
pub struct Heat {
    /// Pages installed since the hand last passed.
    young: Bitmap512,
    /// Bits of the passes left, lowest first.
    left: [Bitmap512; 4],
    /// Bits of the rank, lowest first. Kept while the page is out.
    rank: [Bitmap512; 2],
    /// Pages moved out in the present term and in the one before.
    went: [Bitmap512; 2],
    /// The present term, when `went` was looked at last.
    term: u64,
    /// Pages that came because the program reads on, and pass by.
    passing: Bitmap512,
    /// Pages that were passing when they were moved out.
    passed: Bitmap512,
}

/// One in so many of the pages that are in memory go in a term.
const TERM: u64 = 3;

/// The count of terms: in each, a third as many pages are moved out as are in memory. So a page that comes back in the term in
/// which it went or the next would not have gone with about half as much memory more.
#[derive(Debug, Default)]
pub struct Terms {
    now: AtomicU64,
    begun: AtomicU64,
}

impl Terms {
    /// The present term.
    pub fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// How many pages went in the present term and the one before, with `resident` in memory: one and a half terms' worth, on
    /// average.
    pub fn lately(resident: u64) -> u64 {
        resident * 3 / (2 * TERM)
    }

    /// `evicted` pages have been moved out by now, and `resident` are in memory.
    pub fn advance(&self, evicted: u64, resident: u64) {
        let begun = self.begun.load(Relaxed);
        let over = evicted.saturating_sub(begun) > resident / TERM;
        // Whoever sets the beginning counts the term; nothing else hangs on either, so relaxed.
        if over && self.begun.compare_exchange(begun, evicted, Relaxed, Relaxed).is_ok() {
            self.now.fetch_add(1, Relaxed);
        }
    }
}

impl Heat {
    /// All cold.
    pub const COLD: Heat = Heat {
        young: Bitmap512::EMPTY,
        left: [Bitmap512::EMPTY; 4],
        rank: [Bitmap512::EMPTY; 2],
        went: [Bitmap512::EMPTY; 2],
        term: 0,
        passing: Bitmap512::EMPTY,
        passed: Bitmap512::EMPTY,
    };

    /// The pages that are to be spared.
    pub fn hot(&self) -> Bitmap512 {
        self.left.iter().fold(Bitmap512::EMPTY, |hot, bit| hot | *bit)
    }

    /// `pages` were installed: the hand spares them when it comes next.
    pub fn install(&mut self, pages: Bitmap512) {
        self.young |= pages;
        self.passing = self.passing.and_not(&pages);
    }

    /// `pages` were installed because the program reads on, and are to go before others (see [`insertion`](crate::insertion)).
    pub fn pass_by(&mut self, pages: Bitmap512) {
        self.young = self.young.and_not(&pages);
        self.passing |= pages;
    }

    /// The pages that pass by; they may have been discarded since.
    pub fn passing(&self) -> Bitmap512 {
        self.passing
    }

    /// What was learnt, for a copy of the block in which nothing was installed of late.
    #[must_use]
    pub fn inherited(&self) -> Heat {
        Heat { young: Bitmap512::EMPTY, passing: Bitmap512::EMPTY, ..*self }
    }

    /// The hand passes over `candidates`, the only pages of `among` that may be taken: at most `most` of them are victims, the
    /// others grow older.
    ///
    /// Pages installed since the last pass and hot ones are spared once.
    pub fn choose(&mut self, candidates: Bitmap512, among: &Bitmap512, most: usize) -> Bitmap512 {
        let victims = candidates.and_not(&(self.young | self.hot()));
        self.pass(candidates.and_not(&self.young));
        self.young = self.young.and_not(among);
        victims.lowest(most)
    }

    /// `pages` are moved out in term `now`. Returns how many of each kind they are.
    pub fn go(&mut self, pages: Bitmap512, now: u64) -> Kinds {
        self.catch_up(now);
        self.went[0] |= pages;
        let passing = pages & self.passing;
        self.passing = self.passing.and_not(&pages);
        self.passed = self.passed.and_not(&pages) | passing;
        self.kinds_of(pages)
    }

    /// `pages`, moved out before, are back in term `now`: how many of each kind soon after they went, and how many late. To be asked before [`come_back`](Heat::come_back).
    pub fn returned(&mut self, pages: Bitmap512, now: u64) -> (Kinds, Kinds) {
        self.catch_up(now);
        let soon = pages & (self.went[0] | self.went[1]);
        let kinds = (self.kinds_of(soon), self.kinds_of(pages.and_not(&soon)));
        self.passed = self.passed.and_not(&pages);
        kinds
    }

    fn kinds_of(&self, pages: Bitmap512) -> Kinds {
        let passing = (pages & self.passed).count();
        Kinds { passing: passing as u64, kept: (pages.count() - passing) as u64 }
    }

    /// How soon after it went `page` is asked for, in term `now`.
    pub fn since_gone(&mut self, page: PageIndex, now: u64) -> Back {
        self.catch_up(now);
        if self.went.iter().any(|went| went.get(page)) { Back::Soon } else { Back::Late }
    }

    /// `page`, moved out before, is back, and was installed.
    pub fn come_back(&mut self, page: PageIndex, back: Back) {
        self.went.iter_mut().for_each(|went| went.clear(page));
        let rank = number(&self.rank, page);
        let rank = if back.is_soon() { (rank + 1).min(TOP) } else { rank.saturating_sub(1) };
        assign(&mut self.rank, page, rank);
        assign(&mut self.left, page, PASSES[rank as usize]);
    }

    fn catch_up(&mut self, now: u64) {
        match now.saturating_sub(self.term) {
            0 => return,
            1 => self.went = [Bitmap512::EMPTY, self.went[0]],
            _ => self.went = [Bitmap512::EMPTY; 2],
        }
        self.term = now;
    }

    /// The hand passes over `pages`.
    fn pass(&mut self, pages: Bitmap512) {
        // One less in each four-bit counter that is not 0: the borrow runs up through the zeros.
        let mut borrow = self.hot() & pages;
        for bit in &mut self.left {
            let was = *bit;
            *bit = was ^ borrow;
            borrow = borrow.and_not(&was);
        }
    }

    /// Makes `pages` cold.
    pub fn forget(&mut self, pages: Bitmap512) {
        self.young = self.young.and_not(&pages);
        for bit in self
            .left
            .iter_mut()
            .chain(&mut self.rank)
            .chain(&mut self.went)
            .chain([&mut self.passing, &mut self.passed])
        {
            *bit = bit.and_not(&pages);
        }
    }
}

fn number(bits: &[Bitmap512], page: PageIndex) -> u8 {
    bits.iter().rev().fold(0, |number, bit| number << 1 | u8::from(bit.get(page)))
}

fn assign(bits: &mut [Bitmap512], page: PageIndex, number: u8) {
    for (i, bit) in bits.iter_mut().enumerate() {
        bit.assign(page, number >> i & 1 != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Back, Heat, PASSES, Terms};
    use crate::bitmap::Bitmap512;
    use crate::insertion::Kinds;
    use crate::units::PageIndex;

    fn passes(mut heat: Heat, page: PageIndex) -> u8 {
        let mut passes = 0;
        while heat.hot().get(page) {
            heat.pass(Bitmap512::FULL);
            passes += 1;
        }
        heat.pass(Bitmap512::FULL);
        assert!(heat.hot().is_empty(), "never below zero");
        passes
    }

    #[test]
    fn each_quick_return_makes_a_page_stay_longer_and_each_late_one_shorter() {
        let page = PageIndex::of_addr(9 << 12);
        let mut heat = Heat::COLD;
        for (back, rank) in [
            (Back::Late, 0),
            (Back::Soon, 1),
            (Back::Soon, 2),
            (Back::Soon, 3),
            (Back::Soon, 3),
            (Back::Late, 2),
            (Back::Late, 1),
            (Back::Late, 0),
            (Back::Late, 0),
        ] {
            heat.come_back(page, back);
            assert_eq!(passes(heat, page), PASSES[rank], "{back:?}");
        }
    }

    #[test]
    fn soon_is_the_term_in_which_a_page_went_or_the_next() {
        let page = PageIndex::of_addr(7 << 12);
        for (later, soon) in [(0, Back::Soon), (1, Back::Soon), (2, Back::Late), (9, Back::Late)] {
            let mut heat = Heat::COLD;
            heat.go(Bitmap512::single(page), 5);
            let back = heat.since_gone(page, 5 + later);
            assert_eq!(back, soon, "{later} terms later");
            heat.come_back(page, back);
            assert_eq!(heat.since_gone(page, 5 + later), Back::Late, "it has gone only once");
        }
    }

    #[test]
    fn a_term_lasts_a_third_of_what_is_in_memory() {
        let terms = Terms::default();
        terms.advance(100, 300);
        assert_eq!(terms.now(), 0);
        terms.advance(101, 300);
        terms.advance(201, 300);
        assert_eq!(terms.now(), 1);
    }

    #[test]
    fn a_page_that_was_just_installed_is_spared_once() {
        let mut heat = Heat::COLD;
        let pages = Bitmap512::from_range(PageIndex::of_addr(0), 3);
        heat.install(Bitmap512::single(PageIndex::of_addr(1 << 12)));
        assert_eq!(heat.inherited().choose(pages, &Bitmap512::FULL, 512), pages, "a copy has no young pages");
        assert_eq!(heat.choose(pages, &Bitmap512::FULL, 512).count(), 2);
        assert_eq!(heat.choose(pages, &Bitmap512::FULL, 2), Bitmap512::from_range(PageIndex::of_addr(0), 2));
        assert_eq!(heat.choose(pages, &Bitmap512::FULL, 512), pages);
    }

    #[test]
    fn a_page_alone_is_hot_and_is_forgotten_whole() {
        let page = PageIndex::of_addr(511 << 12);
        let mut heat = Heat::COLD;
        heat.come_back(page, Back::Soon);
        assert_eq!(heat.hot().count(), 1);
        heat.pass(Bitmap512::FULL.and_not(&heat.hot()));
        assert_eq!(passes(heat, page), PASSES[1]);
        heat.forget(heat.hot());
        heat.come_back(page, Back::Soon);
        assert_eq!(passes(heat, page), PASSES[1]);
    }

    #[test]
    fn a_page_passes_by_until_it_goes_or_is_installed_anew_and_is_known_when_it_comes_back() {
        let mut heat = Heat::COLD;
        let pages = |from: u64, count| Bitmap512::from_range(PageIndex::of_addr(from << 12), count);
        heat.install(pages(0, 8));
        heat.pass_by(pages(4, 4));
        // Not young, so the hand does not spare them either.
        assert_eq!(heat.inherited().passing(), Bitmap512::EMPTY);
        assert_eq!(Heat { ..heat }.choose(pages(0, 8), &Bitmap512::FULL, 512), pages(4, 4));
        heat.install(pages(7, 1));
        assert_eq!(heat.passing(), pages(4, 3));
        assert_eq!(heat.go(pages(0, 6), 5), Kinds { passing: 2, kept: 4 });
        assert_eq!(heat.passing(), pages(6, 1));
        let nothing = Kinds::default();
        assert_eq!(heat.returned(pages(3, 2), 6), (Kinds { passing: 1, kept: 1 }, nothing));
        assert_eq!(heat.returned(pages(5, 1), 9), (nothing, Kinds { passing: 1, kept: 0 }));
        // Installed as any other, it goes as one.
        heat.install(pages(4, 2));
        assert_eq!(heat.go(pages(4, 2), 9), Kinds { passing: 0, kept: 2 });
        heat.forget(Bitmap512::FULL);
        assert!(heat.passing().is_empty());
    }
}
