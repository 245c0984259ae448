//! The supervisor's end of a stub's ring, and the one interface to both kinds of mover.
//!
//! A command is posted and either waited for with a limit or left in flight: nothing here waits for ever, since the
//! program that hosts the stub may be stopped at any time.

use parking_lot::Mutex;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::time::{Duration, Instant};
use vswap_core::Bitmap512;
use vswap_stub::protocol::{RING_BYTES, RING_LEN, RING_MAGIC, Ring, op};
use vswap_sys::futex;
use vswap_sys::mapping::SharedMemory;
use vswap_sys::staging::LocalStaging;

/// A command that was posted: how many were before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    /// Its place in the ring.
    fn place(self) -> usize {
        (self.0 % u64::from(RING_LEN)) as usize
    }
}

/// The supervisor's end of a ring.
#[derive(Debug)]
pub struct StubLink {
    memory: SharedMemory,
    /// Commands posted so far. The ring counts in 32 bits, which a busy program is through with in some days; a ticket may be kept for longer.
    posted: AtomicU64,
    /// Which answers have not been collected. Held only while the ring is looked at, never while waiting.
    cursor: Mutex<Cursor>,
}

#[derive(Debug, Default)]
struct Cursor {
    /// Bit `i`: the answer of ring place `i` has not been collected.
    taken: u32,
    /// Bit `i`: nobody will collect it, so the place is free as soon as the stub is past it.
    ignored: u32,
}

/// What an eviction command answered.
#[derive(Clone, Copy, Debug)]
pub struct Evicted {
    /// Wanted pages that could not be moved.
    pub failed: Bitmap512,
}

impl StubLink {
    /// Makes the memory of a ring.
    ///
    /// # Errors
    /// What `memfd_create` and `mmap` say.
    pub fn new() -> io::Result<StubLink> {
        let memory = SharedMemory::new(c"vswap-ring", RING_BYTES)?;
        memory.view::<Ring>().magic.store(RING_MAGIC, Relaxed);
        Ok(StubLink { memory, posted: AtomicU64::new(0), cursor: Mutex::default() })
    }

    /// The descriptor to send to the stub.
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    fn ring(&self) -> &Ring {
        self.memory.view()
    }

    /// Posts a command that `fill` writes, if there is a place in the ring.
    fn post(&self, fill: impl FnOnce(&vswap_stub::protocol::Command)) -> Option<Ticket> {
        let ring = self.ring();
        let mut cursor = self.cursor.lock();
        let ticket = Ticket(self.posted.load(Relaxed));
        let place = ticket.place();
        if cursor.taken >> place & 1 == 1 {
            let passed = self.is_done(Ticket(ticket.0.saturating_sub(RING_LEN.into())));
            if cursor.ignored >> place & 1 == 0 || !passed {
                return None;
            }
            cursor.ignored &= !(1 << place);
        }
        cursor.taken |= 1 << place;
        fill(&ring.commands[place]);
        // Before the ring's own: whoever sees a command done sees it posted.
        self.posted.store(ticket.0 + 1, Relaxed);
        // Publishes the command's words; sequentially consistent with the stub's `stub_sleeps` store, so that either the
        // stub sees the command or we see it asleep.
        ring.posted.store((ticket.0 + 1) as u32, SeqCst);
        if ring.stub_sleeps.load(SeqCst) != 0 {
            futex::wake(&ring.posted, 1);
        }
        Some(ticket)
    }

    fn is_done(&self, ticket: Ticket) -> bool {
        // Acquire: pairs with the stub's release of `done`, so that the answer's words are visible, and that it was posted.
        let done = self.ring().done.load(Acquire);
        let posted = self.posted.load(Relaxed);
        posted.saturating_sub(u64::from((posted as u32).wrapping_sub(done))) > ticket.0
    }

    fn wait(&self, ticket: Ticket, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let ring = self.ring();
        while !self.is_done(ticket) {
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            ring.client_sleeps.fetch_add(1, SeqCst);
            let seen = ring.done.load(SeqCst);
            if !self.is_done(ticket) {
                futex::wait(&ring.done, seen, (deadline - now).min(Duration::from_millis(50)));
            }
            ring.client_sleeps.fetch_sub(1, SeqCst);
        }
        true
    }

    /// Frees the command's place in the ring; the answer must have been read.
    fn collect(&self, ticket: Ticket) {
        self.cursor.lock().taken &= !(1 << ticket.place());
    }

    /// Nobody wants the answer.
    fn ignore(&self, ticket: Ticket) {
        self.cursor.lock().ignored |= 1 << ticket.place();
    }

    fn post_waiting(
        &self,
        limit: Duration,
        mut fill: impl FnMut(&vswap_stub::protocol::Command),
    ) -> io::Result<Ticket> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(ticket) = self.post(&mut fill) {
                return Ok(ticket);
            }
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Has the stub make a system call and waits for it, up to `limit`.
    ///
    /// # Errors
    /// The call's own error, or `TimedOut` if the stub does not answer (the call may still happen later).
    pub fn syscall_within(&self, limit: Duration, nr: i64, args: [u64; 6]) -> io::Result<i64> {
        let ticket = self.post_syscall(limit, nr, args)?;
        if !self.wait(ticket, limit) {
            self.ignore(ticket);
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.take_result(ticket)
    }

    fn post_syscall(&self, limit: Duration, nr: i64, args: [u64; 6]) -> io::Result<Ticket> {
        self.post_waiting(limit, |command| {
            command.op.store(op::SYSCALL, Relaxed);
            command.nr.store(nr as u32, Relaxed);
            for (cell, value) in command.args.iter().zip(args) {
                cell.store(value, Relaxed);
            }
        })
    }

    fn take_result(&self, ticket: Ticket) -> io::Result<i64> {
        let result = self.ring().commands[ticket.place()].result.load(Relaxed);
        self.collect(ticket);
        if (-4095..0).contains(&result) {
            Err(io::Error::from_raw_os_error(-result as i32))
        } else {
            Ok(result)
        }
    }

    /// Has the stub make a system call and waits for it for as long as `alive` says that the stub lives, however long its
    /// program is stopped. `None` if it does not live.
    pub fn syscall_while(
        &self,
        nr: i64,
        args: [u64; 6],
        mut alive: impl FnMut() -> bool,
    ) -> Option<io::Result<i64>> {
        const LOOK_EVERY: Duration = Duration::from_millis(100);
        let ticket = loop {
            match self.post_syscall(LOOK_EVERY, nr, args) {
                Ok(ticket) => break ticket,
                Err(_) if alive() => {}
                Err(_) => return None,
            }
        };
        while !self.wait(ticket, LOOK_EVERY) {
            if !alive() {
                self.ignore(ticket);
                return None;
            }
        }
        Some(self.take_result(ticket))
    }

    /// Whether the stub has not done all that it was asked yet.
    pub fn owes(&self) -> bool {
        let done = self.ring().done.load(Relaxed);
        done != self.ring().posted.load(Relaxed)
    }

    /// [`StubLink::syscall_within`] ten seconds.
    ///
    /// # Errors
    /// As there.
    pub fn syscall(&self, nr: i64, args: [u64; 6]) -> io::Result<i64> {
        self.syscall_within(Duration::from_secs(10), nr, args)
    }

    /// Asks the stub to end; does not wait.
    pub fn close(&self) {
        let _ = self.post(|command| command.op.store(op::QUIT, Relaxed));
    }
}

/// Who moves pages out of an address space: a stub in a program, or this process in its own.
#[derive(Debug)]
pub enum Mover {
    /// A stub.
    Stub(StubLink),
    /// Ourselves.
    Local(LocalStaging),
}

/// An eviction that was asked for.
#[derive(Debug)]
pub enum Eviction {
    /// Posted to a stub.
    Posted(Ticket),
    /// To be made by ourselves.
    Local(Box<LocalEviction>),
}

/// A window that is to be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// By a stub.
    Posted(Ticket),
    /// It has been.
    Done,
}

/// What [`Mover::evict`] was asked for.
#[derive(Debug)]
pub struct LocalEviction {
    src: u64,
    window: u64,
    want: Bitmap512,
    avoid: Bitmap512,
}

impl Mover {
    /// Asks for pages `want` of the block at `src` to be moved to the window at `window`. `None` if the ring is full. What we make ourselves is made
    /// when its end is waited for: it may fault, and whoever answers needs the block that the caller has locked now.
    pub fn evict(&self, src: u64, window: u64, want: &Bitmap512, avoid: &Bitmap512) -> Option<Eviction> {
        match self {
            Mover::Stub(link) => link
                .post(|command| {
                    command.op.store(op::EVICT, Relaxed);
                    command.args[0].store(src, Relaxed);
                    command.args[1].store(window, Relaxed);
                    for i in 0..8 {
                        command.want[i].store(want.words()[i], Relaxed);
                        command.avoid[i].store(avoid.words()[i], Relaxed);
                        command.failed[i].store(0, Relaxed);
                    }
                })
                .map(Eviction::Posted),
            Mover::Local(_) => {
                Some(Eviction::Local(Box::new(LocalEviction { src, window, want: *want, avoid: *avoid })))
            }
        }
    }

    /// Waits up to `limit` for an eviction. Gives it back if it has not happened.
    ///
    /// # Errors
    /// The eviction itself, still in flight.
    pub fn finish(&self, eviction: Eviction, limit: Duration) -> Result<Evicted, Eviction> {
        match (self, eviction) {
            (Mover::Local(staging), Eviction::Local(asked)) => {
                let LocalEviction { src, window, want, avoid } = *asked;
                let failed = staging.evict(src, window, want.words(), avoid.words());
                Ok(Evicted { failed: Bitmap512::from_words(failed) })
            }
            (Mover::Stub(link), Eviction::Posted(ticket)) if link.wait(ticket, limit) => {
                let command = &link.ring().commands[ticket.place()];
                let words = std::array::from_fn(|i| command.failed[i].load(Relaxed));
                link.collect(ticket);
                Ok(Evicted { failed: Bitmap512::from_words(words) })
            }
            (_, eviction) => Err(eviction),
        }
    }

    /// Frees the pages of a window; commands posted later come after it. `None` if the ring is full.
    pub fn discard(&self, window: u64) -> Option<Discard> {
        match self {
            Mover::Stub(link) => {
                let posted = link.post(|command| {
                    command.op.store(op::DISCARD, Relaxed);
                    command.args[0].store(window, Relaxed);
                });
                posted.inspect(|&ticket| link.ignore(ticket)).map(Discard::Posted)
            }
            Mover::Local(staging) => {
                staging.discard(window);
                Some(Discard::Done)
            }
        }
    }

    /// Whether a window that is to be emptied has been.
    pub fn has_emptied(&self, discard: Discard) -> bool {
        match (self, discard) {
            (Mover::Stub(link), Discard::Posted(ticket)) => link.is_done(ticket),
            _ => true,
        }
    }

    /// The stub's link, if there is one.
    pub fn link(&self) -> Option<&StubLink> {
        match self {
            Mover::Stub(link) => Some(link),
            Mover::Local(_) => None,
        }
    }
}
