//! Bringing pages in that nobody has touched: words that the kernel will write, and all of a program whose fork cannot be followed.

use crate::block::{BlockState, PAGE_BYTES};
use crate::fault::{Fault, Hands, Outcome};
use crate::pager::Shared;
use crate::space::Space;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use vswap_core::{Bitmap512, PageIndex};
use vswap_sys::procvm;

/// How long a page may wait for room, or for whoever brings it in already.
const COMES_WITHIN: Duration = Duration::from_secs(5);

/// Pages of a block whose bytes are in their slots only.
fn out(state: &BlockState) -> Bitmap512 {
    state.mapped & state.backed.and_not(&state.resident)
}

impl Space {
    /// Makes the pages of `address..address + len` present, as far as they can be read.
    pub fn bring_in(&self, address: u64, len: u64) {
        let start = address & !(PAGE_BYTES - 1);
        for page in (start..address + len.max(1)).step_by(PAGE_BYTES as usize) {
            // A read from outside raises the fault that a handler resolves. A program that has made itself undumpable, or that is
            // in a user namespace of its own, is nobody's to read.
            if procvm::read(self.pid(), page, &mut [0u8; 1]).is_err() {
                self.shared.bring(self, &mut Hands::new(&self.shared, false), page);
            }
        }
    }

    /// Makes all that is out present, for a fork that cannot be followed: what is not in the page table then reads as zero in the
    /// child. `false` if something is still elsewhere. Call with a hold.
    pub fn bring_in_all(&self) -> bool {
        let mut pages = Vec::new();
        self.for_blocks(&(0..u64::MAX), |block, _| {
            let out = out(&block.state.lock());
            pages.extend(out.iter().map(|page| block.address(page)));
        });
        let mut hands = Hands::new(&self.shared, false);
        if !pages.into_iter().all(|page| self.shared.bring(self, &mut hands, page)) {
            return false;
        }
        let mut all = true;
        self.for_blocks(&(0..u64::MAX), |block, _| {
            let state = block.state.lock();
            all &= (out(&state) | state.staged | state.flight).is_empty();
        });
        all
    }
}

impl Shared {
    /// Makes a page present as a fault at it would, without one. `false` if it does not come.
    fn bring(&self, space: &Space, hands: &mut Hands, address: u64) -> bool {
        let since = Instant::now();
        let fault = Fault {
            address,
            write: false,
            protected: false,
            by_stub: false,
            ahead: false,
            to_stay: true,
            waited: false,
            since,
        };
        // Who waits for room is counted: with nothing left to move out, the limit's policy decides.
        let mut parked = false;
        let came = loop {
            let outcome = self.resolve(space, hands, fault);
            hands.pay(space);
            self.budget.call_if_short();
            match outcome {
                // Somebody else may be at it.
                Outcome::Done if !is_out(space, address) => break true,
                _ if space.is_dead() || since.elapsed() > COMES_WITHIN => break false,
                Outcome::NoRoom if !parked => {
                    parked = true;
                    self.parked.fetch_add(1, Relaxed);
                }
                Outcome::Again => space.drain(),
                Outcome::Done | Outcome::NoRoom => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        if parked {
            self.parked.fetch_sub(1, Relaxed);
        }
        came
    }
}

fn is_out(space: &Space, address: u64) -> bool {
    let page = PageIndex::of_addr(address);
    space.block(address).is_some_and(|block| out(&block.state.lock()).get(page))
}
