//! What cleaning must write at the least, by calculation.
//!
//! A log of room `x` times its live pages, all stored equally often, is cleaned when the part `u` of a segment lives, where `u` is the root below 1
//! of `u = exp(-(1 - u) x)`, and writes `1 / (1 - u)` for each page that comes in (Rosenblum and Ousterhout 1992; Desnoyers, SYSTOR
//! 2012). Pages of other frequencies are a log of their own, and the room is divided so that all write the least (Stoica and Ailamaki, VLDB 2013).

/// Ranks of a class are within this ratio of each other: finer ones change the third digit.
const CLASS: f64 = 1.05;
/// Pages in all. More change the third digit.
const PAGES: f64 = 1e5;

/// Pages whose frequencies are about the same.
struct Class {
    /// Those that live in the log.
    live: f64,
    /// How many come in, in all of the time.
    comes: f64,
}

/// Bytes written / bytes that come in, at the best division of the room, with stores by Zipf's law of this exponent (0: uniform), behind a queue that takes what is stored
/// anew while it is there, `pool` of the log long; `full` of the log lives.
pub fn at_best(exponent: f64, pool: f64, full: f64) -> f64 {
    let frequencies = frequencies(exponent);
    // So long a page waits in the queue, such that as many wait as there is room for; what is stored meanwhile never comes to the log.
    let waiting = |wait: f64| -> f64 { frequencies.iter().map(|(n, f)| n * (1.0 - (-f * wait).exp())).sum() };
    let wait = root(1e-9, 1e12, |wait| waiting(wait) / (PAGES - waiting(wait)) > pool / full);
    let classes: Vec<Class> = frequencies
        .iter()
        .map(|(n, f)| Class { live: n * (-f * wait).exp(), comes: n * f * (-f * wait).exp() })
        .collect();
    let room = classes.iter().map(|class| class.live).sum::<f64>() / full;
    // Where one more page of room saves the same in each class, nothing is won by giving it to another.
    let alive = |saves: f64| classes.iter().map(move |class| alive_where(saves * class.live / class.comes));
    let taken =
        |saves: f64| alive(saves).zip(&classes).map(|(u, class)| room_of(u) * class.live).sum::<f64>();
    let saves = root(1e-12, 1e12, |saves| taken(saves) < room);
    let written: f64 = alive(saves).zip(&classes).map(|(u, class)| class.comes / (1.0 - u)).sum();
    written / classes.iter().map(|class| class.comes).sum::<f64>()
}

/// How many pages there are of each frequency.
fn frequencies(exponent: f64) -> Vec<(f64, f64)> {
    let (mut first, mut classes) = (1.0_f64, Vec::new());
    while first <= PAGES {
        let last = (first * CLASS).floor().clamp(first, PAGES);
        classes.push((last - first + 1.0, (first * last).sqrt().powf(-exponent)));
        first = last + 1.0;
    }
    classes
}

/// The room, in live pages, with which the part `u` of a segment lives when it is cleaned.
fn room_of(u: f64) -> f64 {
    -u.ln() / (1.0 - u)
}

/// How much of a segment lives where a little more room saves `slope` times as much writing: the derivative of `1 / (1 - u)` by the room.
fn alive_where(slope: f64) -> f64 {
    root(1e-9, 1.0 - 1e-6, |u| 1.0 / ((1.0 - u) / u + u.ln()) > slope)
}

/// Where `above` begins to hold, between two positive bounds.
fn root(mut low: f64, mut high: f64, above: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..60 {
        let middle = (low * high).sqrt();
        if above(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    (low * high).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_one_frequency_writes_what_the_formula_says() {
        // 1.25 times the room: u = 0.629.
        assert!((room_of(0.629) - 1.25).abs() < 0.002, "{}", room_of(0.629));
        let uniform = at_best(0.0, 1.0 / 16.0, 0.8);
        assert!((uniform - 1.0 / (1.0 - 0.629)).abs() < 0.02, "{uniform}");
    }

    #[test]
    fn what_is_skewed_can_be_had_for_less_and_a_full_log_for_more() {
        let (zipf, fuller) = (at_best(0.99, 1.0 / 16.0, 0.8), at_best(0.99, 1.0 / 16.0, 0.9));
        assert!(1.5 < zipf && zipf < 2.4 && fuller > zipf, "{zipf} {fuller}");
    }
}
