//! zstd dictionaries, trained on the workload's own pages.
//!
//! 16 KiB is enough for 4 KiB pages (32 and 64 KiB gave the same ratio); training on 100 times that takes
//! tens of milliseconds. A dictionary of another workload is worse than none, so none is built in.

use crate::tag::DictionaryId;
use crate::zstd::{self, DDict};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use vswap_core::{PAGE_SIZE, Page};

/// No dictionary could be made from the samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// zstd found nothing to learn: too few samples or too little in common.
    #[error("training a dictionary on {pages} pages: {reason}")]
    Refused {
        /// How many samples there were.
        pages: usize,
        /// What zstd said.
        reason: &'static str,
    },
    /// The engine has as many as it can.
    #[error("all {count} dictionaries are in use", count = DictionaryId::COUNT)]
    TooMany,
}

/// A dictionary, digested for decompression. For compression each thread digests it for itself.
pub struct Dictionary {
    id: DictionaryId,
    bytes: Box<[u8]>,
    digest: DDict<'static>,
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dictionary").field("id", &self.id).field("bytes", &self.bytes.len()).finish()
    }
}

impl Dictionary {
    /// Bytes of a trained dictionary, at most.
    pub const SIZE: usize = 16 << 10;
    /// How many samples make a good one: zstd's advice of 100 times its size.
    pub const SAMPLES: usize = 100 * Self::SIZE / PAGE_SIZE;

    /// Learns what pages have in common.
    ///
    /// # Errors
    /// When there are too few or they have nothing in common.
    pub fn train(samples: &[Page]) -> Result<Vec<u8>, TrainError> {
        let mut bytes = vec![0; Self::SIZE];
        let sizes = vec![PAGE_SIZE; samples.len()];
        let refused = |reason| TrainError::Refused { pages: samples.len(), reason };
        let length = zstd::train_from_buffer(&mut bytes[..], samples.as_flattened(), &sizes)
            .map_err(|code| refused(zstd::get_error_name(code)))?;
        bytes.truncate(length);
        Ok(bytes)
    }

    fn digest_bytes(id: DictionaryId, bytes: Vec<u8>) -> Result<Self, TrainError> {
        let refused = TrainError::Refused { pages: 0, reason: "zstd could not digest the dictionary" };
        let digest = DDict::try_create(&bytes).ok_or(refused)?;
        Ok(Self { id, bytes: bytes.into_boxed_slice(), digest })
    }

    /// Which it is.
    pub fn id(&self) -> DictionaryId {
        self.id
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn digest(&self) -> &DDict<'static> {
        &self.digest
    }

    /// Memory that it holds.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.digest.sizeof()
    }
}

/// All dictionaries of an engine. They are only ever added, so that each entry stays readable; looking one up
/// takes no lock.
pub struct Dictionaries {
    slots: Box<[OnceLock<Dictionary>]>,
    count: AtomicUsize,
}

impl std::fmt::Debug for Dictionaries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.slots.iter().filter_map(OnceLock::get)).finish()
    }
}

impl Default for Dictionaries {
    fn default() -> Self {
        let slots = (0..DictionaryId::COUNT).map(|_| OnceLock::new()).collect();
        Self { slots, count: AtomicUsize::new(0) }
    }
}

impl Dictionaries {
    /// Adds a trained dictionary.
    ///
    /// # Errors
    /// When there are too many, or the bytes are no dictionary.
    pub fn add(&self, bytes: Vec<u8>) -> Result<&Dictionary, TrainError> {
        // Relaxed: it only hands out distinct numbers; the dictionary itself is published by its OnceLock.
        let at = self.count.fetch_add(1, Ordering::Relaxed);
        let id = u8::try_from(at + 1).ok().and_then(DictionaryId::new).ok_or(TrainError::TooMany)?;
        let made = Dictionary::digest_bytes(id, bytes)?;
        Ok(self.slots[at].get_or_init(|| made))
    }

    /// The dictionary of this identity.
    pub fn get(&self, id: DictionaryId) -> Option<&Dictionary> {
        self.slots.get(usize::from(id.get()) - 1)?.get()
    }

    /// Memory that all hold.
    pub fn memory(&self) -> usize {
        self.slots.iter().filter_map(OnceLock::get).map(Dictionary::memory).sum()
    }
}
