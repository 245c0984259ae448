//! A storage in memory whose every call can be made to fail, and helpers.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vswap_core::SlotId;
use vswap_segment::{
    AlignedBuf, Appended, BLOCK, ClassId, CodecTag, EntryAddr, Purpose, RunKey, SEGMENT_BYTES,
    SegmentBuilder, SegmentStore, Storage, SyncQueue, WriteQueue, Written,
};

pub const KEY: RunKey = RunKey::new(0x0123_4567_89ab_cdef);

/// What the next calls do instead of working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    ReadError,
    /// So many bytes come.
    ShortRead(usize),
    /// Reads come from this many bytes further on.
    MisdirectedRead(u64),
    WriteError,
    /// So many bytes are written, then the disk says it is full.
    DiskFullAfter(usize),
    /// So many bytes are written, and success is reported.
    TornWrite(usize),
    /// Nothing is written, and success is reported.
    LostWrite,
    PunchError,
}

/// Called with what a read has brought.
type DuringRead = Box<dyn Fn(&mut [u8]) + Send + Sync>;

pub struct Fake {
    during_read: Mutex<Option<Arc<DuringRead>>>,
    bytes: Mutex<Vec<u8>>,
    fault: Mutex<Option<Fault>>,
    pub punched: AtomicU64,
    pub reads: AtomicU64,
}

impl Fake {
    pub fn new(segments: usize) -> Arc<Self> {
        Arc::new(Self {
            during_read: Mutex::new(None),
            bytes: Mutex::new(vec![0; segments * SEGMENT_BYTES]),
            fault: Mutex::new(None),
            punched: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        })
    }

    pub fn set(&self, fault: impl Into<Option<Fault>>) {
        *self.fault.lock().unwrap() = fault.into();
    }

    /// From now on every read ends with this.
    pub fn during_read(&self, act: impl Fn(&mut [u8]) + Send + Sync + 'static) {
        *self.during_read.lock().unwrap() = Some(Arc::new(Box::new(act)));
    }

    pub fn edit(&self, change: impl FnOnce(&mut [u8])) {
        change(&mut self.bytes.lock().unwrap());
    }

    fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap()
    }
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fake").finish_non_exhaustive()
    }
}

impl Storage for Fake {
    fn capacity(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        assert!(offset.is_multiple_of(BLOCK as u64) && into.len().is_multiple_of(BLOCK));
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.lock().unwrap();
        let (mut at, mut len) = (offset as usize, into.len());
        match self.fault() {
            Some(Fault::ReadError) => return Err(io::Error::from_raw_os_error(5)),
            Some(Fault::ShortRead(most)) => len = len.min(most),
            Some(Fault::MisdirectedRead(by)) => at = (at + by as usize) % bytes.len(),
            _ => {}
        }
        let len = len.min(bytes.len() - at);
        into[..len].copy_from_slice(&bytes[at..at + len]);
        drop(bytes);
        let act = self.during_read.lock().unwrap().clone();
        if let Some(act) = act {
            act(into);
        }
        Ok(len)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(BLOCK as u64) && from.len().is_multiple_of(BLOCK));
        let mut bytes = self.bytes.lock().unwrap();
        let mut write = |len: usize| {
            let len = len.min(from.len());
            bytes[offset as usize..][..len].copy_from_slice(&from[..len]);
        };
        match self.fault() {
            Some(Fault::WriteError) => return Err(io::Error::from_raw_os_error(5)),
            Some(Fault::DiskFullAfter(len)) => {
                write(len);
                return Err(io::ErrorKind::StorageFull.into());
            }
            Some(Fault::TornWrite(len)) => write(len),
            Some(Fault::LostWrite) => {}
            _ => write(from.len()),
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.fault() == Some(Fault::PunchError) {
            return Err(io::Error::from_raw_os_error(95));
        }
        self.punched.fetch_add(len, Ordering::Relaxed);
        self.bytes.lock().unwrap()[offset as usize..][..len as usize].fill(0);
        Ok(())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(SyncQueue::new(self, depth))
    }
}

/// How often something is to be done that is done so often: one in `VSWAP_TEST_SHARE`, for a sanitizer, under which all is slow.
pub fn share_of(rounds: u64) -> u64 {
    let share = std::env::var("VSWAP_TEST_SHARE").map_or(1, |share| share.parse().expect("a number"));
    rounds.div_ceil(share)
}

pub fn slot(number: u64) -> SlotId {
    SlotId::new(number).unwrap()
}

/// Bytes that tell their slot and version, of a length that depends on both.
pub fn payload(slot: u64, version: u64) -> Vec<u8> {
    let mut state = slot.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.wrapping_mul(0xd1b5_4a32_d192_ed03);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let len = match next() % 8 {
        0 => 4096,
        1 => next() % 64,
        _ => 600 + next() % 1500,
    };
    (0..len).map(|_| next() as u8).collect()
}

pub fn tag(slot: u64) -> CodecTag {
    CodecTag { codec: slot as u8 % 5, dictionary: slot as u32 % 3 }
}

pub fn begin(store: &SegmentStore) -> SegmentBuilder {
    store
        .begin(Purpose::Writeback, ClassId::COMMON, AlignedBuf::zeroed(SEGMENT_BYTES))
        .expect("room for a segment")
}

pub fn write(store: &Arc<SegmentStore>, builder: SegmentBuilder) -> Written {
    let mut writer = store.writer(1);
    writer.submit(builder).unwrap();
    writer.wait().unwrap().expect("one segment was submitted")
}

/// Writes one segment with these slots; their addresses.
pub fn write_slots(store: &Arc<SegmentStore>, slots: impl Iterator<Item = u64>) -> Vec<(u64, EntryAddr)> {
    let mut builder = begin(store);
    let mut out = Vec::new();
    for number in slots {
        match builder.append(slot(number), tag(number), &payload(number, 0)) {
            Appended::At(addr) => out.push((number, addr)),
            other => panic!("slot {number}: {other:?} after {} bytes", builder.bytes()),
        }
    }
    write(store, builder).result.unwrap();
    out
}
