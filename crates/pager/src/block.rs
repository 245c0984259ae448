//! One owner's 2 MiB: which of its 512 pages are where, on the owner's side (residence).
//!
//! What the slot knows (backing) and what the owner knows (residence) meet only here. Relations between the sets, true
//! whenever the block's lock is free:
//!
//! - `resident`, `staged` and `busy` are disjoint; a page in none of them is *out* if `backed`, else *absent*;
//! - `resident ∩ backed` is *resident clean* and write-protected; `resident \ backed` is *resident dirty*;
//! - `flight ⊆ resident`, and `flight` or `staged` is not empty only while `window` names a staging window;
//! - `flight`, `doubtful` and `stale` are empty once it has `landed`; `doubtful` is disjoint from `resident` and `staged`;
//! - `storing` and `loading` pages' slots belong to whoever set the bit: nobody else stores to them or releases them;
//! - `cow ⊆ resident \ flight`: shared with other owners since a fork, as `sharing` counts, and write-protected;
//! - `granted` and `joining` are disjoint from `mapped`; `untouched ⊆ joining`; no page of any other set but the discarded, `doubtful` and `stale` is outside of `mapped`;
//! - what is charged to the budget is `|resident| + |staged| + |busy| + |granted|`, a page that owners share once for all of them.

use crate::sharing::Sharing;
use parking_lot::Mutex;
use std::sync::Arc;
use vswap_core::trail::Trail;
use vswap_core::{Bitmap512, Heat, PageIndex, SlotId};
use vswap_engine::{Engine, OwnerBlock};

/// Bytes of a block.
pub const BLOCK_BYTES: u64 = 2 << 20;
/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;

/// How long after its event was read a discard may take to drop its pages, and how long after that it may be found out, in ms; it is remembered for up to
/// twice as long. Not for as long as others follow it: a page that was lost ten minutes later would be taken for dropped.
const DROPPED_WITHIN: u64 = 10_000;

/// How often pages are tried again that could not be moved, at most, in ms.
const RETRIED_EVERY: u64 = 20;

/// A block: its address and its state behind the one lock.
#[derive(Debug)]
pub struct Block {
    /// Address of the first page, a multiple of [`BLOCK_BYTES`].
    pub base: u64,
    /// The state. Lock order: the space's gate, then this, then nothing of the pager's.
    pub state: Mutex<BlockState>,
}

/// See the module's relations.
#[derive(Debug)]
pub struct BlockState {
    /// The slots; `None` once the space is gone.
    pub owner: Option<OwnerBlock>,
    /// Pages of managed mappings.
    pub mapped: Bitmap512,
    /// Pages left to the kernel, charged in advance; which of them it has filled is not known.
    pub granted: Bitmap512,
    /// Pages that are being put under management: registered, or about to be, and not looked at yet.
    pub joining: Bitmap512,
    /// Of these, pages that nothing was heard of since: what the page map shows of the others may be about to go.
    pub untouched: Bitmap512,
    /// Pages in the program's page table.
    pub resident: Bitmap512,
    /// Resident pages that other owners may have too, since a fork.
    pub cow: Bitmap512,
    /// How many have each of those.
    pub sharing: Option<Arc<Sharing>>,
    /// Pages whose slot holds their bytes.
    pub backed: Bitmap512,
    /// Pages that a handler is installing.
    pub busy: Bitmap512,
    /// Busy pages whose bytes are being loaded from their slot.
    pub loading: Bitmap512,
    /// Loading pages that were discarded meanwhile: their bytes must not be installed.
    pub cancelled: Bitmap512,
    /// Resident pages that a posted eviction may already have moved.
    pub flight: Bitmap512,
    /// Pages in the staging window.
    pub staged: Bitmap512,
    /// Staged pages whose bytes are being stored.
    pub storing: Bitmap512,
    /// Pages that must stay resident.
    pub pinned: Bitmap512,
    /// Pages that could not be moved when last tried.
    pub stuck: Bitmap512,
    /// When they were last to be tried again, in ms.
    retried_at: u64,
    /// Pages that the program discarded of late. It tells so before it drops them: what comes in between may go again, and nobody says when.
    removed: Bitmap512,
    /// Those that it discarded in the turn before.
    removed_before: Bitmap512,
    /// When this turn began, which lasts for [`DROPPED_WITHIN`], in ms.
    removed_since: u64,
    /// Pages that were discarded while an eviction may be moving them, and have not come again: if they lie in the window, as they were before.
    pub doubtful: Bitmap512,
    /// Pages that have come again, or were taken back, while what they were before lies in the window of an eviction that is under way.
    pub stale: Bitmap512,
    /// How long each page is spared by the hand.
    pub heat: Heat,
    /// The staging window of pages in flight or staged.
    pub window: Option<usize>,
    /// Its eviction is over: nothing comes into it any more.
    pub landed: bool,
    /// Where its faults went last.
    pub trail: Trail,
    /// Page after the last one whose write protection was lifted.
    pub next_write: u16,
}

impl Block {
    /// A block with no page managed.
    pub fn new(base: u64, owner: OwnerBlock) -> Block {
        let none = Bitmap512::EMPTY;
        Block {
            base,
            state: Mutex::new(BlockState {
                owner: Some(owner),
                mapped: none,
                granted: none,
                joining: none,
                untouched: none,
                resident: none,
                cow: none,
                sharing: None,
                backed: none,
                busy: none,
                loading: none,
                cancelled: none,
                flight: none,
                staged: none,
                storing: none,
                pinned: none,
                stuck: none,
                retried_at: 0,
                removed: none,
                removed_before: none,
                removed_since: 0,
                doubtful: none,
                stale: none,
                heat: Heat::COLD,
                window: None,
                landed: false,
                trail: Trail::default(),
                next_write: u16::MAX,
            }),
        }
    }

    /// Address of a page of this block.
    pub fn address(&self, page: PageIndex) -> u64 {
        self.base + page.byte_offset()
    }
}

impl BlockState {
    /// Pages charged to the budget, those that others share included.
    pub fn charged(&self) -> usize {
        (self.resident | self.staged | self.busy | self.granted).count()
    }

    /// Whether nothing of the block is in memory or on its way, so that there is nothing to move out.
    pub(crate) fn is_out(&self) -> bool {
        self.resident.is_empty() && self.window.is_none()
    }

    /// Has what could not be moved tried again, unless that was so a moment ago: where most of it cannot (read-only pages), the few that can be moved are found no sooner by that,
    /// and a whole CPU was spent on it.
    pub(crate) fn retry_stuck(&mut self, now: u64) {
        if now.saturating_sub(self.retried_at) >= RETRIED_EVERY {
            self.stuck = Bitmap512::EMPTY;
            self.retried_at = now;
        }
    }

    /// `pages` are about to be dropped by a discard that was read at `now`, a time in ms.
    pub(crate) fn note_removed(&mut self, pages: &Bitmap512, now: u64) {
        self.turn_removed(now);
        self.removed |= *pages;
    }

    /// What is known of a page that was discarded holds no longer.
    pub(crate) fn forget_removed(&mut self, page: PageIndex) {
        self.removed.clear(page);
        self.removed_before.clear(page);
    }

    /// Begins another turn of what was discarded, if this one is over.
    fn turn_removed(&mut self, now: u64) {
        let turns = now.saturating_sub(self.removed_since) / DROPPED_WITHIN;
        if turns > 0 || (self.removed | self.removed_before).is_empty() {
            // Turns follow each other without a gap, or what came late in the last one would be known for as long as a third.
            let next = turns == 1 && !self.removed.is_empty();
            self.removed_before = if next { self.removed } else { Bitmap512::EMPTY };
            self.removed = Bitmap512::EMPTY;
            self.removed_since = if next { self.removed_since + DROPPED_WITHIN } else { now };
        }
    }

    /// Pages that a discard may drop still, or has dropped of late: what came in between.
    pub(crate) fn may_be_dropped(&self, now: u64) -> Bitmap512 {
        match now.saturating_sub(self.removed_since) / DROPPED_WITHIN {
            0 => self.removed | self.removed_before,
            1 => self.removed,
            _ => Bitmap512::EMPTY,
        }
    }

    /// The block is a child's, made by a fork in the middle of a discard of `discarded` in the parent, and `there` are the pages of its
    /// table. Nothing drops them here any more: what the discard had not come to yet stays, what it had dropped before the fork is
    /// as it left it.
    pub(crate) fn settle_dropped(&mut self, engine: &Engine, discarded: &Bitmap512, there: &Bitmap512) {
        let dropped = (self.resident & *discarded).and_not(there);
        for page in (dropped & self.backed).iter() {
            self.release_slot(engine, page);
        }
        self.resident = self.resident.and_not(&dropped);
        self.resident |= (*discarded & *there).and_not(&self.backed);
    }

    /// An eviction of `victims` to `window` is about to be posted. It may take along what a discard is about to drop.
    pub(crate) fn begin_flight(&mut self, window: usize, victims: Bitmap512, now: u64) {
        self.flight = victims;
        self.window = Some(window);
        let known = self.resident | self.staged | self.busy | self.backed;
        self.doubtful = self.may_be_dropped(now).and_not(&known);
    }

    /// The eviction is over.
    pub(crate) fn end_flight(&mut self) {
        self.flight = Bitmap512::EMPTY;
        self.doubtful = Bitmap512::EMPTY;
        self.stale = Bitmap512::EMPTY;
        self.landed = true;
    }

    /// Nothing in the window is wanted any more.
    pub(crate) fn leave_window(&mut self) {
        self.end_flight();
        self.window = None;
        self.landed = false;
    }

    /// Whether a page's bytes may be in the window: of one that is down as resident, only as long as it may be moved there.
    pub(crate) fn may_be_in_window(&self, page: PageIndex) -> bool {
        self.window.is_some() && (self.staged.get(page) || !self.landed && !self.stale.get(page))
    }

    /// Forgets the bytes of `page`, whoever is using its slot now.
    ///
    /// A slot in the hands of a loader or storer is released by that one, when it finds the page gone.
    pub fn forget_backing(&mut self, engine: &Engine, page: PageIndex) {
        if self.loading.get(page) {
            self.cancelled.set(page);
        } else if self.backed.get(page) && !self.storing.get(page) {
            self.release_slot(engine, page);
        }
        self.backed.clear(page);
    }

    /// The loads of `pages` are over. Returns those that were discarded meanwhile; their slots are let go, but where other bytes have come since: an
    /// `mremap` moves pages to addresses that are just being loaded, and stores them in the same slots.
    pub(crate) fn end_load(&mut self, engine: &Engine, pages: &Bitmap512) -> Bitmap512 {
        self.busy = self.busy.and_not(pages);
        self.loading = self.loading.and_not(pages);
        let gone = self.cancelled & *pages;
        self.cancelled = self.cancelled.and_not(pages);
        for page in gone.and_not(&self.backed).iter() {
            self.release_slot(engine, page);
        }
        gone
    }

    /// Lets the slot of `page` go.
    pub fn release_slot(&mut self, engine: &Engine, page: PageIndex) {
        if let Some(owner) = &mut self.owner {
            owner.release(engine, page);
        }
        self.backed.clear(page);
    }

    /// `pages` were discarded or unmapped by the program. Returns how many it had in memory, and how many of these
    /// others still have.
    pub fn discard(&mut self, engine: &Engine, pages: Bitmap512) -> (usize, usize) {
        let freed = (self.resident | self.staged) & pages;
        let others = self.leave(engine, &pages);
        for page in (pages & (self.backed | self.loading)).iter() {
            self.forget_backing(engine, page);
        }
        self.resident = self.resident.and_not(&pages);
        self.staged = self.staged.and_not(&pages);
        self.flight = self.flight.and_not(&pages);
        self.stuck = self.stuck.and_not(&pages);
        self.untouched = self.untouched.and_not(&pages);
        if self.window.is_some() && !self.landed {
            self.doubtful |= pages;
            self.stale = self.stale.and_not(&pages);
        }
        (freed.count(), others)
    }

    /// The bytes of `page` are those of `slot`, an ownership of which is handed over.
    pub(crate) fn adopt(&mut self, engine: &Engine, page: PageIndex, slot: SlotId) {
        match &mut self.owner {
            Some(owner) => {
                owner.adopt(engine, page, slot);
                self.backed.set(page);
            }
            None => engine.let_slot_go(slot),
        }
    }

    /// The pages among `among` to move out at this pass of the clock hand, at most `most`; ages the others.
    ///
    /// Pages installed since the last pass and hot ones are spared once, unless `force`.
    pub fn choose_victims(&mut self, among: &Bitmap512, most: usize, force: bool) -> Bitmap512 {
        let fixed = self.pinned | self.stuck | self.flight;
        let candidates = (self.resident & *among).and_not(&fixed);
        if force { candidates.lowest(most) } else { self.heat.choose(candidates, among, most) }
    }

    /// Panics if a relation of the module does not hold.
    #[cfg(test)]
    fn check(&self) {
        assert!((self.resident & self.staged).is_empty(), "resident and staged");
        assert!((self.busy & (self.resident | self.staged)).is_empty(), "busy and present");
        assert!(self.flight.and_not(&self.resident).is_empty(), "flight but not resident");
        assert!(self.window.is_some() || (self.flight | self.staged).is_empty(), "staged nowhere");
        let moving = self.flight | self.doubtful | self.stale;
        assert!(self.window.is_some() && !self.landed || moving.is_empty(), "moving, and nothing moves");
        assert!((self.doubtful & (self.resident | self.staged)).is_empty(), "doubtful and present");
        assert!(self.loading.and_not(&self.busy).is_empty(), "loading but not busy");
        assert!(self.cow.and_not(&self.resident.and_not(&self.flight)).is_empty(), "shared but not resident");
        assert!(self.cow.is_empty() || self.sharing.is_some(), "shared with nobody");
        assert!((self.mapped & (self.granted | self.joining)).is_empty(), "managed and granted or joining");
        assert!(self.untouched.and_not(&self.joining).is_empty(), "untouched but not joining");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswap_core::{Back, GroupId, Page};
    use vswap_engine::{EngineConfig, Scratch};

    fn page(at: usize) -> PageIndex {
        PageIndex::new(at).unwrap()
    }

    fn block(engine: &Engine) -> BlockState {
        let mut state = Block::new(0, engine.owner_block(GroupId::ROOT).unwrap()).state.into_inner();
        state.mapped = Bitmap512::FULL;
        state
    }

    fn back(state: &mut BlockState, engine: &Engine, at: usize, bytes: &Page, scratch: &mut Scratch) {
        let slot = state.owner.as_mut().unwrap().slot_for_store(engine, page(at)).unwrap();
        engine.store(slot, bytes, scratch).unwrap();
        state.backed.set(page(at));
    }

    #[test]
    fn a_page_survives_the_hand_once_when_young_and_as_often_as_it_is_hot() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let mut state = block(&engine);
        state.resident = Bitmap512::from_range(page(0), 4);
        state.heat.install(Bitmap512::single(page(1)));
        state.heat.come_back(page(2), Back::Soon);
        state.heat.come_back(page(2), Back::Soon);
        state.pinned.set(page(3));
        let taken = |state: &mut BlockState| {
            state.choose_victims(&Bitmap512::FULL, 512, false).iter().map(|p| p.get()).collect::<Vec<_>>()
        };
        assert_eq!(taken(&mut state), [0]);
        assert_eq!(taken(&mut state), [0, 1]);
        assert_eq!(taken(&mut state), [0, 1]);
        assert_eq!(taken(&mut state), [0, 1, 2]);
        assert_eq!(state.choose_victims(&Bitmap512::FULL, 1, true).count(), 1);
        state.check();
        state.owner.take().unwrap().dispose(&engine);
    }

    #[test]
    fn what_could_not_be_moved_is_tried_again_but_not_at_once() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let mut state = block(&engine);
        state.resident = pages(&[1, 2]);
        let victims = |state: &mut BlockState, now| {
            state.retry_stuck(now);
            state.choose_victims(&Bitmap512::FULL, 512, true)
        };
        state.stuck = pages(&[1]);
        assert_eq!(victims(&mut state, 1_000), pages(&[1, 2]));
        state.stuck = pages(&[1]);
        assert_eq!(victims(&mut state, 1_000 + RETRIED_EVERY - 1), pages(&[2]));
        assert_eq!(victims(&mut state, 1_000 + RETRIED_EVERY), pages(&[1, 2]));
        state.owner.take().unwrap().dispose(&engine);
    }

    /// Whoever discards something in a block every few seconds would have hidden the loss of pages discarded long before.
    #[test]
    fn a_discard_is_remembered_for_twenty_seconds_at_most_whatever_follows_it() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let mut state = block(&engine);
        let one = |at| Bitmap512::single(page(at));
        state.note_removed(&one(0), 1_000);
        assert_eq!(state.may_be_dropped(11_999), one(0));
        for at in 1..30 {
            let now = 1_000 + at as u64 * 3_000;
            state.note_removed(&one(at), now);
            let known = state.may_be_dropped(now + 2_999);
            let age = |earlier: usize| (at - earlier) as u64 * 3_000 + 2_999;
            assert!((0..=at).all(|earlier| known.get(page(earlier)) || age(earlier) >= DROPPED_WITHIN));
            assert!(known.iter().all(|page| age(page.get()) < 2 * DROPPED_WITHIN));
        }
        assert!(state.may_be_dropped(1_000 + 29 * 3_000 + 2 * DROPPED_WITHIN).is_empty());
        // Late in one turn and late in the next.
        state.note_removed(&one(0), 200_000);
        state.note_removed(&one(1), 219_999);
        assert_eq!(state.may_be_dropped(219_999), one(0) | one(1));
        assert_eq!(state.may_be_dropped(220_000), one(1));
        assert!(state.may_be_dropped(230_000).is_empty());
        state.note_removed(&one(7), 300_000);
        assert_eq!(state.may_be_dropped(300_001), one(7));
        state.forget_removed(page(7));
        assert!(state.may_be_dropped(300_001).is_empty());
        state.owner.take().unwrap().dispose(&engine);
    }

    #[test]
    fn a_discard_frees_what_is_backed_and_leaves_what_is_being_loaded_to_its_loader() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let mut scratch = engine.scratch();
        let mut state = block(&engine);
        let bytes: Page = std::array::from_fn(|at| (at * at % 251) as u8);
        for at in 0..3 {
            back(&mut state, &engine, at, &bytes, &mut scratch);
        }
        state.resident.set(page(0));
        state.busy.set(page(1));
        state.loading.set(page(1));
        assert_eq!(state.charged(), 2);
        assert_eq!(state.discard(&engine, Bitmap512::from_range(page(0), 3)), (1, 0));
        state.check();
        assert!(state.backed.is_empty() && state.cancelled.get(page(1)));
        let owner = state.owner.as_ref().unwrap();
        assert!(!owner.has_backing(&engine, page(0)) && owner.has_backing(&engine, page(1)));
        state.release_slot(&engine, page(1));
        assert_eq!(engine.pool_payload().get(), 0);
        state.owner.take().unwrap().dispose(&engine);
    }

    /// What an `mremap` had moved to pages that were being loaded went with the bytes that the loader found cancelled, and read as zeroes.
    #[test]
    fn what_is_moved_to_a_page_that_is_being_loaded_stays_when_its_loader_finds_it_cancelled() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let mut scratch = engine.scratch();
        let mut state = block(&engine);
        let bytes = |seed: usize| -> Page { std::array::from_fn(|at| (at * at * seed % 251) as u8) };
        for at in 0..3 {
            back(&mut state, &engine, at, &bytes(1), &mut scratch);
        }
        let loaded = pages(&[0, 1, 2]);
        state.busy |= loaded;
        state.loading |= loaded;
        state.discard(&engine, pages(&[0, 1]));
        back(&mut state, &engine, 1, &bytes(5), &mut scratch);
        assert_eq!(state.end_load(&engine, &loaded), pages(&[0, 1]));
        state.check();
        assert_eq!(state.backed, pages(&[1, 2]));
        let owner = state.owner.as_ref().unwrap();
        assert!(!owner.has_backing(&engine, page(0)));
        let mut read = [0; 4096];
        engine.load(owner.slot(page(1)).unwrap(), &mut read, &mut scratch).unwrap();
        assert!(read == bytes(5));
        state.owner.take().unwrap().dispose(&engine);
    }

    fn pages(pages: &[usize]) -> Bitmap512 {
        pages.iter().fold(Bitmap512::EMPTY, |all, at| all | Bitmap512::single(page(*at)))
    }

    #[test]
    fn what_is_discarded_while_it_may_be_moved_is_doubtful_until_the_eviction_is_over() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let mut state = block(&engine);
        state.mapped = Bitmap512::FULL;
        state.resident = pages(&[1, 2, 3, 9]);
        state.begin_flight(0, pages(&[1, 2]), 5);
        assert_eq!(state.discard(&engine, pages(&[2, 3])), (2, 0));
        state.check();
        assert_eq!(state.doubtful, pages(&[2, 3]));
        // It has come again while its former bytes lie there, so they are not its own.
        state.doubtful.clear(page(2));
        state.resident.set(page(2));
        state.stale.set(page(2));
        state.check();
        let may = |state: &BlockState| [1, 2, 9].map(|at| state.may_be_in_window(page(at)));
        assert_eq!(may(&state), [true, false, true]);
        // And gone once more: what lies there may be either.
        state.discard(&engine, pages(&[2]));
        assert_eq!((state.doubtful, state.stale), (pages(&[2, 3]), Bitmap512::EMPTY));
        state.end_flight();
        state.check();
        // What has landed is staged, or it is not there.
        assert_eq!(may(&state), [false; 3]);
        state.discard(&engine, pages(&[9]));
        assert!(state.doubtful.is_empty());
        state.leave_window();
        state.check();
    }

    #[test]
    fn a_child_of_a_fork_in_the_middle_of_a_discard_has_what_its_table_has() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let mut scratch = engine.scratch();
        let mut state = block(&engine);
        // 1 and 2: dropped and not come to yet. 3 and 4: came in between, and was dropped or not. 5: came, was stored, and is out. 6: was
        // stored, came back and was dropped. 8 and 9 have nothing to do with it.
        for at in [5, 6, 9] {
            back(&mut state, &engine, at, &[at as u8; 4096], &mut scratch);
        }
        state.resident = pages(&[3, 4, 6, 8]);
        state.settle_dropped(&engine, &pages(&[1, 2, 3, 4, 5, 6]), &pages(&[2, 4, 8]));
        state.check();
        assert_eq!(state.resident, pages(&[2, 4, 8]));
        assert_eq!(state.backed, pages(&[5, 9]));
        // Nothing is dropped in the child any more: none of them is doubtful when its neighbours are moved.
        state.begin_flight(0, pages(&[8]), 0);
        assert!(state.doubtful.is_empty());
        state.leave_window();
        state.owner.take().unwrap().dispose(&engine);
    }

    #[test]
    fn what_a_discard_may_drop_still_is_doubtful_from_the_start() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let mut state = block(&engine);
        state.mapped = Bitmap512::FULL;
        state.note_removed(&pages(&[4, 5, 6]), 1000);
        state.resident = pages(&[5, 8]);
        state.backed = pages(&[6]);
        assert_eq!(state.may_be_dropped(1000 + 2 * DROPPED_WITHIN - 1), pages(&[4, 5, 6]));
        assert!(state.may_be_dropped(1000 + 2 * DROPPED_WITHIN).is_empty());
        state.begin_flight(0, pages(&[8]), 2000);
        assert_eq!(state.doubtful, pages(&[4]));
        state.check();
        state.leave_window();
        // A later one does not make those before it younger than they are for ever.
        state.note_removed(&pages(&[7]), 1000 + DROPPED_WITHIN);
        assert_eq!(state.may_be_dropped(1000 + DROPPED_WITHIN), pages(&[4, 5, 6, 7]));
        assert_eq!(state.may_be_dropped(1000 + 2 * DROPPED_WITHIN), pages(&[7]));
        // Lost otherwise, its reader is to be told.
        state.forget_removed(page(7));
        assert!(state.may_be_dropped(1000 + 2 * DROPPED_WITHIN).is_empty());
        state.backed = Bitmap512::EMPTY;
    }
}
