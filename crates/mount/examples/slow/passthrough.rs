//! [`Slow`]: a directory shown as it is, but each call takes a while, fails when it is told to, and is counted: a source for tests and measurements.
//!
//! An inode is known by a descriptor that stands for it (`O_PATH`), so names may change as they like. Whoever looks at what is shown must not be the one who
//! serves it in the same thread.

use fuser::{
    BsdFileFlags, Config, Errno as Answer, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow,
    WriteFlags,
};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Dir, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The kernel's number of the directory itself.
const ROOT: u64 = 1;
/// So many calls are answered at once.
const THREADS: usize = 64;

/// Kinds of calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    Look,
    Attributes,
    Open,
    Read,
    Write,
    Sync,
    List,
    Change,
}

/// All kinds.
pub const ALL: [Call; 8] =
    [Call::Look, Call::Attributes, Call::Open, Call::Read, Call::Write, Call::Sync, Call::List, Call::Change];

/// How it behaves, changed while it is in use, and what was asked of it.
#[derive(Debug, Default)]
pub struct Control {
    /// Microseconds of each call.
    delay: AtomicU64,
    /// Bits of the kinds of calls that fail.
    failing: AtomicU32,
    errno: AtomicU32,
    /// So many of them are answered before.
    spared: AtomicU64,
    failed: AtomicU64,
    /// Calls that are being answered, and the most that were since somebody asked.
    under_way: AtomicU64,
    most: AtomicU64,
    /// What fails was done all the same; half of a write.
    halfway: AtomicBool,
    /// From here on no file can be read.
    bad: AtomicU64,
    counts: [AtomicU64; ALL.len()],
}

// Relaxed throughout: a test waits for what it has caused before it looks.
impl Control {
    pub fn delay(&self, delay: Duration) {
        self.delay.store(delay.as_micros() as u64, Ordering::Relaxed);
    }

    /// These calls answer so from now on, and no others.
    pub fn fail(&self, calls: &[Call], errno: Errno) {
        self.fail_after(0, calls, errno);
    }

    /// The same after so many more of them.
    pub fn fail_after(&self, spared: u64, calls: &[Call], errno: Errno) {
        self.spared.store(spared, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
        self.errno.store(errno.raw_os_error() as u32, Ordering::Relaxed);
        let bits = calls.iter().fold(0, |bits, call| bits | 1 << *call as u32);
        self.failing.store(bits, Ordering::Relaxed);
    }

    /// Whether a change that fails is made all the same, and of a write the first half.
    pub fn halfway(&self, halfway: bool) {
        self.halfway.store(halfway, Ordering::Relaxed);
    }

    /// From this offset on no file can be read any more.
    pub fn bad_from(&self, offset: u64) {
        self.bad.store(offset, Ordering::Relaxed);
    }

    /// All is well from now on.
    pub fn works(&self) {
        self.failing.store(0, Ordering::Relaxed);
        self.bad.store(0, Ordering::Relaxed);
    }

    /// Whether nothing has failed since [`Control::fail_after`] though it was to.
    pub fn has_spared(&self) -> bool {
        self.failed.load(Ordering::Relaxed) == 0
    }

    /// How many calls were under way at once since this was asked last.
    pub fn most_at_once(&self) -> u64 {
        self.most.swap(0, Ordering::Relaxed)
    }

    /// How often it was asked for something of this kind.
    pub fn count(&self, call: Call) -> u64 {
        self.counts[call as usize].load(Ordering::Relaxed)
    }

    fn fails(&self, call: Call) -> Option<Errno> {
        let fails = self.failing.load(Ordering::Relaxed) & 1 << call as u32 != 0
            && self
                .spared
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_err();
        self.failed.fetch_add(u64::from(fails), Ordering::Relaxed);
        fails.then(|| Errno::from_raw_os_error(self.errno.load(Ordering::Relaxed) as i32))
    }
}

/// How it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// How long the kernel need not ask again for names and attributes.
    pub ttl: Duration,
    /// The kernel keeps pages, as of a network file system; else each read is a call.
    pub pages: bool,
    /// Times are whole seconds.
    pub seconds: bool,
}

#[derive(Debug)]
struct Node {
    fd: Arc<OwnedFd>,
    lookups: u64,
}

type Names = Arc<Vec<(Vec<u8>, u64, FileType)>>;

/// The file system.
#[derive(Debug)]
pub struct Slow {
    control: Arc<Control>,
    manner: Manner,
    nodes: Mutex<HashMap<u64, Node>>,
    files: Mutex<HashMap<u64, Arc<File>>>,
    dirs: Mutex<HashMap<u64, Names>>,
    last: AtomicU64,
}

/// Mounts it; to be run then. The mask of modes of the process is 0 from then on.
pub fn show(dir: &Path, at: &Path, manner: Manner, control: &Arc<Control>) -> io::Result<Session<Slow>> {
    rustix::process::umask(Mode::empty());
    // Each inode is one.
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let fd = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let slow = Slow {
        control: Arc::clone(control),
        manner,
        nodes: Mutex::new(HashMap::from([(ROOT, Node { fd: Arc::new(fd), lookups: 1 })])),
        files: Mutex::default(),
        dirs: Mutex::default(),
        last: AtomicU64::new(0),
    };
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName("slow".to_owned()), MountOption::DefaultPermissions, MountOption::RW];
    config.n_threads = Some(THREADS);
    Session::new(slow, at, &config)
}

impl Slow {
    /// Each call goes through this.
    fn ask<T>(&self, call: Call, work: impl FnOnce() -> io::Result<T>) -> Result<T, Answer> {
        self.control.counts[call as usize].fetch_add(1, Ordering::Relaxed);
        let under_way = self.control.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.control.most.fetch_max(under_way, Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(self.control.delay.load(Ordering::Relaxed)));
        self.control.under_way.fetch_sub(1, Ordering::Relaxed);
        let done = match self.control.fails(call) {
            Some(errno) => {
                if call == Call::Change && self.control.halfway.load(Ordering::Relaxed) {
                    let _ = work();
                }
                Err(errno.into())
            }
            None => work(),
        };
        done.map_err(|error| Answer::from_i32(error.raw_os_error().unwrap_or(5)))
    }

    fn fd(&self, node: INodeNo) -> io::Result<Arc<OwnedFd>> {
        let nodes = self.nodes.lock();
        Ok(Arc::clone(&nodes.get(&node.0).ok_or(Errno::STALE)?.fd))
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        Ok(Arc::clone(self.files.lock().get(&handle.0).ok_or(Errno::BADF)?))
    }

    fn number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What a name stands for; the kernel is about to be told.
    fn find(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd(parent)?, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        let mut nodes = self.nodes.lock();
        let node = nodes.entry(stat.st_ino).or_insert_with(|| Node { fd: Arc::new(fd), lookups: 0 });
        node.lookups += 1;
        Ok(self.told(&stat, stat.st_ino))
    }

    fn told(&self, stat: &Stat, node: u64) -> FileAttr {
        let attr = told(stat, node);
        if !self.manner.seconds {
            return attr;
        }
        let (mtime, ctime) = (time(stat.st_mtime, 0), time(stat.st_ctime, 0));
        FileAttr { mtime, ctime, ..attr }
    }

    fn attr(&self, node: INodeNo) -> io::Result<FileAttr> {
        Ok(self.told(&rustix::fs::fstat(&self.fd(node)?)?, node.0))
    }

    fn keep(&self, file: File) -> (FileHandle, FopenFlags) {
        let number = self.number();
        self.files.lock().insert(number, Arc::new(file));
        let flags = if self.manner.pages { FopenFlags::empty() } else { FopenFlags::FOPEN_DIRECT_IO };
        (FileHandle(number), flags)
    }

    fn entry(&self, reply: ReplyEntry, found: Result<FileAttr, Answer>) {
        match found {
            Ok(attr) => reply.entry(&self.manner.ttl, &attr, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn make(
        &self,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
        make: impl FnOnce(&OwnedFd) -> Result<(), Errno>,
    ) {
        let made = self.ask(Call::Change, || {
            make(&*self.fd(parent)?)?;
            self.find(parent, name)
        });
        self.entry(reply, made);
    }

    fn names(&self, node: INodeNo) -> io::Result<Names> {
        let dir = File::open(magic(&*self.fd(node)?))?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            names.push((entry.file_name().to_bytes().to_vec(), entry.ino(), kind(entry.file_type())));
        }
        Ok(Arc::new(names))
    }

    /// Half of a write that fails.
    fn tear(&self, handle: FileHandle, offset: u64, data: &[u8]) {
        if let Ok(file) = self.file(handle) {
            let _ = file.write_at(&data[..data.len() / 2], offset);
        }
    }
}

fn magic(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn kind(kind: rustix::fs::FileType) -> FileType {
    match kind {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// Of times since 1970.
fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::new(seconds.max(0) as u64, nanoseconds as u32)
}

fn told(stat: &Stat, node: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(node),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: 0,
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

fn spec(wanted: Option<TimeOrNow>) -> Timespec {
    match wanted {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(TimeOrNow::SpecificTime(at)) => {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            Timespec { tv_sec: since.as_secs() as i64, tv_nsec: since.subsec_nanos().into() }
        }
    }
}

/// Flags of an open without those that concern only the opening, but O_TRUNC.
fn flags(flags: i32) -> OFlags {
    let kept = OFlags::RDONLY | OFlags::WRONLY | OFlags::RDWR | OFlags::APPEND | OFlags::SYNC | OFlags::TRUNC;
    OFlags::from_bits_retain(flags as u32).intersection(kept) | OFlags::CLOEXEC
}

macro_rules! answer {
    ($reply:ident, $result:expr, $found:pat => $with:expr) => {
        match $result {
            Ok($found) => $with,
            Err(errno) => $reply.error(errno),
        }
    };
}

impl Filesystem for Slow {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, self.ask(Call::Look, || self.find(parent, name)));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        let mut nodes = self.nodes.lock();
        let Some(node) = nodes.get_mut(&ino.0) else { return };
        node.lookups = node.lookups.saturating_sub(nlookup);
        if node.lookups == 0 && ino.0 != ROOT {
            nodes.remove(&ino.0);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.ask(Call::Attributes, || self.attr(ino)), attr => reply.attr(&self.manner.ttl, &attr));
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
        let set = || {
            let fd = self.fd(ino)?;
            if let Some(size) = size {
                let file = fh.and_then(|fh| self.file(fh).ok());
                match file {
                    Some(file) => file.set_len(size)?,
                    None => File::options().write(true).open(magic(&fd))?.set_len(size)?,
                }
            }
            if uid.is_some() || gid.is_some() {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                rustix::fs::chownat(&fd, "", uid, gid, AtFlags::EMPTY_PATH)?;
            }
            if let Some(mode) = mode {
                rustix::fs::chmod(magic(&fd), Mode::from_raw_mode(mode & 0o7777))?;
            }
            if atime.is_some() || mtime.is_some() {
                let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
                rustix::fs::utimensat(CWD, magic(&fd), &times, AtFlags::empty())?;
            }
            self.attr(ino)
        };
        answer!(reply, self.ask(Call::Change, set), attr => reply.attr(&self.manner.ttl, &attr));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let target = || Ok(rustix::fs::readlinkat(&self.fd(ino)?, "", Vec::new())?.into_bytes());
        answer!(reply, self.ask(Call::Look, target), target => reply.data(&target));
    }

    fn mknod(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let (kind, bits) = (rustix::fs::FileType::from_raw_mode(mode), Mode::from_raw_mode(mode & 0o7777));
        self.make(parent, name, reply, |dir| rustix::fs::mknodat(dir, name, kind, bits, 0));
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.make(parent, name, reply, |dir| {
            rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode & 0o7777))
        });
    }

    fn symlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.make(parent, name, reply, |dir| rustix::fs::symlinkat(target, dir, name));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || Ok(rustix::fs::unlinkat(&self.fd(parent)?, name, AtFlags::empty())?);
        answer!(reply, self.ask(Call::Change, remove), () => reply.ok());
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || Ok(rustix::fs::unlinkat(&self.fd(parent)?, name, AtFlags::REMOVEDIR)?);
        answer!(reply, self.ask(Call::Change, remove), () => reply.ok());
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
            let (from, to) = (self.fd(parent)?, self.fd(newparent)?);
            Ok(rustix::fs::renameat_with(&from, name, &to, newname, flags)?)
        };
        answer!(reply, self.ask(Call::Change, rename), () => reply.ok());
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let fd = self.fd(ino);
        self.make(newparent, newname, reply, |dir| {
            let fd = fd.map_err(|_| Errno::STALE)?;
            rustix::fs::linkat(CWD, magic(&fd), dir, newname, AtFlags::SYMLINK_FOLLOW)
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, open: OpenFlags, reply: ReplyOpen) {
        let open = || {
            let fd = self.fd(ino)?;
            Ok(self.keep(File::from(rustix::fs::openat(CWD, magic(&fd), flags(open.0), Mode::empty())?)))
        };
        answer!(reply, self.ask(Call::Open, open), (handle, flags) => reply.opened(handle, flags));
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        open: i32,
        reply: ReplyCreate,
    ) {
        let exclusive = OFlags::from_bits_retain(open as u32).intersection(OFlags::EXCL);
        let create = || {
            let flags = flags(open) | OFlags::CREATE | OFlags::NOFOLLOW | exclusive;
            let file =
                rustix::fs::openat(&self.fd(parent)?, name, flags, Mode::from_raw_mode(mode & 0o7777))?;
            Ok((self.find(parent, name)?, self.keep(File::from(file))))
        };
        answer!(reply, self.ask(Call::Change, create), (attr, (handle, flags)) => {
            reply.created(&self.manner.ttl, &attr, Generation(0), handle, flags);
        });
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
        let read = || {
            let size = match self.control.bad.load(Ordering::Relaxed) {
                0 => size.into(),
                bad if offset >= bad => return Err(Errno::IO.into()),
                bad => u64::from(size).min(bad - offset),
            };
            let (file, mut bytes) = (self.file(fh)?, vec![0; size as usize]);
            let read = file.read_at(&mut bytes, offset)?;
            bytes.truncate(read);
            Ok(bytes)
        };
        answer!(reply, self.ask(Call::Read, read), bytes => reply.data(&bytes));
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
        let write = || self.file(fh)?.write_at(data, offset);
        let written = self.ask(Call::Write, write);
        if written.is_err() && self.control.halfway.load(Ordering::Relaxed) {
            self.tear(fh, offset, data);
        }
        answer!(reply, written, written => reply.written(written as u32));
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock: LockOwner, reply: ReplyEmpty) {
        reply.ok();
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
        self.files.lock().remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer!(reply, self.ask(Call::Sync, || self.file(fh)?.sync_all()), () => reply.ok());
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.ask(Call::List, || self.names(ino)), names => {
            let number = self.number();
            self.dirs.lock().insert(number, names);
            reply.opened(FileHandle(number), FopenFlags::empty());
        });
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let names = self.dirs.lock().get(&fh.0).cloned().unwrap_or_default();
        for (at, (name, inode, kind)) in names.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*inode), at as u64 + 1, *kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.dirs.lock().remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let stat = || Ok(rustix::fs::fstatvfs(&*self.fd(ino)?)?);
        answer!(reply, self.ask(Call::Look, stat), found => reply.statfs(
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
}
