//! [`Store`]: objects that have names and outlive the run.
//!
//! The bytes are pages of one group of an engine, whose segments stay on a file of the store's; what is to be known to find them again is in an index beside it
//! (redb), which goes from one commit to the next whole or not at all. What has changed since the last commit is in memory only, so that a
//! crash finds everything as it was then.
//!
//! # Invariants
//! - At a commit, with the gate shut, what the index is given and what the engine lists are of one moment: whoever changes an object, or which objects there
//!   are, is in the gate.
//! - An object is in memory once, or not at all; while it is changed and not committed, it is.
//! - Numbers of objects are never used twice, also after a crash.
//!
//! # Lock order
//! The turn of commits, the list of what the last one listed, the gate, the books, an object's lock, the list of changed objects.

mod books;
mod checked;
pub(crate) mod commit;
pub(crate) mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod invalidate;
pub(crate) mod keeping;
mod lend;
pub(crate) mod list;
mod making;
pub(crate) mod named;
#[cfg(feature = "fuzz")]
mod on_power;
mod open;
mod pins;
pub(crate) mod reclaim;
pub(crate) mod records;
mod tombs;

use crate::content::Content;
use crate::object::Objects;
use crate::presence::PAGE;
use crate::slots::{Claim, Hot, Runs};
use crate::store::books::{Books, Found, found};
use crate::store::checked::Checked;
use crate::store::commit::Due;
use crate::store::error::NamedError;
use crate::store::keeping::{Changes, Keeping};
use crate::store::making::Making;
use crate::store::named::{Known, NamedObject};
use crate::store::open::Open;
use crate::store::pins::Pin;
use crate::store::reclaim::Marks;
use crate::store::records::{
    CLUSTERS, NAMES, NUMBERS, Numbers, OBJECTS, ObjectRecord, PINNED, SEGMENTS, TOMBS, VERSION, VOLUMES,
};
use parking_lot::Mutex;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, WriteTransaction};
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Instant;
use vswap_core::ByteCount;
use vswap_engine::{DurableTier, Engine, EngineConfig};
use vswap_segment::{Area, SegmentId, Storage};

/// The longest key of a volume or an object, bytes.
pub const MAX_KEY: usize = 4096;
/// The most auxiliary data of an object, bytes.
pub const MAX_AUX: usize = 64 << 10;

/// Names in a store's directory.
const DATA: &str = "data";
const INDEX: &str = "index";
/// A run's numbers, of objects and of segments.
const RUN_BITS: u32 = 32;
/// More than a store can have been opened.
const MOST_RUNS: u64 = 1 << 31;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The engine that is made for it. More tiers than the store's own take other memory's pages, not the store's.
    pub engine: EngineConfig,
    /// Memory for the index, bytes: half for its pages, half for objects that nobody uses at the moment.
    pub index_cache: usize,
    /// Memory for pages that are read often, bytes; for less than 64 pages none.
    pub page_cache: usize,
    /// When something is given up that is neither pinned nor dirty; `None` is never, so that a full store refuses what is written.
    pub marks: Option<Marks>,
    /// The part of the store that may be pinned, between 0 and 1.
    pub pinned: f64,
    /// The part of the store that others may have ([`Store::lend`]), between 0 and 1.
    pub lent: f64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            engine: EngineConfig::default(),
            index_cache: 16 << 20,
            page_cache: 64 << 20,
            marks: Some(Marks::default()),
            pinned: 0.5,
            lent: 0.75,
        }
    }
}

/// Named objects in a directory. See the crate's documentation.
pub struct Store {
    objects: Arc<Objects>,
    index: Database,
    books: Mutex<Books>,
    changes: Arc<Changes>,
    /// One commit at a time.
    turn: Mutex<()>,
    /// Segments that the last commit has listed, with their sequence numbers; for whoever commits.
    listed: Mutex<BTreeMap<SegmentId, u64>>,
    commits: AtomicU64,
    due: Due,
    /// The tier could not say that it has what was written.
    unsure: AtomicBool,
    /// Bytes of the tier.
    size: u64,
    marks: Option<Marks>,
    /// Pages that may be pinned.
    most_pinned: u64,
    /// Bytes that may be lent.
    most_lent: u64,
    /// Taken with the turn.
    hands: Mutex<reclaim::Hands>,
    /// Commits that are not followed by a look for what to give up.
    rest: AtomicU32,
    /// When there was nothing to lend.
    refused: Mutex<Option<Instant>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Makes a store in a directory that has none, with a file of `bytes` for what its objects hold, which take no room yet, and opens it.
    ///
    /// # Errors
    /// When there is one, or it cannot be made.
    pub fn create(dir: &Path, bytes: u64, config: &StoreConfig) -> Result<Arc<Self>, NamedError> {
        let making = Making::begin(dir)?;
        let (area, file) = Area::create_durable(&dir.join(DATA), bytes)?;
        let index = redb::backends::FileBackend::new(making.index()?)?;
        let store = Self::create_on(Arc::new(area), file, index, config)?;
        making.done()?;
        // The names too are to be there after a power cut.
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        for dir in [dir, parent] {
            let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(|source| NamedError::Io { path: dir.to_owned(), act: "sync", source })?;
        }
        Ok(store)
    }

    /// Opens the store in a directory.
    ///
    /// # Errors
    /// When there is none, somebody has it, or it is damaged.
    pub fn open(dir: &Path, config: &StoreConfig) -> Result<Arc<Self>, NamedError> {
        // First what is had by one user alone.
        let (area, file) = Area::open_durable(&dir.join(DATA))?;
        let path = dir.join(INDEX);
        let found = std::fs::OpenOptions::new().read(true).write(true).open(&path);
        let found = found.map_err(|source| NamedError::Io { path, act: "open", source })?;
        let index = redb::backends::FileBackend::new(found).map_err(NamedError::from);
        let opened = index.and_then(|index| Self::open_on(Arc::new(area), file, index, config));
        opened.map_err(|error| error.within(dir))
    }

    /// Makes a store of two disks that are empty, of which the first is known by the number `file`.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub fn create_on(
        data: Arc<dyn Storage>,
        file: u64,
        index: impl StorageBackend,
        config: &StoreConfig,
    ) -> Result<Arc<Self>, NamedError> {
        let index = Checked::open(index).map_err(redb::StorageError::from)?;
        let index = Self::builder(config).create_with_backend(index)?;
        // The standard library seeds each hasher from the kernel's random numbers.
        let key = RandomState::new().hash_one(file);
        let txn = begin_write(&index)?;
        {
            let mut numbers = txn.open_table(NUMBERS)?;
            for (name, number) in [("version", VERSION), ("file", file), ("key", key), ("runs", 0)] {
                numbers.insert(name, number)?;
            }
            txn.open_table(VOLUMES)?;
            txn.open_table(NAMES)?;
            txn.open_table(OBJECTS)?;
            txn.open_table(CLUSTERS)?;
            txn.open_table(SEGMENTS)?;
            txn.open_table(TOMBS)?;
            txn.open_table(PINNED)?;
        }
        txn.commit()?;
        Self::start(data, file, index, config)
    }

    /// Opens a store of two disks, of which the first is known by the number `file`. Nobody else has them.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(
        data: Arc<dyn Storage>,
        file: u64,
        index: impl StorageBackend,
        config: &StoreConfig,
    ) -> Result<Arc<Self>, NamedError> {
        // An empty file would be made an index.
        if index.len().map_err(redb::StorageError::from)? == 0 {
            return Err(NamedError::NoStore { what: "everything" });
        }
        let index = Checked::open(index).map_err(redb::StorageError::from)?;
        Self::start(data, file, Self::builder(config).create_with_backend(index)?, config)
    }

    fn builder(config: &StoreConfig) -> Builder {
        let mut builder = Builder::new();
        builder.set_cache_size(config.index_cache / 2);
        builder
    }

    fn start(
        data: Arc<dyn Storage>,
        file: u64,
        index: Database,
        config: &StoreConfig,
    ) -> Result<Arc<Self>, NamedError> {
        let numbers = begin_run(&index, file)?;
        let Found { kept, shelves, mut books, listed } = found(&index)?;
        let engine = Engine::new(config.engine.clone())?;
        let after = numbers.runs << RUN_BITS;
        let tier = DurableTier { priority: 0, key: numbers.key, after };
        let group = engine.open_durable(data, tier, &kept)?;
        let changes = Arc::<Changes>::default();
        let hot = Hot::new(ByteCount::new(config.page_cache as u64));
        let objects = Objects::kept(engine, group, shelves, hot)?;
        // Half of the memory for the index is for what was read of it.
        books.open = Open::new(config.index_cache / 2);
        books.next_object = after;
        let (books, turn, commits) = (Mutex::new(books), Mutex::new(()), AtomicU64::new(0));
        let (due, unsure, hands) = (Due::default(), AtomicBool::new(false), Mutex::default());
        let size = objects.engine().tiers().into_iter().next().map_or(0, |tier| tier.size.get());
        let (marks, most_pinned) = (config.marks, (size as f64 * config.pinned) as u64 / PAGE);
        let most_lent = (size as f64 * config.lent) as u64;
        Ok(Arc::new(Self {
            objects,
            index,
            books,
            changes,
            turn,
            listed: Mutex::new(listed),
            commits,
            due,
            unsure,
            size,
            marks,
            most_pinned,
            most_lent,
            hands,
            rest: AtomicU32::new(0),
            refused: Mutex::default(),
        }))
    }

    /// The object of this volume, key and version; made, empty, if there is none of that version. What there was of an older one is gone with that: nobody finds it any more, and
    /// its bytes end with its last user. If that was pinned, this one is.
    ///
    /// # Errors
    /// [`NamedError::Older`] when there is a newer one; when a key is too long, or the index cannot be read.
    pub fn object(
        self: &Arc<Self>,
        volume: &[u8],
        key: &[u8],
        version: u64,
    ) -> Result<NamedObject, NamedError> {
        check_keys(volume, key)?;
        // In the gate, since an older one may go.
        let _changing = self.changes.gate.read();
        let mut books = self.books.lock();
        let number = match books.volume(volume) {
            Some(number) => number,
            None => books.new_volume(volume)?,
        };
        // One that a tomb covers is there still, and goes before another takes its name.
        self.bury(&mut books, number, key)?;
        let mut pinned = false;
        if let Some(id) = self.id_of(&books, number, key)? {
            let found = self.loaded(&mut books, id)?;
            if found.version() > version {
                return Err(NamedError::Older { wanted: version, has: found.version() });
            }
            if found.version() == version {
                return Ok(NamedObject::of(self, found));
            }
            // A pin is the name's.
            pinned = found.is_pinned();
            books.remove(&found);
        }
        let id = books.next_object + 1;
        books.next_object = id;
        let name = ObjectRecord { volume: number, key: key.to_vec(), ..ObjectRecord::default() };
        let made = self.named(id, &ObjectRecord { version, pinned, ..name })?;
        if pinned {
            books.pins.0.insert(id, Pin::default());
        }
        books.names.insert((number, key.to_vec()), Some(id));
        books.open.insert(id, &made);
        self.changes.changed.lock().insert(id);
        Ok(NamedObject::of(self, made))
    }

    /// The object of this volume and key, of whichever version; `None` if there is none.
    ///
    /// # Errors
    /// When a key is too long, or the index cannot be read.
    pub fn find(self: &Arc<Self>, volume: &[u8], key: &[u8]) -> Result<Option<NamedObject>, NamedError> {
        check_keys(volume, key)?;
        let mut books = self.books.lock();
        let Some(number) = books.volume(volume) else { return Ok(None) };
        let Some(id) = self.id_of(&books, number, key)? else { return Ok(None) };
        self.loaded(&mut books, id).map(|found| Some(NamedObject::of(self, found)))
    }

    /// Nobody finds the object any more; its bytes end with its last user. Tells whether there was one.
    ///
    /// # Errors
    /// When a key is too long, or the index cannot be read.
    pub fn remove(self: &Arc<Self>, volume: &[u8], key: &[u8]) -> Result<bool, NamedError> {
        check_keys(volume, key)?;
        let _changing = self.changes.gate.read();
        let mut books = self.books.lock();
        let Some(number) = books.volume(volume) else { return Ok(false) };
        let Some(id) = self.id_of(&books, number, key)? else { return Ok(false) };
        self.end(&mut books, number, key, id)?;
        Ok(true)
    }

    /// The engine below, for figures, more tiers, and other owners.
    pub fn engine(&self) -> &Engine {
        self.objects.engine()
    }

    fn id_of(&self, books: &Books, volume: u32, key: &[u8]) -> Result<Option<u64>, NamedError> {
        let found = self.noted(books, volume, key)?;
        Ok(found.filter(|id| !books.tombs.covers(volume, key, *id)))
    }

    /// The object that a name stands for, also if it has been invalidated.
    fn noted(&self, books: &Books, volume: u32, key: &[u8]) -> Result<Option<u64>, NamedError> {
        if let Some(id) = books.open.named(volume, key) {
            return Ok(Some(id));
        }
        if let Some(known) = books.names.get(&(volume, key.to_vec())) {
            return Ok(*known);
        }
        Ok(self.index.begin_read()?.open_table(NAMES)?.get((volume, key))?.map(|found| found.value()))
    }

    /// The object of a number that is there.
    fn loaded(&self, books: &mut Books, id: u64) -> Result<Arc<Known>, NamedError> {
        if let Some(found) = books.open.get(id) {
            found.want();
            return Ok(Arc::clone(found));
        }
        let txn = self.index.begin_read()?;
        let table = txn.open_table(OBJECTS)?;
        let line = table.get(id)?.ok_or(NamedError::Record { table: "objects", key: id })?;
        let record = ObjectRecord::decode(id, line.value())?;
        let loaded = self.named(id, &record)?;
        if books.open.is_full() {
            self.let_idle_out(books);
        }
        books.open.insert(id, &loaded);
        Ok(loaded)
    }

    /// Nobody finds the object any more. In the gate.
    fn end(&self, books: &mut Books, volume: u32, key: &[u8], id: u64) -> Result<(), NamedError> {
        match self.loaded(books, id) {
            Ok(found) => books.remove(&found),
            // What it has cannot be given back, but it can be forgotten.
            Err(NamedError::Record { .. }) => books.forget((volume, key.to_vec()), id),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Those that nobody uses and nobody has changed are not kept in memory; of what is being committed the index has nothing, or what was before.
    fn let_idle_out(&self, books: &mut Books) {
        let (changed, committing) = (self.changes.changed.lock(), &books.committing);
        books.open.let_idle_out(|id| changed.contains(&id) || committing.contains(&id));
    }

    fn named(&self, id: u64, record: &ObjectRecord) -> Result<Arc<Known>, NamedError> {
        let claim = Claim::new(id);
        claim.set_pinned(record.pinned);
        claim.set_dirty(!record.dirty.is_empty());
        let runs =
            record.runs_at().and_then(|runs| Runs::found(self.objects.shelves(), &runs, claim.clone()));
        let runs = runs.ok_or(NamedError::Record { table: "objects", key: id })?;
        let content = Content::found(self.objects.engine(), record, runs);
        let keeping = Keeping { claim, changes: Arc::clone(&self.changes) };
        Ok(Known::new(record, self.objects.holding(content, Some(keeping))))
    }
}

fn check_keys(volume: &[u8], key: &[u8]) -> Result<(), NamedError> {
    match volume.len().max(key.len()) {
        len if len > MAX_KEY => Err(NamedError::KeyTooLong { len, most: MAX_KEY }),
        _ => Ok(()),
    }
}

/// Its commit is synced before it is named: else it would be looked at after a crash whether all of it has arrived, and what has not is damaged to
/// [`Checked`].
pub(crate) fn begin_write(index: &Database) -> Result<WriteTransaction, NamedError> {
    let mut txn = index.begin_write()?;
    txn.set_two_phase_commit(true);
    Ok(txn)
}

/// Counts another run, durably, before it has used any number.
fn begin_run(index: &Database, file: u64) -> Result<Numbers, NamedError> {
    let txn = begin_write(index)?;
    let numbers = {
        let mut table = txn.open_table(NUMBERS)?;
        let number = |what: &'static str| match table.get(what) {
            Ok(Some(found)) => Ok(found.value()),
            Ok(None) => Err(NamedError::NoStore { what }),
            Err(error) => Err(error.into()),
        };
        let version = number("version")?;
        if version != VERSION {
            return Err(NamedError::Version { found: version, known: VERSION });
        }
        if number("file")? != file {
            return Err(NamedError::OtherFile);
        }
        let numbers = Numbers { key: number("key")?, runs: number("runs")? + 1 };
        if numbers.runs >= MOST_RUNS {
            return Err(NamedError::Record { table: "numbers", key: numbers.runs });
        }
        table.insert("runs", numbers.runs)?;
        numbers
    };
    txn.commit()?;
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::{NUMBERS, Store, StoreConfig, VERSION, begin_write};

    #[test]
    fn an_index_of_a_newer_version_is_refused_by_name() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Store::create(dir.path(), 64 << 20, &StoreConfig::default()).unwrap();
        let txn = begin_write(&store.index).unwrap();
        txn.open_table(NUMBERS).unwrap().insert("version", VERSION + 1).unwrap();
        txn.commit().unwrap();
        drop(store);
        let said = Store::open(dir.path(), &StoreConfig::default()).unwrap_err().to_string();
        let wanted = format!("index is of version {}, this program knows {VERSION}", VERSION + 1);
        assert!(said.contains(&wanted) && said.contains(dir.path().to_str().unwrap()), "{said}");
    }
}
