//! Every interleaving of owners that share slots, keep them, hand them over and leave, while the engine moves the
//! bytes. Cluster and slots count as in the engine's `share.rs`, each step under the same lock; blocks are as its
//! `OwnerBlock`, with clusters of two slots.
//!
//! What is proven: what an owner has stays what it was for as long as it has it, whatever the others do; the last one
//! to leave frees the bytes, once; a cluster is freed when nobody is left, with its words empty, and may be used
//! again at once. Counts past 254 (the side table) are left out.
use crate::bytes::{Bytes, Slot, model};
use crate::seen::Seen;
use loom::sync::{Arc, Mutex, MutexGuard};
use loom::thread;
use vswap_core::slot::{SlotCell, SlotWord};
use vswap_core::sync::{AtomicU64, Ordering};
use vswap_core::{ClusterState, SwapCount};

/// Slots of a cluster. The pages of a block have the same numbers.
const PAGES: usize = 2;
const CLUSTERS: usize = 3;

struct Cluster {
    lock: Mutex<()>,
    state: AtomicU64,
    words: [AtomicU64; PAGES],
}

/// A cluster whose lock is held.
struct Locked<'a> {
    cluster: &'a Cluster,
    _lock: MutexGuard<'a, ()>,
}

impl Locked<'_> {
    fn state(&self) -> ClusterState {
        self.cluster.state()
    }

    fn set(&mut self, state: ClusterState) {
        self.cluster.state.store(state.to_word(), Ordering::Release);
    }
}

impl Cluster {
    fn new() -> Self {
        Self {
            lock: Mutex::new(()),
            state: AtomicU64::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn state(&self) -> ClusterState {
        ClusterState::from_word(self.state.load(Ordering::Acquire))
    }

    fn lock(&self) -> Locked<'_> {
        Locked { _lock: self.lock.lock().unwrap(), cluster: self }
    }
}

fn count(word: SlotWord) -> u64 {
    match word.count() {
        SwapCount::Exact(count) => count.into(),
        SwapCount::Overflowed => unreachable!("no model has so many owners"),
    }
}

/// A slot's number, from which its cluster and place follow.
type SlotNumber = usize;

struct World {
    clusters: [Cluster; CLUSTERS],
    bytes: Bytes,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self { clusters: std::array::from_fn(|_| Cluster::new()), bytes: Bytes::new() })
    }

    fn slot(&self, number: SlotNumber) -> Slot<'_> {
        let cell = SlotCell::new(&self.clusters[number / PAGES].words[number % PAGES]);
        Slot { number: number as u64, cell, bytes: &self.bytes }
    }

    fn cluster_of(&self, slot: SlotNumber) -> &Cluster {
        &self.clusters[slot / PAGES]
    }

    /// The first free cluster, so that those that were freed come back.
    fn new_cluster(&self, state: ClusterState) -> usize {
        let free = self.clusters.iter().position(|cluster| {
            let mut cluster = cluster.lock();
            let free = !cluster.state().in_use();
            if free {
                cluster.set(state);
            }
            free
        });
        free.expect("no model has more clusters at once")
    }

    fn free_if_abandoned(&self, mut cluster: Locked<'_>) {
        if cluster.state().is_abandoned() {
            let empty = |word: &AtomicU64| SlotCell::new(word).load() == SlotWord::EMPTY;
            assert!(cluster.cluster.words.iter().all(empty), "a free cluster with a slot in use");
            cluster.set(ClusterState::FREE);
        }
    }

    fn set_count(&self, cluster: &mut Locked<'_>, slot: SlotNumber, from: u64, to: u64) {
        let _ = self.slot(slot).cell.update(|word| Some(word.with_count(to)));
        let state = cluster.state();
        let state = match (from, to) {
            (0, 1) => state.list_slot(),
            (1, 0) => state.unlist_slot(),
            _ => return,
        };
        cluster.set(state.expect("listed slots are counted exactly"));
    }

    fn list_slot(&self, cluster: &mut Locked<'_>, slot: SlotNumber) {
        let count = count(self.slot(slot).cell.load());
        self.set_count(cluster, slot, count, count + 1);
    }

    fn keep_slot(&self, slot: SlotNumber) {
        self.list_slot(&mut self.cluster_of(slot).lock(), slot);
    }

    fn let_slot_go(&self, slot: SlotNumber) {
        self.unlist_slot(slot);
    }

    fn unlist_slot(&self, slot: SlotNumber) {
        let cell = self.slot(slot).cell;
        let mut cluster = self.cluster_of(slot).lock();
        let count = count(cell.load());
        let mut last = SlotWord::EMPTY;
        if count == 1 && cluster.state().direct_owners() == 0 {
            last = cell.update(|_| Some(SlotWord::EMPTY)).unwrap();
            let state = cluster.state().unlist_slot();
            cluster.set(state.expect("listed slots are counted exactly"));
        } else {
            assert!(count > 0, "let go more often than kept");
            self.set_count(&mut cluster, slot, count, count - 1);
        }
        self.free_if_abandoned(cluster);
        self.slot(slot).free_backing(last);
    }

    fn is_exclusive_listed(&self, slot: SlotNumber) -> bool {
        let cluster = self.cluster_of(slot).lock();
        cluster.state().direct_owners() == 0 && count(self.slot(slot).cell.load()) == 1
    }

    fn is_exclusive_direct(&self, slot: SlotNumber) -> bool {
        self.cluster_of(slot).state().is_sole_direct() && count(self.slot(slot).cell.load()) == 0
    }

    fn share_cluster(&self, id: usize) {
        let mut cluster = self.clusters[id].lock();
        let state = cluster.state().share();
        cluster.set(state.unwrap());
    }

    fn unshare_cluster(&self, id: usize) {
        let mut cluster = self.clusters[id].lock();
        let state = cluster.state().unshare().expect("direct owners are counted exactly");
        if state.direct_owners() > 0 {
            return cluster.set(state);
        }
        cluster.set(ClusterState::from_word(state.to_word() | ClusterState::held().to_word()));
        drop(cluster);
        for page in 0..PAGES {
            let slot = self.slot(id * PAGES + page);
            let unowned = |word: SlotWord| count(word) == 0 && !word.is_empty();
            if unowned(slot.cell.load())
                && let Ok(old) = slot.cell.update(|word| unowned(word).then_some(SlotWord::EMPTY))
            {
                slot.free_backing(old);
            }
        }
        self.let_go(id);
    }

    fn let_go(&self, id: usize) {
        let mut cluster = self.clusters[id].lock();
        let state = cluster.state().let_go();
        cluster.set(state);
        self.free_if_abandoned(cluster);
    }

    fn list_cluster(&self, id: usize) -> [Option<SlotNumber>; PAGES] {
        let mut slots = [None; PAGES];
        let mut cluster = self.clusters[id].lock();
        let alone = cluster.state().direct_owners() == 1;
        for (page, listed) in slots.iter_mut().enumerate() {
            let slot = id * PAGES + page;
            if alone || !self.slot(slot).cell.load().is_empty() {
                self.list_slot(&mut cluster, slot);
                *listed = Some(slot);
            }
        }
        let state = cluster.state().unshare().expect("direct owners are counted exactly");
        cluster.set(state);
        self.free_if_abandoned(cluster);
        slots
    }

    fn take_slot(&self, slot: SlotNumber) -> bool {
        let mut cluster = self.cluster_of(slot).lock();
        if self.slot(slot).cell.load() != SlotWord::EMPTY {
            return false;
        }
        self.list_slot(&mut cluster, slot);
        true
    }

    /// All owners are gone: nothing is left.
    fn check(&self) {
        for cluster in &self.clusters {
            assert_eq!(cluster.state(), ClusterState::FREE, "a cluster is left");
            let empty = |word: &AtomicU64| SlotCell::new(word).load() == SlotWord::EMPTY;
            assert!(cluster.words.iter().all(empty), "a slot is left");
        }
        self.bytes.check();
    }
}

/// As `OwnerBlock`.
enum Owner {
    None,
    Direct(usize),
    Listed { slots: [Option<SlotNumber>; PAGES], fresh: Option<usize> },
}

impl Owner {
    /// An owner of a cluster whose first slot has content 1.
    fn new(world: &World) -> Self {
        let mut owner = Self::None;
        owner.store(world, 0, 1);
        owner
    }

    fn slot(&self, page: usize) -> Option<SlotNumber> {
        match self {
            Self::None => None,
            Self::Direct(cluster) => Some(cluster * PAGES + page),
            Self::Listed { slots, .. } => slots[page],
        }
    }

    fn load(&self, world: &World, page: usize) -> Option<u32> {
        self.slot(page).and_then(|slot| world.slot(slot).load())
    }

    fn slot_for_store(&mut self, world: &World, page: usize) -> SlotNumber {
        if let Self::None = self {
            *self = Self::Direct(world.new_cluster(ClusterState::direct()));
        }
        if let Self::Direct(cluster) = self {
            let slot = *cluster * PAGES + page;
            if world.is_exclusive_direct(slot) {
                return slot;
            }
        }
        let (slots, fresh) = self.listed(world);
        let former = slots[page];
        if let Some(slot) = former.filter(|slot| world.is_exclusive_listed(*slot)) {
            return slot;
        }
        let taken = fresh.map(|fresh| fresh * PAGES + page).filter(|slot| world.take_slot(*slot));
        let slot = taken.unwrap_or_else(|| {
            let new = world.new_cluster(ClusterState::held());
            if let Some(former) = fresh.replace(new) {
                world.let_go(former);
            }
            assert!(world.take_slot(new * PAGES + page), "a fresh cluster's slots are free");
            new * PAGES + page
        });
        slots[page] = Some(slot);
        if let Some(former) = former {
            world.unlist_slot(former);
        }
        slot
    }

    fn store(&mut self, world: &World, page: usize, content: u32) {
        let slot = self.slot_for_store(world, page);
        world.slot(slot).store(content);
    }

    fn release(&mut self, world: &World, page: usize) {
        if self.slot(page).is_none_or(|slot| world.slot(slot).cell.load().is_empty()) {
            return;
        }
        if let Self::Direct(cluster) = self {
            let slot = *cluster * PAGES + page;
            if world.is_exclusive_direct(slot) {
                return world.slot(slot).empty();
            }
        }
        if let Some(slot) = self.listed(world).0[page].take() {
            world.unlist_slot(slot);
        }
    }

    fn fork(&self, world: &World) -> Self {
        match self {
            Self::Direct(cluster) => {
                world.share_cluster(*cluster);
                Self::Direct(*cluster)
            }
            Self::None | Self::Listed { .. } => unreachable!("no model forks one of these"),
        }
    }

    fn adopt(&mut self, world: &World, page: usize, slot: SlotNumber) {
        if let Some(former) = self.listed(world).0[page].replace(slot) {
            world.unlist_slot(former);
        }
    }

    fn dispose(self, world: &World) {
        match self {
            Self::None => {}
            Self::Direct(cluster) => world.unshare_cluster(cluster),
            Self::Listed { slots, fresh } => {
                slots.into_iter().flatten().for_each(|slot| world.unlist_slot(slot));
                if let Some(fresh) = fresh {
                    world.let_go(fresh);
                }
            }
        }
    }

    fn listed(&mut self, world: &World) -> (&mut [Option<SlotNumber>; PAGES], &mut Option<usize>) {
        match self {
            Self::None => *self = Self::Listed { slots: [None; PAGES], fresh: None },
            Self::Direct(cluster) => {
                *self = Self::Listed { slots: world.list_cluster(*cluster), fresh: None }
            }
            Self::Listed { .. } => {}
        }
        match self {
            Self::Listed { slots, fresh } => (slots, fresh),
            Self::None | Self::Direct(_) => unreachable!("made a list just above"),
        }
    }
}

fn spawn(world: &Arc<World>, act: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || act(&world))
}

/// An owner's page 0 is stored, and kept for somebody else, as `Parting::bequeath` does it.
fn kept(world: &World) -> (Owner, SlotNumber) {
    let owner = Owner::new(world);
    let slot = owner.slot(0).unwrap();
    world.keep_slot(slot);
    (owner, slot)
}

#[test]
fn what_is_kept_outlives_its_owner() {
    model(Some(3), || {
        let world = World::new();
        let (mut owner, slot) = kept(&world);
        // One that nobody keeps: the cluster must not go before it is emptied.
        owner.store(&world, 1, 2);
        let writer = spawn(&world, move |world| world.slot(slot).write_back(0));
        let heir = spawn(&world, move |world| {
            assert_eq!(world.slot(slot).load(), Some(1));
            world.let_slot_go(slot);
        });
        assert_eq!(owner.load(&world, 0), Some(1));
        owner.dispose(&world);
        writer.join().unwrap();
        heir.join().unwrap();
        world.check();
    });
}

#[test]
fn what_is_kept_outlives_its_owners_release_while_it_is_compacted() {
    model(Some(3), || {
        let world = World::new();
        let (mut owner, slot) = kept(&world);
        let compaction = spawn(&world, move |world| {
            world.slot(slot).compact(true);
        });
        let heir = spawn(&world, move |world| {
            assert_eq!(world.slot(slot).load(), Some(1));
            world.let_slot_go(slot);
        });
        owner.release(&world, 0);
        compaction.join().unwrap();
        heir.join().unwrap();
        assert_eq!(owner.load(&world, 0), None);
        owner.dispose(&world);
        world.check();
    });
}

#[test]
fn a_store_spares_what_is_kept() {
    // The owner comes before or after the heir's end: then it stores in place.
    static ELSEWHERE: Seen = Seen::new();
    static IN_PLACE: Seen = Seen::new();
    model(Some(3), || {
        let world = World::new();
        let (mut owner, slot) = kept(&world);
        let writer = spawn(&world, move |world| world.slot(slot).write_back(0));
        let heir = spawn(&world, move |world| {
            assert_eq!(world.slot(slot).load(), Some(1));
            world.let_slot_go(slot);
        });
        owner.store(&world, 0, 2);
        let in_place = owner.slot(0) == Some(slot);
        IN_PLACE.note(in_place);
        ELSEWHERE.note(!in_place);
        assert_eq!(owner.load(&world, 0), Some(2));
        writer.join().unwrap();
        heir.join().unwrap();
        assert_eq!(owner.load(&world, 0), Some(2));
        owner.dispose(&world);
        world.check();
    });
    ELSEWHERE.check();
    IN_PLACE.check();
}

#[test]
fn an_adopted_slot_is_its_new_owners() {
    model(Some(3), || {
        let world = World::new();
        let (mut owner, slot) = kept(&world);
        let writer = spawn(&world, move |world| world.slot(slot).write_back(0));
        let heir = spawn(&world, move |world| {
            let mut heir = Owner::None;
            heir.adopt(world, 0, slot);
            assert_eq!(heir.load(world, 0), Some(1));
            heir.store(world, 0, 3);
            assert_eq!(heir.load(world, 0), Some(3));
            heir.dispose(world);
        });
        owner.release(&world, 0);
        writer.join().unwrap();
        heir.join().unwrap();
        owner.dispose(&world);
        world.check();
    });
}

#[test]
fn what_an_heir_had_before_it_adopts_is_let_go_while_it_moves() {
    model(Some(2), || {
        let world = World::new();
        // Parent and child have content 1 in common; a third has content 2 for the parent.
        let mut parent = Owner::new(&world);
        let mut child = parent.fork(&world);
        let former = parent.slot(0).unwrap();
        let mut other = Owner::None;
        other.store(&world, 0, 2);
        let slot = other.slot(0).unwrap();
        world.keep_slot(slot);
        let writer = spawn(&world, move |world| world.slot(former).write_back(0));
        let leaving = spawn(&world, move |world| {
            child.release(world, 0);
            child.dispose(world);
        });
        assert_eq!(parent.load(&world, 0), Some(1));
        parent.adopt(&world, 0, slot);
        writer.join().unwrap();
        leaving.join().unwrap();
        other.dispose(&world);
        assert_eq!(parent.load(&world, 0), Some(2));
        parent.dispose(&world);
        world.check();
    });
}

/// Where an owner has stored a page for so many heirs, as the pager's `Shares`.
struct Shares {
    heirs: u8,
    slot: Option<SlotNumber>,
}

/// As `Parting::inherit`: one owner more, and the last heir takes away what was kept for it.
fn inherit(world: &World, shares: &Mutex<Shares>) -> SlotNumber {
    let mut shares = shares.lock().unwrap();
    let slot = shares.slot.expect("kept as long as there is an heir");
    world.keep_slot(slot);
    shares.heirs -= 1;
    if shares.heirs == 0 {
        shares.slot = None;
        world.let_slot_go(slot);
    }
    slot
}

#[test]
fn heirs_keep_it_on_while_its_owner_stores_and_it_moves() {
    model(Some(2), || {
        let world = World::new();
        let (mut owner, slot) = kept(&world);
        let shares = Arc::new(Mutex::new(Shares { heirs: 2, slot: Some(slot) }));
        let writer = spawn(&world, move |world| world.slot(slot).write_back(0));
        let heirs = [(); 2].map(|()| {
            let shares = Arc::clone(&shares);
            spawn(&world, move |world| {
                let slot = inherit(world, &shares);
                assert_eq!(world.slot(slot).load(), Some(1));
                world.let_slot_go(slot);
            })
        });
        owner.store(&world, 0, 2);
        assert_eq!(owner.load(&world, 0), Some(2));
        writer.join().unwrap();
        heirs.into_iter().for_each(|heir| heir.join().unwrap());
        owner.dispose(&world);
        world.check();
    });
}

#[test]
fn a_slot_that_was_let_go_is_taken_anew() {
    static ANEW: Seen = Seen::new();
    model(Some(3), || {
        let world = World::new();
        // An owner with a list, whose page 0 is in its fresh cluster and kept.
        let mut owner = Owner::None;
        owner.listed(&world);
        owner.store(&world, 0, 1);
        let slot = owner.slot(0).unwrap();
        world.keep_slot(slot);
        owner.release(&world, 0);
        let writer = spawn(&world, move |world| world.slot(slot).write_back(0));
        let heir = spawn(&world, move |world| {
            assert_eq!(world.slot(slot).load(), Some(1));
            world.let_slot_go(slot);
        });
        owner.store(&world, 0, 2);
        ANEW.note(owner.slot(0) == Some(slot));
        assert_eq!(owner.load(&world, 0), Some(2));
        writer.join().unwrap();
        heir.join().unwrap();
        assert_eq!(owner.load(&world, 0), Some(2));
        owner.dispose(&world);
        world.check();
    });
    ANEW.check();
}

#[test]
fn an_owner_that_goes_over_to_a_list_takes_along_what_it_is_about_to_store_to() {
    model(None, || {
        let world = World::new();
        let (mut owner, slot) = kept(&world);
        let heir = spawn(&world, move |world| world.let_slot_go(slot));
        // Between the two steps of a store the block is not locked.
        let empty = owner.slot_for_store(&world, 1);
        owner.release(&world, 0);
        world.slot(empty).store(2);
        assert_eq!(owner.load(&world, 1), Some(2));
        heir.join().unwrap();
        owner.dispose(&world);
        world.check();
    });
}
