//! What a thread needs to move pages: contexts of the codecs, and room for some pages. Kept for the next one, since making them costs more
//! than most reads.

use parking_lot::Mutex;
use vswap_core::{PAGE_SIZE, Page};
use vswap_engine::{Engine, Loaded, Scratch};

/// Pages that are loaded together.
pub(crate) const RUN: usize = 32;

pub(crate) struct Hands {
    pub(crate) scratch: Scratch,
    pub(crate) pages: Vec<Page>,
    pub(crate) loaded: Vec<Loaded>,
}

impl Hands {
    fn new(engine: &Engine, kept: bool) -> Self {
        let loaded = std::iter::repeat_with(|| None).take(RUN).collect();
        let scratch = if kept { engine.scratch_for_kept() } else { engine.scratch_for_runs() };
        Self { scratch, pages: vec![[0; PAGE_SIZE]; RUN], loaded }
    }
}

/// Kept at most: hundreds of threads may have had some at once, each for a moment.
const MOST_SPARE: usize = 64;

/// Those that nobody uses now.
#[derive(Default)]
pub(crate) struct Spare(Mutex<Vec<Hands>>);

impl Spare {
    /// Does something with a pair of hands.
    pub(crate) fn lend<T>(&self, engine: &Engine, kept: bool, work: impl FnOnce(&mut Hands) -> T) -> T {
        let found = self.0.lock().pop();
        let mut hands = found.unwrap_or_else(|| Hands::new(engine, kept));
        let done = work(&mut hands);
        let mut spare = self.0.lock();
        if spare.len() < MOST_SPARE {
            spare.push(hands);
        }
        done
    }
}
