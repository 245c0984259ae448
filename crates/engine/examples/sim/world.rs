//! [`World`]: an engine, its devices, and what every page of every owner must be.
//!
//! One thread. What makes it a simulation of many is that the devices call back ([`World::interlude`]): in the middle of a write, a
//! read or a removal other owners store, load, let go and fork. An owner in the middle of a call is not in the list, as its lock
//! would keep the others out.

use crate::deeds::{Deed, Deeds};
use crate::disk::{Device, Faults};
use crate::random::Random;
use crate::table::{Event, Seen};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use vswap_core::{Backing, ByteCount, GroupId, PAGES_PER_CLUSTER, PageCount, PageIndex, Resource, SlotId};
use vswap_engine::{CodecChoice, Encryption, Engine, EngineConfig, OwnerBlock, Scratch, TierId};
use vswap_segment::{GhostMemory, SEGMENT_BYTES, TierKind};

/// Calls into the engine that are inside of one another.
const DEEPEST: usize = 3;
/// One episode in so many is watched: every slot is looked at after every step, which takes several times as long as all the rest.
const WATCHED: u64 = 4;
/// Positions of a block that are used.
const POSITIONS: u64 = 384;

/// A block and the number of the page at each position.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) block: OwnerBlock,
    pub(crate) pages: BTreeMap<usize, u64>,
}

/// Pages that go with a tier. A reader poisons what it finds damaged, and owners let go of what is poisoned: so the engine's own are counted before
/// and after others act.
struct Losses {
    /// Pages that were poisoned when the engine went on.
    poisoned: HashSet<SlotId>,
    lost: u64,
}

/// What comes of an episode.
pub(crate) struct Outcome {
    pub(crate) seen: Seen,
    pub(crate) deeds: Deeds,
    /// Of all that was told to who acted.
    pub(crate) digest: u64,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) random: Random,
    pub(crate) owners: Vec<Owner>,
    pub(crate) groups: Vec<GroupId>,
    pub(crate) disks: HashMap<TierId, Device>,
    /// What groups with limits of tiers have at most: the limit, or what they had when it was set.
    pub(crate) most: HashMap<(GroupId, TierId), ByteCount>,
    scratches: Vec<Scratch>,
    /// Slots whose bytes a fault has made wrong, as a reader was told.
    pub(crate) lost: HashSet<SlotId>,
    pub(crate) next_page: u64,
    /// Reads that brought what was not written.
    pub(crate) suspects: u64,
    pub(crate) depth: usize,
    /// Somebody up the stack is the one writer.
    pub(crate) writer: bool,
    pub(crate) healthy: bool,
    pub(crate) seen: Seen,
    deeds: Deeds,
    /// What loads of several pages are at, up the stack: one may have been found lost already, of which they tell at their end.
    pub(crate) loading: Vec<SlotId>,
    /// Calls in which the room of dead segments is given back, up the stack.
    pub(crate) tidying: usize,
    /// What is being removed.
    pub(crate) emptied: Option<TierKind>,
    watched: HashMap<SlotId, Backing>,
    /// While a tier is being removed and nobody else is in the middle of anything.
    losses: Option<Losses>,
    /// What of its doings, that change every slot, the engine is at.
    pub(crate) event: Option<Event>,
    /// What the acts of the moment come in the middle of.
    within: Option<Event>,
    /// The system gives no memory.
    pub(crate) starving: bool,
    pub(crate) digest: u64,
    /// The act of the episode.
    pub(crate) act: u64,
    pub(crate) this: Weak<World>,
}

impl Default for Random {
    fn default() -> Self {
        Self::of(0, 0, 0)
    }
}

pub(crate) struct World {
    pub(crate) engine: Arc<Engine>,
    pub(crate) faults: Faults,
    pub(crate) limited: bool,
    /// What tiers in memory hold, and may.
    pub(crate) ghosts: Arc<GhostMemory>,
    /// Whether what is seen is compared with the table of transitions.
    watching: bool,
    state: Mutex<State>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

pub(crate) fn index(at: usize) -> PageIndex {
    PageIndex::new(at).expect("below 512")
}

impl World {
    pub(crate) fn new(seed: u64, episode: u64) -> Arc<Self> {
        let mut random = Random::of(seed, episode, u64::MAX);
        let codec = match random.below(4) {
            0 => CodecChoice::Auto,
            1 => CodecChoice::Zstd,
            _ => CodecChoice::Lz4,
        };
        let limited = random.below(3) == 0;
        let pool_limit = limited.then(|| ByteCount::new(512 << 10 << random.below(4)));
        let encryption = if random.below(4) == 0 { Encryption::Off } else { Encryption::On };
        let lean = random.below(4) == 0;
        let config = EngineConfig { codec, pool_limit, encryption, lean, ..EngineConfig::default() };
        // By turns, so that few episodes that are watched have all of them.
        let faults = match episode / WATCHED % 3 {
            0 => Faults::default(),
            1 => Faults { read: 25, write: 12, queue: 60 },
            _ => Faults { read: 0, write: 12, queue: 60 },
        };
        let engine = Engine::new(config).expect("no tier that could fail");
        let state = Mutex::new(State { random, ..State::default() });
        let (watching, ghosts) = (episode.is_multiple_of(WATCHED), Arc::default());
        let world = Arc::new(Self { engine, faults, limited, ghosts, watching, state });
        let small = world.engine.new_group(GroupId::ROOT).expect("room for groups");
        let tiny = world.engine.new_group(small).expect("room for groups");
        for (group, resource, limit) in [(small, Resource::Pool, 300_000), (tiny, Resource::Swap, 24)] {
            world.engine.set_group_limit(group, resource, Some(limit)).expect("made just above");
        }
        world.state().this = Arc::downgrade(&world);
        world.state().groups = vec![GroupId::ROOT, GroupId::ROOT, GroupId::ROOT, small, tiny];
        world.add_owner();
        world
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.try_lock().expect("never held over a call of the engine")
    }

    pub(crate) fn draw(&self, limit: u64) -> u64 {
        self.state().random.below(limit)
    }

    pub(crate) fn faulty(&self) -> bool {
        !self.state().healthy
    }

    pub(crate) fn note(&self, deed: Deed, kind: TierKind) {
        self.state().deeds.note(deed, kind);
    }

    /// A segment was written to a tier.
    pub(crate) fn note_write(&self, kind: TierKind) {
        self.note(Deed::Written, kind);
        let from = { self.state().emptied }.filter(|from| from.is_memory() != kind.is_memory());
        let removal = self.state().event == Some(Event::Removal);
        from.filter(|_| removal).into_iter().for_each(|from| self.note(Deed::Crossed, from));
    }

    pub(crate) fn suspect(&self) {
        self.state().suspects += 1;
    }

    pub(crate) fn position(&self) -> usize {
        match self.draw(16) {
            0 => PAGES_PER_CLUSTER - 1,
            _ => self.draw(POSITIONS) as usize,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        let mut state = self.state();
        state.next_page += 1;
        let newest = state.next_page;
        // The same page again, now and then.
        if state.random.below(8) == 0 { 1 + state.random.below(newest) } else { newest }
    }

    pub(crate) fn any_group(&self) -> GroupId {
        let mut state = self.state();
        let groups = state.groups.len() as u64;
        let at = state.random.below(groups) as usize;
        state.groups[at]
    }

    pub(crate) fn add_owner(&self) {
        let group = self.any_group();
        let block = self.engine.owner_block(group).expect("the group is there");
        self.state().owners.push(Owner { block, pages: BTreeMap::new() });
    }

    /// An owner that nobody else has to do with until it is given back.
    pub(crate) fn take_owner(&self) -> Option<Owner> {
        let mut state = self.state();
        let count = state.owners.len();
        let at = state.random.below(count as u64) as usize;
        (count > 0).then(|| state.owners.swap_remove(at))
    }

    pub(crate) fn give_owner(&self, owner: Owner) {
        self.state().owners.push(owner);
    }

    pub(crate) fn with_scratch<R>(&self, act: impl FnOnce(&mut Scratch) -> R) -> R {
        let spare = self.state().scratches.pop();
        let mut scratch = spare.unwrap_or_else(|| self.engine.scratch_for_runs());
        let result = act(&mut scratch);
        self.state().scratches.push(scratch);
        result
    }

    /// Others act, in the middle of what the engine is at: if that is nothing that changes every slot, of what an owner does, or who tidies up.
    pub(crate) fn interlude(&self, other: Event) {
        self.watch_all();
        {
            let mut state = self.state();
            if state.depth >= DEEPEST || state.healthy || state.random.below(2) == 0 {
                return;
            }
            state.depth += 1;
        }
        let event = self.state().event;
        // A load of several pages may have lost one already: nobody else is to be seen at that.
        if event.is_none() {
            self.resync(other);
        }
        let (suspects, within) = {
            let mut state = self.state();
            state.event = None;
            let within = match (event, other) {
                // It waits for nothing itself: what comes before it does.
                (Some(Event::Compaction), Event::Tidying) => Event::Tidying,
                (event, other) => event.unwrap_or(other),
            };
            state.tidying += usize::from(other == Event::Tidying);
            (state.suspects, state.within.replace(within))
        };
        self.count_losses();
        for _ in 0..1 + self.draw(6) {
            self.act();
        }
        let mut state = self.state();
        if state.depth == 1 && state.losses.is_some() {
            let poisoned = self.poisoned(&state);
            state.losses.iter_mut().for_each(|losses| losses.poisoned.clone_from(&poisoned));
        }
        state.suspects = suspects;
        state.event = event;
        state.within = within;
        state.tidying -= usize::from(other == Event::Tidying);
        state.depth -= 1;
    }

    /// A tier is about to be removed.
    pub(crate) fn begin_to_count_losses(&self) {
        let mut state = self.state();
        if state.depth == 0 {
            let poisoned = self.poisoned(&state);
            state.losses = Some(Losses { poisoned, lost: 0 });
        }
    }

    /// How many pages have been lost with a tier since, none of them by a reader.
    pub(crate) fn lost_since(&self) -> u64 {
        if self.state().depth > 0 {
            return 0;
        }
        self.count_losses();
        self.state().losses.take().map_or(0, |losses| losses.lost)
    }

    /// What is poisoned now and was not when the engine went on, the engine has lost.
    fn count_losses(&self) {
        let mut state = self.state();
        if state.depth > 1 || state.losses.is_none() {
            return;
        }
        let poisoned = self.poisoned(&state);
        let State { losses: Some(losses), lost, .. } = &mut *state else { return };
        let newly: Vec<SlotId> = poisoned.difference(&losses.poisoned).copied().collect();
        losses.lost += newly.len() as u64;
        losses.poisoned = poisoned;
        // Whoever reads one from now on is told so.
        lost.extend(newly);
    }

    fn poisoned(&self, state: &State) -> HashSet<SlotId> {
        let slots = |owner: &Owner| -> Vec<SlotId> {
            owner.pages.keys().filter_map(|at| owner.block.slot(index(*at))).collect()
        };
        let all = state.owners.iter().flat_map(slots);
        all.filter(|slot| self.engine.peek(*slot).backing() == Backing::Poisoned).collect()
    }

    /// Does something that every slot may be changed by, step by step seen as `event`.
    pub(crate) fn engine_does<R>(&self, event: Event, writes: bool, act: impl FnOnce() -> R) -> R {
        // Nothing may have changed that nobody was seen to change.
        self.resync(Event::Count);
        let before = {
            let mut state = self.state();
            let before = (state.event, state.writer);
            state.event = Some(event);
            state.writer |= writes;
            before
        };
        let result = act();
        self.watch_all();
        let mut state = self.state();
        (state.event, state.writer) = before;
        result
    }

    /// Looks at every slot, to see what the engine has made of it since.
    fn watch_all(&self) {
        let event = self.state().event;
        event.into_iter().for_each(|event| self.resync(event));
    }

    /// What one owner's act has made of one slot.
    pub(crate) fn watch(&self, slot: SlotId, event: Event) {
        if !self.watching {
            return;
        }
        let now = self.engine.peek(slot);
        let mut state = self.state();
        let before = state.watched.insert(slot, now.backing()).unwrap_or(Backing::Empty);
        let within = state.within;
        if before != now.backing() || event == Event::Load {
            state.seen.note(within, before, event, now.backing());
        }
    }

    /// Whatever an act has done to slots that it does not name: fork, dispose, going over to a list.
    pub(crate) fn resync(&self, event: Event) {
        if !self.watching {
            return;
        }
        let mut state = self.state();
        let State { watched, seen, within, .. } = &mut *state;
        watched.retain(|slot, before| {
            let now = self.engine.peek(*slot).backing();
            if now != *before {
                seen.note(*within, *before, event, now);
                *before = now;
            }
            now != Backing::Empty
        });
    }

    pub(crate) fn digest(&self, value: u64) {
        let mut state = self.state();
        state.digest = (state.digest.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Everything that can be counted agrees.
    pub(crate) fn check_sums(&self) {
        self.check_nothing_moves();
        self.engine.audit_groups().expect("what is charged is what is there");
        if self.state().depth == 0 {
            self.engine.audit_tiers().expect("what is charged is what is there");
        }
        self.check_limits();
        // Others may act in the middle of looking at the tiers, but not behind it.
        let used: u64 = self.engine.tiers().iter().map(|tier| tier.used.get()).sum();
        let segments = self.engine.stats().disk_bytes;
        assert!(used >= segments.get(), "{used} in use on tiers, {segments} of segments");
    }

    /// No group has more of a tier than it may.
    fn check_limits(&self) {
        for group in self.engine.groups() {
            for share in &group.tiers {
                let most = self.state().most.get(&(group.id, share.tier)).copied();
                assert!(most.is_none_or(|most| share.usage <= most), "{most:?} at most: {group:?}");
                let next = share.usage.saturating_add(ByteCount::new(SEGMENT_BYTES as u64));
                if share.usage > ByteCount::ZERO && share.limit.is_some_and(|limit| next > limit) {
                    let kind = self.state().disks[&share.tier].kind();
                    self.note(Deed::Limited, kind);
                }
            }
        }
    }

    /// Between writes no page may be left on its way.
    fn check_nothing_moves(&self) {
        let state = self.state();
        if state.depth > 0 {
            return;
        }
        for owner in &state.owners {
            for slot in (0..PAGES_PER_CLUSTER).filter_map(|at| owner.block.slot(index(at))) {
                let backing = self.engine.peek(slot).backing();
                assert!(!matches!(backing, Backing::Moving(_)), "{slot} is on its way, and nobody moves it");
            }
        }
    }

    /// All owners go; then nothing may be left anywhere.
    pub(crate) fn finish(&self) -> Outcome {
        self.check_nothing_moves();
        self.state().healthy = true;
        self.state().starving = false;
        self.engine.starve(false);
        let owners = std::mem::take(&mut self.state().owners);
        for owner in owners {
            for at in 0..PAGES_PER_CLUSTER {
                self.load_at(&owner, at);
            }
            owner.block.dispose(&self.engine);
        }
        self.resync(Event::Release);
        // What a broken queue has left behind is taken in by the next who writes.
        let _ = self.with_scratch(|scratch| self.engine.writeback(ByteCount::new(4096), scratch));
        let _ = self.with_scratch(|scratch| self.engine.writeback(ByteCount::new(4096), scratch));
        let stats = self.engine.stats();
        assert_eq!(stats.pool_pages, PageCount::ZERO, "pool pages that nobody owns");
        assert_eq!(stats.pool_payload, ByteCount::ZERO, "pool bytes that nobody owns");
        assert_eq!(stats.segment_pages, PageCount::ZERO, "segment entries that nobody owns");
        assert_eq!(stats.disk_bytes, ByteCount::ZERO, "segments that nobody owns");
        assert_eq!(stats.clusters, 0, "clusters that nobody owns");
        for group in self.engine.groups() {
            assert_eq!((group.swap.usage, group.pool.usage), (0, 0), "charged for nothing");
            let nothing = group.tiers.iter().all(|share| share.usage == ByteCount::ZERO);
            assert!(nothing, "charged for nothing: {group:?}");
        }
        for tier in self.engine.tiers() {
            assert_eq!(tier.used, ByteCount::ZERO, "room of {} that nobody uses", tier.id);
            self.remove(&tier, false);
        }
        let mut state = self.state();
        for (tier, disk) in state.disks.drain() {
            assert!(!disk.is_held(), "{tier} is gone, its device is held");
        }
        assert_eq!(self.ghosts.held(), 0, "memory of ghosts that nobody uses");
        let (seen, deeds) = (std::mem::take(&mut state.seen), std::mem::take(&mut state.deeds));
        Outcome { seen, deeds, digest: state.digest }
    }
}
