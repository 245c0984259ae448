//! Installing a run of pages: what the kernel takes of it, and that the page asked for comes whatever is beside it.
//!
//! Whoever installs holds the space's gate (read) throughout, so that no event is applied in between.

use crate::block::PAGE_BYTES;
use crate::space::libc_errno;
use std::ops::Range;
use vswap_core::{Bitmap512, PageIndex};

/// What one `UFFDIO_COPY` or `UFFDIO_ZEROPAGE` made of a run of pages.
pub struct Installed {
    /// Pages installed (or found there).
    pub done: usize,
    /// The page after them was there already: counted in `done`, but it is not ours.
    pub found: bool,
    /// Why the rest was not installed; 0 if there is none.
    pub errno: i32,
}

pub fn installed(result: Result<(), (u64, std::io::Error)>, pages: usize) -> Installed {
    match result {
        Ok(()) => Installed { done: pages, found: false, errno: 0 },
        Err((bytes, error)) => {
            let errno = error.raw_os_error().unwrap_or(0);
            let found = errno == libc_errno::EEXIST;
            let done = (bytes / PAGE_BYTES) as usize + usize::from(found);
            Installed { done: done.min(pages), found, errno }
        }
    }
}

impl Installed {
    /// Nothing came, because an event is under way.
    pub fn is_refused(&self) -> bool {
        self.done == 0 && self.errno == libc_errno::EAGAIN
    }
}

/// What became of a run of pages.
#[derive(Default)]
pub struct Came {
    /// Installed, or found there.
    pub pages: Bitmap512,
    /// Of these, found there: they are not ours.
    pub found: Bitmap512,
    /// Why the last one was not installed that was tried in vain; 0 if there is none.
    errno: i32,
}

impl Came {
    fn add(&mut self, start: PageIndex, done: &Installed) {
        self.pages |= Bitmap512::from_range(start, done.done);
        self.errno = if done.found { 0 } else { done.errno };
        if done.found
            && let Some(found) = PageIndex::new(start.get() + done.done - 1)
        {
            self.found.set(found);
        }
    }

    /// Whether the page is not there because an event must be read first.
    pub fn must_ask_again(&self, page: PageIndex) -> bool {
        !self.pages.get(page) && self.errno == libc_errno::EAGAIN
    }
}

/// Installs those pages of `run` that are `fit`, part by part, up to the first from `asked` on that cannot be.
pub fn install_run(
    run: Range<usize>,
    asked: PageIndex,
    fit: impl Fn(usize) -> bool,
    mut install: impl FnMut(PageIndex, usize) -> Installed,
) -> Came {
    let mut came = Came::default();
    let mut at = run.start;
    while let Some(start) = PageIndex::new(at).filter(|_| at < run.end) {
        let count = (at..run.end).take_while(|&at| fit(at)).count();
        if count == 0 {
            at += 1;
            continue;
        }
        let done = in_one_mapping(count, |count| install(start, count));
        came.add(start, &done);
        at += done.done;
        // If only a part came, what stopped it is seen at the next page.
        if done.done == 0 {
            if at >= asked.get() || done.errno == libc_errno::EAGAIN {
                break;
            }
            // It lies in a mapping that is not managed any more, and is nobody's concern here.
            at = asked.get();
        }
    }
    came
}

/// Installs a run of `count` pages, or the part of it that lies in the first page's mapping: the kernel refuses a run
/// that crosses into another one (`ENOENT`).
fn in_one_mapping(mut count: usize, mut install: impl FnMut(usize) -> Installed) -> Installed {
    loop {
        let done = install(count);
        if done.done > 0 || done.errno != libc_errno::ENOENT || count == 1 {
            return done;
        }
        count /= 2;
    }
}

/// Installs the page asked for and those of `run`, which begins or ends with it, that lie in its mapping: what lies beyond may be
/// memory that the program does not use at all.
pub fn install_beside(
    run: Range<usize>,
    asked: PageIndex,
    mut install: impl FnMut(PageIndex, usize) -> Installed,
) -> Came {
    let mut came = Came::default();
    let at = asked.get();
    if run.start == at {
        came.add(asked, &in_one_mapping(run.len(), |count| install(asked, count)));
        return came;
    }
    let mut below = at - run.start;
    while let Some(start) = PageIndex::new(at - below) {
        let done = install(start, below + 1);
        came.add(start, &done);
        if below == 0 || done.done > 0 || done.errno != libc_errno::ENOENT {
            break;
        }
        below /= 2;
    }
    if !came.pages.get(asked) && came.errno != libc_errno::ENOENT {
        // A page below it was there already, or an event came in between.
        came.add(asked, &install(asked, 1));
    }
    came
}

#[cfg(test)]
mod tests {
    use super::{Came, Installed, install_beside, install_run, installed, libc_errno};
    use std::io::Error;
    use std::ops::Range;
    use vswap_core::{Bitmap512, PAGE_SIZE, PageIndex};

    /// Mappings of 16 pages, as the kernel sees them when it installs.
    struct Mappings {
        /// The mapping that each page is in; 0 if in none.
        of: [u8; 16],
        there: Bitmap512,
    }

    impl Mappings {
        fn new(parts: &[(Range<usize>, u8)], there: &[usize]) -> Mappings {
            let mut mappings = Mappings { of: [0; 16], there: Bitmap512::EMPTY };
            for (part, number) in parts {
                mappings.of[part.clone()].fill(*number);
            }
            there.iter().for_each(|at| mappings.there.set(page(*at)));
            mappings
        }

        /// As `mfill_atomic` in the kernel's `mm/userfaultfd.c`: all in one mapping, or nothing; up to the first page that is there.
        fn install(&mut self, start: PageIndex, count: usize) -> Installed {
            let run = start.get()..start.get() + count;
            let one =
                self.of[run.start] != 0 && self.of[run.clone()].iter().all(|of| *of == self.of[run.start]);
            let new = run.clone().take_while(|at| !self.there.get(page(*at))).count();
            let errno = match () {
                () if !one => libc_errno::ENOENT,
                () if new == 0 => libc_errno::EEXIST,
                () => libc_errno::EAGAIN,
            };
            let new = if one { new } else { 0 };
            self.there |= Bitmap512::from_range(start, new);
            let result = match new == count {
                true => Ok(()),
                false => Err(((new * PAGE_SIZE) as u64, Error::from_raw_os_error(errno))),
            };
            installed(result, count)
        }

        fn beside(&mut self, run: Range<usize>, asked: usize) -> Came {
            install_beside(run, page(asked), |start, count| self.install(start, count))
        }

        fn run(&mut self, run: Range<usize>, asked: usize) -> Came {
            install_run(run, page(asked), |_| true, |start, count| self.install(start, count))
        }
    }

    fn page(at: usize) -> PageIndex {
        PageIndex::new(at).unwrap()
    }

    fn pages(range: Range<usize>) -> Bitmap512 {
        Bitmap512::from_range(page(range.start), range.len())
    }

    /// A reservation that is not readable lies behind what is in use: it was filled with zeroes, and charged.
    #[test]
    fn zeroes_ahead_stay_in_the_mapping_of_the_page_asked_for() {
        let two = [(0..8, 1), (8..16, 2)];
        let up = Mappings::new(&two, &[]).beside(5..12, 5).pages;
        let down = Mappings::new(&two, &[]).beside(3..11, 10).pages;
        assert!(up.get(page(5)) && up.and_not(&pages(0..8)).is_empty(), "{up:?}");
        assert!(down.get(page(10)) && down.and_not(&pages(8..16)).is_empty(), "{down:?}");
        assert_eq!(Mappings::new(&two, &[]).beside(9..16, 9).pages, pages(9..16));
        assert_eq!(Mappings::new(&two, &[]).beside(0..8, 7).pages, pages(0..8));
    }

    #[test]
    fn what_was_read_ahead_is_installed_in_all_its_mappings() {
        let two = [(0..8, 1), (8..16, 2)];
        assert_eq!(Mappings::new(&two, &[]).run(3..11, 10).pages, pages(3..11));
        assert_eq!(Mappings::new(&two, &[]).run(3..11, 3).pages, pages(3..11));
    }

    #[test]
    fn the_page_asked_for_comes_whatever_is_the_matter_with_those_beside_it() {
        for bits in 0..1u32 << 10 {
            // Each page below it in one of two mappings or in none, or there already.
            let mut parts = vec![(10..12, 2)];
            let mut there = Vec::new();
            for at in 0..5 {
                match bits >> (2 * at) & 3 {
                    3 => {
                        parts.push((2 * at..2 * at + 2, 2));
                        there.push(2 * at);
                    }
                    of => parts.push((2 * at..2 * at + 2, of as u8)),
                }
            }
            for (start, asked) in [(0, 11), (0, 10), (10, 10)] {
                let run = start..if start < asked { asked + 1 } else { 12 };
                for came in [
                    Mappings::new(&parts, &there).run(run.clone(), asked),
                    Mappings::new(&parts, &there).beside(run.clone(), asked),
                ] {
                    assert!(came.pages.get(page(asked)), "{parts:?} {there:?} {run:?}");
                    assert!(came.pages.and_not(&pages(run.clone())).is_empty());
                    assert!(came.found.iter().all(|page| there.contains(&page.get())));
                    assert!(came.found.and_not(&came.pages).is_empty());
                }
            }
        }
    }

    #[test]
    fn an_event_that_comes_first_is_told() {
        let again = |_: PageIndex, _: usize| Installed { done: 0, found: false, errno: libc_errno::EAGAIN };
        assert!(install_beside(3..8, page(7), again).must_ask_again(page(7)));
        assert!(install_run(3..8, page(7), |_| true, again).must_ask_again(page(7)));
        assert!(!Mappings::new(&[], &[]).run(3..8, 7).must_ask_again(page(7)));
    }
}
