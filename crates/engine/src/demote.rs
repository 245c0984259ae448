//! Demotion: what is coldest on a tier that has hardly any room left goes to one of lower priority, so that what is written next still
//! goes to the fast one.
//!
//! Without it the first that came would keep the fast tier, however cold, and what is warmer would be written to the slow one.
//! Coldest are the segments that were neither written nor read for the longest time. They go as they are, as when a tier is
//! emptied; those of which hardly anything lives are packed together. What comes back from a slow tier soon after it went is let go of there by the
//! pager, and so comes by the pool to the fast one.

use crate::engine::Engine;
use crate::error::WritebackError;
use crate::stats::Counters;
use crate::swapoff::SPARSE;
use vswap_core::ByteCount;
use vswap_segment::{ClassId, Purpose, SEGMENT_BYTES, SegmentId, Started, TierId};

/// Segments looked at for those that are packed together.
const LOOKED_AT: usize = 16;

/// What [`Engine::demote`] has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Demoted {
    /// Segments that have left the tier.
    pub segments: u64,
    /// Bytes copied for that.
    pub bytes: ByteCount,
    /// A tier is crowded, and nothing on it could go.
    pub futile: bool,
}

impl Engine {
    /// Whether a tier has hardly any room left while one of lower priority has some.
    pub fn wants_demotion(&self) -> bool {
        !self.disk.store().crowded().is_empty()
    }

    /// Takes the coldest segments of tiers with hardly any room left to tiers of lower priority, until they have room again, at most about
    /// `most` of them. Does nothing if there is no such tier, or somebody else is at it. Pages are read, stored and let go meanwhile.
    ///
    /// # Errors
    /// When a copy could not be written, or the queue is broken: what was to be moved is where it was.
    pub fn demote(&self, most: usize) -> Result<Demoted, WritebackError> {
        let mut done = Demoted::default();
        let Some(_alone) = self.disk.demoting.try_lock() else { return Ok(done) };
        while (done.segments as usize) < most {
            let crowded = self.disk.store().crowded();
            let before = done.segments;
            for (tier, below) in &crowded {
                let was = done.bytes;
                let result = self.demote_from(*tier, *below, most, &mut done);
                Counters::add(&self.counters.demoted_bytes, done.bytes.saturating_sub(was).get());
                result?;
                // The lowest first: what comes down to it is to find room.
                if done.segments > before {
                    self.disk.store().trim_tier(*tier, true);
                    break;
                }
            }
            if done.segments == before {
                // No room after all, or what was chosen is gone, cannot be read or may not be elsewhere.
                done.futile = !crowded.is_empty();
                break;
            }
        }
        Ok(done)
    }

    fn demote_from(
        &self,
        tier: TierId,
        below: i16,
        most: usize,
        done: &mut Demoted,
    ) -> Result<(), WritebackError> {
        let purpose = Purpose::Demotion { below };
        let coldest = self.disk.store().coldest_on(tier, below, LOOKED_AT);
        let before = done.segments;
        if coldest.first().is_some_and(|first| self.is_sparse(*first)) {
            self.pack_for_demotion(purpose, &coldest, done)?;
        }
        if done.segments == before {
            let whole = coldest.iter().filter(|segment| !self.is_sparse(**segment));
            self.demote_whole(purpose, whole.take(self.disk.depth.min(most)), done)?;
        }
        Ok(())
    }

    fn is_sparse(&self, segment: SegmentId) -> bool {
        let found = self.disk.store().usage(segment);
        found.is_some_and(|found| (found.live_bytes as f64) < SPARSE * SEGMENT_BYTES as f64)
    }

    fn pack_for_demotion(
        &self,
        purpose: Purpose,
        coldest: &[SegmentId],
        done: &mut Demoted,
    ) -> Result<(), WritebackError> {
        let store = self.disk.store();
        let mut sparse = coldest.iter().filter(|segment| self.is_sparse(**segment));
        let mut writing = self.disk.writing();
        // What goes with the first is of the same class.
        let next = |of: Option<ClassId>| {
            let mine = |segment: &&SegmentId| {
                of.is_none_or(|class| store.usage(**segment).is_some_and(|f| f.class == class))
            };
            sparse.by_ref().filter(mine).find_map(|segment| store.pick(*segment))
        };
        let gathered = self.gather(&self.disk, &mut writing, purpose, next);
        self.disk.put_buffers_away(&mut writing);
        drop(writing);
        match gathered {
            Ok(Some(gathered)) => {
                done.segments += gathered.died as u64;
                done.bytes = done.bytes.saturating_add(ByteCount::new(gathered.bytes as u64));
                // It may be readable later, and its readers are told if it is not.
                gathered.unread.into_iter().for_each(|segment| store.touch(segment));
                Ok(())
            }
            // Full before its time: it is passed over from now on.
            Ok(None) => Ok(()),
            Err(WritebackError::Io { source }) if vswap_segment::is_full(&source) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn demote_whole<'a>(
        &self,
        purpose: Purpose,
        segments: impl Iterator<Item = &'a SegmentId>,
        done: &mut Demoted,
    ) -> Result<(), WritebackError> {
        let store = self.disk.store();
        let _lent = self.disk.lend((self.disk.depth + 1) * SEGMENT_BYTES);
        let mut mover = store.mover(self.disk.depth);
        for segment in segments {
            match mover.start(*segment, purpose)? {
                Started::UnderWay | Started::Gone => {}
                Started::NoRoom => break,
                // As above.
                Started::Unreadable(_) => store.touch(*segment),
            }
        }
        let mut failed = None;
        while let Some(moved) = mover.wait()? {
            match moved.result {
                Ok(true) => {
                    done.segments += 1;
                    done.bytes = done.bytes.saturating_add(ByteCount::new(moved.bytes as u64));
                }
                Ok(false) => {}
                Err(error) if vswap_segment::is_full(&error) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), |source| Err(WritebackError::Io { source }))
    }
}
