//! What is believed without asking the source: what was seen of it within the ttl, also when the kernel has forgotten it.
//!
//! Each look at the source is dated by the moment before it, and believed until the ttl has passed since then; the kernel is told only what is left of that. A look says nothing of a file that was being
//! changed through the mount, or has been since: [`Changes`] knows when that was. So nobody who changes something has to find out what is known of it in which place, and a look that began before a change
//! and ends after it does no harm, whoever is told of it.
//!
//! A change of a name is a change of its directory.

use crate::attr::{Attr, Identity};
use crate::inodes::Inode;
use crate::listing::Listing;
use crate::view::View;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Files share them, by their identity: who meets another one's change asks the source once more.
const SHARDS: usize = 1024;

/// When files were last changed through the mount.
#[derive(Debug)]
pub struct Changes {
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    under_way: usize,
    last: Option<Instant>,
}

/// A change is under way until this is dropped.
#[derive(Debug)]
pub struct Changing<'a>(&'a Mutex<Shard>);

impl Default for Changes {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Changes {
    pub fn begin(&self, of: Identity) -> Changing<'_> {
        let shard = self.shard(of);
        shard.lock().under_way += 1;
        Changing(shard)
    }

    /// It was changed, or found to be another than it was said to be.
    pub fn happened(&self, of: Identity) {
        drop(self.begin(of));
    }

    /// Whether none was under way then, nor is now, nor was in between.
    pub fn none_since(&self, of: Identity, then: Instant) -> bool {
        let shard = self.shard(of).lock();
        shard.under_way == 0 && shard.last.is_none_or(|last| last < then)
    }

    fn shard(&self, (device, number): Identity) -> &Mutex<Shard> {
        // Fibonacci hashing (Knuth, volume 3): numbers of inodes lie beside each other.
        let mixed = (number ^ device.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(mixed >> 32) as usize % SHARDS]
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut shard = self.0.lock();
        shard.under_way -= 1;
        shard.last = Some(Instant::now());
    }
}

/// An answer, and how long the kernel may take it for one.
#[derive(Debug)]
pub struct Believed<T> {
    pub answer: T,
    /// When it was seen.
    pub seen: Instant,
    pub left: Duration,
}

/// What a name stands for, if for anything.
pub type Named = Option<(Arc<Inode>, Attr)>;

impl View {
    /// How long what was seen then of a file is still good.
    pub fn left(&self, of: Identity, seen: Instant) -> Option<Duration> {
        let left = self.ttl.checked_sub(seen.elapsed()).filter(|left| !left.is_zero())?;
        self.changes.none_since(of, seen).then_some(left)
    }

    /// How long an answer is good of which this was seen then.
    pub fn good_for(&self, of: Identity, seen: Instant) -> Duration {
        self.left(of, seen).unwrap_or_default()
    }

    /// An inode's attributes.
    pub fn believed(&self, inode: &Inode) -> Option<Believed<Attr>> {
        let attr = *inode.attr.lock();
        let seen = attr.at?;
        let left = self.left(inode.identity, seen)?;
        Some(Believed { answer: attr.attr, seen, left })
    }

    /// When a directory was seen last to have the times that it had when its names were read not long ago: these are still all. As NFS has it, and only for what takes long to read.
    pub fn names_seen(&self, dir: &Inode, path: &[u8]) -> Option<Instant> {
        // Relaxed: see where it is set.
        if !self.source.is_remote() || self.no_dir_times.load(Ordering::Relaxed) {
            return None;
        }
        let known = self.believed(dir)?;
        let stamp = known.answer.stamp();
        let hold = self.listings.in_memory(path, |listing| listing.names_hold(dir.identity, &stamp))?;
        hold.then_some(known.seen)
    }

    /// The attributes of what a name stands for, if for anything. Waits for no device.
    pub fn known_name(&self, parent: &Inode, path: &[u8], name: &[u8]) -> Option<Believed<Option<Attr>>> {
        self.known_entry(parent, path, name).or_else(|| {
            let missed = |listing: &Listing| listing.missed_since_read(parent.identity, name);
            let seen = self.listings.in_memory(path, missed)?.then(|| self.names_seen(parent, path))??;
            Some(Believed { answer: None, seen, left: self.left(parent.identity, seen)? })
        })
    }

    fn known_entry(&self, parent: &Inode, path: &[u8], name: &[u8]) -> Option<Believed<Option<Attr>>> {
        let found = self.listings.in_memory(path, |listing| listing.believed(parent.identity, name));
        let (answer, seen) = found??;
        let left = self.left(parent.identity, seen)?;
        let Some(attr) = answer else { return Some(Believed { answer, seen, left }) };
        match self.inodes.find(attr.identity) {
            // What is known of it by any of its names. Numbers are given anew, so this has to be known for one of these, or look like one.
            Some(inode) => {
                let linked =
                    |other: &Attr| [&attr, other].iter().all(|attr| attr.is_file() && attr.nlink > 1);
                let is_same = |known: &Believed<Attr>| {
                    inode.is_at(parent, name) || (known.seen >= seen && linked(&known.answer))
                };
                let known = self.believed(&inode).filter(is_same)?;
                Some(Believed { answer: Some(known.answer), seen: known.seen, left: left.min(known.left) })
            }
            None => Some(Believed { answer, seen, left: left.min(self.left(attr.identity, seen)?) }),
        }
    }

    /// What a name stands for, the kernel being about to be told. Waits for no device.
    pub fn believed_name(&self, parent: &Arc<Inode>, name: &[u8]) -> Option<Believed<Named>> {
        let Believed { answer, seen, left } = self.known_name(parent, &parent.path()?, name)?;
        let answer = answer.map(|attr| (self.inodes.told(parent, name, attr, Some(seen)), attr));
        Some(Believed { answer, seen, left })
    }
}

#[cfg(test)]
mod tests {
    use super::Changes;
    use std::time::Instant;

    #[test]
    fn a_look_that_meets_a_change_says_nothing() {
        let (changes, file) = (Changes::default(), (0, 7));
        let before = Instant::now();
        assert!(changes.none_since(file, before));
        let (one, two) = (changes.begin(file), changes.begin(file));
        let meanwhile = Instant::now();
        assert!(!changes.none_since(file, before) && !changes.none_since(file, meanwhile));
        drop(one);
        assert!(!changes.none_since(file, Instant::now()), "the other one is under way");
        drop(two);
        assert!(!changes.none_since(file, before) && !changes.none_since(file, meanwhile));
        std::thread::sleep(std::time::Duration::from_millis(1));
        let after = Instant::now();
        assert!(changes.none_since(file, after) && changes.none_since((0, 8), before));
        changes.happened(file);
        assert!(!changes.none_since(file, after));
    }
}
