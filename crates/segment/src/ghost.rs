//! [`Ghost`]: a tier with nothing behind it. Its segments are in memory, compressed as they came.
//!
//! To everybody else it is a tier like another; what makes no sense for memory is left out: its entries are not encrypted (see
//! [`Keys::in_memory`](crate::Keys)), no runs of them are read in advance, and the room of a dead segment is given back at once. It
//! takes memory only for what is on it, counted by [`GhostMemory`]; at the limit that is set there it has no room, as a device that is full.

use crate::storage::{RoomOf, SharedRoom, Storage, SyncQueue, TierKind, WriteQueue};
use crate::{BLOCK, SEGMENT_BYTES};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vswap_sys::mapping::Mapping;

/// The memory of all ghosts together, and the most that it may be.
#[derive(Debug)]
pub struct GhostMemory {
    held: AtomicU64,
    limit: AtomicU64,
}

impl Default for GhostMemory {
    fn default() -> Self {
        Self { held: AtomicU64::new(0), limit: AtomicU64::new(u64::MAX) }
    }
}

// Relaxed throughout: counts that publish nothing but themselves.
impl GhostMemory {
    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// From now on no segment is begun that would take more. What is there stays.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    fn room(&self) -> u64 {
        self.limit.load(Ordering::Relaxed).saturating_sub(self.held())
    }
}

/// A segment's bytes, counted as long as they are there.
#[derive(Debug)]
struct Held {
    bytes: Mapping,
    memory: Arc<GhostMemory>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

/// A tier in memory.
#[derive(Debug)]
pub struct Ghost {
    memory: Arc<GhostMemory>,
    capacity: u64,
    /// By the number of their extent. Held for a look-up, not while bytes are copied.
    segments: RwLock<HashMap<u64, Arc<Held>>>,
}

impl Ghost {
    /// A ghost that is said to be of `capacity` bytes, whatever memory there is.
    #[must_use]
    pub fn new(capacity: u64, memory: Arc<GhostMemory>) -> Self {
        Self { memory, capacity, segments: RwLock::default() }
    }

    /// The extent and the place in it.
    fn place(offset: u64) -> (u64, usize) {
        let segment = SEGMENT_BYTES as u64;
        (offset / segment, (offset % segment) as usize)
    }
}

impl Storage for Ghost {
    fn kind(&self) -> TierKind {
        TierKind::Ghost
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn room(&self) -> Option<SharedRoom> {
        Some(SharedRoom { bytes: self.memory.room(), of: RoomOf::Memory })
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let (extent, from) = Self::place(offset);
        let Some(held) = self.segments.read().get(&extent).cloned() else { return Ok(0) };
        let bytes = held.bytes.as_slice().get(from..).unwrap_or_default();
        let len = bytes.len().min(into.len());
        into[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    /// Takes the whole content of an extent.
    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let (extent, at) = Self::place(offset);
        if at != 0 || from.is_empty() || from.len() > SEGMENT_BYTES || !from.len().is_multiple_of(BLOCK) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a ghost takes whole segments"));
        }
        // Memory that the system does not give is a device that is full.
        let no_memory = |_| io::Error::from(io::ErrorKind::StorageFull);
        let mut bytes = Mapping::anonymous(from.len()).map_err(no_memory)?;
        bytes.as_mut_slice().copy_from_slice(from);
        self.memory.held.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let former =
            self.segments.write().insert(extent, Arc::new(Held { bytes, memory: self.memory.clone() }));
        drop(former);
        Ok(())
    }

    fn punch(&self, offset: u64, _len: u64) -> io::Result<()> {
        let former = self.segments.write().remove(&Self::place(offset).0);
        drop(former);
        Ok(())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(SyncQueue::new(self, depth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AlignedBuf;

    #[test]
    fn it_holds_what_was_written_and_no_more_and_counts_it() {
        let memory = Arc::new(GhostMemory::default());
        let ghost = Ghost::new(1 << 40, Arc::clone(&memory));
        let mut bytes = AlignedBuf::zeroed(3 * BLOCK);
        bytes.fill(7);
        let far = 1000 * SEGMENT_BYTES as u64;
        ghost.write_at(far, &bytes).unwrap();
        assert_eq!(memory.held(), 3 * BLOCK as u64);
        let mut back = AlignedBuf::zeroed(4 * BLOCK);
        assert_eq!(ghost.read_at(far + BLOCK as u64, &mut back).unwrap(), 2 * BLOCK);
        assert!(back[..2 * BLOCK].iter().all(|byte| *byte == 7));
        assert_eq!(ghost.read_at(0, &mut back).unwrap(), 0);
        assert_eq!(ghost.read_at(far + SEGMENT_BYTES as u64 - BLOCK as u64, &mut back).unwrap(), 0);
        ghost.write_at(far, &bytes[..BLOCK]).unwrap();
        assert_eq!(memory.held(), BLOCK as u64);
        assert!(ghost.write_at(far + BLOCK as u64, &bytes).is_err());
        memory.set_limit(SEGMENT_BYTES as u64);
        assert_eq!(ghost.room().unwrap().bytes, (SEGMENT_BYTES - BLOCK) as u64);
        memory.set_limit(0);
        assert_eq!(ghost.room().unwrap().bytes, 0);
        ghost.punch(far, SEGMENT_BYTES as u64).unwrap();
        assert_eq!(memory.held(), 0);
        ghost.write_at(0, &bytes).unwrap();
        drop(ghost);
        assert_eq!(memory.held(), 0);
    }
}
