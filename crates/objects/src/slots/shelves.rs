//! [`Shelves`]: clusters whose slots are shared out to the objects of a store, in runs.
//!
//! # Invariants
//! - A slot that is not taken has no bytes.
//! - Runs of objects that are in memory are claimed, each by one object.
//! - What a commit is told of a cluster has nothing of an object that nobody finds any more.
//! - Of an object that is not in memory, slots are held if nothing of it may be given up.

use super::runs::{Claim, Run};
use crate::object::Objects;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use vswap_core::{Bitmap512, ClusterId, PAGES_PER_CLUSTER, PageIndex, SlotId};
use vswap_engine::{DurableError, Engine, EngineError, KeptCluster};

/// A leaf, but for the engine's locks.
#[derive(Debug, Default)]
pub(crate) struct Shelves(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    shelves: BTreeMap<ClusterId, Shelf>,
    /// The longest run that each has free, of those that have any.
    room: BTreeSet<(u16, ClusterId)>,
    /// Those of which the last commit may have kept something else.
    touched: BTreeSet<ClusterId>,
}

#[derive(Debug, Default)]
struct Shelf {
    taken: Bitmap512,
    /// As in `room`.
    longest: u16,
    /// Slots of objects of which nothing may be given up; of those in memory it is their claim that tells.
    held: Bitmap512,
    /// By first slot.
    claims: BTreeMap<u16, Claimed>,
}

#[derive(Debug)]
struct Claimed {
    pages: u16,
    /// The object's page that has the first slot.
    page: u64,
    by: Claim,
}

/// A cluster as a commit keeps it.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) cluster: KeptCluster,
    /// Slots that objects have.
    pub(crate) taken: Bitmap512,
    /// Those of objects of which nothing may be given up.
    pub(crate) held: Bitmap512,
}

/// Who would have to give up a slot's page.
pub(crate) enum Holder {
    /// An object that is not in memory, and may.
    Absent,
    /// An object in memory: its number, and which of its pages it is.
    Object(u64, u64),
    /// One that must not.
    Held,
}

fn set(run: Run) -> Bitmap512 {
    Bitmap512::from_range(run.first.index(), run.pages.into())
}

fn at(run: Run) -> u16 {
    run.first.index().get() as u16
}

fn place(at: u16) -> PageIndex {
    PageIndex::new(at.into()).expect("it is a slot's")
}

impl Shelf {
    fn free(&self) -> impl Iterator<Item = Run> + use<'_> {
        // Of no cluster: only the places count.
        let run = |(first, pages): (PageIndex, usize)| Run {
            first: ClusterId::new(0).slot(first),
            pages: pages as u16,
        };
        Bitmap512::FULL.and_not(&self.taken).runs().map(run)
    }
}

impl Shelves {
    /// Clusters of a former run, with the slots that are taken.
    pub(crate) fn found(clusters: impl IntoIterator<Item = (ClusterId, Bitmap512, Bitmap512)>) -> Self {
        let mut state = State::default();
        for (cluster, taken, held) in clusters {
            state.shelves.insert(cluster, Shelf { taken, held, ..Shelf::default() });
            state.settle(cluster);
        }
        state.touched.clear();
        Self(Mutex::new(state))
    }

    /// Slots that follow each other, for these pages, at most a cluster's; they have no bytes.
    pub(crate) fn take(&self, of: &Objects, wanted: &Range<u64>, claim: &Claim) -> Result<Run, EngineError> {
        let pages = (wanted.end - wanted.start) as u16;
        let mut state = self.0.lock();
        let fits = state.room.range((pages, ClusterId::new(0))..).next();
        let cluster = match fits {
            Some((_, cluster)) => *cluster,
            None => {
                let cluster = of.engine().new_kept_cluster(of.group())?;
                state.shelves.insert(cluster, Shelf::default());
                cluster
            }
        };
        let shelf = state.shelves.get_mut(&cluster).expect("those with room are there");
        // The tightest fit, so that long ones stay.
        let free = shelf.free().filter(|run| run.pages >= pages).min_by_key(|run| run.pages);
        let run = Run { first: cluster.slot(free.expect("it has a run as long").first.index()), pages };
        shelf.taken = shelf.taken.or(&set(run));
        shelf.claims.insert(at(run), Claimed { pages, page: wanted.start, by: claim.clone() });
        state.settle(cluster);
        Ok(run)
    }

    /// The slots of a run, of which none has bytes any more, are free but for the first `left`.
    pub(crate) fn cut(&self, engine: &Engine, run: Run, left: u16) -> Option<Run> {
        let mut state = self.0.lock();
        let cluster = run.first.cluster();
        let shelf = state.shelves.get_mut(&cluster)?;
        let rest = (left > 0).then_some(Run { pages: left, ..run });
        let stays = rest.map_or(Bitmap512::EMPTY, set);
        shelf.taken = shelf.taken.and_not(&set(run).and_not(&stays));
        match shelf.claims.get_mut(&at(run)) {
            Some(claimed) if left > 0 => claimed.pages = left,
            _ => drop(shelf.claims.remove(&at(run))),
        }
        state.settle_or_drop(engine, cluster);
        rest
    }

    /// The slots of a run, of which none has bytes any more, are free.
    pub(crate) fn free(&self, engine: &Engine, run: Run) {
        self.cut(engine, run, 0);
    }

    /// An object that comes into memory has this run. Tells whether it can be: it is taken, and no other object's in memory.
    pub(crate) fn claim(&self, page: u64, run: Run, claim: &Claim) -> bool {
        let mut state = self.0.lock();
        let Some(shelf) = state.shelves.get_mut(&run.first.cluster()) else { return false };
        let end = at(run) + run.pages;
        let before = shelf.claims.range(..end).next_back().map_or(0, |(first, of)| first + of.pages);
        let free = before <= at(run) && set(run).and_not(&shelf.taken).is_empty();
        if free {
            shelf.claims.insert(at(run), Claimed { pages: run.pages, page, by: claim.clone() });
        }
        free
    }

    /// The object of this run goes out of memory.
    pub(crate) fn let_out(&self, run: Run) {
        let mut state = self.0.lock();
        let Some(shelf) = state.shelves.get_mut(&run.first.cluster()) else { return };
        let held = shelf.claims.remove(&at(run)).is_some_and(|of| of.by.is_held());
        let others = shelf.held.and_not(&set(run));
        shelf.held = if held { others.or(&set(run)) } else { others };
    }

    /// Who would have to give up a slot's page.
    pub(crate) fn holder(&self, slot: SlotId) -> Holder {
        let state = self.0.lock();
        let Some(shelf) = state.shelves.get(&slot.cluster()) else { return Holder::Held };
        let index = slot.index().get() as u16;
        let claimed = shelf.claims.range(..=index).next_back();
        match claimed.filter(|(first, of)| index - **first < of.pages) {
            Some((_, of)) if of.by.is_gone() || of.by.is_pinned() => Holder::Held,
            Some((first, of)) => Holder::Object(of.by.id, of.page + u64::from(index - first)),
            None if shelf.taken.get(slot.index()) && !shelf.held.get(slot.index()) => Holder::Absent,
            None => Holder::Held,
        }
    }

    /// Those of which the last commit may have kept something else.
    pub(crate) fn take_touched(&self) -> BTreeSet<ClusterId> {
        std::mem::take(&mut self.0.lock().touched)
    }

    /// Of these it has something else, or has it still.
    pub(crate) fn touch(&self, clusters: impl IntoIterator<Item = ClusterId>) {
        self.0.lock().touched.extend(clusters);
    }

    /// What a commit is to keep of a cluster; `None` if nothing. All that is to be kept has been written down.
    pub(crate) fn kept(&self, engine: &Engine, cluster: ClusterId) -> Result<Option<Kept>, DurableError> {
        let state = self.0.lock();
        let Some(shelf) = state.shelves.get(&cluster) else { return Ok(None) };
        let (mut taken, mut held) = (shelf.taken, shelf.held);
        for (first, of) in &shelf.claims {
            let slots = Bitmap512::from_range(place(*first), of.pages.into());
            taken = if of.by.is_gone() { taken.and_not(&slots) } else { taken };
            held = if of.by.is_held() { held.or(&slots) } else { held.and_not(&slots) };
        }
        let held = held.and_not(&Bitmap512::FULL.and_not(&taken));
        if taken.is_empty() {
            return Ok(None);
        }
        Ok(Some(Kept { cluster: engine.kept_cluster(cluster, &taken)?, taken, held }))
    }

    /// Frees slots that are taken and in none of `runs`, nor in memory, with what they have. Gives how many they were.
    pub(crate) fn free_lost(&self, of: &Objects, runs: impl IntoIterator<Item = Run>) -> u64 {
        let mut state = self.0.lock();
        let mut had: BTreeMap<ClusterId, Bitmap512> = BTreeMap::new();
        for run in runs {
            let had = had.entry(run.first.cluster()).or_default();
            *had = had.or(&set(run));
        }
        let (mut freed, mut clusters) = (0, Vec::new());
        for (cluster, shelf) in &mut state.shelves {
            let claimed =
                shelf.claims.iter().map(|(first, of)| Bitmap512::from_range(place(*first), of.pages.into()));
            let known = claimed.fold(had.get(cluster).copied().unwrap_or_default(), |all, run| all.or(&run));
            let lost = shelf.taken.and_not(&known);
            if lost.is_empty() {
                continue;
            }
            let slots = lost.iter().map(|page| cluster.slot(page));
            slots.filter(|slot| of.engine().has_page(*slot)).for_each(|slot| of.empty_kept(slot));
            (shelf.taken, shelf.held) = (shelf.taken.and_not(&lost), shelf.held.and_not(&lost));
            freed += lost.count() as u64;
            clusters.push(*cluster);
        }
        clusters.into_iter().for_each(|cluster| state.settle_or_drop(of.engine(), cluster));
        freed
    }

    /// Whether each slot that is taken is in one of `runs`, and no slot in two, but for those of objects that nobody finds any more.
    pub(crate) fn audit(&self, runs: impl IntoIterator<Item = Run>) -> Result<(), String> {
        let state = self.0.lock();
        let mut had: BTreeMap<ClusterId, Bitmap512> = BTreeMap::new();
        let gone = state.shelves.iter().flat_map(|(cluster, shelf)| {
            let gone = shelf.claims.iter().filter(|(_, of)| of.by.is_gone());
            gone.map(|(first, of)| Run { first: cluster.slot(place(*first)), pages: of.pages })
        });
        for run in runs.into_iter().chain(gone) {
            let had = had.entry(run.first.cluster()).or_default();
            if had.and_not(&set(run)) != *had {
                return Err(format!("{run:?} is two objects'"));
            }
            *had = had.or(&set(run));
        }
        let taken = |(cluster, shelf): (&ClusterId, &Shelf)| (*cluster, shelf.taken);
        let taken: BTreeMap<_, _> = state.shelves.iter().map(taken).collect();
        let differs = had.iter().chain(&taken).find(|(cluster, _)| had.get(cluster) != taken.get(cluster));
        differs.map_or(Ok(()), |(cluster, _)| {
            let count = |of: &BTreeMap<ClusterId, Bitmap512>| of.get(cluster).map_or(0, Bitmap512::count);
            Err(format!(
                "of cluster {} objects have {} slots and {} are taken",
                cluster.get(),
                count(&had),
                count(&taken)
            ))
        })
    }
}

impl State {
    /// What is taken of a cluster has become less.
    fn settle_or_drop(&mut self, engine: &Engine, cluster: ClusterId) {
        match self.shelves.get(&cluster) {
            Some(shelf) if shelf.taken.is_empty() => {
                self.room.remove(&(shelf.longest, cluster));
                self.shelves.remove(&cluster);
                self.touched.insert(cluster);
                engine.free_kept_cluster(cluster);
            }
            _ => self.settle(cluster),
        }
    }

    /// What is taken of a cluster has changed.
    fn settle(&mut self, cluster: ClusterId) {
        let Some(shelf) = self.shelves.get_mut(&cluster) else { return };
        let longest = shelf.free().map(|run| run.pages).max().unwrap_or(0);
        self.room.remove(&(shelf.longest, cluster));
        shelf.longest = longest;
        if longest > 0 {
            self.room.insert((longest, cluster));
        }
        self.touched.insert(cluster);
    }
}

const _: () = assert!(PAGES_PER_CLUSTER <= u16::MAX as usize);
