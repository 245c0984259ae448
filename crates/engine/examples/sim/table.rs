//! The table of transitions, as far as one can see it from outside: what was seen is compared with it, both ways.

use std::collections::{BTreeMap, BTreeSet};
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
    Demotion,
    /// The room of dead segments is given back: changes no slot.
    Tidying,
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

/// A row of the table.
type Row = (Kind, Event, Kind);

/// What was seen, how often, and in the middle of what.
#[derive(Clone, Default, Debug)]
pub(crate) struct Seen(BTreeMap<(Row, Option<Event>), u64>);

impl Seen {
    pub(crate) fn note(&mut self, within: Option<Event>, from: Backing, event: Event, to: Backing) {
        let (before, after) = (kind(from), kind(to));
        *self.0.entry(((before, event, after), within)).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(*what).or_default() += times;
        }
    }

    /// What was seen and is not in the table, and what the table demands and was not seen.
    pub(crate) fn compare(&self) -> (Vec<String>, Vec<String>) {
        let table = table();
        let strange = self.0.keys().filter(|what| table.get(what).is_none_or(|met| *met == Met::Never));
        let unseen = table.iter().filter(|(what, met)| **met == Met::Always && !self.0.contains_key(what));
        let mut missing: Vec<_> = unseen.map(|(what, _)| describe(what)).collect();
        // A row that is nowhere frequent is to be seen somewhere.
        let rows: BTreeSet<Row> = table.keys().map(|(row, _)| *row).collect();
        let nowhere = rows.iter().filter(|row| !self.0.keys().any(|(seen, _)| seen == *row));
        missing.extend(nowhere.map(|(from, event, to)| format!("{from:?} -- {event:?} -> {to:?} anywhere")));
        (strange.map(describe).collect(), missing)
    }

    /// How often each was seen, in the columns of the table.
    pub(crate) fn print(&self) {
        let rows: BTreeSet<Row> = self.0.keys().map(|(row, _)| *row).collect();
        println!(
            "{:34}{:>10}{}",
            "",
            "alone",
            WITHIN
                .map(|event| format!("{event:?}").to_lowercase())
                .map(|name| format!("{name:>10}"))
                .concat()
        );
        for row @ (from, event, to) in rows {
            let columns = std::iter::once(None).chain(WITHIN.map(Some));
            let times = columns.map(|within| self.0.get(&(row, within)).copied().unwrap_or(0));
            let times: String = times.map(|times| format!("{times:>10}")).collect();
            println!("{:34}{times}", format!("{from:?} -- {event:?} -> {to:?}"));
        }
    }
}

fn describe(((from, event, to), within): &(Row, Option<Event>)) -> String {
    match within {
        None => format!("{from:?} -- {event:?} -> {to:?} alone"),
        Some(within) => format!("{from:?} -- {event:?} -> {to:?} in the middle of a {within:?}"),
    }
}

/// What something can come in the middle of, in the order of the table's columns.
const WITHIN: [Event; 7] = [
    Event::Store,
    Event::Load,
    Event::Count,
    Event::Writeback,
    Event::Removal,
    Event::Demotion,
    Event::Tidying,
];

/// Whether a row is met in the middle of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Met {
    /// In each million of acts: `+`.
    Always,
    /// It can be, but it is rare: a blank.
    Maybe,
    /// It cannot be: `-`.
    Never,
}

/// The table of docs/transitions.md, "Seen from outside".
fn table() -> BTreeMap<(Row, Option<Event>), Met> {
    let text = include_str!("../../../../docs/transitions.md");
    let section = text.split("## Seen from outside").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut table = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [from, event, to, alone, within @ ..] = cells.as_slice() else {
            panic!("docs/transitions.md: {line}")
        };
        assert_eq!(within.len(), WITHIN.len(), "docs/transitions.md: {line}");
        let row = (parse_kind(from), parse_event(event), parse_kind(to));
        table.insert((row, None), parse_met(alone));
        table.extend(WITHIN.iter().zip(within).map(|(event, met)| ((row, Some(*event)), parse_met(met))));
    }
    table
}

fn parse_met(cell: &str) -> Met {
    match cell {
        "+" => Met::Always,
        "" => Met::Maybe,
        "-" => Met::Never,
        _ => panic!("docs/transitions.md has a cell {cell}"),
    }
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
        Event::Demotion,
    ];
    let found = all.into_iter().find(|event| format!("{event:?}").to_lowercase() == name);
    found.unwrap_or_else(|| panic!("docs/transitions.md names an event {name}"))
}
