//! Object numbers by Zipf's law, the ranks scattered over the numbers.

use crate::payload::Random;

/// As cache traces mostly have it.
pub const EXPONENT: f64 = 0.99;

pub struct Zipf {
    /// Sums of the weights, up to each rank.
    until: Vec<f64>,
    number: Vec<u64>,
    random: Random,
}

impl Zipf {
    /// Over the numbers below `count`, which is not 0.
    pub fn over(count: u64, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let number = random.order(count);
        let mut sum = 0.0;
        let weight = |rank: u64| {
            sum += (rank as f64).powf(-EXPONENT);
            sum
        };
        Self { until: (1..=count).map(weight).collect(), number, random }
    }

    /// The next one.
    pub fn draw(&mut self) -> u64 {
        let all = self.until[self.until.len() - 1];
        let at = (self.random.draw() >> 11) as f64 / (1_u64 << 53) as f64 * all;
        self.number[self.until.partition_point(|until| *until <= at).min(self.number.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::{EXPONENT, Zipf};

    #[test]
    fn ranks_come_as_often_as_the_law_says() {
        let (count, draws) = (1000, 200_000);
        let mut zipf = Zipf::over(count, 3);
        let ranks: std::collections::HashMap<_, _> = zipf.number.clone().into_iter().zip(0..).collect();
        let mut seen = vec![0_u32; count as usize];
        for _ in 0..draws {
            let rank: usize = ranks[&zipf.draw()];
            seen[rank] += 1;
        }
        let all: f64 = (1..=count).map(|rank| (rank as f64).powf(-EXPONENT)).sum();
        for rank in [1_usize, 2, 10, 100] {
            let due = f64::from(draws) * (rank as f64).powf(-EXPONENT) / all;
            let got = f64::from(seen[rank - 1]);
            assert!((got - due).abs() < 5.0 * due.sqrt() + 1.0, "rank {rank}: {got}, due {due}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let of = |seed| {
            let mut zipf = Zipf::over(50, seed);
            (0..20).map(|_| zipf.draw()).collect::<Vec<_>>()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
