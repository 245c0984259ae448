//! Pages that do not compress: in the pool each takes the room of a whole page and saves none, so they are the first to go below it.
//!
//! Such a page has to lie in the pool until a segment can be written with it; here its slot is noted, so that the writer finds it
//! without a look at any other. A note is a hint: whoever takes it looks whether the slot still holds such a page. What is not
//! noted because there are too many already is found by the clock hand like any other page.

use parking_lot::Mutex;
use std::collections::VecDeque;
use vswap_core::SlotId;

/// The most that are noted: 16 MiB of pages.
const MOST: usize = 4096;

/// Slots that were stored raw, in the order in which they were. The lock is taken for one step and nothing else is taken under it.
#[derive(Debug, Default)]
pub(crate) struct RawSlots(Mutex<VecDeque<SlotId>>);

impl RawSlots {
    /// Notes a slot that was stored raw.
    pub(crate) fn note(&self, slot: SlotId) {
        let mut slots = self.0.lock();
        if slots.len() < MOST {
            slots.push_back(slot);
        }
    }

    /// The slot that was noted first.
    pub(crate) fn take(&self) -> Option<SlotId> {
        self.0.lock().pop_front()
    }

    /// Puts back what was taken and found no room.
    pub(crate) fn put_back(&self, slot: SlotId) {
        self.0.lock().push_front(slot);
    }
}
