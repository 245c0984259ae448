//! Operations on open directories.

use crate::attr::{Attr, kind};
use crate::fault::{Fault, Res};
use crate::handles::{DirHandle, Line, Lines};
use crate::inodes::{Inode, ROOT};
use crate::source::reopen;
use crate::view::View;
use fuser::{FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use parking_lot::Mutex;
use rustix::fs::{Dir, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

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
        let begun = Instant::now();
        let read = match self.read_lines(&handle.inode) {
            Err(fault) if fault.is_gone() => self.kept_lines(&handle.inode, fault),
            read => read,
        };
        let read = Arc::new(read?);
        if handle.kept {
            // What is kept in the store is shown only until the source answers again.
            handle.inode.listed.lock().read(handle.id, read.dir.as_ref().map(|_| begun));
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

    fn read_lines(&self, inode: &Arc<Inode>) -> Res<Lines> {
        let found = self.find(inode)?;
        let dir = reopen(&found.fd, LISTED)?;
        let mut lines = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let mut kind = kind(entry.file_type().as_raw_mode());
                if entry.file_type() == rustix::fs::FileType::Unknown {
                    kind = found.root.attr_at(&dir, name).map_or(FileType::RegularFile, |attr| attr.kind());
                }
                lines.push(Line { name: name.to_vec(), inode: entry.ino(), kind });
            }
        }
        self.note(inode, &found.attr);
        let path = inode.path();
        if let Some(path) = &path {
            self.listings.with(path, |listing| listing.renew(&lines));
        }
        Ok(Lines { dir: Some(dir), root: Some(found.root), path, lines })
    }

    /// From the store, while the source is gone.
    fn kept_lines(&self, inode: &Inode, fault: Fault) -> Res<Lines> {
        let path = inode.path().ok_or(fault)?;
        let lines = self.listings.with(&path, |listing| {
            let line = |(name, entry): (&Vec<u8>, &crate::listing::Entry)| Line {
                name: name.clone(),
                inode: entry.inode,
                kind: kind(entry.mode),
            };
            listing.complete.then(|| listing.entries.iter().map(line).collect())
        });
        Ok(Lines { dir: None, root: None, path: Some(path), lines: lines.ok_or(fault)? })
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
        let own = *handle.inode.attr.lock();
        for (at, (name, node, _)) in dots(&handle.inode).into_iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(node), at as u64 + 1, name, &self.ttl, &own.told(node), Generation(0)) {
                return Ok(());
            }
        }
        let skipped = (offset as usize).saturating_sub(2);
        for (at, line) in lines.lines.iter().enumerate().skip(skipped) {
            let next = at as u64 + 3;
            let name = OsStr::from_bytes(&line.name);
            let Some(attr) = self.entry(&lines, line) else {
                // Without a number of an inode the kernel takes the name alone.
                let none = Attr { mode: kind_bits(line.kind), ..own }.told(0);
                if reply.add(INodeNo(0), next, name, &self.ttl, &none, Generation(0)) {
                    return Ok(());
                }
                continue;
            };
            let (inode, attr) = match &lines.dir {
                Some(_) => self.told(&handle.inode, &line.name, attr),
                None => (self.inodes.told(&handle.inode, &line.name, attr), attr),
            };
            let full =
                reply.add(INodeNo(inode.node), next, name, &self.ttl, &attr.told(inode.node), Generation(0));
            if full {
                self.inodes.forget(inode.node, 1);
                return Ok(());
            }
        }
        Ok(())
    }

    fn entry(&self, lines: &Lines, line: &Line) -> Option<Attr> {
        let path = lines.path.as_ref();
        let kept = || {
            path.and_then(|path| self.listings.with(path, |listing| listing.entries.get(&line.name)?.attr))
        };
        let (Some(dir), Some(root)) = (&lines.dir, &lines.root) else { return kept() };
        match root.attr_at(dir, &line.name) {
            Ok(attr) => {
                let is_link = attr.kind() == FileType::Symlink;
                let target =
                    is_link.then(|| rustix::fs::readlinkat(dir, &line.name[..], Vec::new()).ok()).flatten();
                if let Some(path) = path {
                    self.listings.with(path, |listing| {
                        listing.see(&line.name, &attr);
                        if let Some(target) = target {
                            listing.points(&line.name, attr.identity, target.as_bytes());
                        }
                    });
                }
                Some(attr)
            }
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
