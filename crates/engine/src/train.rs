//! [`Trainer`]: collects samples of what is stored and turns them into dictionaries.
//!
//! Samples are spread over a growing number of stores (each collection four times as long as the one before), so the first
//! dictionary comes early and later ones know more of the workload. Training takes tens of milliseconds, so it is never done
//! by a store: [`Engine::maintain`] does it when there is something to do. A dictionary is adopted only if pages that it
//! was not trained on come out shorter than without it.

use crate::engine::Engine;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use vswap_codec::{Compressor, Dictionary, DictionaryId, Method};
use vswap_core::Page;

/// Samples of one collection: 400 KiB; fewer than zstd's advice, which costs 1 % of ratio and halves time and memory.
const SAMPLES: usize = 200;
/// Of them, those kept apart to judge the result by.
const HELD_OUT: usize = 50;
/// Stores over which the first collection is spread.
const FIRST_SPREAD: u64 = 1600;
/// Dictionaries that are ever trained: the last one is adopted after 1600 * 4^5 stores, 6.5 GiB of pages.
const ROUNDS: u32 = 6;

/// Collects samples; all methods are cheap for the storing thread.
#[derive(Debug)]
pub(crate) struct Trainer {
    wanted: AtomicBool,
    /// The dictionary for new stores; 0 is none. Relaxed: a thread that sees it late uses the former one, and
    /// what it names is published by its own cell.
    current: AtomicU8,
    stores: AtomicU64,
    every: AtomicU64,
    collection: Mutex<Collection>,
    /// Set when a collection is complete, so that `maintain` looks without locking.
    ready: AtomicBool,
}

#[derive(Debug, Default)]
struct Collection {
    samples: Vec<Page>,
    rounds: u32,
}

impl Trainer {
    pub(crate) fn new(wanted: bool) -> Self {
        Self {
            wanted: AtomicBool::new(wanted),
            current: AtomicU8::new(0),
            stores: AtomicU64::new(0),
            every: AtomicU64::new(FIRST_SPREAD / SAMPLES as u64),
            collection: Mutex::default(),
            ready: AtomicBool::new(false),
        }
    }

    /// The dictionary for new stores.
    pub(crate) fn current(&self) -> Option<DictionaryId> {
        DictionaryId::new(self.current.load(Ordering::Relaxed))
    }

    /// Shows a page that is being stored; now and then it is copied.
    pub(crate) fn offer(&self, page: &Page) {
        // All relaxed: which pages are taken is a matter of chance anyway.
        if !self.wanted.load(Ordering::Relaxed) || self.ready.load(Ordering::Relaxed) {
            return;
        }
        let stores = self.stores.fetch_add(1, Ordering::Relaxed);
        if !stores.is_multiple_of(self.every.load(Ordering::Relaxed)) {
            return;
        }
        let Some(mut collection) = self.collection.try_lock() else { return };
        if collection.samples.len() < SAMPLES {
            collection.samples.push(*page);
            if collection.samples.len() == SAMPLES {
                self.ready.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Takes a complete collection and starts the next one, if there is to be one.
    fn take(&self) -> Option<Vec<Page>> {
        if !self.ready.load(Ordering::Relaxed) {
            return None;
        }
        let mut collection = self.collection.lock();
        if collection.samples.len() < SAMPLES {
            return None;
        }
        let samples = std::mem::take(&mut collection.samples);
        collection.rounds += 1;
        self.every.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |every| Some(every * 4)).ok();
        self.wanted.store(collection.rounds < ROUNDS, Ordering::Relaxed);
        self.ready.store(false, Ordering::Relaxed);
        Some(samples)
    }

    /// Memory of the samples.
    pub(crate) fn memory(&self) -> usize {
        self.collection.lock().samples.capacity() * size_of::<Page>()
    }
}

/// Bytes that these pages come to.
fn encoded_bytes(mut compressor: Compressor, pages: &[Page]) -> usize {
    pages.iter().map(|page| compressor.compress(page).bytes.len()).sum()
}

impl Engine {
    /// Does what waits to be done at leisure: trains a dictionary when enough samples came (tens of milliseconds, once in a while).
    /// For a background thread, every so often; when there is nothing to do it costs one load. Tells whether it did something.
    pub fn maintain(&self) -> bool {
        let Some(samples) = self.trainer.take() else { return false };
        let (held_out, samples) = samples.split_at(HELD_OUT);
        let present = encoded_bytes(self.compressor(), held_out);
        // Nothing to learn, or no room for more: what is in use stays in use.
        let Ok(bytes) = Dictionary::train(samples) else { return true };
        let Ok(made) = self.dictionaries.add(bytes) else { return true };
        let with = encoded_bytes(Compressor::new(Method::ZSTD, Some(made)), held_out);
        if with < present {
            self.trainer.current.store(made.id().get(), Ordering::Relaxed);
        }
        true
    }
}
