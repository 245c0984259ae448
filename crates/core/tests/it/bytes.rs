//! Where the bytes of slots are, for the models: entries behind locks, each with the header that tells whose it
//! is, exactly as much as the protocol relies on; and what is done to one slot, step by step as the engine does
//! it.
use loom::sync::Mutex;
use loom::thread;
use vswap_core::slot::{SlotCell, SlotWord};
use vswap_core::{Age, Backing, FillPattern, MoveId, Moving, PoolHandle, SegmentAddr};

const AGE: u64 = 1;
/// The batch number that compaction has for itself.
const COMPACTION: u8 = (1 << MoveId::BITS) - 1;
/// How often a load looks again. Others do a few things only.
const PATIENCE: usize = 20;
/// Entries of one segment.
const ENTRIES: usize = 3;
/// Segments, one for each batch of a model.
const SEGMENTS: usize = 2;

/// An entry: whose it is and its content; `None` is free.
type Entry = Mutex<Option<(u64, u32)>>;

/// Where cleaning puts its copy: the last entry of the last segment, which no batch of a model that cleans fills.
const CLEANED: u64 = (SEGMENTS * ENTRIES) as u64 - 1;

/// The pool and the disk, and another disk to which segments move: what is no longer on the first is there, under the same address.
pub(crate) struct Bytes {
    pool: [Entry; 4],
    disk: [Entry; SEGMENTS * ENTRIES],
    other_disk: [Entry; SEGMENTS * ENTRIES],
}

/// What a load comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    Empty,
    Content(u32),
    Lost,
}

/// What a compaction comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compacted {
    /// There was nothing for it.
    Not,
    /// Marked; when it came to copy, the entry was gone, and the mark with it.
    Gone,
    /// It had copied when it found the mark gone, and took its copy away.
    Lost,
    /// There was no room for a copy, and the mark was gone when it would have turned it back.
    LostInVain,
    TurnedBack,
    Moved,
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
            other_disk: std::array::from_fn(|_| Mutex::new(None)),
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
        self.read_if(handle, slot, || true)
    }

    /// What is there, if it is this slot's and `believed`, asked while it stays there, says so.
    fn read_if(&self, handle: PoolHandle, slot: u64, believed: impl FnOnce() -> bool) -> Option<u32> {
        self.pinned(handle, slot, |content| believed().then_some(content)).flatten()
    }

    /// As `Pool::read`: as long as `read` looks at the entry, nobody frees it.
    fn pinned<R>(&self, handle: PoolHandle, slot: u64, read: impl FnOnce(u32) -> R) -> Option<R> {
        let entry = self.pool[handle.index()].lock().unwrap();
        entry.filter(|(owner, _)| *owner == slot).map(|(_, content)| read(content))
    }

    fn remove(&self, handle: PoolHandle, slot: u64) {
        let freed = self.pool[handle.index()].lock().unwrap().take();
        assert_eq!(freed.map(|(owner, _)| owner), Some(slot), "freed twice, or another's");
    }

    fn read_disk(&self, addr: SegmentAddr, slot: u64) -> Option<u32> {
        let at = addr.get() as usize;
        // Not there any more: its segment may have moved, as the table tells who looks again.
        let here = *self.disk[at].lock().unwrap();
        let entry = here.or_else(|| *self.other_disk[at].lock().unwrap());
        entry.filter(|(owner, _)| *owner == slot).map(|(_, content)| content)
    }

    fn release_disk(&self, addr: SegmentAddr) {
        let at = addr.get() as usize;
        let here = self.disk[at].lock().unwrap().take();
        let released = here.or_else(|| self.other_disk[at].lock().unwrap().take());
        assert!(released.is_some(), "released twice");
    }

    /// All is over, and nothing is left.
    pub(crate) fn check(&self) {
        assert!(self.pool.iter().all(|entry| entry.lock().unwrap().is_none()), "a pool entry is left");
        let mut disks = self.disk.iter().chain(&self.other_disk);
        assert!(disks.all(|entry| entry.lock().unwrap().is_none()), "a segment entry is left");
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

    /// As [`look`](Self::look), where no bytes can be lost; `None` is an empty slot.
    pub(crate) fn load(self) -> Option<u32> {
        match self.look() {
            Found::Empty => None,
            Found::Content(content) => Some(content),
            Found::Lost => panic!("lost"),
        }
    }

    /// As `Engine::load`.
    pub(crate) fn look(self) -> Found {
        for _ in 0..PATIENCE {
            let word = self.cell.load();
            let content = match word.backing() {
                Backing::Empty => return Found::Empty,
                Backing::Poisoned => return Found::Lost,
                Backing::Fill(pattern) => return Found::Content(pattern.word() as u32),
                Backing::Segment(addr) => self.bytes.read_disk(addr, self.number),
                Backing::Pool(handle) | Backing::Moving(Moving { source: handle, .. }) => {
                    // What compaction put there that has lost is the slot's own too, and older: so the word is looked at while nothing else
                    // can come to be there.
                    let named = || self.cell.load().backing().pool_entry() == Some(handle);
                    self.bytes.read_if(handle, self.number, named)
                }
            };
            if let Some(content) = content {
                self.cell.mark_accessed(word);
                return Found::Content(content);
            }
            // An entry that is gone means that the word changed, though it may have come back: a compaction brings what was stored since to the place
            // of what was there before.
            thread::yield_now();
        }
        panic!("{:?} names nothing", self.cell.load());
    }

    /// As `Engine::load` where the bytes of this content are damaged wherever they are read: tells whether that lost the page.
    pub(crate) fn load_damaged(self, damaged: u32) -> bool {
        for _ in 0..PATIENCE {
            let word = self.cell.load();
            let read = match word.backing() {
                Backing::Empty | Backing::Poisoned | Backing::Fill(_) => return false,
                Backing::Segment(addr) => {
                    let content = self.bytes.read_disk(addr, self.number);
                    content.map(|content| {
                        (content == damaged).then(|| self.poison(|now| now.same_backing(word)))
                    })
                }
                Backing::Pool(handle) | Backing::Moving(Moving { source: handle, .. }) => {
                    let named = |word: SlotWord| word.backing().pool_entry() == Some(handle);
                    // Before anybody frees it: later the handle may be another entry's of this slot.
                    let poison = |content| (content == damaged).then(|| self.poison(named));
                    self.bytes.pinned(handle, self.number, poison)
                }
            };
            match read {
                Some(Some(Some(old))) => {
                    self.free_backing(old);
                    return true;
                }
                // It was sound.
                Some(None) => return false,
                Some(Some(None)) | None => thread::yield_now(),
            }
        }
        panic!("{:?} names nothing", self.cell.load());
    }

    /// As `Engine::mark_lost`. Gives what the word said before, if that `is` the one.
    fn poison(self, is: impl Fn(SlotWord) -> bool) -> Option<SlotWord> {
        self.cell.update(|word| is(word).then(|| word.moved_to(Backing::Poisoned))).ok()
    }

    /// As `Engine::store` of a page that is one word over and over.
    pub(crate) fn store_pattern(self, content: u32) {
        let pattern = FillPattern::of_word(content.into()).expect("a small word fits");
        self.put(Backing::Fill(pattern));
    }

    fn put(self, backing: Backing) {
        let old = self.cell.update(|word| Some(word.with_backing(backing, age()))).unwrap();
        self.free_backing(old);
    }

    /// As `Engine::store`.
    pub(crate) fn store(self, content: u32) {
        self.put(Backing::Pool(self.bytes.insert(self.number, content)));
    }

    /// As `Engine::empty_slot`: the count stays.
    pub(crate) fn empty(self) {
        let old = self.cell.update(|word| Some(word.with_backing(Backing::Empty, Age::default()))).unwrap();
        self.free_backing(old);
    }

    /// As `Engine::pack`: marks the word and copies the entry. Tells whether it was marked.
    pub(crate) fn take(self, filling: &mut Filling) -> bool {
        let seen = self.cell.load();
        let Backing::Pool(source) = seen.backing() else { return false };
        let moving = Backing::Moving(Moving { source, batch: filling.batch });
        if self.cell.compare_exchange(seen, seen.moved_to(moving)).is_err() {
            return false;
        }
        if let Some(content) = self.bytes.read(source, self.number) {
            filling.entries.push((self.number, content));
        }
        true
    }

    /// As `Engine::pack` of what was used since the hand came by last. Tells whether it was, and is not any more.
    pub(crate) fn pass(self) -> bool {
        let seen = self.cell.load();
        let now = Age::of_generation(AGE + 1);
        seen.is_pool() && seen.accessed() && self.cell.compare_exchange(seen, seen.with_age(now)).is_ok()
    }

    /// As `Engine::settle`, for a segment that has copies of this slot only: flips the word or turns it back.
    /// Gives how many copies live, or how often the word was turned back.
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
                alive += usize::from(self.turn_back(batch));
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

    fn turn_back(self, batch: MoveId) -> bool {
        let back = |word| moving_from(word, batch).map(|source| word.moved_to(Backing::Pool(source)));
        self.cell.update(back).is_ok()
    }

    /// As `Engine::writeback`, with a segment for this slot alone.
    pub(crate) fn write_back(self, batch: u8) {
        let mut filling = Filling::new(batch);
        self.take(&mut filling);
        self.settle(filling, true);
    }

    /// As `Engine::write_cleaned`, of the entry that the slot has now. Tells whether the slot has the copy.
    pub(crate) fn clean(self) -> bool {
        let from = self.cell.load().backing();
        let Backing::Segment(old) = from else { return false };
        let Some(content) = self.bytes.read_disk(old, self.number) else { return false };
        let new = SegmentAddr::new(CLEANED).unwrap();
        *self.bytes.disk[CLEANED as usize].lock().unwrap() = Some((self.number, content));
        let flip = |word: SlotWord| (word.backing() == from).then(|| word.moved_to(Backing::Segment(new)));
        let flipped = self.cell.update(flip).is_ok();
        self.bytes.release_disk(if flipped { old } else { new });
        flipped
    }

    /// As `Engine::pass_by`. Tells whether the page had been loaded since.
    pub(crate) fn pass_over(self) -> bool {
        let here = self.cell.load().backing();
        if !matches!(here, Backing::Segment(_)) {
            return false;
        }
        let cool = |word: SlotWord| (word.backing() == here).then(|| word.with_age(word.age()));
        self.cell.update(cool).is_ok_and(SlotWord::accessed)
    }

    /// As `SegmentMover`, of the segment that the slot's bytes are in now. Tells whether it has moved.
    pub(crate) fn move_segment(self) -> bool {
        let Backing::Segment(addr) = self.cell.load().backing() else { return false };
        let at = addr.get() as usize;
        let Some(copied) = *self.bytes.disk[at].lock().unwrap() else { return false };
        *self.bytes.other_disk[at].lock().unwrap() = Some(copied);
        // The row names the other place from now on, if the segment has not died meanwhile.
        let moved = self.bytes.disk[at].lock().unwrap().take().is_some();
        if !moved {
            *self.bytes.other_disk[at].lock().unwrap() = None;
        }
        moved
    }

    /// As `Engine::take_back`, of the entry that the slot has now. Tells whether the slot has the copy.
    pub(crate) fn come_back(self) -> bool {
        let from = self.cell.load().backing();
        let Backing::Segment(addr) = from else { return false };
        let Some(content) = self.bytes.read_disk(addr, self.number) else { return false };
        let handle = self.bytes.insert(self.number, content);
        let flip = |word: SlotWord| {
            (word.backing() == from).then(|| word.with_backing(Backing::Pool(handle), age()))
        };
        let flipped = self.cell.update(flip).is_ok();
        match flipped {
            true => self.bytes.release_disk(addr),
            false => self.bytes.remove(handle, self.number),
        }
        flipped
    }

    /// As `Engine::lose`, of the segment that the slot's bytes are in now. Tells whether they were lost by that.
    pub(crate) fn give_up(self) -> bool {
        let segment = self.cell.load().backing();
        let Backing::Segment(_) = segment else { return false };
        let lose =
            |word: SlotWord| (word.backing() == segment).then(|| word.with_backing(Backing::Poisoned, age()));
        match self.cell.update(lose) {
            Ok(old) => {
                self.free_backing(old);
                true
            }
            Err(_) => false,
        }
    }

    /// As `Engine::move_entry`, of the entry that the slot has now, where there is room for the copy or none.
    pub(crate) fn compact(self, room: bool) -> Compacted {
        let batch = MoveId::new(COMPACTION).unwrap();
        let Backing::Pool(source) = self.cell.load().backing() else { return Compacted::Not };
        let moving = Backing::Moving(Moving { source, batch });
        let marked =
            self.cell.update(|word| (word.backing() == Backing::Pool(source)).then(|| word.moved_to(moving)));
        if marked.is_err() {
            return Compacted::Not;
        }
        let Some(content) = self.bytes.read(source, self.number) else { return Compacted::Gone };
        if !room {
            return if self.turn_back(batch) { Compacted::TurnedBack } else { Compacted::LostInVain };
        }
        let target = self.bytes.insert(self.number, content);
        let flipped =
            self.cell.update(|word| moving_from(word, batch).map(|_| word.moved_to(Backing::Pool(target))));
        self.bytes.remove(if flipped.is_ok() { source } else { target }, self.number);
        if flipped.is_ok() { Compacted::Moved } else { Compacted::Lost }
    }
}

/// Tries every interleaving, or those with at most so many preemptions.
pub(crate) fn model(preemptions: Option<usize>, check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(check);
}
