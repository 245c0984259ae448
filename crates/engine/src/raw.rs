//! Pages that do not compress: in the pool each takes the room of a whole page and saves none, so they are the first to go below it.
//!
//! Such a page has to lie in the pool until a segment can be written with it; here its slot is noted, so that the writer finds it
//! without a look at any other. A note is a hint: whoever takes it looks whether the slot still holds such a page. Where there are too many,
//! the oldest is dropped, and as many pages are left to the clock hand, by age like any other: else the pages without a note would stay for ever.
//!
//! A slot that is stored anew is noted anew, and its former note is void: else the pages that are written most often would be the first to go.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use vswap_core::SlotId;

/// The most notes at a time, void ones included: 16 MiB of pages.
const MOST: usize = 4096;

/// Slots that were stored raw, in the order in which they were last. The lock is taken for one step and nothing else is taken under it.
#[derive(Debug, Default)]
pub(crate) struct RawSlots(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    all: VecDeque<(SlotId, u64)>,
    /// The number of each slot's note that is not void.
    valid: HashMap<SlotId, u64>,
    next: u64,
    /// Valid ones that were dropped, and not made up for yet.
    dropped: usize,
}

impl Notes {
    fn drop_void(&mut self) {
        while self.all.front().is_some_and(|(slot, number)| self.valid.get(slot) != Some(number)) {
            self.all.pop_front();
        }
    }
}

impl RawSlots {
    /// Notes a slot that was stored raw.
    pub(crate) fn note(&self, slot: SlotId) {
        let mut notes = self.0.lock();
        let number = notes.next;
        notes.next += 1;
        if notes.all.len() >= MOST {
            notes.valid.remove(&slot);
            notes.drop_void();
        }
        if notes.all.len() >= MOST
            && let Some((oldest, _)) = notes.all.pop_front()
        {
            notes.valid.remove(&oldest);
            notes.dropped += 1;
        }
        notes.all.push_back((slot, number));
        notes.valid.insert(slot, number);
    }

    /// Whether up to `pages` are to be left to the clock hand now, because notes were dropped.
    pub(crate) fn is_the_hands_turn(&self, pages: usize) -> bool {
        let mut notes = self.0.lock();
        let turn = notes.dropped > 0;
        notes.dropped = notes.dropped.saturating_sub(pages);
        turn
    }

    /// The slot that was noted first.
    pub(crate) fn take(&self) -> Option<SlotId> {
        let mut notes = self.0.lock();
        notes.drop_void();
        let (slot, _) = notes.all.pop_front()?;
        notes.valid.remove(&slot);
        Some(slot)
    }

    /// Puts back what was taken and found no room, unless it has been noted anew.
    pub(crate) fn put_back(&self, slot: SlotId) {
        let mut notes = self.0.lock();
        let number = notes.next;
        notes.next += 1;
        if let std::collections::hash_map::Entry::Vacant(vacant) = notes.valid.entry(slot) {
            vacant.insert(number);
            notes.all.push_front((slot, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswap_core::{ClusterId, PageIndex};

    fn slot(at: usize) -> SlotId {
        ClusterId::new((at / 512) as u32).slot(PageIndex::new(at % 512).unwrap())
    }

    /// Its first note counted: what is written most often went first.
    #[test]
    fn a_slot_that_is_stored_anew_goes_as_early_as_if_it_were_not() {
        let slots = RawSlots::default();
        [1, 2, 3, 1, 2].map(slot).into_iter().for_each(|slot| slots.note(slot));
        let first = slots.take().unwrap();
        assert_eq!(first, slot(3));
        slots.put_back(first);
        let all: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(all, [3, 1, 2].map(slot));
    }

    #[test]
    fn what_is_noted_without_end_takes_no_more_memory_than_may_be() {
        let slots = RawSlots::default();
        for at in 0..3 * MOST {
            slots.note(slot(at));
            slots.note(slot(7));
            let notes = slots.0.lock();
            assert!(notes.all.len() <= MOST && notes.valid.len() <= notes.all.len());
        }
        assert!(slots.is_the_hands_turn(MOST) && slots.is_the_hands_turn(usize::MAX));
        assert!(!slots.is_the_hands_turn(1));
        let mut seen = std::collections::HashSet::new();
        while let Some(slot) = slots.take() {
            assert!(seen.insert(slot), "{slot:?} twice");
        }
        assert!(slots.0.lock().valid.is_empty() && seen.len() > MOST / 4);
    }
}
