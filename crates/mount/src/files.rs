//! Operations on open files.

use crate::content::Unknown;
use crate::fault::{Fault, Res};
use crate::handles::{Handle, Kept};
use crate::inodes::Inode;
use crate::plain::{Passed, Register};
use crate::source::reopen;
use crate::view::View;
use fuser::{BackingId, FileHandle, FopenFlags};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

/// A file that was opened, as the kernel is told.
#[derive(Debug)]
pub struct Opening {
    pub handle: FileHandle,
    pub flags: FopenFlags,
    /// What the kernel is to read by itself.
    pub backing: Option<Arc<BackingId>>,
}

/// Flags of an open that concern how the file is used later.
const KEPT: OFlags = OFlags::RDONLY
    .union(OFlags::WRONLY)
    .union(OFlags::RDWR)
    .union(OFlags::APPEND)
    .union(OFlags::SYNC)
    .union(OFlags::DSYNC);

/// Those of the kernel's that are passed on.
pub fn kept_flags(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags as u32).intersection(KEPT)
}

fn writes(flags: OFlags) -> bool {
    flags.intersects(OFlags::WRONLY | OFlags::RDWR)
}

impl View {
    pub fn handle(&self, number: FileHandle) -> Res<Arc<Handle>> {
        self.handles.get(number.0).ok_or(Fault::Says(Errno::BADF))
    }

    pub fn open(&self, inode: &Arc<Inode>, flags: i32, register: Register<'_>) -> Res<Opening> {
        let direct = OFlags::from_bits_retain(flags as u32).contains(OFlags::DIRECT);
        let flags = kept_flags(flags);
        if writes(flags) && self.plains.are_wanted() {
            // Somebody has made a mount writable that was not to be: what is written to a copy would be lost.
            return Err(Errno::ROFS.into());
        }
        if let Some((handle, keep)) = self.open_believed(inode, flags, direct, register) {
            return self.opening(handle, keep, register);
        }
        let opened = self.find(inode).and_then(|found| {
            let begun = Instant::now();
            let file = reopen(&found.fd, flags)?;
            Ok((found.root.attr(&file)?, begun, file))
        });
        let (mut state, mut gone) = (inode.state.lock(), None);
        let (file, stamp, content) = match opened {
            Ok((attr, begun, file)) => {
                let stamp = attr.stamp();
                // What was fetched too soon after a change is found out here.
                let content = self.content(inode, &mut state, &stamp, begun, false);
                state.opened = Some(begun);
                // Before anybody else opens it, who takes the one for the other.
                self.note(inode, &attr, begun);
                (Some(file), stamp, content)
            }
            Err(fault) if fault.is_gone() && !writes(flags) => {
                let last = inode.attr().stamp();
                gone = Some(fault);
                (None, last, self.last_content(inode, &mut state, &last))
            }
            Err(fault) => return Err(fault),
        };
        let keep = state.kernel == Some(stamp);
        if file.is_some() {
            state.kernel = Some(stamp);
        }
        let passed = self.passed(inode, (&mut state, &stamp, direct), content.as_ref(), register);
        if let Some(fault) = gone
            && content.is_none()
            && passed.as_ref().is_none_or(|passed| passed.asks)
        {
            return Err(fault);
        }
        // With the state locked: who opens it next sees how it is open.
        let handle = Handle::new(inode, flags, file, None, passed);
        drop(state);
        self.opening(handle, keep, register)
    }

    /// Without the source's file, which is opened when something is wanted of it: to be read, all of it being kept, and somebody having opened it there within the ttl. Only where to open it takes long: who has a file open
    /// that way may have it no longer once others have removed it, as on a file system of another machine. The handle, and whether the kernel's pages are those of the file.
    fn open_believed(
        &self,
        inode: &Arc<Inode>,
        flags: OFlags,
        direct: bool,
        register: Register<'_>,
    ) -> Option<(Arc<Handle>, bool)> {
        if writes(flags) || !self.source.is_remote() {
            return None;
        }
        // Locked first: who changes it, or is about to take its name away, comes before or after.
        let mut state = inode.state.lock();
        let opened = state.opened.filter(|opened| self.left(inode.identity, *opened).is_some())?;
        let known = self.believed(inode)?;
        let stamp = known.answer.stamp();
        let content = self.content(inode, &mut state, &stamp, opened.min(known.seen), false)?;
        if !content.object.missing(0..stamp.size).is_empty() {
            return None;
        }
        let kept = Kept { place: inode.place()?, stamp };
        let keep = state.kernel == Some(stamp);
        state.kernel = Some(stamp);
        let passed = self.passed(inode, (&mut state, &stamp, direct), Some(&content), register);
        Some((Handle::new(inode, flags, None, Some(kept), passed), keep))
    }

    fn opening(&self, handle: Arc<Handle>, keep: bool, register: Register<'_>) -> Res<Opening> {
        let mut flags = FopenFlags::empty();
        // Of its own pages nothing is wanted where it reads a copy, and may not be.
        flags.set(FopenFlags::FOPEN_KEEP_CACHE, keep && handle.passed.is_none());
        flags.set(FopenFlags::FOPEN_DIRECT_IO, handle.passed.as_ref().is_some_and(|passed| passed.asks));
        // Nothing is to be done when a descriptor is closed through which nothing was written.
        flags.set(FopenFlags::FOPEN_NOFLUSH, !writes(handle.flags));
        let backing = handle.passed.as_ref().map(|passed| passed.plain.backing(register)).transpose()?;
        Ok(Opening { handle: FileHandle(self.handles.add(handle)), flags, backing })
    }

    /// `mapped`: pages of a mapping, which belong where they are, also if the descriptor appends.
    pub fn write(&self, handle: &Handle, offset: u64, data: &[u8], mapped: bool) -> Res<u32> {
        let appends = handle.appends() && !mapped;
        let write_at = |file: &File| {
            let mut written = 0;
            loop {
                match file.write_at(&data[written..], offset + written as u64) {
                    Err(error) if Errno::from_io_error(&error) == Some(Errno::INTR) => {}
                    // Nobody looks how much of a mapping's pages was written: it is all, or what stands in the way.
                    Ok(some) if mapped && some > 0 && written + some < data.len() => written += some,
                    Ok(0) if mapped && !data.is_empty() => return Err(Errno::IO.into()),
                    done => return Ok(written + done?),
                }
            }
        };
        let write = || match handle.appends() && mapped {
            // An appending descriptor writes at the end, whatever offset it is given.
            true => {
                write_at(&reopen(&self.find(&handle.inode)?.fd, handle.flags.difference(OFlags::APPEND))?)
            }
            false => self.with_file_to_write(handle, write_at),
        };
        let written = self.change(
            &handle.inode,
            true,
            || self.attr_of(handle),
            write,
            |written, object, before, after| {
                let end = offset + *written as u64;
                // An appending descriptor writes at the end, wherever the kernel thinks that this is.
                let there = if appends {
                    before.size == offset && after.size == end
                } else {
                    after.size == before.size.max(end)
                };
                if !there {
                    return Err(Unknown);
                }
                if !self.has_room() || object.write(offset, &data[..*written]).is_err() {
                    self.was_full();
                    object.punch(offset..end);
                }
                Ok(object.set_len(after.size)?)
            },
        );
        if written.is_err() {
            // The page of a mapping has what could not be written.
            self.doubt_pages(&handle.inode);
        }
        Ok(written? as u32)
    }

    pub fn truncate(&self, inode: &Arc<Inode>, handle: Option<&Handle>, size: u64) -> Res<()> {
        let cut = || match handle {
            Some(handle) => self.with_file_to_write(handle, |file| Ok(rustix::fs::ftruncate(file, size)?)),
            None => Ok(rustix::fs::ftruncate(reopen(&self.find(inode)?.fd, OFlags::WRONLY)?, size)?),
        };
        let look = || match handle {
            Some(handle) => self.attr_of(handle),
            None => Ok(self.find(inode)?.attr),
        };
        self.change(inode, size == 0, look, cut, |(), object, _, after| {
            if after.size != size {
                return Err(Unknown);
            }
            Ok(object.set_len(size)?)
        })
    }

    pub fn allocate(&self, handle: &Handle, offset: u64, length: u64, mode: i32) -> Res<()> {
        let flags = FallocateFlags::from_bits_retain(mode as u32);
        let act = || {
            self.with_file_to_write(handle, |file| Ok(rustix::fs::fallocate(file, flags, offset, length)?))
        };
        let moves = FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE;
        self.change(
            &handle.inode,
            false,
            || self.attr_of(handle),
            act,
            |(), object, _, after| {
                if flags.intersects(moves) {
                    return Err(Unknown);
                }
                if flags.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE) {
                    object.punch(offset..offset.saturating_add(length));
                }
                Ok(object.set_len(after.size)?)
            },
        )
    }

    pub fn copy_range(&self, from: (&Handle, u64), to: (&Handle, u64), length: u64) -> Res<u32> {
        let (source, target) = (self.file(from.0)?, self.file(to.0)?);
        let length = length.min(1 << 30) as usize;
        let act = || {
            let (mut at, mut into) = (from.1, to.1);
            Ok(rustix::fs::copy_file_range(&*source, Some(&mut at), &*target, Some(&mut into), length)?)
        };
        let copied = self.change(
            &to.0.inode,
            false,
            || self.attr_of(to.0),
            act,
            |copied, object, _, after| {
                object.punch(to.1..to.1 + *copied as u64);
                Ok(object.set_len(after.size)?)
            },
        )?;
        Ok(copied as u32)
    }

    /// Of data and holes: the kernel knows the rest itself.
    pub fn seek(&self, handle: &Handle, offset: i64, whence: i32) -> Res<i64> {
        /// `SEEK_DATA` and `SEEK_HOLE`.
        const DATA_AND_HOLE: [i32; 2] = [3, 4];
        let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        let to = match DATA_AND_HOLE.iter().position(|known| *known == whence) {
            Some(0) => SeekFrom::Data(offset),
            Some(_) => SeekFrom::Hole(offset),
            None => return Err(Errno::INVAL.into()),
        };
        if let Some(Passed { plain, asks: false }) = &handle.passed {
            return Ok(plain.seek(to)? as i64);
        }
        Ok(self.with_file(handle, |file| Ok(rustix::fs::seek(file, to)?))? as i64)
    }

    /// Through the descriptor that was written through: another one would say that all is well.
    pub fn sync_file(&self, handle: &Handle, data_only: bool) -> Res<()> {
        if handle.is_unsure() {
            return Err(Fault::Says(Errno::IO));
        }
        let file = self.file(handle)?;
        if data_only {
            rustix::fs::fdatasync(&*file)?;
        } else {
            rustix::fs::fsync(&*file)?;
        }
        Ok(())
    }

    /// The last of its descriptors is closed: other machines may change its times then.
    pub fn close(&self, number: FileHandle) {
        let Some(handle) = self.handles.remove(number.0) else { return };
        let changing = writes(handle.flags).then(|| self.changes.begin(handle.inode.identity));
        drop(handle);
        drop(changing);
    }

    /// A program has closed one of its descriptors: file systems of other machines send then what was written.
    pub fn flush(&self, handle: &Handle) -> Res<()> {
        let file = handle.file.lock().clone();
        if let Some(file) = file.filter(|_| writes(handle.flags)) {
            let _changing = self.changes.begin(handle.inode.identity);
            drop(file.try_clone()?);
        }
        Ok(())
    }
}
