//! Giving up what is in a store and need not be: a clock hand goes over its segments, the one that was written first first, and lets go of every page that was not
//! loaded since it came by last. What is pinned or dirty stays, and so does what no commit has kept yet. What lives on in these segments is packed later, and so
//! goes behind what is newer.

use crate::presence::PAGE;
use crate::slots::Run;
use crate::slots::shelves::Holder;
use crate::store::Store;
use crate::store::books::Books;
use crate::store::error::NamedError;
use crate::store::named::Known;
use crate::store::records::{OBJECTS, ObjectRecord, SEGMENTS, decode_segment};
use redb::ReadableDatabase;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vswap_core::{ByteCount, SlotId};
use vswap_engine::{BackingKind, Engine, KeptEntry, Passed};
use vswap_segment::EntryAddr;

/// How full a store may be; both are parts of its size, between 0 and 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Marks {
    /// A commit that finds it fuller than this gives up what is oldest.
    pub high: f64,
    /// Until it is no fuller than this.
    pub low: f64,
}

impl Default for Marks {
    fn default() -> Self {
        Self { high: 0.95, low: 0.9 }
    }
}

/// Pages that are looked at with the books locked.
const AT_ONCE: usize = 64;
/// Objects that are looked at for each page that was given up, and at least.
const HUSKS: u64 = 64;
/// The hand comes by twice: what was warm the first time may be cold the second.
const ROUNDS: usize = 2;
/// Times in a row that something is given up.
const COMMITS: usize = 8;
/// Commits, for each of these, that win room by packing.
const PACKED: usize = 32;
/// Commits that are not followed by a look for what to give up when there was nothing.
const REST: u32 = 16;

/// Where the hands stand.
#[derive(Debug, Default)]
pub(super) struct Hands {
    /// The sequence number of the segment that was looked at last.
    segment: u64,
    /// The number of the object that was looked at last.
    object: u64,
}

/// What one call has given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct GivenUp {
    bytes: u64,
    pages: u64,
    husks: u64,
}

impl GivenUp {
    pub(super) fn is_nothing(&self) -> bool {
        self.pages == 0 && self.husks == 0
    }
}

impl Store {
    /// Gives up what is neither pinned nor dirty, the oldest first, until so many bytes of the tier are free that were not, and commits. Gives how many they are; they may be more,
    /// since room comes back by whole segments.
    ///
    /// # Errors
    /// As [`Store::sync`].
    pub fn reclaim(&self, bytes: ByteCount) -> Result<ByteCount, NamedError> {
        let _turn = self.turn.lock();
        // What nobody has kept yet cannot be given up.
        self.commit()?;
        let room = || self.objects.engine().durable_room();
        let before = room();
        self.give_up_until(|| bytes.saturating_sub(room().saturating_sub(before)).get())?;
        Ok(room().saturating_sub(before))
    }

    /// After a commit, with its turn: gives up what there is too much.
    pub(super) fn keep_below_marks(&self) -> Result<(), NamedError> {
        let Some(Marks { high, low }) = self.marks else { return Ok(()) };
        // Relaxed, here and below: with the turn of commits.
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            self.rest.store(rest - 1, Ordering::Relaxed);
            return Ok(());
        }
        // Above the mark, of what is not lent.
        let engine = self.objects.engine();
        let above = |mark: f64| {
            let size = self.size.saturating_sub(engine.lent_durable().get());
            let used = size.saturating_sub(engine.durable_room().get());
            used.saturating_sub((mark * size as f64) as u64)
        };
        if above(high) > 0 { self.give_up_until(|| above(low)) } else { Ok(()) }
    }

    /// `missing` tells how many bytes are to be won yet.
    fn give_up_until(&self, missing: impl Fn() -> u64) -> Result<(), NamedError> {
        let engine = self.objects.engine();
        for _ in 0..COMMITS {
            let (before, want) = (engine.durable_room(), missing());
            if want == 0 {
                break;
            }
            let given = self.give_up(want)?;
            // The commit between two of them frees what the first has won: without it packing would take all the room there is.
            for _ in 0..PACKED {
                let room = engine.durable_room();
                self.pack()?;
                self.commit()?;
                if engine.durable_room() <= room {
                    break;
                }
            }
            if given.is_nothing() && engine.durable_room() <= before {
                // Until there is something else to be given up.
                self.rest.store(REST, Ordering::Relaxed);
                break;
            }
        }
        Ok(())
    }

    /// Gives up about so many bytes, if there are as many to be given up. With the turn of commits.
    pub(super) fn give_up(&self, want: u64) -> Result<GivenUp, NamedError> {
        let mut given = GivenUp::default();
        let mut hands = self.hands.lock();
        let mut segments = self.objects.engine().durable_in_order();
        let next = segments.partition_point(|(_, sequence)| *sequence <= hands.segment);
        segments.rotate_left(next);
        for (segment, sequence) in std::iter::repeat_n(segments, ROUNDS).flatten() {
            if given.bytes >= want {
                break;
            }
            hands.segment = sequence;
            let line = self
                .index
                .begin_read()?
                .open_table(SEGMENTS)?
                .get(segment.get())?
                .map(|line| decode_segment(segment.get(), line.value()));
            let Some((kept, entries)) = line.transpose()?.filter(|(kept, _)| kept.sequence == sequence)
            else {
                continue;
            };
            let ends =
                entries.iter().skip(1).map(|(_, addr)| addr.offset() as u64).chain([kept.entries_end.into()]);
            let lengths =
                entries.iter().zip(ends).map(|((_, addr), end)| end.saturating_sub(addr.offset() as u64));
            let all: Vec<(KeptEntry, u64)> = entries.iter().copied().zip(lengths).collect();
            for some in all.chunks(AT_ONCE) {
                self.give_up_some(some, &mut given);
            }
        }
        given.husks = self.end_husks(&mut hands, given.pages.max(HUSKS))?;
        Ok(given)
    }

    fn give_up_some(&self, some: &[(KeptEntry, u64)], given: &mut GivenUp) {
        let _changing = self.changes.gate.read();
        // Nobody comes into memory meanwhile.
        let books = self.books.lock();
        for ((slot, addr), length) in some {
            if self.let_go(&books, *slot, *addr) {
                given.bytes += length;
                given.pages += 1;
            }
        }
    }

    /// In the gate. Tells whether the page that the slot has there has been given up.
    fn let_go(&self, books: &Books, slot: SlotId, addr: EntryAddr) -> bool {
        let (shelves, engine) = (self.objects.shelves(), self.objects.engine());
        let is_cold = || engine.pass_by(slot, addr) == Passed::Cold;
        match shelves.holder(slot) {
            Holder::Held => false,
            Holder::Object(id, page) => {
                let given = books.open.get(id).is_some_and(|known| known.object().give_up(page, is_cold));
                if given {
                    self.changes.changed.lock().insert(id);
                }
                given
            }
            // Nobody can store it anew meanwhile.
            Holder::Absent if !is_cold() => false,
            Holder::Absent => {
                self.objects.empty_kept(slot);
                shelves.touch([slot.cluster()]);
                true
            }
        }
    }

    /// Removes husks, of so many objects that are looked at. Gives how many.
    fn end_husks(&self, hands: &mut Hands, most: u64) -> Result<u64, NamedError> {
        let (mut husks, mut ended) = (Vec::new(), 0);
        {
            let engine = self.objects.engine();
            let txn = self.index.begin_read()?;
            let table = txn.open_table(OBJECTS)?;
            let (from, mut seen) = (std::mem::take(&mut hands.object), 0);
            for line in table.range((Bound::Excluded(from), Bound::Unbounded))?.take(most as usize) {
                let (id, line) = line?;
                seen += 1;
                // From the beginning again after the last one.
                hands.object = if seen < most { 0 } else { id.value() };
                let Ok(record) = ObjectRecord::decode(id.value(), line.value()) else { continue };
                let held = record.pinned || !record.dirty.is_empty() || record.len == 0;
                let slots = |(_, run): (u64, Run)| (0..run.pages).map(move |at| run.slot(at.into()));
                let slots = record.runs_at().into_iter().flatten().flat_map(slots);
                if !held && is_husk(engine, record.len, slots) {
                    husks.push((record.volume, record.key, id.value()));
                }
            }
        }
        for (volume, key, id) in husks {
            let _changing = self.changes.gate.read();
            let mut books = self.books.lock();
            // Whoever uses it may be about to fill it, and what is in memory may have been filled.
            let is_empty = |known: &Arc<Known>| Arc::strong_count(known) == 1 && known.is_husk();
            if books.open.get(id).is_none_or(is_empty) && self.id_of(&books, volume, &key)? == Some(id) {
                self.end(&mut books, volume, &key, id)?;
                ended += 1;
            }
        }
        Ok(ended)
    }
}

/// Whether nothing of an object is left that takes room on the tier, of these slots of its pages, and something is missing: pages that are one word over and over take none, so
/// nobody gives them up, and they alone keep no name.
pub(super) fn is_husk(engine: &Engine, len: u64, slots: impl Iterator<Item = SlotId>) -> bool {
    let mut patterns = 0;
    for slot in slots {
        match engine.backing(slot) {
            BackingKind::Empty => {}
            BackingKind::Fill => patterns += 1,
            _ => return false,
        }
    }
    patterns < len.div_ceil(PAGE)
}
