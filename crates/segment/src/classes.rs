//! Classes: who may have how many extents of which tier. No I/O.
//!
//! A segment belongs to one class from its reservation to its death, whoever owns its pages by then. Classes are a tree: an extent is charged to the
//! class of its segment and to all above it, so the limit that counts is the least on the way up. Who they are is the engine's to know.
//!
//! # Invariants
//! - Everything is charged to [`ClassId::COMMON`], which stays; so its usage is what is in use of each tier.
//! - No charge passes a limit; a limit below the usage takes nothing away.
//! - A class that was given up has no limits and nothing below it. Its number is used again when nothing is charged to it.

use crate::Purpose;
use crate::extents::TierId;
use crate::tiers::MAX_TIERS;

/// Classes at a time.
const MOST: usize = 1 << u8::BITS;
/// Extents of a limit that only cleaning may take, so that a class at its limit can still be packed.
const CLEANING_RESERVE: u32 = 1;
/// Limits below this have no such reserve.
const RESERVE_FROM: u32 = 4;
const NO_LIMIT: u32 = u32::MAX;

/// Whose a segment is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ClassId(u8);

impl ClassId {
    /// Everybody who is in no other; above all others.
    pub const COMMON: Self = Self(0);

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The class of a number; whether there is one is another question.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(number)
    }
}

/// What a class has of a tier, and may have: extents of one segment each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// The tier.
    pub tier: TierId,
    /// What it and those below it have.
    pub usage: u64,
    /// What it may have; `None` is no limit.
    pub limit: Option<u64>,
    /// What it may have as things stand: the least of its limit and those above.
    pub effective: Option<u64>,
}

/// Whose segment's end on a tier would let a class have one there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Help {
    /// Anybody's: it is at no limit there, and what it lacks is room on the tier.
    OfAny,
    /// Of those in this class, the nearest that is at its limit.
    Within(ClassId),
    /// Nobody's: it may never have any there.
    OfNone,
}

#[derive(Clone, Debug)]
struct Class {
    above: ClassId,
    given_up: bool,
    limits: [u32; MAX_TIERS],
    usage: [u32; MAX_TIERS],
    /// Extents that are its own, not those of a class below it.
    own: u32,
    /// It may have something on this tier only.
    only: Option<TierId>,
}

/// All classes.
#[derive(Clone, Debug)]
pub(crate) struct Classes {
    /// By number.
    all: Vec<Option<Box<Class>>>,
}

impl Default for Classes {
    fn default() -> Self {
        Self { all: vec![Some(Box::new(Class::below(ClassId::COMMON)))] }
    }
}

impl Class {
    fn below(above: ClassId) -> Self {
        Self {
            above,
            given_up: false,
            limits: [NO_LIMIT; MAX_TIERS],
            usage: [0; MAX_TIERS],
            own: 0,
            only: None,
        }
    }

    fn limit(&self, tier: TierId) -> u32 {
        let elsewhere = self.only.is_some_and(|only| only != tier);
        if elsewhere { 0 } else { self.limits[usize::from(tier.0)] }
    }

    fn room(&self, tier: TierId, purpose: Purpose) -> u32 {
        let at = usize::from(tier.0);
        match self.limit(tier) {
            NO_LIMIT => NO_LIMIT,
            limit => limit.saturating_sub(reserve(purpose, limit)).saturating_sub(self.usage[at]),
        }
    }
}

/// What of a limit is not for this.
fn reserve(purpose: Purpose, limit: u32) -> u32 {
    if purpose != Purpose::Cleaning && limit >= RESERVE_FROM { CLEANING_RESERVE } else { 0 }
}

impl Classes {
    /// Makes a class below `above`, without limits; `below` were directly below that one, and are below the new one from now on. `None` if there
    /// are as many as can be, or no `above`.
    pub(crate) fn add(&mut self, above: ClassId, below: &[ClassId]) -> Option<ClassId> {
        self.get(above).filter(|class| !class.given_up)?;
        let vacant = self.all.iter().position(Option::is_none);
        let at = vacant.or_else(|| (self.all.len() < MOST).then_some(self.all.len()))?;
        let mut made = Class::below(above);
        let new = ClassId(at as u8);
        for id in below {
            let Some(class) = self.get_mut(*id).filter(|class| class.above == above) else { continue };
            class.above = new;
            made.usage.iter_mut().zip(class.usage).for_each(|(sum, usage)| *sum += usage);
        }
        if at == self.all.len() {
            self.all.push(None);
        }
        self.all[at] = Some(Box::new(made));
        Some(new)
    }

    /// What a class has is its parent's from now on, and so are the classes below it. No row changes: what is charged to it goes on being charged to
    /// those above, which had counted it before.
    pub(crate) fn give_up(&mut self, id: ClassId) {
        let Some(class) = self.get_mut(id).filter(|_| id != ClassId::COMMON) else { return };
        (class.limits, class.given_up) = ([NO_LIMIT; MAX_TIERS], true);
        let above = class.above;
        let mut left = class.usage;
        for other in self.all.iter_mut().flatten().filter(|other| other.above == id) {
            other.above = above;
            left.iter_mut().zip(other.usage).for_each(|(rest, usage)| *rest -= usage);
        }
        if let Some(class) = self.get_mut(id) {
            class.usage = left;
        }
        self.forget_if_over(id);
    }

    fn forget_if_over(&mut self, id: ClassId) {
        if self.get(id).is_some_and(|class| class.given_up && class.own == 0) {
            self.all[usize::from(id.0)] = None;
        }
    }

    /// Sets what a class may have of a tier. False if there is no such class.
    pub(crate) fn limit(&mut self, id: ClassId, tier: TierId, extents: Option<u32>) -> bool {
        let class = self.get_mut(id).filter(|class| !class.given_up);
        let found = class.map(|class| class.limits[usize::from(tier.0)] = extents.unwrap_or(NO_LIMIT));
        found.is_some()
    }

    /// From now on a class may have something on this tier only, whichever others come.
    pub(crate) fn confine(&mut self, id: ClassId, tier: TierId) {
        if let Some(class) = self.get_mut(id) {
            class.only = Some(tier);
        }
    }

    /// The tier is there no more; another may get its number.
    pub(crate) fn forget_tier(&mut self, tier: TierId) {
        for class in self.all.iter_mut().flatten() {
            debug_assert_eq!(class.usage[usize::from(tier.0)], 0, "{tier} goes with something on it");
            class.limits[usize::from(tier.0)] = NO_LIMIT;
        }
    }

    /// Extents of a tier that a class may still take.
    pub(crate) fn room(&self, id: ClassId, tier: TierId, purpose: Purpose) -> u32 {
        self.up(id).map(|(_, class)| class.room(tier, purpose)).min().unwrap_or(0)
    }

    /// An extent is a class's from now on.
    pub(crate) fn charge(&mut self, id: ClassId, tier: TierId) {
        self.charge_many(id, tier, 1);
    }

    /// So many are.
    pub(crate) fn charge_many(&mut self, id: ClassId, tier: TierId, extents: u64) {
        let by = u32::try_from(extents).unwrap_or(u32::MAX);
        self.change(id, tier, |count| *count = count.saturating_add(by));
    }

    /// An extent is a class's no more.
    pub(crate) fn uncharge(&mut self, id: ClassId, tier: TierId) {
        self.change(id, tier, |count| {
            debug_assert!(*count > 0, "{tier}: class {} gives back what it has not", id.0);
            *count = count.saturating_sub(1);
        });
        self.forget_if_over(id);
    }

    fn change(&mut self, id: ClassId, tier: TierId, change: impl Fn(&mut u32)) {
        if let Some(class) = self.get_mut(id) {
            change(&mut class.own);
        }
        let mut at = Some(id);
        while let Some(class) = at.and_then(|at| self.get_mut(at)) {
            change(&mut class.usage[usize::from(tier.0)]);
            at = at.filter(|at| *at != ClassId::COMMON).map(|_| class.above);
        }
    }

    /// Whose segments would have to die on a tier that `wanting` could have one there.
    pub(crate) fn help(&self, wanting: ClassId, tier: TierId) -> Help {
        let at_limit = |class: &Class| class.room(tier, Purpose::Writeback) == 0;
        let mut full = self.up(wanting).filter(|(_, class)| at_limit(class));
        let Some((nearest, _)) = full.next() else { return Help::OfAny };
        let never = |(_, class): (ClassId, &Class)| {
            let limit = class.limit(tier);
            limit <= reserve(Purpose::Writeback, limit)
        };
        if self.up(wanting).any(never) { Help::OfNone } else { Help::Within(nearest) }
    }

    /// Whether the end of a segment of `dying` is such help.
    pub(crate) fn helps(&self, help: Help, dying: ClassId) -> bool {
        match help {
            Help::OfAny => true,
            Help::Within(class) => self.is_within(dying, class),
            Help::OfNone => false,
        }
    }

    /// What a class has and may have of a tier.
    pub(crate) fn share(&self, id: ClassId, tier: TierId) -> Share {
        let at = usize::from(tier.0);
        let some = |limit: u32| (limit < NO_LIMIT).then_some(u64::from(limit));
        let class = self.get(id);
        Share {
            tier,
            usage: class.map_or(0, |class| class.usage[at].into()),
            limit: class.and_then(|class| some(class.limit(tier))),
            effective: self.up(id).map(|(_, class)| class.limit(tier)).min().and_then(some),
        }
    }

    /// Charges `to` what is charged here, and tells whether that is all the same: rows counted anew against what was counted on the way.
    pub(crate) fn agree(&self, rows: impl Iterator<Item = (ClassId, TierId)>) -> Result<(), String> {
        let mut anew = self.clone();
        for class in anew.all.iter_mut().flatten() {
            (class.usage, class.own) = ([0; MAX_TIERS], 0);
        }
        rows.for_each(|(class, tier)| anew.charge(class, tier));
        for (number, (counted, known)) in anew.all.iter().zip(&self.all).enumerate() {
            let figures = |class: &Option<Box<Class>>| class.as_ref().map(|class| (class.own, class.usage));
            if figures(counted) != figures(known) {
                let (counted, known) = (figures(counted), figures(known));
                return Err(format!("class {number} has {counted:?} and is charged {known:?}"));
            }
        }
        Ok(())
    }

    pub(crate) fn metadata_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Option<Box<Class>>>()
            + self.all.iter().flatten().count() * size_of::<Class>()
    }

    /// The class and all above it.
    fn up(&self, id: ClassId) -> impl Iterator<Item = (ClassId, &Class)> {
        let first = self.get(id).map(|class| (id, class));
        std::iter::successors(first, |(at, class)| {
            let above = (*at != ClassId::COMMON).then_some(class.above)?;
            Some((above, self.get(above)?))
        })
    }

    fn is_within(&self, id: ClassId, above: ClassId) -> bool {
        self.up(id).any(|(at, _)| at == above)
    }

    fn get(&self, id: ClassId) -> Option<&Class> {
        self.all.get(usize::from(id.0))?.as_deref()
    }

    fn get_mut(&mut self, id: ClassId) -> Option<&mut Class> {
        self.all.get_mut(usize::from(id.0))?.as_deref_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Act {
        Add { above: usize, adopting: usize },
        GiveUp(usize),
        Limit { class: usize, tier: u8, limit: Option<u32> },
        Take { class: usize, tier: u8, purpose: Purpose },
        Give(usize),
        Move { extent: usize, tier: u8 },
        Forget(u8),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let (class, tier) = (|| 0..8usize, || 0..3u8);
        let purpose =
            prop_oneof![Just(Purpose::Writeback), Just(Purpose::Cleaning), Just(Purpose::Migration)];
        let act = prop_oneof![
            2 => (class(), class()).prop_map(|(above, adopting)| Act::Add { above, adopting }),
            1 => class().prop_map(Act::GiveUp),
            3 => (class(), tier(), prop::option::weighted(0.8, 0..7u32))
                .prop_map(|(class, tier, limit)| Act::Limit { class, tier, limit }),
            9 => (class(), tier(), purpose).prop_map(|(class, tier, purpose)| Act::Take { class, tier, purpose }),
            5 => (0..40usize).prop_map(Act::Give),
            3 => (0..40usize, tier()).prop_map(|(extent, tier)| Act::Move { extent, tier }),
            1 => tier().prop_map(Act::Forget),
        ];
        prop::collection::vec(act, 1..120)
    }

    /// Nothing is summed up here: every extent is a line, every question a look at all of them.
    #[derive(Default)]
    struct Naive {
        /// Parent, limits, whether it was given up; the first is everybody.
        classes: Vec<(usize, [Option<u32>; 3], bool)>,
        numbers: Vec<ClassId>,
        extents: Vec<(usize, u8)>,
    }

    impl Naive {
        fn new() -> Self {
            Self { classes: vec![(0, [None; 3], false)], numbers: vec![ClassId::COMMON], extents: Vec::new() }
        }

        /// Those that can still be named.
        fn there(&self) -> Vec<usize> {
            (0..self.classes.len()).filter(|at| !self.classes[*at].2).collect()
        }

        fn pick(&self, at: usize) -> usize {
            let there = self.there();
            there[at % there.len()]
        }

        fn up(&self, mut at: usize) -> Vec<usize> {
            let mut up = vec![at];
            while at != 0 {
                at = self.classes[at].0;
                up.push(at);
            }
            up
        }

        fn usage(&self, class: usize, tier: u8) -> u32 {
            let here = |(of, on): &&(usize, u8)| *on == tier && self.up(*of).contains(&class);
            self.extents.iter().filter(here).count() as u32
        }

        fn may_take(&self, class: usize, tier: u8, purpose: Purpose) -> bool {
            self.up(class).into_iter().all(|at| {
                let most = match self.classes[at].1[usize::from(tier)] {
                    None => return true,
                    Some(limit) if limit >= 4 && purpose != Purpose::Cleaning => limit - 1,
                    Some(limit) => limit,
                };
                self.usage(at, tier) < most
            })
        }
    }

    fn step(classes: &mut Classes, naive: &mut Naive, act: &Act) {
        match *act {
            Act::Add { above, adopting } => {
                let above = naive.pick(above);
                let adopted: Vec<usize> = (1..naive.classes.len())
                    .filter(|at| naive.classes[*at].0 == above && !naive.classes[*at].2)
                    .filter(|at| at % 8 <= adopting)
                    .collect();
                let below: Vec<ClassId> = adopted.iter().map(|at| naive.numbers[*at]).collect();
                let Some(new) = classes.add(naive.numbers[above], &below) else { panic!("few were made") };
                let at = naive.classes.len();
                naive.classes.push((above, [None; 3], false));
                naive.numbers.push(new);
                adopted.into_iter().for_each(|below| naive.classes[below].0 = at);
            }
            Act::GiveUp(class) => {
                let class = naive.pick(class);
                classes.give_up(naive.numbers[class]);
                if class > 0 {
                    let above = naive.classes[class].0;
                    naive.classes[class] = (above, [None; 3], true);
                    for other in 1..naive.classes.len() {
                        if naive.classes[other].0 == class {
                            naive.classes[other].0 = above;
                        }
                    }
                }
            }
            Act::Limit { class, tier, limit } => {
                let class = naive.pick(class);
                assert!(classes.limit(naive.numbers[class], TierId(tier), limit));
                naive.classes[class].1[usize::from(tier)] = limit;
            }
            Act::Take { class, tier, purpose } => {
                let class = naive.pick(class);
                let may = classes.room(naive.numbers[class], TierId(tier), purpose) > 0;
                assert_eq!(may, naive.may_take(class, tier, purpose), "{act:?}");
                if may {
                    classes.charge(naive.numbers[class], TierId(tier));
                    naive.extents.push((class, tier));
                }
            }
            Act::Give(at) if !naive.extents.is_empty() => {
                let (class, tier) = naive.extents.swap_remove(at % naive.extents.len());
                classes.uncharge(naive.numbers[class], TierId(tier));
            }
            Act::Move { extent, tier } if !naive.extents.is_empty() => {
                let at = extent % naive.extents.len();
                let (class, from) = naive.extents[at];
                if classes.room(naive.numbers[class], TierId(tier), Purpose::Migration) > 0 {
                    classes.charge(naive.numbers[class], TierId(tier));
                    classes.uncharge(naive.numbers[class], TierId(from));
                    naive.extents[at].1 = tier;
                }
            }
            Act::Forget(tier) if naive.usage(0, tier) == 0 => {
                classes.forget_tier(TierId(tier));
                naive.classes.iter_mut().for_each(|class| class.1[usize::from(tier)] = None);
            }
            Act::Give(_) | Act::Move { .. } | Act::Forget(_) => {}
        }
    }

    fn compare(classes: &Classes, naive: &Naive) {
        for (class, tier) in naive.there().into_iter().flat_map(|class| (0..3).map(move |tier| (class, tier)))
        {
            let share = classes.share(naive.numbers[class], TierId(tier));
            assert_eq!(share.usage, u64::from(naive.usage(class, tier)), "class {class}, tier {tier}");
            let limits = naive.up(class).into_iter().filter_map(|at| naive.classes[at].1[usize::from(tier)]);
            assert_eq!(share.effective, limits.min().map(u64::from));
        }
        let rows = naive.extents.iter().map(|(class, tier)| (naive.numbers[*class], TierId(*tier)));
        classes.agree(rows).unwrap();
        // A number is another's only when nothing is left of who had it.
        let has = |at: &usize| !naive.classes[*at].2 || naive.extents.iter().any(|(class, _)| class == at);
        let held: Vec<usize> = (0..naive.classes.len()).filter(has).collect();
        let numbers: std::collections::BTreeSet<ClassId> = held.iter().map(|at| naive.numbers[*at]).collect();
        assert_eq!(numbers.len(), held.len());
        assert_eq!(classes.all.iter().flatten().count(), held.len(), "and then it is free");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn limits_and_usage_are_those_of_a_look_at_every_extent(acts in acts()) {
            let (mut classes, mut naive) = (Classes::default(), Naive::new());
            for act in &acts {
                step(&mut classes, &mut naive, act);
                compare(&classes, &naive);
            }
        }
    }

    #[test]
    fn what_dies_elsewhere_is_of_no_use_to_a_class_at_its_limit() {
        let mut classes = Classes::default();
        let above = classes.add(ClassId::COMMON, &[]).unwrap();
        let (one, other) = (classes.add(above, &[]).unwrap(), classes.add(above, &[]).unwrap());
        let tier = TierId(0);
        let helps = |classes: &Classes, wanting, dying| classes.helps(classes.help(wanting, tier), dying);
        assert!(helps(&classes, one, ClassId::COMMON), "what lacks is room on the tier");
        classes.limit(above, tier, Some(2));
        [one, other].into_iter().for_each(|class| classes.charge(class, tier));
        assert!(helps(&classes, one, other) && !helps(&classes, one, ClassId::COMMON));
        classes.limit(one, tier, Some(1));
        assert!(helps(&classes, one, one) && !helps(&classes, one, other));
        classes.limit(one, tier, Some(0));
        assert!(!helps(&classes, one, one), "it may never have any");
        assert!(helps(&classes, ClassId::COMMON, other));
    }

    #[test]
    fn there_are_so_many_numbers() {
        let mut classes = Classes::default();
        let made: Vec<ClassId> = std::iter::from_fn(|| classes.add(ClassId::COMMON, &[])).collect();
        assert_eq!(made.len(), MOST - 1);
        classes.charge(made[7], TierId(3));
        classes.give_up(made[7]);
        assert_eq!(classes.add(ClassId::COMMON, &[]), None, "something is left");
        classes.uncharge(made[7], TierId(3));
        assert_eq!(classes.add(ClassId::COMMON, &[]), Some(made[7]));
        classes.give_up(ClassId::COMMON);
        assert_eq!(classes.share(ClassId::COMMON, TierId(0)).limit, None);
    }
}
