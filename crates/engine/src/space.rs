//! [`Space`]: all slots and what is known of their clusters.
//!
//! Two sparse arrays side by side, in segments of growing size that are reserved when first needed and
//! committed page by page: 512 words a cluster (4096 bytes: one page of memory is one cluster), and two words
//! a cluster for its state and for what it has charged to which group. Finding a slot's word takes one count of leading zeroes and one load.
//!
//! # Invariants
//! - The words of a free cluster are all zero (every slot was released), so it needs no clearing when it is
//!   used again.
//! - A cluster's state is changed under its lock, one of 64 chosen by its number. No two of them are held at
//!   once.
//!
//! Lock order: cluster, then the list of free clusters.

use crate::error::EngineError;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use vswap_core::sparse::Located;
use vswap_core::{
    ByteCount, ClusterCharge, ClusterId, ClusterState, GroupId, Load, PAGE_SIZE, PAGES_PER_CLUSTER,
    PageIndex, SlotCell, SlotId, Sparse,
};
use vswap_sys::atomics::AtomicArray;

/// 128 clusters first: 256 MiB of space, 512 KiB of room for words.
const LAYOUT: Sparse = Sparse::new(7);
const LOCKS: usize = 64;
/// Free clusters whose memory is kept for the next need; past that it is given back at once.
const WARM: u64 = 64;
/// No next free cluster.
const END: u32 = u32::MAX;

/// Words of a cluster's record.
const RECORD: usize = 2;
const STATE: usize = 0;
/// [`ClusterCharge`] of a cluster in use, next link of a free one.
const CHARGE: usize = 1;

#[derive(Debug)]
struct Segment {
    slots: AtomicArray,
    records: AtomicArray,
}

#[derive(Debug)]
struct Free {
    /// The first cluster never used.
    next: u32,
    /// Free clusters whose memory is there, and those whose memory was given back.
    warm: u32,
    cold: u32,
    warm_count: u64,
    in_use: u64,
    /// See [`Space::starve`].
    starving: bool,
}

/// All slots.
#[derive(Debug)]
pub(crate) struct Space {
    segments: Box<[OnceLock<Segment>]>,
    free: Mutex<Free>,
    locks: [Mutex<()>; LOCKS],
}

/// A cluster whose lock is held: its state may be changed.
#[derive(Debug)]
pub(crate) struct LockedCluster<'a> {
    space: &'a Space,
    id: ClusterId,
    _lock: MutexGuard<'a, ()>,
}

impl LockedCluster<'_> {
    pub(crate) fn state(&self) -> ClusterState {
        self.space.state(self.id)
    }

    pub(crate) fn set(&mut self, state: ClusterState) {
        if let Some(word) = self.space.record(self.id, STATE) {
            // Release: an owner that reads, without the lock, that it is alone also sees the counts that the
            // others left in the slots before they went.
            word.store(state.to_word(), Ordering::Release);
        }
    }
}

impl Space {
    pub(crate) fn new() -> Self {
        Self {
            segments: (0..LAYOUT.segments()).map(|_| OnceLock::new()).collect(),
            free: Mutex::new(Free {
                next: 0,
                warm: END,
                cold: END,
                warm_count: 0,
                in_use: 0,
                starving: false,
            }),
            locks: [const { Mutex::new(()) }; LOCKS],
        }
    }

    /// The word of a slot; `None` if its cluster was never made.
    pub(crate) fn slot(&self, slot: SlotId) -> Option<SlotCell<'_>> {
        let Located { segment, at } = LAYOUT.locate(slot.cluster().get());
        let words = self.segments[segment].get()?.slots.words();
        Some(SlotCell::new(&words[at * PAGES_PER_CLUSTER + slot.index().get()]))
    }

    /// The words of a cluster's slots from `from` on, found once for all; none if it was never made.
    pub(crate) fn slots_of(
        &self,
        cluster: ClusterId,
        from: PageIndex,
    ) -> impl Iterator<Item = (PageIndex, SlotCell<'_>)> {
        let Located { segment, at } = LAYOUT.locate(cluster.get());
        let words = self.segments[segment].get().map(|segment| segment.slots.words());
        let words = words.map_or(&[][..], |words| &words[at * PAGES_PER_CLUSTER..][..PAGES_PER_CLUSTER]);
        PageIndex::all().zip(words).skip(from.get()).map(|(page, word)| (page, SlotCell::new(word)))
    }

    /// Whether the system gives no memory for more clusters from now on: for a simulation.
    pub(crate) fn starve(&self, starving: bool) {
        self.free.lock().starving = starving;
    }

    /// The state of a cluster, as far as it can be known without its lock.
    pub(crate) fn state(&self, id: ClusterId) -> ClusterState {
        // Acquire: see `LockedCluster::set`.
        self.record(id, STATE)
            .map_or(ClusterState::FREE, |word| ClusterState::from_word(word.load(Ordering::Acquire)))
    }

    pub(crate) fn lock(&self, id: ClusterId) -> LockedCluster<'_> {
        let lock = self.locks[id.get() as usize % LOCKS].lock();
        LockedCluster { space: self, id, _lock: lock }
    }

    /// Makes a cluster with this state, charged to a group.
    pub(crate) fn allocate(&self, state: ClusterState, group: GroupId) -> Result<ClusterId, EngineError> {
        let id = {
            let mut free = self.free.lock();
            let id = self.take_free(&mut free)?;
            free.in_use += 1;
            id
        };
        self.store_record(id, CHARGE, ClusterCharge::new(group).to_word());
        self.lock(id).set(state);
        Ok(id)
    }

    /// Makes these clusters, of all that were ever made the first, with this state, charged to a group.
    pub(crate) fn claim(
        &self,
        ids: &BTreeSet<u32>,
        state: ClusterState,
        group: GroupId,
    ) -> Result<(), EngineError> {
        let Some(last) = ids.last() else { return Ok(()) };
        let mut free = self.free.lock();
        debug_assert_eq!(free.next, 0, "clusters have been made");
        for segment in 0..=LAYOUT.locate(*last).segment {
            self.make_segment(segment)?;
        }
        free.next = last + 1;
        free.in_use = ids.len() as u64;
        // Backwards, so that the first is on top of the list.
        for id in (0..=*last).rev() {
            let id = ClusterId::new(id);
            if ids.contains(&id.get()) {
                self.store_record(id, CHARGE, ClusterCharge::new(group).to_word());
                self.store_record(id, STATE, state.to_word());
            } else {
                self.store_record(id, CHARGE, free.cold.into());
                free.cold = id.get();
            }
        }
        Ok(())
    }

    fn take_free(&self, free: &mut Free) -> Result<ClusterId, EngineError> {
        for list in [&mut free.warm, &mut free.cold] {
            if *list != END {
                let id = ClusterId::new(*list);
                *list = self.load_record(id, CHARGE) as u32;
                free.warm_count = free.warm_count.saturating_sub(1);
                return Ok(id);
            }
        }
        if free.next == END {
            return Err(EngineError::SpaceFull { clusters: END.into() });
        }
        if free.starving {
            let wanted = ByteCount::new(PAGE_SIZE as u64);
            return Err(EngineError::NoMemory { wanted, source: std::io::ErrorKind::OutOfMemory.into() });
        }
        let id = ClusterId::new(free.next);
        self.make_segment(LAYOUT.locate(free.next).segment)?;
        free.next += 1;
        Ok(id)
    }

    fn make_segment(&self, segment: usize) -> Result<(), EngineError> {
        if self.segments[segment].get().is_some() {
            return Ok(());
        }
        let clusters = LAYOUT.segment_len(segment);
        let wanted = ByteCount::new((clusters * PAGE_SIZE) as u64);
        let array = |len| AtomicArray::new(len).map_err(|source| EngineError::NoMemory { wanted, source });
        let made =
            Segment { slots: array(clusters * PAGES_PER_CLUSTER)?, records: array(clusters * RECORD)? };
        // Only one thread at a time makes segments: the caller holds the list of free clusters.
        let _ = self.segments[segment].set(made);
        Ok(())
    }

    /// Frees a cluster that its last referrer left: state and all words are zero by now, and nothing is charged for it.
    pub(crate) fn free(&self, mut cluster: LockedCluster<'_>) {
        let id = cluster.id;
        debug_assert!(self.charge_of(id).load().is_nothing(), "cluster {} is freed with a charge", id.get());
        cluster.set(ClusterState::FREE);
        drop(cluster);
        // The cluster is on no list yet, so nobody can use it while its memory goes.
        let mut free = self.free.lock();
        let keep = free.warm_count < WARM;
        free.in_use -= 1;
        if !keep {
            drop(free);
            let Located { segment, at } = LAYOUT.locate(id.get());
            if let Some(segment) = self.segments[segment].get() {
                segment.slots.discard_page(at * PAGES_PER_CLUSTER);
            }
            free = self.free.lock();
        }
        let free = &mut *free;
        let list = if keep { &mut free.warm } else { &mut free.cold };
        self.store_record(id, CHARGE, (*list).into());
        *list = id.get();
        free.warm_count += u64::from(keep);
    }

    /// What a cluster in use has charged, and to whom.
    pub(crate) fn charge_of(&self, id: ClusterId) -> ClusterCharge {
        ClusterCharge::from_word(self.load_record(id, CHARGE))
    }

    /// Adds to what a cluster in use has charged, if that is still to `group`.
    pub(crate) fn add_load(&self, id: ClusterId, load: Load, group: GroupId) -> bool {
        // Relaxed: as below.
        let add = |word: u64| {
            let same = ClusterCharge::from_word(word).group() == group;
            same.then(|| word.wrapping_add(load.to_word()))
        };
        let record = self.record(id, CHARGE);
        record.is_some_and(|word| word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok())
    }

    /// Takes off what a cluster in use has charged; gives the word before.
    pub(crate) fn take_load(&self, id: ClusterId, load: Load) -> ClusterCharge {
        let addend = load.to_word().wrapping_neg();
        // Relaxed: a number that guards nothing; that the cluster is in use meanwhile is seen to by its owners and its lock.
        let before = self.record(id, CHARGE).map_or(0, |word| word.fetch_add(addend, Ordering::Relaxed));
        ClusterCharge::from_word(before)
    }

    /// Charges a cluster in use to another group, if it has still charged what was `seen`.
    pub(crate) fn regroup(&self, id: ClusterId, seen: ClusterCharge, group: GroupId) -> bool {
        let new = seen.of_group(group).to_word();
        self.record(id, CHARGE).is_some_and(|word| {
            word.compare_exchange(seen.to_word(), new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        })
    }

    /// The number that no cluster has reached.
    pub(crate) fn end(&self) -> u32 {
        self.free.lock().next
    }

    /// Clusters in use.
    pub(crate) fn clusters(&self) -> u64 {
        self.free.lock().in_use
    }

    /// Memory that is committed for slots and records.
    pub(crate) fn memory(&self) -> u64 {
        let free = self.free.lock();
        let records =
            (u64::from(free.next) * (RECORD * size_of::<u64>()) as u64).next_multiple_of(PAGE_SIZE as u64);
        (free.in_use + free.warm_count) * PAGE_SIZE as u64 + records
    }

    fn record(&self, id: ClusterId, field: usize) -> Option<&AtomicU64> {
        let Located { segment, at } = LAYOUT.locate(id.get());
        Some(&self.segments[segment].get()?.records.words()[at * RECORD + field])
    }

    /// Relaxed: a free cluster's word is read and written by whoever holds the free list, and that of one in use guards nothing.
    fn load_record(&self, id: ClusterId, field: usize) -> u64 {
        self.record(id, field).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn store_record(&self, id: ClusterId, field: usize, value: u64) {
        if let Some(word) = self.record(id, field) {
            word.store(value, Ordering::Relaxed);
        }
    }
}
