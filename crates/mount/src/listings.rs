//! [`Listings`]: what is known of all directories, in memory and in the store.
//!
//! One object for each directory, written when the store is synced; what was seen since then is in memory.
//!
//! Lock order: `storing`, the map of those in memory, a listing. The store's locks come after these.

use crate::listing::{Listing, NAMES_FOR};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vswap_objects::{NamedError, Store};

/// Names of all directories together that are kept in memory only to be believed, some 250 bytes each.
const MOST_NAMES: usize = 400_000;
/// So long who has a listing may take, and others still wait for it rather than ask the source.
const SHORT: Duration = Duration::from_millis(1);
/// Longer ones are not kept.
const LONGEST: u64 = 256 << 20;

/// The key of a directory's listing.
pub fn key(path: &[u8]) -> Vec<u8> {
    [b"d", path].concat()
}

/// Loaded when somebody asks first.
type InMemory = Arc<Mutex<Option<Listing>>>;

/// Those that were seen since the last sync or are still believed, by the directories' paths.
#[derive(Debug)]
pub struct Listings {
    store: Arc<Store>,
    volume: Vec<u8>,
    ttl: Duration,
    /// Held while what is in the store is written, moved or dropped, before all other locks here: of two who write one, the older would come last.
    storing: Mutex<()>,
    in_memory: Mutex<HashMap<Vec<u8>, InMemory>>,
}

impl Listings {
    pub fn new(store: Arc<Store>, volume: Vec<u8>, ttl: Duration) -> Self {
        Self { store, volume, ttl, storing: Mutex::default(), in_memory: Mutex::default() }
    }

    /// Asks what is in memory of a directory, if there is anything. Waits for no device.
    pub fn in_memory<T>(&self, path: &[u8], ask: impl FnOnce(&Listing) -> T) -> Option<T> {
        let listing = Arc::clone(self.in_memory.lock().get(path)?);
        // It may be being loaded, or written.
        let listing = listing.try_lock_for(SHORT)?;
        listing.as_ref().map(ask)
    }

    /// Does something with what is known of a directory.
    pub fn with<T>(&self, path: &[u8], work: impl FnOnce(&mut Listing) -> T) -> T {
        let listing = Arc::clone(self.in_memory.lock().entry(path.to_vec()).or_default());
        let mut listing = listing.lock();
        work(listing.get_or_insert_with(|| self.load(path).unwrap_or_default()))
    }

    fn load(&self, path: &[u8]) -> Option<Listing> {
        let object = self.store.find(&self.volume, &key(path)).ok()??;
        if object.len() > LONGEST {
            return None;
        }
        let mut bytes = vec![0; object.len() as usize];
        let read = object.read(0, &mut bytes).ok()?;
        if !read.missing.is_empty() {
            return None;
        }
        Listing::decode(&bytes)
    }

    /// Writes those that have changed to the store, and lets go of what nobody looks at. Tells whether there were any. One that cannot be written is tried again.
    ///
    /// # Errors
    /// The last that there was.
    pub fn write(&self) -> Result<bool, NamedError> {
        self.write_all(true)
    }

    /// Nobody else writes, moves or drops what is in the store meanwhile.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.storing.lock()
    }

    /// As [`write`](Self::write), for who holds it.
    pub fn write_held(&self, _held: &MutexGuard<'_, ()>) -> Result<bool, NamedError> {
        self.write_all(false)
    }

    fn write_all(&self, hold: bool) -> Result<bool, NamedError> {
        let all: Vec<_> =
            self.in_memory.lock().iter().map(|(path, listing)| (path.clone(), Arc::clone(listing))).collect();
        let (mut any, mut failed) = (false, None);
        for (path, listing) in all {
            // For each by itself: who moves or drops another one does not wait for all. This one may have been meanwhile.
            let _held = hold.then(|| self.hold());
            if !self.in_memory.lock().get(&path).is_some_and(|there| Arc::ptr_eq(there, &listing)) {
                continue;
            }
            // Nobody who looks at it waits for the store.
            let encoded = {
                let mut listing = listing.lock();
                let Some(listing) = listing.as_mut().filter(|listing| listing.changed) else { continue };
                listing.changed = false;
                listing.encode()
            };
            any = true;
            match encoded.map_or(Ok(()), |bytes| self.put(&path, &bytes)) {
                // One that has no room in a key or an object is known only while it is in memory.
                Ok(()) | Err(NamedError::KeyTooLong { .. }) => {}
                Err(error) => {
                    if let Some(listing) = listing.lock().as_mut() {
                        listing.changed = true;
                    }
                    failed = Some(error);
                }
            }
        }
        let (mut names, mut gone) = (MOST_NAMES, Vec::new());
        self.in_memory.lock().retain(|_, listing| {
            // Longer than they are believed: the names may hold.
            let recent = |last: Instant| last.elapsed() < self.ttl.max(NAMES_FOR);
            let wanted = listing.try_lock().is_none_or(|listing| {
                let Some(listing) = listing.as_ref() else { return false };
                let fits = names.checked_sub(listing.entries.len());
                let wanted = listing.last.is_some_and(recent) && fits.is_some();
                names = fits.filter(|_| wanted).unwrap_or(names);
                wanted || listing.changed
            });
            let keep = wanted || Arc::strong_count(listing) > 1;
            if !keep {
                // Let go of without the lock.
                gone.push(Arc::clone(listing));
            }
            keep
        });
        drop(gone);
        failed.map_or(Ok(any), Err)
    }

    fn put(&self, path: &[u8], bytes: &[u8]) -> Result<(), NamedError> {
        if bytes.len() as u64 > LONGEST {
            return Ok(());
        }
        let key = key(path);
        let version = self.store.find(&self.volume, &key)?.map_or(0, |found| found.version());
        let object = self.store.object(&self.volume, &key, version)?;
        object.set_len(0)?;
        object.write(0, bytes)
    }

    /// Forgets what is in memory of a directory and of all below it.
    pub fn drop_below(&self, path: &[u8]) {
        let below = [path, b"/"].concat();
        self.in_memory.lock().retain(|known, _| known != path && !known.starts_with(&below));
    }
}
