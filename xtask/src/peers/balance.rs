//! Equal terms: which limit gives a kernel peer the same memory in total.
//!
//! Memory cgroups of version 1 do not charge the pools of zswap and zram to anybody, so a peer with the limit L takes L and its
//! pool besides. Its limit is lowered until resident + pool, at its peak, agrees with the budget.

use anyhow::Result;

/// How far the total may be off, as a share of the budget.
pub const TOLERANCE: f64 = 0.02;
const TRIES: u32 = 7;
/// The least limit that is tried, as a share of the budget.
const LEAST: f64 = 0.05;

/// (limit, total)
type Seen = (f64, f64);

/// What the search ended with.
#[derive(Clone, Copy, Debug)]
pub struct Balanced {
    /// The cgroup limit.
    pub limit: u64,
    /// The peak of resident + pool that it gave.
    pub total: u64,
    /// Whether that agrees with the budget.
    pub agrees: bool,
}

/// Looks for the limit at which `total_at(limit)` agrees with `budget`, by regula falsi on what it has seen. A total of 0 says
/// that the work did not end well with so little.
pub fn balance(budget: u64, mut total_at: impl FnMut(u64) -> Result<u64>) -> Result<Balanced> {
    let aim = budget as f64;
    // The last below the budget and the last above it.
    let (mut low, mut high): (Option<Seen>, Option<Seen>) = (None, None);
    let mut least = aim * LEAST;
    let mut limit = aim * 0.6;
    let mut best: Option<Balanced> = None;
    for _ in 0..TRIES {
        let total = total_at(limit as u64)?;
        let off = (total as f64 - aim).abs() / aim;
        let seen = Balanced { limit: limit as u64, total, agrees: off <= TOLERANCE };
        if best.is_none_or(|b| off < (b.total as f64 - aim).abs() / aim) {
            best = Some(seen);
        }
        if off <= TOLERANCE * 0.6 {
            break;
        }
        if total == 0 {
            least = limit * 1.02;
            low = None;
            if least > aim {
                // It cannot live with all of it either.
                break;
            }
        } else if (total as f64) < aim {
            low = Some((limit, total as f64));
        } else {
            high = Some((limit, total as f64));
        }
        limit = match (low, high) {
            (Some((l, tl)), Some((h, th))) if th > tl => l + (aim - tl) * (h - l) / (th - tl),
            (None, Some((h, _))) if least > aim * LEAST => (least + h) / 2.0,
            (None, None) => limit * 1.3,
            // A page less resident costs a third of a page in the pool.
            _ => limit + (aim - total as f64) * 1.4,
        }
        .clamp(least, aim);
    }
    Ok(best.unwrap_or(Balanced { limit: budget, total: budget, agrees: true }))
}

#[cfg(test)]
mod tests {
    use super::{TOLERANCE, balance};

    fn off(ratio: f64, data: f64, budget: u64) -> f64 {
        let total = |limit: u64| Ok((limit as f64 + (data - limit as f64).max(0.0) / ratio) as u64);
        let found = balance(budget, total).expect("no run fails here");
        (found.total as f64 - budget as f64).abs() / budget as f64
    }

    #[test]
    fn totals_agree_for_every_ratio_that_can() {
        for ratio in [2.1, 2.5, 3.0, 4.0, 8.0, 50.0] {
            assert!(off(ratio, 1e9, 500_000_000) <= TOLERANCE, "ratio {ratio}");
        }
    }

    #[test]
    fn what_is_killed_below_a_limit_is_balanced_above_it() {
        let total =
            |limit: u64| Ok(if limit < 350_000_000 { 0 } else { limit + (1_000_000_000 - limit) / 5 });
        let found = balance(500_000_000, total).expect("no run fails here");
        assert!(found.agrees && found.limit >= 350_000_000, "{found:?}");
    }

    #[test]
    fn data_that_does_not_compress_ends_with_the_best_that_was_seen() {
        let found =
            balance(500_000_000, |limit| Ok(limit + (1_000_000_000 - limit))).expect("no run fails here");
        assert!(!found.agrees);
    }

    #[test]
    fn a_peer_that_is_killed_whatever_it_gets_ends_the_search() {
        let found = balance(89_174_016, |_| Ok(0)).expect("no run fails here");
        assert_eq!(found.total, 0);
        // Killed with all but the last hundredth.
        let found = balance(1000, |limit| Ok(if limit < 995 { 0 } else { 1100 })).expect("no run fails here");
        assert_eq!(found.total, 1100);
    }
}
