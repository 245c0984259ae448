//! What a store's index holds: which tables, and what a line of each looks like.

use crate::object::MAX_LEN;
use crate::presence::PAGE;
use crate::slots::{Run, shelves::Kept};
use crate::store::error::NamedError;
use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use twox_hash::XxHash3_64;
use vswap_core::{Bitmap512, ClusterId, FillPattern, PAGES_PER_CLUSTER, PageIndex, SlotId};
use vswap_engine::{KeptCluster, KeptEntry};
use vswap_segment::{EntryAddr, KeptSegment, SegmentId};

/// The layout of the tables below.
pub(crate) const VERSION: u64 = 2;

/// Volume and prefix to the number of the last object that is gone by them.
pub(crate) const TOMBS: TableDefinition<'_, (u32, &[u8]), u64> = TableDefinition::new("tombs");
/// One number each: [`VERSION`], and those of [`Numbers`].
pub(crate) const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// A volume's key to its number.
pub(crate) const VOLUMES: TableDefinition<'_, &[u8], u32> = TableDefinition::new("volumes");
/// Volume and key of an object to its number.
pub(crate) const NAMES: TableDefinition<'_, (u32, &[u8]), u64> = TableDefinition::new("names");
/// An object's number to its [`ObjectRecord`].
pub(crate) const OBJECTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("objects");
/// A cluster's number to its [`ClusterRecord`].
pub(crate) const CLUSTERS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("clusters");
/// The number of an object that is pinned to that of its pages.
pub(crate) const PINNED: TableDefinition<'_, u64, u64> = TableDefinition::new("pinned");
/// A segment's number to its [`SegmentRecord`].
pub(crate) const SEGMENTS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("segments");

/// Numbers of a store that are made with it, and the count of its runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    /// The seed of all checksums.
    pub(crate) key: u64,
    /// How often it has been opened: numbers of objects and segments begin anew above those of all runs before.
    pub(crate) runs: u64,
}

/// An object at a commit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ObjectRecord {
    pub(crate) volume: u32,
    pub(crate) key: Vec<u8>,
    pub(crate) version: u64,
    pub(crate) aux: Vec<u8>,
    pub(crate) len: u64,
    /// First page, number of pages, slot of the first.
    pub(crate) runs: Vec<(u64, u16, u64)>,
    /// Ranges of pages that have some of their bytes and not all.
    pub(crate) some: Vec<Range<u64>>,
    /// What is to be stored elsewhere.
    pub(crate) dirty: Vec<Range<u64>>,
    /// Nothing of it is given up.
    pub(crate) pinned: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct ClusterRecord {
    /// Slots that objects have.
    taken: [u64; 8],
    /// Those of objects of which nothing may be given up.
    held: [u64; 8],
    stored: [u64; 8],
    lost: [u64; 8],
    /// Page, and the word that it repeats.
    fills: Vec<(u16, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SegmentRecord {
    at: u64,
    sequence: u64,
    entries_end: u32,
    entries: u32,
    /// Slot and address of each, in order.
    of: Vec<(u64, u64)>,
}

fn damaged(table: &'static str, key: u64) -> NamedError {
    NamedError::Record { table, key }
}

/// Bytes of the checksum at the end of a line.
const SUM: usize = 8;

/// Of a line's bytes, its table and its key: one that stands elsewhere is not believed.
fn sum(table: &str, key: u64, bytes: &[u8]) -> [u8; SUM] {
    let seed = XxHash3_64::oneshot_with_seed(key, table.as_bytes());
    XxHash3_64::oneshot_with_seed(seed, bytes).to_le_bytes()
}

fn encode<T: Serialize>(table: &str, key: u64, record: &T) -> Vec<u8> {
    let mut bytes = postcard::to_allocvec(record).expect("plain data can be written to memory");
    bytes.extend(sum(table, key, &bytes));
    bytes
}

fn decode<'d, T: Deserialize<'d>>(table: &'static str, key: u64, bytes: &'d [u8]) -> Result<T, NamedError> {
    let parts = bytes.split_last_chunk().filter(|(bytes, found)| sum(table, key, bytes) == **found);
    let read = parts.and_then(|(bytes, _)| postcard::from_bytes(bytes).ok());
    read.ok_or(damaged(table, key))
}

/// A line with a checksum that is right, whatever it is.
#[cfg(feature = "fuzz")]
pub(crate) fn forged(table: &str, key: u64, line: &[u8]) -> Vec<u8> {
    [line, &sum(table, key, line)].concat()
}

impl ObjectRecord {
    /// The slots of its pages, each with the first page; `None` if they cannot be.
    pub(crate) fn runs_at(&self) -> Option<Vec<(u64, Run)>> {
        let mut end = 0;
        let run = |(page, pages, slot): &(u64, u16, u64)| {
            let run = Run { first: SlotId::new(*slot)?, pages: *pages };
            let start = std::mem::replace(&mut end, page.checked_add(u64::from(*pages))?);
            let fits = run.first.index().get() + usize::from(*pages) <= PAGES_PER_CLUSTER;
            (*pages > 0 && fits && start <= *page && end <= MAX_LEN / PAGE).then_some((*page, run))
        };
        self.runs.iter().map(run).collect()
    }

    /// Clusters in which it has slots.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = ClusterId> {
        self.runs.iter().filter_map(|(_, _, slot)| Some(SlotId::new(*slot)?.cluster()))
    }

    pub(crate) fn encode(&self, id: u64) -> Vec<u8> {
        encode("objects", id, self)
    }

    pub(crate) fn decode(id: u64, bytes: &[u8]) -> Result<Self, NamedError> {
        let record: Self = decode("objects", id, bytes)?;
        let len = record.len;
        let within =
            record.some.iter().chain(&record.dirty).all(|range| range.start < range.end && range.end <= len);
        let known = len <= MAX_LEN && within && record.runs_at().is_some();
        if known { Ok(record) } else { Err(damaged("objects", id)) }
    }
}

pub(crate) fn encode_cluster(Kept { cluster: kept, taken, held }: &Kept) -> Vec<u8> {
    let fills = kept.fills.iter().map(|(page, fill)| (page.get() as u16, fill.word()));
    let (stored, lost) = (*kept.stored.words(), *kept.lost.words());
    let (taken, held) = (*taken.words(), *held.words());
    let record = ClusterRecord { taken, held, stored, lost, fills: fills.collect() };
    encode("clusters", kept.cluster.get().into(), &record)
}

pub(crate) fn decode_cluster(number: u32, bytes: &[u8]) -> Result<Kept, NamedError> {
    let wrong = || damaged("clusters", number.into());
    let record: ClusterRecord = decode("clusters", number.into(), bytes)?;
    let fill = |(page, word): (u16, u64)| Some((PageIndex::new(page.into())?, FillPattern::of_word(word)?));
    let fills: Option<_> = record.fills.into_iter().map(fill).collect();
    let kept = KeptCluster {
        cluster: ClusterId::new(number),
        stored: Bitmap512::from_words(record.stored),
        lost: Bitmap512::from_words(record.lost),
        fills: fills.ok_or_else(wrong)?,
    };
    let (taken, held) = (Bitmap512::from_words(record.taken), Bitmap512::from_words(record.held));
    let is_taken = kept.stored.or(&kept.lost).or(&held).and_not(&taken).is_empty()
        && kept.fills.iter().all(|(page, _)| taken.get(*page));
    if is_taken { Ok(Kept { cluster: kept, taken, held }) } else { Err(wrong()) }
}

pub(crate) fn encode_segment(kept: &KeptSegment, entries: &[KeptEntry]) -> Vec<u8> {
    let of = entries.iter().map(|(slot, addr)| (slot.get(), addr.to_bits())).collect();
    let KeptSegment { at, sequence, entries_end, entries, .. } = *kept;
    encode("segments", kept.segment.get().into(), &SegmentRecord { at, sequence, entries_end, entries, of })
}

pub(crate) fn decode_segment(number: u32, bytes: &[u8]) -> Result<(KeptSegment, Vec<KeptEntry>), NamedError> {
    let wrong = || damaged("segments", number.into());
    let record: SegmentRecord = decode("segments", number.into(), bytes)?;
    let segment = SegmentId::new(number).ok_or_else(wrong)?;
    let SegmentRecord { at, sequence, entries_end, entries, of } = record;
    let entry = |(slot, addr)| Some((SlotId::new(slot)?, EntryAddr::from_bits(addr)?));
    let of: Option<Vec<KeptEntry>> = of.into_iter().map(entry).collect();
    let of = of.filter(|of| of.len() == entries as usize).ok_or_else(wrong)?;
    Ok((KeptSegment { segment, at, sequence, entries_end, entries }, of))
}
