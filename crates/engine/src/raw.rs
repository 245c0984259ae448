//! Pages that do not compress: in the pool each takes the room of a whole page and saves none, so they are the first to go below it.
//!
//! Such a page has to lie in the pool until a segment can be written with it; here its slot is noted, so that the writer finds it
//! without a look at any other. A note is a hint: whoever takes it looks whether the slot still holds such a page. Where there are too many,
//! the oldest is dropped, and as many pages are left to the clock hand, by age like any other: else the pages without a note would stay for ever.
//!
//! A slot that is stored anew is noted anew, and its former note is void: else the pages that are written most often would be the first to go.
//!
//! A segment is filled with pages of one class, so each class has notes of its own: in one list, each filling would go through all that wait for room of
//! others. A note is with the class of the moment at which it was made until classes come or go, or somebody finds it there.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use vswap_core::SlotId;
use vswap_segment::ClassId;

/// The most notes of a class at a time, void ones included: 16 MiB of pages.
const MOST: usize = 4096;

/// Slots that were stored raw, in the order in which they were last. The lock is taken for one step and nothing else is taken under it.
#[derive(Debug, Default)]
pub(crate) struct RawSlots(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    by_class: BTreeMap<ClassId, Notes>,
    next: u64,
}

#[derive(Debug, Default)]
struct Notes {
    all: VecDeque<(SlotId, u64)>,
    /// The number of each slot's note that is not void.
    valid: HashMap<SlotId, u64>,
    /// Valid ones that were dropped, and not made up for yet.
    dropped: usize,
}

impl All {
    fn new_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Notes {
    fn drop_void(&mut self) {
        while self.all.front().is_some_and(|(slot, number)| self.valid.get(slot) != Some(number)) {
            self.all.pop_front();
        }
    }
}

impl RawSlots {
    /// Notes a slot of a class that was stored raw.
    pub(crate) fn note(&self, class: ClassId, slot: SlotId) {
        let mut all = self.0.lock();
        let number = all.new_number();
        let notes = all.by_class.entry(class).or_default();
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

    /// Whether up to `pages` of a class are to be left to the clock hand now, because notes were dropped.
    pub(crate) fn is_the_hands_turn(&self, class: ClassId, pages: usize) -> bool {
        let mut all = self.0.lock();
        let Some(notes) = all.by_class.get_mut(&class) else { return false };
        let turn = notes.dropped > 0;
        notes.dropped = notes.dropped.saturating_sub(pages);
        turn
    }

    /// The slot of a class that was noted first.
    pub(crate) fn take(&self, class: ClassId) -> Option<SlotId> {
        let mut all = self.0.lock();
        let notes = all.by_class.get_mut(&class)?;
        notes.drop_void();
        let Some((slot, _)) = notes.all.pop_front() else {
            // Who has none any more keeps no memory for them.
            if notes.dropped == 0 {
                all.by_class.remove(&class);
            }
            return None;
        };
        notes.valid.remove(&slot);
        Some(slot)
    }

    /// Puts back what was taken and found no room, unless it has been noted anew. As the oldest it is the one to be dropped if there are too many.
    pub(crate) fn put_back(&self, class: ClassId, slot: SlotId) {
        let mut all = self.0.lock();
        let number = all.new_number();
        let notes = all.by_class.entry(class).or_default();
        if notes.valid.contains_key(&slot) {
            return;
        }
        notes.drop_void();
        if notes.all.len() >= MOST {
            notes.dropped += 1;
            return;
        }
        notes.valid.insert(slot, number);
        notes.all.push_front((slot, number));
    }

    /// Classes have come or gone: has each note be with that of its slot, in the same order.
    pub(crate) fn sort_anew(&self, class_of: impl Fn(SlotId) -> ClassId) {
        let mut all: Vec<(SlotId, u64)> = Vec::new();
        self.0.lock().by_class.retain(|_, notes| {
            let (list, valid) = (std::mem::take(&mut notes.all), std::mem::take(&mut notes.valid));
            all.extend(list.into_iter().filter(|(slot, number)| valid.get(slot) == Some(number)));
            notes.dropped > 0
        });
        // What was put back has a later number than what it is before, which is no more than a hint, too.
        all.sort_by_key(|(_, number)| *number);
        all.into_iter().for_each(|(slot, _)| self.note(class_of(slot), slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswap_core::{ClusterId, PageIndex};

    const ONE: ClassId = ClassId::COMMON;
    const OTHER: ClassId = ClassId::new(7);

    fn slot(at: usize) -> SlotId {
        ClusterId::new((at / 512) as u32).slot(PageIndex::new(at % 512).unwrap())
    }

    /// Its first note counted: what is written most often went first.
    #[test]
    fn a_slot_that_is_stored_anew_goes_as_early_as_if_it_were_not() {
        let slots = RawSlots::default();
        [1, 2, 3, 1, 2].map(slot).into_iter().for_each(|slot| slots.note(ONE, slot));
        let first = slots.take(ONE).unwrap();
        assert_eq!(first, slot(3));
        slots.put_back(ONE, first);
        let all: Vec<_> = std::iter::from_fn(|| slots.take(ONE)).collect();
        assert_eq!(all, [3, 1, 2].map(slot));
    }

    #[test]
    fn what_is_noted_without_end_takes_no_more_memory_than_may_be() {
        let slots = RawSlots::default();
        for at in 0..3 * MOST {
            slots.note(ONE, slot(at));
            slots.note(ONE, slot(7));
            let all = slots.0.lock();
            let notes = &all.by_class[&ONE];
            assert!(notes.all.len() <= MOST && notes.valid.len() <= notes.all.len());
        }
        assert!(slots.is_the_hands_turn(ONE, MOST) && slots.is_the_hands_turn(ONE, usize::MAX));
        assert!(!slots.is_the_hands_turn(ONE, 1));
        let mut seen = std::collections::HashSet::new();
        while let Some(slot) = slots.take(ONE) {
            assert!(seen.insert(slot), "{slot:?} twice");
        }
        assert!(slots.0.lock().by_class.is_empty() && seen.len() > MOST / 4);
    }

    /// They were put back whatever there was: while one class had no room, each filling for another made the list longer.
    #[test]
    fn what_is_put_back_without_end_takes_no_more_memory_either() {
        let slots = RawSlots::default();
        (0..MOST).for_each(|at| slots.note(ONE, slot(at)));
        for at in MOST..MOST + 9 {
            slots.put_back(ONE, slot(at));
        }
        assert_eq!(slots.0.lock().by_class[&ONE].all.len(), MOST);
        assert!(slots.is_the_hands_turn(ONE, 8) && slots.is_the_hands_turn(ONE, 8));
        assert!(!slots.is_the_hands_turn(ONE, 8));
        assert_eq!(slots.take(ONE), Some(slot(0)));
        slots.put_back(ONE, slot(0));
        assert_eq!(slots.take(ONE), Some(slot(0)), "there was room for it");
    }

    /// All were taken off the list and put back, for each segment.
    #[test]
    fn notes_of_one_class_are_not_gone_through_for_another() {
        let slots = RawSlots::default();
        (0..2 * MOST).for_each(|at| slots.note(ONE, slot(at)));
        [3, 4].into_iter().for_each(|at| slots.note(OTHER, slot(at)));
        assert!(!slots.is_the_hands_turn(OTHER, 1), "none of its own were dropped");
        assert_eq!([(); 3].map(|()| slots.take(OTHER)), [Some(slot(3)), Some(slot(4)), None]);
        assert_eq!(slots.0.lock().by_class[&ONE].all.len(), MOST);
    }

    #[test]
    fn notes_go_with_their_slots_when_classes_come_or_go() {
        let slots = RawSlots::default();
        (0..6).for_each(|at| slots.note(ONE, slot(at)));
        slots.note(ONE, slot(0));
        slots.sort_anew(|of| if [0, 2, 4].map(slot).contains(&of) { OTHER } else { ONE });
        let all = |class| std::iter::from_fn(|| slots.take(class)).collect::<Vec<_>>();
        assert_eq!((all(ONE), all(OTHER)), ([1, 3, 5].map(slot).to_vec(), [2, 4, 0].map(slot).to_vec()));
        slots.note(OTHER, slot(2));
        slots.note(ONE, slot(1));
        slots.sort_anew(|_| ONE);
        assert_eq!((all(OTHER), all(ONE).len()), (vec![], 2));
    }
}
