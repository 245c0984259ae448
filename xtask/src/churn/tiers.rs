//! Tiers that come and go: small ones of every kind, which fill, and large ones, of which one is always there for the rest.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{Counts, Event, Kind, Random, Run, Tier};
use crate::host::loop_device::LoopDevice;
use crate::host::scratch::Scratch;

/// Tiers at once, at the most.
const MOST: usize = 8;
/// Bytes of a small one, at the most: a file has a segment of its own before what it holds.
const SMALL: [u64; 3] = [8 << 20, 16 << 20, 32 << 20];
const HEAD: u64 = 2 << 20;
/// Bytes of a large one: all that the checker and its children have fits.
const LARGE: u64 = 2 << 30;
/// How long a removal goes on before it is ended, at most.
const IN_THE_MIDDLE: Duration = Duration::from_millis(25);

/// Where tiers can be. Drop order: the device before the file behind it.
pub struct Places {
    device: Option<LoopDevice>,
    dir: Scratch,
}

impl Places {
    /// Makes them.
    pub fn new() -> Result<Self> {
        let dir = Scratch::new("churn")?;
        let behind = dir.path().join("behind-the-device");
        File::create(&behind)?.set_len(SMALL[2] + HEAD)?;
        let device = LoopDevice::over(&behind);
        if let Err(error) = &device {
            println!("no tier on a block device: {error:#}");
        }
        Ok(Self { device: device.ok(), dir })
    }

    /// Whether there is a block device.
    pub fn has_device(&self) -> bool {
        self.device.is_some()
    }

    /// Adds a small tier, more often than not before what is there.
    pub fn add(
        &self,
        kind: Kind,
        run: &Run<'_>,
        tiers: &[Tier],
        random: &mut Random,
        counts: &mut Counts,
    ) -> Result<()> {
        let at = random.below(SMALL.len() as u64) as usize;
        let (place, size) = match kind {
            Kind::Directory => (Some(self.dir.path().to_owned()), Some(SMALL[at])),
            // It has its length from its first time.
            Kind::File => (Some(self.dir.path().join(format!("file-{at}"))), Some(SMALL[at] + HEAD)),
            Kind::Device => (self.device.as_ref().map(|device| device.path().to_owned()), None),
            Kind::Ghost => (None, Some(SMALL[at])),
        };
        let has_user =
            matches!(kind, Kind::File | Kind::Device) && tiers.iter().any(|tier| tier.path == place);
        if has_user || kind == Kind::Device && place.is_none() {
            return Ok(());
        }
        let priority = random.below(5) as i64 - 1;
        self.add_it(kind, place.as_deref(), size, priority, run, tiers, counts)
    }

    /// Adds a large tier, in a directory.
    pub fn add_large(
        &self,
        run: &Run<'_>,
        tiers: &[Tier],
        random: &mut Random,
        counts: &mut Counts,
    ) -> Result<()> {
        let priority = random.below(5) as i64 - 2;
        self.add_it(Kind::Directory, Some(self.dir.path()), Some(LARGE), priority, run, tiers, counts)
    }

    #[expect(clippy::too_many_arguments, reason = "one call with all that a tier has")]
    fn add_it(
        &self,
        kind: Kind,
        place: Option<&Path>,
        size: Option<u64>,
        priority: i64,
        run: &Run<'_>,
        tiers: &[Tier],
        counts: &mut Counts,
    ) -> Result<()> {
        if tiers.len() >= MOST {
            return Ok(());
        }
        let (place, size) = (place.map(Path::to_string_lossy), size.map(|bytes| bytes.to_string()));
        let priority = priority.to_string();
        let mut words = vec!["tier", "add"];
        words.extend(place.as_deref());
        words.extend(["--kind", kind.name(), "-p", &priority, "--run", &run.number]);
        words.extend(size.iter().flat_map(|size| ["--size", size]));
        counts.note_or(run.does(&words)?, Event::Added(kind), Event::TierRefused);
        Ok(())
    }
}

/// A large tier holds all that is pushed on to it.
pub fn is_large(tier: &Tier) -> bool {
    tier.kind != Kind::Ghost && tier.size > SMALL[2]
}

/// Those that may go: the last large one may not.
fn removable(tiers: &[Tier]) -> impl Iterator<Item = &Tier> {
    let large = tiers.iter().filter(|tier| is_large(tier)).count();
    tiers.iter().filter(move |tier| large > 1 || !is_large(tier))
}

/// Empties and removes one of a kind.
pub fn remove(
    kind: Kind,
    run: &Run<'_>,
    tiers: &[Tier],
    random: &mut Random,
    counts: &mut Counts,
) -> Result<()> {
    let of_kind: Vec<&Tier> = removable(tiers).filter(|tier| tier.kind == kind).collect();
    let fullest = of_kind.iter().max_by_key(|tier| tier.used);
    let chosen = if random.once_in(2) { fullest } else { random.one_of(&of_kind) };
    let Some(tier) = chosen else { return Ok(()) };
    let done = run.on_tier("remove", tier)?;
    if done {
        counts.forget(tier.number);
    }
    counts.note_or(done, Event::Removed(kind), Event::TierRefused);
    Ok(())
}

/// Begins to remove the one that has most, and ends that soon after.
pub fn remove_and_end(run: &Run<'_>, tiers: &[Tier], random: &mut Random, counts: &mut Counts) -> Result<()> {
    let Some(tier) = removable(tiers).max_by_key(|tier| tier.used) else { return Ok(()) };
    let mut removal = run.start(&["tier", "remove", &tier.number.to_string(), "--run", &run.number])?;
    std::thread::sleep(IN_THE_MIDDLE.mul_f64(random.below(1000) as f64 / 1000.0));
    let _ = removal.kill();
    let code = removal.wait()?.code();
    let Some(tiers) = run.tiers() else { return Ok(()) };
    match (code, tiers.iter().any(|now| now.number == tier.number)) {
        (None, true) => counts.note(Event::Ended),
        (_, true) => counts.note(Event::TierRefused),
        // It was quicker.
        (_, false) => {
            counts.forget(tier.number);
            counts.note(Event::Removed(tier.kind));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_large_tier_stays() {
        let tier =
            |number, kind, size| Tier { number, path: None, kind, size, used: 0, state: "open".into() };
        let numbers = |tiers: &[Tier]| removable(tiers).map(|tier| tier.number).collect::<Vec<_>>();
        let mut tiers =
            vec![tier(0, Kind::Directory, LARGE), tier(1, Kind::Ghost, LARGE), tier(2, Kind::File, SMALL[0])];
        assert_eq!(numbers(&tiers), [1, 2]);
        tiers.push(tier(3, Kind::Directory, LARGE));
        assert_eq!(numbers(&tiers), [0, 1, 2, 3]);
    }
}
