//! What the kernel asks, passed on to the [`View`].

use crate::attr::{Attr, device_told, nothing};
use crate::attributes::Wanted;
use crate::fault::{Fault, Res};
use crate::inodes::Inode;
use crate::names::Made;
use crate::view::View;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::AtFlags;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Bytes of one read or write at the most.
const MOST: u32 = 1 << 20;
/// Requests that the kernel makes at once for what nobody waits for yet. There are more threads than these.
const BACKGROUND: u16 = 16;
/// Threads that answer: so many operations of the source may be under way at once.
pub const THREADS: usize = 32;

/// The file system as `fuser` calls it.
#[derive(Debug)]
pub struct Serve(pub Arc<View>);

/// Answers with what there is, or why there is nothing.
macro_rules! answer {
    ($reply:ident, $result:expr, $found:pat => $with:expr) => {
        match tried(|| $result) {
            Ok($found) => $with,
            Err(fault) => $reply.error(fault.errno()),
        }
    };
}

/// So that what is asked for may use `?`.
fn tried<T>(ask: impl FnOnce() -> Res<T>) -> Res<T> {
    ask()
}

impl Serve {
    fn entry(&self, reply: ReplyEntry, made: Res<(Arc<Inode>, Attr)>) {
        match made {
            Ok((inode, attr)) => reply.entry(&self.0.ttl, &attr.told(inode.node), Generation(0)),
            Err(fault) => reply.error(fault.errno()),
        }
    }
}

fn sized(reply: ReplyXattr, size: u32, got: Res<Vec<u8>>) {
    match got {
        Ok(bytes) if size == 0 => reply.size(bytes.len() as u32),
        Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(fault) => reply.error(fault.errno()),
    }
}

impl Filesystem for Serve {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
        ];
        for flag in wanted {
            // A kernel that lacks one is slower.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(MOST);
        let _ = config.set_max_readahead(MOST);
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.0.inode(parent.0).and_then(|parent| self.0.look_up(&parent, name.as_bytes()));
        if found.as_ref().is_err_and(|fault| *fault == Fault::Says(rustix::io::Errno::NOENT)) {
            // That it is not there may be remembered as well: number 0 says so.
            return reply.entry(&self.0.ttl, &nothing(), Generation(0));
        }
        self.entry(reply, found);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.0.inodes.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.0.attributes(&self.0.inode(ino.0)?), attr => reply.attr(&self.0.ttl, &attr.told(ino.0)));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wanted = Wanted { mode, owner: (uid, gid), size, times: (atime, mtime) };
        let handle = fh.and_then(|fh| self.0.handle(fh).ok());
        let set = || self.0.set_attributes(&self.0.inode(ino.0)?, handle.as_deref(), &wanted);
        answer!(reply, set(), attr => reply.attr(&self.0.ttl, &attr.told(ino.0)));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        answer!(reply, self.0.target(&self.0.inode(ino.0)?), target => reply.data(&target));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let what = Made::Node { mode: mode & !umask, device: device_told(rdev) };
        self.make(req, parent, name, &what, reply);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.make(req, parent, name, &Made::Directory { mode: mode & !umask & 0o7777 }, reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.make(req, parent, link_name, &Made::Link { target: target.as_os_str().as_bytes() }, reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.0.remove(&self.0.inode(parent.0)?, name.as_bytes(), AtFlags::empty()), () => reply.ok());
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.0.remove(&self.0.inode(parent.0)?, name.as_bytes(), AtFlags::REMOVEDIR), () => reply.ok());
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let rename = || {
            let (from, to) = (self.0.inode(parent.0)?, self.0.inode(newparent.0)?);
            self.0.rename((&from, name.as_bytes()), (&to, newname.as_bytes()), flags)
        };
        answer!(reply, rename(), () => reply.ok());
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let link = || self.0.link(&self.0.inode(ino.0)?, &self.0.inode(newparent.0)?, newname.as_bytes());
        self.entry(reply, link());
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.0.open(&self.0.inode(ino.0)?, flags.0), (handle, flags) => reply.opened(handle, flags));
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || self.0.read(&*self.0.handle(fh)?, offset, size as usize);
        answer!(reply, read(), bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, self.0.write(&*self.0.handle(fh)?, offset, data), written => reply.written(written));
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.0.flush(&*self.0.handle(fh)?), () => reply.ok());
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        drop(self.0.handles.remove(fh.0));
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        answer!(reply, self.0.sync_file(&*self.0.handle(fh)?, datasync), () => reply.ok());
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.0.inode(ino.0), inode => reply.opened(self.0.open_dir(&inode), FopenFlags::empty()));
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        answer!(reply, self.0.list(&*self.0.dir(fh)?, offset, &mut reply), () => reply.ok());
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        answer!(reply, self.0.list_plus(&*self.0.dir(fh)?, offset, &mut reply), () => reply.ok());
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        drop(self.0.dirs.remove(fh.0));
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer!(reply, self.0.sync_dir(&*self.0.inode(ino.0)?), () => reply.ok());
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let stat = || Ok(rustix::fs::fstatvfs(&self.0.source.root()?.fd)?);
        answer!(reply, stat(), found => reply.statfs(
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
            found.f_files,
            found.f_ffree,
            found.f_bsize as u32,
            found.f_namemax as u32,
            found.f_frsize as u32,
        ));
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.0.set_xattr(&self.0.inode(ino.0)?, name, Some(value), flags), () => reply.ok());
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        sized(reply, size, self.0.inode(ino.0).and_then(|inode| self.0.xattr(&inode, name)));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        sized(reply, size, self.0.inode(ino.0).and_then(|inode| self.0.xattrs(&inode)));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.0.set_xattr(&self.0.inode(ino.0)?, name, None, 0), () => reply.ok());
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel looks at the modes itself (`default_permissions`).
        reply.ok();
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (owner, mode) = ((req.uid(), req.gid()), mode & !umask & 0o7777);
        let create = || self.0.create(&self.0.inode(parent.0)?, name.as_bytes(), mode, flags, owner);
        answer!(reply, create(), (inode, attr, handle) => {
            reply.created(&self.0.ttl, &attr.told(inode.node), Generation(0), handle, FopenFlags::empty());
        });
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.0.allocate(&*self.0.handle(fh)?, offset, length, mode), () => reply.ok());
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        answer!(reply, self.0.seek(&*self.0.handle(fh)?, offset, whence), at => reply.offset(at));
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let copy = || {
            let (from, to) = (self.0.handle(fh_in)?, self.0.handle(fh_out)?);
            self.0.copy_range((&from, offset_in), (&to, offset_out), len)
        };
        answer!(reply, copy(), copied => reply.written(copied));
    }
}

impl Serve {
    fn make(&self, req: &Request, parent: INodeNo, name: &OsStr, what: &Made<'_>, reply: ReplyEntry) {
        let owner = (req.uid(), req.gid());
        let made =
            self.0.inode(parent.0).and_then(|parent| self.0.make(&parent, name.as_bytes(), what, owner));
        self.entry(reply, made);
    }
}
