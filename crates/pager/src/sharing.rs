//! Pages that processes have in common since a fork, counted once.
//!
//! The kernel copies such a page when one of its owners writes to it, and tells nobody. So they are write-protected: the
//! first write of each owner is a fault, and the copy that it will make is charged before it is let happen. An owner
//! *leaves* a page by writing to it, by dropping it, and when it is moved out (to move a page the kernel wants it to be
//! the owner's alone). What the last owner has is a page like any other.

use parking_lot::Mutex;
use std::sync::Arc;
use vswap_core::{Bitmap512, PAGES_PER_CLUSTER};

use crate::block::BlockState;

/// How many owners each page of a block has, among those that came from one another by forks. 0: none has shared that page.
#[derive(Debug)]
pub struct Sharing {
    owners: Mutex<[u8; PAGES_PER_CLUSTER]>,
}

impl Sharing {
    fn new() -> Arc<Sharing> {
        Arc::new(Sharing { owners: Mutex::new([0; PAGES_PER_CLUSTER]) })
    }
}

impl BlockState {
    /// Makes resident pages ready to be shared: all in `pages` that are not pinned, and that no relative knows by an older
    /// copy. Returns those that were not before; they are to be write-protected before the program writes to them again.
    pub(crate) fn prepare_to_share(&mut self, pages: &Bitmap512) -> Bitmap512 {
        let wanted = (self.resident & *pages).and_not(&(self.pinned | self.cow));
        if wanted.is_empty() {
            return wanted;
        }
        let sharing = self.sharing.get_or_insert_with(Sharing::new);
        let mut owners = sharing.owners.lock();
        let mut fresh = Bitmap512::EMPTY;
        for page in wanted.iter() {
            if owners[page.get()] == 0 {
                owners[page.get()] = 1;
                fresh.set(page);
            }
        }
        drop(owners);
        self.cow |= fresh;
        fresh
    }

    /// `child` has come to own the pages of `pages` that are prepared here and resident there. Returns them.
    pub(crate) fn share_with(&self, child: &mut BlockState, pages: &Bitmap512) -> Bitmap512 {
        let wanted = (self.cow & child.resident & *pages).and_not(&child.pinned);
        let mut shared = Bitmap512::EMPTY;
        let Some(sharing) = self.sharing.as_ref().filter(|_| !wanted.is_empty()) else { return shared };
        let mut owners = sharing.owners.lock();
        for page in wanted.iter() {
            if owners[page.get()] < u8::MAX {
                owners[page.get()] += 1;
                shared.set(page);
            }
        }
        drop(owners);
        child.cow |= shared;
        child.sharing = Some(Arc::clone(sharing));
        shared
    }

    /// Leaves those of `pages` that are shared. Returns how many of them others still have: they stay charged, for those.
    pub(crate) fn leave(&mut self, pages: &Bitmap512) -> usize {
        let mut others = 0;
        self.leave_if(pages, |shared| {
            others = shared;
            true
        });
        others
    }

    /// Leaves those of `pages` that are shared, if `consent` says yes to the number of pages among them that others still have.
    pub(crate) fn leave_if(&mut self, pages: &Bitmap512, consent: impl FnOnce(usize) -> bool) -> bool {
        let leaving = self.cow & *pages;
        let Some(sharing) = self.sharing.as_ref().filter(|_| !leaving.is_empty()) else { return consent(0) };
        let mut owners = sharing.owners.lock();
        let others = leaving.iter().filter(|page| owners[page.get()] > 1).count();
        let leaves = consent(others);
        if leaves {
            leaving.iter().for_each(|page| owners[page.get()] -= 1);
        }
        drop(owners);
        if leaves {
            self.cow = self.cow.and_not(&leaving);
            if self.cow.is_empty() {
                self.sharing = None;
            }
        }
        leaves
    }

    /// Pages that are prepared to be shared, or were shared, and that nobody else has.
    pub(crate) fn alone(&self) -> Bitmap512 {
        let mut alone = Bitmap512::EMPTY;
        if let Some(sharing) = &self.sharing {
            let owners = sharing.owners.lock();
            self.cow.iter().filter(|page| owners[page.get()] == 1).for_each(|page| alone.set(page));
        }
        alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Block;
    use proptest::prelude::*;
    use vswap_core::{GroupId, PageIndex};
    use vswap_engine::{Engine, EngineConfig};

    const PAGES: usize = 4;

    /// What a family of processes does to a block; numbers of processes are taken modulo those that live.
    #[derive(Clone, Debug)]
    enum Op {
        Install(usize, usize),
        Pin(usize, usize),
        Fork(usize),
        Write(usize, usize),
        Drop(usize, usize),
        Exit(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let pair = || (0..8usize, 0..PAGES);
        prop_oneof![
            pair().prop_map(|(who, page)| Op::Install(who, page)),
            pair().prop_map(|(who, page)| Op::Pin(who, page)),
            (0..8usize).prop_map(Op::Fork),
            pair().prop_map(|(who, page)| Op::Write(who, page)),
            pair().prop_map(|(who, page)| Op::Drop(who, page)),
            (0..8usize).prop_map(Op::Exit),
        ]
    }

    /// A process: its block, and which frame each page is in, as the kernel has it.
    struct Process {
        state: BlockState,
        frames: [Option<u64>; PAGES],
    }

    struct Family {
        engine: Arc<Engine>,
        processes: Vec<Process>,
        next_frame: u64,
        /// What the budget would say.
        charged: usize,
    }

    impl Family {
        fn new() -> Family {
            let mut family = Family {
                engine: Engine::new(EngineConfig::default()).unwrap(),
                processes: vec![],
                next_frame: 0,
                charged: 0,
            };
            let first = Process { state: family.block(), frames: [None; PAGES] };
            family.processes.push(first);
            family
        }

        fn block(&self) -> BlockState {
            Block::new(0, self.engine.owner_block(GroupId::ROOT).unwrap()).state.into_inner()
        }

        fn frame(&mut self) -> Option<u64> {
            self.next_frame += 1;
            Some(self.next_frame)
        }

        /// Frames that are really there.
        fn frames(&self) -> usize {
            let mut all: Vec<u64> =
                self.processes.iter().flat_map(|p| p.frames.iter().flatten().copied()).collect();
            all.sort_unstable();
            all.dedup();
            all.len()
        }

        fn fork(&mut self, who: usize) {
            let mut copy = self.block();
            let parent = &mut self.processes[who];
            parent.state.prepare_to_share(&Bitmap512::FULL);
            copy.resident = parent.state.resident;
            copy.pinned = parent.state.pinned;
            let shared = parent.state.share_with(&mut copy, &Bitmap512::FULL);
            self.charged += copy.resident.count() - shared.count();
            // A pinned page is copied by the kernel whenever it likes.
            let frames = parent.frames;
            let mut child = Process { state: copy, frames };
            for page in child.state.pinned.iter().filter(|page| page.get() < PAGES) {
                child.frames[page.get()] = frames[page.get()].and_then(|_| self.frame());
            }
            self.processes.push(child);
        }

        fn apply(&mut self, op: &Op) {
            let count = self.processes.len();
            let at = |page: &usize| PageIndex::new(*page).unwrap();
            match op {
                Op::Install(who, page) => {
                    let frame = self.frame();
                    let process = &mut self.processes[who % count];
                    if process.frames[*page].is_none() {
                        process.frames[*page] = frame;
                        process.state.resident.set(at(page));
                        self.charged += 1;
                    }
                }
                Op::Pin(who, page) => {
                    let frame = self.frame();
                    let process = &mut self.processes[who % count];
                    process.state.pinned.set(at(page));
                    // Written to, since the kernel will.
                    self.charged += process.state.leave(&Bitmap512::from_range(at(page), 1));
                    process.frames[*page] = process.frames[*page].and(frame);
                }
                Op::Fork(who) if count < 8 => self.fork(who % count),
                Op::Write(who, page) => {
                    let frame = self.frame();
                    let process = &mut self.processes[who % count];
                    if process.frames[*page].is_some() {
                        let charged = &mut self.charged;
                        let refused = process.state.leave_if(&Bitmap512::from_range(at(page), 1), |_| false);
                        assert!(!refused);
                        assert!(process.state.leave_if(&Bitmap512::from_range(at(page), 1), |others| {
                            *charged += others;
                            true
                        }));
                        process.frames[*page] = frame;
                    }
                }
                Op::Drop(who, page) => {
                    let process = &mut self.processes[who % count];
                    let (freed, others) =
                        process.state.discard(&self.engine, Bitmap512::from_range(at(page), 1));
                    process.frames[*page] = None;
                    self.charged -= freed - others;
                }
                Op::Exit(who) if count > 1 => {
                    let mut process = self.processes.swap_remove(who % count);
                    let charged = process.state.charged();
                    self.charged -= charged - process.state.leave(&Bitmap512::FULL);
                    process.state.owner.take().unwrap().dispose(&self.engine);
                }
                Op::Fork(_) | Op::Exit(_) => {}
            }
        }
    }

    proptest! {
        /// What is charged is never less than what is there, and no more once a single process is left.
        #[test]
        fn a_family_is_charged_for_what_it_has(ops in proptest::collection::vec(op(), 0..200)) {
            let mut family = Family::new();
            for op in &ops {
                family.apply(op);
                prop_assert!(family.charged >= family.frames(), "{op:?}: {} < {}", family.charged, family.frames());
                for process in &family.processes {
                    prop_assert!(process.state.cow.and_not(&process.state.resident).is_empty());
                    prop_assert_eq!(process.state.cow.is_empty(), process.state.sharing.is_none());
                }
            }
            while family.processes.len() > 1 {
                family.apply(&Op::Exit(0));
            }
            prop_assert_eq!(family.charged, family.frames());
            let last = family.processes.pop().unwrap();
            last.state.owner.unwrap().dispose(&family.engine);
        }
    }

    #[test]
    fn children_of_one_parent_cost_nothing_until_they_write() {
        let mut family = Family::new();
        (0..PAGES).for_each(|page| family.apply(&Op::Install(0, page)));
        (0..3).for_each(|_| family.apply(&Op::Fork(0)));
        assert_eq!(family.charged, PAGES);
        family.apply(&Op::Write(2, 1));
        assert_eq!(family.charged, PAGES + 1);
        assert_eq!(family.processes[0].state.alone(), Bitmap512::EMPTY);
        (0..3).for_each(|_| family.apply(&Op::Exit(1)));
        assert_eq!(family.charged, PAGES);
        assert_eq!(family.processes[0].state.alone().count(), PAGES);
        family.processes.pop().unwrap().state.owner.unwrap().dispose(&family.engine);
    }
}
