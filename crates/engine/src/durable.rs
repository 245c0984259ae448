//! What outlives the run: the pages of one group, in segments on one tier, and what has to be known to find them again.
//!
//! The engine keeps no list itself. Whoever owns the pages keeps one, in a store of its own that changes from one state to the next whole or not at
//! all, and these are the steps of a *commit*, while nobody changes a page of the group:
//!
//! 1. [`Engine::write_down`]: what of the group is in the pool goes to segments.
//! 2. [`Engine::to_commit`] gives the list, and [`Engine::kept_cluster`] what each cluster has. Pages may be changed again.
//! 3. [`Engine::sync_durable`], and only then the owner keeps all that.
//! 4. [`Engine::committed`] says so: from then on the room of segments that are on no list is used again.
//!
//! After a crash the tier has everything that the list names, as it was, whatever was written since.
//!
//! # Which of several entries is a slot's
//! Entries of a segment live on when they are dead, until the segment dies. Found again, a slot has the entry of the highest sequence number, and in
//! one segment the last: there is one writer, whose segments get their numbers when they are begun, and what is copied in cleaning lived when the
//! copy was begun; so whatever is newer than an entry has a higher number. A slot that has no bytes, a fill pattern, or bytes that are lost is told of in the list, and its
//! entries count for nothing.

use crate::disk::{Writing, locator};
use crate::engine::Engine;
use crate::error::{DurableError, EngineError, WritebackError};
use crate::groups::Bounds;
use crate::losses::Reason;
use crate::movement::entry_addr;
use crate::stats::Counters;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vswap_core::{
    Backing, Bitmap512, ByteCount, ClusterId, ClusterState, FillPattern, GroupId, Load, PageIndex, Resource,
    SlotId, SlotWord,
};
use vswap_segment::{
    EntryAddr, Extent, KeptSegment, Keys, RunKey, SEGMENT_BYTES, SegmentId, Storage, Written,
};

/// Numbers of clusters of a former run are below this: 256 TiB.
const MOST_CLUSTERS: u32 = 1 << 27;
/// Writebacks without a page after which pages that are to be written down are given up on.
const IN_VAIN: usize = 16;
/// Segments fuller than this are not packed: twelve would be written to win one.
const MOST_ALIVE: f64 = 0.92;
/// The most segments that are written at once to win one: those that die of it take room until the next commit.
const MOST_WRITTEN: usize = 2;

/// An entry of a segment that outlives the run: whose, and where.
pub type KeptEntry = (SlotId, EntryAddr);

/// A cluster whose pages outlive the run, at a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptCluster {
    /// Its number.
    pub cluster: ClusterId,
    /// Pages whose bytes are in a segment.
    pub stored: Bitmap512,
    /// Pages that are one word over and over.
    pub fills: Vec<(PageIndex, FillPattern)>,
    /// Pages whose bytes are lost.
    pub lost: Bitmap512,
}

/// What a former run has left.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Segments, each with its entries.
    pub segments: Vec<(KeptSegment, Vec<KeptEntry>)>,
    /// Clusters.
    pub clusters: Vec<KeptCluster>,
}

/// How a tier of a former run is taken over.
#[derive(Clone, Copy, Debug)]
pub struct DurableTier {
    /// As for any tier.
    pub priority: i16,
    /// The seed of all checksums of this store.
    pub key: u64,
    /// No segment of a former run had a higher sequence number.
    pub after: u64,
}

/// What a clock hand finds; see [`Engine::pass_by`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passed {
    /// The entry is dead.
    Elsewhere,
    /// It has been loaded since.
    Warm,
    /// It has not.
    Cold,
}

/// A list that is to be kept, and what the next one is told when it is.
#[derive(Debug)]
#[must_use = "no room comes back until `committed` is told"]
pub struct Commit {
    /// All segments that outlive the run.
    pub segments: Vec<KeptSegment>,
    /// The entries of those that no committed list has named, by number.
    pub entries: BTreeMap<SegmentId, Arc<[KeptEntry]>>,
    limbo: usize,
}

/// The entries of segments that no committed list has named yet, by number, with the sequence.
#[derive(Debug, Default)]
pub(crate) struct Unlisted(BTreeMap<SegmentId, (u64, Arc<[KeptEntry]>)>);

impl Engine {
    /// Room that [`Engine::pack_durable`] takes at most until the next commit.
    pub const MOST_PACKED: ByteCount = ByteCount::new((MOST_WRITTEN * SEGMENT_BYTES) as u64);

    /// A segment has been written: if it outlives the run, the next list names it.
    pub(crate) fn note_unlisted(&self, writing: &mut Writing, written: &Written) {
        if self.disk.store().is_durable(written.class) {
            let entries = written.entries().collect();
            writing.unlisted.0.insert(written.segment, (written.sequence, entries));
        }
    }

    /// Takes over what a former run has left on a tier, or begins with nothing; gives the group whose pages outlive this one. Nothing else may have been
    /// done with the engine.
    ///
    /// # Errors
    /// When the engine has been used, or what is said to be there cannot be.
    pub fn open_durable(
        &self,
        storage: Arc<dyn Storage>,
        tier: DurableTier,
        kept: &Kept,
    ) -> Result<GroupId, DurableError> {
        if self.space.end() != 0 {
            return Err(DurableError::InUse);
        }
        let segments: Vec<_> = kept.segments.iter().map(|(segment, _)| *segment).collect();
        let group = self.new_group(GroupId::ROOT)?;
        self.tree.keep(group);
        let id = self.add_storage(storage, tier.priority)?;
        let class = {
            let _turn = self.tree.turn.lock();
            self.new_class(group)?
        };
        let keys = Keys::durable(RunKey::new(tier.key));
        self.disk.store().make_durable((class, id), keys, tier.after, &segments)?;
        let clusters: BTreeSet<u32> = kept.clusters.iter().map(|kept| kept.cluster.get()).collect();
        if clusters.len() < kept.clusters.len() {
            return Err(DurableError::ClusterTwice);
        }
        if let Some(last) = clusters.last().filter(|last| **last >= MOST_CLUSTERS) {
            return Err(DurableError::Cluster { number: *last });
        }
        self.space.claim(&clusters, ClusterState::direct(), group)?;
        kept.clusters.iter().for_each(|kept| self.find_cluster(kept));
        self.find_entries(kept)?;
        Ok(group)
    }

    /// Gives the slots of a cluster what is known without looking at any entry; those whose bytes are in a segment are lost for the time being.
    fn find_cluster(&self, kept: &KeptCluster) {
        let age = self.generations.now();
        let put = |page, backing| {
            let Some(cell) = self.space.slot(kept.cluster.slot(page)) else { return };
            let _ = cell.update(|_| Some(SlotWord::new(backing, age)));
        };
        let mut has = Bitmap512::EMPTY;
        for page in kept.stored.iter().chain(kept.lost.iter()) {
            has.set(page);
            put(page, Backing::Poisoned);
        }
        for (page, pattern) in &kept.fills {
            has.set(*page);
            put(*page, Backing::Fill(*pattern));
        }
        let load = Load { pages: has.count() as u16, pool: 0 };
        // Limits are not there to lose anything by.
        let charged = self.charge(kept.cluster.slot(PageIndex::default()), load, Bounds::None);
        debug_assert!(charged.is_ok(), "the group is there");
    }

    /// Gives each stored slot its entry.
    fn find_entries(&self, kept: &Kept) -> Result<(), DurableError> {
        let stored: BTreeMap<u32, &Bitmap512> =
            kept.clusters.iter().map(|kept| (kept.cluster.get(), &kept.stored)).collect();
        let mut in_order: Vec<_> = kept.segments.iter().collect();
        in_order.sort_by_key(|(segment, _)| segment.sequence);
        for (segment, entries) in in_order {
            for (slot, addr) in entries {
                if addr.segment() != segment.segment || addr.offset() >= segment.entries_end as usize {
                    return Err(DurableError::Stray { segment: segment.segment, slot: *slot });
                }
                let wanted = stored.get(&slot.cluster().get()).is_some_and(|set| set.get(slot.index()));
                if let Some(cell) = self.space.slot(*slot).filter(|_| wanted) {
                    let _ = cell.update(|word| Some(word.moved_to(Backing::Segment(locator(*addr)))));
                }
            }
        }
        let mut living: BTreeMap<SegmentId, u32> = BTreeMap::new();
        for kept in &kept.clusters {
            for slot in kept.stored.iter().map(|page| kept.cluster.slot(page)) {
                match self.word(slot).backing() {
                    Backing::Segment(addr) => {
                        let segment = entry_addr(addr).map(EntryAddr::segment);
                        *living.entry(segment.expect("put there just now")).or_default() += 1;
                    }
                    _ => {
                        Counters::add(&self.counters.lost, 1);
                        self.losses.remember(slot, Reason::Unlisted.into());
                    }
                }
            }
        }
        for (segment, entries) in living {
            self.disk.store().revive(segment, entries)?;
        }
        self.disk.store().bury();
        Ok(())
    }

    /// A cluster for pages that outlive the run, whose slots the caller shares out: nothing is in it. Clusters of a former run are the same.
    ///
    /// # Errors
    /// When the space is full, or the system has no memory for slots.
    pub fn new_kept_cluster(&self, group: GroupId) -> Result<ClusterId, EngineError> {
        self.new_cluster(ClusterState::direct(), group)
    }

    /// Lets the page of a slot of such a cluster go.
    pub fn empty_kept(&self, slot: SlotId) {
        self.empty_slot(slot);
    }

    /// Lets such a cluster go, with all that is in it.
    pub fn free_kept_cluster(&self, cluster: ClusterId) {
        self.unshare_cluster(cluster);
    }

    /// What is to be kept of such a cluster: of its pages those in `of`, all of which must have been written down.
    ///
    /// # Errors
    /// When a page is in the pool still.
    pub fn kept_cluster(&self, cluster: ClusterId, of: &Bitmap512) -> Result<KeptCluster, DurableError> {
        let mut kept =
            KeptCluster { cluster, stored: Bitmap512::EMPTY, fills: Vec::new(), lost: Bitmap512::EMPTY };
        for (page, cell) in
            self.space.slots_of(cluster, PageIndex::default()).filter(|(page, _)| of.get(*page))
        {
            match cell.load().backing() {
                Backing::Empty => {}
                Backing::Segment(addr)
                    if entry_addr(addr).is_some_and(|addr| self.disk.store().is_kept(addr)) =>
                {
                    kept.stored.set(page);
                }
                Backing::Segment(_) => return Err(DurableError::Elsewhere { slot: cluster.slot(page) }),
                Backing::Fill(pattern) => kept.fills.push((page, pattern)),
                Backing::Poisoned => kept.lost.set(page),
                Backing::Pool(_) | Backing::Moving(_) => {
                    return Err(DurableError::NotWritten { slot: cluster.slot(page) });
                }
            }
        }
        Ok(kept)
    }

    /// Moves what a group has in the pool now to segments, more or less, while others go on writing: at most the last of these segments is not full.
    ///
    /// # Errors
    /// When a write fails.
    pub fn write_ahead(&self, group: GroupId) -> Result<(), WritebackError> {
        let in_pool = self.group_tree().usage(group, Resource::Pool);
        self.write_all_of(group, ByteCount::new(in_pool)).map(drop)
    }

    /// Moves all that a group has in the pool to segments.
    ///
    /// # Errors
    /// When a write fails, or there is no room: [`Engine::limbo`] tells whether a commit would win some. A tier that failed before is tried again.
    pub fn write_down(&self, group: GroupId) -> Result<(), DurableError> {
        let in_pool = || self.group_tree().usage(group, Resource::Pool);
        let mut in_vain = 0;
        if in_pool() > 0 {
            self.disk.store().reopen_durable();
        }
        while in_pool() > 0 {
            let want = ByteCount::new(in_pool().max(SEGMENT_BYTES as u64));
            let report = self.write_all_of(group, want)?;
            // What others had under way may have been turned back, or been taken by a change.
            in_vain = if report.pages.is_zero() { in_vain + 1 } else { 0 };
            if in_pool() > 0 && (in_vain > 0 && (report.disk_full || report.limited) || in_vain > IN_VAIN) {
                return Err(DurableError::Full { left: ByteCount::new(in_pool()) });
            }
        }
        Ok(())
    }

    /// What is on the tier has outlived a power cut from now on.
    ///
    /// # Errors
    /// When the device cannot say that it has everything.
    pub fn sync_durable(&self) -> Result<(), WritebackError> {
        Ok(self.disk.store().sync_durable()?)
    }

    /// What is to be kept. Nobody else commits meanwhile.
    pub fn to_commit(&self) -> Commit {
        // With the writer's turn: what has been written by then has been taken in, and its entries noted.
        let mut writing = self.disk.writing();
        let (segments, limbo) = self.disk.store().to_keep();
        let named: BTreeMap<SegmentId, u64> =
            segments.iter().map(|kept| (kept.segment, kept.sequence)).collect();
        writing.unlisted.0.retain(|segment, (sequence, _)| named.get(segment) == Some(sequence));
        let entries = writing.unlisted.0.iter();
        let entries = entries.map(|(segment, (_, entries))| (*segment, Arc::clone(entries))).collect();
        Commit { segments, entries, limbo }
    }

    /// What [`Engine::to_commit`] gave has been kept: the room of what is not on that list may be used.
    pub fn committed(&self, commit: Commit) {
        let sequences: BTreeMap<SegmentId, u64> =
            commit.segments.iter().map(|kept| (kept.segment, kept.sequence)).collect();
        let mut writing = self.disk.writing();
        let listed = |segment: &SegmentId, sequence: u64| {
            commit.entries.contains_key(segment) && sequences.get(segment) == Some(&sequence)
        };
        writing.unlisted.0.retain(|segment, (sequence, _)| !listed(segment, *sequence));
        drop(writing);
        self.disk.store().free_limbo(commit.limbo);
    }

    /// Room on the tier for more that outlives the run, as things stand.
    pub fn durable_room(&self) -> ByteCount {
        ByteCount::new(self.disk.store().durable_room() * SEGMENT_BYTES as u64)
    }

    /// Takes up to `most` free segments of the tier out of use, for somebody who reads and writes there without this engine: see [`vswap_segment::Loan`].
    #[must_use]
    pub fn lend_durable(&self, most: u32) -> Vec<Extent> {
        self.disk.store().lend(most)
    }

    /// Segments that were lent may be used again: nobody else reads or writes there any more.
    pub fn take_back_durable(&self, lent: &[Extent]) {
        self.disk.store().take_back(lent);
    }

    /// What is lent.
    pub fn lent_durable(&self) -> ByteCount {
        ByteCount::new((self.disk.store().lent() * SEGMENT_BYTES) as u64)
    }

    /// What the tier is made of.
    pub fn durable_storage(&self) -> Option<Arc<dyn Storage>> {
        self.disk.store().durable_storage()
    }

    /// Room of dead segments that the next commit wins.
    pub fn limbo(&self) -> ByteCount {
        ByteCount::new((self.disk.store().limbo() * SEGMENT_BYTES) as u64)
    }

    /// The segments that outlive the run, the one that was written first first: number and sequence.
    pub fn durable_in_order(&self) -> Vec<(SegmentId, u64)> {
        let (kept, _) = self.disk.store().to_keep();
        let mut all: Vec<_> = kept.into_iter().map(|kept| (kept.segment, kept.sequence)).collect();
        all.sort_unstable_by_key(|(_, sequence)| *sequence);
        all
    }

    /// Whether the page of a slot lives there, and whether it has been loaded since this was asked last. So a clock hand goes over segments: what is warm gets
    /// another round.
    pub fn pass_by(&self, slot: SlotId, addr: EntryAddr) -> Passed {
        let here = Backing::Segment(locator(addr));
        let Some(cell) = self.space.slot(slot) else { return Passed::Elsewhere };
        let cool = |word: SlotWord| (word.backing() == here).then(|| word.with_age(word.age()));
        match cell.update(cool) {
            Ok(was) if was.accessed() => Passed::Warm,
            Ok(_) => Passed::Cold,
            Err(_) => Passed::Elsewhere,
        }
    }

    /// Packs segments that outlive the run, until one is won or nothing more is to be won; the room of those that died is there after the next commit. Until then it takes up to
    /// [`Engine::MOST_PACKED`] more.
    ///
    /// # Errors
    /// When a write fails.
    pub fn pack_durable(&self) -> Result<(), WritebackError> {
        let disk = &self.disk;
        let mut writing = disk.writing();
        let mut won = 0;
        for _ in 0..MOST_WRITTEN {
            // As in cleaning: where hardly more than a segment is dead in all, what is packed would only be packed anew.
            if won <= 0 && disk.store().durable_to_win(MOST_ALIVE) < 1 {
                break;
            }
            let pick = |_| disk.store().pick_durable(MOST_ALIVE);
            let gathered = self.gather(disk, &mut writing, vswap_segment::Purpose::Cleaning, pick);
            let Some(gathered) = gathered.inspect_err(|_| disk.put_buffers_away(&mut writing))? else {
                break;
            };
            let one = usize::from(gathered.copied > 0);
            won += gathered.died as isize - one as isize;
            if won > 0 || gathered.died + one == 0 {
                break;
            }
        }
        disk.put_buffers_away(&mut writing);
        Ok(())
    }
}
