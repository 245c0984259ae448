//! [`SimDisk`]: a device in memory that fails as its world wants, and lets the world go on in the middle of every call. [`SimGhost`]: a tier that is
//! memory, and does the latter, too.
//!
//! What a fault has made wrong is remembered block by block, so that an error of a load can be told from one that nothing explains.

use crate::deeds::Deed;
use crate::table::Event;
use crate::world::World;
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use vswap_segment::{
    AlignedBuf, BLOCK, Ghost, GhostMemory, SEGMENT_BYTES, SharedRoom, Storage, SyncQueue, TierKind,
    WriteDone, WriteQueue,
};

const EIO: i32 = 5;

/// Which faults a device has, each at one call in so many; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) read: u64,
    pub(crate) write: u64,
    /// The queue of writes says that it is broken.
    pub(crate) queue: u64,
}

#[derive(Debug, Default)]
struct Medium {
    bytes: Vec<u8>,
    /// Blocks that do not hold what was written to them last.
    tainted: HashSet<usize>,
}

#[derive(Debug)]
pub(crate) struct SimDisk {
    kind: TierKind,
    medium: Mutex<Medium>,
    /// What comes before the segments: an area's own.
    start: usize,
    capacity: usize,
    faults: Faults,
    world: Weak<World>,
}

impl SimDisk {
    pub(crate) fn new(kind: TierKind, segments: usize, faults: Faults, world: &Arc<World>) -> Arc<Self> {
        let capacity = segments * SEGMENT_BYTES;
        let start = if kind == TierKind::Directory { 0 } else { SEGMENT_BYTES };
        let medium = Medium { bytes: vec![0; start + capacity], tainted: HashSet::new() };
        let (medium, world) = (Mutex::new(medium), Arc::downgrade(world));
        Arc::new(Self { kind, medium, start, capacity, faults, world })
    }

    /// Where a place is that is so far from the first segment's, and round again.
    fn round(&self, at: usize) -> usize {
        self.start + at % self.capacity
    }

    fn note(&self, deed: Deed) {
        if let Some(world) = self.world.upgrade() {
            world.note(deed, self.kind);
        }
    }

    /// A byte changes by itself.
    pub(crate) fn rot(&self, at: u64) {
        let mut medium = self.medium.lock().expect("one thread");
        let at = self.round(at as usize);
        medium.bytes[at] ^= 1 << (at % 8);
        medium.tainted.insert(at / BLOCK);
    }

    /// Outside of what the engine does by itself, only a load reads.
    fn interlude(&self, other: Event) {
        if let Some(world) = self.world.upgrade() {
            world.interlude(other);
        }
    }

    fn strikes(&self, one_in: u64) -> Option<u64> {
        let world = self.world.upgrade()?;
        (one_in > 0 && world.faulty() && world.draw(one_in) == 0).then(|| world.draw(6))
    }

    /// A read brings what cannot be what was written.
    fn suspect(&self) {
        if let Some(world) = self.world.upgrade() {
            world.suspect();
        }
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let fault = self.strikes(self.faults.write);
        let cut = self.world.upgrade().map_or(0, |world| world.draw(1 + (from.len() / BLOCK) as u64));
        let cut = (cut as usize * BLOCK).min(from.len());
        let mut medium = self.medium.lock().expect("one thread");
        let offset = offset as usize;
        let blocks = offset / BLOCK..(offset + from.len()).div_ceil(BLOCK);
        let split = (offset + cut) / BLOCK;
        let mut put = |at: usize, bytes: &[u8], sound: bool| {
            medium.bytes[at..][..bytes.len()].copy_from_slice(bytes);
            for block in at / BLOCK..(at + bytes.len()).div_ceil(BLOCK) {
                if sound {
                    medium.tainted.remove(&block)
                } else {
                    medium.tainted.insert(block)
                };
            }
        };
        match fault {
            None => {
                put(offset, from, true);
                self.world.upgrade().into_iter().for_each(|world| world.note_write(self.kind));
            }
            Some(0) => return Err(io::Error::from_raw_os_error(EIO)),
            Some(1) => {
                put(offset, &from[..cut], true);
                self.note(Deed::Full);
                return Err(io::ErrorKind::StorageFull.into());
            }
            Some(2) => {
                put(offset, &from[..cut], true);
                return Err(io::Error::from_raw_os_error(EIO));
            }
            // Torn: a part is written, the device says all is.
            Some(3) => {
                put(offset, &from[..cut], true);
                medium.tainted.extend(split..blocks.end);
            }
            // Lost: what was there before stays, of an earlier segment maybe.
            Some(4) => medium.tainted.extend(blocks),
            // Misdirected: over somebody else's.
            Some(_) => {
                let elsewhere = self.round(offset - self.start + SEGMENT_BYTES);
                put(elsewhere, from, false);
                medium.tainted.extend(blocks);
            }
        }
        Ok(())
    }
}

impl Storage for SimDisk {
    fn kind(&self) -> TierKind {
        self.kind
    }

    fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    fn start(&self) -> u64 {
        self.start as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.interlude(Event::Load);
        let fault = self.strikes(self.faults.read);
        let (at, len) = (offset as usize, into.len());
        let mut got = len;
        {
            let medium = self.medium.lock().expect("one thread");
            into.copy_from_slice(&medium.bytes[at..][..len]);
            let mut blocks = at / BLOCK..(at + len).div_ceil(BLOCK);
            if fault.is_some() || blocks.any(|block| medium.tainted.contains(&block)) {
                self.suspect();
            }
            match fault {
                None => {}
                Some(0 | 1) => return Err(io::Error::from_raw_os_error(EIO)),
                Some(2) => got = len / 2,
                Some(3) => into[len / 3] ^= 0x40,
                // Of another place.
                Some(4) => {
                    let other = (at + BLOCK).min(self.start + self.capacity - len);
                    into.copy_from_slice(&medium.bytes[other..][..len]);
                }
                Some(_) => into[len / 2..].fill(0),
            }
        }
        self.note(Deed::Read);
        self.interlude(Event::Load);
        Ok(got)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.interlude(Event::Load);
        self.write(offset, from)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.interlude(Event::Tidying);
        if self.strikes(self.faults.write).is_some() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let mut medium = self.medium.lock().expect("one thread");
        medium.bytes[offset as usize..][..len as usize].fill(0xdd);
        drop(medium);
        self.note(Deed::Tidied);
        Ok(())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(Queue { disk: self, depth: depth.max(1), pending: Vec::new() })
    }
}

/// A tier in memory: it loses nothing and is never out of reach, but the system may have no memory for what is written to it.
#[derive(Debug)]
pub(crate) struct SimGhost {
    inner: Ghost,
    world: Weak<World>,
}

impl SimGhost {
    pub(crate) fn new(segments: usize, memory: Arc<GhostMemory>, world: &Arc<World>) -> Arc<Self> {
        let inner = Ghost::new((segments * SEGMENT_BYTES) as u64, memory);
        Arc::new(Self { inner, world: Arc::downgrade(world) })
    }

    fn interlude(&self, other: Event) {
        if let Some(world) = self.world.upgrade() {
            world.interlude(other);
        }
    }

    fn note(&self, deed: Deed) {
        if let Some(world) = self.world.upgrade() {
            world.note(deed, TierKind::Ghost);
        }
    }
}

impl Storage for SimGhost {
    fn kind(&self) -> TierKind {
        TierKind::Ghost
    }

    fn capacity(&self) -> u64 {
        self.inner.capacity()
    }

    fn room(&self) -> Option<SharedRoom> {
        let room = self.inner.room();
        if room.is_some_and(|room| room.bytes < SEGMENT_BYTES as u64) {
            self.note(Deed::Full);
        }
        room
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.interlude(Event::Load);
        let got = self.inner.read_at(offset, into);
        self.note(Deed::Read);
        self.interlude(Event::Load);
        got
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.interlude(Event::Load);
        let starves = self.world.upgrade().is_some_and(|world| world.starves());
        if starves {
            self.note(Deed::Full);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write_at(offset, from)?;
        self.world.upgrade().into_iter().for_each(|world| world.note_write(TierKind::Ghost));
        self.interlude(Event::Load);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.interlude(Event::Tidying);
        self.note(Deed::Tidied);
        self.inner.punch(offset, len)
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(SyncQueue::new(self, depth))
    }
}

/// What is behind a tier.
#[derive(Debug)]
pub(crate) enum Device {
    Disk(Arc<SimDisk>),
    Ghost(Arc<SimGhost>),
}

impl Device {
    pub(crate) fn kind(&self) -> TierKind {
        match self {
            Self::Disk(disk) => disk.kind,
            Self::Ghost(_) => TierKind::Ghost,
        }
    }

    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        match self {
            Self::Disk(disk) => Arc::clone(disk) as _,
            Self::Ghost(ghost) => Arc::clone(ghost) as _,
        }
    }

    /// Whether anybody else has it.
    pub(crate) fn is_held(&self) -> bool {
        let holders = match self {
            Self::Disk(disk) => Arc::strong_count(disk),
            Self::Ghost(ghost) => Arc::strong_count(ghost),
        };
        holders > 1
    }
}

struct Pending {
    offset: u64,
    buf: AlignedBuf,
    len: usize,
    tag: u64,
}

/// Writes reach the medium when they are waited for, in any order.
struct Queue {
    disk: Arc<SimDisk>,
    depth: usize,
    pending: Vec<Pending>,
}

impl WriteQueue for Queue {
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
        if self.disk.strikes(self.disk.faults.queue).is_some() {
            return Err((io::Error::from_raw_os_error(EIO), buf));
        }
        self.pending.push(Pending { offset, buf, len, tag });
        self.disk.interlude(Event::Load);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.pending.len() >= self.depth
    }

    fn wait(&mut self) -> io::Result<Option<WriteDone>> {
        if self.pending.is_empty() {
            return Ok(None);
        }
        self.disk.interlude(Event::Load);
        if self.disk.strikes(self.disk.faults.queue).is_some() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let at = self.disk.world.upgrade().map_or(0, |world| world.draw(self.pending.len() as u64));
        let Pending { offset, buf, len, tag } = self.pending.swap_remove(at as usize);
        let result = self.disk.write(offset, &buf[..len]);
        self.disk.interlude(Event::Load);
        Ok(Some(WriteDone { tag, buf, result }))
    }
}
