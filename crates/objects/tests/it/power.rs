//! A store on disks that lose power: after each loss it is what it was at the last commit, or at the one that was under way.

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use vswap_core::ByteCount;
use vswap_engine::{CodecChoice, EngineConfig};
use vswap_objects::{NamedError, NamedObject, Store, StoreConfig};
use vswap_segment::power::Power;
use vswap_segment::{Extent, Lender, SEGMENT_BYTES};

#[path = "../../src/store/on_power.rs"]
pub mod on_power;

use on_power::Index;

const DATA: usize = 24 << 20;
const FILE: u64 = 4711;

#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    version: u64,
    /// `None` is not there.
    bytes: Vec<Option<u8>>,
    aux: Vec<u8>,
    pinned: bool,
}

impl Model {
    fn new(version: u64) -> Arc<Self> {
        Arc::new(Self { version, ..Self::default() })
    }
}

type Models = BTreeMap<(u8, u8), Arc<Model>>;

struct Machine {
    data: Arc<Power>,
    index: Arc<Power>,
    store: Arc<Store>,
    crowded: bool,
    /// Users of objects, which may be gone.
    users: Vec<NamedObject>,
    /// What somebody else has of the disk, and writes to.
    lent: Vec<Extent>,
    now: Models,
    synced: Models,
}

/// `crowded`: of the objects that nobody uses hardly any stays in memory.
fn config(crowded: bool) -> StoreConfig {
    let engine = EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() };
    let index_cache = if crowded { 2048 } else { 1 << 20 };
    StoreConfig { engine, index_cache, page_cache: 1 << 20, marks: None, ..StoreConfig::default() }
}

/// What is written to these objects is dirty.
const DIRTY: u8 = 5;

fn key(key: u8) -> Vec<u8> {
    vec![key; usize::from(key) * 40 % 4096]
}

impl Machine {
    /// With `fillers`, each of several clusters has few slots free, so that objects do not all have theirs in the same ones.
    fn new(fillers: u8, crowded: bool) -> Self {
        let (data, index) = (Power::new(DATA), Power::new(0));
        let made =
            Store::create_on(Arc::clone(&data) as _, FILE, Index(Arc::clone(&index)), &config(crowded));
        let store = made.unwrap();
        for number in 0..fillers {
            let filler = store.object(b"fillers", &[number], 0).unwrap();
            filler.set_len(4096 * 422).unwrap();
            filler.write(0, &[1, 2, 3]).unwrap();
            filler.pin().unwrap();
        }
        store.sync().unwrap();
        Self {
            data,
            index,
            store,
            crowded,
            users: Vec::new(),
            lent: Vec::new(),
            now: Models::new(),
            synced: Models::new(),
        }
    }

    fn check(&self) {
        self.store.audit().unwrap();
        assert_eq!(differs(&self.store, &self.now), None);
    }

    /// What the models are where what need not stay has gone, or what differs otherwise.
    fn given_up(&self, wanted: &Models) -> Result<Models, String> {
        let mut left = wanted.clone();
        for (name, model) in wanted {
            // One without bytes may go whatever was written to it before.
            let held = model.pinned || name.1 == DIRTY && model.bytes.iter().any(Option::is_some);
            let Some(found) = self.store.find(&[name.0], &key(name.1)).unwrap() else {
                if held {
                    return Err(format!("{name:?} is not there, and is held"));
                }
                left.remove(name);
                continue;
            };
            let missing = found.missing(0..found.len().min(model.bytes.len() as u64));
            let bytes = &mut Arc::make_mut(left.get_mut(name).expect("it is in both")).bytes;
            for byte in missing.into_iter().flatten() {
                if bytes[byte as usize].take().is_some() && held {
                    return Err(format!("byte {byte} of {name:?} is missing, and held"));
                }
            }
        }
        differs(&self.store, &left).map_or(Ok(left), Err)
    }

    /// With models of nothing.
    fn opened_after_a_cut(self, chance: &mut impl FnMut() -> u64) -> Self {
        let (data, index) = (self.data.cut(&mut *chance), self.index.cut(&mut *chance));
        drop((self.users, self.store));
        let (disk, crowded) = (Index(Arc::clone(&index)), self.crowded);
        let store = Store::open_on(Arc::clone(&data) as _, FILE, disk, &config(crowded)).unwrap();
        let (now, synced) = (Models::new(), Models::new());
        Self { data, index, store, crowded, users: Vec::new(), lent: Vec::new(), now, synced }
    }

    /// A commit, while others change things of which it is to keep nothing and which they are to find as they left them.
    fn sync_with_others(&mut self, seed: u64) -> Result<(), NamedError> {
        let now = Arc::new(Mutex::new(std::mem::take(&mut self.now)));
        for (device, stream) in [(&self.data, 0), (&self.index, 1)] {
            let (now, store, mut chance) =
                (Arc::clone(&now), Arc::downgrade(&self.store), random(seed ^ stream));
            device.during_syncs(Some(Box::new(move || {
                let store = store.upgrade().expect("it syncs");
                let mut now = now.lock().unwrap();
                for _ in 0..chance() % 4 {
                    let name = ((chance() % 2) as u8, (chance() % 6) as u8);
                    change(&store, &mut now, chance() % 28, name, &mut chance);
                }
                if chance().is_multiple_of(4) {
                    // To segments that this commit does not know, with room that it is yet to free.
                    for group in store.engine().groups() {
                        let _ = store.engine().write_ahead(group.id);
                    }
                }
                if chance().is_multiple_of(8) {
                    store.audit().unwrap();
                }
                assert_eq!(differs(&store, &now), None);
                assert_eq!(unlisted(&store, &now), None);
            })));
        }
        let done = self.store.sync();
        self.data.during_syncs(None);
        self.index.during_syncs(None);
        self.now = std::mem::take(&mut now.lock().unwrap());
        done
    }

    /// The power goes and comes back; `maybe` is what a commit that failed would have kept.
    fn cut(self, maybe: Option<Models>, chance: &mut impl FnMut() -> u64) -> Self {
        let (now, synced) = (self.synced.clone(), self.synced.clone());
        let mut machine = Self { now, synced, ..self.opened_after_a_cut(chance) };
        machine.store.audit().unwrap();
        if let Some(maybe) = maybe.filter(|maybe| differs(&machine.store, maybe).is_none()) {
            (machine.now, machine.synced) = (maybe.clone(), maybe);
        }
        machine.check();
        machine
    }

    /// The power goes while something is given up of one of these.
    fn cut_to_any(self, of: &[Models], chance: &mut impl FnMut() -> u64) -> Self {
        let mut machine = self.opened_after_a_cut(chance);
        let now = of.iter().find_map(|models| machine.given_up(models).ok());
        machine.now = now.expect("it is one of them, less what need not stay");
        machine.synced = machine.now.clone();
        machine
    }
}

/// What of the store is not as it is wanted.
fn differs(store: &Arc<Store>, wanted: &Models) -> Option<String> {
    (0..2).find_map(|volume| differs_in(store, volume, wanted))
}

/// The same, of one volume.
fn differs_in(store: &Arc<Store>, volume: u8, wanted: &Models) -> Option<String> {
    let differs = |at| {
        let found = store.find(&[volume], &key(at)).unwrap();
        let (found, model) = match (found, wanted.get(&(volume, at))) {
            (None, None) => return None,
            (Some(found), Some(model)) => (found, model),
            (found, _) => return Some(format!("{volume} {at}: is there: {}", found.is_some())),
        };
        found.audit().unwrap();
        if (found.version(), found.aux(), found.len(), found.is_pinned())
            != (model.version, model.aux.clone(), model.bytes.len() as u64, model.pinned)
        {
            return Some(format!("{volume} {at}: version, aux, length or pin"));
        }
        let mut buf = vec![9; model.bytes.len()];
        let missing = found.read(0, &mut buf).unwrap().missing;
        let mut bytes: Vec<_> = buf.into_iter().map(Some).collect();
        missing.into_iter().for_each(|range| bytes[range.start as usize..range.end as usize].fill(None));
        let first = bytes.iter().zip(&model.bytes).position(|(found, wanted)| found != wanted);
        first.map(|byte| {
            format!("{volume} {at}: byte {byte} is {:?}, wanted {:?}", bytes[byte], model.bytes[byte])
        })
    };
    (0..6).find_map(differs)
}

/// What no commit comes of and what does not fail, by its kind, below 28: also while one is under way.
fn change(store: &Arc<Store>, now: &mut Models, kind: u64, name: (u8, u8), chance: &mut impl FnMut() -> u64) {
    match kind {
        0..10 if !now.contains_key(&name) => {}
        0..6 => {
            let object = store.find(&[name.0], &key(name.1)).unwrap().unwrap();
            let (from, to) = (chance() % 50_000, chance() % 300_000);
            object.punch(from..to.max(from));
            let model = Arc::make_mut(now.get_mut(&name).unwrap());
            let end = model.bytes.len();
            model.bytes[(from as usize).min(end)..(to.max(from) as usize).min(end)].fill(None);
        }
        6..10 => {
            let object = store.find(&[name.0], &key(name.1)).unwrap().unwrap();
            let len = chance() % 100_000;
            object.set_len(len).unwrap();
            let model = Arc::make_mut(now.get_mut(&name).unwrap());
            model.bytes.resize(len as usize, None);
        }
        10..14 => {
            let version = now.get(&name).map_or(1, |model| model.version) + chance() % 2;
            let object = store.object(&[name.0], &key(name.1), version).unwrap();
            let aux = chance().to_le_bytes().to_vec();
            object.set_aux(&aux).unwrap();
            let model = now.entry(name).or_default();
            if model.version != version {
                // A pin is the name's.
                *model = Arc::new(Model { version, pinned: model.pinned, ..Model::default() });
            }
            Arc::make_mut(model).aux = aux;
        }
        14..16 => {
            // All keys of one byte begin with that of a shorter one.
            let prefix = &key(name.1)[..key(name.1).len().min(1)];
            store.invalidate(&[name.0], prefix).unwrap();
            now.retain(|(volume, at), _| *volume != name.0 || !key(*at).starts_with(prefix));
        }
        16..20 => {
            let there = now.remove(&name).is_some();
            assert_eq!(store.remove(&[name.0], &key(name.1)).unwrap(), there);
        }
        20..22 => {
            if let Some(object) = store.find(&[name.0], &key(name.1)).unwrap() {
                let model = Arc::make_mut(now.get_mut(&name).unwrap());
                model.pinned = !model.pinned;
                match model.pinned {
                    true => object.pin().unwrap(),
                    false => object.unpin(),
                }
            }
        }
        // There is room for so little without another commit.
        _ if store.engine().durable_room().get() > 14 << 20 => {
            let (offset, noise) = (chance() % 20_000, chance());
            let version = now.get(&name).map_or(1, |model| model.version);
            let object = store.object(&[name.0], &key(name.1), version).unwrap();
            let written: Vec<u8> =
                (0..5000u32).map(|at| (noise.rotate_left(at % 61) >> (at % 8)) as u8).collect();
            match name.1 {
                DIRTY => object.write_dirty(offset, &written).unwrap(),
                _ => object.write(offset, &written).unwrap(),
            }
            let model = Arc::make_mut(now.entry(name).or_insert_with(|| Model::new(version)));
            let (from, to) = (offset as usize, offset as usize + written.len());
            model.bytes.resize(model.bytes.len().max(to), None);
            model.bytes[from..to].iter_mut().zip(written).for_each(|(there, byte)| *there = Some(byte));
        }
        _ => {}
    }
}

/// A volume whose list is not that of its models.
fn unlisted(store: &Arc<Store>, wanted: &Models) -> Option<u8> {
    (0..2).find(|volume| is_unlisted(store, *volume, wanted))
}

fn is_unlisted(store: &Arc<Store>, volume: u8, wanted: &Models) -> bool {
    let mut listed = Vec::new();
    let each = |found: vswap_objects::Listed| {
        listed.push((found.key, found.version, found.len.get()));
        true
    };
    store.list(&[volume], b"", each).unwrap();
    let model = |at| Some((key(at), wanted.get(&(volume, at))?));
    let models = (0..6).filter_map(model);
    let mut models: Vec<_> =
        models.map(|(key, model)| (key, model.version, model.bytes.len() as u64)).collect();
    models.sort();
    listed != models
}

/// Numbers from a seed.
fn random(seed: u64) -> impl FnMut() -> u64 + Send {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    move || rng.next_u64()
}

pub fn play(seed: u64, steps: usize) -> (usize, usize) {
    let mut chance = random(seed);
    let mut machine = Machine::new(if seed.is_multiple_of(2) { 0 } else { 8 }, seed % 3 == 1);
    let (mut commits, mut cuts, mut doom) = (0, 0, 0_u32);
    for step in 0..steps {
        let name = ((chance() % 2) as u8, (chance() % 6) as u8);
        doom = doom.saturating_sub(1);
        // What a commit has kept whose end was not seen.
        let mut maybe = None;
        let mut dead = chance().is_multiple_of(150) || doom == 1;
        let (mut before, known) = (machine.now.clone(), machine.store.commits());
        match chance() % 100 {
            0..60 => {
                // Of one of a few sizes, at the beginning mostly.
                let (offset, len) =
                    (chance() % [1, 10_000, 300_000][step % 3], chance() % [100, 9000, 60_000][step % 3]);
                let noise = chance();
                let written: Vec<u8> = match noise % 4 {
                    0 => vec![noise as u8; len as usize],
                    _ => (0..len).map(|at| (noise.rotate_left(at as u32 % 61) >> (at % 8)) as u8).collect(),
                };
                let model = machine.now.get(&name).cloned();
                let version = model.as_ref().map_or(1, |model| model.version);
                // It is made first, and then a commit of its own may make room for what is written.
                before.entry(name).or_insert_with(|| Model::new(version));
                let object = machine.store.object(&[name.0], &key(name.1), version);
                let done = object.and_then(|object| {
                    // Some go on with what they have when it is gone.
                    if noise.is_multiple_of(5) {
                        machine.users.push(object.clone());
                    }
                    match name.1 {
                        DIRTY => object.write_dirty(offset, &written),
                        _ => object.write(offset, &written),
                    }
                });
                match done {
                    Ok(()) => {
                        let model = machine.now.entry(name).or_insert_with(|| Model::new(version));
                        let model = Arc::make_mut(model);
                        let end = (offset + len) as usize;
                        if len > 0 && model.bytes.len() < end {
                            model.bytes.resize(end, None);
                        }
                        for (at, byte) in written.iter().enumerate() {
                            model.bytes[offset as usize + at] = Some(*byte);
                        }
                    }
                    // Nobody looks any more at what there is in memory. The room was looked for before anything was written.
                    Err(_) => (dead, maybe) = (true, Some(before.clone())),
                }
                if machine.store.commits() > known {
                    machine.synced = before;
                }
            }
            at @ (60..80 | 85..87) => {
                let at = if at < 80 { at - 60 } else { at - 65 };
                change(&machine.store, &mut machine.now, at, name, &mut chance);
            }
            80..83 if machine.users.len() > 5 => machine.users.truncate(chance() as usize % 3),
            80..83 if chance().is_multiple_of(2) => {
                for user in machine.users.iter().filter(|user| user.is_gone()) {
                    if user.write(chance() % 20_000, &[7; 5000]).is_err() {
                        (dead, maybe) = (true, Some(before.clone()));
                    }
                }
                if machine.store.commits() > known {
                    machine.synced = before;
                }
            }
            80..83 => {
                let device = if chance().is_multiple_of(2) { &machine.data } else { &machine.index };
                device.fail_after(chance() % 30);
                doom = 2 + (chance() % 12) as u32;
            }
            83..85 => {
                let wanted = ByteCount::new(chance() % (8 << 20));
                let done = machine.store.reclaim(wanted);
                if done.is_err() {
                    // It may have come to any of its commits.
                    let synced = machine.synced.clone();
                    machine = machine.cut_to_any(&[before, synced], &mut chance);
                    (cuts, doom) = (cuts + 1, 0);
                    continue;
                }
                machine.now = machine.given_up(&machine.now).expect("only what need not stay goes");
                machine.synced = machine.now.clone();
            }
            87..89 if machine.lent.len() < 2 => {
                let lent = machine.store.lend_segments(1 + (chance() % 2) as u32);
                let noise = vec![chance() as u8; SEGMENT_BYTES / 32];
                for extent in &lent {
                    // Its first bytes and others: the disk keeps notes of each sector.
                    for part in [0, chance() % 32] {
                        let _ = machine.data.write(extent.offset() + part * noise.len() as u64, &noise);
                    }
                }
                if machine.store.commits() > known {
                    machine.synced = before.clone();
                }
                if lent.is_empty() && doom > 0 {
                    // The commit that was to make room for it may have failed.
                    (dead, maybe) = (true, Some(before));
                }
                machine.lent.extend(lent);
            }
            87..89 => {
                let keep = chance() as usize % machine.lent.len();
                machine.store.take_back(&machine.lent.split_off(keep));
            }
            _ => match machine.sync_with_others(chance()) {
                Ok(()) => {
                    commits += 1;
                    machine.synced = before;
                }
                Err(_) => (dead, maybe) = (true, Some(before)),
            },
        }
        if dead {
            cuts += 1;
            doom = 0;
            machine = machine.cut(maybe, &mut chance);
        } else if step % 100 == 0 {
            machine.check();
        }
    }
    (commits, cuts)
}

#[test]
fn after_a_loss_of_power_a_store_is_as_it_was_at_a_commit() {
    for seed in 0..3 {
        let (commits, cuts) = play(seed, 800);
        assert!(commits > 30 && cuts > 3, "{commits} commits, {cuts} cuts");
    }
}

/// More objects than a commit removes: the index has to have what ends them.
#[test]
fn an_invalidation_during_a_commit_is_kept_by_the_next_one() {
    let mut machine = Machine::new(0, false);
    for number in 0..5000_u32 {
        machine.store.object(b"many", &number.to_be_bytes(), 1).unwrap();
    }
    machine.store.sync().unwrap();
    machine.store.object(b"few", b"one", 1).unwrap().write(0, b"something to be synced").unwrap();
    let store = Arc::downgrade(&machine.store);
    let invalidate = move || store.upgrade().expect("it syncs").invalidate(b"many", b"").unwrap();
    machine.data.during_syncs(Some(Box::new(invalidate)));
    machine.store.sync().unwrap();
    machine.data.during_syncs(None);
    machine.store.sync().unwrap();
    machine = machine.opened_after_a_cut(&mut || 1);
    let mut left = 0;
    let count = |_| {
        left += 1;
        true
    };
    machine.store.list(b"many", b"", count).unwrap();
    assert_eq!(left, 0);
    assert!(machine.store.find(b"few", b"one").unwrap().is_some());
}

/// Each of these threads has a volume of its own.
#[test]
fn threads_find_their_objects_as_they_left_them_at_any_moment_of_a_commit() {
    for seed in 0..4 {
        let machine = Machine::new(0, seed % 2 == 1);
        let store = &machine.store;
        let models: Vec<Models> = std::thread::scope(|scope| {
            let change_them = |volume: u8| {
                let (mut chance, mut now) = (random(seed * 100 + u64::from(volume)), Models::new());
                for step in 0..600 {
                    let name = (volume, (chance() % 6) as u8);
                    change(store, &mut now, chance() % 28, name, &mut chance);
                    if step % 4 == 0 {
                        assert_eq!(differs_in(store, volume, &now), None);
                        assert!(!is_unlisted(store, volume, &now));
                    }
                }
                now
            };
            let threads: Vec<_> = (0..3).map(|volume| scope.spawn(move || change_them(volume))).collect();
            while !threads.iter().all(|thread| thread.is_finished()) {
                store.sync().unwrap();
            }
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        store.sync().unwrap();
        let machine = machine.opened_after_a_cut(&mut || 1);
        machine.store.audit().unwrap();
        for (volume, model) in models.iter().enumerate() {
            assert_eq!(differs_in(&machine.store, volume as u8, model), None);
        }
    }
}
