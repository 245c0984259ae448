//! Where an object's bytes are.

use crate::object::Object;
use crate::presence::{PAGE, common, page_range};
use std::ops::Range;
use vswap_core::SlotId;
use vswap_engine::{BackingKind, Engine, TierId};

/// What holds the bytes of an extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Holder {
    /// The slots: the pages are a word again and again.
    Pattern,
    /// The pool.
    Memory,
    /// Blocks of a tier, in which others may have bytes as well.
    Tier {
        /// Which.
        tier: TierId,
        /// The first block, of 4096 bytes, in the tier's file or device.
        block: u64,
        /// How many.
        blocks: u64,
    },
    /// Nothing: they are lost.
    Lost,
}

/// Pages of an object that follow each other there and where they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The pages, as bytes of the object, no further than its end. Not all of these need be there; [`Object::present`] tells.
    pub range: Range<u64>,
    /// What holds them.
    pub holder: Holder,
}

impl Extent {
    /// Takes in what follows, if it lies right behind both here and there.
    fn join(&mut self, next: &Extent) -> bool {
        if self.range.end != next.range.start {
            return false;
        }
        match (&mut self.holder, next.holder) {
            (Holder::Tier { tier, block, blocks }, Holder::Tier { tier: of, block: first, blocks: more }) => {
                // Pages are packed: the next one may begin in the last block of this one.
                let end = *block + *blocks;
                if *tier != of || first > end || first + 1 < end {
                    return false;
                }
                *blocks = end.max(first + more) - *block;
            }
            (here, there) if *here == there => {}
            _ => return false,
        }
        self.range.end = next.range.end;
        true
    }
}

/// How often what is being moved is looked at again. A move is over long before.
const PATIENCE: usize = 100;

/// `None` if it has been released meanwhile.
fn holder(engine: &Engine, slot: SlotId) -> Option<Holder> {
    for _ in 0..PATIENCE {
        match engine.backing(slot) {
            BackingKind::Empty => return None,
            BackingKind::Fill => return Some(Holder::Pattern),
            BackingKind::Poisoned => return Some(Holder::Lost),
            BackingKind::Segment => {
                if let Some((tier, offset, length)) = engine.extent_of(slot) {
                    return Some(Holder::Tier { tier, block: offset / PAGE, blocks: length.get() / PAGE });
                }
            }
            _ => return Some(Holder::Memory),
        }
    }
    // Its word names a place that does not exist: a load says so too.
    Some(Holder::Lost)
}

impl Object {
    /// Where the pages with bytes of `range` are, in order, in as few extents as they are runs there. A moment later they may be elsewhere.
    pub fn extents(&self, range: Range<u64>) -> Vec<Extent> {
        self.look(|engine, content| {
            let range = common(&range, &(0..content.len()));
            let mut found: Vec<Extent> = Vec::new();
            content.each_page(engine, &range, |page, slot| {
                let Some(holder) = holder(engine, slot) else { return };
                let next = Extent { range: page_range(page, content.len()), holder };
                if !found.last_mut().is_some_and(|last| last.join(&next)) {
                    found.push(next);
                }
            });
            found
        })
    }
}
