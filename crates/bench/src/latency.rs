//! Times of single gets.

use std::time::Duration;

use serde_json::{Value, json};

/// In nanoseconds.
#[derive(Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    pub fn add(&mut self, took: Duration) {
        self.0.push(took.as_nanos() as u64);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn seconds(&self) -> f64 {
        self.0.iter().sum::<u64>() as f64 / 1e9
    }

    /// The least time in which so many of a thousand were done, microseconds.
    fn per_mille(sorted: &[u64], part: usize) -> f64 {
        let at = (sorted.len() * part).div_ceil(1000).max(1) - 1;
        sorted.get(at).map_or(f64::NAN, |ns| *ns as f64 / 1e3)
    }

    /// What there is to say of them, each of `bytes`.
    pub fn say(&self, bytes: usize) -> Value {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rate = sorted.len() as f64 / self.seconds();
        json!({
            "gets": sorted.len(),
            "seconds": self.seconds(),
            "gets_per_s": rate,
            "mb_per_s": rate * bytes as f64 / 1e6,
            "p50_us": Self::per_mille(&sorted, 500),
            "p99_us": Self::per_mille(&sorted, 990),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Latencies;
    use std::time::Duration;

    #[test]
    fn of_a_hundred_the_fiftieth_is_the_median_and_the_99th_the_percentile() {
        let mut all = Latencies::default();
        (1..=100).rev().for_each(|us| all.add(Duration::from_micros(us)));
        let said = all.say(1000);
        assert_eq!((said["p50_us"].as_f64(), said["p99_us"].as_f64()), (Some(50.0), Some(99.0)));
        assert_eq!(said["seconds"].as_f64(), Some(0.00505));
    }
}
