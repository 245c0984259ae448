//! Which slots an object's pages have: blocks of 2 MiB of its own, which a snapshot shares ([`Blocks`]), or runs of slots in clusters that it has in
//! common with others, which are kept when the run ends ([`Runs`]).

mod blocks;
mod hot;
mod runs;
pub(crate) mod shelves;

use crate::error::ObjectError;
use crate::hands::Hands;
use crate::object::Objects;
use std::ops::Range;
use vswap_core::{PAGES_PER_CLUSTER, Page, PageIndex, SlotId};
use vswap_engine::Engine;

pub(crate) use blocks::Blocks;
pub(crate) use hot::Hot;
pub(crate) use runs::{Claim, Run, Runs};

const PAGES: u64 = PAGES_PER_CLUSTER as u64;
/// How often room is made for one page before the write gives up: others may take what was made.
const ATTEMPTS: usize = 16;

#[derive(Debug)]
pub(crate) enum Slots {
    Blocks(Blocks),
    Runs(Runs),
}

impl Default for Slots {
    fn default() -> Self {
        Self::Blocks(Blocks::default())
    }
}

/// A page to be stored.
pub(crate) struct Put<'p> {
    pub(crate) page: u64,
    pub(crate) bytes: &'p Page,
    /// The byte of the object that an error names.
    pub(crate) offset: u64,
    /// As many pages the object is known to have soon.
    pub(crate) until: u64,
}

impl Slots {
    /// The slot of a page that has bytes.
    pub(crate) fn slot(&self, engine: &Engine, page: u64) -> Option<SlotId> {
        match self {
            Self::Blocks(blocks) => blocks.slot(engine, page),
            Self::Runs(runs) => runs.place(page).filter(|slot| engine.has_page(*slot)),
        }
    }

    /// Pages that have bytes, of these, in order, with their slots.
    pub(crate) fn each(&self, engine: &Engine, pages: &Range<u64>, each: impl FnMut(u64, SlotId)) {
        match self {
            Self::Blocks(blocks) => blocks.each(engine, pages, each),
            Self::Runs(runs) => runs.each(engine, pages, each),
        }
    }

    /// Stores a page. If that fails, what it had is as it was.
    pub(crate) fn store(
        &mut self,
        of: &Objects,
        put: &Put<'_>,
        hands: &mut Hands,
    ) -> Result<(), ObjectError> {
        match self {
            Self::Blocks(blocks) => blocks.store(of, put, hands),
            Self::Runs(runs) => runs.store(of, put, hands),
        }
    }

    /// Lets these pages go, and what has no other.
    pub(crate) fn release(&mut self, of: &Objects, pages: &Range<u64>) {
        match self {
            _ if pages.is_empty() => {}
            Self::Blocks(blocks) => blocks.release(of.engine(), pages),
            Self::Runs(runs) => runs.release(of, pages),
        }
    }

    /// The owner is gone.
    pub(crate) fn dispose(self, of: &Objects) {
        match self {
            Self::Blocks(blocks) => blocks.dispose(of.engine()),
            Self::Runs(runs) => runs.dispose(of),
        }
    }
}

fn index(page: u64) -> PageIndex {
    PageIndex::new((page % PAGES) as usize).expect("below the pages of a cluster")
}

/// Stores a page in a slot that is its object's alone, making room where there is none.
fn store_in(of: &Objects, slot: SlotId, put: &Put<'_>, hands: &mut Hands) -> Result<(), ObjectError> {
    let offset = put.offset;
    let mut stored = of.engine().store(slot, put.bytes, &mut hands.scratch);
    for attempt in 0..ATTEMPTS {
        let Err(full) = &stored else { return Ok(()) };
        let made =
            of.make_room(full, attempt, hands).map_err(|source| ObjectError::Writeback { offset, source })?;
        // Also if nothing could be done: others may have made room.
        stored = of.engine().store(slot, put.bytes, &mut hands.scratch);
        // In every other attempt all is tried.
        if !made && attempt.is_multiple_of(2) {
            break;
        }
    }
    stored.map(drop).map_err(|source| ObjectError::NoRoom { offset, source })
}
