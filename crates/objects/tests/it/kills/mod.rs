//! A store whose process is killed at any moment, by a signal that nobody catches: whoever opens it next finds it as it was at one moment since the last sync that returned, less what may be
//! given up, and goes on with it.
//!
//! What a killed process has written is in the kernel's memory and arrives; what is lost with the power is in `power.rs`. Here the files are real, and so are the threads, whose
//! order nobody knows but by what they say before and after each thing that they do.

mod journal;
mod model;
mod victim;

pub use victim::run as victim;

use journal::{Line, Name, Op, Outcome, THREADS, What, volume};
use model::{Found, Models};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;
use vswap_engine::{CodecChoice, EngineConfig};
use vswap_objects::{NamedObject, Store, StoreConfig};

/// So small that it is full soon.
const DATA: u64 = 20 << 20;
/// Of so many kills one is of a process that makes a store.
const MAKING: u64 = 10;
/// A process that is to be killed has begun within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers that look random (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }
}

fn config(seed: u64) -> StoreConfig {
    let engine = EngineConfig { codec: CodecChoice::Lz4, ..EngineConfig::default() };
    let config = StoreConfig { engine, index_cache: 1 << 20, page_cache: 1 << 20, ..StoreConfig::default() };
    // One that gives nothing up by itself refuses what finds no room.
    if seed.is_multiple_of(4) { StoreConfig { marks: None, ..config } } else { config }
}

fn written(noise: u64, len: u64) -> Vec<u8> {
    match noise % 4 {
        0 => vec![noise as u8; len as usize],
        _ => (0..len).map(|at| (noise.rotate_left(at as u32 % 61) >> (at % 8)) as u8).collect(),
    }
}

fn aux(object: &NamedObject) -> u64 {
    object.aux().try_into().map_or(0, u64::from_le_bytes)
}

/// How a process is started that calls [`victim`] with this directory and seed.
pub type Start<'s> = &'s dyn Fn(&Path, u64) -> Command;

/// What has been seen.
#[derive(Clone, Copy, Default, Debug)]
pub struct Figures {
    pub kills: u64,
    /// Of these, before the store was open.
    pub while_opening: u64,
    /// In the middle of a sync.
    pub while_syncing: u64,
    /// In the middle of something else, of any thread.
    pub while_changing: u64,
    /// Before a store that was being made was whole.
    pub while_making: u64,
    pub operations: u64,
    pub syncs: u64,
    /// Stores that were found with something of after the last sync that had returned.
    pub beyond: u64,
    /// Attempts to open a store that somebody had, all refused.
    pub refused: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kills,
            while_opening,
            while_syncing,
            while_changing,
            while_making,
            operations,
            syncs,
            beyond,
            refused,
        } = self;
        write!(
            f,
            "{kills} kills ({while_making} while a store was made, {while_opening} while one was opened, {while_syncing} in a sync, {while_changing} in a change), \
             {operations} operations, {syncs} syncs, {beyond} found with more than was synced, {refused} other users refused"
        )
    }
}

/// Kills so many processes, one after the other, that have the same store, and looks at it after each.
///
/// # Errors
/// What was found that should not be, or not found that should.
pub fn play(seed: u64, kills: u64, start: Start<'_>) -> Result<Figures, String> {
    let scratch = tempfile::tempdir_in("/var/tmp").map_err(|error| error.to_string())?;
    let (dir, new) = (scratch.path().join("store"), scratch.path().join("new"));
    drop(Store::create(&dir, DATA, &config(1)).map_err(|error| error.to_string())?);
    let (mut figures, mut models) = (Figures::default(), vec![Models::new(); THREADS.into()]);
    for round in 0..kills {
        let chance = Chance(seed << 32 | round);
        let making = round % MAKING == MAKING - 1;
        let done = match making {
            false => Life { dir: &dir, start, chance, figures: &mut figures }.end(&mut models),
            true => {
                let mut none = vec![Models::new(); THREADS.into()];
                Life { dir: &new, start, chance, figures: &mut figures }.end_making(&mut none)
            }
        };
        if let Err(what) = done {
            let kept = scratch.keep();
            return Err(format!("seed {seed}, kill {round}: {what} (kept in {})", kept.display()));
        }
        if making {
            std::fs::remove_dir_all(&new).map_err(|error| error.to_string())?;
        }
    }
    Ok(figures)
}

/// Something that a thread did.
struct Entry {
    op: Op,
    outcome: Option<Outcome>,
    /// Lines of the journal.
    begin: usize,
    end: usize,
}

type History = Vec<Entry>;

/// One process, from its start to its death.
struct Life<'f> {
    dir: &'f Path,
    start: Start<'f>,
    chance: Chance,
    figures: &'f mut Figures,
}

impl Life<'_> {
    fn end(mut self, models: &mut [Models]) -> Result<(), String> {
        let lines = self.live_and_die(false)?;
        let histories = self.histories(lines)?;
        self.look(&histories, models)
    }

    /// Of a process that makes the store first: what is left of one that was never whole is in nobody's way.
    fn end_making(mut self, models: &mut [Models]) -> Result<(), String> {
        let lines = self.live_and_die(true)?;
        if !self.dir.join("index").exists() {
            self.figures.while_making += 1;
            let made = Store::create(self.dir, DATA, &config(1));
            return made.map(drop).map_err(|error| format!("what is left of a store: {error}"));
        }
        let histories = self.histories(lines)?;
        self.look(&histories, models)
    }

    /// Gives what it said. It is killed some time after it began, or after the store was open.
    fn live_and_die(&mut self, early: bool) -> Result<Vec<Line>, String> {
        let seed = self.chance.next();
        let mut command = (self.start)(self.dir, seed);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("no process: {error}"))?;
        let out = child.stdout.take().expect("it was asked for");
        let (said, ready) = (Mutex::new(Vec::new()), channel());
        thread::scope(|scope| {
            scope.spawn(|| {
                let ready = ready.0;
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let Some(line) = Line::decode(&line) else { continue };
                    if line.what == What::Ready {
                        let _ = ready.send(());
                    }
                    said.lock().expect("nobody panics with it").push(line);
                }
            });
            let lived = self.wait(early, &ready.1);
            let ended = child.try_wait();
            let killed = child.kill().and_then(|()| child.wait());
            self.figures.kills += 1;
            match (lived, ended, killed) {
                (Err(what), ..) => Err(what),
                (_, Ok(None), Ok(_)) => Ok(()),
                (_, ended, _) => Err(format!("it ended by itself: {ended:?}")),
            }
        })
        .map_err(|what| {
            // It may have said why.
            let said = said.lock().expect("nobody panics with it");
            format!("{what}; {:?}", said.last().map(|line| &line.what))
        })?;
        Ok(said.into_inner().expect("nobody panics with it"))
    }

    fn wait(&mut self, early: bool, ready: &Receiver<()>) -> Result<(), String> {
        let kind = self.chance.next() % 6;
        let within = Duration::from_micros;
        if early || kind == 0 {
            thread::sleep(within(self.chance.next() % 80_000));
            return Ok(());
        }
        ready.recv_timeout(PATIENCE).map_err(|error| format!("it did not open the store: {error}"))?;
        if kind == 1 {
            match Store::open(self.dir, &config(1)) {
                Ok(_) => return Err("two have the store".into()),
                Err(_) => self.figures.refused += 1,
            }
        }
        thread::sleep(within(self.chance.next() % [400_000, 20_000, 100_000][(kind % 3) as usize]));
        Ok(())
    }

    /// What each thread did.
    fn histories(&mut self, lines: Vec<Line>) -> Result<Vec<History>, String> {
        if lines.is_empty() {
            self.figures.while_opening += 1;
        }
        let mut histories: Vec<History> = (0..THREADS).map(|_| Vec::new()).collect();
        for (at, Line { thread, what }) in lines.into_iter().enumerate() {
            let history = &mut histories[usize::from(thread)];
            match what {
                What::Ready => {}
                What::Begin(op) => history.push(Entry { op, outcome: None, begin: at, end: usize::MAX }),
                What::End(Outcome::Failed(what)) => return Err(what),
                What::End(outcome) => {
                    let last = history.last_mut().ok_or("something ends that did not begin")?;
                    (last.outcome, last.end) = (Some(outcome), at);
                }
            }
        }
        let of_all = || histories.iter().flatten();
        let syncs = |entry: &&Entry| entry.op == Op::Sync;
        let unfinished: Vec<_> = of_all().filter(|entry| entry.outcome.is_none()).collect();
        self.figures.operations += of_all().count() as u64;
        self.figures.syncs += of_all().filter(syncs).filter(|entry| entry.outcome.is_some()).count() as u64;
        self.figures.while_syncing += u64::from(unfinished.iter().any(&syncs));
        self.figures.while_changing += u64::from(unfinished.iter().any(|entry| !syncs(entry)));
        Ok(histories)
    }

    /// Opens the store, and has the models be what it is. An error is what is wrong with it.
    fn look(&mut self, histories: &[History], models: &mut [Models]) -> Result<(), String> {
        // At once: the dead has no lock.
        let store =
            Store::open(self.dir, &config(1)).map_err(|error| format!("it does not open: {error}"))?;
        store.audit().map_err(|error| error.to_string())?;
        let found = found(&store)?;
        let synced = synced(histories);
        let mut candidates = Vec::new();
        for (thread, history) in histories.iter().enumerate() {
            let least = history.iter().take_while(|entry| entry.end < synced).count();
            candidates.push(moments(history, least, &models[thread], &found[thread])?);
        }
        let together = |first: &usize, second: &usize| {
            before(&histories[0], *first, &histories[1], *second)
                && before(&histories[1], *second, &histories[0], *first)
        };
        let pairs = candidates[0].iter().flat_map(|(first, least)| {
            candidates[1].iter().map(move |(second, other)| ([*first, *second], *least && *other))
        });
        let (_, at_least) = pairs
            .clone()
            .find(|(moments, _)| together(&moments[0], &moments[1]))
            .ok_or("what the threads did is not there as of one moment")?;
        self.figures.beyond += u64::from(!at_least);
        let moments = pairs.map(|(moments, _)| moments).find(|moments| together(&moments[0], &moments[1]));
        for (thread, moment) in moments.into_iter().flatten().enumerate() {
            settle(&mut models[thread], &histories[thread][..moment], &found[thread])?;
        }
        Ok(())
    }
}

/// All that ended before this line of the journal is synced.
fn synced(histories: &[History]) -> usize {
    let returned = |entry: &&Entry| {
        matches!((&entry.op, &entry.outcome), (Op::Sync | Op::Reclaim { .. }, Some(Outcome::Done)))
    };
    histories.iter().flatten().filter(returned).map(|entry| entry.begin).max().unwrap_or(0)
}

/// What of a thread's history, from its beginning, may be what was found; not less than `least`. Says of each whether it is the least.
fn moments(
    history: &History,
    least: usize,
    models: &Models,
    found: &BTreeMap<Name, Found>,
) -> Result<Vec<(usize, bool)>, String> {
    let mut models = models.clone();
    let (mut wrong, mut moments, mut nearest) = (BTreeMap::new(), Vec::new(), None);
    let mut stale: BTreeSet<Name> = Name::all().collect();
    for moment in 0..=history.len() {
        if let Some(entry) = moment.checked_sub(1).map(|last| &history[last]) {
            model::act(&mut models, &entry.op, entry.outcome.as_ref())?;
            stale.extend(Name::all().filter(|name| model::touches(&entry.op, *name)));
        }
        if moment < least {
            continue;
        }
        for name in std::mem::take(&mut stale) {
            match model::differs(&models, name, found.get(&name)) {
                Some(what) => wrong.insert(name, what),
                None => wrong.remove(&name),
            };
        }
        if wrong.is_empty() {
            moments.push((moment, moment == least));
        } else if nearest.as_ref().is_none_or(|(_, few): &(usize, Vec<String>)| few.len() > wrong.len()) {
            nearest = Some((moment, wrong.values().cloned().collect()));
        }
    }
    if moments.is_empty() {
        let last: Vec<_> = history.iter().rev().take(5).map(|entry| (&entry.op, &entry.outcome)).collect();
        return Err(format!(
            "as of no moment between {least} and {}; nearest is {nearest:?}; last were {last:?}",
            history.len()
        ));
    }
    Ok(moments)
}

/// Whether nothing is among the first `many` of one thread's that began when something had ended that is not among the first of the other's.
fn before(one: &History, many: usize, other: &History, of_others: usize) -> bool {
    let left_out = other.get(of_others).map_or(usize::MAX, |entry| entry.end);
    one[..many].last().is_none_or(|last| last.begin < left_out)
}

/// What the objects of each thread are.
fn found(store: &std::sync::Arc<Store>) -> Result<Vec<BTreeMap<Name, Found>>, String> {
    let mut all = Vec::new();
    let mut known = BTreeSet::new();
    for thread in 0..THREADS {
        let mut of_thread = BTreeMap::new();
        for name in Name::all() {
            let (volume, key) = (volume(name.shared, thread), name.key_of(thread));
            let object = store.find(&volume, &key).map_err(|error| format!("{name:?}: {error}"))?;
            known.insert((volume, key));
            if let Some(object) = object {
                object.audit().map_err(|what| format!("{name:?}: {what}"))?;
                of_thread.insert(name, seen(&object).map_err(|error| format!("{name:?}: {error}"))?);
            }
        }
        all.push(of_thread);
    }
    let mut others = 0;
    for volume in store.volumes() {
        let each = |listed: vswap_objects::Listed| {
            others += usize::from(listed.damaged || !known.contains(&(volume.clone(), listed.key)));
            true
        };
        store.list(&volume, b"", each).map_err(|error| error.to_string())?;
    }
    if others > 0 {
        return Err(format!("{others} objects that nobody made, or damaged"));
    }
    Ok(all)
}

fn seen(object: &NamedObject) -> Result<Found, vswap_objects::ObjectError> {
    let mut bytes = vec![0; object.len() as usize];
    let missing = object.read(0, &mut bytes)?.missing;
    let mut bytes: Vec<_> = bytes.into_iter().map(Some).collect();
    missing.into_iter().for_each(|range| bytes[range.start as usize..range.end as usize].fill(None));
    let (version, aux) = (object.version(), aux(object));
    Ok(Found { version, bytes, aux, pinned: object.is_pinned(), dirty: object.is_dirty() })
}

/// The next process begins with what was found.
fn settle(models: &mut Models, history: &[Entry], found: &BTreeMap<Name, Found>) -> Result<(), String> {
    for entry in history {
        model::act(models, &entry.op, entry.outcome.as_ref())?;
    }
    models.retain(|name, _| found.contains_key(name));
    for (name, object) in models {
        let found = &found[name];
        (object.bytes, object.aux, object.or_new) = (found.bytes.clone(), found.aux, false);
    }
    Ok(())
}

/// Where the test says it to its other self.
#[cfg(test)]
const SAID: [&str; 2] = ["VSWAP_VICTIM_DIR", "VSWAP_VICTIM_SEED"];

#[test]
fn a_store_whose_process_is_killed_is_as_it_was_at_one_moment_since_its_last_sync() {
    let myself = std::env::current_exe().unwrap();
    let start = |dir: &Path, seed: u64| {
        let mut command = Command::new(&myself);
        command.args(["--exact", "kills::is_killed_by_another_test", "--ignored", "--nocapture"]);
        command.env(SAID[0], dir).env(SAID[1], seed.to_string());
        command
    };
    let figures = play(1, 24, &start).unwrap_or_else(|what| panic!("{what}"));
    eprintln!("{figures}");
    assert!(figures.kills == 24 && figures.syncs > 24 && figures.beyond > 0, "{figures}");
}

#[test]
#[ignore = "is a process that another test starts"]
fn is_killed_by_another_test() {
    let [Some(dir), Some(seed)] = SAID.map(std::env::var_os) else { return };
    victim(Path::new(&dir), seed.to_str().unwrap().parse().unwrap());
}
