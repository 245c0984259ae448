//! Pages that are lost to their owners: told in the log, and the last few remembered for whoever asks.

use crate::pager::Shared;
use crate::space::Space;
use parking_lot::Mutex;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use vswap_core::Last;
use vswap_engine::{Lost, Reason};
use vswap_sys::process;

/// Lost pages that are remembered.
const REMEMBERED: usize = 16;

/// A page that is unreadable from now on: its reader gets SIGBUS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostPage {
    /// The process whose it is.
    pub pid: i32,
    /// Its address there.
    pub address: u64,
    /// Where its bytes were, and why they cannot be had.
    pub lost: Lost,
    /// When that was found.
    pub at: Instant,
}

impl fmt::Display for LostPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}, address {:#x}, {}", self.pid, self.address, self.lost)
    }
}

/// The last lost pages. A leaf of the locks.
#[derive(Debug, Default)]
pub(crate) struct Losses(Mutex<Last<LostPage, REMEMBERED>>);

impl Losses {
    fn remember(&self, page: LostPage) {
        self.0.lock().push(page);
    }

    /// What was known before of a page that turns out to be nowhere: an `mremap` could not take it along.
    fn expected(&self, pid: i32, address: u64) -> Option<LostPage> {
        let losses = self.0.lock();
        losses.newest_first().find(|page| page.pid == pid && page.address == address).cloned()
    }

    /// The newest first.
    pub(crate) fn newest_first(&self) -> Vec<LostPage> {
        self.0.lock().newest_first().cloned().collect()
    }
}

impl Shared {
    /// The page at `address` has been made unreadable. To be told before whoever waits for it is woken: that may be the last thing it does.
    /// Allocates, as it has a line written to the log, but the place in which the page is remembered is there.
    pub(crate) fn is_lost(&self, space: &Space, address: u64, lost: Lost) {
        self.counters.poisoned.fetch_add(1, Relaxed);
        let page = LostPage { pid: process_of(space), address, lost, at: Instant::now() };
        let nowhere = page.lost.reason == Reason::Nowhere;
        let known = if nowhere { self.losses.expected(page.pid, address) } else { None };
        tracing::error!("page lost, its reader gets SIGBUS: {}", known.as_ref().unwrap_or(&page));
        if known.is_none() {
            self.losses.remember(page);
        }
    }

    /// The page that an `mremap` moves to `address` is lost. Its first reader there will find it nowhere.
    pub(crate) fn will_be_lost(&self, space: &Space, address: u64, lost: Lost) {
        let page = LostPage { pid: process_of(space), address, lost, at: Instant::now() };
        tracing::error!("page lost in an mremap, its reader gets SIGBUS: {page}");
        self.losses.remember(page);
    }
}

/// The process of a space, which is known by the number of one of its threads.
fn process_of(space: &Space) -> i32 {
    let thread = space.pid();
    process::status(thread).map_or(thread, |status| status.process)
}

#[cfg(test)]
mod tests {
    use super::{Losses, LostPage, REMEMBERED};
    use std::time::Instant;
    use vswap_engine::{Lost, Reason};

    fn page(address: u64, reason: Reason) -> LostPage {
        LostPage { pid: 7, address, lost: Lost::from(reason), at: Instant::now() }
    }

    #[test]
    fn the_last_few_are_remembered_newest_first() {
        let losses = Losses::default();
        assert!(losses.newest_first().is_empty());
        for number in 0..REMEMBERED as u64 + 5 {
            losses.remember(page(number << 12, Reason::Forgotten));
        }
        let addresses: Vec<u64> = losses.newest_first().iter().map(|page| page.address >> 12).collect();
        assert_eq!(addresses, (5..REMEMBERED as u64 + 5).rev().collect::<Vec<_>>());
    }

    #[test]
    fn what_an_mremap_lost_is_known_at_its_new_address_in_its_own_process() {
        let losses = Losses::default();
        losses.remember(page(0x5000, Reason::LeftBehind));
        let reason = |pid, address| losses.expected(pid, address).map(|page| page.lost.reason);
        assert_eq!(reason(7, 0x5000), Some(Reason::LeftBehind));
        assert_eq!((reason(8, 0x5000), reason(7, 0x6000)), (None, None));
    }

    #[test]
    fn a_line_of_the_log_names_process_and_address() {
        let line = page(0x7f12_3456_7000, Reason::Undecodable).to_string();
        assert_eq!(line, "process 7, address 0x7f1234567000, on no tier: does not decompress");
    }
}
