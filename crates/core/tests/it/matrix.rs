//! docs/transitions.md and the list of transitions say the same. (Whether its pairs were tried, `pairs.rs` tells, under loom.)
use crate::transitions::{Transition, Who, cells, matrix, section};
use std::collections::BTreeSet;

/// From, event and who of each row of the main table.
fn table() -> Vec<[&'static str; 3]> {
    let lines = section("## The table").filter(|line| line.starts_with('|')).skip(2);
    let row = |line: &'static str| {
        let cells: Vec<_> = cells(line).collect();
        let [from, event, _, who, _, _, _, _] = cells[..] else { panic!("{line}") };
        [from, event, who]
    };
    lines.map(row).collect()
}

#[test]
fn each_row_of_the_table_is_a_transition_and_each_transition_a_row() {
    let rows: BTreeSet<_> = table().into_iter().map(|[from, event, _]| (from, event)).collect();
    assert_eq!(rows.len(), table().len(), "a row is there twice");
    let known = Transition::ALL.iter().flat_map(|transition| transition.rows().iter().copied()).collect();
    assert_eq!(rows, known);
    let without: Vec<_> = Transition::ALL.into_iter().filter(|one| one.rows().is_empty()).collect();
    assert_eq!(without, [Transition::Fork]);
}

#[test]
fn who_does_it_is_who_the_table_says() {
    for transition in Transition::ALL {
        let said: &[_] = match transition.who() {
            Who::Sole => &["sole owner"],
            Who::Owner => &["any owner", "that owner", "the reader"],
            Who::Last => &["that owner"],
            Who::Writer => &["writer of batches"],
            Who::Compaction => &["the one compaction"],
            Who::Remover => &["who removes the tier"],
            Who::RemoverWriting => &["who removes the tier, as the writer of batches"],
        };
        let rows =
            || table().into_iter().filter(|[from, event, _]| transition.rows().contains(&(from, event)));
        assert!(rows().all(|[_, _, who]| said.contains(&who)), "{transition:?}");
    }
}

#[test]
fn the_matrix_has_each_pair_and_says_why_two_cannot_meet() {
    let reasons: BTreeSet<char> =
        section("## Pairs").filter_map(|line| line.strip_prefix("- `")?.chars().next()).collect();
    for (row, later) in matrix().iter().zip(Transition::ALL) {
        for (cell, earlier) in row.iter().zip(Transition::ALL) {
            let pair = (later, earlier);
            assert!(reasons.contains(cell), "{pair:?}: {cell} is not explained");
            let tried = ['+', '.'].contains(cell);
            assert_eq!((!tried).then_some(*cell), later.apart(earlier), "{pair:?}");
            assert_eq!(later.apart(earlier), earlier.apart(later), "{pair:?}");
        }
    }
}
