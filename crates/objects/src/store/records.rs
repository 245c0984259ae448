//! What a store's index holds: which tables, and what a line of each looks like.

use crate::store::error::NamedError;
use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use vswap_core::{Bitmap512, ClusterId, FillPattern, PageIndex};
use vswap_engine::{KeptCluster, KeptEntry};
use vswap_segment::{EntryAddr, KeptSegment, SegmentId};

/// The layout of the tables below.
pub(crate) const VERSION: u64 = 1;

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
/// A segment's number to its [`SegmentRecord`].
pub(crate) const SEGMENTS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("segments");

/// Numbers of a store that are made with it, and the count of its runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    /// By which its file is known.
    pub(crate) file: u64,
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
    /// Number of 2 MiB, number of cluster.
    pub(crate) blocks: Vec<(u64, u32)>,
    /// Ranges of pages that have some of their bytes and not all.
    pub(crate) some: Vec<Range<u64>>,
    /// What is to be stored elsewhere.
    pub(crate) dirty: Vec<Range<u64>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ClusterRecord {
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

fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    postcard::to_allocvec(record).expect("plain data can be written to memory")
}

fn decode<'d, T: Deserialize<'d>>(table: &'static str, key: u64, bytes: &'d [u8]) -> Result<T, NamedError> {
    postcard::from_bytes(bytes).map_err(|_| damaged(table, key))
}

impl ObjectRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(id: u64, bytes: &[u8]) -> Result<Self, NamedError> {
        decode("objects", id, bytes)
    }
}

pub(crate) fn encode_cluster(kept: &KeptCluster) -> Vec<u8> {
    let fills = kept.fills.iter().map(|(page, fill)| (page.get() as u16, fill.word()));
    encode(&ClusterRecord { stored: *kept.stored.words(), lost: *kept.lost.words(), fills: fills.collect() })
}

pub(crate) fn decode_cluster(number: u32, bytes: &[u8]) -> Result<KeptCluster, NamedError> {
    let record: ClusterRecord = decode("clusters", number.into(), bytes)?;
    let fill = |(page, word): (u16, u64)| Some((PageIndex::new(page.into())?, FillPattern::of_word(word)?));
    let fills: Option<_> = record.fills.into_iter().map(fill).collect();
    Ok(KeptCluster {
        cluster: ClusterId::new(number),
        stored: Bitmap512::from_words(record.stored),
        lost: Bitmap512::from_words(record.lost),
        fills: fills.ok_or(damaged("clusters", number.into()))?,
    })
}

pub(crate) fn encode_segment(kept: &KeptSegment, entries: &[KeptEntry]) -> Vec<u8> {
    let of = entries.iter().map(|(slot, addr)| (slot.get(), addr.to_bits())).collect();
    let KeptSegment { at, sequence, entries_end, entries, .. } = *kept;
    encode(&SegmentRecord { at, sequence, entries_end, entries, of })
}

pub(crate) fn decode_segment(number: u32, bytes: &[u8]) -> Result<(KeptSegment, Vec<KeptEntry>), NamedError> {
    let wrong = || damaged("segments", number.into());
    let record: SegmentRecord = decode("segments", number.into(), bytes)?;
    let segment = SegmentId::new(number).ok_or_else(wrong)?;
    let SegmentRecord { at, sequence, entries_end, entries, of } = record;
    let entry = |(slot, addr)| Some((vswap_core::SlotId::new(slot)?, EntryAddr::from_bits(addr)?));
    let of: Option<_> = of.into_iter().map(entry).collect();
    Ok((KeptSegment { segment, at, sequence, entries_end, entries }, of.ok_or_else(wrong)?))
}
