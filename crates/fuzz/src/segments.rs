//! Segments: real ones that were changed, and anything that is made to look like one.

use crate::input::Input;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use vswap_core::SlotId;
use vswap_segment::{
    AlignedBuf, Appended, BLOCK, Cipher, CodecTag, Entry, EntryAddr, Keys, MAX_ENTRY_BLOCKS, Purpose, RunKey,
    SEGMENT_BYTES, SegmentId, SegmentStore, Storage, SyncQueue, WriteQueue, fuzz,
};

const KEY: RunKey = RunKey::new(0x0123_4567_89ab_cdef);
/// Entries of a segment here, at most.
const ENTRIES: usize = 12;
/// Slots that they are of: few, so that one is there several times.
const SLOTS: usize = 8;
/// Segments that are written and read.
const SEGMENTS: usize = 2;
/// Changes of the bytes, at most.
const CHANGES: usize = 16;

/// A tier in memory: extents by number, each as long as what was written to it.
#[derive(Debug, Default)]
struct Memory(Mutex<BTreeMap<usize, Vec<u8>>>);

impl Memory {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<usize, Vec<u8>>) -> T) -> T {
        act(&mut self.0.lock().expect("nothing panics with it"))
    }

    /// All that was written, one extent behind the other.
    fn bytes(&self) -> Vec<u8> {
        self.with(|extents| extents.values().flatten().copied().collect())
    }

    /// Puts other bytes there; extents for which there are none end before.
    fn replace(&self, bytes: &[u8]) {
        let mut rest = bytes;
        self.with(|extents| {
            for extent in extents.values_mut() {
                let (these, others) = rest.split_at(extent.len().min(rest.len()));
                *extent = these.to_vec();
                rest = others;
            }
        });
    }
}

impl Storage for Memory {
    fn capacity(&self) -> u64 {
        (8 * SEGMENT_BYTES) as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let (extent, at) = (offset as usize / SEGMENT_BYTES, offset as usize % SEGMENT_BYTES);
        self.with(|extents| {
            let there = extents.get(&extent).and_then(|bytes| bytes.get(at..)).unwrap_or_default();
            let len = there.len().min(into.len());
            into[..len].copy_from_slice(&there[..len]);
            Ok(len)
        })
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let (extent, at) = (offset as usize / SEGMENT_BYTES, offset as usize % SEGMENT_BYTES);
        let end = at + from.len();
        self.with(|extents| {
            let bytes = extents.entry(extent).or_default();
            bytes.resize(bytes.len().max(end), 0);
            bytes[at..end].copy_from_slice(from);
        });
        Ok(())
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_queue(self: Arc<Self>, depth: usize) -> Box<dyn WriteQueue> {
        Box::new(SyncQueue::new(self, depth))
    }
}

/// What was written at an address.
type Written = BTreeMap<u64, (SlotId, CodecTag, Vec<u8>)>;

fn keys(encrypted: bool) -> Keys {
    match encrypted {
        true => Keys::encrypting(KEY, Cipher::random().expect("a page of locked memory")),
        false => KEY.into(),
    }
}

fn slot(number: usize) -> SlotId {
    SlotId::new(number as u64).expect("a small number")
}

/// Bytes that tell whose they are and which writing, all along.
fn payload(slot: SlotId, writing: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (slot.get() as u8) << 5 ^ writing << 3 ^ (at as u8).wrapping_mul(37)).collect()
}

thread_local! {
    /// Buffers of a segment that nobody uses: to make one takes longer than all the rest.
    static BUFFERS: RefCell<Vec<AlignedBuf>> = const { RefCell::new(Vec::new()) };
}

fn buffer() -> AlignedBuf {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| AlignedBuf::zeroed(SEGMENT_BYTES))
}

fn give_back(buffer: AlignedBuf) {
    BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
}

/// Writes a segment of entries that `input` wants.
fn write(store: &Arc<SegmentStore>, input: &mut Input<'_>, writing: u8) -> Written {
    let begun = store.begin(Purpose::Writeback, vswap_segment::ClassId::COMMON, buffer());
    let mut builder = begun.expect("room for a segment");
    let mut written = Written::new();
    for _ in 0..=input.below(ENTRIES) {
        let (slot, len) = (slot(input.below(SLOTS)), usize::from(input.u16()) % 4097);
        let tag = CodecTag { codec: input.u8(), dictionary: u32::from(input.u8()) };
        let bytes = payload(slot, writing, len);
        let Appended::At(addr) = builder.append(slot, tag, &bytes) else { panic!("it was to fit") };
        written.insert(addr.to_bits(), (slot, tag, bytes));
    }
    let mut writer = store.writer(1);
    writer.submit(builder).expect("it can be tried");
    let done = writer.wait().expect("the queue works").expect("one was submitted");
    done.result.as_ref().expect("memory can be written");
    give_back(done.buf);
    written
}

/// Changes bytes as a disk could, or somebody who writes to it.
fn change(input: &mut Input<'_>, bytes: &mut Vec<u8>, former: &[u8]) {
    for _ in 0..CHANGES {
        if input.is_empty() || bytes.is_empty() {
            break;
        }
        let end = bytes.len();
        match input.u8() % 6 {
            0 => {
                let at = input.below(end);
                bytes[at] ^= input.u8();
            }
            // A read or write that went elsewhere.
            1 => {
                let (from, to, len) = (input.below(end), input.below(end), usize::from(input.u16()));
                bytes.copy_within(from..from + len.min(end - from.max(to)), to);
            }
            2 => {
                let blocks = end.div_ceil(BLOCK);
                let (from, to) = (input.below(blocks) * BLOCK, input.below(blocks) * BLOCK);
                bytes.copy_within(from..from + BLOCK.min(end - from.max(to)), to);
            }
            // A write that was lost: what was there before.
            3 => {
                let at = input.below(former.len().min(end)) / BLOCK * BLOCK;
                let len = (BLOCK * input.below(8)).min(former.len().min(end) - at);
                bytes[at..at + len].copy_from_slice(&former[at..at + len]);
            }
            4 => {
                let at = input.below(end);
                let len = usize::from(input.u8());
                let new = input.bytes(len);
                let len = new.len().min(end - at);
                bytes[at..at + len].copy_from_slice(&new[..len]);
            }
            _ => bytes.truncate(input.below(end)),
        }
    }
}

/// What was read must be what was written there.
fn same(entry: &Entry<'_>, written: &Written) {
    let Some((slot, tag, bytes)) = written.get(&entry.addr.to_bits()) else {
        panic!("{:?}: nothing was written there", entry.addr)
    };
    assert_eq!((entry.slot, entry.tag), (*slot, *tag), "{:?}", entry.addr);
    assert!(entry.bytes == bytes, "{:?}: other bytes", entry.addr);
}

/// Segments are written, their bytes changed, and all is read in every way: each page is as it was, or an error.
pub fn segment(data: &[u8]) {
    let mut input = Input::new(data);
    let (memory, keys) = (Arc::new(Memory::default()), keys(input.u8() & 1 == 1));
    let store = SegmentStore::new(Arc::clone(&memory) as Arc<dyn Storage>, keys);
    // Where another writing was before.
    let mut again = Input::new(&data[1.min(data.len())..]);
    for addr in write(&store, &mut again, 3).into_keys() {
        let died = store.release(EntryAddr::from_bits(addr).expect("it was given"));
        died.expect("it lives");
    }
    let former = memory.bytes();
    let mut written = Written::new();
    for writing in 0..SEGMENTS {
        written.extend(write(&store, &mut input, writing as u8));
    }
    let changed = !input.is_empty();
    let mut bytes = memory.bytes();
    change(&mut input, &mut bytes, &former);
    memory.replace(&bytes);

    let mut buf = AlignedBuf::zeroed(4 * MAX_ENTRY_BLOCKS * BLOCK);
    let len = buf.len();
    for (at, (owner, ..)) in &written {
        let addr = EntryAddr::from_bits(*at).expect("it was given");
        for number in 0..SLOTS {
            if let Ok(entry) = store.read_entry(addr, slot(number), &mut buf) {
                assert_eq!(slot(number), *owner, "another slot's page");
                same(&entry, &written);
            } else {
                assert!(changed || slot(number) != *owner, "nothing was changed");
            }
        }
        if let Ok(run) = store.read_run(addr, *owner, len, &mut buf) {
            same(&run.first(), &written);
            run.neighbours().for_each(|entry| same(&entry, &written));
        }
    }
    let segments = written.keys().map(|at| EntryAddr::from_bits(*at).expect("it was given").segment());
    let segments: BTreeSet<SegmentId> = segments.collect();
    let (mut whole, mut good) = (buffer(), 0);
    for segment in segments {
        let Ok(view) = store.read_segment(segment, &mut whole) else { continue };
        for entry in view.entries().flatten() {
            same(&entry, &written);
            good += 1;
        }
    }
    give_back(whole);
    assert!(
        changed || good == written.len(),
        "nothing was changed, and {good} of {} are there",
        written.len()
    );
}

/// Bytes are given right checksums, and read as a segment: what is read would be written the same.
pub fn segment_bytes(data: &[u8]) {
    let mut input = Input::new(data);
    let keys = keys(input.u8() & 1 == 1);
    let (number, sequence) = (SegmentId::new(5).expect("a small number"), 9);
    let mut bytes = input.rest().to_vec();
    fuzz::forge(&keys, number, sequence, &mut bytes);
    fuzz::segment_is_written_as_read(&keys, number, sequence, &mut bytes);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let entry = |slot: u32, len: u16| [&slot.to_le_bytes()[..], &len.to_le_bytes(), &[3, 1]].concat();
    let one = |lens: &[u16]| {
        let count = lens.len() as u32 - 1;
        let entries = lens.iter().zip(0..).flat_map(|(len, slot)| entry(slot, *len));
        [&count.to_le_bytes()[..], &entries.collect::<Vec<_>>()].concat()
    };
    let two = [one(&[100, 4096, 1365, 0]), one(&[2000, 7])].concat();
    let changes: [&[u8]; 6] = [
        &[],
        &[0, 100, 0, 0, 0, 1],
        &[1, 64, 0, 0, 0, 208, 0, 0, 0, 144, 0],
        &[2, 0, 0, 0, 0, 1, 0, 0, 0],
        &[3, 0, 0, 0, 0, 2, 0, 0, 0],
        &[5, 0, 16, 0, 0],
    ];
    let all = (0..2).flat_map(|mode| changes.map(|change| [&[mode], &two[..], change].concat()));
    all.collect()
}

pub(crate) fn bytes_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![], vec![0; 65]];
    for mode in 0..2 {
        for wanted in seeds_of_entries() {
            let (memory, keys) = (Arc::new(Memory::default()), keys(false));
            // Encrypted or not, the bytes are laid out anew by `forge`; only an entry's header is longer.
            let store = SegmentStore::new(Arc::clone(&memory) as Arc<dyn Storage>, keys);
            write(&store, &mut Input::new(&wanted), 0);
            seeds.push([vec![mode], memory.bytes()].concat());
        }
    }
    seeds
}

fn seeds_of_entries() -> [Vec<u8>; 2] {
    let entry = |slot: u8, len: u16| [&[slot, 0, 0, 0][..], &len.to_le_bytes(), &[2, 0]].concat();
    [
        [vec![0, 0, 0, 0], entry(1, 40)].concat(),
        [vec![2, 0, 0, 0], entry(1, 40), entry(2, 0), entry(3, 300)].concat(),
    ]
}
