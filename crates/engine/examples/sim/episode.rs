//! Episodes: one engine from its making until nothing is left; and what to do about one that fails.

use crate::deeds::Deeds;
use crate::random::Random;
use crate::table::Seen;
use crate::world::{Outcome, World};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Acts of one engine.
pub(crate) const LENGTH: u64 = 20_000;
/// Attempts to leave acts out of one that fails.
const ATTEMPTS: usize = 150;

/// Runs one with all acts but those left out.
pub(crate) fn episode(seed: u64, episode: u64, acts: u64, left_out: &[Range<u64>]) -> Outcome {
    let world = World::new(seed, episode);
    for act in (0..acts).filter(|act| !left_out.iter().any(|range| range.contains(act))) {
        {
            let mut state = world.state();
            state.random = Random::of(seed, episode, act);
            state.act = act;
        }
        world.act();
    }
    world.finish()
}

fn fails(seed: u64, number: u64, acts: u64, left_out: &[Range<u64>]) -> bool {
    catch_unwind(AssertUnwindSafe(|| episode(seed, number, acts, left_out))).is_err()
}

/// Leaves out halves, quarters, ... as long as it fails still.
fn shrink(seed: u64, number: u64, acts: u64) -> Vec<Range<u64>> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut left_out: Vec<Range<u64>> = Vec::new();
    let mut attempts = 0;
    let mut size = acts / 2;
    while size > 0 && attempts < ATTEMPTS {
        let mut from = 0;
        while from < acts && attempts < ATTEMPTS {
            let range = from..(from + size).min(acts);
            from += size;
            if left_out.iter().any(|out| out.start <= range.start && range.end <= out.end) {
                continue;
            }
            left_out.push(range);
            attempts += 1;
            if !fails(seed, number, acts, &left_out) {
                left_out.pop();
            }
        }
        size /= 2;
    }
    std::panic::set_hook(hook);
    left_out
}

/// Runs `ops` acts of a seed, or one episode of it, and compares what was seen with the table of transitions.
pub(crate) fn run(seed: u64, ops: u64, only: Option<u64>) -> Result<(), String> {
    let (mut seen, mut deeds) = (Seen::default(), Deeds::default());
    let mut digest = 0_u64;
    let episodes = ops.div_ceil(LENGTH);
    for number in only.map_or(0..episodes, |only| only..only + 1) {
        let acts = LENGTH.min(ops - (number * LENGTH).min(ops)).max(1);
        let acts = if only.is_some() { LENGTH } else { acts };
        match catch_unwind(AssertUnwindSafe(|| episode(seed, number, acts, &[]))) {
            Ok(outcome) => {
                seen.add(&outcome.seen);
                deeds.add(&outcome.deeds);
                digest = digest.rotate_left(7) ^ outcome.digest;
            }
            Err(_) => {
                let left_out = shrink(seed, number, acts);
                let kept: u64 =
                    (0..acts).filter(|act| !left_out.iter().any(|out| out.contains(act))).count() as u64;
                let again = catch_unwind(AssertUnwindSafe(|| episode(seed, number, acts, &left_out)));
                return Err(format!(
                    "episode {number} of seed {seed} fails, {} with {kept} of its {acts} acts; again: cargo xtask sim --seed {seed} \
                     --episode {number}",
                    if again.is_err() { "also" } else { "but not again" },
                ));
            }
        }
    }
    seen.print();
    deeds.print();
    println!("seed {seed}: digest {digest:016x}");
    let (strange, unseen) = seen.compare();
    if !strange.is_empty() {
        return Err(format!("transitions that docs/transitions.md does not have: {}", strange.join("; ")));
    }
    // What is rare needs its time.
    if ops < 1_000_000 || only.is_some() {
        return Ok(());
    }
    let missing: Vec<String> = unseen.into_iter().chain(deeds.missing()).collect();
    if !missing.is_empty() {
        return Err(format!("what must be seen and was not: {}", missing.join("; ")));
    }
    Ok(())
}
