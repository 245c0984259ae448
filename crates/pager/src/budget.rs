//! The limit: what counts, and who waits for room.
//!
//! Counted: charged pages (resident, staged, being installed), the pool, tiers that are memory, the pager's own memory and the tree's
//! memory that is not managed. The first is exact at any moment, the pool too; the last two are samples.

use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
    Ordering::SeqCst, fence,
};
use std::time::Duration;
use vswap_core::ByteCount;

/// The least limit: below it the pager's own needs leave no room to work in.
pub const LEAST_LIMIT: ByteCount = ByteCount::mib(8);

/// The limit and everything that counts towards it, in pages.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicU64,
    charged: AtomicU64,
    /// Of these, pages that are granted: how many of them are there is not known.
    granted: AtomicU64,
    pool: AtomicU64,
    /// Tiers with nothing behind them.
    ghosts: AtomicU64,
    /// Held while these two are looked at and set.
    counting: Mutex<()>,
    others: AtomicU64,
    own: AtomicU64,
    /// What it will come to at least: it is about to take as much.
    expected: AtomicU64,
    peak: AtomicU64,
    /// Nothing more can be evicted: charges are let through.
    over: AtomicBool,
    /// A charge was refused since eviction was called last.
    refused: AtomicBool,
    /// A group has little room since the evictors looked last, or has refused a charge: [`SHORT`], [`FULL`].
    short_group: AtomicU8,
    beds: Box<[Bed]>,
}

/// A group has little room.
const SHORT: u8 = 1;
/// A group has refused a charge.
const FULL: u8 = 2;

/// Where one evictor sleeps.
#[derive(Debug, Default)]
struct Bed {
    sleeping: Mutex<bool>,
    wake: Condvar,
    asleep: AtomicBool,
    /// It is to work only when the others cannot keep up.
    patient: AtomicBool,
}

impl Budget {
    /// A budget of `limit` bytes, kept by `evictors` threads.
    pub fn new(limit: ByteCount, evictors: usize) -> Budget {
        Budget {
            limit: AtomicU64::new(limit.get() / 4096),
            charged: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            pool: AtomicU64::new(0),
            ghosts: AtomicU64::new(0),
            counting: Mutex::new(()),
            others: AtomicU64::new(0),
            own: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            over: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            short_group: AtomicU8::new(0),
            beds: (0..evictors).map(|_| Bed::default()).collect(),
        }
    }

    /// The limit in pages.
    pub fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// Changes the limit.
    pub fn set_limit(&self, limit: ByteCount) {
        self.limit.store(limit.get() / 4096, Relaxed);
        self.call_if_short();
    }

    /// Pages that eviction keeps free, so that a fault seldom finds none: a 64th of the limit, 4 MiB at most.
    pub fn reserve(&self) -> u64 {
        (self.limit() / 64).clamp(32, 1024)
    }

    /// All that counts now, in pages.
    pub fn used(&self) -> u64 {
        // Each counter is right by itself; a sum that is a moment old does no harm, so relaxed.
        self.charged.load(Relaxed) + self.fixed()
    }

    fn fixed(&self) -> u64 {
        // Acquire, and first: pairs with `set_compressed`.
        let compressed = self.pool.load(Acquire) + self.ghosts.load(Relaxed);
        let own = self.own.load(Relaxed).max(self.expected.load(Relaxed));
        compressed + own + self.others.load(Relaxed)
    }

    /// All that is there: what is only expected is left out.
    pub fn used_by_now(&self) -> u64 {
        self.used().saturating_sub(self.coming())
    }

    /// What the pager's own memory will be more, of what is expected.
    pub fn coming(&self) -> u64 {
        self.expected.load(Relaxed).saturating_sub(self.own.load(Relaxed))
    }

    /// Pages that count and are neither managed nor compressed: the pager's own and the tree's that are not managed.
    pub fn unmanaged(&self) -> u64 {
        self.own.load(Relaxed) + self.others.load(Relaxed)
    }

    /// Pages of the pool.
    pub fn pool(&self) -> u64 {
        self.pool.load(Relaxed)
    }

    /// Charged pages now.
    pub fn charged(&self) -> u64 {
        self.charged.load(Relaxed)
    }

    /// The most that counted at any time; granted pages, and what was only expected, left out.
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// Charges `pages` if there is room. Whoever does calls for eviction later ([`Budget::call_if_short`]), once its locks are free.
    pub fn charge(&self, pages: usize) -> bool {
        let fixed = self.fixed();
        let over = self.over.load(Relaxed);
        let take =
            |now: u64| (over || now + fixed + pages as u64 <= self.limit()).then_some(now + pages as u64);
        // The counter publishes nothing but itself, so relaxed.
        match self.charged.fetch_update(Relaxed, Relaxed, take) {
            Ok(before) => {
                self.note(before + pages as u64 + fixed);
                true
            }
            Err(_) => {
                self.refused.store(true, Relaxed);
                false
            }
        }
    }

    /// Charges `pages` that are there already.
    pub fn force(&self, pages: usize) {
        if pages == 0 {
            return;
        }
        let before = self.charged.fetch_add(pages as u64, Relaxed);
        self.note(before + pages as u64 + self.fixed());
        self.call_if_short();
    }

    /// Whether `pages` could be charged and an eighth of the limit still be free.
    pub fn has_plenty(&self, pages: usize) -> bool {
        self.free() >= self.limit() / 8 + pages as u64
    }

    /// So many more of the charged pages are granted, or fewer.
    pub fn change_granted(&self, pages: i64) {
        // Two's complement: adding is subtracting.
        self.granted.fetch_add(pages as u64, Relaxed);
        if pages < 0 {
            self.note(self.used());
        }
    }

    fn note(&self, used: u64) {
        let used = used.saturating_sub(self.granted.load(Relaxed) + self.coming());
        if used > self.peak.load(Relaxed) {
            self.peak.fetch_max(used, Relaxed);
        }
    }

    /// Wakes eviction if room is short, or was for somebody.
    pub fn call_if_short(&self) {
        let refused = self.refused.load(Relaxed) && self.refused.swap(false, Relaxed);
        if refused || self.free() < self.reserve() / 2 || self.short_group.load(Relaxed) > 0 {
            self.call_eviction();
        }
    }

    /// A group has little room, or has refused a charge: whoever makes charges calls the evictors once its locks are free.
    pub fn note_short_group(&self, full: bool) {
        let how = if full { FULL } else { SHORT };
        if self.short_group.load(Relaxed) < how {
            self.short_group.fetch_max(how, Relaxed);
        }
    }

    /// Somebody is about to look at the groups: what is noted from here on is news.
    pub fn take_short_group(&self) {
        if self.short_group.load(Relaxed) > 0 {
            self.short_group.store(0, Relaxed);
            // What was charged before is seen by the look.
            fence(SeqCst);
        }
    }

    /// Whether a group wants this evictor, a patient one only after a charge was refused.
    fn has_short_group(&self, bed: &Bed) -> bool {
        self.short_group.load(Relaxed) >= if bed.patient.load(Relaxed) { FULL } else { SHORT }
    }

    /// Whether there is so little room that only what makes some is to be done.
    pub fn is_tight(&self) -> bool {
        self.free() < self.reserve() / 4
    }

    /// Takes `pages` off again.
    pub fn uncharge(&self, pages: usize) {
        let before = self.charged.fetch_sub(pages as u64, Relaxed);
        debug_assert!(before >= pages as u64, "uncharged more than was charged");
    }

    /// Sets the memory of the pool and of tiers with nothing behind them to what `look` sees, in this order: what goes from the one to the others is never in neither. Both, and by
    /// one at a time, since who saw the one fall and not the others rise would take as much for free.
    pub fn set_compressed(&self, look: impl FnOnce() -> (ByteCount, ByteCount)) {
        let counting = self.counting.lock();
        let (pool, ghosts) = look();
        let before = self.ghosts.swap(ghosts.get() / 4096, Relaxed);
        // Release: who sees it sees what went from there to the tiers, too.
        self.pool.store(pool.get() / 4096, Release);
        drop(counting);
        if ghosts.get() / 4096 > before {
            self.note(self.used());
            self.call_if_short();
        }
    }

    /// Sets the sampled memory of the tree that is not managed.
    pub fn set_others(&self, bytes: ByteCount) {
        self.others.store(bytes.get() / 4096, Relaxed);
        self.note(self.used());
        self.call_if_short();
    }

    /// The tree's memory that is not managed has become `bytes` more.
    pub fn add_others(&self, bytes: ByteCount) {
        self.others.fetch_add(bytes.get() / 4096, Relaxed);
        self.note(self.used());
        self.call_if_short();
    }

    /// It has become `bytes` less.
    pub fn take_others(&self, bytes: ByteCount) {
        let less = |others: u64| Some(others.saturating_sub(bytes.get() / 4096));
        let _ = self.others.fetch_update(Relaxed, Relaxed, less);
    }

    /// Sets the pager's own memory, pool and ghosts left out.
    pub fn set_own(&self, bytes: ByteCount) {
        self.own.store(bytes.get() / 4096, Relaxed);
    }

    /// The pager's own memory is about to grow by `bytes`: they count from now on, until this is called with zero.
    pub fn expect_own(&self, bytes: ByteCount) {
        let expected = if bytes == ByteCount::ZERO { 0 } else { self.own.load(Relaxed) + bytes.get() / 4096 };
        self.expected.store(expected, Relaxed);
        self.call_if_short();
    }

    /// Pages that eviction should free now: up to the reserve.
    pub fn wanted(&self) -> u64 {
        (self.used() + self.reserve()).saturating_sub(self.limit())
    }

    /// Lets charges through, or not any more.
    pub fn set_over(&self, over: bool) -> bool {
        self.over.swap(over, Relaxed)
    }

    /// Whether charges are let through.
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Pages by which the limit is exceeded.
    pub fn excess(&self) -> u64 {
        self.used().saturating_sub(self.limit())
    }

    /// Pages that may still be charged.
    pub fn free(&self) -> u64 {
        self.limit().saturating_sub(self.used())
    }

    /// Whether evictor `index` is to go on: an impatient one until the reserve is whole again, a patient one until a
    /// quarter of it is.
    pub fn is_wanted(&self, index: usize) -> bool {
        let patient = self.beds[index].patient.load(Relaxed);
        self.free() < if patient { self.reserve() / 4 } else { self.reserve() }
    }

    /// Has evictor `index` leave the work to the others as long as they keep up, or not any more.
    pub fn set_patient(&self, index: usize, patient: bool) {
        self.beds[index].patient.store(patient, Relaxed);
    }

    /// Wakes the evictors for which there is work.
    pub fn call_eviction(&self) {
        // Pairs with the one of `wait_for_call`.
        fence(SeqCst);
        let free = self.free();
        for bed in &self.beds {
            if bed.asleep.load(Relaxed) && (free < self.least_free(bed) || self.has_short_group(bed)) {
                bed.rouse();
            }
        }
    }

    /// Wakes all evictors.
    pub fn call_all(&self) {
        self.beds.iter().for_each(Bed::rouse);
    }

    /// With less than this free, an evictor that sleeps is called.
    fn least_free(&self, bed: &Bed) -> u64 {
        self.reserve() / if bed.patient.load(Relaxed) { 8 } else { 2 }
    }

    /// Evictor `index` sleeps until it is called, `timeout` at most.
    pub fn wait_for_call(&self, index: usize, timeout: Duration) {
        let bed = &self.beds[index];
        let mut sleeping = bed.sleeping.lock();
        *sleeping = true;
        bed.asleep.store(true, Relaxed);
        // A charge between the caller's look and here is seen now, or its call finds `asleep` set: whichever fence comes
        // second sees what came before the first.
        fence(SeqCst);
        if self.free() >= self.least_free(bed) && !self.has_short_group(bed) {
            let _ = bed.wake.wait_while_for(&mut sleeping, |asleep| *asleep, timeout);
        }
        bed.asleep.store(false, Relaxed);
    }
}

impl Bed {
    fn rouse(&self) {
        let mut sleeping = self.sleeping.lock();
        *sleeping = false;
        self.asleep.store(false, Relaxed);
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
    use std::time::Duration;
    use vswap_core::ByteCount;

    /// Two that looked at different moments could put down the pool of the later and the tiers of the earlier.
    #[test]
    fn nobody_looks_at_what_is_compressed_before_another_has_put_down_what_he_saw() {
        let budget = Budget::new(ByteCount::mib(64), 1);
        // How often somebody has looked; what is seen last is put down last.
        let (looking, looks) = (AtomicBool::new(false), AtomicU64::new(0));
        let look = || {
            assert!(!looking.swap(true, SeqCst), "two look at once");
            let seen = looks.fetch_add(1, SeqCst) + 1;
            // Others come in between here, if anything lets them.
            std::thread::sleep(Duration::from_micros(10));
            looking.store(false, SeqCst);
            (ByteCount::new(seen * 4096), ByteCount::new(seen * 4096))
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| budget.set_compressed(look)));
            }
        });
        assert_eq!(budget.used(), 2 * 2_000);
    }

    #[test]
    fn what_is_expected_takes_room_and_is_not_said_to_have_been_there() {
        let budget = Budget::new(ByteCount::mib(64), 1);
        budget.set_own(ByteCount::mib(4));
        assert!(budget.charge(56 * 256));
        budget.expect_own(ByteCount::mib(12));
        assert_eq!((budget.used(), budget.excess()), (72 * 256, 8 * 256));
        assert!(!budget.charge(1));
        budget.set_others(ByteCount::mib(1));
        assert_eq!((budget.used_by_now(), budget.peak()), (61 * 256, 61 * 256));
        assert_eq!(budget.unmanaged(), 5 * 256, "the pool's share is of what is left");
        // It has come, and more; then it has gone.
        budget.set_own(ByteCount::mib(17));
        assert_eq!((budget.used(), budget.used_by_now()), (74 * 256, 74 * 256));
        budget.set_own(ByteCount::mib(5));
        budget.expect_own(ByteCount::ZERO);
        assert_eq!((budget.used(), budget.excess()), (62 * 256, 0));
    }

    /// Whoever evicted counted the pool anew and left tiers in memory to the keeper, which may be at its writing for 50 ms: 22 MiB that had gone from the one to the others were taken for free.
    #[test]
    fn what_goes_from_the_pool_to_a_tier_in_memory_makes_no_room() {
        let budget = Budget::new(ByteCount::mib(64), 1);
        budget.set_compressed(|| (ByteCount::mib(32), ByteCount::ZERO));
        assert!(budget.charge(32 * 256) && !budget.charge(1));
        budget.set_compressed(|| (ByteCount::mib(10), ByteCount::mib(22)));
        assert!(!budget.charge(1));
        budget.set_compressed(|| (ByteCount::mib(10), ByteCount::mib(21)));
        assert!(budget.charge(256) && !budget.charge(1));
    }
}
