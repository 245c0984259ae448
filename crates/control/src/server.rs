//! [`Server`]: the side of the running one.

use crate::place;
use crate::protocol::{Answer, Group, LONGEST, NewTier, Removed, Request, Status};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Callers attended to at once; others wait.
const AT_ONCE: usize = 8;
/// A caller that says nothing for so long is hung up on.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a thread for a caller may use of stack.
const STACK: usize = 256 << 10;

/// What can be looked at and changed. A refusal is a sentence for the user.
pub trait Controlled: Send + Sync + 'static {
    /// How it is.
    fn status(&self) -> Status;

    /// Another tier; its number.
    ///
    /// # Errors
    /// Why not.
    fn add_tier(&self, new: &NewTier) -> Result<u8, String>;

    /// Empties a tier and removes it. `watch` gets bytes moved and bytes left, and may end it.
    ///
    /// # Errors
    /// Why it is still there.
    fn remove_tier(
        &self,
        tier: u8,
        lose: bool,
        watch: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Removed, String>;

    /// A tier that failed is to be used again.
    ///
    /// # Errors
    /// Why not.
    fn reopen_tier(&self, tier: u8) -> Result<(), String>;

    /// The groups, each after the one above it.
    fn groups(&self) -> Vec<Group>;

    /// Another group.
    ///
    /// # Errors
    /// Why not.
    fn add_group(&self, path: &str) -> Result<(), String>;

    /// Removes a group, and leaves all to the one above it.
    ///
    /// # Errors
    /// Why not.
    fn remove_group(&self, path: &str) -> Result<(), String>;

    /// Moves a process to a group.
    ///
    /// # Errors
    /// Why not.
    fn move_process(&self, pid: i32, path: &str) -> Result<(), String>;

    /// Sets limits of a group by their names, in bytes.
    ///
    /// # Errors
    /// Why none of them was set.
    fn set_group(&self, path: &str, limits: &BTreeMap<String, Option<u64>>) -> Result<(), String>;
}

/// A socket that is listened to. Dropped, it is gone, and so is all that it showed: who is still connected is hung up on at the next
/// word.
pub struct Server {
    path: PathBuf,
    listener: Arc<UnixListener>,
    stopped: Arc<AtomicBool>,
    /// Whose it is. A forked child that drops its copy must not take the socket away.
    process: u32,
    /// The threads have it only while they answer.
    _controlled: Arc<dyn Controlled>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Sockets of one process, at most.
const OF_ONE_PROCESS: u32 = 64;

impl Server {
    /// Listens for callers about the run whose first process is `pid`, in the first of the user's directories where that can be.
    ///
    /// # Errors
    /// What making the directory, the socket or the thread says.
    pub fn start(pid: i32, controlled: &Arc<dyn Controlled>) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for directory in place::directories() {
            match Self::listen(place::socket(&directory, pid), Arc::clone(controlled)) {
                Ok(server) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Listens for callers about a part of this process, which may have others.
    ///
    /// # Errors
    /// As [`Server::start`]; `AddrInUse` if it has 64 already.
    pub fn start_one_of_several(controlled: &Arc<dyn Controlled>) -> io::Result<Self> {
        // Two that look for a free name at once would find the same.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = std::process::id() as i32;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for directory in place::directories() {
            for number in 1..=OF_ONE_PROCESS {
                match Self::listen(place::nth_socket(&directory, pid, number), Arc::clone(controlled)) {
                    Ok(server) => return Ok(server),
                    Err(error) => last = error,
                }
                if last.kind() != io::ErrorKind::AddrInUse {
                    break;
                }
            }
        }
        Err(last)
    }

    /// Listens at `path`, in a directory that only this user can enter.
    ///
    /// # Errors
    /// As [`Server::start`]; `AddrInUse` if somebody answers there, a run whose first process has gone and left its number.
    pub fn listen(path: PathBuf, controlled: Arc<dyn Controlled>) -> io::Result<Self> {
        if UnixStream::connect(&path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        // It gets its name when it listens: who finds a socket where nobody does may remove it. There may be one, of a process that had this number
        // before and was killed with all its own.
        let early = path.with_extension("new");
        let _ = std::fs::remove_file(&early);
        let listener = Arc::new(UnixListener::bind(&early)?);
        std::fs::rename(&early, &path)?;
        let stopped = Arc::new(AtomicBool::new(false));
        // From here on a failure takes the socket away again.
        let process = std::process::id();
        let server = Self { path, listener, stopped, process, _controlled: controlled };
        let thread = std::thread::Builder::new().name("control".into()).stack_size(STACK);
        let (listener, stopped) = (Arc::clone(&server.listener), Arc::clone(&server.stopped));
        let controlled = Arc::downgrade(&server._controlled);
        thread.spawn(move || accept(&listener, &controlled, &stopped))?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        let _ = std::fs::remove_file(&self.path);
        self.stopped.store(true, Ordering::Release);
        // Whoever waits for a caller wakes up.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
    }
}

fn accept(listener: &UnixListener, controlled: &Weak<dyn Controlled>, stopped: &AtomicBool) {
    let busy = Arc::new(AtomicUsize::new(0));
    while !stopped.load(Ordering::Acquire) {
        let Ok((caller, _)) = listener.accept() else {
            // No descriptors, most likely.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        while busy.load(Ordering::Relaxed) >= AT_ONCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        busy.fetch_add(1, Ordering::Relaxed);
        let (controlled, done) = (Weak::clone(controlled), Arc::clone(&busy));
        let thread = std::thread::Builder::new().name("control".into()).stack_size(STACK);
        let started = thread.spawn(move || {
            let _ = attend(caller, &controlled);
            done.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Answers one caller until it hangs up.
fn attend(caller: UnixStream, controlled: &Weak<dyn Controlled>) -> io::Result<()> {
    caller.set_read_timeout(Some(PATIENCE))?;
    caller.set_write_timeout(Some(PATIENCE))?;
    let mut out = caller.try_clone()?;
    let from = socket_peercred(&caller)?.uid;
    if !from.is_root() && from != geteuid() {
        return answer(&mut out, &refused("this is another user's vswap"));
    }
    let mut lines = BufReader::new(caller);
    loop {
        let mut line = Vec::new();
        let read = lines.by_ref().take(LONGEST as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        let Some(controlled) = controlled.upgrade() else { return Ok(()) };
        match serde_json::from_slice::<Request>(&line) {
            Ok(request) => attend_to(request, controlled.as_ref(), &mut out)?,
            Err(error) => {
                // What follows is not worth reading.
                return answer(&mut out, &refused(format!("not understood: {error}")));
            }
        }
    }
}

fn attend_to(request: Request, controlled: &dyn Controlled, out: &mut UnixStream) -> io::Result<()> {
    let last = match request {
        Request::Status => Answer::Status(Box::new(controlled.status())),
        Request::AddTier(new) => {
            controlled.add_tier(&new).map_or_else(refused, |tier| Answer::Added { tier })
        }
        Request::RemoveTier { tier, lose } => {
            let mut watch = |moved, left| match answer(out, &Answer::Emptying { moved, left }) {
                Ok(()) => ControlFlow::Continue(()),
                // Nobody wants to know any more.
                Err(_) => ControlFlow::Break(()),
            };
            let removed = controlled.remove_tier(tier, lose, &mut watch);
            removed.map_or_else(refused, Answer::Removed)
        }
        Request::ReopenTier { tier } => done(controlled.reopen_tier(tier)),
        Request::Groups => Answer::Groups { groups: controlled.groups() },
        Request::AddGroup { path } => done(controlled.add_group(&path)),
        Request::RemoveGroup { path } => done(controlled.remove_group(&path)),
        Request::MoveProcess { pid, path } => done(controlled.move_process(pid, &path)),
        Request::SetGroup { path, limits } => done(controlled.set_group(&path, &limits)),
    };
    answer(out, &last)
}

fn done(result: Result<(), String>) -> Answer {
    result.map_or_else(refused, |()| Answer::Done)
}

fn refused(why: impl Into<String>) -> Answer {
    Answer::Refused { why: why.into() }
}

fn answer(out: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    out.write_all(&line)
}
