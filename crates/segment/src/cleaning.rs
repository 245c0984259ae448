//! Cleaning: what lives in several sparse segments is copied into fewer, and their extents come back.
//!
//! The store does not know slots: whether an entry still lives and whether its slot took the new
//! address is asked through [`Relocate`]. Old addresses stay readable until their slot has the new one.

use crate::table::Purpose;
use crate::view::Entry;
use crate::{
    AlignedBuf, Appended, Candidate, EntryAddr, FormatError, ReadError, SEGMENT_BYTES, SegmentBuilder,
    SegmentId, SegmentStore, SegmentWriter, Written,
};
use std::collections::HashMap;
use std::io;
use vswap_core::SlotId;

/// Segments cleaned in one pass.
const BATCH: usize = 8;

/// The owner of the slots, as cleaning sees it.
pub trait Relocate {
    /// Whether the slot still has this address. May be out of date at once; it only saves copying.
    fn lives(&mut self, slot: SlotId, addr: EntryAddr) -> bool;

    /// Changes the slot's address from `from` to `to` if it still is `from`; whether it was.
    /// The store then releases the one that the slot does not have.
    fn relocate(&mut self, slot: SlotId, from: EntryAddr, to: EntryAddr) -> bool;

    /// An entry cannot be read back. Its segment is left alone from now on.
    fn damaged(&mut self, segment: SegmentId, fault: &FormatError);
}

/// What a pass of cleaning did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Cleaned {
    /// Segments whose last live entry was moved away.
    pub emptied: u64,
    /// Segments written for what lived in them.
    pub written: u64,
    /// Bytes copied.
    pub bytes: u64,
}

struct Pass<'a> {
    store: &'a SegmentStore,
    writer: &'a mut SegmentWriter,
    owner: &'a mut dyn Relocate,
    builder: Option<SegmentBuilder>,
    spare: Option<AlignedBuf>,
    old: HashMap<SlotId, EntryAddr>,
    report: Cleaned,
}

impl SegmentStore {
    /// Cleans up to eight of the emptiest segments at most `max_live` (0 to 1) alive, if that gives
    /// back at least one. `buf` needs [`SEGMENT_BYTES`]; `writer` must have nothing outstanding.
    ///
    /// # Errors
    /// The device's, from writing; everything is then where it was, or already moved whole. A segment
    /// that cannot be read is reported to `owner` if damaged, and left.
    pub fn clean(
        &self,
        max_live: f64,
        writer: &mut SegmentWriter,
        buf: &mut AlignedBuf,
        owner: &mut dyn Relocate,
    ) -> io::Result<Cleaned> {
        if writer.outstanding() > 0 {
            // Their entries would be taken for copies that no slot wants.
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "cleaning needs a writer with nothing in flight",
            ));
        }
        let chosen = self.choose(max_live);
        let mut pass = Pass {
            store: self,
            writer,
            owner,
            builder: None,
            spare: None,
            old: HashMap::new(),
            report: Cleaned::default(),
        };
        let mut result = Ok(());
        for candidate in &chosen {
            result = result.and_then(|()| pass.copy(candidate.segment, buf));
        }
        let result = result.and_then(|()| pass.flush());
        let report = pass.report;
        for candidate in &chosen {
            // A dead one may have its number in use again: then it has no mark to take back.
            self.stop_cleaning(candidate.segment);
        }
        result.map(|()| report)
    }

    /// The best candidates, marked; none if their live bytes would fill as many segments again.
    fn choose(&self, max_live: f64) -> Vec<Candidate> {
        let mut chosen: Vec<Candidate> = Vec::with_capacity(BATCH);
        while chosen.len() < BATCH
            && let Some(candidate) = self.pick_to_clean(max_live)
        {
            chosen.push(candidate);
        }
        let live: u64 = chosen.iter().map(|candidate| candidate.live_bytes).sum();
        // A little more than the live bytes, since packing never comes out even.
        let needed = (live + live / 16).div_ceil(SEGMENT_BYTES as u64);
        if needed >= chosen.len() as u64 {
            for candidate in chosen.drain(..) {
                self.stop_cleaning(candidate.segment);
            }
        }
        chosen
    }
}

impl Pass<'_> {
    /// Copies what lives in a segment and can be read.
    fn copy(&mut self, segment: SegmentId, buf: &mut AlignedBuf) -> io::Result<()> {
        let view = match self.store.read_segment(segment, buf) {
            Ok(view) => view,
            Err(ReadError::Damaged { fault, .. }) => {
                self.owner.damaged(segment, &fault);
                return Ok(());
            }
            Err(ReadError::Io { source, .. }) => return Err(source),
            Err(_) => return Ok(()),
        };
        for entry in view.entries() {
            match entry {
                Ok(entry) if self.owner.lives(entry.slot, entry.addr) => self.append(entry)?,
                Ok(_) => {}
                Err(fault) => {
                    self.store.leave_damaged(segment);
                    self.owner.damaged(segment, &fault);
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, entry: Entry<'_>) -> io::Result<()> {
        loop {
            if self.builder.is_none() {
                let buf = self.spare.take().unwrap_or_else(|| AlignedBuf::zeroed(SEGMENT_BYTES));
                let begun = self.store.begin(Purpose::Cleaning, buf);
                self.builder = Some(begun.map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?);
            }
            let Some(builder) = self.builder.as_mut() else { continue };
            if let Appended::At(_) = builder.append(entry.slot, entry.tag, entry.bytes) {
                self.old.insert(entry.slot, entry.addr);
                return Ok(());
            }
            self.flush()?;
        }
    }

    /// Writes what was collected and moves its slots over.
    fn flush(&mut self) -> io::Result<()> {
        if let Some(builder) = self.builder.take() {
            self.writer.submit(builder)?;
        }
        let mut result = Ok(());
        while let Some(mut written) = self.writer.wait()? {
            match std::mem::replace(&mut written.result, Ok(())) {
                Ok(()) => self.move_slots(&written),
                Err(error) => result = Err(error),
            }
            self.spare = Some(written.buf);
        }
        self.old.clear();
        result
    }

    fn move_slots(&mut self, written: &Written) {
        self.report.written += 1;
        self.report.bytes += written.bytes as u64;
        for (slot, new) in written.entries() {
            let dead = match self.old.get(&slot) {
                Some(old) if self.owner.relocate(slot, *old, new) => *old,
                _ => new,
            };
            // The one that the slot does not have. It cannot be dead already: each address is released
            // once, by whoever took it from the slot.
            let released = self.store.release(dead);
            debug_assert!(released.is_ok(), "{released:?}");
            self.report.emptied += u64::from(dead != new && released == Ok(true));
        }
    }
}
