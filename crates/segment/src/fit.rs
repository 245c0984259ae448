//! Whether what is on a tier would fit the others, whoever may be where. No I/O.

use crate::Purpose;
use crate::classes::{ClassId, Classes};
use crate::tiers::Free;

/// What came of trying it on paper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fit {
    /// Segments for which there is no room.
    pub(crate) lacks: u64,
    /// Segments that these classes could move at all.
    pub(crate) room: u64,
    /// The classes, in the order in which they are to move.
    pub(crate) order: Vec<ClassId>,
}

impl Fit {
    /// Moves so many segments of each class to the open tiers, as they would be taken: the highest priority first, and who has least room moves first.
    pub(crate) fn of(free: &[Free], classes: &Classes, mut wanted: Vec<(ClassId, u64)>) -> Self {
        // Alone, without the others.
        let room = |class: ClassId| take(&mut free.to_vec(), &mut classes.clone(), class, u64::MAX);
        wanted.sort_by_cached_key(|(class, _)| (room(*class), *class));
        let order = wanted.iter().map(|(class, _)| *class).collect();
        let (mut left, mut charged) = (free.to_vec(), classes.clone());
        let moved =
            |(class, segments): &(ClassId, u64)| segments - take(&mut left, &mut charged, *class, *segments);
        let lacks = wanted.iter().map(moved).sum();
        let (mut left, mut charged) = (free.to_vec(), classes.clone());
        let room = wanted.iter().map(|(class, _)| take(&mut left, &mut charged, *class, u64::MAX)).sum();
        Self { lacks, room, order }
    }
}

/// Takes as many segments of a class as there is room for, `most` at most. Gives how many.
fn take(free: &mut [Free], classes: &mut Classes, class: ClassId, most: u64) -> u64 {
    let mut taken = 0;
    for at in 0..free.len() {
        let Free { tier, extents, room, of } = free[at];
        let allowed = u64::from(classes.room(class, tier, Purpose::Migration));
        let here = (most - taken).min(extents).min(room).min(allowed);
        classes.charge_many(class, tier, here);
        free[at].extents -= here;
        let sharing = |(other, free): (usize, &Free)| other == at || (of.is_some() && free.of == of);
        let shared: Vec<usize> = free
            .iter()
            .enumerate()
            .filter(|(other, free)| sharing((*other, free)))
            .map(|(other, _)| other)
            .collect();
        shared.into_iter().for_each(|other| free[other].room -= here);
        taken += here;
    }
    taken
}
