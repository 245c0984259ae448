//! [`Plain`]: a file's bytes as a plain file, which the kernel reads by itself (FUSE's *passthrough*); [`Plains`], all of them.
//!
//! Only of what nobody can change here, on a mount that is read-only: once the kernel reads a file past us, it takes whoever opens it past us, also who would write, and lets nobody in who is to be answered by us. And only as root:
//! the kernel asks for `CAP_SYS_ADMIN`. (`Documentation/filesystems/fuse-passthrough.rst`, `fs/fuse/iomode.c`.)
//!
//! A file that is opened once more, and of which all is kept in the store by then, is copied to an unlinked file beside the store, each page's checksum being looked at on the way. Who opens it afterwards, when nobody has it open
//! otherwise, reads the copy. The copy is of one [`Stamp`]; as long as somebody has it open, the source is asked once a ttl, and once a minute, whether that is still the file's, and if not, the copy is made over, in place.
//!
//! # Invariants
//! - Of one inode either all open files read its copy, or none.
//! - A copy that is not open is either of its stamp in all its bytes, or is used no more.
//!
//! # Lock order
//! An inode's state, then the table here. A copy's stamp is locked without an inode's state: whoever makes the copy over reads the file as programs do.

use crate::attr::Identity;
use crate::content::Content;
use crate::fault::Res;
use crate::handles::Handle;
use crate::inodes::Inode;
use crate::reading::read_into;
use crate::stamp::Stamp;
use crate::view::View;
use fuser::BackingId;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
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
/// How much longer a copy is left alone than it took to make it over.
const REST: u32 = 10;

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
}

/// All copies.
#[derive(Debug)]
pub struct Plains {
    dir: PathBuf,
    /// Bytes of all together, but for what grows while it is open.
    most: u64,
    /// The kernel does not read by itself, or there can be no copies.
    off: AtomicBool,
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

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        // Relaxed, here and below: a count for the room that is taken.
        self.bytes.fetch_max(at + bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn end(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.bytes.store(len, Ordering::Relaxed);
        Ok(())
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
    pub fn new(dir: &Path, most: u64) -> (Self, Receiver<Wanted>) {
        let (orders, wanted) = sync_channel(WAITING);
        let (off, table) = (AtomicBool::new(most == 0), Mutex::default());
        (Self { dir: dir.to_owned(), most, off, table, orders }, wanted)
    }

    /// Whether there may be copies.
    pub fn are_on(&self) -> bool {
        // Relaxed: who misses it finds out by itself.
        !self.off.load(Ordering::Relaxed)
    }

    /// There are none from now on.
    pub fn turn_off(&self) {
        self.off.store(true, Ordering::Relaxed);
    }

    /// The copy of this stamp.
    fn take(&self, identity: Identity, stamp: &Stamp) -> Option<Arc<Plain>> {
        let mut table = self.table.lock();
        let copy = table.copies.get_mut(&identity)?;
        // Somebody who has another file of this number open may have it made over.
        if Arc::strong_count(&copy.plain) == 1 && copy.plain.is_of(stamp) {
            copy.used = Instant::now();
            return Some(Arc::clone(&copy.plain));
        }
        None
    }

    /// A file is open whose bytes are all kept: it is copied for those who open it later.
    fn want(&self, inode: &Inode, content: &Arc<Content>, stamp: &Stamp) {
        let size = stamp.size;
        if !(SHORTEST..=self.most).contains(&size)
            || !content.is_settled()
            || !content.object.missing(0..size).is_empty()
            || !self.table.lock().wanted.insert(inode.identity)
        {
            return;
        }
        let wanted = Wanted { identity: inode.identity, content: Arc::clone(content), stamp: *stamp };
        if self.orders.try_send(wanted).is_err() {
            self.table.lock().wanted.remove(&inode.identity);
        }
    }

    fn make(&self, wanted: &Wanted) {
        // What is full now may not be later.
        if let Ok(Some(plain)) = self.copy(wanted) {
            let copy = Copy { plain: Arc::new(plain), used: Instant::now() };
            let mut table = self.table.lock();
            let former = table.copies.get(&wanted.identity);
            if former.is_none_or(|former| Arc::strong_count(&former.plain) == 1) {
                table.copies.insert(wanted.identity, copy);
            }
        }
        self.table.lock().wanted.remove(&wanted.identity);
    }

    /// `None` if not all can be read any more, or there is no room.
    fn copy(&self, Wanted { identity, content, stamp }: &Wanted) -> io::Result<Option<Plain>> {
        if self.table.lock().copies.get(identity).is_some_and(|copy| copy.plain.is_of(stamp))
            || !self.has_room(*identity, stamp.size)?
        {
            return Ok(None);
        }
        let plain = Plain::new(&self.dir)?;
        let mut piece = vec![0; PIECE];
        for at in (0..stamp.size).step_by(PIECE) {
            let piece = &mut piece[..(stamp.size - at).min(PIECE as u64) as usize];
            let read = content.object.read(at, piece);
            if !read.is_ok_and(|read| read.missing.is_empty() && read.len == piece.len()) {
                return Ok(None);
            }
            plain.write(at, piece)?;
        }
        // Whoever finds that the file is another one leaves this object as it is; what was fetched too soon is said of it.
        if content.stamp() != *stamp || !content.is_settled() {
            return Ok(None);
        }
        *plain.stamp.lock() = Some(*stamp);
        Ok(Some(plain))
    }

    /// Lets those go that nobody has open, which were used longest ago first, until there is room for so many bytes of a file of which there may be an older copy.
    fn has_room(&self, identity: Identity, bytes: u64) -> io::Result<bool> {
        let mut gone = Vec::new();
        let mut table = self.table.lock();
        let is_idle = |copy: &Copy| Arc::strong_count(&copy.plain) == 1;
        if table.copies.get(&identity).is_some_and(is_idle) {
            gone.extend(table.copies.remove(&identity));
        }
        loop {
            let all: u64 = table.copies.values().map(|copy| copy.plain.bytes()).sum();
            if all + bytes <= self.most {
                break;
            }
            let idle = table.copies.iter().filter(|(_, copy)| is_idle(copy));
            let Some(oldest) = idle.min_by_key(|(_, copy)| copy.used).map(|(identity, _)| *identity) else {
                return Ok(false);
            };
            gone.extend(table.copies.remove(&oldest));
        }
        drop(table);
        // Closing a long file takes its time, and is done before it is looked how much is free.
        drop(gone);
        let room = rustix::fs::statvfs(&self.dir)?;
        let left = (room.f_bavail * room.f_frsize).saturating_sub(bytes);
        Ok(left >= room.f_blocks * room.f_frsize / FREE)
    }

    /// Whether somebody may have one open.
    fn are_open(&self) -> bool {
        self.table.lock().copies.values().any(|copy| Arc::strong_count(&copy.plain) > 1)
    }
}

impl View {
    /// The copy that whoever opens an inode is to read, its state being locked: the file has this stamp now, and `content` is what is kept of it.
    pub fn plain_for(
        &self,
        inode: &Inode,
        stamp: &Stamp,
        content: Option<&Arc<Content>>,
        register: Register<'_>,
    ) -> Option<Arc<Plain>> {
        if !self.plains.are_on() {
            return None;
        }
        let open = inode.handles();
        if let Some(plain) = open.iter().find_map(|handle| handle.plain.clone()) {
            return Some(plain);
        }
        match self.plains.take(inode.identity, stamp) {
            Some(_) if !open.is_empty() => None,
            Some(plain) => match plain.backing(register) {
                Ok(_) => Some(plain),
                Err(_) => {
                    self.plains.turn_off();
                    None
                }
            },
            None => {
                if let Some(content) = content {
                    self.plains.want(inode, content, stamp);
                }
                None
            }
        }
    }

    /// A copy that somebody has open has the bytes that the source has now, if it was not known to have these. As programs that have a file open while others write to it, its readers may see some bytes of before and some of after.
    ///
    /// # Errors
    /// What the source says; the copy then has some bytes of before, or of after, and is made over later.
    pub fn make_over(&self, handle: &Handle, plain: &Plain, now: &Stamp) -> Res<()> {
        let mut known = plain.stamp.lock();
        if *known == Some(*now) {
            return Ok(());
        }
        *known = None;
        let begun = Instant::now();
        let before = self.attr_of(handle)?.stamp();
        let content = {
            let mut state = handle.inode.state.lock();
            self.content(&handle.inode, &mut state, &before, begun, self.has_room())
        };
        let mut at = 0;
        loop {
            let bytes = match &content {
                // All of them of that stamp, wherever they come from.
                Some(content) => self.read_of(handle, content, at, PIECE)?,
                None => self.with_file(handle, |file| read_into(file, at, PIECE))?,
            };
            plain.write(at, &bytes)?;
            at += bytes.len() as u64;
            if bytes.len() < PIECE {
                break;
            }
        }
        plain.end(at)?;
        let after = self.attr_of(handle)?.stamp();
        let sure = after == before && after.is_settled() && after.size == at;
        // Else it is made over once more.
        *known = Some(after).filter(|_| sure && content.is_none_or(|content| content.is_settled()));
        *plain.rests.lock() = Instant::now() + begun.elapsed() * REST;
        Ok(())
    }

    /// Looks at the source's files of which copies are open.
    fn look_after_plains(&self) {
        if !self.plains.are_open() {
            return;
        }
        let mut looked = HashSet::new();
        for handle in self.handles.all() {
            if let Some(plain) = &handle.plain
                && looked.insert(Arc::as_ptr(plain))
                && *plain.rests.lock() <= Instant::now()
                && let Ok(found) = self.find(&handle.inode)
            {
                self.note(&handle.inode, &found.attr, found.begun);
                // What cannot be read now is looked at again.
                let _ = self.make_over(&handle, plain, &found.attr.stamp());
            }
        }
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
    /// Not more often, however short the ttl is.
    const TURN: Duration = Duration::from_millis(200);
    let mut wait = TURN;
    loop {
        std::thread::sleep(wait);
        let Some(view) = view.upgrade() else { return };
        view.look_after_plains();
        wait = view.ttl.clamp(TURN, MOST_APART);
    }
}
