//! [`Chooser`]: of a fast codec and a dense one, the one that pays for what is stored just now.

use crate::compress::{Compressor, Encoded, Method};
use crate::tag::{CodecTag, DictionaryId};
use vswap_core::Page;

/// Every so many pages both codecs are tried. Odd: pages come in order, and what lies in them often repeats at a power of two.
const TRIAL_EVERY: u32 = 31;
/// How much a trial counts beside all those before: one part in so many.
const MEMORY: i32 = 4;
/// Bytes that the dense codec must save in the mean, a tenth of a page. On pages of a heap zstd saves 700, which are worth its time (3 to 8
/// us more for a store, 1 to 3 for a load, by machine); on lines of text 200, which are not where there is a device below.
const LEAST_SAVED: i32 = 400;

/// Two compressors of one thread. Pages that are stored one after the other were neighbours, so what paid for the last ones will for the
/// next.
#[derive(Debug)]
pub struct Chooser {
    dense: Compressor,
    /// `None`: there is nothing to choose.
    fast: Option<Compressor>,
    /// Bytes that the dense one has saved in trials, in the mean, times [`MEMORY`].
    saved: i32,
    turn: u32,
}

impl Chooser {
    /// Always this one.
    pub fn fixed(compressor: Compressor) -> Self {
        Self { dense: compressor, fast: None, saved: 0, turn: 0 }
    }

    /// `dense`, or lz4 while that saves less than a tenth of a page on those stored last. It takes several trials to give up the dense one.
    pub fn between(dense: Compressor) -> Self {
        let fast = Some(Compressor::new(Method::Lz4, None));
        Self { dense, fast, saved: 2 * MEMORY * LEAST_SAVED, turn: 0 }
    }

    /// Has another dense compressor from now on, with another dictionary for instance, about which nothing is known yet.
    pub fn replace(&mut self, dense: Compressor) {
        self.dense = dense;
        self.saved = self.saved.max(MEMORY * LEAST_SAVED);
    }

    /// The dictionary of the dense one.
    pub fn dictionary(&self) -> Option<DictionaryId> {
        self.dense.dictionary()
    }

    /// Memory that the contexts hold.
    pub fn memory(&self) -> usize {
        self.dense.memory() + self.fast.as_ref().map_or(0, Compressor::memory)
    }

    /// Encodes a page with the codec that pays; see [`Compressor::compress`].
    pub fn compress<'a>(&'a mut self, page: &'a Page) -> Encoded<'a> {
        let Some(fast) = &mut self.fast else { return self.dense.compress(page) };
        self.turn = self.turn.wrapping_add(1);
        if self.turn.is_multiple_of(TRIAL_EVERY) {
            let (long, short) = (fast.compress(page), self.dense.compress(page));
            // A page that neither makes shorter says nothing of those beside it that they do.
            if (long.tag, short.tag) != (CodecTag::RAW, CodecTag::RAW) {
                self.saved += long.bytes.len() as i32 - short.bytes.len() as i32 - self.saved / MEMORY;
            }
            return if self.saved >= MEMORY * LEAST_SAVED { short } else { long };
        }
        if self.saved >= MEMORY * LEAST_SAVED { self.dense.compress(page) } else { fast.compress(page) }
    }
}
