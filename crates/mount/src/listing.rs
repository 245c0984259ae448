//! [`Listing`]: what is known of a directory: its names, their attributes, where symbolic links point, and when each was seen.
//!
//! While the source is gone all of it is told; else only what was seen within the ttl (`belief.rs`). Moments are known in memory only, the rest is kept (`listings.rs`).

use crate::attr::{Attr, Identity};
use crate::lines::Line;
use crate::stamp::Stamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

/// The form of what is kept.
const FORM: u8 = 1;
/// Bytes before it: the form, and how many follow.
const HEAD: usize = 9;
/// Names are read anew after so long, whatever the times of their directory say (`acdirmax` of NFS).
pub const NAMES_FOR: Duration = Duration::from_secs(60);
/// Names of one directory that are remembered not to be there.
const MISSED: usize = 4096;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub inode: u64,
    /// `st_mode`; of one that was only listed, its kind alone.
    pub mode: u32,
    pub attr: Option<Attr>,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
    /// The moment before the look that found it there last.
    #[serde(skip)]
    seen: Option<Instant>,
    /// It was looked for and found, but not among the names when these were read: it is older or younger than they are, or of those that are there without being listed (snapshots, other spellings).
    #[serde(skip)]
    unlisted: bool,
}

impl Entry {
    fn line(&self, name: &[u8]) -> Line {
        Line { name: name.to_vec(), inode: self.inode, kind: crate::attr::kind(self.mode) }
    }

    /// Tells whether they are others. Where a link points is as it was only if it is the same one.
    fn update(&mut self, attr: &Attr) -> bool {
        if self.attr.as_ref().is_some_and(|known| known.agrees(attr)) {
            return false;
        }
        self.target = self.target.take().filter(|_| self.is_same_link(attr));
        (self.inode, self.mode, self.attr) = (attr.identity.1, attr.mode, Some(*attr));
        true
    }

    fn is_same_link(&self, attr: &Attr) -> bool {
        self.inode == attr.identity.1 && self.attr.is_none_or(|known| known.ctime == attr.ctime)
    }
}

/// Which directory was looked into, and the moment before.
pub type Look = (Identity, Instant);

/// A name that was looked for and was not there.
#[derive(Clone, Copy, Debug)]
struct Missed {
    at: Instant,
    /// It was among the names when these were read.
    listed: bool,
}

/// What is known of a directory.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Listing {
    /// What is not in it is not there.
    pub complete: bool,
    /// Of the source's directory itself.
    pub own: Option<Attr>,
    pub entries: BTreeMap<Vec<u8>, Entry>,
    /// Since it was kept.
    #[serde(skip)]
    pub changed: bool,
    /// The directory of which the moments are; that of the path may have become another.
    #[serde(skip)]
    dir: Option<Identity>,
    /// When all names were read.
    #[serde(skip)]
    read: Option<Instant>,
    /// The directory's stamp then, if the next change of its names leaves another one.
    #[serde(skip)]
    stamp: Option<Stamp>,
    /// Names that were looked for and were not there.
    #[serde(skip)]
    missed: HashMap<Vec<u8>, Missed>,
    /// The last of all these moments.
    #[serde(skip)]
    pub last: Option<Instant>,
}

impl Listing {
    /// A look found a name there. Of two looks the one that began later counts.
    pub fn see(&mut self, name: &[u8], attr: &Attr, look: Look) {
        let seen = self.looked(look);
        let unlisted = self.complete && self.read.is_some();
        self.put(name, attr, seen, unlisted);
    }

    /// A change through the mount that is under way, or has just ended, has put a name there, dated as a look. The directory's times have changed, or say nothing.
    pub fn made(&mut self, name: &[u8], attr: &Attr, look: Look) {
        let seen = self.looked(look);
        self.stamp = None;
        self.put(name, attr, seen, false);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.unlisted = false;
        }
    }

    fn put(&mut self, name: &[u8], attr: &Attr, seen: Instant, unlisted: bool) {
        let missed = self.missed_at(name);
        let former = self.entries.get_mut(name);
        // That it is not among the names was seen when these were read.
        let read = self.read.filter(|_| former.is_none());
        let known = former.as_ref().and_then(|entry| entry.seen).max(missed).max(read);
        if known > Some(seen) {
            return;
        }
        self.missed.remove(name);
        if let Some(former) = former {
            former.seen = Some(seen);
            self.changed |= former.update(attr);
            return;
        }
        let entry = Entry {
            inode: attr.identity.1,
            mode: attr.mode,
            attr: Some(*attr),
            target: None,
            seen: Some(seen),
            unlisted,
        };
        self.entries.insert(name.to_vec(), entry);
        self.changed = true;
    }

    /// What was last seen under a name has these attributes, which says nothing of the name: they may be had by another one, or by a descriptor.
    pub fn update(&mut self, name: &[u8], attr: &Attr, seen: Instant) {
        let entry = self.entries.get_mut(name).filter(|entry| entry.inode == attr.identity.1);
        let entry = entry.filter(|entry| entry.seen <= Some(seen));
        self.changed |= entry.is_some_and(|entry| entry.update(attr));
    }

    /// A look found that it is not there, as [`see`](Self::see) has it.
    pub fn miss(&mut self, name: &[u8], look: Look) {
        let seen = Some(self.looked(look));
        if self.entries.get(name).is_some_and(|entry| entry.seen.max(self.read) > seen) {
            return;
        }
        self.lack(name, look.1);
    }

    /// A change through the mount that is under way has taken a name away.
    pub fn removed(&mut self, name: &[u8], look: Look) {
        let seen = self.looked(look);
        self.stamp = None;
        self.lack(name, seen);
    }

    fn lack(&mut self, name: &[u8], seen: Instant) {
        let entry = self.entries.remove(name);
        self.changed |= entry.is_some();
        if self.missed.len() >= MISSED {
            self.missed.clear();
            // Which names were read is not known any more.
            self.stamp = None;
        }
        let listed = entry.is_some_and(|entry| !entry.unlisted);
        let missed = self.missed.entry(name.to_vec()).or_insert(Missed { at: seen, listed });
        (missed.at, missed.listed) = (seen.max(missed.at), missed.listed || listed);
    }

    fn missed_at(&self, name: &[u8]) -> Option<Instant> {
        self.missed.get(name).map(|missed| missed.at)
    }

    /// The attributes of a name of this directory, `None` of what is not there, and when that was seen; `None` if it was not. That a name is not among those that were read says nothing: there are file systems that know
    /// others, or other spellings.
    pub fn believed(&self, dir: Identity, name: &[u8]) -> Option<(Option<Attr>, Instant)> {
        if self.dir != Some(dir) {
            return None;
        }
        match self.entries.get(name) {
            Some(entry) => Some((Some(entry.attr?), entry.seen?)),
            None => Some((None, self.missed_at(name)?)),
        }
    }

    /// A look found since the names were read that this one is not there.
    pub fn missed_since_read(&self, dir: Identity, name: &[u8]) -> bool {
        let missed = self.missed_at(name).filter(|_| !self.entries.contains_key(name));
        missed.is_some_and(|missed| self.names_read(dir).is_some_and(|read| missed >= read))
    }

    /// When all names of this directory were read.
    pub fn names_read(&self, dir: Identity) -> Option<Instant> {
        self.read.filter(|_| self.complete && self.dir == Some(dir))
    }

    /// Moments are of this directory from now on.
    fn looked(&mut self, (dir, seen): Look) -> Instant {
        if self.dir.replace(dir).is_some_and(|former| former != dir) {
            self.entries.values_mut().for_each(|entry| entry.seen = None);
            (self.read, self.stamp, self.missed) = (None, None, HashMap::new());
        }
        self.last = self.last.max(Some(seen));
        seen
    }

    /// Where a symbolic link of this name points.
    pub fn points(&mut self, name: &[u8], identity: Identity, target: &[u8]) {
        let entry = self.entries.get_mut(name).filter(|entry| entry.inode == identity.1);
        if let Some(entry) = entry
            && entry.target.as_deref() != Some(target)
        {
            entry.target = Some(target.to_vec());
            self.changed = true;
        }
    }

    /// A look found these names and no others, and this stamp of the directory if it is settled. Tells whether that is a lie: it was the same when there were others.
    pub fn renew(&mut self, lines: &[Line], look: Look, stamp: Option<Stamp>) -> bool {
        let begun = self.looked(look);
        if self.read > Some(begun) {
            return false;
        }
        let same_stamp = stamp.is_some() && self.read.is_some() && self.stamp == stamp;
        // As they were read before, also those that a look did not find since: some file systems list what is not there.
        let was_listed = |name: &Vec<u8>| {
            let entry = self.entries.get(name).is_some_and(|entry| !entry.unlisted);
            entry || self.missed.get(name).is_some_and(|missed| missed.listed)
        };
        let before = self.entries.values().filter(|entry| !entry.unlisted).count()
            + self.missed.values().filter(|missed| missed.listed).count();
        let lied = same_stamp && (lines.len() != before || !lines.iter().all(|line| was_listed(&line.name)));
        (self.read, self.stamp) = (Some(begun), stamp);
        // A name that is there now, and one that was looked for before the directory had this stamp.
        self.missed.retain(|_, missed| missed.at > begun);
        self.missed.values_mut().for_each(|missed| missed.listed = false);
        let mut former = std::mem::take(&mut self.entries);
        let same = former.len() == lines.len();
        let mut changed = !self.complete || !same;
        for line in lines {
            if let Some(missed) = self.missed.get_mut(&line.name) {
                // A look that began later did not find it.
                missed.listed = true;
                continue;
            }
            let known = former.remove(&line.name).filter(|entry| {
                // Some file systems list no numbers.
                [entry.inode, 0, u32::MAX.into()].contains(&line.inode)
                    || entry.attr.is_some_and(|attr| attr.identity.0 != 0)
                    || entry.seen > Some(begun)
            });
            changed |= known.is_none();
            let mut entry = known.unwrap_or_else(|| Entry {
                inode: line.inode,
                mode: mode(line.kind),
                attr: None,
                target: None,
                seen: None,
                unlisted: false,
            });
            entry.unlisted = false;
            self.entries.insert(line.name.clone(), entry);
        }
        // What was seen since is there as well.
        former.retain(|_, entry| entry.seen > Some(begun));
        self.entries.append(&mut former);
        self.complete = true;
        self.changed |= changed;
        lied
    }

    /// The directory was seen to have this stamp then: its names are those that were read not long ago if it had the same.
    pub fn names_hold(&self, dir: Identity, now: &Stamp) -> bool {
        let read = self.names_read(dir).filter(|_| self.stamp == Some(*now));
        read.is_some_and(|read| read.elapsed() < NAMES_FOR)
    }

    /// So many names that come behind this one, at the most.
    pub fn names_after(&self, name: &[u8], most: usize) -> Vec<Vec<u8>> {
        let behind = (Bound::Excluded(name), Bound::Unbounded);
        // What is mounted there may answer more slowly, or not at all.
        let here = |entry: &Entry| entry.attr.is_none_or(|attr| attr.identity.0 == 0);
        let names = self.entries.range::<[u8], _>(behind).filter(|(_, entry)| here(entry));
        names.take(most).map(|(name, _)| name.clone()).collect()
    }

    /// Whether it is known where this link points.
    pub fn knows_target(&self, name: &[u8], attr: &Attr) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.target.is_some() && entry.is_same_link(attr))
    }

    /// The names, as they are listed.
    pub fn lines(&self) -> Vec<Line> {
        let listed = self.entries.iter().filter(|(_, entry)| !entry.unlisted);
        listed.map(|(name, entry)| entry.line(name)).collect()
    }

    /// All that are known, for who cannot ask, but for other spellings of what is listed, and for directories that are not: there, snapshots are found.
    pub fn all_lines(&self) -> Vec<Line> {
        let listed: HashSet<_> =
            self.entries.values().filter(|entry| !entry.unlisted).map(|entry| entry.inode).collect();
        let known = self.entries.iter().filter(|(_, entry)| {
            let file = entry.attr.filter(|attr| !attr.is_dir());
            !entry.unlisted || file.is_some_and(|attr| attr.nlink > 1 || !listed.contains(&entry.inode))
        });
        known.map(|(name, entry)| entry.line(name)).collect()
    }

    /// The source's directory itself was seen so.
    pub fn see_own(&mut self, attr: &Attr) {
        if !self.own.is_some_and(|own| own.agrees(attr)) {
            self.own = Some(*attr);
            self.changed = true;
        }
    }

    pub fn encode(&self) -> Option<Vec<u8>> {
        let body = postcard::to_allocvec(self).ok()?;
        Some([&[FORM][..], &(body.len() as u64).to_le_bytes(), &body].concat())
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, body) = bytes.split_at_checked(HEAD)?;
        let length = u64::from_le_bytes(head[1..].try_into().ok()?);
        // One that was being written when the store was synced is shorter.
        (head[0] == FORM && length == body.len() as u64).then(|| postcard::from_bytes(body).ok()).flatten()
    }
}

pub fn mode(kind: fuser::FileType) -> u32 {
    use rustix::fs::FileType as Kind;
    let kind = match kind {
        fuser::FileType::Directory => Kind::Directory,
        fuser::FileType::Symlink => Kind::Symlink,
        fuser::FileType::NamedPipe => Kind::Fifo,
        fuser::FileType::Socket => Kind::Socket,
        fuser::FileType::CharDevice => Kind::CharacterDevice,
        fuser::FileType::BlockDevice => Kind::BlockDevice,
        fuser::FileType::RegularFile => Kind::RegularFile,
    };
    kind.as_raw_mode()
}

#[cfg(test)]
mod tests {
    use super::{Entry, Listing};
    use crate::attr::{Attr, Identity};
    use crate::lines::Line;
    use std::time::{Duration, Instant};

    #[test]
    fn a_listing_comes_back_whole_or_not_at_all() {
        let mut listing = Listing { complete: true, ..Listing::default() };
        let entry = Entry {
            inode: 7,
            mode: 0o120_000,
            attr: None,
            target: Some(b"\xff\n".to_vec()),
            seen: None,
            unlisted: false,
        };
        listing.entries.insert(b"\xfe name\n".to_vec(), entry.clone());
        let bytes = listing.encode().unwrap();
        let back = Listing::decode(&bytes).unwrap();
        assert!(back.complete && back.entries[&b"\xfe name\n"[..]] == entry);
        for cut in 0..bytes.len() {
            assert!(Listing::decode(&bytes[..cut]).is_none(), "{cut}");
        }
    }
    fn attr(inode: u64, size: u64) -> Attr {
        let time = (5, 0);
        Attr {
            identity: (0, inode),
            mode: 0o100_644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size,
            blksize: 4096,
            blocks: 8,
            atime: time,
            mtime: time,
            ctime: time,
        }
    }

    fn line(name: &str, inode: u64) -> Line {
        Line { name: name.into(), inode, kind: fuser::FileType::RegularFile }
    }

    const DIR: Identity = (0, 2);

    #[test]
    fn of_two_looks_the_one_that_began_later_counts_however_late_the_other_ends() {
        let (mut listing, first) = (Listing::default(), Instant::now());
        let [first, second, third, fourth] = [0, 1, 2, 3].map(|later| first + Duration::from_millis(later));
        listing.see(b"name", &attr(7, 1), (DIR, second));
        listing.see(b"name", &attr(7, 2), (DIR, first));
        assert_eq!(listing.believed(DIR, b"name"), Some((Some(attr(7, 1)), second)));
        listing.miss(b"name", (DIR, first));
        assert_eq!(listing.believed(DIR, b"name"), Some((Some(attr(7, 1)), second)));
        listing.miss(b"name", (DIR, third));
        listing.see(b"name", &attr(7, 1), (DIR, second));
        assert_eq!(listing.believed(DIR, b"name"), Some((None, third)));
        // A descriptor says nothing of the name, and puts nothing there.
        listing.update(b"name", &attr(7, 1), third);
        assert!(listing.entries.is_empty());
        listing.see(b"name", &attr(7, 1), (DIR, third));
        listing.update(b"name", &attr(8, 1), fourth);
        listing.update(b"name", &attr(7, 8), second);
        assert_eq!(listing.believed(DIR, b"name"), Some((Some(attr(7, 1)), third)));
        listing.update(b"name", &attr(7, 9), fourth);
        assert_eq!(listing.believed(DIR, b"name"), Some((Some(attr(7, 9)), third)));
        // Names that were read: looks that began before and end after it neither add one nor take one away.
        listing.renew(&[line("name", 7), line("read", 5)], (DIR, fourth), None);
        listing.see(b"ghost", &attr(6, 1), (DIR, third));
        listing.miss(b"gone", (DIR, fourth + Duration::from_millis(1)));
        listing.renew(&[line("name", 7), line("read", 5), line("gone", 4)], (DIR, fourth), None);
        listing.miss(b"read", (DIR, third));
        listing.miss(b"name", (DIR, third));
        assert_eq!(listing.entries.keys().collect::<Vec<_>>(), [&b"name"[..], b"read"]);
        // Another directory of that path.
        assert_eq!(listing.believed((0, 3), b"name"), None);
        listing.see(b"other", &attr(9, 1), ((0, 3), fourth));
        assert_eq!(listing.believed((0, 3), b"name"), None);
        assert_eq!(listing.believed(DIR, b"name"), None);
    }

    #[test]
    fn a_name_that_is_there_without_being_listed_is_neither_listed_nor_a_lie() {
        let (mut listing, now) = (Listing::default(), Instant::now());
        let later = |milliseconds| (DIR, now + Duration::from_millis(milliseconds));
        let (stamp, lines) = (Some(attr(2, 1).stamp()), [line("README", 5)]);
        listing.renew(&lines, later(0), stamp);
        assert_eq!(listing.believed(DIR, b"readme"), None, "that it is not listed says nothing");
        listing.see(b"readme", &attr(5, 1), later(1));
        listing.see(b".zfs", &attr(6, 1), later(1));
        assert!(listing.believed(DIR, b".zfs").is_some());
        assert_eq!(listing.lines().len(), 1);
        assert!(!listing.renew(&lines, later(2), stamp));
        // What is made here is listed, and the names are read anew.
        listing.made(b"made", &attr(8, 1), later(3));
        assert_eq!(listing.lines().len(), 2);
        assert!(!listing.names_hold(DIR, &stamp.unwrap()));
        listing.removed(b"made", later(4));
        listing.see(b"made", &attr(8, 1), later(0));
        assert_eq!(listing.lines().len(), 1);
    }

    #[test]
    fn where_a_link_points_is_forgotten_with_the_link() {
        let (mut listing, now) = (Listing::default(), Instant::now());
        listing.see(b"link", &attr(7, 1), (DIR, now));
        listing.points(b"link", (0, 7), b"there");
        assert!(listing.knows_target(b"link", &attr(7, 1)));
        let other = Attr { ctime: (6, 0), ..attr(7, 1) };
        assert!(!listing.knows_target(b"link", &other));
        listing.see(b"link", &other, (DIR, now));
        assert_eq!(listing.entries[&b"link"[..]].target, None);
    }

    #[test]
    fn names_hold_while_their_directory_has_the_stamp_that_it_had_when_they_were_read() {
        let (mut listing, now) = (Listing::default(), Instant::now());
        let (one, two) = (attr(2, 1).stamp(), attr(2, 2).stamp());
        let lines = [line("a", 5), line("b", 6)];
        listing.made(b"new", &attr(9, 1), (DIR, now + Duration::from_millis(1)));
        assert!(!listing.renew(&lines, (DIR, now), Some(one)));
        assert!(listing.names_hold(DIR, &one) && !listing.names_hold(DIR, &two));
        assert!(!listing.names_hold((0, 3), &one));
        listing.miss(b"c", (DIR, now + Duration::from_millis(1)));
        assert!(listing.missed_since_read(DIR, b"c") && !listing.missed_since_read(DIR, b"d"));
        assert_eq!(listing.believed(DIR, b"a"), None, "only its name was read");
        assert_eq!(listing.lines().len(), 3, "what was seen after they were read is there too");
        // Read anew: the same, others with another stamp, and others with the same.
        let later = |milliseconds| (DIR, now + Duration::from_millis(milliseconds));
        let three = [line("a", 5), line("b", 6), line("new", 9)];
        assert!(!listing.renew(&three, later(2), Some(one)));
        assert!(!listing.renew(&lines, later(3), Some(two)));
        assert!(listing.renew(&three, later(4), Some(two)));
        assert!(!listing.renew(&lines, later(3), Some(two)), "one that began before");
        assert_eq!(listing.lines().len(), 3);
        assert!(!listing.renew(&lines, later(5), None));
        assert!(!listing.names_hold(DIR, &two), "it was not settled");
        assert!(!listing.renew(&three, later(6), Some(two)));
        // One that is listed and cannot be looked at is no lie, one that was waited for and has come is, and so is one that has gone.
        listing.miss(b"a", later(7));
        assert!(!listing.renew(&three, later(8), Some(two)));
        listing.miss(b"awaited", later(9));
        assert!(!listing.renew(&three, later(10), Some(two)));
        listing.miss(b"awaited", later(11));
        let four = [line("a", 5), line("awaited", 7), line("b", 6), line("new", 9)];
        assert!(listing.renew(&four, later(12), Some(two)));
        listing.miss(b"b", later(13));
        assert!(listing.renew(&[line("a", 5), line("awaited", 7), line("new", 9)], later(14), Some(two)));
    }
}
