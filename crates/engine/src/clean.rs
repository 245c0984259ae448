//! Cleaning: what lives in sparse segments is packed together, so that a full disk has room again.
//!
//! Done by the one writer, when a new segment finds no room. A slot's word changes from the old address to
//! the new one only if it still has the old one; a reader that holds the old address finds, in the worst
//! case, that it is out of date, and looks at the word again. The old segments go when their last entry is
//! released.

use crate::disk::{Disk, Writing, locator};
use crate::engine::Engine;
use crate::error::WritebackError;
use crate::stats::Counters;
use vswap_core::{Backing, SegmentAddr, SlotId};
use vswap_segment::{
    AlignedBuf, Appended, Candidate, ClassId, EntryAddr, Purpose, SEGMENT_BYTES, SegmentBuilder, SegmentId,
    SegmentView, Wanted,
};

/// Segments fuller than this are not worth the copying: 12 of them would be written to win one.
const MOST_ALIVE: f64 = 0.92;
/// The most segments that are written to win one.
const MOST_WRITTEN: usize = 16;
/// The most segments that are read for one that is written.
const MOST_READ: usize = 16;

/// What [`Engine::gather`] has done.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Entries copied.
    pub(crate) copied: usize,
    /// Bytes written for that.
    pub(crate) bytes: usize,
    /// Segments that are gone.
    pub(crate) died: usize,
    /// Segments of which nothing could be read.
    pub(crate) unread: Vec<SegmentId>,
}

impl Engine {
    /// Writes segments from the live entries of sparse ones until room is won for a class. Tells whether it was. Nothing else may
    /// be under way.
    pub(crate) fn clean(
        &self,
        disk: &Disk,
        writing: &mut Writing,
        by: ClassId,
    ) -> Result<bool, WritebackError> {
        let mut won = 0;
        // Segments that cannot be read just now.
        let mut not: Vec<SegmentId> = Vec::new();
        // Classes that may have no segment more for that, not even for a moment.
        let mut but: Vec<ClassId> = Vec::new();
        // Where most is alive, one segment written is hardly more than one emptied: what is left of the last one read goes on being
        // emptied by the next, until the dead parts add up to a whole segment.
        let mut written = 0;
        while written < MOST_WRITTEN {
            let mut first = None;
            let wanted = |of| Wanted { by, of, but: &but, not: &not };
            // Where less than a segment is dead in all, what is packed would only be packed anew.
            if won + disk.store().dead_to_win(MOST_ALIVE, &wanted(None)) as isize <= 0 {
                break;
            }
            let pick = |of| {
                let found = disk.store().pick_to_clean(MOST_ALIVE, &wanted(of));
                first = first.or(found.map(|found| found.class));
                found
            };
            let Some(gathered) = self.gather(disk, writing, Purpose::Cleaning, pick)? else {
                let Some(class) = first else { break };
                but.push(class);
                continue;
            };
            let one = usize::from(gathered.copied > 0);
            written += 1;
            won += gathered.died as isize - one as isize;
            let passed_over = !gathered.unread.is_empty();
            not.extend(gathered.unread);
            if won > 0 || gathered.died + one == 0 && !passed_over {
                break;
            }
        }
        Ok(won > 0)
    }

    /// Writes one segment from the live entries of those that `next` has picked and marked: the first of any class, the others of the same. `None` if
    /// there is no room for it. Nothing else may be under way.
    pub(crate) fn gather(
        &self,
        disk: &Disk,
        writing: &mut Writing,
        purpose: Purpose,
        mut next: impl FnMut(Option<ClassId>) -> Option<Candidate>,
    ) -> Result<Option<Gathered>, WritebackError> {
        let Some(mut candidate) = next(None) else {
            return Ok(Some(Gathered::default()));
        };
        let class = candidate.class;
        let mut builder = match disk.store().begin(purpose, class, writing.buffer()) {
            Ok(builder) => builder,
            Err((_, buf)) => {
                writing.give_buffer(buf);
                disk.store().stop_cleaning(candidate.segment);
                return Ok(None);
            }
        };
        let mut read = AlignedBuf::zeroed(SEGMENT_BYTES);
        let mut victims: Vec<SegmentId> = Vec::new();
        let mut moved: Vec<EntryAddr> = Vec::new();
        let mut unread = Vec::new();
        loop {
            victims.push(candidate.segment);
            let full = match disk.store().read_segment(candidate.segment, &mut read) {
                Ok(view) => !self.collect_live(disk, view, candidate.segment, &mut builder, &mut moved),
                Err(_) => {
                    unread.push(candidate.segment);
                    false
                }
            };
            if full || victims.len() >= MOST_READ {
                break;
            }
            match next(Some(class)) {
                Some(another) => candidate = another,
                None => break,
            }
        }
        let result = self.write_cleaned(writing, builder, &moved);
        let died = victims.iter().filter(|segment| disk.store().usage(**segment).is_none()).count();
        for segment in victims {
            disk.store().stop_cleaning(segment);
        }
        let bytes = result?;
        Ok(Some(Gathered { copied: moved.len(), bytes, died, unread }))
    }

    /// Copies what lives in a segment. False when the builder is full. What cannot be read stays where it is:
    /// its reader will be told.
    fn collect_live(
        &self,
        disk: &Disk,
        view: SegmentView<'_>,
        segment: SegmentId,
        builder: &mut SegmentBuilder,
        moved: &mut Vec<EntryAddr>,
    ) -> bool {
        for entry in view.entries() {
            let Ok(entry) = entry else {
                disk.store().leave_damaged(segment);
                continue;
            };
            if !self.lives_at(entry.slot, locator(entry.addr)) {
                continue;
            }
            match builder.append(entry.slot, entry.tag, entry.bytes) {
                Appended::At(_) => moved.push(entry.addr),
                Appended::NoRoom | Appended::TooLong => return false,
            }
        }
        true
    }

    fn lives_at(&self, slot: SlotId, addr: SegmentAddr) -> bool {
        self.word(slot).backing() == Backing::Segment(addr)
    }

    /// Writes the collected entries and flips their slots; `moved` has their former addresses in the same
    /// order. Gives the bytes written.
    pub(crate) fn write_cleaned(
        &self,
        writing: &mut Writing,
        builder: SegmentBuilder,
        moved: &[EntryAddr],
    ) -> Result<usize, WritebackError> {
        if builder.is_empty() {
            writing.give_buffer(builder.discard());
            return Ok(0);
        }
        let segment = builder.segment();
        writing.writer.submit(builder)?;
        let written = loop {
            let Some(written) = writing.writer.wait()? else { return Ok(0) };
            if written.segment == segment {
                break written;
            }
            // Left behind when the queue broke down; its words have been turned back, so nobody wants what is in it.
            if written.result.is_ok() {
                written.entries().for_each(|(_, addr)| self.release_segment_entry(locator(addr)));
            }
            writing.give_buffer(written.buf);
        };
        if written.result.is_ok() {
            self.note_unlisted(writing, &written);
            for ((slot, new), old) in written.entries().zip(moved) {
                let (from, to) = (Backing::Segment(locator(*old)), Backing::Segment(locator(new)));
                let flipped = self.space.slot(slot).is_some_and(|cell| {
                    cell.update(|word| (word.backing() == from).then(|| word.moved_to(to))).is_ok()
                });
                // Of the two copies one is dead now: the old one, or (the slot changed meanwhile) the new
                // one.
                self.release_segment_entry(locator(if flipped { *old } else { new }));
                Counters::add(&self.counters.cleaned_pages, u64::from(flipped));
            }
        }
        writing.give_buffer(written.buf);
        written.result.map_err(WritebackError::from)?;
        Ok(written.bytes)
    }
}
