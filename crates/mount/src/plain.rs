//! [`Plain`]: a file's bytes as a plain file, which the kernel reads by itself (FUSE's *passthrough*); [`Plains`], all of them.
//!
//! Only of what nobody can change here, on a mount that is read-only: once the kernel reads a file past us, it takes whoever opens it past us, also who would write, and lets nobody in who is to be answered by us. And only as root:
//! the kernel asks for `CAP_SYS_ADMIN`. (`Documentation/filesystems/fuse-passthrough.rst`, `fs/fuse/iomode.c`.)
//!
//! A file that is opened once more, and of which all is kept in the store by then, is copied to an unlinked file beside the store, each page's checksum being looked at on the way. Who opens it afterwards, when nobody has it open
//! otherwise, reads the copy. The copy is of one [`Stamp`]. Once the source's file has another, whoever opens it is answered by us (`FOPEN_DIRECT_IO` goes before passthrough, but not for mappings), and when all of the new one is
//! in the store and has not changed for a while, a copy that is still open is made over in place, for those who had it open before.
//!
//! # Invariants
//! - Of one inode either all open files have its copy, whether they read it or not, or none: the kernel lets nobody else in.
//! - A copy is written to only from the store, and only when all of it is there.
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
use rustix::fs::{FallocateFlags, Mode, OFlags};
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
/// What is left free of the file system, of so many parts one.
const FREE: u64 = 20;
/// Copies that are open are looked at so often at the least.
const MOST_APART: Duration = Duration::from_secs(60);
/// How much longer a copy is left alone than it took to make it over, and at the most.
const REST: u32 = 10;
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
    /// Not looked at before.
    rests: Mutex<Instant>,
    backing: Mutex<Option<Arc<BackingId>>>,
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
            rests: Mutex::new(Instant::now()),
            backing: Mutex::default(),
        })
    }

    /// Copies what is kept, of this stamp; `false` if not all can be read any more, and then only a part may have been copied.
    fn fill(&self, content: &Content, stamp: &Stamp) -> io::Result<bool> {
        let mut known = self.stamp.lock();
        // Room first: a copy that is open keeps what it has if there is none. Of nothing none can be had.
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, stamp.size.max(1)) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
        *known = None;
        // Relaxed, here and below: a count for the room that is taken.
        self.bytes.store(stamp.size, Ordering::Relaxed);
        let mut piece = vec![0; PIECE];
        for at in (0..stamp.size).step_by(PIECE) {
            let piece = &mut piece[..(stamp.size - at).min(PIECE as u64) as usize];
            let read = content.object.read(at, piece);
            if !read.is_ok_and(|read| read.missing.is_empty() && read.len == piece.len()) {
                return Ok(false);
            }
            self.file.write_all_at(piece, at)?;
        }
        self.file.set_len(stamp.size)?;
        // Whoever finds that the file is another one leaves this object as it is; what was fetched too soon is said of it.
        let sure = content.stamp() == *stamp && content.is_settled();
        *known = Some(*stamp).filter(|_| sure);
        Ok(sure)
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

    /// Whether there were to be copies: nothing can be changed then.
    pub fn are_wanted(&self) -> bool {
        self.most.0 > 0
    }

    /// Whether there may be copies.
    pub fn are_on(&self) -> bool {
        // Relaxed, here and below: who misses it finds out by itself.
        !self.off.load(Ordering::Relaxed)
    }

    /// There are no new ones from now on.
    pub fn turn_off(&self) {
        self.off.store(true, Ordering::Relaxed);
        let mut table = self.table.lock();
        let (open, idle) =
            std::mem::take(&mut table.copies).into_iter().partition(|(_, copy)| !copy.is_idle());
        table.copies = open;
        drop(table);
        drop::<HashMap<_, _>>(idle);
    }

    /// Tries once whether the kernel takes a copy at all, also for who reads past the page cache.
    fn are_possible(&self, register: Register<'_>) -> bool {
        if !self.proven.load(Ordering::Relaxed) {
            let tried = Plain::new(&self.dir).and_then(|plain| {
                let again = format!("/proc/self/fd/{}", plain.file.as_raw_fd());
                rustix::fs::open(again, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty())?;
                plain.backing(register)
            });
            if tried.is_err() {
                self.turn_off();
            }
            self.proven.store(true, Ordering::Relaxed);
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

    fn order(&self, wanted: Wanted) {
        let identity = wanted.identity;
        if self.table.lock().wanted.insert(identity) && self.orders.try_send(wanted).is_err() {
            self.table.lock().wanted.remove(&identity);
        }
    }

    fn make(&self, wanted: &Wanted) {
        // What is full now may not be later.
        if let Ok(Some(plain)) = self.copy(wanted) {
            let copy = Copy { plain: Arc::new(plain), used: Instant::now() };
            let mut table = self.table.lock();
            if table.copies.get(&wanted.identity).is_none_or(Copy::is_idle) && self.are_on() {
                table.copies.insert(wanted.identity, copy);
            }
        }
        self.table.lock().wanted.remove(&wanted.identity);
    }

    fn copy(&self, wanted: &Wanted) -> io::Result<Option<Plain>> {
        if !self.are_on() || !self.make_room(wanted) || !self.has_room(wanted.stamp.size)? {
            return Ok(None);
        }
        let plain = Plain::new(&self.dir)?;
        let filled = plain.fill(&wanted.content, &wanted.stamp)?;
        Ok(Some(plain).filter(|_| filled))
    }

    /// Lets copies go until there is room for another: of the same file, and those that nobody has open and that were used longest ago.
    fn make_room(&self, Wanted { identity, stamp, before, .. }: &Wanted) -> bool {
        let mut gone = Vec::new();
        let mut table = self.table.lock();
        match table.copies.get(identity) {
            Some(copy) if !copy.is_idle() || copy.plain.is_of(stamp) => return false,
            Some(_) => gone.extend(table.copies.remove(identity)),
            None => {}
        }
        let mut bytes: u64 = table.copies.values().map(|copy| copy.plain.bytes()).sum();
        let mut count = table.copies.len();
        let mut idle: Vec<_> = table
            .copies
            .iter()
            .filter(|(_, copy)| copy.is_idle() && Some(copy.used) < *before)
            .map(|(identity, copy)| (copy.used, *identity, copy.plain.bytes()))
            .collect();
        idle.sort_unstable_by_key(|(used, ..)| *used);
        let fits = |bytes: u64, count: usize| bytes + stamp.size <= self.most.0 && count < self.most.1;
        for (_, identity, freed) in idle {
            if fits(bytes, count) {
                break;
            }
            (bytes, count) = (bytes - freed, count - 1);
            gone.extend(table.copies.remove(&identity));
        }
        drop(table);
        // To close a long file takes its time.
        drop(gone);
        fits(bytes, count)
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
    /// Whether there is a copy of this stamp for who opens an inode.
    pub fn has_plain(&self, inode: &Inode, stamp: &Stamp) -> bool {
        let open = inode.handles().into_iter().find_map(|handle| handle.passed.clone());
        open.map_or_else(
            || self.plains.take(inode.identity, stamp).is_some(),
            |passed| passed.plain.is_of(stamp),
        )
    }

    /// How whoever opens an inode has it open, if the kernel is to read it by itself or would let nobody else in; its `state` is locked, the file has this stamp now, and `content` is what is kept of it. `direct`: it is to be read past the page cache.
    pub fn passed(
        &self,
        inode: &Inode,
        (state, stamp, direct): (&mut State, &Stamp, bool),
        content: Option<&Arc<Content>>,
        register: Register<'_>,
    ) -> Option<Passed> {
        let open = inode.handles();
        if let Some(Passed { plain, .. }) = open.iter().find_map(|handle| handle.passed.clone()) {
            let asks = direct || !plain.is_of(stamp);
            return Some(Passed { plain, asks });
        }
        if !self.plains.are_on() {
            return None;
        }
        if let Some(plain) = self.plains.take(inode.identity, stamp) {
            // What reads past the page cache is read in pieces of the device's, which it need not be here.
            let passes = !direct && open.is_empty() && plain.backing(register).is_ok();
            return passes.then_some(Passed { plain, asks: false });
        }
        let content = content?;
        let whole = (SHORTEST..=self.plains.most.0).contains(&stamp.size)
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
        let mut open: HashMap<*const Plain, Vec<Weak<Handle>>> = HashMap::new();
        self.handles.each(|handle| {
            if let Some(passed) = &handle.passed {
                open.entry(Arc::as_ptr(&passed.plain)).or_default().push(Arc::downgrade(handle));
            }
        });
        for handles in open.into_values() {
            // One may be of a file that is not found any more, and another not.
            let _ = handles.iter().filter_map(Weak::upgrade).try_for_each(|handle| {
                match self.make_over(&handle) {
                    Ok(()) => Err(()),
                    Err(_) => Ok(()),
                }
            });
        }
    }

    /// A copy that somebody has open gets the bytes that the source has now, if these are others and have not changed for a while. As programs that have a file open while another writes to it, its readers may see some bytes of before and some of after meanwhile.
    fn make_over(&self, handle: &Handle) -> Res<()> {
        let Some(Passed { plain, .. }) = &handle.passed else { return Ok(()) };
        if *plain.rests.lock() > Instant::now() {
            return Ok(());
        }
        let begun = Instant::now();
        let now = self.attr_of(handle)?.stamp();
        if plain.is_of(&now) || !now.is_settled() {
            return Ok(());
        }
        let made = self.make_over_as(handle, plain, &now, begun);
        *plain.rests.lock() = Instant::now() + (begun.elapsed() * REST).min(MOST_APART);
        made
    }

    fn make_over_as(&self, handle: &Handle, plain: &Plain, now: &Stamp, begun: Instant) -> Res<()> {
        let content = {
            let mut state = handle.inode.state.lock();
            self.content(&handle.inode, &mut state, now, begun, self.has_room())
        };
        let Some(content) = content else { return Ok(()) };
        // First into the store, so that a source that is slow or lost leaves the copy as it is.
        for at in (0..now.size).step_by(PIECE) {
            self.read_of(handle, &content, at, PIECE)?;
        }
        let more = now.size.saturating_sub(plain.bytes());
        if content.is_settled() && self.plains.has_room(more)? {
            plain.fill(&content, now)?;
        }
        Ok(())
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
