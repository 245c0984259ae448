//! Segments that outlive the run: those of one class, which stay on one tier.
//!
//! Somebody above keeps a list of them, and commits it now and then. Between two commits the list that was kept last is what would be found after a
//! power cut, so what it names must stay as it was written.
//!
//! # Invariants
//! - An extent of the class whose segment has died is in *limbo*: in use, and of no row, until a list without that segment has been kept.
//! - An extent that is *lent* is of the class, and neither of a row nor in limbo, until it is taken back; no list names it, so after a crash it is free.
//! - A row of the class is never moved.

use super::{Purpose, Row, SegmentTable, State};
use crate::classes::ClassId;
use crate::extents::{Extent, TierId};
use crate::{KeptError, SEGMENT_BYTES, SegmentId};
use std::collections::BTreeSet;

/// What a list of segments that outlive the run says of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptSegment {
    /// Its number, which is part of the addresses of its entries.
    pub segment: SegmentId,
    /// Where it is on its tier, in bytes.
    pub at: u64,
    /// Which writing: part of every checksum in it. Of two entries of one slot that of the higher one is the newer.
    pub sequence: u64,
    /// Where its entries end, in bytes.
    pub entries_end: u32,
    /// How many it was written with.
    pub entries: u32,
}

#[derive(Debug)]
pub(super) struct Durable {
    pub(super) class: ClassId,
    tier: TierId,
    limbo: Vec<Extent>,
    /// Of the class, and of no row: others write there.
    lent: BTreeSet<u32>,
}

impl SegmentTable {
    /// Segments of this class are to outlive the run, and go to this tier only. `kept` are those of former runs; sequence numbers go on after `after`.
    /// What is to be an error leaves everything as it was.
    pub(crate) fn make_durable(
        &mut self,
        (class, tier): (ClassId, TierId),
        after: u64,
        kept: &[KeptSegment],
    ) -> Result<(), KeptError> {
        if self.durable.is_some() || !self.rows.is_empty() {
            return Err(KeptError::InUse);
        }
        let extents = self.tiers.extents(tier).ok_or(KeptError::InUse)?;
        let (mut taken, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for one in kept {
            let KeptSegment { segment, at, sequence, .. } = *one;
            let extent = extents.at(at).ok_or(KeptError::Beyond { segment, at })?;
            if !taken.insert(extent.0) || !numbers.insert(segment.get()) {
                return Err(KeptError::Twice { segment, at });
            }
            let bytes =
                u64::from(one.entries_end) + u64::from(one.entries) * super::SUMMARY_ENTRY_BYTES as u64;
            if sequence > after || one.entries == 0 || bytes > SEGMENT_BYTES as u64 {
                return Err(KeptError::Nonsense { segment, at });
            }
        }
        if let Some(extents) = self.tiers.extents_mut(tier) {
            extents.claim(&taken);
        }
        let rows = numbers.last().map_or(0, |last| *last as usize + 1);
        self.rows.resize(rows, Row::VACANT);
        self.read_at.resize_with(rows, Default::default);
        self.vacant = (0..rows as u32).rev().filter(|number| !numbers.contains(number)).collect();
        for KeptSegment { segment, at, sequence, entries_end, entries } in kept {
            self.rows[segment.get() as usize] = Row {
                state: State::Live { cleaning: false },
                class,
                tier,
                extent: Extent((at / SEGMENT_BYTES as u64) as u32),
                sequence: *sequence,
                entries_end: *entries_end,
                entries: *entries,
                ..Row::VACANT
            };
        }
        self.classes.confine(class, tier);
        self.classes.charge_many(class, tier, kept.len() as u64);
        self.last_sequence = self.last_sequence.max(after);
        self.durable = Some(Durable { class, tier, limbo: Vec::new(), lent: BTreeSet::new() });
        Ok(())
    }

    /// So many more entries of a kept segment live than was known. Tells whether there is such a segment, with as many.
    pub(crate) fn revive(&mut self, segment: SegmentId, entries: u32) -> bool {
        let Some(row) = self.rows.get_mut(segment.get() as usize) else { return false };
        let lives = matches!(row.state, State::Live { .. }) && row.live + entries <= row.entries;
        if lives {
            row.live += entries;
            self.live_entries += u64::from(entries);
        }
        lives
    }

    /// Kept segments of which nothing lives are dead. Gives how many.
    pub(crate) fn bury(&mut self) -> usize {
        let is_dead = |row: &Row| matches!(row.state, State::Live { .. }) && row.live == 0;
        let dead: Vec<_> = (0..self.rows.len()).filter(|at| is_dead(&self.rows[*at])).collect();
        let found = dead.iter().filter_map(|at| SegmentId::new(*at as u32));
        found.for_each(|segment| self.vacate(segment));
        dead.len()
    }

    /// The list to be kept.
    pub(crate) fn to_keep(&self) -> Vec<KeptSegment> {
        let Some(durable) = &self.durable else { return Vec::new() };
        let lives = |row: &&Row| matches!(row.state, State::Live { .. }) && row.class == durable.class;
        let numbered = (0..).zip(&self.rows).filter(|(_, row)| lives(row));
        let kept = |(number, row): (u32, &Row)| {
            Some(KeptSegment {
                segment: SegmentId::new(number)?,
                at: row.extent.offset(),
                sequence: row.sequence,
                entries_end: row.entries_end,
                entries: row.entries,
            })
        };
        numbered.filter_map(kept).collect()
    }

    /// Whether segments of a class outlive the run.
    pub(crate) fn is_durable(&self, class: ClassId) -> bool {
        self.durable.as_ref().is_some_and(|durable| durable.class == class)
    }

    /// The tier that has segments which outlive the run.
    pub(crate) fn durable_tier(&self) -> Option<TierId> {
        self.durable.as_ref().map(|durable| durable.tier)
    }

    /// Segments of the class that its tier would take now.
    pub(crate) fn durable_room(&self) -> u64 {
        let Some(durable) = &self.durable else { return 0 };
        let free = self.tiers.free().into_iter().find(|free| free.tier == durable.tier);
        let free = free.map_or(0, |free| free.extents.min(free.room));
        free.min(self.classes.room(durable.class, durable.tier, Purpose::Writeback).into())
    }

    /// Extents of dead segments that the list which was kept last may name.
    pub(crate) fn limbo(&self) -> usize {
        self.durable.as_ref().map_or(0, |durable| durable.limbo.len())
    }

    /// What the first `many` extents in limbo held is on no list any more.
    pub(crate) fn free_limbo(&mut self, many: usize) {
        let Some(durable) = &mut self.durable else { return };
        let (class, tier) = (durable.class, durable.tier);
        let free: Vec<_> = durable.limbo.drain(..many.min(durable.limbo.len())).collect();
        free.into_iter().for_each(|extent| self.give_back(class, (tier, extent)));
    }

    /// Takes up to `most` free extents of the tier for somebody who writes there without us, until they are given back: no list ever names them.
    pub(crate) fn lend(&mut self, most: u32) -> Vec<Extent> {
        let Some(Durable { class, tier, .. }) = self.durable else { return Vec::new() };
        let room = self.classes.room(class, tier, Purpose::Writeback);
        let take = || self.tiers.take(Purpose::Writeback, &|at| at == tier);
        let lent: Vec<_> = std::iter::from_fn(take).take(most.min(room) as usize).map(|(_, at)| at).collect();
        self.classes.charge_many(class, tier, lent.len() as u64);
        if let Some(durable) = &mut self.durable {
            durable.lent.extend(lent.iter().map(|extent| extent.0));
        }
        lent
    }

    /// Nobody writes to an extent any more that was lent. Tells whether it was.
    pub(crate) fn take_back(&mut self, extent: Extent) -> bool {
        let Some(durable) = &mut self.durable else { return false };
        let (class, tier, was_lent) = (durable.class, durable.tier, durable.lent.remove(&extent.0));
        if was_lent {
            self.give_back(class, (tier, extent));
        }
        was_lent
    }

    /// Extents that are lent.
    pub(crate) fn lent(&self) -> usize {
        self.durable.as_ref().map_or(0, |durable| durable.lent.len())
    }

    /// What classes are charged for beside their rows.
    pub(super) fn beside_rows(&self) -> impl Iterator<Item = (ClassId, TierId)> + '_ {
        let many = |durable: &Durable| durable.limbo.len() + durable.lent.len();
        let durable = self.durable.iter();
        durable.flat_map(move |durable| std::iter::repeat_n((durable.class, durable.tier), many(durable)))
    }
}

impl Durable {
    pub(super) fn put_in_limbo(&mut self, extent: Extent) {
        self.limbo.push(extent);
    }
}
