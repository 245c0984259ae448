//! Whether a model had what it is about.
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells whether some interleaving had it. Of the process, not of loom: it outlives each interleaving.
pub(crate) struct Seen(AtomicBool);

impl Seen {
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn note(&self, seen: bool) {
        // Relaxed: nothing else is read on its strength.
        self.0.fetch_or(seen, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) {
        assert!(self.0.load(Ordering::Relaxed), "no interleaving had it: the model proves nothing");
    }
}
