//! Pages that processes have in common since a fork: counted once, and moved out together as one copy.
//!
//! The kernel copies such a page when one of its owners writes to it, and tells nobody. So they are write-protected: the
//! first write of each owner is a fault, and the copy that it will make is charged before it is let happen. An owner
//! *leaves* a page by writing to it, by dropping it, and when it is moved out (to move a page the kernel wants it to be
//! the owner's alone). What the last owner has is a page like any other.
//!
//! Moved out of one owner, a page is still in memory for the others, and takes room in the pool besides. So the others'
//! are moved out next, and find the slot of the first here: if the bytes are the same, as they nearly always are, the
//! slot gets one owner more. That they are protected does not prove it: a device may write to what was pinned before the fork.

use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use vswap_core::{Bitmap512, PAGES_PER_CLUSTER, PageIndex, SlotId};
use vswap_engine::Engine;

use crate::block::{Block, BlockState};

/// What the owners of a block's pages know of each other, among those that came from one another by forks.
#[derive(Debug)]
pub struct Sharing(Mutex<Shares>);

#[derive(Debug)]
struct Shares {
    /// How many have each page in memory. 0: none has shared that page, or all have left it.
    owners: [u8; PAGES_PER_CLUSTER],
    /// These, and those that are moving it out and have not stored it yet.
    heirs: [u8; PAGES_PER_CLUSTER],
    /// Where one that moved it out has stored it, for the other heirs. Each is kept. Empty until there is one.
    slots: Vec<Option<SlotId>>,
    /// The owners' spaces and blocks.
    members: Vec<(u64, Weak<Block>)>,
}

impl Shares {
    /// An heir is one no more; the last one takes away what was kept for it.
    fn disinherit(&mut self, engine: &Engine, page: PageIndex) {
        let at = page.get();
        self.heirs[at] -= 1;
        if self.heirs[at] == 0
            && let Some(slot) = self.slots.get_mut(at).and_then(Option::take)
        {
            engine.let_slot_go(slot);
        }
    }
}

impl Sharing {
    fn new() -> Arc<Sharing> {
        let none = [0; PAGES_PER_CLUSTER];
        let shares = Shares { owners: none, heirs: none, slots: Vec::new(), members: Vec::new() };
        Arc::new(Sharing(Mutex::new(shares)))
    }

    /// The owners' blocks, with their spaces' numbers.
    pub(crate) fn members(&self) -> Vec<(u64, Arc<Block>)> {
        let mut shares = self.0.lock();
        shares.members.retain(|(_, block)| block.strong_count() > 0);
        shares.members.iter().filter_map(|(id, block)| Some((*id, block.upgrade()?))).collect()
    }

    fn join(&self, id: u64, block: &Arc<Block>) {
        let members = &mut self.0.lock().members;
        if members.len() == members.capacity() {
            // Of those that are gone the memory stays for as long as they are named here.
            members.retain(|(_, block)| block.strong_count() > 0);
        }
        members.push((id, Arc::downgrade(block)));
    }
}

/// The pages that an owner left to have them moved out: it is their heir until they are stored.
#[derive(Debug)]
pub(crate) struct Parting {
    engine: Arc<Engine>,
    sharing: Arc<Sharing>,
    pages: Bitmap512,
}

impl Parting {
    /// Whose pages they were too.
    pub(crate) fn sharing(&self) -> &Arc<Sharing> {
        &self.sharing
    }

    /// Pages that were left and not stored yet.
    pub(crate) fn pages(&self) -> Bitmap512 {
        self.pages
    }

    /// Where another heir has stored `page`. The caller gets an ownership of that slot, and the page is this heir's no more.
    pub(crate) fn inherit(&mut self, page: PageIndex) -> Option<SlotId> {
        if !self.pages.get(page) {
            return None;
        }
        let mut shares = self.sharing.0.lock();
        let slot = shares.slots.get(page.get()).copied().flatten()?;
        self.engine.keep_slot(slot);
        self.pages.clear(page);
        shares.disinherit(&self.engine, page);
        Some(slot)
    }

    /// `page` is stored in `slot`, which is the caller's and stays it as long as the caller's block is locked: other heirs may
    /// have it too.
    pub(crate) fn bequeath(&mut self, page: PageIndex, slot: SlotId) {
        if !self.pages.get(page) {
            return;
        }
        let mut shares = self.sharing.0.lock();
        self.pages.clear(page);
        shares.disinherit(&self.engine, page);
        if shares.heirs[page.get()] == 0 {
            return;
        }
        if shares.slots.is_empty() {
            shares.slots = vec![None; PAGES_PER_CLUSTER];
        }
        let stored = &mut shares.slots[page.get()];
        if stored.is_none() {
            self.engine.keep_slot(slot);
            *stored = Some(slot);
        }
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        let mut shares = self.sharing.0.lock();
        self.pages.iter().for_each(|page| shares.disinherit(&self.engine, page));
    }
}

impl BlockState {
    /// Makes resident pages of this block, of space `id`, ready to be shared: all in `pages` that are not pinned, and that no
    /// relative knows by an older copy. Returns those that were not before; they are to be write-protected before the program
    /// writes to them again.
    pub(crate) fn prepare_to_share(&mut self, id: u64, block: &Arc<Block>, pages: &Bitmap512) -> Bitmap512 {
        let wanted = (self.resident & *pages).and_not(&(self.pinned | self.cow));
        if wanted.is_empty() {
            return wanted;
        }
        let sharing = self.sharing.get_or_insert_with(|| {
            let sharing = Sharing::new();
            sharing.join(id, block);
            sharing
        });
        let mut shares = sharing.0.lock();
        let mut fresh = Bitmap512::EMPTY;
        for page in wanted.iter() {
            let at = page.get();
            if shares.heirs[at] == 0 {
                (shares.owners[at], shares.heirs[at]) = (1, 1);
                fresh.set(page);
            }
        }
        drop(shares);
        self.cow |= fresh;
        fresh
    }

    /// `child`, the state of `twin` in space `id`, has come to own the pages of `pages` that are prepared here and resident
    /// there. Returns them.
    pub(crate) fn share_with(
        &self,
        id: u64,
        twin: &Arc<Block>,
        child: &mut BlockState,
        pages: &Bitmap512,
    ) -> Bitmap512 {
        let wanted = (self.cow & child.resident & *pages).and_not(&child.pinned);
        let mut shared = Bitmap512::EMPTY;
        let Some(sharing) = self.sharing.as_ref().filter(|_| !wanted.is_empty()) else { return shared };
        let mut shares = sharing.0.lock();
        for page in wanted.iter() {
            let at = page.get();
            if shares.heirs[at] < u8::MAX {
                shares.owners[at] += 1;
                shares.heirs[at] += 1;
                shared.set(page);
            }
        }
        drop(shares);
        if child.sharing.is_none() && !shared.is_empty() {
            sharing.join(id, twin);
            child.sharing = Some(Arc::clone(sharing));
        }
        child.cow |= shared;
        shared
    }

    /// Leaves those of `pages` that are shared. Returns how many of them others still have: they stay charged, for those.
    pub(crate) fn leave(&mut self, engine: &Engine, pages: &Bitmap512) -> usize {
        let mut others = 0;
        self.leave_if(engine, pages, |shared| {
            others = shared;
            true
        });
        others
    }

    /// Leaves those of `pages` that are shared, if `consent` says yes to the number of pages among them that others still have.
    pub(crate) fn leave_if(
        &mut self,
        engine: &Engine,
        pages: &Bitmap512,
        consent: impl FnOnce(usize) -> bool,
    ) -> bool {
        let leaving = self.cow & *pages;
        let Some(sharing) = self.sharing.as_ref().filter(|_| !leaving.is_empty()) else { return consent(0) };
        let mut shares = sharing.0.lock();
        let others = leaving.iter().filter(|page| shares.owners[page.get()] > 1).count();
        if !consent(others) {
            return false;
        }
        for page in leaving.iter() {
            shares.owners[page.get()] -= 1;
            shares.disinherit(engine, page);
        }
        drop(shares);
        self.has_left(&leaving);
        true
    }

    /// Leaves those of `pages` that are shared to move them out. Returns how many others still have, and the pages that were
    /// left.
    pub(crate) fn part(&mut self, engine: &Arc<Engine>, pages: &Bitmap512) -> (usize, Option<Parting>) {
        let leaving = self.cow & *pages;
        let Some(sharing) = self.sharing.clone().filter(|_| !leaving.is_empty()) else { return (0, None) };
        let mut shares = sharing.0.lock();
        let mut others = 0;
        for page in leaving.iter() {
            let owners = &mut shares.owners[page.get()];
            *owners -= 1;
            others += usize::from(*owners > 0);
        }
        drop(shares);
        self.has_left(&leaving);
        (others, Some(Parting { engine: Arc::clone(engine), sharing, pages: leaving }))
    }

    fn has_left(&mut self, pages: &Bitmap512) {
        self.cow = self.cow.and_not(pages);
        if self.cow.is_empty() {
            self.sharing = None;
        }
    }

    /// Pages that are prepared to be shared, or were shared, and that nobody else has.
    pub(crate) fn alone(&self) -> Bitmap512 {
        let mut alone = Bitmap512::EMPTY;
        if let Some(sharing) = &self.sharing {
            let shares = sharing.0.lock();
            self.cow.iter().filter(|page| shares.owners[page.get()] == 1).for_each(|page| alone.set(page));
        }
        alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vswap_core::{GroupId, Page};
    use vswap_engine::{EngineConfig, Scratch};

    const PAGES: usize = 4;

    /// What a family of processes does to a block; numbers of processes are taken modulo those that live.
    #[derive(Clone, Debug)]
    enum Op {
        Install(usize, usize),
        Pin(usize, usize),
        Fork(usize),
        Write(usize, usize),
        Drop(usize, usize),
        MoveOut(usize, usize),
        /// The same, and a device writes to the page, which it had pinned before the fork.
        MoveOutWritten(usize, usize),
        Store(usize),
        Exit(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let who = || 0..8usize;
        let pair = || (who(), 0..PAGES);
        prop_oneof![
            4 => pair().prop_map(|(who, page)| Op::Install(who, page)),
            1 => pair().prop_map(|(who, page)| Op::Pin(who, page)),
            2 => who().prop_map(Op::Fork),
            3 => pair().prop_map(|(who, page)| Op::Write(who, page)),
            2 => pair().prop_map(|(who, page)| Op::Drop(who, page)),
            5 => pair().prop_map(|(who, page)| Op::MoveOut(who, page)),
            1 => pair().prop_map(|(who, page)| Op::MoveOutWritten(who, page)),
            5 => who().prop_map(Op::Store),
            1 => who().prop_map(Op::Exit),
        ]
    }

    /// A process: its block; which frame each page is in, as the kernel has it; what it has written; what is being moved out.
    struct Process {
        block: Arc<Block>,
        frames: [Option<u64>; PAGES],
        values: [u64; PAGES],
        moving: Option<(PageIndex, Option<Parting>)>,
    }

    struct Family {
        engine: Arc<Engine>,
        scratch: Scratch,
        processes: Vec<Process>,
        next: u64,
        /// What the budget would say.
        charged: usize,
    }

    fn at(page: usize) -> PageIndex {
        PageIndex::new(page).unwrap()
    }

    fn only(page: usize) -> Bitmap512 {
        Bitmap512::from_range(at(page), 1)
    }

    fn content(value: u64) -> Page {
        std::array::from_fn(|i| (value.wrapping_mul(0x9e37_79b9) >> (i % 4 * 8)) as u8 ^ ((i * i) >> 7) as u8)
    }

    impl Family {
        fn new() -> Family {
            let engine = Engine::new(EngineConfig::default()).unwrap();
            let scratch = engine.scratch();
            let mut family = Family { engine, scratch, processes: vec![], next: 0, charged: 0 };
            let block = family.block();
            family.processes.push(Process { block, frames: [None; PAGES], values: [0; PAGES], moving: None });
            family
        }

        fn block(&self) -> Arc<Block> {
            Arc::new(Block::new(0, self.engine.owner_block(GroupId::ROOT).unwrap()))
        }

        fn fresh(&mut self) -> u64 {
            self.next += 1;
            self.next
        }

        /// Frames that are really there.
        fn frames(&self) -> usize {
            let frames = self.processes.iter().flat_map(|process| process.frames.iter().flatten());
            frames.collect::<std::collections::BTreeSet<_>>().len()
        }

        fn fork(&mut self, who: usize) {
            self.store(who);
            let (copy, id) = (self.block(), self.fresh());
            let parent = &self.processes[who];
            let mut state = parent.block.state.lock();
            state.prepare_to_share(who as u64, &parent.block, &Bitmap512::FULL);
            let mut child = copy.state.lock();
            child.resident = state.resident;
            child.backed = state.backed;
            child.pinned = state.pinned;
            child
                .owner
                .replace(state.owner.as_mut().unwrap().fork(&self.engine))
                .unwrap()
                .dispose(&self.engine);
            let shared = state.share_with(id, &copy, &mut child, &Bitmap512::FULL);
            let (mut frames, pinned) = (parent.frames, child.pinned);
            let values = parent.values;
            self.charged += child.resident.count() - shared.count();
            drop((state, child));
            // A pinned page is copied by the kernel whenever it likes.
            for page in pinned.iter().filter(|page| page.get() < PAGES) {
                frames[page.get()] = frames[page.get()].map(|_| self.fresh());
            }
            self.processes.push(Process { block: copy, frames, values, moving: None });
        }

        /// Stores what is being moved out, and lets it be out.
        fn store(&mut self, who: usize) {
            let Some((page, mut parting)) = self.processes[who].moving.take() else { return };
            let process = &mut self.processes[who];
            let bytes = content(process.values[page.get()]);
            let mut state = process.block.state.lock();
            if !state.staged.get(page) {
                return;
            }
            let mut other = [0; 4096];
            let inherited = parting.as_mut().and_then(|parting| parting.inherit(page)).filter(|slot| {
                let same = self.engine.load(*slot, &mut other, &mut self.scratch).is_ok() && other == bytes;
                if !same {
                    self.engine.let_slot_go(*slot);
                }
                same
            });
            match inherited {
                _ if state.backed.get(page) => {
                    inherited.iter().for_each(|slot| self.engine.let_slot_go(*slot))
                }
                Some(slot) => state.adopt(&self.engine, page, slot),
                None => {
                    let slot = state.owner.as_mut().unwrap().slot_for_store(&self.engine, page).unwrap();
                    self.engine.store(slot, &bytes, &mut self.scratch).unwrap();
                    state.backed.set(page);
                    if let Some(parting) = &mut parting {
                        parting.bequeath(page, slot);
                    }
                }
            }
            state.staged.clear(page);
            process.frames[page.get()] = None;
            self.charged -= 1;
        }

        fn apply(&mut self, op: &Op) {
            let count = self.processes.len();
            let fresh = self.fresh();
            let engine = Arc::clone(&self.engine);
            match *op {
                Op::Fork(who) if count < 8 => return self.fork(who % count),
                Op::Store(who) => return self.store(who % count),
                Op::Exit(who) if count > 1 => {
                    let process = self.processes.swap_remove(who % count);
                    let mut state = process.block.state.lock();
                    self.charged -= state.charged() - state.leave(&engine, &Bitmap512::FULL);
                    return state.owner.take().unwrap().dispose(&engine);
                }
                Op::Fork(_) | Op::Exit(_) => return,
                _ => {}
            }
            let (Op::Install(who, page)
            | Op::Pin(who, page)
            | Op::Write(who, page)
            | Op::Drop(who, page)
            | Op::MoveOut(who, page)
            | Op::MoveOutWritten(who, page)) = *op
            else {
                unreachable!()
            };
            let process = &mut self.processes[who % count];
            let mut state = process.block.state.lock();
            let (frame, moved) =
                (&mut process.frames[page], process.moving.as_ref().map(|(page, _)| page.get()));
            let there = frame.is_some() && !state.staged.get(at(page));
            match *op {
                Op::Install(..) if frame.is_none() => {
                    let mut bytes = [0; 4096];
                    if state.backed.get(at(page)) {
                        let slot = state.owner.as_ref().unwrap().slot(at(page)).unwrap();
                        engine.load(slot, &mut bytes, &mut self.scratch).unwrap();
                        assert!(bytes == content(process.values[page]), "a wrong byte");
                    } else {
                        process.values[page] = fresh;
                    }
                    *frame = Some(fresh);
                    state.resident.set(at(page));
                    self.charged += 1;
                }
                Op::Pin(..) => {
                    state.pinned.set(at(page));
                    // Written to, since the kernel will.
                    self.charged += state.leave(&engine, &only(page));
                    *frame = frame.and(Some(fresh));
                    if there && state.backed.get(at(page)) {
                        state.release_slot(&engine, at(page));
                    }
                }
                Op::Write(..) if there => {
                    assert!(!state.leave_if(&engine, &only(page), |_| false));
                    self.charged += state.leave(&engine, &only(page));
                    if state.backed.get(at(page)) {
                        state.release_slot(&engine, at(page));
                    }
                    (*frame, process.values[page]) = (Some(fresh), fresh);
                }
                Op::Drop(..) => {
                    let (freed, others) = state.discard(&engine, only(page));
                    *frame = None;
                    self.charged -= freed - others;
                }
                Op::MoveOut(..) | Op::MoveOutWritten(..)
                    if there && moved.is_none() && !state.pinned.get(at(page)) =>
                {
                    let (others, parting) = state.part(&engine, &only(page));
                    self.charged += others;
                    *frame = Some(fresh);
                    if matches!(op, Op::MoveOutWritten(..)) {
                        process.values[page] = fresh;
                        if state.backed.get(at(page)) {
                            state.release_slot(&engine, at(page));
                        }
                    }
                    state.resident.clear(at(page));
                    state.staged.set(at(page));
                    drop(state);
                    process.moving = Some((at(page), parting));
                }
                _ => {}
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

        /// What is charged is never less than what is there, and no more once a single process is left; what comes back is what was
        /// written; nothing is kept for those who are gone.
        #[test]
        fn a_family_is_charged_for_what_it_has(ops in proptest::collection::vec(op(), 0..200)) {
            let mut family = Family::new();
            for op in &ops {
                family.apply(op);
                prop_assert!(family.charged >= family.frames(), "{op:?}: {} < {}", family.charged, family.frames());
                for process in &family.processes {
                    let state = process.block.state.lock();
                    prop_assert!(state.cow.and_not(&state.resident).is_empty());
                    prop_assert_eq!(state.cow.is_empty(), state.sharing.is_none());
                }
            }
            for who in 0..family.processes.len() {
                (0..PAGES).for_each(|page| family.apply(&Op::Install(who, page)));
            }
            while family.processes.len() > 1 {
                family.apply(&Op::Exit(0));
            }
            prop_assert_eq!(family.charged, family.frames());
            let mut last = family.processes.pop().unwrap();
            last.moving = None;
            last.block.state.lock().leave(&family.engine, &Bitmap512::FULL);
            last.block.state.lock().owner.take().unwrap().dispose(&family.engine);
            let stats = family.engine.stats();
            prop_assert_eq!((stats.pool_pages.get(), stats.clusters), (0, 0));
        }
    }

    fn family_of_four() -> Family {
        let mut family = Family::new();
        (0..PAGES).for_each(|page| family.apply(&Op::Install(0, page)));
        (0..3).for_each(|_| family.apply(&Op::Fork(0)));
        family
    }

    #[test]
    fn children_of_one_parent_cost_nothing_until_they_write() {
        let mut family = family_of_four();
        assert_eq!(family.charged, PAGES);
        family.apply(&Op::Write(2, 1));
        assert_eq!(family.charged, PAGES + 1);
        assert_eq!(family.processes[0].block.state.lock().alone(), Bitmap512::EMPTY);
        (0..3).for_each(|_| family.apply(&Op::Exit(1)));
        assert_eq!(family.charged, PAGES);
        assert_eq!(family.processes[0].block.state.lock().alone().count(), PAGES);
    }

    #[test]
    fn what_a_whole_family_moves_out_is_stored_once() {
        let mut family = family_of_four();
        for page in 0..PAGES {
            (0..4).for_each(|who| family.apply(&Op::MoveOut(who, page)));
            (0..4).for_each(|who| family.apply(&Op::Store(who)));
        }
        assert_eq!((family.charged, family.frames()), (0, 0));
        assert_eq!(family.engine.stats().pool_pages.get() as usize, PAGES);
        (0..4).for_each(|who| (0..PAGES).for_each(|page| family.apply(&Op::Install(who, page))));
    }
}
