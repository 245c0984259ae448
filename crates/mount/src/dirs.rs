//! The names of directories.

use crate::ahead::{AT_ONCE, Within};
use crate::attr::{Attr, kind};
use crate::fault::{Fault, Res};
use crate::inodes::{Inode, ROOT};
use crate::lines::{DOTS, Line, Lines, Ordered};
use crate::source::{Root, reopen};
use crate::view::{Opened, View};
use fuser::{FileType, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::cell::OnceCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A directory in the source, for the attributes of what is in it: found when the first of these is wanted. `None` if it cannot be.
type Dir = OnceCell<Option<(Opened, Root)>>;

/// How a directory is opened to be listed.
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

impl View {
    /// A directory's entries, to be told after a cookie; read anew from the beginning, which finds the directory itself too.
    fn lines(&self, inode: &Arc<Inode>, cookie: u64) -> Res<(Arc<Ordered>, Dir)> {
        let begun = if cookie > 0 { self.snapshots.go_on(inode.node) } else { None };
        let (ordered, dir) = match begun {
            Some(ordered) => (ordered, Dir::default()),
            None => {
                let (lines, dir) = self.names(inode)?;
                (self.snapshots.begin(inode.node, lines), dir)
            }
        };
        let last = cookie >= DOTS[1] && ordered.after(cookie) == ordered.cookies.len();
        // What is kept in the store is shown only until the source answers again.
        let good = ordered.lines.read.map_or_else(Instant::now, |read| read + self.ttl);
        self.notices.names(inode, good, last);
        if last {
            self.snapshots.end(inode.node);
        }
        Ok((ordered, dir))
    }

    fn names(&self, inode: &Arc<Inode>) -> Res<(Lines, Dir)> {
        if let Some(lines) = self.believed_lines(inode) {
            return Ok((lines, Dir::default()));
        }
        match self.read_lines(inode, usize::MAX) {
            // There is none.
            Err(fault) if fault.is_gone() => Ok((self.kept_lines(inode, fault)?, None.into())),
            Ok((lines, dir)) => Ok((lines, Some(dir).into())),
            Err(fault) => Err(fault),
        }
    }

    /// From the source.
    ///
    /// # Errors
    /// What the source says; `OVERFLOW` of a directory with more names than these.
    pub fn read_lines(&self, inode: &Arc<Inode>, most: usize) -> Res<(Lines, (Opened, Root))> {
        let begun = Instant::now();
        let found = self.find(inode)?;
        let dir = reopen(&found.fd, LISTED)?;
        let mut lines = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                if lines.len() == most {
                    return Err(Errno::OVERFLOW.into());
                }
                let mut kind = kind(entry.file_type().as_raw_mode());
                if entry.file_type() == rustix::fs::FileType::Unknown {
                    kind = found.root.attr_at(&dir, name).map_or(FileType::RegularFile, |attr| attr.kind());
                }
                lines.push(Line { name: name.to_vec(), inode: entry.ino(), kind });
            }
        }
        self.note(inode, &found.attr, found.begun);
        let path = inode.path();
        if let Some(path) = &path {
            let after = found.root.attr(&dir)?.stamp();
            let stamp = Some(after).filter(|after| *after == found.attr.stamp() && after.is_settled());
            let look = (inode.identity, begun);
            if self.listings.with(path, |listing| listing.renew(&lines, look, stamp)) {
                // Relaxed: who misses it is told as much as before.
                self.no_dir_times.store(true, Ordering::Relaxed);
            }
        }
        Ok((Lines { read: Some(begun), path, lines }, (found.fd, found.root)))
    }

    /// As they were read within the ttl, or before, if the directory's times say that they are the same: as NFS has it.
    fn believed_lines(&self, inode: &Arc<Inode>) -> Option<Lines> {
        let path = inode.path()?;
        let read = self.listings.in_memory(&path, |listing| listing.names_read(inode.identity))??;
        let read = if self.left(inode.identity, read).is_some() {
            read
        } else {
            if self.source.is_remote() && !self.ttl.is_zero() && self.believed(inode).is_none() {
                self.attributes(inode).ok()?;
            }
            self.names_seen(inode, &path)?
        };
        let lines = self.listings.in_memory(&path, |listing| {
            // They may have been read anew meanwhile.
            listing.names_read(inode.identity).map(|_| listing.lines())
        })??;
        Some(Lines { read: Some(read), path: Some(path), lines })
    }

    /// From the store, while the source is gone.
    fn kept_lines(&self, inode: &Inode, fault: Fault) -> Res<Lines> {
        let path = inode.path().ok_or(fault)?;
        let lines = self.listings.with(&path, |listing| listing.complete.then(|| listing.all_lines()));
        Ok(Lines { read: None, path: Some(path), lines: lines.ok_or(fault)? })
    }

    pub fn list(&self, inode: &Arc<Inode>, cookie: u64, reply: &mut ReplyDirectory) -> Res<()> {
        let (ordered, _) = self.lines(inode, cookie)?;
        let Ordered { lines, cookies } = &*ordered;
        for (node, kind, name, next) in dots(inode, cookie) {
            if reply.add(INodeNo(node), next, kind, name) {
                return Ok(());
            }
        }
        for (line, next) in lines.lines.iter().zip(cookies).skip(ordered.after(cookie)) {
            if reply.add(INodeNo(line.inode), *next, line.kind, OsStr::from_bytes(&line.name)) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The same with each entry's attributes.
    pub fn list_plus(&self, inode: &Arc<Inode>, cookie: u64, reply: &mut ReplyDirectoryPlus) -> Res<()> {
        let (ordered, dir) = self.lines(inode, cookie)?;
        let Ordered { lines, cookies } = &*ordered;
        let (parent, own) = (inode, inode.attr());
        for (node, _, name, next) in dots(inode, cookie) {
            if reply.add(INodeNo(node), next, name, &self.ttl, &own.told(node), Generation(0)) {
                return Ok(());
            }
        }
        let first = ordered.after(cookie);
        let mut looked = first;
        for (at, (line, next)) in lines.lines.iter().zip(cookies).enumerate().skip(first) {
            let next = *next;
            let name = OsStr::from_bytes(&line.name);
            if at >= looked {
                looked = self.look_at_lines(parent, lines, &dir, at);
            }
            let Some((inode, attr, left)) = self.entry(parent, lines, &dir, line) else {
                // Without a number of an inode the kernel takes the name alone.
                let none = Attr { mode: kind_bits(line.kind), ..own }.told(0);
                if reply.add(INodeNo(0), next, name, &self.ttl, &none, Generation(0)) {
                    return Ok(());
                }
                continue;
            };
            let full = reply.add(
                INodeNo(inode.node),
                next,
                name,
                &left,
                &attr.told(inode.node),
                Generation(inode.generation),
            );
            if full {
                self.inodes.forget(inode.node, 1);
                return Ok(());
            }
        }
        Ok(())
    }

    /// An entry, of which the kernel is about to be told, and for how long.
    fn entry(
        &self,
        parent: &Arc<Inode>,
        lines: &Lines,
        dir: &Dir,
        line: &Line,
    ) -> Option<(Arc<Inode>, Attr, Duration)> {
        if let Some(known) = self.believed_name(parent, &line.name) {
            // Gone since the names were read: as if nothing were known of it.
            let (inode, attr) = known.answer?;
            return Some((inode, attr, known.left));
        }
        let (attr, begun) = self.entry_attr(parent, lines, dir, line)?;
        let (inode, attr) = match begun {
            Some(begun) => self.told(parent, &line.name, attr, begun),
            None => (self.inodes.told(parent, &line.name, attr, None), attr),
        };
        let left = begun.map_or(self.ttl, |begun| {
            self.good_for(parent.identity, begun).min(self.good_for(inode.identity, begun))
        });
        Some((inode, attr, left))
    }

    /// Looks at the entries from this one on, several at once where that takes long, and else in the order in which the source's file system probably has them on its disk; up to which it has.
    fn look_at_lines(&self, parent: &Inode, lines: &Lines, dir: &Dir, from: usize) -> usize {
        /// What is told in one answer, or nearly.
        const ONE_ANSWER: usize = 128;
        let remote = self.source.is_remote();
        let end = (from + if remote { AT_ONCE } else { ONE_ANSWER }).min(lines.lines.len());
        if lines.read.is_none() || self.ttl.is_zero() {
            return end;
        }
        let Some(path) = &lines.path else { return end };
        let mut next: Vec<&Line> = lines.lines[from..end].iter().collect();
        next.sort_unstable_by_key(|line| line.inode);
        let names = next.into_iter().map(|line| line.name.clone()).collect();
        let names = self.not_believed(parent, path, names);
        if !names.is_empty()
            && let Some((dir, root)) = self.dir_of(parent, dir)
        {
            let within = Within::new(parent, dir, root, true);
            if remote {
                self.look_at_all(within, path, &names, || {});
            } else {
                names.iter().for_each(|name| self.look_ahead(within, path, name));
            }
        }
        end
    }

    fn dir_of<'a>(&self, parent: &Inode, dir: &'a Dir) -> Option<&'a (Opened, Root)> {
        let find = || self.find(parent).ok().map(|found| (found.fd, found.root));
        dir.get_or_init(find).as_ref()
    }

    /// An entry's attributes, and when they were asked for; `None` if they are from the store.
    fn entry_attr(
        &self,
        parent: &Inode,
        lines: &Lines,
        dir: &Dir,
        line: &Line,
    ) -> Option<(Attr, Option<Instant>)> {
        let path = lines.path.as_deref();
        let kept = || {
            let attr = self.listings.with(path?, |listing| listing.entries.get(&line.name)?.attr)?;
            Some((attr, None))
        };
        let Some((dir, root)) = self.dir_of(parent, dir) else { return kept() };
        match self.look_at(Within::new(parent, dir, root, true), path, &line.name) {
            Ok((attr, begun)) => Some((attr, Some(begun))),
            Err(fault) if fault.is_gone() => kept(),
            Err(_) => None,
        }
    }
}

/// What every directory has, after a cookie: number, kind, name, and the cookie to go on after.
fn dots(inode: &Inode, cookie: u64) -> impl Iterator<Item = (u64, FileType, &'static str, u64)> {
    let all = [(inode.node, FileType::Directory, ".", DOTS[0]), (ROOT, FileType::Directory, "..", DOTS[1])];
    all.into_iter().filter(move |(.., next)| *next > cookie)
}

fn kind_bits(kind: FileType) -> u32 {
    crate::listing::mode(kind)
}
