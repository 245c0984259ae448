//! What is in an object: of each 4 KiB the first half is noise and the second the same words again and again, all made from its number.

use anyhow::{Result, ensure};

/// Bytes that are half noise, half words.
const PAGE: usize = 4096;

/// Xorshift: the same numbers everywhere.
pub struct Random(u64);

impl Random {
    /// Numbers of a seed.
    pub fn new(seed: u64) -> Self {
        // Near seeds are far apart; xorshift stays at 0.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The numbers below `count`, in an order of chance.
    pub fn order(&mut self, count: u64) -> Vec<u64> {
        let mut all: Vec<u64> = (0..count).collect();
        for at in (1..all.len()).rev() {
            all.swap(at, self.draw() as usize % (at + 1));
        }
        all
    }
}

/// Makes an object's bytes.
pub fn fill(number: u64, bytes: &mut [u8]) {
    for (at, page) in bytes.chunks_mut(PAGE).enumerate() {
        let mut random = Random::new(number << 24 ^ at as u64);
        let (noise, words) = page.split_at_mut(page.len() / 2);
        for eight in noise.chunks_mut(8) {
            eight.copy_from_slice(&random.draw().to_le_bytes()[..eight.len()]);
        }
        let line = format!("object {number:012} page {at:08}: as was put\n");
        for part in words.chunks_mut(line.len()) {
            part.copy_from_slice(&line.as_bytes()[..part.len()]);
        }
    }
}

/// Compares what was got with what was put.
pub struct Check(Vec<u8>);

impl Check {
    /// For objects of that size.
    pub fn new(size: usize) -> Self {
        Self(vec![0; size])
    }

    /// Fails where a byte is wrong.
    pub fn check(&mut self, number: u64, got: &[u8]) -> Result<()> {
        fill(number, &mut self.0);
        ensure!(got.len() == self.0.len(), "object {number} has {} bytes, not {}", got.len(), self.0.len());
        let wrong = || got.iter().zip(&self.0).position(|(got, put)| got != put);
        ensure!(got == self.0, "object {number}: byte {:?} is not the one that was put", wrong());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Check, Random, fill};

    #[test]
    fn a_wrong_byte_a_short_object_and_another_objects_bytes_are_found() {
        let mut bytes = vec![0; 10_000];
        fill(7, &mut bytes);
        let mut check = Check::new(bytes.len());
        assert!(check.check(7, &bytes).is_ok());
        assert!(check.check(8, &bytes).is_err());
        assert!(check.check(7, &bytes[..9_999]).is_err());
        bytes[9_999] ^= 1;
        assert!(check.check(7, &bytes).is_err());
    }

    #[test]
    fn an_order_has_each_number_once_and_is_not_the_ordinary_one() {
        let order = Random::new(1).order(1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..1000));
        assert_ne!(order, sorted);
    }
}
