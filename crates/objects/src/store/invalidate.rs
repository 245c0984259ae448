//! Ending many objects at once; see `tombs.rs`.

use crate::store::books::Books;
use crate::store::error::NamedError;
use crate::store::{Store, check_keys};
use std::sync::Arc;

/// Objects that are looked at with the books locked.
const AT_ONCE: usize = 256;

impl Store {
    /// Nobody finds any more, once this returns, the objects of a volume that there are now and whose keys begin with `prefix`, however many they are. Their bytes end
    /// later, some at each commit; with their last users, if they have any. Like everything else it outlives a crash after the next commit.
    ///
    /// # Errors
    /// When a key is too long, or the index cannot be read.
    pub fn invalidate(&self, volume: &[u8], prefix: &[u8]) -> Result<(), NamedError> {
        check_keys(volume, prefix)?;
        let _changing = self.changes.gate.read();
        let mut books = self.books.lock();
        let Some(number) = books.volume(volume) else { return Ok(()) };
        let last = books.next_object;
        books.tombs.add(number, prefix, last);
        books.tombs_changed = true;
        // Those in memory are told at once: what they hold is not committed any more.
        let open = books.open.values();
        let covered: Vec<_> = open.filter(|known| known.is_below(number, prefix)).map(Arc::clone).collect();
        covered.iter().for_each(|known| books.remove(known));
        Ok(())
    }

    /// Removes an object that a tomb covers.
    pub(super) fn bury(&self, books: &mut Books, volume: u32, key: &[u8]) -> Result<(), NamedError> {
        if let Some(id) = self.noted(books, volume, key)?
            && books.tombs.covers(volume, key, id)
        {
            self.end(books, volume, key, id)?;
        }
        Ok(())
    }

    /// Removes objects that tombs cover, about so many, and tombs that cover nothing any more.
    pub(super) fn sweep(&self, most: usize) -> Result<(), NamedError> {
        let (mut left, mut at) = (most, None);
        while left > 0 {
            let _changing = self.changes.gate.read();
            let mut books = self.books.lock();
            let Some(tomb) = books.tombs.any() else { break };
            // One that was added or renewed meanwhile is begun with its first name.
            let after: Option<Vec<u8>> = at.take().filter(|(of, _)| *of == tomb).map(|(_, end)| end);
            let (volume, prefix, last) = &tomb;
            let names = self.names(&books, *volume, prefix, after.as_deref(), AT_ONCE)?;
            let Some(end) = names.keys().next_back().cloned() else {
                books.tombs.remove(*volume, prefix, *last);
                books.tombs_changed = true;
                continue;
            };
            let covered = names.into_iter().filter_map(|(key, id)| Some((key, id.filter(|id| id <= last)?)));
            for (key, id) in covered {
                self.end(&mut books, *volume, &key, id)?;
                left = left.saturating_sub(1);
            }
            at = Some((tomb, end));
        }
        Ok(())
    }
}
