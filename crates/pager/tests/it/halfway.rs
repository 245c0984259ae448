//! A stub that stops in the middle of an eviction, as one does that has lost its CPU: of a block some pages are in their window, others in their place; or just before it,
//! with what was in the window before still there. What the program does to either meanwhile is what it finds. (A discard that was read and that the kernel has not done yet comes in between by chance
//! only, with real programs. Here a page is dropped by other means.)
use crate::fixture::{Fixture, PAGE, WINDOWS, config, fixture_moved_by};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vswap_core::{Bitmap512, PageIndex};
use vswap_engine::{Engine, EngineConfig};
use vswap_pager::{Mover, Space, StubLink};
use vswap_stub::protocol::{Command, RING_LEN, Ring, op};
use vswap_sys::staging::LocalStaging;
use vswap_sys::{futex, procvm};

const BLOCKS: usize = 8;
const BLOCK_BYTES: u64 = 2 << 20;
const PAGES: usize = BLOCKS * 512;
const ROUNDS: usize = 200;
/// What comes at all comes within that.
const COMES_WITHIN: Duration = Duration::from_secs(20);
/// An eviction to a window that is to be emptied mostly follows at once.
const POSTED_WITHIN: Duration = Duration::from_millis(2);

/// An eviction that has stopped: of which block, which pages were wanted, and from which on they have not been moved yet.
type Halfway = (u64, Bitmap512, usize);

/// A thread of ours that does what a stub would.
struct Stub {
    staging: LocalStaging,
    /// So many of the pages that are wanted (by what there are) are moved before it stops, the next time; 0 is not to stop.
    part: AtomicUsize,
    /// It stops before it empties a window that is to be filled again, the next time.
    late: AtomicBool,
    /// Of each window, what was wanted in it last.
    filled: Mutex<HashMap<u64, Bitmap512>>,
    stopped: Sender<Halfway>,
    go_on: Mutex<Receiver<()>>,
    over: AtomicBool,
}

impl Stub {
    fn run(&self, space: &Space) {
        let ring = space.link().expect("it has a stub").memory().view::<Ring>();
        while !self.over.load(Relaxed) {
            let done = ring.done.load(SeqCst);
            if done == ring.posted.load(SeqCst) {
                std::thread::sleep(Duration::from_micros(50));
                continue;
            }
            let command = &ring.commands[(done % RING_LEN) as usize];
            self.be_late(ring, done);
            let result = self.execute(command);
            command.result.store(result, Relaxed);
            ring.done.store(done.wrapping_add(1), SeqCst);
            if ring.client_sleeps.load(SeqCst) > 0 {
                futex::wake(&ring.done, i32::MAX);
            }
        }
    }

    /// Stops if it is told to and the command that comes next empties a window to which the one after that moves pages.
    fn be_late(&self, ring: &Ring, next: u32) {
        let [first, second] = [0, 1].map(|at| &ring.commands[(next.wrapping_add(at) % RING_LEN) as usize]);
        if !self.late.load(Relaxed) || first.op.load(Relaxed) != op::DISCARD {
            return;
        }
        let since = Instant::now();
        while ring.posted.load(SeqCst).wrapping_sub(next) < 2 {
            if since.elapsed() > POSTED_WITHIN {
                return;
            }
            std::thread::yield_now();
        }
        let [window, filled] = [first.args[0].load(Relaxed), second.args[1].load(Relaxed)];
        if second.op.load(Relaxed) == op::EVICT && window == filled {
            let (block, want) = (second.args[0].load(Relaxed), bits(&second.want));
            let filled =
                self.filled.lock().unwrap().get(&window).map_or(Bitmap512::EMPTY, |filled| *filled & want);
            // In the middle of what lies at the place of what is to come.
            if let Some(at) = filled.iter().nth(filled.count() / 2) {
                self.late.store(false, Relaxed);
                self.stop((block, want, at.get()));
            }
        }
    }

    fn stop(&self, halfway: Halfway) {
        self.stopped.send(halfway).expect("somebody waits for that");
        self.go_on.lock().unwrap().recv().expect("it goes on");
    }

    /// Takes a page away as a discard does whose event was read some time ago.
    fn drop_late(&self, block: u64, page: usize) {
        let only = Bitmap512::from_range(PageIndex::new(page).expect("one of 512"), 1);
        let window = self.staging.base() + u64::from(WINDOWS) * BLOCK_BYTES;
        let failed = self.staging.evict(block, window, only.words(), Bitmap512::FULL.and_not(&only).words());
        assert_eq!((failed, self.staging.discard(window)), ([0; 8], 0));
    }

    fn execute(&self, command: &Command) -> i64 {
        let args = [0, 1].map(|at| command.args[at].load(Relaxed));
        match command.op.load(Relaxed) {
            op::EVICT => {
                let want = bits(&command.want);
                self.filled.lock().unwrap().insert(args[1], want);
                let failed = self.evict(args[0], args[1], &want, &bits(&command.avoid));
                for (to, word) in command.failed.iter().zip(failed.words()) {
                    to.store(*word, Relaxed);
                }
                failed.count() as i64
            }
            op::DISCARD => self.staging.discard(args[0]),
            other => panic!("nobody asks this stub for {other}"),
        }
    }

    fn evict(&self, src: u64, window: u64, want: &Bitmap512, avoid: &Bitmap512) -> Bitmap512 {
        let moved = |part: &Bitmap512, avoid: &Bitmap512| {
            Bitmap512::from_words(self.staging.evict(src, window, part.words(), avoid.words()))
        };
        let (part, count) = (self.part.load(Relaxed), want.count());
        if part == 0 || count < 2 {
            return moved(want, avoid);
        }
        self.part.store(0, Relaxed);
        let part = 1 + part % (count - 1);
        let split = want.iter().nth(part).expect("there are more").get();
        let below = below(split);
        let (first, second) = (*want & below, want.and_not(&below));
        // What lies between pages that are wanted goes along, but not before its turn.
        let failed = moved(&first, &(*avoid | Bitmap512::FULL.and_not(&below)));
        self.stop((src, *want, split));
        failed | moved(&second, &(*avoid | below))
    }
}

fn bits(words: &[AtomicU64; 8]) -> Bitmap512 {
    Bitmap512::from_words(std::array::from_fn(|at| words[at].load(Relaxed)))
}

fn below(split: usize) -> Bitmap512 {
    let mut below = Bitmap512::EMPTY;
    PageIndex::all().filter(|page| page.get() < split).for_each(|page| below.set(page));
    below
}

/// A program, and what it should find in each page.
struct Program {
    fixture: Fixture,
    values: Vec<u8>,
    random: u64,
}

impl Program {
    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below as u64) as usize
    }

    fn write(&mut self, page: usize, value: u8) {
        self.fixture.bytes.as_mut_slice()[page * PAGE + 9] = value;
        self.values[page] = value;
    }

    fn check(&self, page: usize) {
        assert_eq!(self.fixture.bytes.as_slice()[page * PAGE + 9], self.values[page], "page {page}");
    }

    fn discard(&mut self, page: usize, count: usize) {
        self.fixture.bytes.discard(page * PAGE, count * PAGE);
        self.values[page..page + count].fill(0);
    }

    /// Writes here and there until an eviction has stopped.
    fn until_halfway(&mut self, stopped: &Receiver<Halfway>) -> Halfway {
        let since = Instant::now();
        loop {
            if let Ok(halfway) = stopped.try_recv() {
                return halfway;
            }
            assert!(since.elapsed() < COMES_WITHIN, "nothing is evicted as it is to be");
            let (page, value) = (self.draw(PAGES), 1 + self.draw(255) as u8);
            self.write(page, value);
        }
    }

    fn act_and(&mut self, _: &Stub, halfway: Halfway, go_on: &Sender<()>) {
        self.act(halfway);
        go_on.send(()).unwrap();
    }

    /// The page at which it has stopped comes between a discard's being read and its being done, and is dropped. Who reads it then need not wait for the stub.
    fn read_what_was_dropped_and(&mut self, stub: &Stub, (block, _, split): Halfway, go_on: &Sender<()>) {
        let (page, address) =
            ((block - self.fixture.start) as usize / PAGE + split, block + (split * PAGE) as u64);
        self.discard(page, 1);
        self.check(page);
        stub.drop_late(block, split);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut bytes = [0; PAGE];
                procvm::read(std::process::id() as i32, address, &mut bytes).unwrap();
                bytes
            });
            let since = Instant::now();
            while !reader.is_finished() && since.elapsed() < COMES_WITHIN {
                std::thread::yield_now();
            }
            let waits = !reader.is_finished();
            go_on.send(()).unwrap();
            assert_eq!((waits, reader.join().unwrap()), (false, [0; PAGE]), "page {page}");
        });
    }

    /// Reads, writes and discards pages of a block that is being evicted, on both sides of where that has stopped.
    fn act(&mut self, (block, want, split): Halfway) {
        let first = ((block - self.fixture.start) / PAGE as u64) as usize;
        let near: Vec<usize> =
            want.iter().map(|page| page.get()).filter(|page| page.abs_diff(split) < 40).collect();
        for _ in 0..3 {
            let page = if near.is_empty() { self.draw(512) } else { near[self.draw(near.len())] };
            // Of one and its neighbours, one after the other: what a discard has left is touched at once, or later.
            for _ in 0..5 {
                let page = (page + self.draw(3)).saturating_sub(1).min(511);
                match self.draw(3) {
                    0 => {
                        let count = (1 + self.draw(3)).min(512 - page);
                        self.discard(first + page, count);
                    }
                    1 => {
                        let value = 1 + self.draw(255) as u8;
                        self.write(first + page, value);
                    }
                    _ => self.check(first + page),
                }
            }
        }
    }
}

#[test]
fn what_is_done_to_a_block_in_the_middle_of_its_eviction_is_what_is_found() {
    stopping(|stub, random| stub.part.store(1 + random % 511, Relaxed), Program::act_and);
}

/// What lay in the window for another block was taken for what this one's pages had been before they were discarded: their new bytes, moved there afterwards, were thrown away.
#[test]
fn what_is_in_a_window_that_is_still_to_be_emptied_is_nothing_of_the_block_that_is_to_be_moved_there() {
    stopping(|stub, _| stub.late.store(true, Relaxed), Program::act_and);
}

/// A page that comes between a discard's being read and its being done is dropped again, and its next fault is at a page that is down as being moved to that window.
#[test]
fn what_is_in_a_window_that_is_still_to_be_emptied_is_not_brought_back_from_there() {
    stopping(|stub, _| stub.late.store(true, Relaxed), Program::read_what_was_dropped_and);
}

/// Has the stub stop as `how` says, again and again; meanwhile the program does `what` it does and has it go on.
fn stopping(
    how: impl Fn(&Stub, usize) + Send + 'static,
    what: impl Fn(&mut Program, &Stub, Halfway, &Sender<()>) + Send + 'static,
) {
    let (stopped, is_stopped) = channel();
    let (go_on, goes_on) = channel();
    let mut stub = None;
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let fixture = fixture_moved_by(engine, BLOCKS, config(), |staging| {
        let (part, late, over) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
        let (filled, go_on) = (Mutex::default(), Mutex::new(goes_on));
        stub = Some(Arc::new(Stub { staging, part, late, filled, stopped, go_on, over }));
        Mover::Stub(StubLink::new().unwrap())
    });
    fixture.manage(0..PAGES);
    let stub = stub.expect("made");
    let serving = {
        let (stub, space) = (Arc::clone(&stub), Arc::clone(&fixture.space));
        std::thread::spawn(move || stub.run(&space))
    };
    let over = Arc::clone(&stub);
    // A fault of the first thread of a process with a stub counts as the stub's.
    let program = std::thread::spawn(move || {
        let mut program = Program { fixture, values: vec![0; PAGES], random: 0x9e37_79b9_7f4a_7c15 };
        let mut halfway = 0;
        for _ in 0..ROUNDS {
            how(&stub, program.draw(1 << 20));
            let halfway_through = program.until_halfway(&is_stopped);
            what(&mut program, &stub, halfway_through, &go_on);
            halfway += 1;
            (0..20).for_each(|_| {
                let page = program.draw(PAGES);
                program.check(page);
            });
        }
        (0..PAGES).for_each(|page| program.check(page));
        let stats = program.fixture.pager.stats();
        // (The limit may be passed: while the stub stands nothing leaves the memory.)
        assert!(halfway == ROUNDS && stats.evicted > 1000, "{stats:?}");
    });
    let right = program.join();
    over.over.store(true, Relaxed);
    serving.join().expect("it has been asked for nothing else");
    right.expect("no page was wrong");
}
