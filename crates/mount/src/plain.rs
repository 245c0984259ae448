//! [`Plain`]: a file's bytes as a plain file, which the kernel reads by itself (FUSE's *passthrough*); [`Plains`], all of them.
//!
//! Only of what nobody can change here, on a mount that is read-only: once the kernel reads a file past us, it takes whoever opens it past us, also who would write, and lets nobody in who is to be answered by us. And only as root:
//! the kernel asks for `CAP_SYS_ADMIN`. (`Documentation/filesystems/fuse-passthrough.rst`, `fs/fuse/iomode.c`.)
//!
//! A file that is opened once more, and of which all is kept in the store by then, is copied to an unlinked file beside the store, each page's checksum being looked at on the way. Who opens it afterwards, when nobody has it open
//! otherwise, reads the copy. What was written to within an hour is not copied: it may be a log. The copy is of one [`Stamp`]. Once the source's file has another, whoever opens it is answered by us (`FOPEN_DIRECT_IO` goes before
//! passthrough, but not for mappings; what is spliced, or asked for ahead, goes through the kernel's own pages). When the new one has not changed for a while and all of it is in the store, the copy is made over in place, for those who
//! had it open. Of a mapping whose descriptor is closed the kernel does not tell: it keeps the copy that it has, and the next who open the file are given another.
//!
//! # Invariants
//! - Of one inode either all open files have its copy, whether they read it or not, or none: the kernel lets nobody else in.
//! - A copy is written to only from another one that is whole.
//! - Whatever goes wrong with copies, no open fails.
//!
//! # Lock order
//! An inode's state, then the table here. A copy's stamp is locked while it is written, and never waited for by who opens a file.

use crate::attr::Identity;
use crate::content::{Content, State};
use crate::fault::Res;
use crate::handles::Handle;
use crate::inodes::Inode;
use crate::stamp::Stamp;
use crate::view::View;
use fuser::BackingId;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Shorter files are read as fast from the kernel's own pages.
const SHORTEST: u64 = 1 << 20;
/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;
/// Copies that wait to be made.
const WAITING: usize = 64;
/// What was written to later is not copied.
const AT_REST: Duration = Duration::from_secs(3600);
/// What is left free of the file system, of so many parts one.
const FREE: u64 = 20;
/// Copies that are open are looked at so often at the least.
const MOST_APART: Duration = Duration::from_secs(60);
/// How much longer a copy is left alone than it took to make it over, and at the most.
const REST: u32 = 10;
const LONGEST_REST: Duration = Duration::from_secs(600);
/// Of the files that this program may have open, so many parts one.
const FILES: u64 = 8;
/// How often copies that are open are looked at, at the most: a ttl that is shorter is for who wants to see each change at once.
pub const TURN: Duration = Duration::from_millis(200);

/// Asks the kernel to read a file by itself.
pub type Register<'a> = &'a dyn Fn(BorrowedFd<'_>) -> io::Result<BackingId>;

/// A copy.
#[derive(Debug)]
pub struct Plain {
    file: File,
    bytes: AtomicU64,
    /// Of which its bytes are; `None` while, or because, that cannot be said. Locked by who makes it over.
    stamp: Mutex<Option<Stamp>>,
    rests: Mutex<Rest>,
    /// Those who have it open.
    handles: Mutex<Vec<Weak<Handle>>>,
    backing: Mutex<Option<Arc<BackingId>>>,
}

/// When a copy is not made over.
#[derive(Debug, Default)]
struct Rest {
    /// Before that.
    until: Option<Instant>,
    /// To what has this stamp: there is no room for it.
    not_to: Option<Stamp>,
}

#[derive(Debug)]
struct Copy {
    plain: Arc<Plain>,
    used: Instant,
}

#[derive(Debug, Default)]
struct Table {
    copies: HashMap<Identity, Copy>,
    /// Of which copies wait to be made.
    wanted: HashSet<Identity>,
}

/// What is to be copied: the bytes of this object, which are of this stamp.
#[derive(Debug)]
pub struct Wanted {
    identity: Identity,
    content: Arc<Content>,
    stamp: Stamp,
    /// When it was wanted before: only copies that were not used since go for it, so that a round through more files than there is room for does not have all of them copied for nothing.
    before: Option<Instant>,
}

/// How a file is open that the kernel may read by itself.
#[derive(Clone, Debug)]
pub struct Passed {
    pub plain: Arc<Plain>,
    /// It is to ask us all the same, but for mappings.
    pub asks: bool,
}

/// All copies.
#[derive(Debug)]
pub struct Plains {
    dir: PathBuf,
    /// Bytes of all together, and how many.
    most: (u64, usize),
    /// The kernel does not read by itself, or there can be no copies.
    off: AtomicBool,
    /// It has been tried.
    proven: AtomicBool,
    table: Mutex<Table>,
    orders: SyncSender<Wanted>,
}

impl Plain {
    /// An empty file without a name.
    fn new(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self {
            file: file.into(),
            bytes: AtomicU64::new(0),
            stamp: Mutex::default(),
            rests: Mutex::default(),
            handles: Mutex::default(),
            backing: Mutex::default(),
        })
    }

    /// Of what is kept, if all of it can be read and is of this stamp.
    fn of(dir: &Path, content: &Content, stamp: &Stamp) -> io::Result<Option<Self>> {
        let (plain, mut piece) = (Self::new(dir)?, vec![0; PIECE]);
        plain.take_room(stamp.size)?;
        for at in (0..stamp.size).step_by(PIECE) {
            let piece = &mut piece[..(stamp.size - at).min(PIECE as u64) as usize];
            let read = content.object.read(at, piece);
            if !read.is_ok_and(|read| read.missing.is_empty() && read.len == piece.len()) {
                return Ok(None);
            }
            plain.file.write_all_at(piece, at)?;
        }
        plain.file.set_len(stamp.size)?;
        // Whoever finds that the file is another one leaves this object as it is; what was fetched too soon is said of it.
        let sure = content.stamp() == *stamp && content.is_settled();
        *plain.stamp.lock() = Some(*stamp);
        Ok(Some(plain).filter(|_| sure))
    }

    /// So that nothing but the disk itself can fail later.
    fn take_room(&self, bytes: u64) -> io::Result<()> {
        // Of nothing none can be had.
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, bytes.max(1)) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Relaxed, here and below: a count of the room that is taken.
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the bytes of another one, in place.
    fn take_over(&self, other: &Self) -> io::Result<()> {
        let (mut known, Some(stamp)) = (self.stamp.lock(), *other.stamp.lock()) else { return Ok(()) };
        let former = self.bytes();
        self.take_room(former.max(stamp.size))?;
        *known = None;
        let mut piece = vec![0; PIECE];
        for at in (0..stamp.size).step_by(PIECE) {
            let piece = &mut piece[..(stamp.size - at).min(PIECE as u64) as usize];
            other.file.read_exact_at(piece, at)?;
            self.file.write_all_at(piece, at)?;
        }
        self.file.set_len(stamp.size)?;
        self.bytes.store(stamp.size, Ordering::Relaxed);
        *known = Some(stamp);
        Ok(())
    }

    /// Somebody is about to have it open.
    pub fn opened(&self, handle: &Arc<Handle>) {
        let mut handles = self.handles.lock();
        handles.retain(|handle| handle.strong_count() > 0);
        handles.push(Arc::downgrade(handle));
    }

    /// Of data and holes, as whoever reads it finds them.
    pub fn seek(&self, to: SeekFrom) -> Result<u64, Errno> {
        rustix::fs::seek(&self.file, to)
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether it is of this stamp for sure; does not wait for who makes it over.
    fn is_of(&self, stamp: &Stamp) -> bool {
        self.stamp.try_lock().is_some_and(|known| *known == Some(*stamp))
    }

    /// The kernel's number of it, the same for whoever opens it.
    pub fn backing(&self, register: Register<'_>) -> io::Result<Arc<BackingId>> {
        let mut backing = self.backing.lock();
        if let Some(known) = &*backing {
            return Ok(Arc::clone(known));
        }
        let new = Arc::new(register(self.file.as_fd())?);
        *backing = Some(Arc::clone(&new));
        Ok(new)
    }
}

impl Plains {
    /// Copies in a directory, of so many bytes together; none if that is 0. What is to be copied comes out at the other end.
    pub fn new(dir: &Path, bytes: u64) -> (Self, Receiver<Wanted>) {
        let (orders, wanted) = sync_channel(WAITING);
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let most = (bytes, files.map_or(usize::MAX, |files| (files / FILES) as usize));
        let (off, proven) = (AtomicBool::new(bytes == 0), AtomicBool::new(false));
        (Self { dir: dir.to_owned(), most, off, proven, table: Mutex::default(), orders }, wanted)
    }

    /// Whether there were to be copies: then nothing can be changed.
    pub fn are_wanted(&self) -> bool {
        self.most.0 > 0
    }

    /// Whether there may be copies.
    pub fn are_on(&self) -> bool {
        // Relaxed, here and below: who misses it finds out by itself.
        !self.off.load(Ordering::Relaxed)
    }

    /// The kernel does not know them.
    pub fn turn_off(&self) {
        self.off.store(true, Ordering::Relaxed);
    }

    /// Tries whether the kernel takes a copy at all, also for who reads past the page cache.
    fn are_possible(&self, register: Register<'_>) -> bool {
        /// What may be otherwise another time.
        const PASSING: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSPC, Errno::INTR];
        if self.proven.load(Ordering::Relaxed) {
            return self.are_on();
        }
        let tried = Plain::new(&self.dir).and_then(|plain| {
            let again = format!("/proc/self/fd/{}", plain.file.as_raw_fd());
            rustix::fs::open(again, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty())?;
            plain.backing(register)
        });
        match tried {
            Ok(_) => self.proven.store(true, Ordering::Relaxed),
            Err(error) if Errno::from_io_error(&error).is_some_and(|errno| PASSING.contains(&errno)) => {
                return false;
            }
            Err(_) => self.off.store(true, Ordering::Relaxed),
        }
        self.are_on()
    }

    /// The copy of this stamp.
    fn take(&self, identity: Identity, stamp: &Stamp) -> Option<Arc<Plain>> {
        let mut table = self.table.lock();
        // Somebody may have another file of this number open.
        let copy =
            table.copies.get_mut(&identity).filter(|copy| copy.is_idle() && copy.plain.is_of(stamp))?;
        copy.used = Instant::now();
        Some(Arc::clone(&copy.plain))
    }

    /// Those that somebody has open.
    fn open(&self) -> Vec<Arc<Plain>> {
        let table = self.table.lock();
        table.copies.values().filter(|copy| !copy.is_idle()).map(|copy| Arc::clone(&copy.plain)).collect()
    }

    fn order(&self, wanted: Wanted) {
        let identity = wanted.identity;
        if self.table.lock().wanted.insert(identity) && self.orders.try_send(wanted).is_err() {
            self.table.lock().wanted.remove(&identity);
        }
    }

    fn make(&self, wanted: &Wanted) {
        // What is full now may not be later.
        let _ = self.try_to_make(wanted);
        self.table.lock().wanted.remove(&wanted.identity);
    }

    fn try_to_make(&self, Wanted { identity, content, stamp, before }: &Wanted) -> io::Result<()> {
        // Who has one open is looked after elsewhere.
        let may_replace = |copy: &Copy| copy.is_idle() && !copy.plain.is_of(stamp);
        let is_free = |table: &Table| table.copies.get(identity).is_none_or(may_replace);
        if !is_free(&self.table.lock())
            || !self.make_room(*identity, stamp.size, *before)
            || !self.has_room(stamp.size)?
        {
            return Ok(());
        }
        let Some(plain) = Plain::of(&self.dir, content, stamp)? else { return Ok(()) };
        let copy = Copy { plain: Arc::new(plain), used: Instant::now() };
        let mut table = self.table.lock();
        // Not over the former one: that may be mapped, and of another file of this number.
        let former = if is_free(&table) { table.copies.insert(*identity, copy) } else { None };
        drop(table);
        drop(former);
        Ok(())
    }

    /// Whether there may be a copy of so many bytes of a file, of which there may be a former one. If so, those go that nobody has open and that were not used since then, the ones that were used longest ago first, until there is room for it.
    fn make_room(&self, of: Identity, bytes: u64, before: Option<Instant>) -> bool {
        let mut table = self.table.lock();
        let others = || table.copies.iter().filter(|(identity, _)| **identity != of);
        let (mut all, mut count) = (bytes, 1);
        for (_, copy) in others() {
            (all, count) = (all + copy.plain.bytes(), count + 1);
        }
        let mut idle: Vec<_> = others()
            .filter(|(_, copy)| copy.is_idle() && Some(copy.used) < before)
            .map(|(identity, copy)| (copy.used, *identity, copy.plain.bytes()))
            .collect();
        idle.sort_unstable_by_key(|(used, ..)| *used);
        let mut going = idle.into_iter();
        let mut gone = Vec::new();
        while all > self.most.0 || count > self.most.1 {
            let Some((_, identity, freed)) = going.next() else { return false };
            gone.push(identity);
            (all, count) = (all - freed, count - 1);
        }
        let gone: Vec<_> = gone.iter().filter_map(|identity| table.copies.remove(identity)).collect();
        // To close a long file takes its time.
        drop(table);
        drop(gone);
        true
    }

    /// Whether the file system has so many bytes to spare.
    fn has_room(&self, bytes: u64) -> io::Result<bool> {
        let room = rustix::fs::statvfs(&self.dir)?;
        let left = (room.f_bavail * room.f_frsize).checked_sub(bytes);
        Ok(left.is_some_and(|left| left >= room.f_blocks * room.f_frsize / FREE))
    }
}

impl Copy {
    /// Nobody has it open, nor is about to.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.plain) == 1
    }
}

impl View {
    /// How whoever opens an inode has it open, if the kernel is to read it by itself or would let nobody else in; its `state` is locked, the file has this stamp now, and `content` is what is kept of it. `direct`: it is to be read past the page cache.
    pub fn passed(
        &self,
        inode: &Inode,
        (state, stamp, direct): (&mut State, &Stamp, bool),
        content: Option<&Arc<Content>>,
        register: Register<'_>,
    ) -> Option<Passed> {
        if !self.plains.are_on() {
            return None;
        }
        let open = inode.handles();
        if let Some(Passed { plain, .. }) = open.iter().find_map(|handle| handle.passed.clone()) {
            let asks = direct || !plain.is_of(stamp);
            return Some(Passed { plain, asks });
        }
        if let Some(plain) = self.plains.take(inode.identity, stamp) {
            // What reads past the page cache is read in pieces of the device's, which it need not be here.
            let passes = !direct && open.is_empty() && plain.backing(register).is_ok();
            return passes.then_some(Passed { plain, asks: false });
        }
        let content = content?;
        let whole = (SHORTEST..=self.plains.most.0).contains(&stamp.size)
            && stamp.is_older_than(AT_REST)
            && content.is_settled()
            && content.object.missing(0..stamp.size).is_empty();
        if whole && self.plains.are_possible(register) {
            let before = state.wanted.replace(Instant::now());
            let (identity, content) = (inode.identity, Arc::clone(content));
            self.plains.order(Wanted { identity, content, stamp: *stamp, before });
        }
        None
    }

    /// Looks at the source's files of which copies are open.
    fn look_after_plains(&self) {
        for plain in self.plains.open() {
            let handles = plain.handles.lock().clone();
            if let Some(handle) = handles.iter().find_map(Weak::upgrade) {
                // What cannot be looked at now is looked at again.
                let _ = self.make_over(&handle, &plain);
            }
        }
    }

    /// A copy that somebody has open gets the bytes that the source has now, if these are others and have not changed for a while. As programs that have a file open while another writes to it, its readers may see some bytes of before and some of after meanwhile.
    fn make_over(&self, handle: &Handle, plain: &Plain) -> Res<()> {
        let begun = Instant::now();
        if plain.rests.lock().until.is_some_and(|until| until > begun) {
            return Ok(());
        }
        // What has no name any more, or has lost it to another file, stays as it was when it had.
        let Some(found) = self.find_by_name(&handle.inode)? else { return Ok(()) };
        let now = found.attr.stamp();
        if plain.is_of(&now) || !now.is_settled() || plain.rests.lock().not_to == Some(now) {
            return Ok(());
        }
        let made = self.make_over_as(handle, plain, &now, begun);
        let mut rests = plain.rests.lock();
        rests.until = Some(Instant::now() + (begun.elapsed() * REST).min(LONGEST_REST));
        rests.not_to = Some(now).filter(|_| matches!(made, Ok(false)));
        made.map(drop)
    }

    /// Tells whether it was not for want of room.
    fn make_over_as(&self, handle: &Handle, plain: &Plain, now: &Stamp, begun: Instant) -> Res<bool> {
        let (plains, size) = (&self.plains, now.size);
        // For a while there are both.
        if !self.has_room()
            || !plains.make_room(handle.inode.identity, size, None)
            || !plains.has_room(2 * size)?
        {
            return Ok(false);
        }
        let content = {
            let mut state = handle.inode.state.lock();
            self.content(&handle.inode, &mut state, now, begun, true)
        };
        let Some(content) = content else { return Ok(false) };
        // First into the store, so that a source that is slow or lost leaves the copy as it is.
        for at in (0..size).step_by(PIECE) {
            self.read_of(handle, &content, at, PIECE)?;
            if !content.object.missing(at..size.min(at + PIECE as u64)).is_empty() {
                return Ok(false);
            }
        }
        // What was fetched too soon is fetched once more.
        if !content.is_settled() {
            return Ok(true);
        }
        let Some(new) = Plain::of(&plains.dir, &content, now)? else { return Ok(false) };
        plain.take_over(&new)?;
        Ok(true)
    }
}

/// Makes the copies that are wanted, as long as there is a view.
pub fn make_plains(view: &Weak<View>, wanted: &Receiver<Wanted>) {
    while let Ok(order) = wanted.recv()
        && let Some(view) = view.upgrade()
    {
        view.plains.make(&order);
    }
}

/// Looks after the copies that are open, as long as there is a view.
pub fn look_after_plains(view: &Weak<View>) {
    let mut wait = TURN;
    loop {
        std::thread::sleep(wait);
        let Some(view) = view.upgrade() else { return };
        view.look_after_plains();
        wait = view.ttl.clamp(TURN, MOST_APART);
    }
}
