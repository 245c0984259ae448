//! Every interleaving of charges, removals and moves of clusters between groups:
//! `RUSTFLAGS="--cfg loom" cargo test -p vswap-core --release --test it`.
//!
//! What is proven: whatever meets, each live group has in the end what is charged to it and those below it, and no usage was ever below zero
//! (which the core asserts).
use loom::sync::Arc;
use loom::thread;
use vswap_core::sync::{AtomicU64, Ordering};
use vswap_core::{ClusterCharge, GROUP_WORDS, GroupId, Groups, Load, Resource};

const PARENT: GroupId = GroupId::new(1);
const MIDDLE: GroupId = GroupId::new(2);
const CHILD: GroupId = GroupId::new(3);

/// Root, one below it, one below that, and one below that; and a cluster of the last.
struct World {
    words: Vec<AtomicU64>,
    cluster: AtomicU64,
}

impl World {
    fn new() -> Arc<Self> {
        let words = (0..4 * GROUP_WORDS).map(|_| AtomicU64::new(0)).collect();
        let cluster = AtomicU64::new(ClusterCharge::new(CHILD).to_word());
        let world = Self { words, cluster };
        for (group, parent) in [(PARENT, GroupId::ROOT), (MIDDLE, PARENT), (CHILD, MIDDLE)] {
            world.groups().make(group, parent).unwrap();
        }
        Arc::new(world)
    }

    fn groups(&self) -> Groups<'_> {
        Groups::new(&self.words)
    }

    fn usage(&self, group: GroupId) -> u64 {
        self.groups().usage(group, Resource::Swap)
    }

    fn cluster(&self) -> ClusterCharge {
        ClusterCharge::from_word(self.cluster.load(Ordering::Relaxed))
    }

    /// As the engine's `charge`.
    fn charge(&self, load: Load) {
        loop {
            let group = self.cluster().group();
            self.groups().charge(group, Resource::Swap, load.pages.into()).unwrap();
            let add = |word: u64| {
                let same = ClusterCharge::from_word(word).group() == group;
                same.then(|| word.wrapping_add(load.to_word()))
            };
            if self.cluster.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok() {
                return;
            }
            self.groups().uncharge(group, Resource::Swap, load.pages.into());
        }
    }

    /// As the engine's `uncharge`.
    fn uncharge(&self, load: Load) {
        let before = self.cluster.fetch_add(load.to_word().wrapping_neg(), Ordering::Relaxed);
        let group = ClusterCharge::from_word(before).group();
        self.groups().uncharge(group, Resource::Swap, load.pages.into());
    }

    /// As the engine's `regroup_cluster`.
    fn regroup(&self, to: GroupId) {
        loop {
            let seen = self.cluster();
            let (from, pages) = (seen.group(), u64::from(seen.load().pages));
            self.groups().force_apart(to, from, Resource::Swap, pages);
            let (old, new) = (seen.to_word(), seen.of_group(to).to_word());
            let moved = self.cluster.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            let (loser, keeper) = if moved { (from, to) } else { (to, from) };
            self.groups().uncharge_apart(loser, keeper, Resource::Swap, pages);
            if moved {
                return;
            }
        }
    }
}

fn spawn(world: &Arc<World>, act: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || act(&world))
}

fn load(pages: u16) -> Load {
    Load { pages, pool: 0 }
}

/// Undone past the group that had refused, it took from those above what they never had.
#[test]
fn a_refused_charge_is_taken_back_as_far_as_it_came_though_who_refused_is_removed_meanwhile() {
    for refusing in [MIDDLE, CHILD] {
        loom::model(move || {
            let world = World::new();
            world.groups().set_limit(refusing, Resource::Swap, 1).unwrap();
            let charger = spawn(&world, |world| {
                let charged = world.groups().charge(CHILD, Resource::Swap, 2).is_ok();
                world.cluster.store(charged.into(), Ordering::Relaxed);
            });
            world.groups().remove(refusing).unwrap();
            charger.join().unwrap();
            let charged = world.cluster.load(Ordering::Relaxed) == 1;
            let expected = if charged { 2 } else { 0 };
            assert_eq!([PARENT, GroupId::ROOT].map(|group| world.usage(group)), [expected; 2]);
        });
    }
}

/// Taken from the one before the other had it, what left the cluster in between was taken off twice.
#[test]
fn what_comes_and_goes_while_a_cluster_changes_its_group_is_charged_to_one_of_them() {
    loom::model(|| {
        let world = World::new();
        world.charge(load(3));
        let mover = spawn(&world, |world| world.regroup(PARENT));
        world.charge(load(2));
        world.uncharge(load(4));
        mover.join().unwrap();
        assert_eq!((world.cluster().group(), world.cluster().load()), (PARENT, load(1)));
        let usage = [GroupId::ROOT, PARENT, MIDDLE, CHILD].map(|group| world.usage(group));
        assert_eq!(usage, [1, 1, 0, 0]);
    });
}
