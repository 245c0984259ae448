//! [`Trainer`]: picks samples of what is stored and turns them into dictionaries.
//!
//! A sample is the number of a slot, nothing more: its page is read back from the pool when it is needed (if
//! another page is there by then, it is as good a sample).
//!
//! Samples are spread over a growing number of stores (each collection 16 times as long as the one before),
//! so the first dictionary comes early and later ones know more of the workload. Training takes tens of
//! milliseconds, so it is never done by a store: `Engine::maintain` does it when there is something to do, or who counts memory makes room and calls `Engine::train`. (With four times as many
//! it took 5 % of the processors' time while a program grew by 1 GiB, and with evictors waiting for the CPU still 6 %: so it waits
//! until they do not, if that is soon.) A dictionary is adopted only if pages that it was not trained on come out shorter than without it.

use crate::engine::Engine;
use crate::movement::{codec_tag, decodes};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use vswap_codec::{Compressor, Decompressor, Dictionary, DictionaryId, Method};
use vswap_core::{ByteCount, PAGE_SIZE, Page, SlotId};

/// Samples of one collection; fewer than zstd's advice, which costs 1 % of ratio and halves time and memory.
const SAMPLES: usize = 200;
/// Of them, those kept apart to judge the result by.
const HELD_OUT: usize = 50;
/// Stores over which the first collection is spread.
const FIRST_SPREAD: u64 = 1600;
/// What training takes for a moment, as measured: 12 MiB, most of it tables of zstd's.
const TRAINING: ByteCount = ByteCount::mib(12);
/// Not before the pool holds half as much.
const LEAST_POOL: ByteCount = ByteCount::mib(6);
/// How much longer each collection is than the one before.
const GROWTH: u64 = 16;
/// Calls of `maintain` for which training waits for leisure: two seconds and more.
const PATIENCE: u32 = 400;
/// Dictionaries that are ever trained: the last one is adopted after 1600 * 16^3 stores, 25 GiB of pages.
const ROUNDS: u32 = 4;

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
    /// Calls of `maintain` since a collection is complete.
    waited: AtomicU32,
    /// Set when a collection is complete, so that `maintain` looks without locking.
    ready: AtomicBool,
}

#[derive(Debug, Default)]
struct Collection {
    slots: Vec<SlotId>,
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
            waited: AtomicU32::new(0),
            ready: AtomicBool::new(false),
        }
    }

    /// The dictionary for new stores.
    pub(crate) fn current(&self) -> Option<DictionaryId> {
        DictionaryId::new(self.current.load(Ordering::Relaxed))
    }

    /// Tells of a page that was stored; now and then it is remembered.
    pub(crate) fn offer(&self, slot: SlotId) {
        // All relaxed: which pages are taken is a matter of chance anyway.
        if !self.wanted.load(Ordering::Relaxed) || self.ready.load(Ordering::Relaxed) {
            return;
        }
        let stores = self.stores.fetch_add(1, Ordering::Relaxed);
        if !stores.is_multiple_of(self.every.load(Ordering::Relaxed)) {
            return;
        }
        let Some(mut collection) = self.collection.try_lock() else { return };
        if collection.slots.len() < SAMPLES {
            collection.slots.push(slot);
            if collection.slots.len() == SAMPLES {
                self.ready.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Takes a complete collection and starts the next one, if there is to be one.
    fn take(&self) -> Option<Vec<SlotId>> {
        let mut collection = self.collection.lock();
        if collection.slots.len() < SAMPLES {
            return None;
        }
        let slots = std::mem::take(&mut collection.slots);
        collection.rounds += 1;
        self.every.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |every| Some(every * GROWTH)).ok();
        self.wanted.store(collection.rounds < ROUNDS, Ordering::Relaxed);
        self.ready.store(false, Ordering::Relaxed);
        Some(slots)
    }
}

/// Bytes that these pages come to.
fn encoded_bytes(mut compressor: Compressor, pages: &[Page]) -> usize {
    pages.iter().map(|page| compressor.compress(page).bytes.len()).sum()
}

impl Engine {
    /// Whether a dictionary is to be trained ([`Engine::train`]): enough samples came. `pressed`, not before that has been asked for a while: others wait for the CPU.
    pub fn is_to_train(&self, pressed: bool) -> bool {
        if !self.trainer.ready.load(Ordering::Relaxed) || self.pool.held() < LEAST_POOL {
            return false;
        }
        // Relaxed: a pace, nothing more.
        !pressed || self.trainer.waited.fetch_add(1, Ordering::Relaxed) >= PATIENCE
    }

    /// Bytes that [`Engine::train`] takes for a moment.
    pub const fn training_bytes() -> ByteCount {
        TRAINING
    }

    /// Trains a dictionary if enough samples came: tens of milliseconds, and [`Engine::training_bytes`] of memory meanwhile. Tells whether it did something.
    pub fn train(&self) -> bool {
        self.trainer.waited.store(0, Ordering::Relaxed);
        let Some(slots) = self.trainer.take() else { return false };
        let samples = self.pages_in_pool(&slots);
        let Some((held_out, samples)) = samples.split_at_checked(HELD_OUT) else { return true };
        let present = encoded_bytes(self.compressor(), held_out);
        // Nothing to learn, or no room for more: what is in use stays in use.
        let Ok(bytes) = Dictionary::train(samples) else { return true };
        let Ok(made) = self.dictionaries.add(bytes) else { return true };
        let with = encoded_bytes(Compressor::new(Method::ZSTD_FAST, Some(made)), held_out);
        if with < present {
            self.trainer.current.store(made.id().get(), Ordering::Relaxed);
        }
        true
    }

    /// The pages of those slots that have them in the pool now. Nobody keeps their owners from changing them
    /// meanwhile; an entry is read whole or not at all in any case.
    fn pages_in_pool(&self, slots: &[SlotId]) -> Vec<Page> {
        let mut decompressor = Decompressor::new();
        let mut read = |slot: SlotId| {
            let mut page = [0; PAGE_SIZE];
            let handle = self.word(slot).backing().pool_entry()?;
            let known = &self.dictionaries;
            let decode =
                |tag, bytes: &[u8]| decodes(&mut decompressor, codec_tag(tag), bytes, known, &mut page);
            self.pool.read(handle, slot, decode)?.then_some(page)
        };
        slots.iter().filter_map(|slot| read(*slot)).collect()
    }
}
