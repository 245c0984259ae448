//! [`NamedObject`]: an object of a store.

use crate::content::Content;
use crate::error::ObjectError;
use crate::object::Object;
use crate::store::error::{NamedError, NamedFetchError};
use crate::store::keeping::{Keeping, changing};
use crate::store::records::ObjectRecord;
use crate::store::{MAX_AUX, Store, reclaim};
use parking_lot::RwLock;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vswap_engine::Engine;

/// Bytes that are written before it is looked again whether there is room to commit them.
const PIECE: usize = 1 << 20;

/// An object of a store: bytes by offset, as [`Object`], with what its owner keeps beside them.
#[derive(Clone, Debug)]
pub struct NamedObject {
    store: Arc<Store>,
    known: Arc<Known>,
}

/// An object of a store as the store has it.
#[derive(Debug)]
pub(super) struct Known {
    volume: u32,
    key: Box<[u8]>,
    version: u64,
    aux: RwLock<Vec<u8>>,
    /// Somebody has asked for it since those that nobody uses were looked through last.
    wanted: AtomicBool,
    object: Object,
}

impl Deref for NamedObject {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.known.object
    }
}

impl Known {
    pub(super) fn new(record: &ObjectRecord, object: Object) -> Arc<Self> {
        let ObjectRecord { volume, key, version, aux, .. } = record;
        let (key, aux) = (key.as_slice().into(), RwLock::new(aux.clone()));
        Arc::new(Self {
            volume: *volume,
            key,
            version: *version,
            aux,
            wanted: AtomicBool::new(false),
            object,
        })
    }

    pub(super) fn aux_bytes(&self) -> usize {
        self.aux.read().len()
    }

    pub(super) fn want(&self) {
        // Relaxed, here and below: a hint.
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Asked once for each look.
    pub(super) fn was_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn object(&self) -> &Object {
        &self.object
    }

    /// Volume and key.
    pub(super) fn name(&self) -> (u32, Vec<u8>) {
        (self.volume, self.key.to_vec())
    }

    /// Whether it is in this volume and its key begins so.
    pub(super) fn is_below(&self, volume: u32, prefix: &[u8]) -> bool {
        self.volume == volume && self.key.starts_with(prefix)
    }

    /// Its line in the index; `content` has the bytes' part of it.
    pub(super) fn record(&self, content: ObjectRecord) -> ObjectRecord {
        let (volume, key) = self.name();
        let (version, aux, pinned) = (self.version, self.aux.read().clone(), self.is_pinned());
        ObjectRecord { volume, key, version, aux, pinned, ..content }
    }

    /// Whether nothing is left of it that is worth its name, and nothing need be.
    pub(super) fn is_husk(&self) -> bool {
        let held = self.object.keeping().is_none_or(|keeping| keeping.claim.is_held());
        let is_husk = |engine: &Engine, content: &Content| {
            let mut slots = Vec::new();
            content.each_page(engine, &(0..content.len()), |_, slot| slots.push(slot));
            reclaim::is_husk(engine, content.len(), slots.into_iter())
        };
        !held && self.object.look(is_husk)
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.object.keeping().is_some_and(|keeping| keeping.claim.is_pinned())
    }
}

impl NamedObject {
    pub(super) fn of(store: &Arc<Store>, known: Arc<Known>) -> Self {
        Self { store: Arc::clone(store), known }
    }

    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.known.version
    }

    /// Its key in its volume.
    pub fn key(&self) -> &[u8] {
        &self.known.key
    }

    /// Whether nobody finds it any more: it was removed, or there is a newer version.
    pub fn is_gone(&self) -> bool {
        self.keeping().is_some_and(Keeping::is_gone)
    }

    /// What its owner keeps beside it.
    pub fn aux(&self) -> Vec<u8> {
        self.known.aux.read().clone()
    }

    /// Keeps something else beside it.
    ///
    /// # Errors
    /// When it is longer than [`MAX_AUX`].
    pub fn set_aux(&self, aux: &[u8]) -> Result<(), NamedError> {
        if aux.len() > MAX_AUX {
            return Err(NamedError::AuxTooLong { len: aux.len(), most: MAX_AUX });
        }
        let _changing = changing(self);
        *self.known.aux.write() = aux.to_vec();
        Ok(())
    }

    /// As [`Object::write`]. Where there would be no room to commit it, what is dead on the tier is given up first, by a commit.
    ///
    /// # Errors
    /// As there; [`NamedError::Full`], with what was written before that. What keeps room from being made.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), NamedError> {
        self.in_pieces(offset, bytes, Object::write)
    }

    /// As [`Object::write_dirty`], with room made as [`NamedObject::write`] does.
    ///
    /// # Errors
    /// As there.
    pub fn write_dirty(&self, offset: u64, bytes: &[u8]) -> Result<(), NamedError> {
        self.in_pieces(offset, bytes, Object::write_dirty)
    }

    /// As [`Object::fetch`], with room made as [`NamedObject::write`] does.
    ///
    /// # Errors
    /// As there, and what keeps room from being made.
    pub fn fetch<E>(
        &self,
        range: Range<u64>,
        mut get: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), NamedFetchError<E>> {
        let mut at = range.start;
        while at < range.end.min(self.len()) {
            let end = range.end.min(self.len()).min(at.saturating_add(PIECE as u64));
            let _room = self.room_for(at..end)?;
            self.known.object.fetch(at..end, &mut get)?;
            at = end;
        }
        Ok(())
    }

    /// As [`Object::read_through`], with room made as [`NamedObject::write`] does.
    ///
    /// # Errors
    /// As there, and what keeps room from being made.
    pub fn read_through<E>(
        &self,
        offset: u64,
        buf: &mut [u8],
        mut get: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<usize, NamedFetchError<E>> {
        self.read_having(offset, buf, |range| self.fetch(range, &mut get))
    }

    /// Before a range of at most a piece is written: sees to it that it finds room, and may be pinned if it is to be. That holds as long as what this gives.
    pub(crate) fn room_for(&self, range: Range<u64>) -> Result<impl Sized + '_, NamedError> {
        let bytes = range.end.saturating_sub(range.start) as usize;
        let counted = self.count_pinned(range)?;
        let promise = self.store.promise(bytes)?;
        Ok((promise, counted))
    }

    fn in_pieces(
        &self,
        offset: u64,
        bytes: &[u8],
        write: impl Fn(&Object, u64, &[u8]) -> Result<(), ObjectError>,
    ) -> Result<(), NamedError> {
        let object = &self.known.object;
        if bytes.is_empty() {
            return Ok(write(object, offset, bytes)?);
        }
        let mut at = offset;
        for piece in bytes.chunks(PIECE) {
            let _room = self.room_for(at..at.saturating_add(piece.len() as u64))?;
            write(object, at, piece)?;
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }
}
