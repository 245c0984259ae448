//! The process that is killed: changes a store from several threads until then.

use super::journal::{Below, Class, Journal, KEYS, Name, Op, Outcome, THREADS, What, volume};
use super::{Chance, DATA, config, written};
use std::path::Path;
use std::sync::Arc;
use vswap_objects::{ByteCount, NamedError, NamedObject, Store};

/// Opens the store there, or makes it, and changes it until it is killed or nobody reads what it says.
pub fn run(dir: &Path, seed: u64) -> ! {
    let journal = Journal::open();
    let config = config(seed);
    let opened = match dir.join("index").exists() {
        true => Store::open(dir, &config),
        false => Store::create(dir, DATA, &config),
    };
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            journal.say(0, What::End(Outcome::Failed(error.to_string())));
            std::process::exit(1);
        }
    };
    journal.say(0, What::Ready);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let chance = Chance(seed ^ u64::from(thread) << 56);
            let (store, journal) = (Arc::clone(&store), &journal);
            scope.spawn(move || Worker { thread, store, journal, chance, users: Vec::new() }.work());
        }
    });
    unreachable!("its threads have no end")
}

struct Worker<'j> {
    thread: u8,
    store: Arc<Store>,
    journal: &'j Journal,
    chance: Chance,
    /// Of objects that may be gone.
    users: Vec<NamedObject>,
}

impl Worker<'_> {
    fn work(mut self) {
        loop {
            self.step();
        }
    }

    fn below(&mut self, most: u64) -> u64 {
        self.chance.next() % most
    }

    /// Tells of it before and after.
    fn told<T>(&self, op: Op, act: impl FnOnce() -> Result<T, NamedError>) -> Option<T> {
        self.told_as(op, act, |_| Outcome::Done)
    }

    fn told_as<T>(
        &self,
        op: Op,
        act: impl FnOnce() -> Result<T, NamedError>,
        outcome: impl FnOnce(&T) -> Outcome,
    ) -> Option<T> {
        self.journal.say(self.thread, What::Begin(op));
        let done = act();
        let told = match &done {
            Ok(done) => outcome(done),
            Err(NamedError::Full | NamedError::PinnedFull { .. }) => Outcome::Refused,
            Err(error) => Outcome::Failed(format!("{op:?}: {error}")),
        };
        self.journal.say(self.thread, What::End(told));
        done.ok()
    }

    fn find(&self, name: Name) -> Option<NamedObject> {
        let found = self.store.find(&volume(name.shared, self.thread), &name.key_of(self.thread));
        found.unwrap_or_else(|error| {
            self.journal.say(self.thread, What::End(Outcome::Failed(format!("find {name:?}: {error}"))));
            None
        })
    }

    fn step(&mut self) {
        let name = Name { shared: self.below(2) == 0, key: self.below(KEYS.into()) as u8 };
        let (thread, store) = (self.thread, Arc::clone(&self.store));
        match self.below(100) {
            0..50 => self.write(name),
            50..57 => {
                let (from, more) = (self.below(50_000), self.below(250_000));
                if let Some(object) = self.find(name) {
                    let (from, to) = (from, from + more);
                    self.told(Op::Punch { name, from, to }, || {
                        object.punch(from..to);
                        Ok(())
                    });
                }
            }
            57..61 => {
                let len = self.below(100_000) / 3 * (self.below(4)).min(1);
                if let Some(object) = self.find(name) {
                    self.told(Op::SetLen { name, len }, || Ok(object.set_len(len)?));
                }
            }
            61..65 => {
                let aux = self.chance.next() | 1;
                if let Some(object) = self.find(name) {
                    self.told(Op::SetAux { name, aux }, || object.set_aux(&aux.to_le_bytes()));
                }
            }
            65..68 => match (name.class(), self.find(name)) {
                (Class::Pinned, Some(object)) => {
                    self.told(Op::Unpin { name }, || {
                        object.unpin();
                        Ok(())
                    });
                }
                (Class::Dirty, Some(object)) => {
                    let clean = || {
                        object.dirty().iter().for_each(|dirty| object.cleaned(dirty));
                        Ok(())
                    };
                    self.told(Op::Clean { name }, clean);
                }
                _ => {}
            },
            68..73 => {
                let remove = || store.remove(&volume(name.shared, thread), &name.key_of(thread));
                self.told(Op::Remove { name }, remove);
            }
            73..75 => {
                let some = [None, Some(0), Some(1)][self.below(3) as usize];
                let below = Below { shared: name.shared, some };
                let invalidate = || store.invalidate(&volume(name.shared, thread), &below.prefix(thread));
                self.told(Op::Invalidate { below }, invalidate);
            }
            75..77 => {
                let bytes = self.below(4 << 20);
                self.told(Op::Reclaim { bytes }, || store.reclaim(ByteCount::new(bytes)));
            }
            77..82 => {
                let left = self.below(4) as usize;
                let gone = self.users.iter().filter(|user| user.is_gone());
                // Whatever becomes of what nobody finds.
                gone.for_each(|user| drop(user.write(1000, &[7; 9000])));
                self.users.truncate(left);
            }
            _ => {
                self.told(Op::Sync, || store.sync());
            }
        }
    }

    fn write(&mut self, name: Name) {
        let (newer, kind) = (u64::from(self.below(10) == 0), self.below(3) as usize);
        let version = self.find(name).map_or(1, |found| found.version()) + newer;
        let (store, thread) = (Arc::clone(&self.store), self.thread);
        let open = || store.object(&volume(name.shared, thread), &name.key_of(thread), version);
        let opened = |object: &NamedObject| Outcome::Opened { len: object.len(), aux: super::aux(object) };
        let Some(object) = self.told_as(Op::Open { name, version }, open, opened) else { return };
        if self.below(5) == 0 {
            self.users.push(object.clone());
        }
        let is_new = object.is_empty();
        match name.class() {
            // What was cleaned may be given up, and is not written to again.
            Class::Dirty if !is_new && !object.is_dirty() => return,
            Class::Pinned if is_new && !object.is_pinned() => {
                let Some(()) = self.told(Op::Pin { name }, || object.pin()) else { return };
            }
            _ => {}
        }
        let (offset, len) =
            (self.below([1, 10_000, 200_000][kind]), 1 + self.below([100, 9000, 60_000][kind]));
        let noise = self.chance.next();
        let bytes = written(noise, len);
        self.told(Op::Write { name, offset, len, noise }, || match name.class() {
            Class::Dirty => object.write_dirty(offset, &bytes),
            _ => object.write(offset, &bytes),
        });
    }
}
