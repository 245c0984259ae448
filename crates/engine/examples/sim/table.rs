//! The table of transitions, as far as one can see it from outside: what was seen is compared with it, both ways.

use std::collections::BTreeMap;
use vswap_core::Backing;

/// What a slot's change is put down to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Event {
    /// An owner stores.
    Store,
    /// An owner loads.
    Load,
    /// An owner lets go: release, dispose, adopt over it, move over it.
    Release,
    /// Fork and what is counted only: no bytes may move.
    Count,
    Writeback,
    Compaction,
    Removal,
}

/// The table's kinds of backing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Empty,
    Fill,
    Pool,
    Moving,
    Segment,
    Poisoned,
}

fn kind(backing: Backing) -> Kind {
    match backing {
        Backing::Empty => Kind::Empty,
        Backing::Fill(_) => Kind::Fill,
        Backing::Pool(_) => Kind::Pool,
        Backing::Moving(_) => Kind::Moving,
        Backing::Segment(_) => Kind::Segment,
        Backing::Poisoned => Kind::Poisoned,
    }
}

/// What was seen, how often.
#[derive(Clone, Default, Debug)]
pub(crate) struct Seen(BTreeMap<(Kind, Event, Kind), u64>);

impl Seen {
    pub(crate) fn note(&mut self, from: Backing, event: Event, to: Backing) {
        let (before, after) = (kind(from), kind(to));
        if from != to || event == Event::Load {
            *self.0.entry((before, event, after)).or_default() += 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(*what).or_default() += times;
        }
    }

    /// What was seen and is not in the table, and rows of the table that were not seen.
    pub(crate) fn compare(&self) -> (Vec<String>, Vec<String>) {
        let rows = rows();
        let strange = self.0.keys().filter(|what| !rows.contains(what)).map(|what| format!("{what:?}"));
        let unseen = rows.iter().filter(|row| !self.0.contains_key(row)).map(|row| format!("{row:?}"));
        (strange.collect(), unseen.collect())
    }

    pub(crate) fn print(&self) {
        for ((from, event, to), times) in &self.0 {
            println!("{times:>12}  {from:?} -- {event:?} -> {to:?}");
        }
    }
}

/// The table of docs/transitions.md, "Transitions that can be seen".
fn rows() -> Vec<(Kind, Event, Kind)> {
    let text = include_str!("../../../../docs/transitions.md");
    let section = text.split("## Seen from outside").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let mut rows = Vec::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells = cells(line);
        let [_, from, events, to, ..] = cells.as_slice() else { continue };
        for event in events.split(", ") {
            for from in from.split(", ") {
                for to in to.split(", ") {
                    rows.push((parse_kind(from), parse_event(event), parse_kind(to)));
                }
            }
        }
    }
    rows
}

fn parse_kind(name: &str) -> Kind {
    let all = [Kind::Empty, Kind::Fill, Kind::Pool, Kind::Moving, Kind::Segment, Kind::Poisoned];
    let found = all.into_iter().find(|kind| format!("`{kind:?}`") == name);
    found.unwrap_or_else(|| panic!("docs/transitions.md names a backing {name}"))
}

fn parse_event(name: &str) -> Event {
    let all = [
        Event::Store,
        Event::Load,
        Event::Release,
        Event::Count,
        Event::Writeback,
        Event::Compaction,
        Event::Removal,
    ];
    let found = all.into_iter().find(|event| format!("{event:?}").to_lowercase() == name);
    found.unwrap_or_else(|| panic!("docs/transitions.md names an event {name}"))
}
