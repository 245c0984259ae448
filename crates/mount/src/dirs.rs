//! Operations on open directories.

use crate::ahead::{AT_ONCE, Within};
use crate::attr::{Attr, kind};
use crate::fault::{Fault, Res};
use crate::handles::{DirHandle, Line, Lines};
use crate::inodes::{Inode, ROOT};
use crate::source::{Root, reopen};
use crate::view::{Opened, View};
use fuser::{FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use parking_lot::Mutex;
use rustix::fs::{Dir, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How a directory is opened to be listed.
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

impl View {
    /// The kernel keeps the names as long as the attributes that came with them. Not longer: it would ask for each of these by itself.
    pub fn open_dir(&self, inode: &Arc<Inode>) -> (FileHandle, FopenFlags) {
        // Relaxed: a number of its own.
        let id = self.opened_dirs.fetch_add(1, Ordering::Relaxed);
        let flags = inode.listed.lock().opened(id, self.ttl);
        let kept = flags.contains(FopenFlags::FOPEN_CACHE_DIR);
        let handle = DirHandle { inode: Arc::clone(inode), id, kept, lines: Mutex::default() };
        (FileHandle(self.dirs.add(Arc::new(handle))), flags)
    }

    pub fn close_dir(&self, number: FileHandle) {
        if let Some(handle) = self.dirs.remove(number.0) {
            handle.inode.listed.lock().closed(handle.id);
        }
    }

    pub fn dir(&self, number: FileHandle) -> Res<Arc<DirHandle>> {
        self.dirs.get(number.0).ok_or(Fault::Says(Errno::BADF))
    }

    /// A directory's entries; read anew from the beginning.
    pub fn lines(&self, handle: &DirHandle, offset: u64) -> Res<Arc<Lines>> {
        let mut lines = handle.lines.lock();
        if let Some(lines) = lines.as_ref().filter(|_| offset > 0) {
            return Ok(Arc::clone(lines));
        }
        let read = match self.believed_lines(&handle.inode) {
            Some(lines) => lines,
            None => match self.read_lines(&handle.inode, usize::MAX) {
                Err(fault) if fault.is_gone() => self.kept_lines(&handle.inode, fault)?,
                read => read?,
            },
        };
        let read = Arc::new(read);
        if handle.kept {
            // What is kept in the store is shown only until the source answers again.
            handle.inode.listed.lock().read(handle.id, read.read);
        }
        *lines = Some(Arc::clone(&read));
        Ok(read)
    }

    /// As [`lines`](Self::lines), to be told from the one of that number on: none is the end.
    fn lines_from(&self, handle: &DirHandle, offset: u64) -> Res<Arc<Lines>> {
        let lines = self.lines(handle, offset)?;
        if offset >= lines.lines.len() as u64 + 2 {
            handle.inode.listed.lock().told_all(handle.id);
        }
        Ok(lines)
    }

    /// From the source.
    ///
    /// # Errors
    /// What the source says; `OVERFLOW` of a directory with more names than these.
    pub fn read_lines(&self, inode: &Arc<Inode>, most: usize) -> Res<Lines> {
        let begun = Instant::now();
        let found = self.find(inode)?;
        let dir = reopen(&found.fd, LISTED)?;
        let mut lines = Vec::new();
        for entry in Dir::read_from(&dir)? {
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
        Ok(Lines { read: Some(begun), dir: Some((found.fd, found.root)).into(), path, lines })
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
        Some(Lines { read: Some(read), dir: OnceLock::new(), path: Some(path), lines })
    }

    /// From the store, while the source is gone.
    fn kept_lines(&self, inode: &Inode, fault: Fault) -> Res<Lines> {
        let path = inode.path().ok_or(fault)?;
        let lines = self.listings.with(&path, |listing| listing.complete.then(|| listing.all_lines()));
        Ok(Lines { read: None, dir: None.into(), path: Some(path), lines: lines.ok_or(fault)? })
    }

    pub fn list(&self, handle: &DirHandle, offset: u64, reply: &mut ReplyDirectory) -> Res<()> {
        let lines = self.lines_from(handle, offset)?;
        for (at, (name, node, kind)) in dots(&handle.inode).into_iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(node), at as u64 + 1, kind, name) {
                return Ok(());
            }
        }
        let skipped = (offset as usize).saturating_sub(2);
        for (at, line) in lines.lines.iter().enumerate().skip(skipped) {
            if reply.add(INodeNo(line.inode), at as u64 + 3, line.kind, OsStr::from_bytes(&line.name)) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The same with each entry's attributes.
    pub fn list_plus(&self, handle: &DirHandle, offset: u64, reply: &mut ReplyDirectoryPlus) -> Res<()> {
        let lines = self.lines_from(handle, offset)?;
        let own = handle.inode.attr();
        for (at, (name, node, _)) in dots(&handle.inode).into_iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(node), at as u64 + 1, name, &self.ttl, &own.told(node), Generation(0)) {
                return Ok(());
            }
        }
        let skipped = (offset as usize).saturating_sub(2);
        let mut looked = skipped;
        for (at, line) in lines.lines.iter().enumerate().skip(skipped) {
            let next = at as u64 + 3;
            let name = OsStr::from_bytes(&line.name);
            if at >= looked {
                looked = self.look_at_lines(&handle.inode, &lines, at);
            }
            let Some((inode, attr, left)) = self.entry(&handle.inode, &lines, line) else {
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
    fn entry(&self, parent: &Arc<Inode>, lines: &Lines, line: &Line) -> Option<(Arc<Inode>, Attr, Duration)> {
        if let Some(known) = self.believed_name(parent, &line.name) {
            // Gone since the names were read: as if nothing were known of it.
            let (inode, attr) = known.answer?;
            return Some((inode, attr, known.left));
        }
        let (attr, begun) = self.entry_attr(parent, lines, line)?;
        let (inode, attr) = match begun {
            Some(begun) => self.told(parent, &line.name, attr, begun),
            None => (self.inodes.told(parent, &line.name, attr, None), attr),
        };
        let left = begun.map_or(self.ttl, |begun| {
            self.good_for(parent.identity, begun).min(self.good_for(inode.identity, begun))
        });
        Some((inode, attr, left))
    }

    /// Looks at the entries from this one on, several at once where that takes long; up to which it has.
    fn look_at_lines(&self, parent: &Inode, lines: &Lines, from: usize) -> usize {
        let end = (from + AT_ONCE).min(lines.lines.len());
        if lines.read.is_some()
            && self.source.is_remote()
            && !self.ttl.is_zero()
            && let Some(path) = &lines.path
        {
            let names = lines.lines[from..end].iter().map(|line| line.name.clone()).collect();
            let names = self.not_believed(parent, path, names);
            if !names.is_empty()
                && let Some((dir, root)) = self.dir_of(parent, lines)
            {
                self.look_at_all(Within::new(parent, dir, root, true), path, &names, || {});
            }
        }
        end
    }

    fn dir_of<'a>(&self, parent: &Inode, lines: &'a Lines) -> Option<&'a (Opened, Root)> {
        let find = || self.find(parent).ok().map(|found| (found.fd, found.root));
        lines.dir.get_or_init(find).as_ref()
    }

    /// An entry's attributes, and when they were asked for; `None` if they are from the store.
    fn entry_attr(&self, parent: &Inode, lines: &Lines, line: &Line) -> Option<(Attr, Option<Instant>)> {
        let path = lines.path.as_deref();
        let kept = || {
            let attr = self.listings.with(path?, |listing| listing.entries.get(&line.name)?.attr)?;
            Some((attr, None))
        };
        let Some((dir, root)) = self.dir_of(parent, lines) else { return kept() };
        match self.look_at(Within::new(parent, dir, root, true), path, &line.name) {
            Ok((attr, begun)) => Some((attr, Some(begun))),
            Err(fault) if fault.is_gone() => kept(),
            Err(_) => None,
        }
    }
}

/// What every directory has.
fn dots(inode: &Inode) -> [(&'static str, u64, FileType); 2] {
    [(".", inode.node, FileType::Directory), ("..", ROOT, FileType::Directory)]
}

fn kind_bits(kind: FileType) -> u32 {
    crate::listing::mode(kind)
}
