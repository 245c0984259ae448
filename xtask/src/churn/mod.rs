//! What is done to a run while something runs in it: tiers of every kind come and go, fill up and fail, removals are ended in the
//! middle, and groups are made, limited and removed with processes in them.
//!
//! What is next is drawn from a deck that has every act, shuffled anew whenever it is through: chance alone would leave one out now and
//! then, and a run in which one never happened though the deck was dealt twice is a failed one ([`Changes::never`]). All chance is the seed's.
//!
//! Limits are never such that nothing could be moved out any more: the run would have to grow past its own then, as it says it does.

mod counts;
mod failing;
mod groups;
mod random;
mod run;
mod tiers;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use self::counts::{Counts, Event};
use self::groups::Groups;
use self::random::Random;
use self::run::{Kind, Run, Tier};
use self::tiers::Places;
use crate::host::cgroup::Cgroup;

/// Changes the one `vswap run` in a cgroup.
pub struct Churn<'a> {
    /// The command.
    pub vswap: &'a Path,
    /// Where the run is.
    pub cgroup: &'a Cgroup,
    /// What the choices come from.
    pub seed: u64,
    /// Bytes that the run may have in memory.
    pub memory: u64,
    /// Bytes of its program.
    pub size: u64,
}

/// What has been done.
#[derive(Default)]
pub struct Changes {
    /// For the line of the result.
    pub line: String,
    /// What was to happen and did not.
    pub never: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Add(Kind),
    AddLarge,
    Remove(Kind),
    End,
    Break,
    AddGroup,
    RemoveGroup,
    Limit,
    LimitOfTier,
    Move,
}

/// As many tiers are added as removed, and small ones have time to fill.
const DECK: &[Act] = &[
    Act::Add(Kind::Directory),
    Act::Add(Kind::File),
    Act::Add(Kind::Device),
    Act::Add(Kind::Ghost),
    Act::AddLarge,
    Act::Remove(Kind::Directory),
    Act::Remove(Kind::Directory),
    Act::Remove(Kind::File),
    Act::Remove(Kind::Device),
    Act::Remove(Kind::Ghost),
    Act::End,
    Act::End,
    Act::Break,
    Act::Break,
    Act::AddGroup,
    Act::AddGroup,
    Act::RemoveGroup,
    Act::Limit,
    Act::Limit,
    Act::Limit,
    Act::LimitOfTier,
    Act::Move,
    Act::Move,
    Act::Move,
];

impl Churn<'_> {
    /// Does so while `job` runs; gives what it gives, and what has been done.
    pub fn beside<T>(&self, job: impl FnOnce() -> Result<T>) -> Result<(T, Changes)> {
        let over = AtomicBool::new(false);
        let (ran, changes) = std::thread::scope(|scope| {
            let churn = scope.spawn(|| self.go_on_until(&over));
            let ran = job();
            over.store(true, Ordering::Relaxed);
            (ran, churn.join().expect("it does not panic"))
        });
        Ok((ran?, changes?))
    }

    fn go_on_until(&self, over: &AtomicBool) -> Result<Changes> {
        let mut random = Random::new(self.seed);
        let places = Places::new()?;
        let groups = Groups { memory: self.memory, size: self.size };
        let mut counts = Counts::new(places.has_device());
        let (mut deck, mut acts) = (Vec::new(), 0);
        while !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5 + random.below(40)));
            let Some((run, tiers)) = Run::of(self.vswap, self.cgroup) else { continue };
            counts.note_full(&tiers);
            if tiers.iter().any(Tier::is_failing) {
                failing::mend(&run, &mut counts)?;
            }
            if deck.is_empty() {
                deck = random.shuffled(DECK);
            }
            acts += 1;
            match deck.pop().expect("it has just been filled") {
                Act::Add(kind) => places.add(kind, &run, &tiers, &mut random, &mut counts)?,
                Act::AddLarge => places.add_large(&run, &tiers, &mut random, &mut counts)?,
                Act::Remove(kind) => tiers::remove(kind, &run, &tiers, &mut random, &mut counts)?,
                Act::End => tiers::remove_and_end(&run, &tiers, &mut random, &mut counts)?,
                Act::Break => failing::happen(&groups, &run, &mut random, &mut counts)?,
                Act::AddGroup => groups.add(&run, &mut random, &mut counts)?,
                Act::RemoveGroup => groups.remove(&run, &mut random, &mut counts)?,
                Act::Limit => groups.limit(&run, &mut random, &mut counts)?,
                Act::LimitOfTier => groups.limit_of_tier(&run, &tiers, &mut random, &mut counts)?,
                Act::Move => groups.take_in(&run, &mut random, &mut counts)?,
            }
        }
        Ok(Changes { line: counts.line(), never: expected(acts, counts.never()) })
    }
}

/// What is missing if so much was done that each should have happened: a machine that is busy with other things is not a fault.
fn expected(acts: usize, never: Vec<String>) -> Vec<String> {
    if acts >= 2 * DECK.len() || never.is_empty() {
        return never;
    }
    eprintln!("xtask: only {acts} acts beside the checker, not asked for: {}", never.join(", "));
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_a_fault_if_the_deck_was_dealt_twice() {
        let never = || vec!["Filled".to_owned()];
        assert_eq!(expected(2 * DECK.len(), never()), never());
        assert!(expected(2 * DECK.len() - 1, never()).is_empty());
    }

    #[test]
    fn every_kind_of_tier_is_added_and_removed_each_time_through_the_deck() {
        for kind in Kind::ALL {
            assert!(DECK.contains(&Act::Add(kind)) && DECK.contains(&Act::Remove(kind)), "{kind:?}");
        }
        let count = |of: fn(&Act) -> bool| DECK.iter().filter(|act| of(act)).count();
        assert_eq!(
            count(|act| matches!(act, Act::Add(_) | Act::AddLarge)),
            count(|act| matches!(act, Act::Remove(_)))
        );
    }
}
