//! A disk in memory that fails now and then: one call in so many of each kind.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vswap_segment::{Storage, SyncQueue, WriteQueue};

/// One call in so many does this; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub read_error: u64,
    pub short_read: u64,
    pub flipped_read: u64,
    pub write_error: u64,
    /// The disk says that it is full, after a part.
    pub full: u64,
    /// A part is written, and success is reported.
    pub torn: u64,
    /// Nothing is written, and success is reported.
    pub lost: u64,
}

pub struct Flaky {
    bytes: Mutex<Vec<u8>>,
    faults: Faults,
    healthy: AtomicBool,
    unreadable: AtomicBool,
    /// No read from before this offset succeeds.
    bad_below: AtomicU64,
    calls: AtomicU64,
    injected: AtomicU64,
    before_write: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Flaky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flaky").field("faults", &self.faults).finish_non_exhaustive()
    }
}

impl Flaky {
    pub fn new(capacity: usize, faults: Faults) -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::new(vec![0; capacity]),
            faults,
            healthy: AtomicBool::new(false),
            unreadable: AtomicBool::new(false),
            bad_below: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            injected: AtomicU64::new(0),
            before_write: Mutex::default(),
        })
    }

    /// No more faults; what was damaged stays so.
    pub fn heal(&self) {
        self.healthy.store(true, Ordering::Relaxed);
    }

    /// From now on no read succeeds, or they do again.
    pub fn break_reads(&self, broken: bool) {
        self.unreadable.store(broken, Ordering::Relaxed);
    }

    /// From now on no read of what is before `offset` succeeds.
    pub fn break_reads_below(&self, offset: u64) {
        self.bad_below.store(offset, Ordering::Relaxed);
    }

    /// What is to happen in the middle of the next write, before a byte of it is there.
    pub fn before_the_next_write(&self, act: impl FnOnce() + Send + 'static) {
        *self.before_write.lock().unwrap() = Some(Box::new(act));
    }

    /// Changes a byte.
    pub fn damage(&self, at: usize) {
        self.bytes.lock().unwrap()[at] ^= 1;
    }

    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// A number that differs for each call, spread evenly.
    fn roll(&self) -> u64 {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        (call ^ (call >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
    }

    fn strikes(&self, one_in: u64, salt: u64) -> bool {
        if one_in == 0 || self.healthy.load(Ordering::Relaxed) {
            return false;
        }
        let struck = (self.roll() ^ salt).is_multiple_of(one_in);
        self.injected.fetch_add(u64::from(struck), Ordering::Relaxed);
        struck
    }
}

impl Storage for Flaky {
    fn capacity(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let bad = self.unreadable.load(Ordering::Relaxed) || offset < self.bad_below.load(Ordering::Relaxed);
        if bad || self.strikes(self.faults.read_error, 1) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let mut len = into.len();
        into.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..len]);
        if self.strikes(self.faults.short_read, 2) {
            len /= 2;
        }
        if self.strikes(self.faults.flipped_read, 3) {
            let at = self.roll() as usize % len.max(1);
            into[at] ^= 0x10;
        }
        Ok(len)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let act = self.before_write.lock().unwrap().take();
        act.into_iter().for_each(|act| act());
        let mut bytes = self.bytes.lock().unwrap();
        let out = &mut bytes[offset as usize..][..from.len()];
        let part = from.len() / 3;
        if self.strikes(self.faults.write_error, 4) {
            return Err(io::Error::from_raw_os_error(5));
        }
        if self.strikes(self.faults.full, 5) {
            out[..part].copy_from_slice(&from[..part]);
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.strikes(self.faults.torn, 6) {
            out[..part].copy_from_slice(&from[..part]);
        } else if !self.strikes(self.faults.lost, 7) {
            out.copy_from_slice(from);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.bytes.lock().unwrap()[offset as usize..][..len as usize].fill(0xdd);
        Ok(())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(SyncQueue::new(self, depth))
    }
}
