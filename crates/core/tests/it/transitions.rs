//! What can happen to a slot, as docs/transitions.md has it: the list from which the models of `pairs.rs` are made, and that is compared with
//! the document's tables.

/// A transition of docs/transitions.md, "The table".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Transition {
    StorePattern,
    StorePage,
    ReleaseSole,
    ReleaseOne,
    ReleaseLast,
    Load,
    Damage,
    Fork,
    Hand,
    Take,
    Flip,
    TurnBack,
    CompactionTakes,
    CompactionFlips,
    CompactionTurnsBack,
    Clean,
    Move,
    GiveUp,
    ComeBack,
    PassOver,
}

/// Who does it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// The only owner, with its page locked.
    Sole,
    /// One of those who have the slot.
    Owner,
    /// The last of several.
    Last,
    Writer,
    Compaction,
    Remover,
    /// He too, as the writer of batches.
    RemoverWriting,
}

use Transition as T;

impl Transition {
    pub(crate) const ALL: [Self; 20] = [
        T::StorePattern,
        T::StorePage,
        T::ReleaseSole,
        T::ReleaseOne,
        T::ReleaseLast,
        T::Load,
        T::Damage,
        T::Fork,
        T::Hand,
        T::Take,
        T::Flip,
        T::TurnBack,
        T::CompactionTakes,
        T::CompactionFlips,
        T::CompactionTurnsBack,
        T::Clean,
        T::Move,
        T::GiveUp,
        T::ComeBack,
        T::PassOver,
    ];

    /// What the matrix calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            T::StorePattern => "store a pattern",
            T::StorePage => "store a page",
            T::ReleaseSole => "release: sole",
            T::ReleaseOne => "release: one of several",
            T::ReleaseLast => "release: last of several",
            T::Load => "load",
            T::Damage => "load finds damage",
            T::Fork => "fork, counting",
            T::Hand => "the hand passes",
            T::Take => "writeback takes",
            T::Flip => "writeback flips",
            T::TurnBack => "writeback fails",
            T::CompactionTakes => "compaction takes",
            T::CompactionFlips => "compaction flips",
            T::CompactionTurnsBack => "compaction turns back",
            T::Clean => "cleaning flips",
            T::Move => "its segment moves",
            T::GiveUp => "its tier is given up",
            T::ComeBack => "back to the pool",
            T::PassOver => "a store's hand passes",
        }
    }

    pub(crate) fn who(self) -> Who {
        match self {
            T::StorePattern | T::StorePage | T::ReleaseSole | T::PassOver => Who::Sole,
            T::ReleaseOne | T::Load | T::Damage | T::Fork => Who::Owner,
            T::ReleaseLast => Who::Last,
            T::Hand | T::Take | T::Flip | T::TurnBack | T::Clean => Who::Writer,
            T::CompactionTakes | T::CompactionFlips | T::CompactionTurnsBack => Who::Compaction,
            T::Move | T::GiveUp => Who::Remover,
            T::ComeBack => Who::RemoverWriting,
        }
    }

    /// The rows of the table that say what it does: what was there, and the event. (A fork has none: it changes no backing.)
    #[cfg(not(loom))]
    pub(crate) fn rows(self) -> &'static [(&'static str, &'static str)] {
        match self {
            T::StorePattern => &[("any but `Moving`", "store of a pattern"), ("`Moving(h, b)`", "store")],
            T::StorePage => &[("any but `Moving`", "store of another page"), ("`Moving(h, b)`", "store")],
            T::ReleaseSole => &[("any", "release by the sole owner")],
            T::ReleaseOne => &[("any", "release by one of several owners")],
            T::ReleaseLast => &[("any", "release by the last of several owners")],
            T::Load => &[
                ("`Pool(h)`", "load"),
                ("`Moving(h, b)`", "load"),
                ("`Segment(a)`", "load"),
                ("`Poisoned`", "load"),
            ],
            T::Damage => {
                &[("`Segment(a)`", "load finds damage"), ("`Pool(h)`", "load finds that it does not decode")]
            }
            T::Fork => &[],
            T::Hand => &[("`Pool(h)`", "clock hand passes, accessed")],
            T::Take => &[("`Pool(h)`", "clock hand takes it")],
            T::Flip => &[("`Moving(h, b)`", "the segment is written")],
            T::TurnBack => &[(
                "`Moving(h, b)`",
                "the write failed, the disk is full, or its cluster has just gone to a group that is written elsewhere",
            )],
            T::CompactionTakes => &[("`Pool(h)`", "compaction takes it")],
            T::CompactionFlips => &[("`Moving(h, 31)`", "copied to `h'`")],
            T::CompactionTurnsBack => &[("`Moving(h, 31)`", "there is no room for the copy")],
            T::Clean => &[("`Segment(a)`", "cleaned")],
            T::Move => &[("`Segment(a)`", "its segment moves to another tier")],
            T::GiveUp => &[("`Segment(a)`", "its tier is given up, unreadable")],
            T::ComeBack => &[("`Segment(a)`", "its tier is emptied, and memory alone has room")],
            T::PassOver => &[("`Segment(a)`", "a store's hand passes, accessed")],
        }
    }

    /// Why two cannot meet on one slot, as the matrix says it; `None` if they can.
    pub(crate) fn apart(self, other: Self) -> Option<char> {
        use Who::{Compaction, Last, Owner, Remover, RemoverWriting, Sole, Writer};
        let stores = |one| matches!(one, T::StorePattern | T::StorePage);
        let loads = |one| matches!(one, T::Load | T::Damage);
        match (self.who(), other.who()) {
            // An mremap stores to pages that their owner is just loading.
            _ if stores(self) && loads(other) || loads(self) && stores(other) => None,
            (Sole, Sole | Owner | Last) | (Owner | Last, Sole) => Some('o'),
            (Last, Last) => Some('l'),
            (Last, Owner) if other != T::ReleaseOne => Some('l'),
            (Owner, Last) if self != T::ReleaseOne => Some('l'),
            (Writer, Writer | RemoverWriting) | (RemoverWriting, Writer) => Some('w'),
            (Compaction, Compaction) => Some('c'),
            (Remover | RemoverWriting, Remover | RemoverWriting) => Some('r'),
            _ => None,
        }
    }
}

/// The matrix of docs/transitions.md: a cell for each pair, the later of the two in the list first. (The other half is blank.)
pub(crate) fn matrix() -> Vec<Vec<char>> {
    let mut lines = section("## Pairs").filter(|line| line.starts_with('|'));
    let heads: Vec<_> = cells(lines.next().expect("a head")).skip(1).map(str::to_owned).collect();
    let numbers: Vec<_> = (1..=T::ALL.len()).map(|number| number.to_string()).collect();
    assert_eq!(heads, numbers, "the head of the matrix");
    let rows = lines.skip(1).zip(T::ALL).zip(1..).map(|((line, transition), number)| {
        let mut cells = cells(line);
        let name = cells.next().expect("a name");
        assert_eq!(name, format!("{number} {}", transition.name()), "the rows are the transitions");
        let cells: Vec<_> = cells.collect();
        assert_eq!(cells.len(), T::ALL.len(), "{line}");
        let (said, blank) = cells.split_at(number);
        assert!(blank.iter().all(|cell| cell.is_empty()), "{line}");
        said.iter().map(|cell| cell.parse().unwrap_or_else(|_| panic!("{name}: {cell:?}"))).collect()
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows.len(), T::ALL.len(), "a row for each transition");
    rows
}

/// The lines of a section of docs/transitions.md.
pub(crate) fn section(title: &str) -> impl Iterator<Item = &'static str> {
    let text = include_str!("../../../../docs/transitions.md");
    let start = format!("{title}\n");
    let (_, rest) = text.split_once(&start).unwrap_or_else(|| panic!("docs/transitions.md has no {title:?}"));
    rest.split("\n## ").next().unwrap_or_default().lines()
}

/// The cells of a table's line.
pub(crate) fn cells(line: &str) -> impl Iterator<Item = &str> {
    line.trim().trim_start_matches('|').strip_suffix('|').unwrap_or_default().split('|').map(str::trim)
}
