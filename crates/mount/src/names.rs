//! Operations on names in directories.

use crate::ahead::Within;
use crate::attr::{Attr, Identity};
use crate::belief::{Believed, Named};
use crate::fault::{Fault, Res};
use crate::files::kept_flags;
use crate::handles::Handle;
use crate::inodes::Inode;
use crate::listing::Listing;
use crate::source::magic;
use crate::view::{Found, View};
use fuser::FileHandle;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Uid, openat, renameat_with};
use rustix::io::Errno;
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

/// What is made.
#[derive(Debug)]
pub enum Made<'a> {
    Directory { mode: u32 },
    Link { target: &'a [u8] },
    Node { mode: u32, device: u64 },
}

/// Who asks for something to be made.
pub type Owner = (u32, u32);

impl View {
    /// What a name stands for; the kernel is about to be told.
    pub fn look_up(&self, parent: &Arc<Inode>, name: &[u8]) -> Res<Believed<Named>> {
        let (path, seen) = (parent.path(), Instant::now());
        let believed = |answer, left| Ok(Believed { answer, seen, left });
        let found = self.find(parent).and_then(|dir| {
            let within = Within::new(parent, &dir.fd, &dir.root, false);
            let Some(path) = &path else { return self.look_at(within, None, name) };
            let next = self.following(parent, path, name);
            self.look_at_all(within, path, &next, || self.look_at(within, Some(path), name))
        });
        match found {
            Ok((attr, begun)) => {
                let left = self.good_for(parent.identity, begun).min(self.good_for(attr.identity, begun));
                believed(Some(self.told(parent, name, attr, begun)), left)
            }
            Err(Fault::Says(Errno::NOENT)) => believed(None, self.good_for(parent.identity, seen)),
            Err(fault) if fault.is_gone() => {
                let kept = |listing: &mut Listing| match listing.entries.get(name) {
                    Some(entry) => entry.attr.map(Some).ok_or(fault),
                    None if listing.complete => Ok(None),
                    None => Err(fault),
                };
                let attr = self.listings.with(&path.ok_or(fault)?, kept)?;
                let answer = attr.map(|attr| (self.inodes.told(parent, name, attr, None), attr));
                believed(answer, self.ttl)
            }
            Err(fault) => Err(fault),
        }
    }

    /// The inode of something that was seen in the source, by a look that began then.
    pub fn told(&self, parent: &Arc<Inode>, name: &[u8], attr: Attr, begun: Instant) -> (Arc<Inode>, Attr) {
        let inode = self.inodes.told(parent, name, attr, None);
        self.note(&inode, &attr, begun);
        // Another look may have begun later.
        let attr = inode.attr();
        (inode, attr)
    }

    /// The kernel is about to be told of something new.
    fn told_new(&self, parent: &Arc<Inode>, name: &[u8], attr: Attr, begun: Instant) -> (Arc<Inode>, Attr) {
        if let Some(path) = parent.path() {
            self.listings.with(&path, |listing| listing.made(name, &attr, (parent.identity, begun)));
        }
        self.told(parent, name, attr, begun)
    }

    pub fn make(
        &self,
        parent: &Arc<Inode>,
        name: &[u8],
        what: &Made<'_>,
        owner: Owner,
    ) -> Res<(Arc<Inode>, Attr)> {
        let dir = self.find(parent)?;
        let changing = self.changes.begin(parent.identity);
        match what {
            Made::Directory { mode } => rustix::fs::mkdirat(&dir.fd, name, Mode::from_raw_mode(*mode))?,
            Made::Link { target } => rustix::fs::symlinkat(*target, &dir.fd, name)?,
            Made::Node { mode, device } => {
                let (kind, mode_bits) = (FileType::from_raw_mode(*mode), Mode::from_raw_mode(*mode & 0o7777));
                rustix::fs::mknodat(&dir.fd, name, kind, mode_bits, *device)?;
            }
        }
        self.give(&dir, name, owner)?;
        drop(changing);
        let begun = Instant::now();
        let attr = dir.root.attr_at(&dir.fd, name)?;
        let (inode, attr) = self.told_new(parent, name, attr, begun);
        if attr.is_file() {
            self.content_of_new(&inode, &attr.stamp());
        }
        Ok((inode, attr))
    }

    pub fn create(
        &self,
        parent: &Arc<Inode>,
        name: &[u8],
        mode: u32,
        flags: i32,
        owner: Owner,
    ) -> Res<(Arc<Inode>, Attr, FileHandle)> {
        if self.plains.are_wanted() {
            // As in `open`.
            return Err(Errno::ROFS.into());
        }
        let dir = self.find(parent)?;
        let (kept, given) = (kept_flags(flags), OFlags::from_bits_retain(flags as u32));
        let opens = kept | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opens = opens | given.intersection(OFlags::TRUNC);
        let changing = self.changes.begin(parent.identity);
        let new = openat(&dir.fd, name, opens | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(mode));
        let (file, is_new) = match new {
            Ok(file) => {
                self.give(&dir, name, owner)?;
                (file, true)
            }
            Err(Errno::EXIST) if !given.contains(OFlags::EXCL) => {
                (openat(&dir.fd, name, opens, Mode::empty())?, false)
            }
            Err(errno) => return Err(errno.into()),
        };
        drop(changing);
        let file = File::from(file);
        if !is_new {
            // It may have been cut off.
            self.changes.happened(dir.root.attr(&file)?.identity);
        }
        let begun = Instant::now();
        let attr = dir.root.attr(&file)?;
        let (inode, attr) = self.told_new(parent, name, attr, begun);
        if is_new {
            self.content_of_new(&inode, &attr.stamp());
            inode.state.lock().kernel = Some(attr.stamp());
        } else {
            // It may have been cut off.
            inode.state.lock().forget();
        }
        let number = self.handles.add(Handle::new(&inode, kept, Some(file), None, None));
        Ok((inode, attr, FileHandle(number)))
    }

    /// A name of it is about to go, which is known already: who has it open without the source's file gets that while it can be found.
    pub fn open_all(&self, inode: &Inode) {
        // Who is just opening it has seen that, or is seen here.
        drop(inode.state.lock());
        for handle in inode.handles() {
            // If it cannot be opened, it is read from the store for as long as that has it.
            let _ = self.file(&handle);
        }
    }

    /// Who asked for it owns it, where this program may say so.
    fn give(&self, dir: &Found, name: &[u8], (user, group): Owner) -> Res<()> {
        /// A directory whose files have its own group.
        const SET_GROUP: u32 = 0o2000;
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let made = dir.root.attr_at(&dir.fd, name)?;
        let user = (made.uid != user).then(|| Uid::from_raw(user));
        let group = (made.gid != group && dir.attr.mode & SET_GROUP == 0).then(|| Gid::from_raw(group));
        if user.is_some() || group.is_some() {
            rustix::fs::chownat(&dir.fd, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    pub fn remove(&self, parent: &Arc<Inode>, name: &[u8], flags: AtFlags) -> Res<()> {
        let dir = self.find(parent)?;
        let path = parent.below(name);
        let attr = dir.root.attr_at(&dir.fd, name)?;
        let _changing = [parent.identity, attr.identity].map(|of| self.changes.begin(of));
        let act = || Ok(rustix::fs::unlinkat(&dir.fd, name, flags)?);
        match self.inodes.find(attr.identity) {
            Some(inode) if attr.is_file() => {
                self.open_all(&inode);
                let look = || Ok(self.find(&inode)?.attr);
                let act = || act().map(|()| inode.left(parent, name));
                self.change(&inode, false, look, act, |(), _, _, _| Ok(()))?;
            }
            Some(inode) => act().map(|()| inode.left(parent, name))?,
            None => act()?,
        }
        if let (Some(above), Some(path)) = (parent.path(), path) {
            self.listings.with(&above, |listing| listing.removed(name, (parent.identity, Instant::now())));
            if attr.is_dir() { self.drop_kept(&path) } else { self.drop_kept_file(&path) }
        }
        Ok(())
    }

    pub fn rename(
        &self,
        (parent, name): (&Arc<Inode>, &[u8]),
        (newparent, newname): (&Arc<Inode>, &[u8]),
        flags: RenameFlags,
    ) -> Res<()> {
        let (dir, newdir) = (self.find(parent)?, self.find(newparent)?);
        let (from, to) = (parent.below(name), newparent.below(newname));
        let attr = dir.root.attr_at(&dir.fd, name)?;
        let other = newdir.root.attr_at(&newdir.fd, newname).ok();
        let inode = self.inodes.find(attr.identity);
        let victim = other.and_then(|other| self.inodes.find(other.identity));
        let same = other.is_some_and(|other| other.identity == attr.identity);
        let changed = [Some(parent.identity), Some(newparent.identity), Some(attr.identity)];
        let changed = changed.into_iter().chain([other.map(|other| other.identity)]).flatten();
        let _changing: Vec<_> = changed.map(|of| self.changes.begin(of)).collect();
        for moved in [&inode, &victim].into_iter().flatten() {
            self.open_all(moved);
        }
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let act = || {
            renameat_with(&dir.fd, name, &newdir.fd, newname, flags)?;
            if same {
                // Two names of one file: nothing happens.
                return Ok(());
            }
            if let Some(victim) = &victim {
                victim.left(newparent, newname);
                if exchange {
                    victim.seen_at(parent, name);
                }
            }
            if let Some(inode) = &inode {
                inode.left(parent, name);
                inode.seen_at(newparent, newname);
            }
            Ok(())
        };
        match &inode {
            Some(inode) if attr.is_file() => {
                let look = || Ok(self.find(inode)?.attr);
                self.change(inode, false, look, act, |(), _, _, _| Ok(()))?;
            }
            _ => act()?,
        }
        if let (Some(from), Some(to)) = (from, to)
            && !same
        {
            let (from, to) = ((parent.identity, &from[..]), (newparent.identity, &to[..]));
            self.renamed(from, to, &attr, other.as_ref().filter(|_| exchange));
        }
        Ok(())
    }

    /// What is kept goes with the name. Both directories are named by their identities too.
    fn renamed(
        &self,
        (dir, from): (Identity, &[u8]),
        (newdir, to): (Identity, &[u8]),
        attr: &Attr,
        exchanged: Option<&Attr>,
    ) {
        let ((above, name), (newabove, newname)) = (crate::view::split(from), crate::view::split(to));
        if attr.is_dir() || exchanged.is_some() {
            self.drop_kept(to);
        } else {
            // What a file takes the place of is none.
            self.drop_kept_file(to);
        }
        if let Some(other) = exchanged {
            self.drop_kept(from);
            self.listings.with(above, |listing| listing.made(name, other, (dir, Instant::now())));
        } else {
            self.take_along(from, to, attr.is_dir());
            let entry = self.listings.with(above, |listing| {
                let entry = listing.entries.get(name).cloned();
                listing.removed(name, (dir, Instant::now()));
                entry
            });
            let target = entry.and_then(|entry| entry.target);
            self.listings.with(newabove, |listing| {
                listing.made(newname, attr, (newdir, Instant::now()));
                if let Some(target) = target {
                    listing.points(newname, attr.identity, &target);
                }
            });
        }
        // The time of change is another now, of the same link.
        let begun = Instant::now();
        let root = self.source.root();
        let seen = root.and_then(|root| root.walk(to).and_then(|fd| root.attr(fd)));
        if let Ok(seen) = seen {
            self.listings.with(newabove, |listing| {
                let entry = listing.entries.get(newname).filter(|entry| entry.inode == seen.identity.1);
                let target = entry.and_then(|entry| entry.target.clone());
                listing.made(newname, &seen, (newdir, begun));
                if let Some(target) = target {
                    listing.points(newname, seen.identity, &target);
                }
            });
        }
    }

    pub fn link(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &[u8]) -> Res<(Arc<Inode>, Attr)> {
        let dir = self.find(parent)?;
        let act = || {
            let fd = self.find(inode)?.fd;
            let _changing = self.changes.begin(parent.identity);
            Ok(rustix::fs::linkat(CWD, magic(&fd), &dir.fd, name, AtFlags::SYMLINK_FOLLOW)?)
        };
        self.change(inode, false, || Ok(self.find(inode)?.attr), act, |(), _, _, _| Ok(()))?;
        let begun = Instant::now();
        let attr = dir.root.attr_at(&dir.fd, name)?;
        if let Some(path) = parent.below(name) {
            self.drop_kept_file(&path);
        }
        Ok(self.told_new(parent, name, attr, begun))
    }

    /// Where a symbolic link points.
    pub fn target(&self, inode: &Arc<Inode>) -> Res<Vec<u8>> {
        let path = inode.path();
        let listed = |work: &mut dyn FnMut(&mut crate::listing::Listing, &[u8])| {
            if let Some(path) = &path {
                let (dir, name) = crate::view::split(path);
                self.listings.with(dir, |listing| work(listing, name));
            }
        };
        let read = self.find(inode).and_then(|found| Ok(rustix::fs::readlinkat(&found.fd, "", Vec::new())?));
        match read {
            Ok(target) => {
                let target = target.into_bytes();
                listed(&mut |listing, name| listing.points(name, inode.identity, &target));
                Ok(target)
            }
            Err(fault) if fault.is_gone() => {
                let mut kept = None;
                listed(&mut |listing, name| {
                    kept = listing.entries.get(name).and_then(|entry| entry.target.clone());
                });
                kept.ok_or(fault)
            }
            Err(fault) => Err(fault),
        }
    }
}

impl View {
    pub fn sync_dir(&self, inode: &Inode) -> Res<()> {
        let dir = crate::source::reopen(&self.find(inode)?.fd, OFlags::DIRECTORY)?;
        Ok(rustix::fs::fsync(dir)?)
    }
}
