//! A disk in memory that loses power: for tests of what outlives a run.
//!
//! What was written and not synced by then is there or not, sector by sector, whichever came first; of several writes to one sector any
//! may be the one that is there. What was synced is there.

use crate::storage::{Storage, SyncQueue, TierKind, WriteQueue};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct Bytes {
    /// What whoever reads finds.
    now: Vec<u8>,
    /// What is there whatever happens.
    synced: Vec<u8>,
    /// Sectors that were written since, oldest first.
    since: Vec<(usize, Box<[u8; SECTOR]>)>,
    /// Sectors that were written before these and are synced.
    drained: usize,
    /// Of a file: what it is long now, and what it was when it was synced.
    len: usize,
    synced_len: usize,
}

/// What is done while the disk syncs.
type Meanwhile = Box<dyn FnMut() + Send>;

/// See the module's header. Its length is rounded up to whole sectors.
pub struct Power {
    bytes: Mutex<Bytes>,
    /// Calls that go well until all fail.
    left: AtomicU64,
    meanwhile: Mutex<Option<Meanwhile>>,
}

impl std::fmt::Debug for Power {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Power").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Power {
    /// A disk of so many bytes, all zero.
    #[must_use]
    pub fn new(len: usize) -> Arc<Self> {
        let len = len.next_multiple_of(SECTOR);
        Self::holding(vec![0; len], len)
    }

    /// A disk that has these bytes whatever happens, of which so many are a file's.
    #[must_use]
    pub fn holding(mut bytes: Vec<u8>, len: usize) -> Arc<Self> {
        bytes.resize(len.next_multiple_of(SECTOR), 0);
        let synced = bytes.clone();
        let bytes = Bytes { now: bytes, synced, since: Vec::new(), drained: 0, len, synced_len: len };
        let (bytes, left) = (Mutex::new(bytes), AtomicU64::new(u64::MAX));
        Arc::new(Self { bytes, left, meanwhile: Mutex::default() })
    }

    /// What is done, by the thread that syncs, while each sync is under way but those of a changed length: what others may do then, of whom none is to be kept waiting.
    pub fn during_syncs(&self, meanwhile: Option<Meanwhile>) {
        *self.meanwhile.lock() = meanwhile;
    }

    /// Everything fails after so many writes and syncs more: the power goes there.
    pub fn fail_after(&self, calls: u64) {
        // Relaxed, here and below: a number that guards nothing.
        self.left.store(calls, Ordering::Relaxed);
    }

    /// The disk as it is found when the power is back; `chance` gives random numbers.
    #[must_use]
    pub fn cut(&self, mut chance: impl FnMut() -> u64) -> Arc<Self> {
        let bytes = self.bytes.lock();
        let mut found = bytes.synced.clone();
        let len =
            if bytes.len != bytes.synced_len && chance() & 1 == 0 { bytes.len } else { bytes.synced_len };
        // All, none, or each as it happens.
        let kind = chance() % 4;
        let mut since: Vec<_> = bytes.since.iter().collect();
        if kind == 3 {
            for at in (1..since.len()).rev() {
                since.swap(at, (chance() % (at as u64 + 1)) as usize);
            }
        }
        for (sector, written) in since {
            if kind == 0 || kind > 1 && chance() & 1 == 0 {
                let at = sector * SECTOR;
                if found.len() < at + SECTOR {
                    found.resize(at + SECTOR, 0);
                }
                found[at..at + SECTOR].copy_from_slice(&written[..]);
            }
        }
        Self::holding(found, len)
    }

    fn call(&self) -> io::Result<()> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| io::Error::other("the power is gone"))
    }

    /// Bytes of it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.lock().len as u64
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes it longer, by zeroes, or shorter: for one that is a file.
    ///
    /// # Errors
    /// When the power is gone.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.call()?;
        let mut bytes = self.bytes.lock();
        bytes.len = len as usize;
        let whole = bytes.len.next_multiple_of(SECTOR);
        bytes.now.resize(whole, 0);
        Ok(())
    }

    /// Reads what is there.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let bytes = self.bytes.lock();
        let from = bytes.now.get(offset as usize..).unwrap_or_default();
        let got = from.len().min(into.len());
        into[..got].copy_from_slice(&from[..got]);
        got
    }

    /// Writes at any offset; a sector of which a part is written is written whole.
    ///
    /// # Errors
    /// When the power is gone, or it would go beyond the end.
    pub fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.call()?;
        let mut bytes = self.bytes.lock();
        let at = offset as usize;
        let into = bytes.now.get_mut(at..at + from.len()).ok_or(io::ErrorKind::StorageFull)?;
        into.copy_from_slice(from);
        for sector in at / SECTOR..(at + from.len()).div_ceil(SECTOR) {
            let mut written = Box::new([0; SECTOR]);
            written.copy_from_slice(&bytes.now[sector * SECTOR..][..SECTOR]);
            bytes.since.push((sector, written));
        }
        Ok(())
    }

    /// What was written so far is there whatever happens.
    ///
    /// # Errors
    /// When the power is gone.
    pub fn flush(&self) -> io::Result<()> {
        self.call()?;
        let (as_long, until, len) = {
            let bytes = self.bytes.lock();
            (bytes.len == bytes.synced_len, bytes.drained + bytes.since.len(), bytes.len)
        };
        // It may sync, too.
        let meanwhile = if as_long { self.meanwhile.lock().take() } else { None };
        if let Some(mut meanwhile) = meanwhile {
            meanwhile();
            *self.meanwhile.lock() = Some(meanwhile);
        }
        // Of what was written meanwhile nothing is promised.
        let bytes = &mut *self.bytes.lock();
        bytes.synced.resize(bytes.now.len(), 0);
        let pending = until.saturating_sub(bytes.drained);
        bytes.drained += pending;
        for (sector, written) in bytes.since.drain(..pending) {
            if let Some(into) = bytes.synced.get_mut(sector * SECTOR..(sector + 1) * SECTOR) {
                into.copy_from_slice(&written[..]);
            }
        }
        bytes.synced_len = len;
        Ok(())
    }
}

impl Storage for Power {
    fn kind(&self) -> TierKind {
        TierKind::File
    }

    fn capacity(&self) -> u64 {
        self.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        Ok(self.read(offset, into))
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.write(offset, from)
    }

    fn sync(&self) -> io::Result<()> {
        self.flush()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write(offset, &vec![0; len as usize])
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(SyncQueue::new(self, depth))
    }
}
