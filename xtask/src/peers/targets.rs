//! What the figures are to be, and whether they are: contracts, checked on every measurement.

use std::fmt::Write as _;

use super::table::{Results, Series, short};
use super::work::Work;
use super::{Contender, Kind, Terms};
use crate::peers::swap::Peer;

/// (figure, times as fast as the best kernel peer, times as fast as zswap).
const TARGETS: &[(&str, f64, f64)] = &[
    ("random_read, 1 thread (us/op)", 1.0, 1.2),
    ("random_write30, 1 thread (us/op)", 1.0, 1.2),
    ("scan, 1 thread (us/op)", 2.0, 2.0),
    ("fill, 1 thread (us/op)", 1.5, 1.5),
    ("zipf, 1 thread (us/op)", 1.3, 1.3),
];

/// A list of the targets of this work, each with what was measured.
pub fn verdicts(work: &Work, results: &Results, contenders: &[Contender], budget: u64) -> String {
    let mut out = String::new();
    let best = |figure: &str, only: Option<Peer>| {
        let all = contenders.iter().enumerate().filter(|(_, c)| {
            c.terms == Terms::Total
                && match (c.kind, only) {
                    (Kind::Kernel(peer), Some(only)) => peer == only,
                    (Kind::Kernel(_), None) => true,
                    _ => false,
                }
        });
        all.filter_map(|(index, _)| results.median(figure, index)).min_by(f64::total_cmp)
    };
    for (figure, than_best, than_zswap) in TARGETS {
        let Some(ours) = results.median(figure, 0) else { continue };
        for (who, peer, wanted) in
            [("the best kernel peer", None, than_best), ("zswap", Some(Peer::Zswap), than_zswap)]
        {
            let Some(theirs) = best(figure, peer) else { continue };
            let word = if theirs / ours >= *wanted { "met" } else { "NOT met" };
            let _ = writeln!(
                out,
                "- {figure}: {}x as fast as {who}, wanted {wanted}x: {word}",
                short(theirs / ours)
            );
        }
    }
    if let Some(peak) = results.residents.get(&0).map(Series::spread).map(|(_, high)| high) {
        let allowed = budget as f64 * 1.05 + 8e6;
        let word = if peak <= allowed { "met" } else { "NOT met" };
        let _ = writeln!(
            out,
            "- {}: memory of the tree from outside at most {:.1} MiB (limit + 5 % + 8 MB), measured {:.1} MiB: {word}",
            work.name,
            allowed / f64::from(1 << 20),
            peak / f64::from(1 << 20)
        );
    }
    if out.is_empty() { out } else { format!("\n{out}") }
}
