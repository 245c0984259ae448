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

/// Those that nobody uses now: as many as there ever were at once.
#[derive(Default)]
pub(crate) struct Spare(Mutex<Vec<Hands>>);

impl Spare {
    /// Does something with a pair of hands.
    pub(crate) fn lend<T>(&self, engine: &Engine, kept: bool, work: impl FnOnce(&mut Hands) -> T) -> T {
        let spare = self.0.lock().pop();
        let mut hands = spare.unwrap_or_else(|| Hands::new(engine, kept));
        let done = work(&mut hands);
        self.0.lock().push(hands);
        done
    }
}
