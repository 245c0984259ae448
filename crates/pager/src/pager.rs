//! The pager: spaces, the threads that serve them, and the limit over all of them.

use crate::ahead::Ahead;
use crate::block::Block;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::evict::{Effort, Tools};
use crate::groups::{Groups, Relief};
use crate::handler::{self, ROOM, STOP};
use crate::losses::{Losses, LostPage};
use crate::passing::Passing;
use crate::promotion::Promotions;
use crate::quick::Quick;
use crate::record::Recorder;
use crate::share::Share;
use crate::space::{Adopt, Hold, Space};
use crate::stats::{Counters, PagerStats};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vswap_core::{ByteCount, GroupId, Resource, Terms};
use vswap_engine::{Engine, EngineError, OwnerBlock, WritebackError};
use vswap_sys::mapping;
use vswap_sys::poll::{Epoll, Event};
use vswap_sys::sched::{allowed_cpus, bind_to_cpu, nice, set_nice};
use vswap_sys::signal;

/// Eviction that has been without progress for so long, with faults waiting, has nothing left to move.
const GIVE_UP_AFTER: Duration = Duration::from_millis(300);

/// The same while a space is held (for a fork, an `mremap`): what is in it can be moved when the hold ends, and a tree is not
/// killed for the want of a moment's patience.
const GIVE_UP_HELD_AFTER: Duration = Duration::from_secs(5);

/// Eviction that has been without progress for so long wants the pool written down.
const STRANDED_AFTER: Duration = Duration::from_millis(5);

/// [`PagerConfig::reclaim_turn`] if nothing else is said. Touches of what is in memory are not seen, so what is in use is taken too, once it is not spared any more:
/// what is staged then, for a second or more, and touched meanwhile comes back for little, and is spared for a number of turns.
pub const RECLAIM_TURN: Duration = Duration::from_secs(60);

/// What to do when nothing more can be moved out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullPolicy {
    /// Exceed the limit.
    Grow,
    /// Say so through [`PagerConfig::on_full`], which is to end the program.
    Kill,
}

/// Figures at the moment when nothing more could be moved out.
#[derive(Clone, Debug)]
pub struct Full {
    /// The group that is at its limit; `None` if it is the limit of all.
    pub group: Option<String>,
    /// The limit, bytes.
    pub limit: u64,
    /// What counts, bytes.
    pub used: u64,
    /// Of that, managed pages.
    pub resident: u64,
    /// Of that, the pool.
    pub pool: u64,
    /// Whether a disk was there and is full.
    pub disk_full: bool,
}

/// Where to ask for huge pages, in mappings of which most will be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Wherever there is room.
    Always,
    /// The same, but not on a virtual machine whose host takes free memory back.
    WhereTheyPay,
    /// Nowhere.
    Never,
}

/// Called once when nothing more can be moved out.
pub type OnFull = Box<dyn Fn(Full) + Send + Sync>;

/// Called with what the device said when compressed pages could not be written to a tier, which then takes no more.
pub type OnFailedWrite = Box<dyn Fn(&WritebackError) + Send + Sync>;

/// What a pager is made from.
pub struct PagerConfig {
    /// The limit.
    pub limit: ByteCount,
    /// What to do when it cannot be kept.
    pub full: FullPolicy,
    /// Called once when nothing more can be moved out.
    pub on_full: Option<OnFull>,
    /// Called when compressed pages could not be written.
    pub on_failed_write: Option<OnFailedWrite>,
    /// Where to ask for huge pages in mappings that are left to the kernel.
    pub huge_pages: HugePages,
    /// Proactive reclaim: the share of time that programs may wait because of it, millionths; 0 for none.
    pub reclaim_target: u64,
    /// In this time it looks at all pages once, if nobody waits.
    pub reclaim_turn: Duration,
    /// Where each fault is noted. Until that is ended every page that is touched is to be seen: nothing is left to the kernel, and nothing is brought in unasked.
    pub record: Option<Arc<Recorder>>,
    /// Count the memory of this process (a supervisor of its own), not just pool and tables.
    pub count_own_memory: bool,
}

impl PagerConfig {
    /// The usual choices for a limit.
    pub fn new(limit: ByteCount) -> PagerConfig {
        PagerConfig {
            limit,
            full: FullPolicy::Grow,
            on_full: None,
            on_failed_write: None,
            huge_pages: HugePages::Never,
            reclaim_target: 0,
            reclaim_turn: RECLAIM_TURN,
            record: None,
            count_own_memory: false,
        }
    }
}

impl std::fmt::Debug for PagerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PagerConfig").field("limit", &self.limit).field("full", &self.full).finish()
    }
}

/// What all threads of a pager share.
pub(crate) struct Shared {
    pub engine: Arc<Engine>,
    pub budget: Budget,
    pub clock: Clock,
    pub terms: Terms,
    pub share: Share,
    pub promotions: Promotions,
    pub passing: Passing,
    pub groups: Groups,
    pub counters: Counters,
    pub losses: Losses,
    pub polls: Vec<Epoll>,
    /// The quick handlers, by the same index.
    pub quick: Vec<Quick>,
    pub ahead: Ahead,
    /// CPUs that the handlers are bound to, by the same index.
    pub cpus: Vec<usize>,
    pub room: Event,
    stop: Event,
    stopped: AtomicBool,
    spaces: RwLock<HashMap<u64, Arc<Space>>>,
    next_id: AtomicU64,
    /// Faults waiting for room.
    pub parked: AtomicU64,
    /// Nice value of the pager's threads: that of whoever made it.
    nice: i32,
    /// Pages staged.
    pub staged: AtomicU64,
    /// Whether huge pages are asked for, and whether they must be asked against; found out when it is first of interest.
    huge: OnceLock<(bool, bool)>,
    pub disk_full: AtomicBool,
    /// When its own memory was counted last, milliseconds of its clock.
    pub own_sampled: AtomicU64,
    /// Evictors find nothing to move out: pages may be charged, but those of a process whose stub a debugger holds cannot be moved.
    pub stranded: AtomicBool,
    /// `PagerConfig::reclaim_target`, as it was set last.
    pub reclaim_target: AtomicU64,
    told_full: AtomicBool,
    started: Instant,
    pub config: PagerConfig,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl Shared {
    /// An owner of a group, or of the nearest above it if that is just being removed.
    pub(crate) fn owner_block(&self, group: GroupId) -> Result<OwnerBlock, EngineError> {
        let owner = self.engine.owner_block(group);
        owner.or_else(|_| self.engine.owner_block(self.engine.group_tree().resolve(group)))
    }

    fn huge(&self) -> (bool, bool) {
        *self.huge.get_or_init(|| {
            let asks = match self.config.huge_pages {
                HugePages::Always => true,
                HugePages::WhereTheyPay => !mapping::hypervisor_takes_free_memory(),
                HugePages::Never => false,
            };
            (asks, mapping::huge_pages_unasked())
        })
    }

    /// Whether mappings that are left to the kernel are to have huge pages.
    pub(crate) fn asks_for_huge_pages(&self) -> bool {
        self.huge().0
    }

    /// Whether the kernel gives huge pages to whoever does not ask against them.
    pub(crate) fn gets_huge_pages_unasked(&self) -> bool {
        self.huge().1
    }

    pub(crate) fn space(&self, id: u64) -> Option<Arc<Space>> {
        self.spaces.read().get(&id).cloned()
    }

    pub(crate) fn all_spaces(&self) -> Vec<Arc<Space>> {
        self.spaces_where(|_| true)
    }

    pub(crate) fn spaces_where(&self, wanted: impl Fn(&Space) -> bool) -> Vec<Arc<Space>> {
        self.spaces.read().values().filter(|space| wanted(space)).cloned().collect()
    }

    /// Milliseconds since the pager started.
    pub(crate) fn clock_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// The same clock.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// Tells handlers with parked faults that there may be room.
    pub(crate) fn room_came(&self) {
        if self.parked.load(Relaxed) > 0 {
            self.room.set();
        }
    }

    /// One evictor's life.
    fn evictor(&self, index: usize, cpu: usize) {
        bind_to_cpu(cpu);
        let mut tools = Tools::new(self);
        let mut moved = Instant::now();
        // Since when no hold is in the way.
        let mut stuck = moved;
        while !self.stopping() {
            self.sample_own();
            let relief = self.relieve_groups(&mut tools);
            let before = tools.progress();
            if !self.budget.is_wanted(index) {
                moved = Instant::now();
                if self.budget.wanted() == 0 {
                    self.stranded.store(false, Relaxed);
                }
                match relief {
                    Relief::Some => {}
                    Relief::Stuck if self.parked.load(Relaxed) > 0 => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    _ => self.budget.wait_for_call(index, Duration::from_millis(50)),
                }
            } else if self.relieve(&mut tools) && !tools.is_futile_since(before) {
                moved = Instant::now();
                self.stranded.store(false, Relaxed);
            } else {
                // Evictions in flight, or a hold, may be all that is in the way: only a while without any progress
                // tells that nothing is left.
                std::thread::sleep(Duration::from_millis(1));
                self.stranded.store(moved.elapsed() > STRANDED_AFTER, Relaxed);
                if self.waits_for_hold() && moved.elapsed() < GIVE_UP_HELD_AFTER {
                    stuck = Instant::now();
                }
                if moved.max(stuck).elapsed() > GIVE_UP_AFTER {
                    self.nothing_left();
                }
            }
        }
    }

    /// Whether a space is held, and that is to be waited for. To grow past the limit for a moment does less harm than to let
    /// programs wait.
    fn waits_for_hold(&self) -> bool {
        let held = || self.all_spaces().iter().any(|space| space.is_held());
        self.config.full == FullPolicy::Kill && held()
    }

    /// Moves some pages out. `false` if nothing could be done.
    fn relieve(&self, tools: &mut Tools) -> bool {
        if self.call_in_grants() {
            return true;
        }
        if self.drop_behind(tools) {
            self.set_over(false);
            return true;
        }
        for effort in [Effort::Plenty, Effort::Any, Effort::Any, Effort::Forced] {
            if effort == Effort::Plenty && tools.is_sparse() {
                continue;
            }
            if self.evict_some(tools, effort) {
                self.set_over(false);
                return true;
            }
            if effort == Effort::Plenty {
                tools.found_sparse(self.clock.len());
            }
            if self.write_down_any(tools) {
                return true;
            }
        }
        false
    }

    fn set_over(&self, over: bool) {
        if self.config.full == FullPolicy::Grow && (over || self.budget.excess() == 0) {
            self.budget.set_over(over);
        }
    }

    /// Nothing more can be moved out: the user's choice decides.
    pub(crate) fn nothing_left(&self) {
        if self.budget.coming() > 0 {
            // There is no room to be made for it: it comes without, and nobody waits for that.
            self.budget.expect_own(ByteCount::ZERO);
            self.room_came();
            if self.budget.excess() == 0 {
                return;
            }
        }
        if self.parked.load(Relaxed) == 0 && self.budget.excess() == 0 {
            return;
        }
        self.set_over(true);
        if !self.told_full.swap(true, SeqCst)
            && let Some(tell) = &self.config.on_full
        {
            let stats = self.engine.stats();
            tell(Full {
                group: None,
                limit: self.budget.limit() * 4096,
                used: self.budget.used_by_now() * 4096,
                resident: self.budget.charged() * 4096,
                pool: stats.pool_bytes.get(),
                disk_full: self.disk_full.load(Relaxed),
            });
        }
        self.room_came();
    }
}

/// A pager over one engine, with one limit over all its spaces. Dropping it stops its threads; spaces must be
/// released before.
#[derive(Debug)]
pub struct Pager {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pager {
    /// Makes a pager for the CPUs that this thread may run on. Its threads start when there is something to do for them: with
    /// the first space, or when what is not managed exceeds the limit.
    ///
    /// # Errors
    /// What making descriptors says.
    pub fn new(config: PagerConfig, engine: Arc<Engine>) -> io::Result<Pager> {
        let cpus = allowed_cpus();
        let polls = cpus.iter().map(|_| Epoll::new()).collect::<io::Result<Vec<_>>>()?;
        let (stop, room) = (Event::new()?, Event::new()?);
        let quick_polls = cpus.iter().map(|_| Epoll::new()).collect::<io::Result<Vec<_>>>()?;
        for poll in polls.iter().chain(&quick_polls) {
            poll.add(stop.as_fd(), STOP)?;
            poll.add(room.as_fd(), ROOM)?;
        }
        let shared = Arc::new(Shared {
            engine,
            budget: Budget::new(config.limit, cpus.len()),
            clock: Clock::default(),
            terms: Terms::default(),
            passing: Passing::default(),
            share: Share::default(),
            promotions: Promotions::default(),
            groups: Groups::default(),
            counters: Counters::default(),
            losses: Losses::default(),
            polls,
            quick: quick_polls.into_iter().map(Quick::new).collect(),
            ahead: Ahead::default(),
            cpus,
            room,
            stop,
            stopped: AtomicBool::new(false),
            spaces: RwLock::default(),
            next_id: AtomicU64::new(1),
            parked: AtomicU64::new(0),
            nice: nice(),
            staged: AtomicU64::new(0),
            huge: OnceLock::new(),
            disk_full: AtomicBool::new(false),
            own_sampled: AtomicU64::new(0),
            stranded: AtomicBool::new(false),
            reclaim_target: AtomicU64::new(config.reclaim_target),
            told_full: AtomicBool::new(false),
            started: Instant::now(),
            config,
        });
        Ok(Pager { shared, threads: Mutex::default() })
    }

    /// Starts the threads that do not run yet: a handler, a quick one and an evictor for each CPU, a keeper, a watch, and a reader ahead.
    fn start(&self) -> io::Result<()> {
        let mut threads = self.threads.lock();
        let cpus = self.shared.cpus.len();
        while threads.len() < 3 * cpus + 3 {
            let (index, role) = match threads.len().checked_sub(3 * cpus) {
                None => (threads.len() % cpus, threads.len() / cpus),
                Some(single) => (0, 3 + single),
            };
            let cpu = self.shared.cpus[index];
            let name = ["fault", "quick", "evict", "keeper", "quick-watch", "ahead"][role];
            let name = if role < 3 { format!("{name}-{cpu}") } else { name.to_owned() };
            let shared = Arc::clone(&self.shared);
            let life = move || {
                // In a program that uses the library: a write past the limit of files is an error and not its end.
                signal::block(&signal::OF_LIMITS);
                // Whoever starts it may be in more of a hurry.
                set_nice(shared.nice);
                match role {
                    0 | 1 => handler::run(&shared, index, cpu, role == 1),
                    2 => shared.evictor(index, cpu),
                    3 => shared.keeper(),
                    4 => shared.watch(),
                    _ => shared.reader_ahead(),
                }
            };
            threads.push(std::thread::Builder::new().name(name).stack_size(256 << 10).spawn(life)?);
        }
        Ok(())
    }

    /// Takes an address space under management; its ranges follow by [`Space::manage`].
    ///
    /// # Errors
    /// What making threads says, the first time, and adding its descriptor to the handlers.
    pub fn adopt(&self, adopt: Adopt) -> io::Result<Arc<Space>> {
        self.start()?;
        let id = self.shared.next_id.fetch_add(1, Relaxed);
        let space = Arc::new(Space::new(id, adopt, Arc::clone(&self.shared)));
        self.shared.spaces.write().insert(id, Arc::clone(&space));
        self.shared.listen(&space)?;
        Ok(space)
    }

    /// Takes the address space of a child just forked from the held one, before it runs: shares the slots of
    /// `ranges`, registers them, and protects again what is clean.
    ///
    /// # Errors
    /// As [`Pager::adopt`] and [`Space::manage`]; `TimedOut` if the parent has not stood still since the fork.
    pub fn fork(&self, parent: &Hold, child: Adopt, ranges: &[Range<u64>]) -> io::Result<Arc<Space>> {
        if !parent.stay_frozen() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let space = self.adopt(Adopt { group: parent.space.charged.get().group(), ..child })?;
        match ranges.iter().try_for_each(|range| parent.fork_range(&space, range)) {
            Ok(()) => Ok(space),
            Err(error) => {
                self.release(&space);
                Err(error)
            }
        }
    }

    /// Lets an address space go, after exec or exit: everything of it is freed.
    pub fn release(&self, space: &Arc<Space>) {
        if space.dead.swap(true, SeqCst) {
            return;
        }
        self.shared.listen_no_more(space);
        self.shared.spaces.write().remove(&space.id);
        // Under the gate, so that no event is being applied to them; and let go of it again, since a handler that still
        // loads a page needs it to be done with the page.
        let blocks = {
            let _gate = space.gate.write();
            std::mem::take(&mut *space.blocks.write())
        };
        for block in blocks.into_values() {
            self.shared.dispose(space, &block);
        }
        self.shared.drop_staged_of_dead(space);
        self.shared.count_compressed();
        self.shared.room_came();
    }

    /// Bytes of compressed pages that memory can take besides what it has of them, as things stand, if others are moved out for them.
    pub fn room_for_compressed(&self) -> ByteCount {
        self.shared.room_for_compressed()
    }

    /// For whoever has pages moved to memory: waits for so long at most if eviction does not keep up with that.
    pub fn keep_pace(&self, most: Duration) {
        let (budget, until) = (&self.shared.budget, Instant::now() + most);
        self.shared.count_compressed();
        while budget.excess() > 0 && Instant::now() < until {
            budget.call_eviction();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sets the tree's memory that is not managed, as sampled.
    pub fn set_unmanaged(&self, bytes: ByteCount) {
        self.shared.budget.set_others(bytes);
        self.unmanaged_changed();
    }

    /// The memory of the tree that is not managed has become `bytes` more since it was sampled.
    pub fn add_unmanaged(&self, bytes: ByteCount) {
        self.shared.budget.add_others(bytes);
        self.unmanaged_changed();
    }

    /// Whether the limit is exceeded, and something might still be moved out.
    pub fn is_short(&self) -> bool {
        self.shared.budget.excess() > 0 && !self.shared.budget.is_over()
    }

    /// Waits until [`Pager::is_short`] is not so any more, `most` at most.
    pub fn wait_for_room(&self, most: Duration) {
        let since = Instant::now();
        while self.is_short() && since.elapsed() < most && !self.shared.stopping() {
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// `bytes` of [`Pager::add_unmanaged`] are gone.
    pub fn take_unmanaged(&self, bytes: ByteCount) {
        self.shared.budget.take_others(bytes);
        self.shared.room_came();
    }

    fn unmanaged_changed(&self) {
        self.shared.sample_own();
        if self.shared.budget.excess() > 0
            && let Err(error) = self.start()
        {
            tracing::warn!(%error, "no threads to keep the limit with");
        }
    }

    /// Changes the share of time that proactive reclaim may cost, in millionths; 0 ends it.
    pub fn set_reclaim_target(&self, millionths: u64) {
        self.shared.reclaim_target.store(millionths, Relaxed);
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.shared.engine
    }

    /// The last pages that were lost to their owners, the newest first.
    pub fn lost_pages(&self) -> Vec<LostPage> {
        self.shared.losses.newest_first()
    }

    /// Everything in numbers.
    pub fn stats(&self) -> PagerStats {
        let (budget, counters) = (&self.shared.budget, &self.shared.counters);
        let tree = self.shared.engine.group_tree();
        PagerStats {
            limit: budget.limit() * 4096,
            used: budget.used_by_now() * 4096,
            peak: budget.peak() * 4096,
            resident: budget.charged() * 4096,
            faults: counters.fault_stats(),
            evicted: counters.evicted.load(Relaxed),
            evicted_clean: counters.evicted_clean.load(Relaxed),
            read_ahead: counters.read_ahead.load(Relaxed),
            zero_ahead: counters.zero_ahead.load(Relaxed),
            staged: self.shared.staged.load(Relaxed),
            granted: counters.granted.load(Relaxed),
            adopted: counters.adopted.load(Relaxed),
            stuck: counters.stuck.load(Relaxed),
            refaulted: counters.refaulted.load(Relaxed),
            pool_share: self.shared.pool_share().min(tree.limit(GroupId::ROOT, Resource::Pool)),
            promoted: counters.promoted.load(Relaxed),
            activated: counters.soon.iter().map(|soon| soon.load(Relaxed)).sum(),
            waited: counters.waited.load(Relaxed),
            stalled: counters.stalled(),
            pressure: counters.pressure.load(Relaxed),
            poisoned: counters.poisoned.load(Relaxed),
            reclaim_target: self.shared.reclaim_target.load(Relaxed),
            reclaim_pressure: counters.reclaim.pressure.load(Relaxed),
            reclaim_looked: counters.reclaim.looked.load(Relaxed),
            reclaimed: counters.reclaim.pages.load(Relaxed),
            reclaim_written: counters.reclaim.written.load(Relaxed),
            grown: self.shared.told_full.load(Relaxed),
        }
    }
}

impl Shared {
    /// Lets go of all that a block holds, once whoever is loading or storing one of its pages is done.
    fn dispose(&self, space: &Space, block: &Block) {
        loop {
            let mut state = block.state.lock();
            if state.busy.is_empty() && state.storing.is_empty() {
                let (charged, granted) = (state.charged(), state.granted.count());
                let others = state.leave(&self.engine, &vswap_core::Bitmap512::FULL);
                state.granted = vswap_core::Bitmap512::EMPTY;
                state.mapped = vswap_core::Bitmap512::EMPTY;
                state.resident = vswap_core::Bitmap512::EMPTY;
                state.staged = vswap_core::Bitmap512::EMPTY;
                state.flight = vswap_core::Bitmap512::EMPTY;
                state.backed = vswap_core::Bitmap512::EMPTY;
                if let Some(owner) = state.owner.take() {
                    owner.dispose(&self.engine);
                }
                space.uncharge_shared(charged, others);
                drop(state);
                space.ungranted(granted);
                return;
            }
            drop(state);
            std::thread::yield_now();
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.shared.stopped.store(true, SeqCst);
        self.shared.stop.set();
        self.shared.budget.call_all();
        self.shared.ahead.wake();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
        for space in self.shared.all_spaces() {
            self.release(&space);
        }
    }
}
