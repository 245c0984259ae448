//! Staging windows of an address space: 2 MiB each, one block's pages at a time.
//!
//! A window is free, in flight (pages may or may not have moved yet), staged (pages lie in it), or in the hands of a
//! thread that writes it down. Staged windows leave in the order they came: what is not asked for until its turn is
//! cold.

use crate::block::{BLOCK_BYTES, Block};
use crate::link::{Discard, Eviction};
use crate::sharing::Parting;
use crate::space::StagingArea;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// An eviction whose outcome is not known yet.
#[derive(Debug)]
pub(crate) struct Flight {
    /// The window.
    pub window: usize,
    /// The block whose pages fly.
    pub block: Arc<Block>,
    /// The command.
    pub eviction: Eviction,
    /// What is known of those that were shared.
    pub parting: Option<Parting>,
    /// Nobody needed the room.
    pub ahead: bool,
}

/// A window in which pages lie.
#[derive(Debug)]
pub(crate) struct Staged {
    /// The window.
    pub window: usize,
    /// The block whose pages lie there.
    pub block: Arc<Block>,
    /// How many did at first.
    pub pages: u64,
    /// Since when they have, by the pager's clock.
    pub since: Duration,
    /// What is known of those that were shared.
    pub parting: Option<Parting>,
}

/// The windows of one address space.
#[derive(Debug)]
pub(crate) struct Windows {
    base: u64,
    free: Vec<usize>,
    /// Of each window, the discard after which nothing is in it any more of what was last.
    emptied: Vec<Discard>,
    staged: VecDeque<Staged>,
    unanswered: VecDeque<Flight>,
    /// Windows that no page lies in any more and whose discard could not be posted yet.
    undiscarded: Vec<usize>,
    flying: usize,
    count: usize,
}

impl Windows {
    /// All free.
    pub fn new(area: StagingArea) -> Windows {
        let count = area.windows as usize;
        Windows {
            base: area.base,
            free: (0..count).rev().collect(),
            emptied: vec![Discard::Done; count],
            staged: VecDeque::with_capacity(count),
            unanswered: VecDeque::with_capacity(count),
            undiscarded: Vec::with_capacity(count),
            flying: 0,
            count,
        }
    }

    /// Address of a window.
    pub fn address(&self, window: usize) -> u64 {
        self.base + window as u64 * BLOCK_BYTES
    }

    /// Takes a free window for an eviction.
    pub fn take_free(&mut self) -> Option<usize> {
        let window = self.free.pop()?;
        self.flying += 1;
        Some(window)
    }

    /// The eviction for which a window was taken moved nothing.
    pub fn give_up(&mut self, window: usize) {
        self.flying -= 1;
        self.free.push(window);
    }

    /// Puts down an eviction that has not been answered yet.
    pub fn put_flight(&mut self, flight: Flight) {
        self.unanswered.push_back(flight);
    }

    /// Takes the oldest unanswered eviction.
    pub fn take_flight(&mut self) -> Option<Flight> {
        self.unanswered.pop_front()
    }

    /// An eviction has happened: its pages lie in the window.
    pub fn put_staged(&mut self, staged: Staged) {
        self.flying -= 1;
        self.staged.push_back(staged);
    }

    /// Since when the window has been staged that is next to be written down.
    pub fn staged_since(&self) -> Option<Duration> {
        self.staged.front().map(|staged| staged.since)
    }

    /// Takes the window that has been staged longest, to write it down.
    pub fn take_staged(&mut self) -> Option<Staged> {
        self.staged.pop_front()
    }

    /// A window that was taken to be written down could not be.
    pub fn put_back(&mut self, staged: Staged) {
        self.staged.push_front(staged);
    }

    /// An eviction has happened and left nothing that is wanted in its window.
    pub fn landed_empty(&mut self) {
        self.flying -= 1;
    }

    /// The discard of a window has been posted: evictions posted later come after it. What is in the window until it is done
    /// ([`Windows::is_empty_yet`]) is nothing of theirs.
    pub fn recycle(&mut self, window: usize, discard: Discard) {
        self.emptied[window] = discard;
        self.free.push(window);
    }

    /// Whether nothing has come yet into a window that was taken, since what was in it before has not gone; `has_emptied` tells.
    pub fn is_empty_yet(&self, window: usize, has_emptied: impl FnOnce(Discard) -> bool) -> bool {
        !has_emptied(self.emptied[window])
    }

    /// The discard of a window could not be posted.
    pub fn put_undiscarded(&mut self, window: usize) {
        self.undiscarded.push(window);
    }

    /// Takes a window whose discard is to be posted.
    pub fn take_undiscarded(&mut self) -> Option<usize> {
        self.undiscarded.pop()
    }

    /// Evictions that may still move pages.
    pub fn flying(&self) -> usize {
        self.flying
    }

    /// Evictions that were not answered in time.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Whether some window is free.
    pub fn any_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether every window is free.
    pub fn all_free(&self) -> bool {
        self.free.len() == self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswap_core::GroupId;
    use vswap_engine::{Engine, EngineConfig};

    #[test]
    fn a_window_whose_discard_could_not_be_posted_is_not_free() {
        let mut windows = Windows::new(StagingArea { base: BLOCK_BYTES, windows: 1 });
        let window = windows.take_free().unwrap();
        windows.landed_empty();
        windows.put_undiscarded(window);
        assert_eq!((windows.flying(), windows.take_free(), windows.all_free()), (0, None, false));
        assert_eq!(windows.take_undiscarded(), Some(window));
        assert!(!windows.all_free(), "whoever took it has yet to post the discard");
        windows.recycle(window, Discard::Done);
        assert!(windows.all_free());
    }

    #[test]
    fn staged_windows_leave_in_the_order_they_came_and_one_put_back_is_next() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let block = Arc::new(Block::new(0, engine.owner_block(GroupId::ROOT).unwrap()));
        let mut windows = Windows::new(StagingArea { base: 0, windows: 3 });
        for pages in 1..4 {
            let window = windows.take_free().unwrap();
            let (block, since) = (Arc::clone(&block), Duration::from_secs(pages));
            windows.put_staged(Staged { window, block, pages, since, parting: None });
        }
        assert_eq!(windows.take_free(), None);
        let first = windows.take_staged().unwrap();
        assert_eq!(first.pages, 1);
        windows.put_back(first);
        assert_eq!(windows.staged_since(), Some(Duration::from_secs(1)));
        let order: Vec<u64> = std::iter::from_fn(|| windows.take_staged()).map(|s| s.pages).collect();
        assert_eq!(order, [1, 2, 3]);
        let owner = block.state.lock().owner.take();
        owner.unwrap().dispose(&engine);
    }
}
