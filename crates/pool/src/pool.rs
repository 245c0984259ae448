//! [`Pool`]: insert, read, remove.

use crate::chunk::Chunk;
use crate::class::ClassTable;
use crate::header::{EntryHeader, EntryTag};
use crate::source::{ChunkSource, MappedSource};
use crate::table::{Cell, ChunkTable};
use parking_lot::Mutex;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use vswap_core::{ByteCount, PAGE_SIZE, PoolHandle, SlotId};

/// Empty chunks that are kept for the next need rather than unmapped.
const SPARES: usize = 2;

/// What a pool is made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// Bytes of a chunk: a multiple of a page, from 16 KiB. Each class has one partly filled chunk at least,
    /// so small pools want small chunks; large ones cost fewer mappings.
    pub chunk_bytes: usize,
    /// The most memory that the pool may hold.
    pub limit: Option<ByteCount>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { chunk_bytes: 64 << 10, limit: None }
    }
}

/// An entry could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// One more chunk would pass the limit, or none can be named.
    #[error("the pool holds {held}, its limit is {limit}")]
    Full {
        /// What it holds.
        held: ByteCount,
        /// What it may hold.
        limit: ByteCount,
    },
    /// The system gave no memory.
    #[error("no memory for {bytes} more bytes of pool: {source}")]
    NoMemory {
        /// What was asked for.
        bytes: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are longer than a page.
    #[error("an entry of {length} bytes is longer than a page")]
    TooLong {
        /// How long.
        length: usize,
    },
}

/// What a pool holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolStats {
    /// Entries in use.
    pub entries: u64,
    /// Their bytes.
    pub payload: ByteCount,
    /// Memory really held: touched pages of chunks, headers, tables, spare chunks.
    pub held: ByteCount,
}

/// A chunk that takes no new entries while its own are moved elsewhere.
#[derive(Debug)]
#[must_use = "put it back, or its room is lost until it is empty"]
pub struct SparseChunk {
    class: usize,
    chunk: Partial,
    /// What it held when it was taken; entries may be freed at any time.
    pub entries: Vec<(PoolHandle, EntryHeader)>,
}

/// A chunk that has room, by number and life.
type Partial = (u32, u32);

/// Encoded pages in size classes. All methods take `&self`; see the crate's header for locks.
#[derive(Debug)]
pub struct Pool<S: ChunkSource = MappedSource> {
    classes: ClassTable,
    /// For each class the chunks with room, the latest last. May name lives that are over.
    partial: Box<[Mutex<Vec<Partial>>]>,
    table: ChunkTable<S>,
    spares: Mutex<Vec<S::Memory>>,
    serial: AtomicU32,
    // Counts only: no other memory is read on their strength, so they are relaxed throughout.
    held: AtomicUsize,
    payload: AtomicUsize,
    entries: AtomicUsize,
    config: PoolConfig,
    source: S,
    /// See [`Pool::starve`].
    starving: AtomicBool,
}

impl Pool<MappedSource> {
    /// Makes a pool of anonymous memory.
    pub fn new(config: PoolConfig) -> Self {
        Self::with_source(config, MappedSource)
    }
}

impl<S: ChunkSource> Pool<S> {
    /// Makes a pool that takes its chunks from `source`.
    ///
    /// # Panics
    /// If the chunk size is not a multiple of a page from 16 KiB to 1 MiB.
    pub fn with_source(config: PoolConfig, source: S) -> Self {
        let bytes = config.chunk_bytes;
        assert!(
            bytes.is_multiple_of(PAGE_SIZE) && (16 << 10..=1 << 20).contains(&bytes),
            "chunks of {bytes} bytes"
        );
        let classes = ClassTable::new(bytes);
        Self {
            partial: (0..classes.count()).map(|_| Mutex::default()).collect(),
            classes,
            table: ChunkTable::new(),
            spares: Mutex::default(),
            serial: AtomicU32::new(0),
            held: AtomicUsize::new(0),
            payload: AtomicUsize::new(0),
            entries: AtomicUsize::new(0),
            config,
            source,
            starving: AtomicBool::new(false),
        }
    }

    /// The source gives no more chunks from now on, or does again: for a simulation.
    #[doc(hidden)]
    pub fn starve(&self, starving: bool) {
        self.starving.store(starving, Ordering::Relaxed);
    }

    /// Puts encoded bytes in for a slot.
    ///
    /// # Errors
    /// When the limit or the system gives no memory for another chunk.
    pub fn insert(&self, slot: SlotId, tag: EntryTag, bytes: &[u8]) -> Result<PoolHandle, PoolError> {
        let length = bytes.len();
        let class = self.classes.of_length(length).ok_or(PoolError::TooLong { length })?;
        let header = EntryHeader { slot, tag, length };
        // Lock order: class, then chunk.
        let mut partial = self.partial[class].lock();
        while let Some(&(number, serial)) = partial.last() {
            let cell = self.table.cell(number as usize);
            let Some(mut chunk) = cell.map(Cell::write) else { break };
            match &mut *chunk {
                Some(chunk) if chunk.serial == serial && !chunk.is_full() => {
                    if chunk.room() == 1 {
                        partial.pop();
                    }
                    drop(partial);
                    return Ok(self.put(class, number, chunk, header, bytes));
                }
                // A life that is over.
                _ => partial.pop(),
            };
        }
        let (number, cell) = self.new_chunk(class, &mut partial)?;
        let mut chunk = cell.write();
        drop(partial);
        match &mut *chunk {
            Some(chunk) => Ok(self.put(class, number, chunk, header, bytes)),
            // Only removals touch a chunk that is not partial yet, and it has nothing to remove.
            None => Err(self.full()),
        }
    }

    fn put(
        &self,
        class: usize,
        number: u32,
        chunk: &mut Chunk<S>,
        header: EntryHeader,
        bytes: &[u8],
    ) -> PoolHandle {
        let before = chunk.held();
        let index = chunk.insert(header, bytes);
        self.held.fetch_add(chunk.held() - before, Ordering::Relaxed);
        self.payload.fetch_add(bytes.len(), Ordering::Relaxed);
        self.entries.fetch_add(1, Ordering::Relaxed);
        PoolHandle::new(class, number as usize, index).expect("parts that the tables hand out fit a handle")
    }

    /// Makes a chunk and puts it on its class's list, whose lock the caller holds (so nobody else finds it).
    fn new_chunk(&self, class: usize, partial: &mut Vec<Partial>) -> Result<(u32, &Cell<S>), PoolError> {
        let bytes = self.config.chunk_bytes;
        let spare = self.spares.lock().pop();
        let reused = spare.is_some();
        let memory = match spare {
            Some(memory) => {
                self.held.fetch_sub(bytes, Ordering::Relaxed);
                memory
            }
            None => {
                let after = self.held().get() + bytes as u64;
                if self.config.limit.is_some_and(|limit| after > limit.get()) {
                    return Err(self.full());
                }
                // Relaxed: whoever simulates has one thread.
                let refused = self.starving.load(Ordering::Relaxed).then(|| ErrorKind::OutOfMemory.into());
                let memory = refused.map_or_else(|| self.source.get(bytes), Err);
                memory.map_err(|source| PoolError::NoMemory { bytes, source })?
            }
        };
        let (number, cell) = self.table.take_number().ok_or_else(|| self.full())?;
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let chunk = Box::new(Chunk::new(class as u8, serial, self.classes.size(class), memory, reused));
        self.held.fetch_add(chunk.held(), Ordering::Relaxed);
        if chunk.room() > 1 {
            partial.push((number, serial));
        }
        *cell.write() = Some(chunk);
        Ok((number, cell))
    }

    fn full(&self) -> PoolError {
        let held = ByteCount::new(self.held.load(Ordering::Relaxed) as u64);
        PoolError::Full { held, limit: self.config.limit.unwrap_or(held) }
    }

    /// Reads the entry that a handle names, if it is still this slot's: `read` sees its tag and bytes, which
    /// stay as they are until it returns. It must be short and must not call the pool. Allocates nothing.
    ///
    /// `None` says that the handle is out of date: look at the slot again.
    pub fn read<R>(
        &self,
        handle: PoolHandle,
        slot: SlotId,
        read: impl FnOnce(EntryTag, &[u8]) -> R,
    ) -> Option<R> {
        let chunk = self.table.cell(handle.chunk())?.read();
        let chunk = chunk.as_ref()?;
        let header = Self::header_of(chunk, handle, slot)?;
        Some(read(header.tag, chunk.payload(handle.index(), header.length)))
    }

    fn header_of(chunk: &Chunk<S>, handle: PoolHandle, slot: SlotId) -> Option<EntryHeader> {
        let header = chunk.header(handle.index())?;
        (usize::from(chunk.class) == handle.class() && header.slot == slot).then_some(header)
    }

    /// Takes an entry out and gives its length, or `None` if the handle is not this slot's any more.
    pub fn remove(&self, handle: PoolHandle, slot: SlotId) -> Option<usize> {
        let number = handle.chunk();
        let cell = self.table.cell(number)?;
        let (length, serial, was_full, is_empty) = {
            let mut chunk = cell.write();
            let chunk = chunk.as_mut()?;
            let header = Self::header_of(chunk, handle, slot)?;
            let was_full = chunk.is_full();
            chunk.remove(handle.index());
            (header.length, chunk.serial, was_full, chunk.is_empty())
        };
        self.payload.fetch_sub(length, Ordering::Relaxed);
        self.entries.fetch_sub(1, Ordering::Relaxed);
        if is_empty {
            self.give_back(handle.class(), number as u32, serial);
        } else if was_full {
            // The chunk's lock is free again: class before chunk holds. Between the two the chunk was on no
            // list, so nobody can have filled it.
            self.partial[handle.class()].lock().push((number as u32, serial));
        }
        Some(length)
    }

    /// Gives a chunk back that was seen empty, if it still is.
    fn give_back(&self, class: usize, number: u32, serial: u32) {
        // Lock order: class, then chunk. The class's lock keeps inserts away between the look and the end.
        let mut partial = self.partial[class].lock();
        let Some(cell) = self.table.cell(number as usize) else { return };
        let chunk = {
            let mut chunk = cell.write();
            if !chunk.as_ref().is_some_and(|chunk| chunk.serial == serial && chunk.is_empty()) {
                return;
            }
            chunk.take()
        };
        // Lives that are over are skipped by inserts; where nobody inserts, they are cleared here.
        if partial.last() == Some(&(number, serial)) {
            partial.pop();
        } else if partial.len() > 64 {
            self.forget_dead(&mut partial);
        }
        drop(partial);
        let Some(chunk) = chunk else { return };
        self.held.fetch_sub(chunk.held(), Ordering::Relaxed);
        self.table.return_number(number);
        let memory = chunk.into_memory();
        let mut spares = self.spares.lock();
        if spares.len() < SPARES {
            self.held.fetch_add(self.config.chunk_bytes, Ordering::Relaxed);
            spares.push(memory);
        }
    }

    /// Drops what a list says of chunks that are gone, when they may be the most of it.
    fn forget_dead(&self, partial: &mut Vec<Partial>) {
        if partial.len() < partial.capacity() {
            return;
        }
        partial.retain(|(number, serial)| {
            let chunk = self.table.cell(*number as usize).map(Cell::read);
            chunk.is_some_and(|chunk| chunk.as_ref().is_some_and(|chunk| chunk.serial == *serial))
        });
    }

    /// Takes the emptiest chunk of a class out of use for new entries, if it is at most so many quarters full and the
    /// others with room can take all that it has. The caller moves its entries by inserting and removing them
    /// (new ones go to the fullest chunk), then calls [`Pool::put_back`].
    pub fn take_sparse(&self, class: usize, quarters: usize) -> Option<SparseChunk> {
        // Lock order: class, then one chunk at a time.
        let mut partial = self.partial.get(class)?.lock();
        let mut rooms: Vec<(usize, Partial)> = Vec::with_capacity(partial.len());
        for (number, serial) in partial.drain(..) {
            let chunk = self.table.cell(number as usize).map(Cell::read);
            let Some(Some(chunk)) = chunk.as_deref() else { continue };
            if chunk.serial == serial {
                rooms.push((chunk.room(), (number, serial)));
            }
        }
        // The emptiest first; inserts take the last.
        rooms.sort_unstable_by_key(|(room, _)| std::cmp::Reverse(*room));
        partial.extend(rooms.iter().map(|(_, chunk)| *chunk));
        let &(room, (number, serial)) = rooms.first()?;
        let others: usize = rooms[1..].iter().map(|(room, _)| room).sum();
        let chunk = self.table.cell(number as usize)?.read();
        let chunk = chunk.as_deref()?;
        let used = chunk.capacity() - room;
        if chunk.serial != serial || used * 4 > chunk.capacity() * quarters || used > others {
            return None;
        }
        partial.remove(0);
        let named = |(index, header)| Some((PoolHandle::new(class, number as usize, index)?, header));
        let entries = chunk.entries().filter_map(named).collect();
        Some(SparseChunk { class, chunk: (number, serial), entries })
    }

    /// Lets new entries into a chunk again, if any of its own are left; else it is gone already.
    pub fn put_back(&self, sparse: SparseChunk) {
        let (number, serial) = sparse.chunk;
        // Lock order: class, then chunk.
        let mut partial = self.partial[sparse.class].lock();
        let chunk = self.table.cell(number as usize).map(Cell::read);
        if chunk.is_some_and(|chunk| chunk.as_ref().is_some_and(|chunk| chunk.serial == serial)) {
            partial.insert(0, (number, serial));
        }
    }

    /// Drops the spare chunks.
    pub fn trim(&self) {
        let spares = std::mem::take(&mut *self.spares.lock());
        self.held.fetch_sub(spares.len() * self.config.chunk_bytes, Ordering::Relaxed);
    }

    /// The size classes.
    pub fn classes(&self) -> &ClassTable {
        &self.classes
    }

    /// Calls `visit` for each entry in use, chunk by chunk under the chunk's lock.
    pub fn for_each(&self, mut visit: impl FnMut(PoolHandle, EntryHeader)) {
        for (number, cell) in self.table.cells() {
            let Some(chunk) = &*cell.read() else { continue };
            for (index, header) in chunk.entries() {
                if let Some(handle) = PoolHandle::new(chunk.class.into(), number, index) {
                    visit(handle, header);
                }
            }
        }
    }

    /// Memory that is really held.
    pub fn held(&self) -> ByteCount {
        ByteCount::new((self.held.load(Ordering::Relaxed) + self.table.memory()) as u64)
    }

    /// What it holds.
    pub fn stats(&self) -> PoolStats {
        PoolStats {
            entries: self.entries.load(Ordering::Relaxed) as u64,
            payload: ByteCount::new(self.payload.load(Ordering::Relaxed) as u64),
            held: self.held(),
        }
    }
}
