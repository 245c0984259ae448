//! Which volumes and objects a store has.

use crate::slots::Run;
use crate::store::books::Books;
use crate::store::error::NamedError;
use crate::store::records::{NAMES, OBJECTS, ObjectRecord};
use crate::store::{Store, check_keys};
use redb::{ReadableDatabase, ReadableTable};
use std::collections::BTreeMap;
use std::ops::Bound;
use vswap_core::ByteCount;

/// Objects that are listed with the books locked.
const AT_ONCE: usize = 1024;

/// An object as a list shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Listed {
    /// Its key.
    pub key: Vec<u8>,
    /// Its version.
    pub version: u64,
    /// Its length.
    pub len: ByteCount,
    /// Whether something of it is to be stored elsewhere.
    pub dirty: bool,
    /// Whether nothing of it is given up.
    pub pinned: bool,
    /// Whether what the index has of it is damaged: it can be removed, and nothing else.
    pub damaged: bool,
}

impl Store {
    /// The keys of all volumes, in their order; those of which all objects are gone too.
    pub fn volumes(&self) -> Vec<Vec<u8>> {
        self.books.lock().volumes.keys().cloned().collect()
    }

    /// Gives `each` the objects of a volume whose keys begin with `prefix`, in the order of their keys, until it returns false. What is made, replaced or removed
    /// meanwhile may be among them or not.
    ///
    /// # Errors
    /// When a key is too long, or the index cannot be read.
    pub fn list(
        &self,
        volume: &[u8],
        prefix: &[u8],
        mut each: impl FnMut(Listed) -> bool,
    ) -> Result<(), NamedError> {
        check_keys(volume, prefix)?;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let some = {
                let books = self.books.lock();
                let Some(number) = books.volume(volume) else { return Ok(()) };
                let names = self.names(&books, number, prefix, after.as_deref(), AT_ONCE)?;
                after = names.keys().next_back().cloned();
                self.listed(&books, number, names)?
            };
            for listed in some {
                if !each(listed) {
                    return Ok(());
                }
            }
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Looks whether every slot that is taken is one object's. Nobody changes anything meanwhile.
    ///
    /// # Errors
    /// What does not fit together; when the index cannot be read.
    pub fn audit(&self) -> Result<(), NamedError> {
        let _gate = self.changes.gate.write();
        let runs = self.runs(&self.books.lock())?;
        self.objects.shelves().audit(runs).map_err(|what| NamedError::Slots { what })
    }

    /// Frees slots that are nobody's, as those of an object are whose line in the index was damaged when it was removed. Gives how many they were; none while there is such a line
    /// still.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn free_lost(&self) -> Result<u64, NamedError> {
        let _gate = self.changes.gate.write();
        let books = self.books.lock();
        match self.runs(&books) {
            Ok(runs) => Ok(self.objects.shelves().free_lost(&self.objects, runs)),
            Err(NamedError::Record { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Those of all objects that somebody finds.
    fn runs(&self, books: &Books) -> Result<Vec<Run>, NamedError> {
        let mut runs: Vec<Run> = Vec::new();
        for known in books.open.values() {
            let record = known.object().look(|_, content| content.kept());
            runs.extend(record.runs_at().into_iter().flatten().map(|(_, run)| run));
        }
        for line in self.index.begin_read()?.open_table(OBJECTS)?.iter()? {
            let (id, line) = line?;
            let id = id.value();
            if books.open.get(id).is_none() && !books.gone.contains(&id) {
                let record = ObjectRecord::decode(id, line.value())?;
                runs.extend(record.runs_at().into_iter().flatten().map(|(_, run)| run));
            }
        }
        Ok(runs)
    }

    /// Names of a volume that begin with `prefix` and come after `after`, at most so many, with the numbers of their objects; `None` is a name that is gone. None at all when
    /// there are no more.
    pub(super) fn names(
        &self,
        books: &Books,
        volume: u32,
        prefix: &[u8],
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<BTreeMap<Vec<u8>, Option<u64>>, NamedError> {
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let within = |(of, key): &(u32, &[u8])| *of == volume && key.starts_with(prefix);
        let mut names = BTreeMap::new();
        let table = self.index.begin_read()?.open_table(NAMES)?;
        for line in table.range::<(u32, &[u8])>((from.map(|key| (volume, key)), Bound::Unbounded))? {
            let (name, id) = line?;
            if !within(&name.value()) || names.len() >= most {
                break;
            }
            names.insert(name.value().1.to_vec(), Some(id.value()));
        }
        // Beyond the last of these the index may have more.
        let until = (names.len() >= most).then(|| names.keys().next_back().cloned()).flatten();
        let from = from.map(|key| (volume, key.to_vec()));
        for ((of, key), id) in books.names.range((from, Bound::Unbounded)) {
            if !within(&(*of, key)) || until.as_ref().is_some_and(|until| key > until) {
                break;
            }
            names.insert(key.clone(), *id);
        }
        Ok(names)
    }

    fn listed(
        &self,
        books: &Books,
        volume: u32,
        names: BTreeMap<Vec<u8>, Option<u64>>,
    ) -> Result<Vec<Listed>, NamedError> {
        let objects = self.index.begin_read()?.open_table(OBJECTS)?;
        let mut all = Vec::with_capacity(names.len());
        for (key, id) in names {
            let Some(id) = id.filter(|id| !books.tombs.covers(volume, &key, *id)) else { continue };
            if let Some(known) = books.open.get(id) {
                let object = known.object();
                let (len, dirty) = (ByteCount::new(object.len()), object.is_dirty());
                let (version, pinned) = (known.version(), known.is_pinned());
                all.push(Listed { key, version, len, dirty, pinned, damaged: false });
                continue;
            }
            let line = objects.get(id)?;
            let record = line.and_then(|line| ObjectRecord::decode(id, line.value()).ok());
            let damaged = record.is_none();
            let ObjectRecord { version, len, dirty, pinned, .. } = record.unwrap_or_default();
            let (len, dirty) = (ByteCount::new(len), !dirty.is_empty());
            all.push(Listed { key, version, len, dirty, pinned, damaged });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::OBJECTS;
    use crate::store::begin_write;
    use crate::{Store, StoreConfig};
    use std::sync::Arc;

    #[test]
    fn an_object_whose_line_is_damaged_can_be_removed_and_what_it_had_is_free_after_a_repair() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let open = || Store::open(dir.path(), &StoreConfig::default()).unwrap();
        let noise: Vec<u8> =
            (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let store = Store::create(dir.path(), 64 << 20, &StoreConfig::default()).unwrap();
        for key in [b"a", b"b"] {
            let object = store.object(b"v", key, 0).unwrap();
            object.write(0, &noise).unwrap();
            object.pin().unwrap();
        }
        store.sync().unwrap();
        let txn = begin_write(&store.index).unwrap();
        let damaged = store.find(b"v", b"a").unwrap().unwrap();
        let id = damaged.keeping().unwrap().claim.id;
        txn.open_table(OBJECTS).unwrap().insert(id, [1, 2, 3].as_slice()).unwrap();
        txn.commit().unwrap();
        drop((damaged, store));

        let store = open();
        let listed = |store: &Arc<Store>| {
            let mut all = Vec::new();
            store
                .list(b"v", b"", |one| {
                    all.push((one.key, one.damaged));
                    true
                })
                .unwrap();
            all
        };
        assert_eq!(listed(&store), [(b"a".to_vec(), true), (b"b".to_vec(), false)]);
        assert!(store.find(b"v", b"a").is_err());
        assert_eq!(store.free_lost().unwrap(), 0, "nobody knows yet which they are");
        assert!(store.remove(b"v", b"a").unwrap());
        store.sync().unwrap();
        assert!(store.audit().is_err());
        assert_eq!(store.free_lost().unwrap(), noise.len().div_ceil(4096) as u64);
        store.audit().unwrap();
        store.sync().unwrap();
        drop(store);

        let store = open();
        store.audit().unwrap();
        assert_eq!(listed(&store), [(b"b".to_vec(), false)]);
        let kept = store.find(b"v", b"b").unwrap().unwrap();
        let mut buf = vec![0; noise.len()];
        kept.read(0, &mut buf).unwrap();
        assert!(buf == noise);
        let object = store.object(b"v", b"a", 0).unwrap();
        object.write(0, &noise).unwrap();
        store.sync().unwrap();
        store.audit().unwrap();
    }
}
