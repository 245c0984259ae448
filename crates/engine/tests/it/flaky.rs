//! A disk in memory that fails: one call in so many of each kind, or the next few calls as it is told. It knows what should be on it, so what it has
//! done to its user can be asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vswap_segment::{AlignedBuf, SEGMENT_BYTES, Storage, SyncQueue, WriteDone, WriteQueue};

const EIO: i32 = 5;

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

/// What reads do that are in trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadTrouble {
    Error,
    /// The second half is missing.
    Short,
    /// A bit is wrong, this time.
    Flipped,
}

/// What writes do that are in trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteTrouble {
    /// Nothing is written.
    Error,
    /// A part is written, and an error reported.
    Partial,
    /// A part is written, and that the disk is full.
    Full,
    /// A part is written, and success is reported,
    Torn,
    /// or nothing,
    Lost,
    /// or all of it, in another place.
    Misplaced,
    /// The queue breaks while it is waited for, and then goes on with what it has.
    Queue,
}

/// What a disk has done to its user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Struck {
    /// Reads that gave an error,
    pub reads: u64,
    /// and those that gave too little, or not what was to be there,
    pub wrong: u64,
    /// so many of them only this time.
    pub passing: u64,
    /// Writes that gave an error,
    pub writes: u64,
    /// so many of them because it was full.
    pub full: u64,
    /// How often its queue broke.
    pub queues: u64,
}

impl std::ops::Add for Struck {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            wrong: self.wrong + other.wrong,
            passing: self.passing + other.passing,
            writes: self.writes + other.writes,
            full: self.full + other.full,
            queues: self.queues + other.queues,
        }
    }
}

impl std::ops::Sub for Struck {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            wrong: self.wrong - before.wrong,
            passing: self.passing - before.passing,
            writes: self.writes - before.writes,
            full: self.full - before.full,
            queues: self.queues - before.queues,
        }
    }
}

struct Medium {
    bytes: Vec<u8>,
    /// What would be there, had every write done what it said.
    meant: Vec<u8>,
    /// Offset and length of what was written and not punched.
    written: BTreeMap<usize, usize>,
}

/// What the next calls do, and how many of them.
#[derive(Default)]
struct Next {
    reads: Option<(ReadTrouble, u32)>,
    writes: Option<(WriteTrouble, u32)>,
    struck: Struck,
}

impl Next {
    fn read(&mut self) -> Option<ReadTrouble> {
        let (trouble, left) = self.reads.as_mut().filter(|(_, left)| *left > 0)?;
        *left -= 1;
        Some(*trouble)
    }

    /// A write's trouble, or the queue's.
    fn write(&mut self, queue: bool) -> Option<WriteTrouble> {
        let due = |(trouble, left): &&mut (WriteTrouble, u32)| {
            *left > 0 && (*trouble == WriteTrouble::Queue) == queue
        };
        let (trouble, left) = self.writes.as_mut().filter(due)?;
        *left -= 1;
        Some(*trouble)
    }
}

pub struct Flaky {
    medium: Mutex<Medium>,
    next: Mutex<Next>,
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
            medium: Mutex::new(Medium {
                bytes: vec![0; capacity],
                meant: vec![0; capacity],
                written: BTreeMap::new(),
            }),
            next: Mutex::default(),
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
        let mut next = self.next.lock().unwrap();
        (next.reads, next.writes) = (None, None);
    }

    /// So many reads are in trouble from now on.
    pub fn trouble_reads(&self, trouble: ReadTrouble, times: u32) {
        self.next.lock().unwrap().reads = Some((trouble, times));
    }

    /// So many writes are in trouble from now on.
    pub fn trouble_writes(&self, trouble: WriteTrouble, times: u32) {
        self.next.lock().unwrap().writes = Some((trouble, times));
    }

    /// What it has done to its user since it was made.
    pub fn struck(&self) -> Struck {
        self.next.lock().unwrap().struck
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
        self.medium.lock().unwrap().bytes[at] ^= 1;
    }

    /// Where what is there is not what was written, in steps of so many bytes.
    pub fn damaged(&self, step: usize) -> BTreeSet<u64> {
        let medium = self.medium.lock().unwrap();
        let differs = |at: &usize| medium.bytes[*at..][..step] != medium.meant[*at..][..step];
        let steps = medium.written.iter().flat_map(|(offset, len)| (*offset..offset + len).step_by(step));
        steps.filter(differs).map(|at| at as u64).collect()
    }

    /// Changes one of the bytes that were written.
    pub fn rot(&self, at: usize) {
        let mut medium = self.medium.lock().unwrap();
        let all: usize = medium.written.values().sum();
        let Some(mut at) = at.checked_rem(all) else { return };
        for (offset, len) in medium.written.clone() {
            if at < len {
                medium.bytes[offset + at] ^= 1 << (at % 8);
                return;
            }
            at -= len;
        }
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
        self.medium.lock().unwrap().bytes.len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut next = self.next.lock().unwrap();
        let trouble = next.read();
        let bad = self.unreadable.load(Ordering::Relaxed) || offset < self.bad_below.load(Ordering::Relaxed);
        if bad || trouble == Some(ReadTrouble::Error) || self.strikes(self.faults.read_error, 1) {
            next.struck.reads += 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let mut len = into.len();
        let medium = self.medium.lock().unwrap();
        into.copy_from_slice(&medium.bytes[offset as usize..][..len]);
        let short = trouble == Some(ReadTrouble::Short) || self.strikes(self.faults.short_read, 2);
        if short {
            len /= 2;
        }
        let flipped = trouble == Some(ReadTrouble::Flipped) || self.strikes(self.faults.flipped_read, 3);
        if flipped {
            let at = self.roll() as usize % len.max(1);
            into[at] ^= 0x10;
        }
        let right = len == into.len() && *into == medium.meant[offset as usize..][..len];
        next.struck.wrong += u64::from(!right);
        next.struck.passing += u64::from(short || flipped);
        Ok(len)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let act = self.before_write.lock().unwrap().take();
        act.into_iter().for_each(|act| act());
        let mut next = self.next.lock().unwrap();
        let mut medium = self.medium.lock().unwrap();
        let Medium { bytes, meant, written } = &mut *medium;
        let offset = offset as usize;
        let (all, part) = (offset..offset + from.len(), from.len() / 3);
        let trouble = next.write(false);
        if trouble == Some(WriteTrouble::Error) || self.strikes(self.faults.write_error, 4) {
            next.struck.writes += 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if trouble == Some(WriteTrouble::Partial) {
            bytes[all][..part].copy_from_slice(&from[..part]);
            next.struck.writes += 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if trouble == Some(WriteTrouble::Full) || self.strikes(self.faults.full, 5) {
            bytes[all][..part].copy_from_slice(&from[..part]);
            next.struck.writes += 1;
            next.struck.full += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        meant[all.clone()].copy_from_slice(from);
        written.insert(offset, from.len());
        if trouble == Some(WriteTrouble::Torn) || self.strikes(self.faults.torn, 6) {
            bytes[all][..part].copy_from_slice(&from[..part]);
        } else if trouble == Some(WriteTrouble::Misplaced) {
            let elsewhere = (offset + SEGMENT_BYTES) % bytes.len();
            bytes[elsewhere..][..from.len()].copy_from_slice(from);
        } else if trouble != Some(WriteTrouble::Lost) && !self.strikes(self.faults.lost, 7) {
            bytes[all].copy_from_slice(from);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut medium = self.medium.lock().unwrap();
        let Medium { bytes, meant, written } = &mut *medium;
        let all = offset as usize..(offset + len) as usize;
        bytes[all.clone()].fill(0xdd);
        meant[all.clone()].fill(0xdd);
        written.retain(|at, _| !all.contains(at));
        Ok(())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(FlakyQueue { inner: SyncQueue::new(Arc::clone(&self) as _, depth), disk: self })
    }
}

struct FlakyQueue {
    inner: SyncQueue,
    disk: Arc<Flaky>,
}

impl WriteQueue for FlakyQueue {
    fn submit(
        &mut self,
        offset: u64,
        buf: AlignedBuf,
        len: usize,
        tag: u64,
    ) -> Result<(), (io::Error, AlignedBuf)> {
        self.inner.submit(offset, buf, len, tag)
    }

    fn is_full(&self) -> bool {
        self.inner.is_full()
    }

    fn wait(&mut self) -> io::Result<Option<WriteDone>> {
        let mut next = self.disk.next.lock().unwrap();
        if next.write(true).is_some() {
            next.struck.queues += 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        drop(next);
        self.inner.wait()
    }
}
