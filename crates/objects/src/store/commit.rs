//! Commits: what has changed goes to the tier and into the index.

use crate::slots::shelves;
use crate::store::books::Books;
use crate::store::error::NamedError;
use crate::store::named::Known;
use crate::store::pins::Pin;
use crate::store::records::{
    CLUSTERS, NAMES, OBJECTS, ObjectRecord, PINNED, SEGMENTS, TOMBS, VOLUMES, encode_cluster, encode_segment,
};
use crate::store::tombs::Tombs;
use crate::store::{Store, begin_write};
use redb::{ReadableDatabase, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vswap_core::{ClusterId, PAGE_SIZE, Resource};
use vswap_engine::{Commit, DurableError, Engine, SEGMENT_BYTES};
use vswap_segment::SegmentId;

/// Room that is left for what ends a segment before it is full, and for packing.
const KEPT_FREE: u64 = 8 << 20;
/// Of that, what is for the ends of segments.
const KEPT_FOR_ENDS: u64 = 3 << 20;
/// So much in the pool is written down before the gate is shut; less is not worth a segment of its own.
const AHEAD: u64 = 1 << 20;
/// Commits in a row that are to win room for one write.
const ATTEMPTS: usize = 8;
/// What an entry takes beside its bytes at most: header, summary, padding.
const ENTRY_BESIDES: u64 = 64;

/// Invalidated objects that are removed at a commit.
const SWEPT: usize = 4096;

/// What a commit gives the index of one object.
struct Line {
    id: u64,
    record: ObjectRecord,
    pin: Option<Pin>,
}

/// What a commit gives the index of objects and clusters.
struct Lines {
    objects: Vec<Line>,
    /// `None` is not kept any more.
    clusters: Vec<(ClusterId, Option<shelves::Kept>)>,
}

/// What the books had at the moment of a commit that the index is yet to have. They keep it until it has: they are asked meanwhile, and changed.
#[derive(Debug)]
struct Copied {
    new_volumes: Vec<(Vec<u8>, u32)>,
    names: BTreeMap<(u32, Vec<u8>), Option<u64>>,
    gone: Vec<u64>,
    /// If the index has others.
    tombs: Option<Tombs>,
}

/// What is to find room at the next commit, at its worst, bytes.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Of those who are writing.
    in_hand: AtomicU64,
    /// Written since the last commit.
    written: AtomicU64,
}

/// Room that is promised to a write.
#[must_use = "ends the promise"]
pub(super) struct Promise<'s> {
    due: &'s Due,
    bytes: u64,
}

impl Promise<'_> {
    /// Nothing was written for it.
    pub(super) fn take_back(self) {
        self.due.in_hand.fetch_sub(self.bytes, Ordering::Relaxed);
        std::mem::forget(self);
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        // First the one, so that it is never in neither.
        self.due.written.fetch_add(self.bytes, Ordering::Relaxed);
        self.due.in_hand.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Store {
    /// Everything that was written, removed or replaced before this call outlives a crash once it has returned, as of one moment during the call.
    ///
    /// # Errors
    /// When there is no room for it, or a write fails: then the next call tries again. When the tier or the index cannot say that it has everything: then the store is
    /// to be opened anew. A crash finds the last commit, or this one if it arrived in spite of that.
    pub fn sync(&self) -> Result<(), NamedError> {
        let _turn = self.turn.lock();
        self.commit()?;
        // What was to be committed is. What stands in the way of more, the next one finds too.
        let _ = self.keep_below_marks();
        Ok(())
    }

    /// Commits since it was opened, of [`Store::sync`] and for want of room.
    pub fn commits(&self) -> u64 {
        // Relaxed: a count.
        self.commits.load(Ordering::Relaxed)
    }

    /// What so many bytes take on the tier at most.
    pub(super) const fn at_worst(bytes: usize) -> u64 {
        // The first and the last page may have others' bytes.
        let pages = (bytes / PAGE_SIZE + 2) as u64;
        pages * (PAGE_SIZE as u64 + ENTRY_BESIDES)
    }

    /// Sees to it that so many bytes, to be written to so many pages, find room on the tier at the next commit beside all that waits for it: else there could be none, and
    /// nothing that is dead would ever be free. They count until the promise is dropped, and what was promised until a commit.
    pub(super) fn promise(&self, bytes: usize) -> Result<Promise<'_>, NamedError> {
        let bytes = Self::at_worst(bytes);
        for attempt in 0.. {
            // Relaxed, here and below: sums that guard nothing; what is looked at includes what this one has added.
            let due = self.due.in_hand.fetch_add(bytes, Ordering::Relaxed) + bytes;
            let due = due + self.due.written.load(Ordering::Relaxed);
            let promise = Promise { due: &self.due, bytes };
            // Headers, and what does not fit the end of a segment.
            if self.objects.engine().durable_room().get() >= due + due / 64 + KEPT_FREE {
                return Ok(promise);
            }
            promise.take_back();
            let before = self.objects.engine().durable_room();
            // Somebody else may have won it meanwhile.
            let tried = self.win_room(attempt)? && attempt < ATTEMPTS;
            if !tried && self.objects.engine().durable_room() <= before {
                break;
            }
        }
        Err(NamedError::Full)
    }

    /// What the next commit may want of the tier at its worst, and what is always left free.
    pub(super) fn owed(&self) -> u64 {
        let due = self.due.in_hand.load(Ordering::Relaxed) + self.due.written.load(Ordering::Relaxed);
        due + due / 64 + KEPT_FREE
    }

    /// Packs, if that leaves what was promised, with its turn. What it wins is there after the next commit only.
    pub(super) fn pack(&self) -> Result<(), NamedError> {
        let engine = self.objects.engine();
        let due = self.due.in_hand.load(Ordering::Relaxed) + self.due.written.load(Ordering::Relaxed);
        if engine.durable_room().get() >= due + due / 64 + KEPT_FOR_ENDS + Engine::MOST_PACKED.get() {
            engine.pack_durable()?;
        }
        Ok(())
    }

    /// Makes room on the tier, which has little: what was given up there since the last commit is free after the next one, and so is what packing wins. Tells whether
    /// there is any chance that there is some now.
    fn win_room(&self, attempt: usize) -> Result<bool, NamedError> {
        let engine = self.objects.engine();
        let _turn = self.turn.lock();
        self.pack()?;
        let nothing = engine.limbo().is_zero() && self.due.written.load(Ordering::Relaxed) == 0;
        // Others who write may leave something to commit each time, and never enough.
        if self.marks.is_some() && (nothing || attempt > 1) {
            let given = self.give_up((self.size / 32).max(2 * SEGMENT_BYTES as u64))?;
            self.pack()?;
            if nothing && given.is_nothing() {
                return Ok(false);
            }
        } else if nothing {
            return Ok(false);
        }
        match self.commit() {
            Ok(()) => Ok(true),
            // What is in the pool is not whole on the tier, so it cannot be committed.
            Err(NamedError::Durable(DurableError::Full { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// With its turn. While the tier and the index take what they are given, nobody is kept waiting but the next commit.
    pub(super) fn commit(&self) -> Result<(), NamedError> {
        let (engine, group) = (self.objects.engine(), self.objects.group());
        if self.unsure.load(Ordering::Relaxed) {
            return Err(NamedError::Unsure);
        }
        self.sweep(SWEPT)?;
        if engine.durable_room().get() < KEPT_FREE {
            self.pack()?;
        }
        if engine.group_tree().usage(group, Resource::Pool) > AHEAD {
            // Most of it without keeping anybody waiting. Once: a segment for each few pages that come in meanwhile would take what was promised.
            engine.write_ahead(group)?;
        }
        let mut listed = self.listed.lock();
        let gate = self.changes.gate.write();
        engine.write_down(group)?;
        let written = self.due.written.swap(0, Ordering::Relaxed);
        let mut books = self.books.lock();
        let changed = std::mem::take(&mut *self.changes.changed.lock());
        let touched = self.objects.shelves().take_touched();
        for known in changed.iter().filter_map(|id| books.open.get(*id).cloned()).collect::<Vec<_>>() {
            books.recount_pinned(&known);
        }
        let lines = self.lines(&books, &changed, &touched);
        let copied = books.copied();
        // In memory they stay: the index has them as they were.
        books.committing.clone_from(&changed);
        let commit = engine.to_commit();
        drop(books);
        drop(gate);
        let kept = lines.and_then(|lines| {
            if let Err(error) = engine.sync_durable() {
                // What was written before may be gone, and the next call would not say so.
                self.unsure.store(true, Ordering::Relaxed);
                return Err(error.into());
            }
            let txn = begin_write(&self.index)?;
            copied.put(&txn, &lines)?;
            put_segments(&txn, &listed, &commit)?;
            Ok(txn.commit()?)
        });
        let mut books = self.books.lock();
        books.committing.clear();
        if let Err(error) = kept {
            books.tombs_changed |= copied.tombs.is_some();
            self.changes.changed.lock().extend(changed);
            self.objects.shelves().touch(touched);
            self.due.written.fetch_add(written, Ordering::Relaxed);
            return Err(error);
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        books.kept(&copied);
        if books.open.is_full() {
            self.let_idle_out(&mut books);
        }
        drop(books);
        *listed = commit.segments.iter().map(|kept| (kept.segment, kept.sequence)).collect();
        // May wait for somebody who is writing.
        engine.committed(commit);
        Ok(())
    }

    /// With the gate shut.
    fn lines(
        &self,
        books: &Books,
        changed: &BTreeSet<u64>,
        touched: &BTreeSet<ClusterId>,
    ) -> Result<Lines, NamedError> {
        let open = changed.iter().filter_map(|id| Some((*id, books.open.get(*id)?)));
        let line = |(id, known): (u64, &Arc<Known>)| Line {
            id,
            record: known.record(known.object().look(|_, content| content.kept())),
            pin: books.pins.0.get(&id).copied(),
        };
        let objects: Vec<_> = open.map(line).collect();
        let mut clusters = touched.clone();
        // Of those that are gone and have users still the slots are taken, and not kept any more.
        let txn = self.index.begin_read()?;
        let former = txn.open_table(OBJECTS)?;
        for id in &books.gone {
            let Some(line) = former.get(*id)? else { continue };
            // One that cannot be read cannot be found either: its slots stay taken until the store is repaired.
            let record = ObjectRecord::decode(*id, line.value()).unwrap_or_default();
            clusters.extend(record.clusters());
        }
        clusters.extend(objects.iter().flat_map(|line| line.record.clusters()));
        let kept = |cluster| Ok((cluster, self.objects.shelves().kept(self.objects.engine(), cluster)?));
        let clusters = clusters.into_iter().map(kept).collect::<Result<_, DurableError>>()?;
        Ok(Lines { objects, clusters })
    }
}

impl Books {
    fn copied(&mut self) -> Copied {
        let names = self.names.clone();
        let tombs = std::mem::take(&mut self.tombs_changed).then(|| self.tombs.clone());
        Copied {
            new_volumes: self.new_volumes.clone(),
            names,
            gone: self.gone.iter().copied().collect(),
            tombs,
        }
    }

    /// The index has it. What has changed since is for the next commit.
    fn kept(&mut self, copied: &Copied) {
        // Others came after them.
        self.new_volumes.drain(..copied.new_volumes.len());
        for (name, id) in &copied.names {
            // Numbers are of one object each: the same one again is what the index has.
            if self.names.get(name) == Some(id) {
                self.names.remove(name);
            }
        }
        for id in &copied.gone {
            self.gone.remove(id);
        }
    }
}

impl Copied {
    fn put(&self, txn: &WriteTransaction, lines: &Lines) -> Result<(), NamedError> {
        let (mut objects, mut clusters) = (txn.open_table(OBJECTS)?, txn.open_table(CLUSTERS)?);
        let mut pinned = txn.open_table(PINNED)?;
        for id in &self.gone {
            objects.remove(id)?;
            pinned.remove(id)?;
        }
        for Line { id, record, pin } in &lines.objects {
            objects.insert(id, record.encode(*id).as_slice())?;
            match pin {
                Some(pin) => pinned.insert(id, pin.pages)?,
                None => pinned.remove(id)?,
            };
        }
        for (cluster, kept) in &lines.clusters {
            match kept {
                Some(kept) => clusters.insert(cluster.get(), encode_cluster(kept).as_slice())?,
                None => clusters.remove(cluster.get())?,
            };
        }
        let mut volumes = txn.open_table(VOLUMES)?;
        for (key, number) in &self.new_volumes {
            volumes.insert(key.as_slice(), number)?;
        }
        let mut names = txn.open_table(NAMES)?;
        for ((volume, key), id) in &self.names {
            match id {
                Some(id) => names.insert((*volume, key.as_slice()), id)?,
                None => names.remove((*volume, key.as_slice()))?,
            };
        }
        if let Some(all) = &self.tombs {
            let mut tombs = txn.open_table(TOMBS)?;
            tombs.retain(|_, _| false)?;
            for (volume, prefix, last) in all.iter() {
                tombs.insert((volume, prefix), last)?;
            }
        }
        Ok(())
    }
}

fn put_segments(
    txn: &WriteTransaction,
    listed: &BTreeMap<SegmentId, u64>,
    commit: &Commit,
) -> Result<(), NamedError> {
    let mut segments = txn.open_table(SEGMENTS)?;
    let now: BTreeSet<_> = commit.segments.iter().map(|kept| kept.segment).collect();
    for segment in listed.keys().filter(|segment| !now.contains(segment)) {
        segments.remove(segment.get())?;
    }
    for kept in &commit.segments {
        if listed.get(&kept.segment) == Some(&kept.sequence) {
            continue;
        }
        let entries = commit.entries.get(&kept.segment);
        let Some(entries) = entries else { return Err(NamedError::NoEntries { segment: kept.segment }) };
        segments.insert(kept.segment.get(), encode_segment(kept, entries).as_slice())?;
    }
    Ok(())
}
