//! What the kernel asks, passed on to the [`View`].

use crate::attr::{Attr, device_told, nothing};
use crate::attributes::Wanted;
use crate::belief::Believed;
use crate::fault::Res;
use crate::files::Opening;
use crate::inodes::Inode;
use crate::names::{Made, Owner};
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

fn entry(view: &View, reply: ReplyEntry, made: Res<(Arc<Inode>, Attr)>) {
    match made {
        Ok((inode, attr)) => reply.entry(&view.ttl, &attr.told(inode.node), Generation(inode.generation)),
        Err(fault) => reply.error(fault.errno()),
    }
}

fn make(view: &View, owner: Owner, parent: INodeNo, name: &OsStr, what: &Made<'_>, reply: ReplyEntry) {
    let made = view.inode(parent.0).and_then(|parent| view.make(&parent, name.as_bytes(), what, owner));
    entry(view, reply, made);
}

fn sized(reply: ReplyXattr, size: u32, got: Res<Vec<u8>>) {
    match got {
        Ok(bytes) if size == 0 => reply.size(bytes.len() as u32),
        Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
        Err(fault) => reply.error(fault.errno()),
    }
}

/// The file system as `fuser` calls it, by as many threads as there are in `session.rs`: each takes what the kernel asks and answers it, so none has to wake another.
#[derive(Debug)]
pub struct Serve {
    pub view: Arc<View>,
}

impl Filesystem for Serve {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
        ];
        for flag in wanted {
            // A kernel that lacks one is slower.
            let _ = config.add_capabilities(flag);
        }
        // Files that are passed through may lie on a file system that is itself on a disk, and not on another one.
        if self.view.plains.are_on()
            && (config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_err()
                || config.set_max_stack_depth(1).is_err())
        {
            self.view.plains.turn_off();
        }
        let _ = config.set_max_write(MOST);
        let _ = config.set_max_readahead(MOST);
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let view = &*self.view;
        let look_up = |parent: Arc<Inode>| {
            let name = name.as_bytes();
            view.believed_name(&parent, name).map_or_else(|| view.look_up(&parent, name), Ok)
        };
        let found = view.inode(parent.0).and_then(look_up);
        match found {
            Ok(Believed { answer: Some((inode, attr)), left, .. }) => {
                reply.entry(&left, &attr.told(inode.node), Generation(inode.generation));
            }
            // That it is not there may be remembered as well: number 0 says so.
            Ok(Believed { answer: None, left, .. }) => reply.entry(&left, &nothing(), Generation(0)),
            Err(fault) => reply.error(fault.errno()),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.view.inodes.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let view = &*self.view;
        let attributes = |inode: Arc<Inode>| match view.believed(&inode) {
            Some(known) => Ok((known.answer, known.left)),
            None => view.attributes(&inode),
        };
        answer!(reply, attributes(view.inode(ino.0)?), (attr, left) => reply.attr(&left, &attr.told(ino.0)));
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
        let view = &*self.view;
        let wanted = Wanted { mode, owner: (uid, gid), size, times: (atime, mtime) };
        let handle = fh.and_then(|fh| view.handle(fh).ok());
        let set = || view.set_attributes(&view.inode(ino.0)?, handle.as_deref(), &wanted);
        answer!(reply, set(), attr => reply.attr(&view.ttl, &attr.told(ino.0)));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let view = &*self.view;
        answer!(reply, view.target(&view.inode(ino.0)?), target => reply.data(&target));
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
        let owner = (req.uid(), req.gid());
        let view = &*self.view;
        let what = Made::Node { mode: mode & !umask, device: device_told(rdev) };
        make(view, owner, parent, name, &what, reply);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let owner = (req.uid(), req.gid());
        let view = &*self.view;
        make(view, owner, parent, name, &Made::Directory { mode: mode & !umask & 0o7777 }, reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        let owner = (req.uid(), req.gid());
        let view = &*self.view;
        make(view, owner, parent, link_name, &Made::Link { target: target.as_os_str().as_bytes() }, reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let view = &*self.view;
        answer!(reply, view.remove(&view.inode(parent.0)?, name.as_bytes(), AtFlags::empty()), () => reply.ok());
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let view = &*self.view;
        answer!(reply, view.remove(&view.inode(parent.0)?, name.as_bytes(), AtFlags::REMOVEDIR), () => reply.ok());
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
        let view = &*self.view;
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let rename = || {
            let (from, to) = (view.inode(parent.0)?, view.inode(newparent.0)?);
            view.rename((&from, name.as_bytes()), (&to, newname.as_bytes()), flags)
        };
        answer!(reply, rename(), () => reply.ok());
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let view = &*self.view;
        let link = || view.link(&view.inode(ino.0)?, &view.inode(newparent.0)?, newname.as_bytes());
        entry(view, reply, link());
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let view = &*self.view;
        let open = || view.open(&view.inode(ino.0)?, flags.0, &|file| reply.open_backing(file));
        match tried(open) {
            Ok(Opening { handle, flags, backing: None }) => reply.opened(handle, flags),
            Ok(Opening { handle, flags, backing: Some(backing) }) => {
                reply.opened_passthrough(handle, flags, &backing);
            }
            Err(fault) => reply.error(fault.errno()),
        }
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
        let view = &*self.view;
        let read = || view.read(&*view.handle(fh)?, offset, size as usize);
        answer!(reply, read(), bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mapped = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let view = &*self.view;
        answer!(reply, view.write(&*view.handle(fh)?, offset, data, mapped), written => reply.written(written));
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let view = &*self.view;
        answer!(reply, view.flush(&*view.handle(fh)?), () => reply.ok());
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
        // To close it may take long.
        let view = &*self.view;
        view.close(fh);
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let view = &*self.view;
        answer!(reply, view.sync_file(&*view.handle(fh)?, datasync), () => reply.ok());
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Directories are not opened, which saves two calls for each that is listed. The kernel keeps the names that it is told: see `lines.rs` and `notices.rs`.
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let view = &*self.view;
        answer!(reply, view.list(&view.inode(ino.0)?, offset, &mut reply), () => reply.ok());
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let view = &*self.view;
        answer!(reply, view.list_plus(&view.inode(ino.0)?, offset, &mut reply), () => reply.ok());
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let view = &*self.view;
        answer!(reply, view.sync_dir(&*view.inode(ino.0)?), () => reply.ok());
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let view = &*self.view;
        let stat = || Ok(rustix::fs::fstatvfs(&view.source.root()?.fd)?);
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
        let view = &*self.view;
        answer!(reply, view.set_xattr(&view.inode(ino.0)?, name, Some(value), flags), () => reply.ok());
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let view = &*self.view;
        sized(reply, size, view.inode(ino.0).and_then(|inode| view.xattr(&inode, name)));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let view = &*self.view;
        sized(reply, size, view.inode(ino.0).and_then(|inode| view.xattrs(&inode)));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let view = &*self.view;
        answer!(reply, view.set_xattr(&view.inode(ino.0)?, name, None, 0), () => reply.ok());
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
        let owner = (req.uid(), req.gid());
        let view = &*self.view;
        let mode = mode & !umask & 0o7777;
        let create = || view.create(&view.inode(parent.0)?, name.as_bytes(), mode, flags, owner);
        answer!(reply, create(), (inode, attr, handle) => {
            reply.created(&view.ttl, &attr.told(inode.node), Generation(inode.generation), handle, FopenFlags::empty());
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
        let view = &*self.view;
        answer!(reply, view.allocate(&*view.handle(fh)?, offset, length, mode), () => reply.ok());
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
        let view = &*self.view;
        answer!(reply, view.seek(&*view.handle(fh)?, offset, whence), at => reply.offset(at));
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
        let view = &*self.view;
        let copy = || {
            let (from, to) = (view.handle(fh_in)?, view.handle(fh_out)?);
            view.copy_range((&from, offset_in), (&to, offset_out), len)
        };
        answer!(reply, copy(), copied => reply.written(copied));
    }
}
