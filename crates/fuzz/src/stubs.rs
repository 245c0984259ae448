//! What a stub and its supervisor tell each other, of whom either may be a program that wants to confuse the other.

use crate::input::Input;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use vswap_core::Bitmap512;
use vswap_pager::{Eviction, Mover, StubLink};
use vswap_stub::logic::fuzz::{FakeKernel, Window};
use vswap_stub::protocol::{Hello, RING_LEN, RING_MAGIC, Ring, STAGING_WINDOWS, WINDOW_BYTES, op};

/// Bytes are read as a hello: the windows that it names can be.
pub fn hello(data: &[u8]) {
    let Some(hello) = Hello::parse(data) else { return };
    assert_eq!(hello.magic, u64::from(RING_MAGIC));
    let words = [hello.magic, hello.staging, hello.error as u64, hello.step];
    assert_eq!(words.map(u64::to_le_bytes).as_flattened(), data, "it would be written the same");
    if hello.error == 0 {
        let end = hello.staging + u64::from(STAGING_WINDOWS) * WINDOW_BYTES;
        assert!(hello.staging.is_multiple_of(WINDOW_BYTES) && end <= 1 << 47, "{hello:?}");
    }
}

pub(crate) fn hello_seeds() -> Vec<Vec<u8>> {
    let hello = |words: [u64; 4]| words.map(u64::to_le_bytes).as_flattened().to_vec();
    let magic = u64::from(RING_MAGIC);
    vec![
        hello([magic, 0x7f00_0000_0000, 0, 0]),
        hello([magic, 0, -1_i64 as u64, 3]),
        hello([magic, u64::MAX - (WINDOW_BYTES - 1), 0, 0]),
        hello([magic, 0x7f00_0000_1000, 0, 0]),
        hello([magic + 1, 0x7f00_0000_0000, 0, 0]),
    ]
}

/// A command with any words, carried out on a kernel that answers anything it may: what is not to be touched is not, what is said to
/// have failed is still there, and it ends.
pub fn ring(data: &[u8]) {
    let mut input = Input::new(data);
    let code = input.u32();
    // Mostly evictions: there is nothing to get wrong with the others.
    let code = if code.is_multiple_of(4) { code / 4 } else { op::EVICT };
    let mut set = |kind: u8| -> [u64; 8] {
        std::array::from_fn(|_| match kind % 4 {
            0 => u64::MAX,
            1 => input.u64(),
            2 => input.u64() & input.u64(),
            _ => 0,
        })
    };
    let kinds = code_of(data);
    let (want, avoid) = (set(kinds), set(kinds >> 2));
    let window = Window { present: set(kinds >> 4), shared: set(3 & kinds >> 6 | 2), pinned: set(2) };
    let rest = input.rest();
    let mut kernel = FakeKernel::new(window, rest);
    let (going, failed, result) = kernel.carry_out(code, want, avoid);
    assert_eq!(going, code != op::QUIT);
    if code != op::EVICT {
        return;
    }
    assert_eq!(result, failed.iter().map(|word| i64::from(word.count_ones())).sum::<i64>());
    for at in 0..8 {
        assert_eq!(failed[at] & !want[at], 0, "a page failed that nobody wanted");
        assert_eq!(kernel.moved()[at] & avoid[at], 0, "a page moved that was to stay");
        assert_eq!(kernel.moved()[at] & failed[at], 0, "a page moved and failed");
        let left = want[at] & !avoid[at] & kernel.present()[at];
        assert_eq!(left & !failed[at], 0, "a page is left of which nothing is said");
    }
}

/// The byte that says which sets are full, mixed or empty.
fn code_of(data: &[u8]) -> u8 {
    data.last().copied().unwrap_or(0)
}

pub(crate) fn ring_seeds() -> Vec<Vec<u8>> {
    let evict = op::EVICT * 4 + 1;
    let mut seeds = Vec::new();
    for kinds in [0_u8, 1, 0b0101, 0b1001, 0b1101_0101, 0b0110_0110] {
        let words: Vec<u8> = (0..320_u64).map(|at| ((at * at * 31) >> 3) as u8).collect();
        seeds.push([&evict.to_le_bytes()[..], &words, &[kinds]].concat());
    }
    for code in [op::NOP, op::SYSCALL, op::DISCARD, op::QUIT] {
        seeds.push((code * 4).to_le_bytes().to_vec());
    }
    seeds
}

/// The supervisor's end of a ring whose other end writes into it whatever it likes, between one step of the supervisor's and the next: no command that
/// somebody waits for is written over, and the supervisor gets an error or an answer, and never waits.
pub fn link(data: &[u8]) {
    // No memory for a ring: nothing to be seen.
    let Ok(link) = StubLink::new() else { return };
    let mover = Mover::Stub(link);
    let Some(link) = mover.link() else { return };
    let ring: &Ring = link.memory().view();
    let mut input = Input::new(data);
    let mut ours = Posted::default();
    while !input.is_empty() {
        match input.u8() % 8 {
            0 => ours.evict(&mover, ring),
            1 => ours.finish(&mover, ring),
            2 if mover.discard(WINDOW_BYTES).is_some() => ours.count(ring),
            3 => ours.call(link, ring),
            4 => _ = link.owes(),
            kind => scribble(ring, kind, &mut input),
        }
    }
}

/// What the supervisor has asked for.
#[derive(Default)]
struct Posted {
    /// Commands so far.
    all: u32,
    /// Those that are waited for, with their places and where the pages are.
    evictions: VecDeque<(usize, u64, Eviction)>,
}

impl Posted {
    /// A command was posted: our count says so, whatever was written there meanwhile.
    fn count(&mut self, ring: &Ring) {
        self.all += 1;
        assert_eq!(ring.posted.load(Relaxed), self.all, "the next command's place is not ours to say");
    }

    fn evict(&mut self, mover: &Mover, ring: &Ring) {
        let (place, src) = ((self.all % RING_LEN) as usize, u64::from(self.all) << 21);
        let Some(eviction) = mover.evict(src, 0, &Bitmap512::FULL, &Bitmap512::EMPTY) else { return };
        assert!(self.evictions.iter().all(|(taken, ..)| *taken != place), "a command was written over");
        self.count(ring);
        assert_eq!(ring.commands[place].args[0].load(Relaxed), src);
        self.evictions.push_back((place, src, eviction));
    }

    /// The oldest eviction has an answer, the one that is there, or is waited for on.
    fn finish(&mut self, mover: &Mover, ring: &Ring) {
        let Some((place, src, eviction)) = self.evictions.pop_front() else { return };
        match mover.finish(eviction, Duration::ZERO) {
            Ok(evicted) => {
                let failed = std::array::from_fn(|at| ring.commands[place].failed[at].load(Relaxed));
                assert_eq!(evicted.failed, Bitmap512::from_words(failed));
            }
            Err(eviction) => self.evictions.push_front((place, src, eviction)),
        }
    }

    fn call(&mut self, link: &StubLink, ring: &Ring) {
        let place = (self.all % RING_LEN) as usize;
        let before = ring.posted.swap(self.all, Relaxed);
        let answer = link.syscall_within(Duration::ZERO, 9, [1; 6]);
        match ring.posted.load(Relaxed) == self.all {
            // There was no place.
            true => ring.posted.store(before, Relaxed),
            false => self.count(ring),
        }
        match answer {
            Ok(result) => assert_eq!(result, ring.commands[place].result.load(Relaxed)),
            Err(error) => {
                let number = error.raw_os_error();
                assert!(number.map_or(error.kind() == std::io::ErrorKind::TimedOut, |number| {
                    (1..4096).contains(&number)
                }));
            }
        }
    }
}

/// What is done to a ring by whoever can.
fn scribble(ring: &Ring, kind: u8, input: &mut Input) {
    let at = input.u8();
    let command = &ring.commands[usize::from(at) % RING_LEN as usize];
    match kind {
        5 => ring.done.store(ring.done.load(Relaxed).wrapping_add(u32::from(at)), Relaxed),
        6 => command.result.store(input.u64() as i64 >> (at / 8), Relaxed),
        _ => {
            let counters =
                [&ring.done, &ring.posted, &ring.stub_sleeps, &ring.client_sleeps, &ring.magic, &command.op];
            counters[usize::from(at / 8) % counters.len()].store(input.u32(), Relaxed);
            command.failed[usize::from(at) % 8].store(input.u64(), Relaxed);
            command.args[0].store(input.u64(), Relaxed);
        }
    }
}

pub(crate) fn link_seeds() -> Vec<Vec<u8>> {
    let full = [[0; 9].as_slice(), &[1, 5, 1, 1, 0, 5, 8], &[1; 9], &[0; 9]].concat();
    let calls = [3, 5, 1, 3, 6, 3, 1, 2, 3, 4, 5, 6, 7, 8, 3, 2, 4];
    let back = [0, 0, 7, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 1];
    let discards = [[2; 9].as_slice(), &[5, 4, 2, 2, 2, 2, 2, 0, 1]].concat();
    vec![full, calls.to_vec(), back.to_vec(), discards]
}
