//! [`Storage`]: the narrow interface to a tier, and the unlinked file in a directory that is one.
//!
//! Everything that can fail outside of the program passes here, so a test can break each of it.

use crate::{AlignedBuf, SEGMENT_BYTES, WriteDone};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vswap_sys::direct::{DirectFile, DirectWriter, PlaceError, place};

/// What is behind a tier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TierKind {
    /// An unlinked file in a directory: [`FileStorage`].
    Directory,
    /// A file with a name: [`Area`](crate::Area).
    File,
    /// A block device: [`Area`](crate::Area).
    Device,
    /// Nothing: what is on it is in memory. See [`Ghost`](crate::Ghost).
    Ghost,
    /// Room that a store of objects lends. See [`Loan`](crate::Loan).
    Store,
}

impl TierKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Directory, Self::File, Self::Device, Self::Ghost, Self::Store];

    /// One word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File => "file",
            Self::Device => "device",
            Self::Ghost => "ghost",
            Self::Store => "store",
        }
    }

    /// Whether what is on it never leaves memory: there is nothing to hide then, no read to spare, and no room to keep.
    #[must_use]
    pub const fn is_memory(self) -> bool {
        matches!(self, Self::Ghost)
    }

    /// The kind of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Free segments whose room is kept for the next write: 32 MiB.
const KEEP_WARM: usize = 16;

/// Whose room it is that several tiers may have to share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoomOf {
    /// Memory.
    Memory,
    /// A file system, by its device number.
    FileSystem(u64),
    /// A file of which parts are lent, by the numbers of its file system and of itself.
    File(u64, u64),
}

/// Room that is not one tier's alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedRoom {
    /// Bytes, for all who share it.
    pub bytes: u64,
    /// Who these are.
    pub of: RoomOf,
}

/// A tier's bytes. Offsets and lengths are multiples of [`BLOCK`](crate::BLOCK), memory is aligned to it.
pub trait Storage: Send + Sync + Debug {
    /// What it is, for people and for what makes no sense with some kinds.
    fn kind(&self) -> TierKind {
        TierKind::Directory
    }

    /// Bytes that it may hold, from [`start`](Self::start) on.
    fn capacity(&self) -> u64;

    /// Where segments may begin: whole segments before it are the storage's own.
    fn start(&self) -> u64 {
        0
    }

    /// What it could take now, if that is less than its capacity promises: it may share its room with others. May ask a device, so no lock is
    /// to be held.
    fn room(&self) -> Option<SharedRoom> {
        None
    }

    /// Reads into all of `into` at `offset`; fewer bytes than asked mean that the rest is missing.
    ///
    /// # Errors
    /// As the device.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `from` at `offset`.
    ///
    /// # Errors
    /// As the device; `StorageFull` when there is no room.
    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()>;

    /// Everything written and ended so far outlives a power cut once this has returned.
    ///
    /// # Errors
    /// As the device: then nothing is known of what was written since the last time that it went well.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// Its file, for one to whom a part of it is lent; `None` for what is no file.
    fn file(&self) -> Option<&Arc<DirectFile>> {
        None
    }

    /// Where it is, for people; `None` for what has no name.
    fn path(&self) -> Option<&Path> {
        None
    }

    /// Free segments that keep their room for what is written next.
    fn keeps_free(&self) -> usize {
        KEEP_WARM
    }

    /// Gives the room of a range back; what it reads as afterwards does not matter.
    ///
    /// # Errors
    /// As the device. The range stays usable.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// A queue of writes, `depth` in flight, for one writer.
    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue>;
}

/// Whether a write failed for want of room, of the device or of the user's share of it, and not because anything is broken.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes in flight, taken back one by one. See [`DirectWriter`].
pub trait WriteQueue: Send {
    /// Starts writing the first `len` bytes of `buf`.
    ///
    /// # Errors
    /// Gives the buffer back if it cannot even be tried; else the result comes from `wait`.
    fn submit(
        &mut self,
        offset: u64,
        buf: AlignedBuf,
        len: usize,
        tag: u64,
    ) -> Result<(), (io::Error, AlignedBuf)>;

    /// Whether `submit` would refuse for lack of room in the queue.
    fn is_full(&self) -> bool;

    /// Waits for one write to end; `None` when none is out.
    ///
    /// # Errors
    /// If the queue itself is broken.
    fn wait(&mut self) -> io::Result<Option<WriteDone>>;
}

impl WriteQueue for DirectWriter {
    fn submit(
        &mut self,
        offset: u64,
        buf: AlignedBuf,
        len: usize,
        tag: u64,
    ) -> Result<(), (io::Error, AlignedBuf)> {
        Self::submit(self, offset, buf, len, tag)
    }

    fn is_full(&self) -> bool {
        Self::is_full(self)
    }

    fn wait(&mut self) -> io::Result<Option<WriteDone>> {
        Self::wait(self)
    }
}

/// The simplest queue: each write is done when it is submitted.
#[derive(Debug)]
pub struct SyncQueue {
    storage: Arc<dyn Storage>,
    done: VecDeque<WriteDone>,
    depth: usize,
}

impl SyncQueue {
    /// A queue over any storage.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, depth: usize) -> Self {
        Self { storage, done: VecDeque::new(), depth: depth.max(1) }
    }
}

impl WriteQueue for SyncQueue {
    fn submit(
        &mut self,
        offset: u64,
        buf: AlignedBuf,
        len: usize,
        tag: u64,
    ) -> Result<(), (io::Error, AlignedBuf)> {
        if len > buf.len() || self.is_full() {
            return Err((io::ErrorKind::InvalidInput.into(), buf));
        }
        let result = self.storage.write_at(offset, &buf[..len]);
        self.done.push_back(WriteDone { tag, buf, result });
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.done.len() >= self.depth
    }

    fn wait(&mut self) -> io::Result<Option<WriteDone>> {
        Ok(self.done.pop_front())
    }
}

/// An unlinked file on a disk. It has a fixed size, or grows and shrinks with what is on it.
#[derive(Debug)]
pub struct FileStorage {
    file: Arc<DirectFile>,
    dir: PathBuf,
    capacity: u64,
    /// Bytes that are left free for others on the file system, if the size is not fixed.
    left_free: Option<u64>,
}

/// What is left free for others on a file system, if no size is said: a fifth of what was free.
const LEFT_FREE: u64 = 5;

impl FileStorage {
    /// Makes the file in `dir`, for `capacity` bytes rounded down to whole segments and held to the
    /// process's file-size limit. Room is taken only as it is written.
    ///
    /// # Errors
    /// If the directory is on a memory file system, or no file of that length can be made there.
    pub fn create(dir: &Path, capacity: u64) -> Result<Self, PlaceError> {
        let file = DirectFile::create(dir)?;
        let capacity = capacity.min(place::file_size_limit());
        let capacity = capacity - capacity % SEGMENT_BYTES as u64;
        file.set_len(capacity).map_err(|source| PlaceError::Io {
            dir: dir.to_owned(),
            act: "make a file of the wanted length in",
            source,
        })?;
        Ok(Self { file: Arc::new(file), dir: dir.to_owned(), capacity, left_free: None })
    }

    /// Makes the file in `dir`, of no fixed size: it takes what the file system can spare at any moment, and leaves a fifth of what is free now
    /// to others.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_elastic(dir: &Path) -> Result<Self, PlaceError> {
        let io = |source| PlaceError::Io { dir: dir.to_owned(), act: "see the free space of", source };
        let size = place::size(dir).map_err(io)?;
        let free = place::free_space(dir).map_err(io)?;
        let file = DirectFile::create(dir)?;
        let capacity = size.min(place::file_size_limit());
        let capacity = capacity - capacity % SEGMENT_BYTES as u64;
        Ok(Self { file: Arc::new(file), dir: dir.to_owned(), capacity, left_free: Some(free / LEFT_FREE) })
    }

    /// The file: whether it is direct, how much it takes.
    #[must_use]
    pub fn file(&self) -> &DirectFile {
        &self.file
    }
}

impl Storage for FileStorage {
    fn kind(&self) -> TierKind {
        TierKind::Directory
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn room(&self) -> Option<SharedRoom> {
        let left_free = self.left_free?;
        // Where it cannot be told, a write will.
        let free = place::free_space(&self.dir).ok()?;
        let of = RoomOf::FileSystem(std::fs::metadata(&self.dir).ok()?.dev());
        Some(SharedRoom { bytes: free.saturating_sub(left_free), of })
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, from)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.dir)
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(DirectWriter::new(Arc::clone(&self.file), depth))
    }
}
