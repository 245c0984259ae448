//! [`Books`]: what no commit has kept yet, and what is in memory; and what the last commit of a former run has left.

use crate::slots::shelves::{self, Shelves};
use crate::store::error::NamedError;
use crate::store::named::Known;
use crate::store::open::Open;
use crate::store::pins::{Pin, Pins};
use crate::store::records::{CLUSTERS, PINNED, SEGMENTS, TOMBS, VOLUMES, decode_cluster, decode_segment};
use crate::store::tombs::Tombs;
use redb::{Database, ReadableDatabase, ReadableTable};
use std::collections::{BTreeMap, BTreeSet};
use vswap_engine::Kept;
use vswap_segment::SegmentId;

/// What no commit has kept yet, and what is in memory.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// All of them, whether kept or not.
    pub(super) volumes: BTreeMap<Vec<u8>, u32>,
    /// Those of which no commit knows.
    pub(super) new_volumes: Vec<(Vec<u8>, u32)>,
    /// `None`: not there any more.
    pub(super) names: BTreeMap<(u32, Vec<u8>), Option<u64>>,
    pub(super) gone: BTreeSet<u64>,
    /// All of them, whether kept or not.
    pub(super) tombs: Tombs,
    /// The index has others.
    pub(super) tombs_changed: bool,
    pub(super) open: Open,
    /// Objects whose lines a commit is giving the index just now.
    pub(super) committing: BTreeSet<u64>,
    next_volume: u32,
    pub(super) next_object: u64,
    pub(super) pins: Pins,
}

impl Books {
    /// The number of a volume.
    pub(super) fn volume(&self, key: &[u8]) -> Option<u32> {
        self.volumes.get(key).copied()
    }

    pub(super) fn new_volume(&mut self, key: &[u8]) -> Result<u32, NamedError> {
        let number = self.next_volume;
        self.next_volume = number.checked_add(1).ok_or(NamedError::TooManyVolumes)?;
        self.volumes.insert(key.to_vec(), number);
        self.new_volumes.push((key.to_vec(), number));
        Ok(number)
    }

    pub(super) fn forget(&mut self, name: (u32, Vec<u8>), id: u64) {
        self.names.insert(name, None);
        self.gone.insert(id);
        self.pins.0.remove(&id);
    }

    /// In the gate.
    pub(super) fn remove(&mut self, known: &Known) {
        let Some(keeping) = known.object().keeping() else { return };
        let id = keeping.claim.id;
        keeping.claim.go();
        keeping.changes.changed.lock().remove(&id);
        self.open.remove(id);
        self.forget(known.name(), id);
    }
}

/// What the last commit has left.
pub(super) struct Found {
    pub(super) kept: Kept,
    pub(super) shelves: Shelves,
    pub(super) books: Books,
    /// Segments that the last commit has listed, with their sequence numbers.
    pub(super) listed: BTreeMap<SegmentId, u64>,
}

pub(super) fn found(index: &Database) -> Result<Found, NamedError> {
    let txn = index.begin_read()?;
    let (mut kept, mut shelves, mut books) = (Kept::default(), Vec::new(), Books::default());
    let mut listed = BTreeMap::new();
    for line in txn.open_table(SEGMENTS)?.iter()? {
        let (number, bytes) = line?;
        let (segment, entries) = decode_segment(number.value(), bytes.value())?;
        listed.insert(segment.segment, segment.sequence);
        kept.segments.push((segment, entries));
    }
    for line in txn.open_table(CLUSTERS)?.iter()? {
        let (number, bytes) = line?;
        let shelves::Kept { cluster, taken, held } = decode_cluster(number.value(), bytes.value())?;
        shelves.push((cluster.cluster, taken, held));
        kept.clusters.push(cluster);
    }
    for line in txn.open_table(VOLUMES)?.iter()? {
        let (key, number) = line?;
        let next = number.value().checked_add(1).ok_or(NamedError::TooManyVolumes)?;
        books.next_volume = books.next_volume.max(next);
        books.volumes.insert(key.value().to_vec(), number.value());
    }
    for line in txn.open_table(TOMBS)?.iter()? {
        let (name, last) = line?;
        let (volume, prefix) = name.value();
        books.tombs.add(volume, prefix, last.value());
    }
    for line in txn.open_table(PINNED)?.iter()? {
        let (id, pages) = line?;
        books.pins.0.insert(id.value(), Pin::of(pages.value()));
    }
    Ok(Found { kept, shelves: Shelves::found(shelves), books, listed })
}
