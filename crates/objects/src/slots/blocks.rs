//! [`Blocks`]: 2 MiB of an object are a cluster of its own, shared by count after a snapshot.

use super::{PAGES, Put, index, store_in};
use crate::error::ObjectError;
use crate::hands::Hands;
use crate::object::Objects;
use crate::presence::common;
use std::collections::BTreeMap;
use std::ops::Range;
use vswap_core::{PageIndex, SlotId};
use vswap_engine::{Engine, OwnerBlock};

/// By number of 2 MiB.
#[derive(Debug, Default)]
pub(crate) struct Blocks(BTreeMap<u64, OwnerBlock>);

impl Blocks {
    pub(super) fn slot(&self, engine: &Engine, page: u64) -> Option<SlotId> {
        backed(engine, self.0.get(&(page / PAGES))?, index(page))
    }

    pub(super) fn each(&self, engine: &Engine, pages: &Range<u64>, mut each: impl FnMut(u64, SlotId)) {
        if pages.is_empty() {
            return;
        }
        for (number, block) in self.0.range(pages.start / PAGES..=(pages.end - 1) / PAGES) {
            for page in common(&(number * PAGES..(number + 1) * PAGES), pages) {
                if let Some(slot) = backed(engine, block, index(page)) {
                    each(page, slot);
                }
            }
        }
    }

    pub(super) fn store(
        &mut self,
        of: &Objects,
        put: &Put<'_>,
        hands: &mut Hands,
    ) -> Result<(), ObjectError> {
        let (engine, number) = (of.engine(), put.page / PAGES);
        let block = self.0.entry(number).or_insert_with(|| of.new_block());
        let stored = store(of, block, put, hands);
        if stored.is_err() && is_empty(engine, block) {
            self.drop_blocks(engine, &[number]);
        }
        stored
    }

    pub(super) fn release(&mut self, engine: &Engine, pages: &Range<u64>) {
        let numbers = pages.start / PAGES..=(pages.end - 1) / PAGES;
        let mut empty = Vec::new();
        for (number, block) in self.0.range_mut(numbers) {
            let all = number * PAGES..(number + 1) * PAGES;
            let part = common(&all, pages);
            if part == all {
                empty.push(*number);
                continue;
            }
            part.for_each(|page| block.release(engine, index(page)));
            if is_empty(engine, block) {
                empty.push(*number);
            }
        }
        self.drop_blocks(engine, &empty);
    }

    /// The same pages for another owner.
    pub(crate) fn snapshot(&mut self, engine: &Engine) -> Self {
        Self(self.0.iter_mut().map(|(number, block)| (*number, block.fork(engine))).collect())
    }

    pub(super) fn dispose(self, engine: &Engine) {
        self.0.into_values().for_each(|block| block.dispose(engine));
    }

    fn drop_blocks(&mut self, engine: &Engine, numbers: &[u64]) {
        for block in numbers.iter().filter_map(|number| self.0.remove(number)) {
            block.dispose(engine);
        }
    }
}

/// The slot of a page that has bytes.
fn backed(engine: &Engine, block: &OwnerBlock, index: PageIndex) -> Option<SlotId> {
    block.slot(index).filter(|_| block.has_backing(engine, index))
}

/// Whether no page of it has bytes.
fn is_empty(engine: &Engine, block: &OwnerBlock) -> bool {
    !PageIndex::all().any(|index| block.has_backing(engine, index))
}

fn store(of: &Objects, block: &mut OwnerBlock, put: &Put<'_>, hands: &mut Hands) -> Result<(), ObjectError> {
    let (engine, index, offset) = (of.engine(), index(put.page), put.offset);
    // Others have it too, since a snapshot: a slot of its own takes the place of theirs, which is kept until that has its bytes.
    let shared = backed(engine, block, index).filter(|_| !block.is_sole(engine, index));
    if let Some(slot) = shared {
        engine.keep_slot(slot);
    }
    let slot = block.slot_for_store(engine, index).map_err(|source| ObjectError::NoSlot { offset, source });
    let done = slot.and_then(|slot| store_in(of, slot, put, hands));
    match shared {
        Some(slot) if done.is_err() => block.adopt(engine, index, slot),
        Some(slot) => engine.let_slot_go(slot),
        None => {}
    }
    done
}
