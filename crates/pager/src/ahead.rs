//! Reading ahead on another CPU.
//!
//! A program that reads on, page after page, waits for one run of pages after the other to be decompressed, on one CPU. While a
//! handler brings in the run that the program waits for, a thread of its own brings in the next one, as long as there is
//! room for both. (The kernel's readahead overlaps reads of a device in the same way, `mm/readahead.c`; decompression of what
//! is in memory it does not overlap.)

use crate::block::{BLOCK_BYTES, PAGE_BYTES};
use crate::fault::{Fault, Hands};
use crate::pager::Shared;
use crate::space::Space;
use crate::swap_in::{READAHEAD_MAX, out_of};
use parking_lot::{Condvar, Mutex};
use std::ops::Range;
use std::time::Instant;
use vswap_core::PageIndex;
use vswap_core::trail::Reach;

/// Where to go on.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Number of the space.
    space: u64,
    address: u64,
    /// Towards lower pages.
    down: bool,
    /// The program writes what it reads.
    write: bool,
}

impl Place {
    /// The beginning of the block behind, if as much as is read from here ends there.
    fn in_next_block(self) -> Option<Place> {
        let (at, base) = (self.address % BLOCK_BYTES, self.address - self.address % BLOCK_BYTES);
        let most = READAHEAD_MAX as u64 * PAGE_BYTES;
        let address = match self.down {
            true if at + PAGE_BYTES <= most => base.checked_sub(PAGE_BYTES)?,
            false if at + most >= BLOCK_BYTES => base + BLOCK_BYTES,
            _ => return None,
        };
        Some(Place { address, ..self })
    }
}

/// What the reader ahead is to do next; what is asked for last counts.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    next: Mutex<Option<Place>>,
    asked: Condvar,
}

impl Ahead {
    /// Has the reader ahead look whether the pager is stopping.
    pub fn wake(&self) {
        let _next = self.next.lock();
        self.asked.notify_one();
    }
}

impl Shared {
    /// A fault in the block at `base`, of a program that reads on, brings `run`: has the run behind it brought in meanwhile. No lock is
    /// held: whoever is woken may take this CPU.
    pub(crate) fn ask_ahead(&self, space: &Space, base: u64, run: &Range<usize>, down: bool, write: bool) {
        let page = |at: usize| base + at as u64 * PAGE_BYTES;
        let address = if down { page(run.start).checked_sub(PAGE_BYTES) } else { Some(page(run.end)) };
        if let Some(address) = address.filter(|_| self.cpus.len() > 1)
            // Somebody else is asking, or it is just being taken up: not worth a wait.
            && let Some(mut next) = self.ahead.next.try_lock()
        {
            *next = Some(Place { space: space.id, address, down, write });
            drop(next);
            self.ahead.asked.notify_one();
        }
    }

    /// The life of the reader ahead.
    pub(crate) fn reader_ahead(&self) {
        let mut hands = None;
        loop {
            let mut next = self.ahead.next.lock();
            let place = loop {
                if self.stopping() {
                    return;
                }
                match next.take() {
                    Some(place) => break place,
                    None => self.ahead.asked.wait(&mut next),
                }
            };
            drop(next);
            if let Some(space) = self.space(place.space) {
                let hands = hands.get_or_insert_with(|| Hands::new(self, false));
                self.read_ahead(&space, hands, place);
                // Who comes to the end of a block would be alone in the next one.
                if let Some(place) = place.in_next_block() {
                    self.read_ahead(&space, hands, place);
                }
            }
        }
    }

    fn read_ahead(&self, space: &Space, hands: &mut Hands, place: Place) {
        let Some(block) = space.block(place.address) else { return };
        let page = PageIndex::of_addr(place.address);
        let gate = space.gate.read();
        if space.is_frozen() || self.modest(READAHEAD_MAX) < READAHEAD_MAX {
            return;
        }
        let state = block.state.lock();
        if !out_of(&state).get(page) {
            return;
        }
        drop(gate);
        let fault = Fault {
            address: block.address(page),
            write: place.write,
            protected: false,
            by_stub: false,
            waited: false,
            ahead: true,
            to_stay: false,
            since: Instant::now(),
        };
        let reach = Reach { most: READAHEAD_MAX, down: place.down };
        self.bring_run(space, &block, state, (page, reach), hands, fault);
        hands.pay(space);
        self.budget.call_if_short();
    }
}
