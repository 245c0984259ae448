//! What is done at leisure: nothing here is waited for by a fault or an eviction.

use crate::engine::Engine;
use std::sync::atomic::Ordering;
use vswap_core::ByteCount;

/// What a pool may hold beside a quarter more than its entries, before it is packed.
const LOOSE: ByteCount = ByteCount::mib(1);
/// Chunks that one call packs: some hundred microseconds.
const CHUNKS_AT_ONCE: usize = 4;
/// Calls that pass after one that found nothing to pack: looking takes up to a millisecond.
const REST: u64 = 200;

impl Engine {
    /// Does what waits to be done at leisure: trains a dictionary when enough samples came (tens of
    /// milliseconds, once in a while), gives the room of dead segments back to the file system, packs a loose
    /// pool. For a background thread, every few milliseconds; when there is nothing to do it costs a load or
    /// two. `pressed`: there is no leisure, others wait for the CPU; what is long then waits for a while. Tells whether it
    /// did something.
    pub fn maintain(&self, pressed: bool) -> bool {
        let trained = self.is_to_train(pressed) && self.train();
        self.tidy() || trained
    }

    /// [`Engine::maintain`] without the training of dictionaries, which takes memory for a moment.
    pub fn tidy(&self) -> bool {
        let tidied = self.disk.tidy();
        self.pack_if_loose() || tidied
    }

    /// Packs a pool that holds much more than its entries; after an attempt that found nothing, not again for
    /// a while.
    fn pack_if_loose(&self) -> bool {
        // Relaxed: a pace, nothing more.
        let rest = self.rest.load(Ordering::Relaxed);
        if rest > 0 {
            self.rest.store(rest - 1, Ordering::Relaxed);
            return false;
        }
        let pool = self.pool.stats();
        if pool.held.get() <= pool.payload.get() / 4 * 5 + LOOSE.get() {
            return false;
        }
        let moved = self.compact(CHUNKS_AT_ONCE, 2) > 0;
        self.rest.store(if moved { 0 } else { REST }, Ordering::Relaxed);
        moved
    }
}
