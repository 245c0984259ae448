//! Pages that tell what they are, of every kind that the engine treats differently.
use vswap_core::{PAGE_SIZE, Page};

/// A page by its number: fill patterns, pages that compress well and badly, noise. No two of them are the
/// same but fills.
pub fn page(number: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let words = page.as_chunks_mut::<8>().0;
    match number % 8 {
        0 => words.fill(((number / 8) & 0xffff_ffff).to_le_bytes()),
        1 => words.fill([(number / 8) as u8; 8]),
        2 => noise(words, number, words_of(PAGE_SIZE)),
        3 => noise(words, number, words_of(PAGE_SIZE * 15 / 16 - 100)),
        kind => noise(words, number, kind as usize * 7),
    }
    page
}

const fn words_of(bytes: usize) -> usize {
    bytes / 8
}

/// `random` words that do not compress, the number behind them, and an easy rest.
fn noise(words: &mut [[u8; 8]], number: u64, random: usize) {
    let mut state = number;
    for (at, word) in words.iter_mut().enumerate() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        *word = if at < random { mixed } else { ((at as u64 / 5) << 32) | (number % 1000) }.to_le_bytes();
    }
}
