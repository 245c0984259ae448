//! What a stub and its supervisor tell each other, of whom either may be a program that wants to confuse the other.

use crate::input::Input;
use vswap_stub::logic::fuzz::{FakeKernel, Window};
use vswap_stub::protocol::{Hello, RING_MAGIC, STAGING_WINDOWS, WINDOW_BYTES, op};

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
