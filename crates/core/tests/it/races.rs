//! Every interleaving of two or three actors on one slot:
//! `RUSTFLAGS="--cfg loom" cargo test -p vswap-core --release --test it`.
//!
//! What is done to the slot is in `bytes.rs`. What is proven: a load gives the bytes that were stored, never torn,
//! freed or another slot's; each entry is freed exactly once; a move that lost its race flips nothing.
use crate::bytes::{Bytes, Compacted, Filling, Slot, model};
use crate::seen::Seen;
use loom::sync::Arc;
use loom::thread;
use vswap_core::slot::{SlotCell, SlotWord};
use vswap_core::sync::AtomicU64;

const SLOT: u64 = 42;

struct World {
    word: AtomicU64,
    bytes: Bytes,
}

impl World {
    /// A slot with content 1 in pool entry 0.
    fn new() -> Arc<Self> {
        let world = Self { word: AtomicU64::new(0), bytes: Bytes::new() };
        world.store(1);
        Arc::new(world)
    }

    fn cell(&self) -> SlotCell<'_> {
        SlotCell::new(&self.word)
    }

    fn slot(&self) -> Slot<'_> {
        Slot { number: SLOT, cell: self.cell(), bytes: &self.bytes }
    }

    fn load(&self) -> Option<u32> {
        self.slot().load()
    }

    fn store(&self, content: u32) {
        self.slot().store(content);
    }

    fn release(&self) {
        let old = self.cell().update(|_| Some(SlotWord::EMPTY)).unwrap();
        self.slot().free_backing(old);
    }

    fn write_back(&self, batch: u8) {
        self.slot().write_back(batch);
    }

    /// All is over: what the slot names is there, and nothing else is.
    fn check(&self, expected: Option<u32>) {
        assert_eq!(self.load(), expected);
        self.release();
        self.bytes.check();
    }
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

/// The hand comes by twice while one segment is filled. Tells whether the slot is in it twice, and its last copy lives.
fn write_back_twice(world: &World, written: bool) -> bool {
    let mut filling = Filling::new(0);
    world.slot().take(&mut filling);
    world.slot().take(&mut filling);
    let twice = filling.len() == 2;
    let alive = world.slot().settle(filling, written);
    twice && alive == 1
}

#[test]
fn of_a_slot_that_is_twice_in_a_segment_the_last_copy_lives() {
    static TWICE: Seen = Seen::new();
    model(None, || {
        let world = World::new();
        let writer = spawn(&world, |world| TWICE.note(write_back_twice(world, true)));
        world.store(2);
        assert_eq!(world.load(), Some(2));
        writer.join().unwrap();
        world.check(Some(2));
    });
    TWICE.check();
}

#[test]
fn a_handle_that_comes_back_in_the_same_batch_brings_its_last_copy() {
    static TWICE: Seen = Seen::new();
    model(Some(5), || {
        let world = World::new();
        let writer = spawn(&world, |world| TWICE.note(write_back_twice(world, true)));
        // The third content takes the first one's entry: both copies came with the same word.
        world.store(2);
        world.store(3);
        assert_eq!(world.load(), Some(3));
        writer.join().unwrap();
        world.check(Some(3));
    });
    TWICE.check();
}

#[test]
fn a_slot_that_is_twice_in_a_segment_that_was_not_written_stays_in_the_pool() {
    static TWICE: Seen = Seen::new();
    model(None, || {
        let world = World::new();
        let writer = spawn(&world, |world| TWICE.note(write_back_twice(world, false)));
        world.store(2);
        assert_eq!(world.load(), Some(2));
        writer.join().unwrap();
        assert!(world.cell().load().is_pool(), "still on its way");
        world.check(Some(2));
    });
    TWICE.check();
}

#[test]
fn a_release_kills_both_copies() {
    static BOTH_DEAD: Seen = Seen::new();
    model(Some(5), || {
        let world = World::new();
        let writer = spawn(&world, |world| {
            let mut filling = Filling::new(0);
            world.slot().take(&mut filling);
            world.slot().take(&mut filling);
            let twice = filling.len() == 2;
            let alive = world.slot().settle(filling, true);
            BOTH_DEAD.note(twice && alive == 0);
        });
        world.store(2);
        world.release();
        assert_eq!(world.load(), None);
        writer.join().unwrap();
        world.check(None);
    });
    BOTH_DEAD.check();
}

#[test]
fn batches_may_end_in_another_order_than_they_began() {
    static BOTH: Seen = Seen::new();
    model(Some(5), || {
        let world = World::new();
        let writer = spawn(&world, |world| {
            let (mut first, mut second) = (Filling::new(0), Filling::new(1));
            world.slot().take(&mut first);
            world.slot().take(&mut first);
            world.slot().take(&mut second);
            let both = first.len() == 2 && second.len() == 1;
            let last = world.slot().settle(second, true);
            let alive = world.slot().settle(first, true);
            BOTH.note(both && last == 1 && alive == 0);
        });
        world.store(2);
        world.store(3);
        assert_eq!(world.load(), Some(3));
        writer.join().unwrap();
        world.check(Some(3));
    });
    BOTH.check();
}

#[test]
fn compaction_between_the_two_copies_changes_nothing() {
    static TWICE: Seen = Seen::new();
    model(Some(3), || {
        let world = World::new();
        let writer = spawn(&world, |world| TWICE.note(write_back_twice(world, true)));
        let compaction = spawn(&world, |world| {
            world.slot().compact(true);
        });
        world.store(2);
        writer.join().unwrap();
        compaction.join().unwrap();
        world.check(Some(2));
    });
    TWICE.check();
}

/// What a compaction comes to beside whatever `others` do, in which it has been seen to copy and to lose at least once. It is the one that is
/// spawned: beside a shorter thread loom would not try all.
fn compaction_loses(preemptions: Option<usize>, others: fn(&Arc<World>), expected: Option<u32>) {
    let lost = std::sync::Arc::new(Seen::new());
    let note = std::sync::Arc::clone(&lost);
    model(preemptions, move || {
        let (world, note) = (World::new(), std::sync::Arc::clone(&note));
        let compaction = spawn(&world, move |world| note.note(world.slot().compact(true) == Compacted::Lost));
        others(&world);
        compaction.join().unwrap();
        world.check(expected);
    });
    lost.check();
}

#[test]
fn a_compaction_that_lost_to_a_store_leaves_no_copy() {
    compaction_loses(None, |world| world.store(2), Some(2));
    compaction_loses(None, |world| world.slot().store_pattern(2), Some(2));
}

#[test]
fn a_compaction_that_lost_to_a_release_leaves_no_copy() {
    compaction_loses(None, |world| world.release(), None);
}

/// Its copy may be where the load looks, under the slot's name.
#[test]
fn a_load_beside_a_compaction_that_has_lost_reads_what_was_stored() {
    let store_and_load = |world: &Arc<World>| {
        world.store(2);
        assert_eq!(world.load(), Some(2));
        world.store(3);
        assert_eq!(world.load(), Some(3));
    };
    compaction_loses(Some(4), store_and_load, Some(3));
}

/// What it lost to is on its way to a segment by then, maybe from the very place of its copy.
#[test]
fn a_writeback_beside_a_compaction_that_has_lost_takes_what_was_stored() {
    let store_and_write_back = |world: &Arc<World>| {
        world.store(2);
        world.write_back(0);
        assert_eq!(world.load(), Some(2));
    };
    compaction_loses(None, store_and_write_back, Some(2));
    let write_back_what_is_stored = |world: &Arc<World>| {
        let writer = spawn(world, |world| world.write_back(0));
        world.store(2);
        assert_eq!(world.load(), Some(2));
        writer.join().unwrap();
    };
    compaction_loses(Some(3), write_back_what_is_stored, Some(2));
}

/// Compaction copies content 1, loses to a store, and puts its copy, under the slot's name, where content 2 was until it was written
/// back a moment ago: a load that was on its way there took it.
#[test]
fn what_compaction_copied_in_vain_is_never_loaded() {
    static LOST: Seen = Seen::new();
    model(Some(4), || {
        let world = World::new();
        let compaction = spawn(&world, |world| LOST.note(world.slot().compact(true) == Compacted::Lost));
        world.store(2);
        let writer = spawn(&world, |world| world.slot().write_back(0));
        assert_eq!(world.load(), Some(2));
        writer.join().unwrap();
        compaction.join().unwrap();
        world.check(Some(2));
    });
    LOST.check();
}
