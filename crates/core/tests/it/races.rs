//! Every interleaving of two or three actors on one slot:
//! `RUSTFLAGS="--cfg loom" cargo test -p vswap-core --release --test it`.
//!
//! The pool is modelled by entries behind locks, each with the header that tells whose it is, exactly as much
//! as the protocol relies on. What is proven: a load gives the bytes that were stored, never torn, freed or
//! another slot's; each entry is freed exactly once; a move that lost its race flips nothing.
use loom::sync::{Arc, Mutex};
use loom::thread;
use vswap_core::slot::{SlotCell, SlotWord};
use vswap_core::sync::AtomicU64;
use vswap_core::{Age, Backing, MoveId, Moving, PoolHandle, SegmentAddr};

const SLOT: u64 = 42;
const AGE: u64 = 1;

/// An entry: whose it is and its content; `None` is free.
type Entry = Mutex<Option<(u64, u32)>>;

struct World {
    word: AtomicU64,
    pool: [Entry; 3],
    disk: [Mutex<Option<u32>>; 2],
}

fn handle(at: usize) -> PoolHandle {
    PoolHandle::new(0, 0, at).unwrap()
}

fn segment(at: usize) -> SegmentAddr {
    SegmentAddr::new(at as u64).unwrap()
}

fn age() -> Age {
    Age::of_generation(AGE)
}

impl World {
    /// A slot with content 1 in pool entry 0.
    fn new() -> Arc<Self> {
        let world = Self {
            word: AtomicU64::new(0),
            pool: [Mutex::new(Some((SLOT, 1))), Mutex::new(None), Mutex::new(None)],
            disk: [Mutex::new(None), Mutex::new(None)],
        };
        world.cell().update(|_| Some(SlotWord::new(Backing::Pool(handle(0)), age()))).unwrap();
        Arc::new(world)
    }

    fn cell(&self) -> SlotCell<'_> {
        SlotCell::new(&self.word)
    }

    fn read_entry(&self, handle: PoolHandle) -> Option<u32> {
        let entry = self.pool[handle.index()].lock().unwrap();
        entry.filter(|(slot, _)| *slot == SLOT).map(|(_, content)| content)
    }

    fn free_entry(&self, handle: PoolHandle) {
        let freed = self.pool[handle.index()].lock().unwrap().take();
        assert_eq!(freed.map(|(slot, _)| slot), Some(SLOT), "freed twice, or another's");
    }

    fn free_backing(&self, word: SlotWord) {
        if let Some(handle) = word.backing().pool_entry() {
            self.free_entry(handle);
        }
        if let Backing::Segment(addr) = word.backing() {
            assert!(self.disk[addr.get() as usize].lock().unwrap().take().is_some(), "released twice");
        }
    }

    /// As `Engine::load`; `None` is an empty slot.
    fn load(&self) -> Option<u32> {
        loop {
            let word = self.cell().load();
            let found = match word.backing() {
                Backing::Empty => return None,
                Backing::Segment(addr) => *self.disk[addr.get() as usize].lock().unwrap(),
                other => self.read_entry(other.pool_entry().expect("nothing else is stored here")),
            };
            if found.is_some() {
                self.cell().mark_accessed(word);
                return found;
            }
            // An entry that is gone means that the word changed.
            assert!(!self.cell().load().same_backing(word), "{word:?} names nothing");
            thread::yield_now();
        }
    }

    /// As `Engine::store`: takes the lowest free entry, so that handles come back.
    fn store(&self, content: u32) {
        let at = self.pool.iter().position(|entry| {
            let mut entry = entry.lock().unwrap();
            entry.is_none().then(|| *entry = Some((SLOT, content))).is_some()
        });
        let backing = Backing::Pool(handle(at.expect("a present, a former and a moving entry are the most")));
        let old = self.cell().update(|word| Some(word.with_backing(backing, age()))).unwrap();
        self.free_backing(old);
    }

    fn release(&self) {
        let old = self.cell().update(|_| Some(SlotWord::EMPTY)).unwrap();
        self.free_backing(old);
    }

    /// As `Engine::writeback`: mark, copy, write, flip or give up.
    fn write_back(&self, batch: u8) {
        let batch = MoveId::new(batch).unwrap();
        let seen = self.cell().load();
        let Backing::Pool(source) = seen.backing() else { return };
        let moving = Backing::Moving(Moving { source, batch });
        if self.cell().compare_exchange(seen, seen.moved_to(moving)).is_err() {
            return;
        }
        let Some(content) = self.read_entry(source) else { return };
        let to = usize::from(batch.get());
        *self.disk[to].lock().unwrap() = Some(content);
        let backing = Backing::Segment(segment(to));
        let flipped = self.cell().update(|word| (word.backing() == moving).then(|| word.moved_to(backing)));
        match flipped {
            Ok(_) => self.free_entry(source),
            Err(_) => *self.disk[to].lock().unwrap() = None,
        }
    }

    /// All is over: what the slot names is there, and nothing else is.
    fn check(&self, expected: Option<u32>) {
        assert_eq!(self.load(), expected);
        self.release();
        assert!(self.pool.iter().all(|entry| entry.lock().unwrap().is_none()), "a pool entry is left");
        assert!(self.disk.iter().all(|entry| entry.lock().unwrap().is_none()), "a segment entry is left");
    }
}

fn model(preemptions: Option<usize>, check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(check);
}

fn spawn(world: &Arc<World>, act: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || act(&world))
}

#[test]
fn a_load_during_writeback_reads_the_page() {
    model(None, || {
        let world = World::new();
        let writer = spawn(&world, |world| world.write_back(0));
        assert_eq!(world.load(), Some(1));
        writer.join().unwrap();
        world.check(Some(1));
    });
}

#[test]
fn two_loads_during_writeback_read_the_page() {
    model(Some(3), || {
        let world = World::new();
        let writer = spawn(&world, |world| world.write_back(0));
        let other = spawn(&world, |world| assert_eq!(world.load(), Some(1)));
        assert_eq!(world.load(), Some(1));
        writer.join().unwrap();
        other.join().unwrap();
        world.check(Some(1));
    });
}

#[test]
fn a_store_during_writeback_wins() {
    model(None, || {
        let world = World::new();
        let writer = spawn(&world, |world| world.write_back(0));
        world.store(2);
        assert_eq!(world.load(), Some(2));
        writer.join().unwrap();
        world.check(Some(2));
    });
}

#[test]
fn a_handle_that_comes_back_does_not_fool_a_move() {
    model(Some(4), || {
        let world = World::new();
        let writer = spawn(&world, |world| world.write_back(0));
        // The third content takes the first one's entry.
        world.store(2);
        world.store(3);
        assert_eq!(world.load(), Some(3));
        writer.join().unwrap();
        world.check(Some(3));
    });
}

#[test]
fn a_second_batch_after_a_store_moves_the_new_page() {
    model(Some(3), || {
        let world = World::new();
        let first = spawn(&world, |world| world.write_back(0));
        let second = spawn(&world, |world| world.write_back(1));
        world.store(2);
        assert_eq!(world.load(), Some(2));
        first.join().unwrap();
        second.join().unwrap();
        world.check(Some(2));
    });
}

#[test]
fn a_release_during_writeback_leaves_nothing() {
    model(None, || {
        let world = World::new();
        let writer = spawn(&world, |world| world.write_back(0));
        world.release();
        assert_eq!(world.load(), None);
        writer.join().unwrap();
        world.check(None);
    });
}

#[test]
fn marks_and_counts_survive_a_flip() {
    model(Some(3), || {
        let world = World::new();
        let writer = spawn(&world, |world| world.write_back(0));
        let counter = spawn(&world, |world| {
            world.cell().update(|word| Some(word.with_count(1))).unwrap();
        });
        assert_eq!(world.load(), Some(1));
        writer.join().unwrap();
        counter.join().unwrap();
        assert_eq!(world.cell().load().count(), vswap_core::SwapCount::Exact(1));
        world.check(Some(1));
    });
}
