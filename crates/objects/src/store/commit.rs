//! Commits: what has changed goes to the tier and into the index.

use crate::store::error::NamedError;
use crate::store::named::Known;
use crate::store::records::{
    CLUSTERS, NAMES, OBJECTS, ObjectRecord, SEGMENTS, TOMBS, VOLUMES, encode_cluster, encode_segment,
};
use crate::store::{Books, Store};
use redb::WriteTransaction;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vswap_core::Resource;
use vswap_engine::{Commit, DurableError, KeptCluster};

/// Room that is left for what is written by others, and by whoever asks, until it is asked again.
const KEPT_FREE: u64 = 8 << 20;

/// Invalidated objects that are removed at a commit.
const SWEPT: usize = 4096;

/// What a commit gives the index of one object.
struct Line {
    id: u64,
    record: ObjectRecord,
    clusters: Vec<KeptCluster>,
}

impl Store {
    /// Everything that was written, removed or replaced before this call outlives a crash once it has returned, as of one moment during the call.
    ///
    /// # Errors
    /// When there is no room for it, or a write fails. Then the last commit is what a crash finds, and the next call tries again.
    pub fn sync(&self) -> Result<(), NamedError> {
        let _turn = self.turn.lock();
        self.commit()
    }

    /// Commits since it was opened, of [`Store::sync`] and for want of room.
    pub fn commits(&self) -> u64 {
        // Relaxed: a count.
        self.commits.load(Ordering::Relaxed)
    }

    /// Sees to it that what is in memory only, and some more, finds room on the tier at the next commit: else there could be none, and nothing that
    /// is dead would ever be free.
    pub(super) fn keep_room(&self) -> Result<(), NamedError> {
        while !self.has_room() {
            // Somebody else may have won it meanwhile.
            if !self.win_room()? && !self.has_room() {
                return Err(NamedError::Full);
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let engine = self.objects.engine();
        let waiting = engine.group_tree().usage(self.objects.group(), Resource::Pool);
        // Headers, and what does not fit the end of a segment.
        let waiting = waiting + waiting / 16 + KEPT_FREE;
        engine.durable_room().get() > waiting
    }

    /// Makes room on the tier, which has little: what was given up there since the last commit is free after the next one, and so is what packing wins. Tells whether
    /// there is any chance that there is some now.
    fn win_room(&self) -> Result<bool, NamedError> {
        let engine = self.objects.engine();
        let _turn = self.turn.lock();
        let waits = !engine.limbo().is_zero();
        let packed = engine.pack_durable()? > 0;
        if !waits && !packed {
            return Ok(false);
        }
        match self.commit() {
            Ok(()) => Ok(true),
            // What is in the pool is not whole on the tier, so it cannot be committed.
            Err(NamedError::Durable(DurableError::Full { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn commit(&self) -> Result<(), NamedError> {
        let (engine, group) = (self.objects.engine(), self.objects.group());
        self.sweep(SWEPT)?;
        // Most of it without keeping anybody waiting.
        engine.write_down(group)?;
        let gate = self.changes.gate.write();
        engine.write_down(group)?;
        let mut books = self.books.lock();
        let changed = std::mem::take(&mut *self.changes.changed.lock());
        let lines = self.lines(&books, &changed);
        let commit = engine.to_commit();
        drop(gate);
        let kept = lines.and_then(|lines| {
            engine.sync_durable()?;
            let txn = self.index.begin_write()?;
            books.put(&txn, &lines, &commit)?;
            Ok(txn.commit()?)
        });
        if let Err(error) = kept {
            self.changes.changed.lock().extend(changed);
            return Err(error);
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        books.kept(&commit);
        engine.committed(commit);
        self.let_idle_out(&mut books);
        Ok(())
    }

    fn lines(&self, books: &Books, changed: &BTreeSet<u64>) -> Result<Vec<Line>, NamedError> {
        let engine = self.objects.engine();
        let open = changed.iter().filter_map(|id| Some((*id, books.open.get(id)?)));
        let line = |(id, known): (u64, &Arc<Known>)| {
            let (content, clusters) = known.object().look(|_, content| content.kept(engine))?;
            Ok(Line { id, record: known.record(content), clusters })
        };
        open.map(line).collect()
    }
}

impl Books {
    fn put(&self, txn: &WriteTransaction, lines: &[Line], commit: &Commit) -> Result<(), NamedError> {
        let (mut objects, mut clusters) = (txn.open_table(OBJECTS)?, txn.open_table(CLUSTERS)?);
        // First what is no more: its clusters may have become others'.
        for id in self.gone.iter().copied().chain(lines.iter().map(|line| line.id)) {
            let former = objects.remove(id)?.map(|line| ObjectRecord::decode(id, line.value()));
            for (_, cluster) in former.transpose()?.map_or(Vec::new(), |record| record.blocks) {
                clusters.remove(cluster)?;
            }
        }
        for line in lines {
            objects.insert(line.id, line.record.encode().as_slice())?;
            for kept in &line.clusters {
                clusters.insert(kept.cluster.get(), encode_cluster(kept).as_slice())?;
            }
        }
        let mut volumes = txn.open_table(VOLUMES)?;
        for (key, number) in &self.volumes {
            volumes.insert(key.as_slice(), number)?;
        }
        let mut names = txn.open_table(NAMES)?;
        for ((volume, key), id) in &self.names {
            match id {
                Some(id) => names.insert((*volume, key.as_slice()), id)?,
                None => names.remove((*volume, key.as_slice()))?,
            };
        }
        if self.tombs_changed {
            let mut tombs = txn.open_table(TOMBS)?;
            tombs.retain(|_, _| false)?;
            for (volume, prefix, last) in self.tombs.iter() {
                tombs.insert((volume, prefix), last)?;
            }
        }
        self.put_segments(txn, commit)
    }

    fn put_segments(&self, txn: &WriteTransaction, commit: &Commit) -> Result<(), NamedError> {
        let mut segments = txn.open_table(SEGMENTS)?;
        let now: BTreeSet<_> = commit.segments.iter().map(|kept| kept.segment).collect();
        for segment in self.listed.keys().filter(|segment| !now.contains(segment)) {
            segments.remove(segment.get())?;
        }
        for kept in &commit.segments {
            if self.listed.get(&kept.segment) == Some(&kept.sequence) {
                continue;
            }
            let entries = commit.entries.get(&kept.segment);
            let entries = entries.expect("the engine has the entries of what no list has named");
            segments.insert(kept.segment.get(), encode_segment(kept, entries).as_slice())?;
        }
        Ok(())
    }

    /// The index has it.
    fn kept(&mut self, commit: &Commit) {
        self.volumes.clear();
        self.names.clear();
        self.gone.clear();
        self.tombs_changed = false;
        self.listed = commit.segments.iter().map(|kept| (kept.segment, kept.sequence)).collect();
    }
}
