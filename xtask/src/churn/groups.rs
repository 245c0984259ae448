//! Groups that come and go, with limits that change and processes that are moved.
//!
//! No limit is so low that what is out could be nowhere: none on a large tier below what the program needs, none of the swap space
//! below what it and its children have.

use anyhow::Result;

use super::tiers::is_large;
use super::{Counts, Event, Random, Run, Tier};

/// Groups at once, at the most.
const MOST: usize = 6;
const NAMES: [&str; 3] = ["a", "b", "c"];
/// A child each, and each of theirs.
const COPIES: u64 = 8;

/// What limits are reckoned from.
pub struct Groups {
    /// Bytes that the run may have in memory.
    pub memory: u64,
    /// Bytes of its program.
    pub size: u64,
}

impl Groups {
    /// One more, below one that there is.
    pub fn add(&self, run: &Run<'_>, random: &mut Random, counts: &mut Counts) -> Result<()> {
        let groups = run.groups();
        let Some(above) = random.one_of(&groups).filter(|_| groups.len() < MOST) else { return Ok(()) };
        let name = random.one_of(&NAMES).copied().unwrap_or_default();
        let path = format!("{}/{name}", above.trim_end_matches('/'));
        let done = run.does(&["groups", "add", &run.number, &path])?;
        counts.note_or(done, Event::GroupAdded, Event::GroupRefused);
        Ok(())
    }

    /// One less, whoever is in it.
    pub fn remove(&self, run: &Run<'_>, random: &mut Random, counts: &mut Counts) -> Result<()> {
        let Some(path) = one_of(run, random, false) else { return Ok(()) };
        let done = run.does(&["groups", "remove", &run.number, &path])?;
        counts.note_or(done, Event::GroupRemoved, Event::GroupRefused);
        Ok(())
    }

    /// Other limits for one, or for all.
    pub fn limit(&self, run: &Run<'_>, random: &mut Random, counts: &mut Counts) -> Result<()> {
        let Some(path) = one_of(run, random, true) else { return Ok(()) };
        let limits = self.limits(path == "/", random);
        let mut words = vec!["set", &run.number, &path];
        words.extend(limits.iter().map(String::as_str));
        counts.note_or(run.does(&words)?, Event::Limited, Event::GroupRefused);
        Ok(())
    }

    fn limits(&self, of_all: bool, random: &mut Random) -> Vec<String> {
        let memory = self.memory;
        if of_all {
            return vec![
                format!("memory.max={}", random.within(memory / 4 * 3, memory)),
                or_none("memory.zswap.max", random.within(memory / 4, memory), random),
            ];
        }
        let pool = if random.once_in(3) { 0 } else { random.within(0, memory / 2) };
        vec![
            or_none("memory.max", random.within(memory / 3, memory), random),
            or_none("memory.zswap.max", pool, random),
            or_none("memory.swap.max", random.within(COPIES * self.size, 2 * COPIES * self.size), random),
        ]
    }

    /// Another limit of a tier for one.
    pub fn limit_of_tier(
        &self,
        run: &Run<'_>,
        tiers: &[Tier],
        random: &mut Random,
        counts: &mut Counts,
    ) -> Result<()> {
        let (Some(path), Some(tier)) = (one_of(run, random, false), random.one_of(tiers)) else {
            return Ok(());
        };
        let needed = if is_large(tier) { COPIES * self.size } else { 0 };
        let name = format!("memory.swap.tier.{}.max", tier.number);
        let limit = or_none(&name, needed + random.below(tier.size + 1), random);
        let done = run.does(&["set", &run.number, &path, &limit])?;
        counts.note_or(done, Event::LimitedOnTier, Event::GroupRefused);
        Ok(())
    }

    /// A process goes to another, or back.
    pub fn take_in(&self, run: &Run<'_>, random: &mut Random, counts: &mut Counts) -> Result<()> {
        let (_, programs) = run.processes();
        let (Some(program), Some(path)) = (random.one_of(&programs), one_of(run, random, true)) else {
            return Ok(());
        };
        let done = run.does(&["groups", "move", &run.number, &program.to_string(), &path])?;
        counts.note_or(done, Event::Moved, Event::GroupRefused);
        Ok(())
    }

    /// No group may have less compressed in memory than all: who may have nothing there, and nothing on a disk, has nowhere to be.
    pub fn let_into_memory(&self, run: &Run<'_>) -> Result<()> {
        for path in run.groups() {
            run.does(&["set", &run.number, &path, "memory.zswap.max=max"])?;
        }
        Ok(())
    }

    /// Little may be compressed in memory, so tiers are written.
    pub fn let_little_into_memory(&self, run: &Run<'_>) -> Result<()> {
        run.does(&["set", &run.number, "/", &format!("memory.zswap.max={}", self.memory / 8)]).map(drop)
    }

    /// As much may be as there is room for; one command, because it is in haste.
    pub fn let_all_into_memory(&self, run: &Run<'_>) -> Result<()> {
        run.does(&["set", &run.number, "/", "memory.zswap.max=max"]).map(drop)
    }
}

fn one_of(run: &Run<'_>, random: &mut Random, or_all: bool) -> Option<String> {
    let groups: Vec<String> = run.groups().into_iter().filter(|path| or_all || path != "/").collect();
    random.one_of(&groups).cloned()
}

fn or_none(name: &str, limit: u64, random: &mut Random) -> String {
    if random.once_in(3) { format!("{name}=max") } else { format!("{name}={limit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_leaves_what_is_out_without_a_place() {
        let groups = Groups { memory: 96 << 20, size: 320 << 20 };
        let mut random = Random::new(1);
        for turn in 0..1000 {
            for limit in groups.limits(turn % 4 == 0, &mut random) {
                let (name, value) = limit.split_once('=').expect("a limit");
                let Ok(value) = value.parse::<u64>() else { continue };
                match name {
                    "memory.max" => assert!((32 << 20..=96 << 20).contains(&value), "{limit}"),
                    "memory.swap.max" => assert!(value >= 8 * (320 << 20), "{limit}"),
                    _ => assert_eq!(name, "memory.zswap.max"),
                }
            }
        }
    }
}
