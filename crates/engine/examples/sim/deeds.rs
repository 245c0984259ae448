//! [`Deeds`]: what must have happened besides the table's transitions, or the simulation has proved nothing of it.

use std::collections::BTreeMap;
use vswap_segment::TierKind;

/// Something that happens to a tier, or to whoever wants room on one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Deed {
    /// A tier was added.
    Added,
    /// A segment was written to it.
    Written,
    /// Something was read from it.
    Read,
    /// It had no room for what was asked of it.
    Full,
    /// The room of a dead segment was given back.
    Tidied,
    /// It was removed with pages on it, which are elsewhere now.
    Removed,
    /// Pages went with it.
    Lost,
    /// A removal was refused, or ended, for want of room.
    NoRoom,
    /// A removal was ended in the middle.
    Cancelled,
    /// A removal found what cannot be read.
    Unreadable,
    /// What its removal took from memory went to a disk, or the other way.
    Crossed,
    /// A group had a limit of a tier, and as much there as that allows.
    Limited,
}

use TierKind::{Device, Directory, File, Ghost};

/// The kinds that are simulated: room of a store is a file's to all here.
pub(crate) const KINDS: [TierKind; 4] = [Directory, File, Device, Ghost];

/// What must happen, and to which kinds of tiers.
const MUST: [(Deed, &[TierKind]); 12] = [
    (Deed::Added, &KINDS),
    (Deed::Written, &KINDS),
    (Deed::Read, &KINDS),
    (Deed::Full, &KINDS),
    (Deed::Tidied, &KINDS),
    (Deed::Removed, &KINDS),
    (Deed::Lost, &[Directory, File, Device]),
    (Deed::NoRoom, &KINDS),
    (Deed::Cancelled, &KINDS),
    (Deed::Unreadable, &[Directory, File, Device]),
    (Deed::Crossed, &KINDS),
    (Deed::Limited, &KINDS),
];

/// How often each has happened, by the name of the tier's kind.
#[derive(Clone, Default, Debug)]
pub(crate) struct Deeds(BTreeMap<(Deed, &'static str), u64>);

impl Deeds {
    pub(crate) fn note(&mut self, deed: Deed, kind: TierKind) {
        *self.0.entry((deed, kind.name())).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(*what).or_default() += times;
        }
    }

    fn times(&self, deed: Deed, kind: TierKind) -> u64 {
        self.0.get(&(deed, kind.name())).copied().unwrap_or(0)
    }

    /// What must happen and has not.
    pub(crate) fn missing(&self) -> Vec<String> {
        let all = MUST.iter().flat_map(|(deed, kinds)| kinds.iter().map(move |kind| (*deed, *kind)));
        let never = all.filter(|(deed, kind)| self.times(*deed, *kind) == 0);
        never.map(|(deed, kind)| format!("{deed:?}, of a {}", kind.name())).collect()
    }

    pub(crate) fn print(&self) {
        let heads: String = KINDS.iter().map(|kind| format!("{:>10}", kind.name())).collect();
        println!("{:34}{heads}", "");
        for (deed, _) in MUST {
            let times: String = KINDS.iter().map(|kind| format!("{:>10}", self.times(deed, *kind))).collect();
            println!("{:34}{times}", format!("{deed:?}"));
        }
    }
}
