//! Every two that can meet on one slot, from every backing that it can have: `RUSTFLAGS="--cfg loom" cargo test -p vswap-core --release --test it`.
//!
//! What is proven, whatever the interleaving: a load gives the bytes that are the slot's, or says that they are lost if somebody found that
//! they are; a store or release prevails; counts are exact; each backing is freed once. And that the matrix of docs/transitions.md is true: two
//! that it says to meet have both happened in one run, and two that it says not to never have.
use crate::bytes::{Bytes, Compacted, Filling, Found, Slot, model};
use crate::transitions::{Transition, matrix};
use Transition as T;
use loom::sync::{Arc, Mutex};
use loom::thread;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use vswap_core::slot::{SlotCell, SlotWord};
use vswap_core::sync::AtomicU64;
use vswap_core::{Backing, SwapCount};

const SLOT: u64 = 42;
const OLD: u32 = 1;
const NEW: u32 = 2;
/// The batch of what is in a segment from the start, and that of the writer.
const FORMER: u8 = 1;
const BATCH: u8 = 0;

/// Somebody who does one thing after the other, each of which may come to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Actor {
    StorePattern,
    StorePage,
    ReleaseSole,
    /// One of several, or the last of them.
    Leave,
    Load,
    Damage,
    Fork,
    Hand,
    WriteBack,
    WriteInVain,
    Compact,
    CompactInVain,
    Clean,
    Move,
    GiveUp,
    ComeBack,
    PassOver,
}

impl Actor {
    const ALL: [Self; 17] = [
        Self::StorePattern,
        Self::StorePage,
        Self::ReleaseSole,
        Self::Leave,
        Self::Load,
        Self::Damage,
        Self::Fork,
        Self::Hand,
        Self::WriteBack,
        Self::WriteInVain,
        Self::Compact,
        Self::CompactInVain,
        Self::Clean,
        Self::Move,
        Self::GiveUp,
        Self::ComeBack,
        Self::PassOver,
    ];

    /// What it may do.
    fn transitions(self) -> &'static [Transition] {
        match self {
            Self::StorePattern => &[T::StorePattern],
            Self::StorePage => &[T::StorePage],
            Self::ReleaseSole => &[T::ReleaseSole],
            Self::Leave => &[T::ReleaseOne, T::ReleaseLast],
            Self::Load => &[T::Load],
            Self::Damage => &[T::Damage],
            Self::Fork => &[T::Fork],
            Self::Hand => &[T::Hand],
            Self::WriteBack => &[T::Take, T::Flip],
            Self::WriteInVain => &[T::Take, T::TurnBack],
            Self::Compact => &[T::CompactionTakes, T::CompactionFlips],
            Self::CompactInVain => &[T::CompactionTakes, T::CompactionTurnsBack],
            Self::Clean => &[T::Clean],
            Self::Move => &[T::Move],
            Self::GiveUp => &[T::GiveUp],
            Self::ComeBack => &[T::ComeBack],
            Self::PassOver => &[T::PassOver],
        }
    }

    fn is_sole(self) -> bool {
        matches!(self, Self::StorePattern | Self::StorePage | Self::ReleaseSole | Self::PassOver)
    }

    /// Whether a reference of its own is behind what it does.
    fn is_owner(self) -> bool {
        matches!(self, Self::Leave | Self::Load | Self::Damage | Self::Fork)
    }

    fn stores(self) -> bool {
        matches!(self, Self::StorePattern | Self::StorePage)
    }

    fn loses_bytes(self) -> bool {
        matches!(self, Self::Damage | Self::GiveUp)
    }
}

/// What a load may come upon.
#[derive(Clone, Copy)]
struct Others {
    /// Somebody finds that the bytes are gone.
    lose: bool,
    /// Its owner stores.
    store: bool,
}

/// Where the slot's bytes are at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    Empty,
    Fill,
    Pool,
    Segment,
    Poisoned,
}

const STARTS: [Start; 5] = [Start::Empty, Start::Fill, Start::Pool, Start::Segment, Start::Poisoned];

struct World {
    word: AtomicU64,
    /// The cluster's: counts change under it.
    lock: Mutex<()>,
    bytes: Bytes,
}

impl World {
    fn new(start: Start, owners: u64) -> Self {
        let world = Self { word: AtomicU64::new(0), lock: Mutex::new(()), bytes: Bytes::new() };
        let slot = world.slot();
        match start {
            Start::Empty => {}
            Start::Fill => slot.store_pattern(OLD),
            Start::Pool => slot.store(OLD),
            Start::Segment => {
                slot.store(OLD);
                slot.write_back(FORMER);
            }
            Start::Poisoned => {
                slot.store(OLD);
                assert!(slot.load_damaged(OLD));
            }
        }
        let _ = slot.cell.update(|word| Some(word.with_count(owners)));
        world
    }

    fn slot(&self) -> Slot<'_> {
        Slot { number: SLOT, cell: SlotCell::new(&self.word), bytes: &self.bytes }
    }

    fn count(&self) -> u64 {
        match self.slot().cell.load().count() {
            SwapCount::Exact(count) => count.into(),
            SwapCount::Overflowed => unreachable!("there are few owners"),
        }
    }

    /// As `Engine::unlist_slot`.
    fn leave(&self) -> Transition {
        let _lock = self.lock.lock().unwrap();
        let (slot, count) = (self.slot(), self.count());
        if count == 1 {
            slot.free_backing(slot.cell.update(|_| Some(SlotWord::EMPTY)).unwrap());
            return T::ReleaseLast;
        }
        let _ = slot.cell.update(|word| Some(word.with_count(count - 1)));
        T::ReleaseOne
    }

    /// As `Engine::list_slot`.
    fn fork(&self) {
        let _lock = self.lock.lock().unwrap();
        let count = self.count();
        let _ = self.slot().cell.update(|word| Some(word.with_count(count + 1)));
    }

    /// Takes the slot in and out of a segment; what happened of it.
    fn write_back(&self, written: bool) -> Vec<Transition> {
        let (slot, mut filling) = (self.slot(), Filling::new(BATCH));
        if !slot.take(&mut filling) {
            return vec![];
        }
        let ended = slot.settle(filling, written) > 0;
        let end = if written { T::Flip } else { T::TurnBack };
        std::iter::once(T::Take).chain(ended.then_some(end)).collect()
    }

    /// Where there is room for a copy, or none.
    fn compact(&self, room: bool) -> Vec<Transition> {
        match self.slot().compact(room) {
            Compacted::Not => vec![],
            Compacted::Gone | Compacted::Lost | Compacted::LostInVain => vec![T::CompactionTakes],
            Compacted::TurnedBack => vec![T::CompactionTakes, T::CompactionTurnsBack],
            Compacted::Moved => vec![T::CompactionTakes, T::CompactionFlips],
        }
    }

    /// Gives what has happened.
    fn act(&self, actor: Actor, start: Start, others: Others) -> Vec<Transition> {
        let slot = self.slot();
        let only = |happened: bool| if happened { actor.transitions().to_vec() } else { vec![] };
        match actor {
            Actor::StorePattern => {
                slot.store_pattern(NEW);
                only(true)
            }
            Actor::StorePage => {
                slot.store(NEW);
                only(true)
            }
            Actor::ReleaseSole => {
                slot.empty();
                only(true)
            }
            Actor::Leave => vec![self.leave()],
            Actor::Load => {
                match slot.look() {
                    Found::Lost => assert!(others.lose, "lost, and nobody has found any damage"),
                    Found::Content(NEW) if others.store => {}
                    found => assert_eq!(found, at_first(start)),
                }
                only(true)
            }
            // What is stored meanwhile is sound.
            Actor::Damage => only(slot.load_damaged(OLD)),
            Actor::Fork => {
                self.fork();
                only(true)
            }
            Actor::Hand => only(slot.pass()),
            Actor::WriteBack => self.write_back(true),
            Actor::WriteInVain => self.write_back(false),
            Actor::Compact => self.compact(true),
            Actor::CompactInVain => self.compact(false),
            Actor::Clean => only(slot.clean()),
            Actor::Move => only(slot.move_segment()),
            Actor::GiveUp => only(slot.give_up()),
            Actor::ComeBack => only(slot.come_back()),
            Actor::PassOver => only(slot.pass_over()),
        }
    }

    /// All is over: the slot is as what has happened says, and nothing is left when it is gone.
    fn check(&self, start: Start, owners: u64, happened: &[Transition]) {
        let has = |one| happened.contains(&one);
        let found = self.slot().look();
        if has(T::StorePattern) || has(T::StorePage) {
            // Unless what was stored went to a segment, which then was lost.
            let gone = has(T::Flip) && has(T::GiveUp) && found == Found::Lost;
            assert!(gone || found == Found::Content(NEW), "a store prevails: {found:?} after {happened:?}");
        } else if has(T::ReleaseSole) || has(T::ReleaseLast) {
            assert_eq!(found, Found::Empty, "a release prevails");
        } else if has(T::Damage) || has(T::GiveUp) {
            assert_eq!(found, Found::Lost);
        } else {
            assert_eq!(found, at_first(start));
        }
        let times = |one| happened.iter().filter(|other| **other == one).count() as u64;
        let left = owners + times(T::Fork) - times(T::ReleaseOne) - times(T::ReleaseLast);
        assert_eq!(self.count(), left, "counts are exact");
        let moving = matches!(self.slot().cell.load().backing(), Backing::Moving(_));
        assert!(!moving, "still on its way");
        self.slot().free_backing(self.slot().cell.update(|_| Some(SlotWord::EMPTY)).unwrap());
        self.bytes.check();
    }
}

fn at_first(start: Start) -> Found {
    match start {
        Start::Empty => Found::Empty,
        Start::Poisoned => Found::Lost,
        _ => Found::Content(OLD),
    }
}

/// Whether any of what two do can meet.
fn can_meet(one: Actor, other: Actor) -> bool {
    let pairs = one.transitions().iter().flat_map(|a| other.transitions().iter().map(move |b| (*a, *b)));
    pairs.into_iter().any(|(a, b)| a.apart(b).is_none())
}

/// All at once, from this start, with so many preemptions; notes what has happened in one run. Tells in how many runs each began before any had
/// ended.
fn meet(actors: &[Actor], preemptions: Option<usize>, start: Start, owners: u64, seen: &Met) -> usize {
    let (seen, overlaps) = (std::sync::Arc::clone(seen), std::sync::Arc::<AtomicUsize>::default());
    let (count, actors) = (std::sync::Arc::clone(&overlaps), actors.to_vec());
    model(preemptions, move || {
        // Of the process, not of loom: it is nobody's business here.
        let clock = std::sync::Arc::new(AtomicUsize::new(0));
        let world = Arc::new(World::new(start, owners));
        if actors.contains(&Actor::Hand) || actors.contains(&Actor::PassOver) {
            // There is something for it.
            let _ = world.slot().cell.update(|word| Some(word.with_accessed()));
        }
        let lose = start == Start::Poisoned || actors.iter().any(|actor| actor.loses_bytes());
        let store = actors.iter().any(|actor| actor.stores());
        let act = |actor: Actor| {
            let (world, clock) = (Arc::clone(&world), std::sync::Arc::clone(&clock));
            move || {
                let from = clock.fetch_add(1, Ordering::Relaxed);
                (world.act(actor, start, Others { lose, store }), from..clock.fetch_add(1, Ordering::Relaxed))
            }
        };
        let (last, others) = actors.split_last().expect("somebody acts");
        let others: Vec<_> = others.iter().map(|actor| thread::spawn(act(*actor))).collect();
        let last = act(*last)();
        let done: Vec<_> =
            others.into_iter().map(|thread| thread.join().unwrap()).chain(std::iter::once(last)).collect();
        let ends = done.iter().map(|(_, when)| when.end).min();
        let all_began = done.iter().all(|(_, when)| Some(when.start) < ends);
        count.fetch_add(usize::from(all_began), Ordering::Relaxed);
        let happened: Vec<_> = done.iter().flat_map(|(happened, _)| happened.iter().copied()).collect();
        world.check(start, owners, &happened);
        let mut seen = seen.lock().unwrap();
        for (at, (here, _)) in done.iter().enumerate() {
            let there = || done[..at].iter().flat_map(|(there, _)| there);
            seen.extend(here.iter().flat_map(|a| there().map(|b| ((*a).max(*b) as u8, (*a).min(*b) as u8))));
        }
    });
    overlaps.load(Ordering::Relaxed)
}

/// How many owners there are at first: one for each who acts as that, and where one of them leaves, once as the last one and once not.
fn owners(actors: &[Actor]) -> RangeInclusive<u64> {
    if actors.iter().any(|actor| actor.is_sole()) {
        return 0..=0;
    }
    let those = actors.iter().filter(|actor| actor.is_owner());
    let (all, leaving) = (those.clone().count(), those.filter(|actor| **actor == Actor::Leave).count());
    let least = all.max(1) as u64;
    least..=least + u64::from(leaving > 0 && leaving == all)
}

/// Pairs that have both happened, the later in the list first.
type Met = std::sync::Arc<std::sync::Mutex<BTreeSet<(u8, u8)>>>;

#[test]
fn all_that_the_matrix_says_to_meet_has_met_and_nothing_else() {
    let met = Met::default();
    for (at, &one) in Actor::ALL.iter().enumerate() {
        for &other in Actor::ALL[..=at].iter().filter(|other| can_meet(one, **other)) {
            let mut overlapped = 0;
            for (start, owners) in
                STARTS.iter().flat_map(|start| owners(&[one, other]).map(|owners| (*start, owners)))
            {
                // Loom does not find all if the thread that begins later has less to do: so each is that once.
                overlapped += meet(&[one, other], None, start, owners, &met);
                overlapped += meet(&[other, one], None, start, owners, &met);
            }
            assert!(overlapped > 0, "{one:?} and {other:?} were never at it at once: that proves nothing");
        }
    }
    let met = met.lock().unwrap();
    let mut table = String::new();
    for later in T::ALL {
        table += &format!("| {} {} |", later as u8 + 1, later.name());
        for earlier in T::ALL {
            let cell = match later.apart(earlier) {
                _ if (earlier as u8) > later as u8 => ' ',
                Some(reason) => reason,
                None if met.contains(&(later as u8, earlier as u8)) => '+',
                None => '.',
            };
            table += &format!(" {cell} |");
        }
        table += "\n";
    }
    for (row, later) in matrix().iter().zip(T::ALL) {
        for (cell, earlier) in row.iter().zip(T::ALL) {
            let pair = (later as u8, earlier as u8);
            assert!(later.apart(earlier).is_none() || !met.contains(&pair), "{later:?} met {earlier:?}");
            if ['+', '.'].contains(cell) {
                assert_eq!(*cell == '+', met.contains(&pair), "{later:?} and {earlier:?}; it is:\n{table}");
            }
        }
    }
}

/// Three at once, of whom each two can meet: what two of them leave to each other may be what the third takes away.
#[test]
fn any_three_that_can_meet_leave_the_slot_as_what_they_did_says() {
    let met = Met::default();
    for (at, &one) in Actor::ALL.iter().enumerate() {
        for (before, &two) in Actor::ALL[..=at].iter().enumerate().filter(|(_, two)| can_meet(one, **two)) {
            let can_meet_both = |three: &&Actor| can_meet(one, **three) && can_meet(two, **three);
            for &three in Actor::ALL[..=before].iter().filter(can_meet_both) {
                let actors = [one, two, three];
                for start in [Start::Pool, Start::Segment] {
                    for owners in owners(&actors) {
                        meet(&actors, Some(2), start, owners, &met);
                    }
                }
            }
        }
    }
    let apart = |pair: &&(u8, u8)| T::ALL[pair.0 as usize].apart(T::ALL[pair.1 as usize]).is_some();
    assert_eq!(met.lock().unwrap().iter().find(apart), None, "two met that cannot");
}
