//! Back to the pool: what is on a tier that is being emptied, where memory alone has room for it.
//!
//! The other way round than writeback, with the writer's lock held, so that nothing else moves what is in segments: an entry is copied into the pool, still
//! compressed, and its slot's word changes from `Segment(a)` to `Pool(h)` if it still says `a`. Whoever loses that race takes away what nobody
//! names: the new entry, or the old one. Readers have the one or the other at every moment.
//!
//! What comes back is seven generations old, so that it goes before what is in use when there is a tier for it again. Groups may have no more of it
//! than their limits of the pool let them.

use crate::ages::coldest;
use crate::disk::locator;
use crate::engine::Engine;
use crate::groups::Bounds;
use crate::movement::{entry_addr, entry_tag, from_segment_tag};
use vswap_core::{Backing, ClusterId, Load, PAGE_SIZE, PageIndex, SlotId};
use vswap_segment::{AlignedBuf, CodecTag, EntryAddr, ReadError, SegmentId};

/// What came of a segment.
#[derive(Debug, Default)]
pub(crate) struct CameBack {
    /// Pages that are in the pool now, and their bytes there.
    pub(crate) pages: u64,
    pub(crate) bytes: u64,
    /// The pool takes no more, or no more of a group's.
    pub(crate) full: bool,
    /// Why something is still there that somebody wants, if it cannot be read.
    pub(crate) unread: Option<ReadError>,
}

impl CameBack {
    /// Tells whether another may follow.
    fn note(&mut self, came: Result<usize, PoolFull>) -> bool {
        match came {
            Ok(bytes) => {
                self.pages += u64::from(bytes > 0);
                self.bytes += bytes as u64;
            }
            Err(PoolFull) => self.full = true,
        }
        !self.full
    }
}

/// There is no memory for an entry, or its group may have no more.
struct PoolFull;

impl Engine {
    /// Takes what lives in a segment into the pool; what cannot be read stays.
    pub(crate) fn take_back(&self, segment: SegmentId, buf: &mut AlignedBuf) -> CameBack {
        let _alone = self.disk.writing();
        let store = self.disk.store();
        let mut done = CameBack::default();
        if let Ok(view) = store.read_segment(segment, buf) {
            for entry in view.entries().flatten() {
                if !done.note(self.take_entry_back(entry.slot, entry.addr, entry.tag, entry.bytes)) {
                    return done;
                }
            }
        }
        // What is left is in entries that are damaged, or in a list of entries that is: whoever has a page there knows where.
        if store.usage(segment).is_some() {
            self.take_back_one_by_one(segment, buf, &mut done);
        }
        done
    }

    /// Looks at every slot there is.
    fn take_back_one_by_one(&self, segment: SegmentId, buf: &mut AlignedBuf, done: &mut CameBack) {
        let clusters = (0..self.space.end()).map(ClusterId::new);
        for slot in clusters.flat_map(|cluster| PageIndex::all().map(move |page| cluster.slot(page))) {
            let Some(addr) = self.place_in(slot, segment) else { continue };
            match self.disk.store().read_entry(addr, slot, buf) {
                Ok(entry) => {
                    if !done.note(self.take_entry_back(slot, addr, entry.tag, entry.bytes)) {
                        return;
                    }
                }
                Err(error) => {
                    // Unless it has gone meanwhile.
                    if self.place_in(slot, segment) == Some(addr) {
                        done.unread.get_or_insert(error);
                    }
                }
            }
        }
    }

    /// Where in this segment a slot's page is, if it is there.
    pub(crate) fn place_in(&self, slot: SlotId, segment: SegmentId) -> Option<EntryAddr> {
        match self.word(slot).backing() {
            Backing::Segment(addr) => entry_addr(addr).filter(|addr| addr.segment() == segment),
            _ => None,
        }
    }

    /// Gives the length of the new entry; 0 if nobody wants the old one any more, or it has a form that nobody knows.
    fn take_entry_back(
        &self,
        slot: SlotId,
        addr: EntryAddr,
        tag: CodecTag,
        bytes: &[u8],
    ) -> Result<usize, PoolFull> {
        let from = Backing::Segment(locator(addr));
        let (Some(cell), Some(tag)) = (self.space.slot(slot), from_segment_tag(tag)) else { return Ok(0) };
        // Its owners may all leave at any moment; the cluster is to be there until the charge is right again.
        let _cluster = self.space.lock(slot.cluster());
        if cell.load().backing() != from {
            return Ok(0);
        }
        let load = Load { pages: 0, pool: bytes.len() as u32 };
        self.charge(slot, load, Bounds::All).map_err(|_| PoolFull)?;
        let Ok(handle) = self.pool.insert(slot, entry_tag(tag), bytes) else {
            self.uncharge(slot, load);
            return Err(PoolFull);
        };
        let age = coldest(self.generations.now());
        self.generations.came_back(age);
        let to = Backing::Pool(handle);
        let flipped = cell.update(|word| (word.backing() == from).then(|| word.with_backing(to, age)));
        if flipped.is_err() {
            self.generations.left(age);
            self.pool.remove(handle, slot);
            self.uncharge(slot, load);
            return Ok(0);
        }
        self.release_segment_entry(locator(addr));
        if bytes.len() == PAGE_SIZE {
            self.raw.note(self.class_of_cluster(slot.cluster()), slot);
        }
        Ok(bytes.len())
    }
}
