//! Where the bytes of slots are, for the models: entries behind locks, each with the header that tells whose it
//! is, exactly as much as the protocol relies on; and what is done to one slot, step by step as the engine does
//! it.
use loom::sync::Mutex;
use loom::thread;
use vswap_core::slot::{SlotCell, SlotWord};
use vswap_core::{Age, Backing, MoveId, Moving, PoolHandle, SegmentAddr};

const AGE: u64 = 1;
/// The batch number that compaction has for itself.
const COMPACTION: u8 = (1 << MoveId::BITS) - 1;
/// Entries of one segment.
const ENTRIES: usize = 3;
/// Segments, one for each batch of a model.
const SEGMENTS: usize = 2;

/// An entry: whose it is and its content; `None` is free.
type Entry = Mutex<Option<(u64, u32)>>;

/// The pool and the disk.
pub(crate) struct Bytes {
    pool: [Entry; 4],
    disk: [Entry; SEGMENTS * ENTRIES],
}

/// A slot: its number, its word, and where its bytes may be.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a> {
    pub(crate) number: u64,
    pub(crate) cell: SlotCell<'a>,
    pub(crate) bytes: &'a Bytes,
}

/// A segment that is being filled.
pub(crate) struct Filling {
    batch: MoveId,
    entries: Vec<(u64, u32)>,
}

impl Filling {
    pub(crate) fn new(batch: u8) -> Self {
        Self { batch: MoveId::new(batch).unwrap(), entries: Vec::new() }
    }

    /// How many copies it has.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

fn handle(at: usize) -> PoolHandle {
    PoolHandle::new(0, 0, at).unwrap()
}

fn age() -> Age {
    Age::of_generation(AGE)
}

/// The pool entry that this batch moves, if the word is still on its way with it.
fn moving_from(word: SlotWord, batch: MoveId) -> Option<PoolHandle> {
    match word.backing() {
        Backing::Moving(moving) if moving.batch == batch => Some(moving.source),
        _ => None,
    }
}

impl Bytes {
    pub(crate) fn new() -> Self {
        Self {
            pool: std::array::from_fn(|_| Mutex::new(None)),
            disk: std::array::from_fn(|_| Mutex::new(None)),
        }
    }

    /// Puts an entry into the lowest place that is free, so that handles come back.
    fn insert(&self, slot: u64, content: u32) -> PoolHandle {
        let at = self.pool.iter().position(|entry| {
            let mut entry = entry.lock().unwrap();
            entry.is_none().then(|| *entry = Some((slot, content))).is_some()
        });
        handle(at.expect("no model has more entries at once"))
    }

    fn read(&self, handle: PoolHandle, slot: u64) -> Option<u32> {
        let entry = self.pool[handle.index()].lock().unwrap();
        entry.filter(|(owner, _)| *owner == slot).map(|(_, content)| content)
    }

    fn remove(&self, handle: PoolHandle, slot: u64) {
        let freed = self.pool[handle.index()].lock().unwrap().take();
        assert_eq!(freed.map(|(owner, _)| owner), Some(slot), "freed twice, or another's");
    }

    fn read_disk(&self, addr: SegmentAddr, slot: u64) -> Option<u32> {
        let entry = self.disk[addr.get() as usize].lock().unwrap();
        entry.filter(|(owner, _)| *owner == slot).map(|(_, content)| content)
    }

    fn release_disk(&self, addr: SegmentAddr) {
        assert!(self.disk[addr.get() as usize].lock().unwrap().take().is_some(), "released twice");
    }

    /// All is over, and nothing is left.
    pub(crate) fn check(&self) {
        assert!(self.pool.iter().all(|entry| entry.lock().unwrap().is_none()), "a pool entry is left");
        assert!(self.disk.iter().all(|entry| entry.lock().unwrap().is_none()), "a segment entry is left");
    }
}

impl Slot<'_> {
    /// As `Engine::free_backing`: of a word that the caller alone took out of the slot.
    pub(crate) fn free_backing(self, word: SlotWord) {
        if let Some(handle) = word.backing().pool_entry() {
            self.bytes.remove(handle, self.number);
        }
        if let Backing::Segment(addr) = word.backing() {
            self.bytes.release_disk(addr);
        }
    }

    /// As `Engine::load`; `None` is an empty slot.
    pub(crate) fn load(self) -> Option<u32> {
        loop {
            let word = self.cell.load();
            let found = match word.backing() {
                Backing::Empty => return None,
                Backing::Segment(addr) => self.bytes.read_disk(addr, self.number),
                other => {
                    let handle = other.pool_entry().expect("nothing else is stored here");
                    let content = self.bytes.read(handle, self.number);
                    // What compaction put there that has lost is the slot's own too, and older.
                    content.filter(|_| self.cell.load().backing().pool_entry() == Some(handle))
                }
            };
            if found.is_some() {
                self.cell.mark_accessed(word);
                return found;
            }
            // An entry that is gone means that the word changed.
            assert!(!self.cell.load().same_backing(word), "{word:?} names nothing");
            thread::yield_now();
        }
    }

    /// As `Engine::store`.
    pub(crate) fn store(self, content: u32) {
        let backing = Backing::Pool(self.bytes.insert(self.number, content));
        let old = self.cell.update(|word| Some(word.with_backing(backing, age()))).unwrap();
        self.free_backing(old);
    }

    /// As `Engine::empty_slot`: the count stays.
    pub(crate) fn empty(self) {
        let old = self.cell.update(|word| Some(word.with_backing(Backing::Empty, Age::default()))).unwrap();
        self.free_backing(old);
    }

    /// As `Engine::pack`: marks the word and copies the entry.
    pub(crate) fn take(self, filling: &mut Filling) {
        let seen = self.cell.load();
        let Backing::Pool(source) = seen.backing() else { return };
        let moving = Backing::Moving(Moving { source, batch: filling.batch });
        if self.cell.compare_exchange(seen, seen.moved_to(moving)).is_err() {
            return;
        }
        let Some(content) = self.bytes.read(source, self.number) else { return };
        filling.entries.push((self.number, content));
    }

    /// As `Engine::settle`, for a segment that has copies of this slot only: flips the word or turns it back.
    /// Gives how many copies live.
    pub(crate) fn settle(self, filling: Filling, written: bool) -> usize {
        let Filling { batch, entries } = filling;
        let addr = |at: usize| SegmentAddr::new((usize::from(batch.get()) * ENTRIES + at) as u64).unwrap();
        if written {
            for (at, entry) in entries.iter().enumerate() {
                *self.bytes.disk[addr(at).get() as usize].lock().unwrap() = Some(*entry);
            }
        }
        let mut alive = 0;
        for at in (0..entries.len()).rev() {
            if !written {
                self.turn_back(batch);
                continue;
            }
            let backing = Backing::Segment(addr(at));
            let flipped = self.cell.update(|word| moving_from(word, batch).map(|_| word.moved_to(backing)));
            match flipped.ok().and_then(|old| moving_from(old, batch)) {
                Some(source) => {
                    self.bytes.remove(source, self.number);
                    alive += 1;
                }
                None => self.bytes.release_disk(addr(at)),
            }
        }
        alive
    }

    fn turn_back(self, batch: MoveId) {
        let _ = self
            .cell
            .update(|word| moving_from(word, batch).map(|source| word.moved_to(Backing::Pool(source))));
    }

    /// As `Engine::writeback`, with a segment for this slot alone.
    pub(crate) fn write_back(self, batch: u8) {
        let mut filling = Filling::new(batch);
        self.take(&mut filling);
        self.settle(filling, true);
    }

    /// As `Engine::move_entry`, of the entry that the slot has now.
    pub(crate) fn compact(self) {
        let batch = MoveId::new(COMPACTION).unwrap();
        let Backing::Pool(source) = self.cell.load().backing() else { return };
        let moving = Backing::Moving(Moving { source, batch });
        let marked =
            self.cell.update(|word| (word.backing() == Backing::Pool(source)).then(|| word.moved_to(moving)));
        if marked.is_err() {
            return;
        }
        let Some(content) = self.bytes.read(source, self.number) else { return };
        let target = self.bytes.insert(self.number, content);
        let flipped =
            self.cell.update(|word| moving_from(word, batch).map(|_| word.moved_to(Backing::Pool(target))));
        self.bytes.remove(if flipped.is_ok() { source } else { target }, self.number);
    }
}

/// Tries every interleaving, or those with at most so many preemptions.
pub(crate) fn model(preemptions: Option<usize>, check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(check);
}
