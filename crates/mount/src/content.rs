//! What is kept of a file's bytes: an object for each path, of a version for each state in which the source's file was seen.
//!
//! The object's auxiliary data is its [`Mark`]. When the source's file has another [`Stamp`] than that says, a newer version is opened, so that nothing of
//! the old one is found any more. What is written goes to the source first; whoever changes a file looks at its stamp before and after with the inode's state locked, so that
//! somebody else's change before it is not mistaken for its own. While an object is changed it has no mark: a crash in between leaves bytes that nobody trusts.
//!
//! Keys are of paths and not of inodes: some file systems number theirs anew at each mount, and two files of one length and time would be taken for each other. So a
//! rename takes the object along, by a copy.

use crate::attr::Attr;
use crate::fault::Res;
use crate::inodes::Inode;
use crate::stamp::{Mark, Stamp};
use crate::view::View;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;
use vswap_objects::{NamedError, NamedObject};

/// Bytes that a rename takes along; the rest is fetched again.
const TAKEN_ALONG: u64 = 64 << 20;
/// Bytes that are copied at once.
const PIECE: u64 = 1 << 20;

/// An object that has the bytes of a file.
#[derive(Debug)]
pub struct Content {
    pub object: NamedObject,
    mark: Mutex<Mark>,
}

/// What is known of an inode's bytes.
#[derive(Debug, Default)]
pub struct State {
    content: Option<Arc<Content>>,
    /// When the source was last asked whether they are still those.
    checked: Option<Instant>,
    /// When the source's file was opened last: file systems of other machines then ask these what it is like.
    pub opened: Option<Instant>,
    /// Those that the kernel has pages of.
    pub kernel: Option<Stamp>,
    /// When a plain copy of them was wanted last.
    pub wanted: Option<Instant>,
}

/// What a change did, as the object is to be changed: `Err` if it cannot be told.
pub type Applied = Result<(), Unknown>;

/// The object's bytes are to be forgotten.
#[derive(Debug)]
pub struct Unknown;

impl From<NamedError> for Unknown {
    fn from(_: NamedError) -> Self {
        Self
    }
}

impl From<vswap_objects::ObjectError> for Unknown {
    fn from(_: vswap_objects::ObjectError) -> Self {
        Self
    }
}

/// The key of a file's bytes.
pub fn key(path: &[u8]) -> Vec<u8> {
    [b"f", path].concat()
}

impl Content {
    pub fn stamp(&self) -> Stamp {
        self.mark.lock().stamp
    }

    pub fn is_settled(&self) -> bool {
        self.mark.lock().settled
    }

    /// Something is about to be kept that was fetched just now: if another change could leave the same stamp, it is to be fetched once more.
    pub fn fetched(&self) -> Result<(), NamedError> {
        let mut mark = self.mark.lock();
        if mark.settled && !mark.stamp.is_settled() {
            mark.settled = false;
            // While it is being written to it has no mark.
            if !self.object.aux().is_empty() {
                self.object.set_aux(&mark.encode())?;
            }
        }
        Ok(())
    }

    fn set(&self, mark: Mark) -> Result<(), NamedError> {
        self.object.set_aux(&mark.encode())?;
        *self.mark.lock() = mark;
        Ok(())
    }
}

impl State {
    /// The source is to be asked before these are used again.
    pub fn doubt(&mut self) {
        (self.checked, self.opened) = (None, None);
    }

    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

impl View {
    /// The bytes of a file that was seen to have this stamp then; `make`s an object if there is none. `None` if there is none, or the store fails.
    pub fn content(
        &self,
        inode: &Inode,
        state: &mut State,
        now: &Stamp,
        seen: Instant,
        make: bool,
    ) -> Option<Arc<Content>> {
        let path = inode.path();
        // What was seen before a change is good for this once.
        let checked = self.changes.none_since(inode.identity, seen).then_some(seen);
        if let Some(content) = &state.content
            && (path.is_none() || !content.object.is_gone())
        {
            if content.mark.lock().holds(now) {
                state.checked = checked;
                return Some(Arc::clone(content));
            }
            if content.stamp() == *now {
                // The kernel's pages may be as doubtful.
                state.kernel = None;
                self.notices.stale(inode.node);
            }
        }
        state.content = None;
        state.checked = None;
        let content = self.kept(&key(&path?), now, make, false).ok()??;
        state.content = Some(Arc::clone(&content));
        state.checked = checked;
        Some(content)
    }

    /// The object of a key, for a file of this stamp. `new`: nothing of it was fetched, nor is there anything.
    fn kept(
        &self,
        key: &[u8],
        now: &Stamp,
        make: bool,
        new: bool,
    ) -> Result<Option<Arc<Content>>, NamedError> {
        let _making = self.making.lock();
        let found = self.store.find(&self.volume, key)?;
        let next = found.as_ref().map_or(0, |found| found.version() + 1);
        if let Some(object) = found
            && !new
            && let Some(mark) = Mark::decode(&object.aux())
            && mark.holds(now)
        {
            return Ok(Some(Arc::new(Content { object, mark: Mutex::new(mark) })));
        }
        if !make {
            return Ok(None);
        }
        let object = self.store.object(&self.volume, key, next)?;
        object.set_len(now.size)?;
        let mark = Mark { stamp: *now, settled: new || now.is_settled() };
        object.set_aux(&mark.encode())?;
        self.touch();
        Ok(Some(Arc::new(Content { object, mark: Mutex::new(mark) })))
    }

    /// The bytes of a file that was just made, of which there are none.
    pub fn content_of_new(&self, inode: &Inode, now: &Stamp) {
        let mut state = inode.state.lock();
        state.forget();
        if let Some(path) = inode.path() {
            state.content = self.kept(&key(&path), now, true, true).ok().flatten();
        }
    }

    /// For a read: what is kept, looked at not longer than the kernel's own time ago.
    pub fn content_to_read(
        &self,
        inode: &Arc<Inode>,
        look: impl FnOnce() -> Res<Attr>,
    ) -> Res<Option<Arc<Content>>> {
        let mut state = inode.state.lock();
        let fresh = state.checked.is_some_and(|checked| checked.elapsed() < self.ttl);
        if let Some(content) = state.content.as_ref().filter(|content| fresh && !content.object.is_gone()) {
            return Ok(Some(Arc::clone(content)));
        }
        if let Some(known) = self.believed(inode) {
            return Ok(self.content(inode, &mut state, &known.answer.stamp(), known.seen, true));
        }
        let begun = Instant::now();
        match look() {
            Ok(attr) => {
                let content = self.content(inode, &mut state, &attr.stamp(), begun, true);
                self.note(inode, &attr, begun);
                Ok(content)
            }
            Err(fault) if fault.is_gone() => {
                let last = inode.attr().stamp();
                self.last_content(inode, &mut state, &last).map(Some).ok_or(fault)
            }
            Err(fault) => Err(fault),
        }
    }

    /// While the source is gone: what is kept of the file as it was seen last, whether settled or not.
    pub fn last_content(&self, inode: &Inode, state: &mut State, last: &Stamp) -> Option<Arc<Content>> {
        if let Some(content) = state.content.as_ref().filter(|content| content.stamp() == *last) {
            return Some(Arc::clone(content));
        }
        let object = self.store.find(&self.volume, &key(&inode.path()?)).ok()??;
        let mark = Mark::decode(&object.aux()).filter(|mark| mark.stamp == *last)?;
        let content = Arc::new(Content { object, mark: Mutex::new(mark) });
        state.content = Some(Arc::clone(&content));
        Some(content)
    }

    /// Changes the source's file by `act`, and what is kept of its bytes by `apply`, which is given the stamps of before and after. `make`: an object is made if there is none.
    ///
    /// # Errors
    /// What the source says.
    pub fn change<T>(
        &self,
        inode: &Arc<Inode>,
        make: bool,
        look: impl Fn() -> Res<Attr>,
        act: impl FnOnce() -> Res<T>,
        apply: impl FnOnce(&T, &NamedObject, &Stamp, &Stamp) -> Applied,
    ) -> Res<T> {
        let mut state = inode.state.lock();
        let changing = self.changes.begin(inode.identity);
        let before = look()?.stamp();
        let content = self.content(inode, &mut state, &before, Instant::now(), make && self.has_room());
        // Without a mark until it is known what the bytes are of.
        let unmarked = content.as_ref().map(|content| content.object.set_aux(b"").is_ok());
        let done = act();
        // Its next change waits for the state, so the look that follows can be believed.
        drop(changing);
        let begun = Instant::now();
        let Ok(after) = look() else {
            self.give_up(inode, &mut state);
            return done;
        };
        let stamp = after.stamp();
        if let Some(content) = content {
            let applied = match &done {
                Ok(value) if unmarked == Some(true) => apply(value, &content.object, &before, &stamp),
                // It has failed and changed nothing, if a change would show.
                Err(fault) if stamp == before && (before.is_settled() || !fault.is_gone()) => Ok(()),
                _ => Err(Unknown),
            };
            // Where times are whole seconds, another change in this one leaves the same.
            let is_coarse = (stamp.mtime.1, stamp.ctime.1) == (0, 0);
            let settled = (content.mark.lock().settled && !is_coarse) || stamp.size == 0;
            if applied.is_err() || content.set(Mark { stamp, settled }).is_err() {
                self.give_up(inode, &mut state);
            } else {
                state.checked = Some(begun);
                if state.kernel == Some(before) {
                    state.kernel = Some(stamp);
                }
            }
            self.touch();
        }
        drop(state);
        self.note(inode, &after, begun);
        done
    }

    /// The kernel's own pages may be other bytes than the source's.
    pub fn doubt_pages(&self, inode: &Inode) {
        inode.state.lock().kernel = None;
        self.notices.stale(inode.node);
    }

    /// Nothing of an inode's bytes is kept.
    fn give_up(&self, inode: &Inode, state: &mut State) {
        if let Some(content) = state.content.take()
            && !content.object.is_gone()
        {
            // If that fails too, it has no mark.
            let _ = self.store.remove(&self.volume, content.object.key());
        }
        let stale = state.kernel.is_some();
        state.forget();
        if stale {
            self.notices.stale(inode.node);
        }
    }

    /// What is kept under a path is of nothing any more: a file's bytes, a directory's listing, and all below it.
    pub fn drop_kept(&self, path: &[u8]) {
        let _held = self.listings.hold();
        self.drop_kept_held(path);
    }

    fn drop_kept_held(&self, path: &[u8]) {
        let below = [path, b"/"].concat();
        // A store that fails says so at the next sync.
        let _ = self.store.remove(&self.volume, &key(path));
        let _ = self.store.remove(&self.volume, &crate::listings::key(path));
        let _ = self.store.invalidate(&self.volume, &key(&below));
        let _ = self.store.invalidate(&self.volume, &crate::listings::key(&below));
        // After the store, from which somebody may just have loaded them.
        self.listings.drop_below(path);
        self.touch();
    }

    /// The same of a file.
    pub fn drop_kept_file(&self, path: &[u8]) {
        let _ = self.store.remove(&self.volume, &key(path));
        self.touch();
    }

    /// What is kept under a path is under another from now on, as far as that is quickly done. Nothing is under that.
    pub fn take_along(&self, from: &[u8], to: &[u8], is_dir: bool) {
        let mut left = TAKEN_ALONG;
        if !is_dir {
            self.take_one(&key(from), &key(to), &mut left);
            return self.drop_kept_file(from);
        }
        let held = self.listings.hold();
        let _ = self.listings.write_held(&held);
        self.listings.drop_below(from);
        self.take_one(&crate::listings::key(from), &crate::listings::key(to), &mut left);
        for kind in [crate::listings::key, key] {
            let (below, to) = (kind(&[from, b"/"].concat()), kind(&[to, b"/"].concat()));
            let mut keys = Vec::new();
            let _ = self.store.list(&self.volume, &below, |listed| {
                keys.push(listed.key);
                true
            });
            for old in keys {
                self.take_one(&old, &[&to, &old[below.len()..]].concat(), &mut left);
            }
        }
        // Somebody may have looked there before they were.
        self.listings.drop_below(to);
        self.drop_kept_held(from);
    }

    fn take_one(&self, from: &[u8], to: &[u8], left: &mut u64) {
        let copied = self.copy(from, to, left);
        if !matches!(copied, Ok(true)) {
            let _ = self.store.remove(&self.volume, to);
        }
    }

    fn copy(&self, from: &[u8], to: &[u8], left: &mut u64) -> Result<bool, NamedError> {
        let Some(old) = self.store.find(&self.volume, from)? else { return Ok(false) };
        // Somebody may be writing: then there is no mark, or another one at the end.
        let (is_bytes, mark) = (from.first() == Some(&b'f'), old.aux());
        if is_bytes && Mark::decode(&mark).is_none() {
            return Ok(false);
        }
        let ranges = old.present(0..old.len());
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if bytes > *left || !self.has_room() {
            return Ok(false);
        }
        *left -= bytes;
        let new = {
            let _making = self.making.lock();
            let version = self.store.find(&self.volume, to)?.map_or(0, |found| found.version() + 1);
            self.store.object(&self.volume, to, version)?
        };
        new.set_len(old.len())?;
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let mut piece = vec![0; (range.end - at).min(PIECE) as usize];
                // Given up since it was looked at: what is not there reads as zeroes.
                if !old.read(at, &mut piece)?.missing.is_empty() {
                    return Ok(false);
                }
                new.write(at, &piece)?;
                at += piece.len() as u64;
            }
        }
        if old.aux() != mark {
            return Ok(false);
        }
        new.set_aux(&mark)?;
        Ok(true)
    }
}
