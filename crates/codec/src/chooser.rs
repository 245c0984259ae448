//! [`Chooser`]: of a fast codec and a dense one, the one that pays for what is stored just now.

use crate::compress::{Compressor, Encoded, Method};
use crate::tag::DictionaryId;
use vswap_core::Page;

/// Every so many pages both codecs are tried.
const TRIAL_EVERY: u32 = 32;
/// How much a trial counts beside all those before: one part in so many.
const MEMORY: i32 = 4;
/// Bytes that the dense codec must save in the mean. zstd takes some 8 us more than lz4 to store a page and 2 more to load it; pages of
/// a heap come out 700 bytes shorter, lines of text 200, noise not at all.
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

    /// `dense`, or lz4 while that comes out nearly as short.
    pub fn between(dense: Compressor) -> Self {
        let fast = Some(Compressor::new(Method::Lz4, None));
        Self { dense, fast, saved: MEMORY * LEAST_SAVED, turn: 0 }
    }

    /// Has another dense compressor from now on, with another dictionary for instance.
    pub fn replace(&mut self, dense: Compressor) {
        self.dense = dense;
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
            let long = fast.compress(page).bytes.len() as i32;
            let short = self.dense.compress(page).bytes.len() as i32;
            self.saved += long - short - self.saved / MEMORY;
        }
        if self.saved >= MEMORY * LEAST_SAVED { self.dense.compress(page) } else { fast.compress(page) }
    }
}
