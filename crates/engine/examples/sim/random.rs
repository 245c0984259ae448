//! [`Random`] and the pages that come of numbers.

use vswap_core::{PAGE_SIZE, Page};

/// A small generator (splitmix64): its state is the whole seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// One for each act of each episode, so that acts can be left out without changing the others' choices.
    pub(crate) fn of(seed: u64, episode: u64, act: u64) -> Self {
        let mut random = Self(seed);
        random = Self(random.next() ^ episode);
        random = Self(random.next() ^ act);
        Self(random.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// The page of this number: a pattern, compressible to some degree, or not at all. Only patterns are ever the same.
pub(crate) fn page(number: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let words = page.as_chunks_mut::<8>().0;
    let noisy = match number % 8 {
        0 => {
            words.fill((number / 8 % 64).to_le_bytes());
            return page;
        }
        1 | 2 => words.len(),
        3 => 1,
        kind => kind as usize * 48,
    };
    let mut random = Random(number);
    for word in &mut words[..noisy] {
        *word = random.next().to_le_bytes();
    }
    words[0] = number.to_le_bytes();
    page
}
