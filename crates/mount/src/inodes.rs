//! [`Inode`]: a file that the kernel knows, and where it was seen last; [`Inodes`], all of them.
//!
//! The kernel's number of an inode is the source's own wherever that is unambiguous, so that it is the same after another mount, which git and others look at.
//! One with several links is one inode with several [`Place`]s.
//!
//! Lock order: an inode's state, the table, an inode's places, the rest of an inode.

use crate::ahead::Pace;
use crate::attr::{Attr, Identity};
use crate::content::State;
use crate::handles::Handle;
use crate::notices::Told;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// The kernel's number of the source's directory.
pub const ROOT: u64 = 1;
/// Numbers from here on are given to what has none of its own that is unambiguous: what is mounted below the source.
const ALIASES: u64 = 1 << 62;
/// Places of one inode that are remembered.
const PLACES: usize = 16;
/// More than a path can have components.
const DEEPEST: usize = 1 << 16;

/// A name in a directory.
#[derive(Clone, Debug)]
pub struct Place {
    parent: Arc<Inode>,
    name: Vec<u8>,
}

impl Place {
    /// The path below the source.
    pub fn path(&self) -> Option<Vec<u8>> {
        let (mut names, mut at) = (vec![self.name.clone()], Arc::clone(&self.parent));
        while !at.is_root() {
            let above = at.places.lock().last().cloned()?;
            names.push(above.name);
            at = above.parent;
            if names.len() > DEEPEST {
                return None;
            }
        }
        names.reverse();
        Some(names.join(&b'/'))
    }
}

/// Attributes, as a look at the source found them.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub attr: Attr,
    /// The moment before the look; `None` if they are from the store.
    pub at: Option<Instant>,
}

impl Seen {
    /// Another look has ended. What one found that began earlier is not taken: its end says nothing.
    pub fn see(&mut self, attr: &Attr, at: Option<Instant>) {
        if self.at <= at {
            *self = Self { attr: *attr, at };
        }
    }
}

/// A file that the kernel knows.
#[derive(Debug)]
pub struct Inode {
    pub node: u64,
    /// How many had this number before, of those that the kernel still knew then: it takes them for another.
    pub generation: u64,
    pub identity: Identity,
    /// As it was seen last.
    pub attr: Mutex<Seen>,
    /// What is kept of its bytes.
    pub state: Mutex<State>,
    /// When it was last seen to have no capabilities: the kernel asks at each write.
    pub no_capabilities: Mutex<Option<Instant>>,
    /// Of a directory: how many of its names were asked for lately.
    pub pace: Mutex<Pace>,
    /// Of a directory: what the kernel has of its names.
    pub told: Mutex<Told>,
    /// The last is the one that was seen last.
    places: Mutex<Vec<Place>>,
    handles: Mutex<Vec<Weak<Handle>>>,
}

impl Inode {
    pub fn is_root(&self) -> bool {
        self.node == ROOT
    }

    /// Paths below the source at which it may be, the likeliest first; none if it has been unlinked.
    pub fn paths(&self) -> Vec<Vec<u8>> {
        let places = self.places.lock().clone();
        places.iter().rev().filter_map(Place::path).collect()
    }

    /// Where it was seen last.
    pub fn place(&self) -> Option<Place> {
        self.places.lock().last().cloned()
    }

    /// The likeliest of its paths.
    pub fn path(&self) -> Option<Vec<u8>> {
        if self.is_root() {
            return Some(Vec::new());
        }
        self.paths().into_iter().next()
    }

    /// The path of a name in it.
    pub fn below(&self, name: &[u8]) -> Option<Vec<u8>> {
        let path = self.path()?;
        Some(if path.is_empty() { name.to_vec() } else { [&path, &b"/"[..], name].concat() })
    }

    /// It was seen there.
    pub fn seen_at(&self, parent: &Arc<Self>, name: &[u8]) {
        let mut places = self.places.lock();
        if places.last().is_some_and(|place| place.parent.node == parent.node && place.name == name) {
            return;
        }
        places.retain(|place| place.parent.node != parent.node || place.name != name);
        if places.len() >= PLACES {
            places.remove(0);
        }
        places.push(Place { parent: Arc::clone(parent), name: name.to_vec() });
    }

    /// Whether it was seen there.
    pub fn is_at(&self, parent: &Self, name: &[u8]) -> bool {
        self.places.lock().iter().any(|place| place.parent.node == parent.node && place.name == name)
    }

    /// Whether a file that was seen there has been given this one's number: it has no other name, is not where this one was, and does not look like it. What somebody has open in the source keeps its number, and may have been
    /// renamed and written to by others; of what nobody has open there, that cannot be told from another file, and is taken for one.
    fn was_another(&self, parent: &Self, name: &[u8], attr: &Attr) -> bool {
        let former = self.attr();
        let alone = attr.is_file() && attr.nlink == 1 && !self.is_at(parent, name);
        former.kind() != attr.kind()
            || (alone
                && !former.stamp().looks_like(&attr.stamp())
                && !self.handles().iter().any(|handle| handle.file.lock().is_some()))
    }

    /// It is not there any more.
    pub fn left(&self, parent: &Self, name: &[u8]) {
        self.places.lock().retain(|place| place.parent.node != parent.node || place.name != name);
    }

    /// Its attributes as they were seen last.
    pub fn attr(&self) -> Attr {
        self.attr.lock().attr
    }

    pub fn opened(&self, handle: &Arc<Handle>) {
        let mut handles = self.handles.lock();
        handles.retain(|handle| handle.strong_count() > 0);
        handles.push(Arc::downgrade(handle));
    }

    /// Those by which programs have it open.
    pub fn handles(&self) -> Vec<Arc<Handle>> {
        self.handles.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

#[derive(Debug)]
struct Known {
    inode: Arc<Inode>,
    /// How often the kernel was told of it and has not forgotten.
    lookups: u64,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<u64, Known>,
    aliases: HashMap<Identity, u64>,
}

/// All inodes that the kernel knows.
#[derive(Debug)]
pub struct Inodes {
    table: Mutex<Table>,
}

impl Inodes {
    pub fn new(root: Attr) -> Self {
        let root = Seen { attr: root, at: None };
        let table = Self { table: Mutex::default() };
        table.table.lock().known.insert(ROOT, Known { inode: inode(ROOT, root, 0), lookups: 1 });
        table
    }

    pub fn get(&self, node: u64) -> Option<Arc<Inode>> {
        self.table.lock().known.get(&node).map(|known| Arc::clone(&known.inode))
    }

    /// The kernel is about to be told of one that was seen there then.
    pub fn told(&self, parent: &Arc<Inode>, name: &[u8], attr: Attr, at: Option<Instant>) -> Arc<Inode> {
        let mut table = self.table.lock();
        let node = table.node(attr.identity);
        let seen = Seen { attr, at };
        let known =
            table.known.entry(node).or_insert_with(|| Known { inode: inode(node, seen, 0), lookups: 0 });
        // What the kernel forgets of the former one it forgets by the same number.
        let former = known.inode.was_another(parent, name, &attr).then(|| {
            let new = inode(node, seen, known.inode.generation + 1);
            std::mem::replace(&mut known.inode, new)
        });
        known.lookups += 1;
        known.inode.seen_at(parent, name);
        let inode = Arc::clone(&known.inode);
        // Its parents may go with it, which is not done under the lock.
        drop(table);
        drop(former);
        inode
    }

    /// One that the kernel knows.
    pub fn find(&self, identity: Identity) -> Option<Arc<Inode>> {
        let table = self.table.lock();
        let node = table.number(identity)?;
        table.known.get(&node).map(|known| Arc::clone(&known.inode))
    }

    pub fn forget(&self, node: u64, lookups: u64) {
        let mut table = self.table.lock();
        let Some(known) = table.known.get_mut(&node) else { return };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups == 0 && node != ROOT {
            let gone = table.known.remove(&node);
            // Its parents may go with it, which is not done under the lock.
            drop(table);
            drop(gone);
        }
    }
}

impl Table {
    fn number(&self, identity: Identity) -> Option<u64> {
        match identity {
            (0, number) if number > ROOT && number < ALIASES => Some(number),
            _ => self.aliases.get(&identity).copied(),
        }
    }

    fn node(&mut self, identity: Identity) -> u64 {
        self.number(identity).unwrap_or_else(|| {
            let node = ALIASES + self.aliases.len() as u64;
            self.aliases.insert(identity, node);
            node
        })
    }
}

fn inode(node: u64, seen: Seen, generation: u64) -> Arc<Inode> {
    Arc::new(Inode {
        node,
        generation,
        identity: seen.attr.identity,
        attr: Mutex::new(seen),
        state: Mutex::default(),
        no_capabilities: Mutex::default(),
        pace: Mutex::default(),
        told: Mutex::default(),
        places: Mutex::default(),
        handles: Mutex::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::Seen;
    use crate::attr::Attr;
    use std::time::{Duration, Instant};

    #[test]
    fn what_a_look_found_that_began_before_another_is_not_taken_after_it() {
        let (first, of) = (Instant::now(), |size| Attr { size, ..Attr::default() });
        let second = first + Duration::from_millis(1);
        let mut seen = Seen { attr: of(1), at: None };
        seen.see(&of(2), Some(second));
        seen.see(&of(3), Some(first));
        seen.see(&of(4), None);
        assert_eq!((seen.attr.size, seen.at), (2, Some(second)));
        seen.see(&of(5), Some(second));
        assert_eq!(seen.attr.size, 5);
    }
}
