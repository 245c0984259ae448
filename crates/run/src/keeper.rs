//! The program's parent, and the program until it is executed.
//!
//! The front is the parent where it may be. Where tracing is restricted to ancestors (Yama), the engine has to be one without
//! being the parent, since a tracer that is also the parent gets two kinds of news mixed up: the engine then forks the
//! *keeper*, which forks the program. It does nothing but report the program's changes, to the engine and then to the
//! front, and ends the tree if the engine goes away.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use vswap_sys::birth::{self, Arguments, Fork};
use vswap_sys::inherited;
use vswap_sys::poll::{EVENTS, Epoll};
use vswap_sys::process::{self, Change};
use vswap_sys::seccomp::Filter;
use vswap_sys::signal::{self, SIGCHLD, Signals};

use crate::census::Census;
use crate::message::Message;

/// What the program is made of.
pub(crate) struct Errand {
    pub(crate) program: Arguments,
    pub(crate) filter: Filter,
    /// Where it sends its listener to the engine.
    pub(crate) engine: OwnedFd,
    /// Where it tells the front that it could not be executed, and a keeper what becomes of it.
    pub(crate) front: OwnedFd,
}

/// Tells whether the engine must be an ancestor of what it traces.
pub(crate) fn is_needed() -> bool {
    match std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") {
        Ok(scope) => scope.trim() != "0",
        // Without Yama, or where nobody tells.
        Err(error) => error.kind() != io::ErrorKind::NotFound || !Path::new("/proc/sys/kernel").is_dir(),
    }
}

/// Between fork and exec: puts itself under the filter, executes. Allocates nothing.
pub(crate) fn become_program(errand: &Errand) -> ! {
    let engine = errand.engine.as_fd();
    let listener = match errand.filter.install() {
        Ok(listener) => listener,
        Err(error) => {
            let _ = Message::NotInstalled(error.raw_os_error().unwrap_or(0)).send(engine);
            process::leave(127)
        }
    };
    let installed = Message::Installed(process::own_pid()).send_with(engine, listener.as_fd());
    drop(listener);
    if installed.is_err() {
        process::leave(127);
    }
    inherited::restore_for_exec();
    // This call is notified: it waits until the engine is ready, or fails if the engine never is.
    let error = birth::execute(&errand.program);
    let message = Message::NotExecuted(error.raw_os_error().unwrap_or(0));
    let _ = message.send(engine);
    let _ = message.send(errand.front.as_fd());
    process::leave(127)
}

/// Tells `hear` how the program has changed since it was asked last. `true` if it has ended.
pub(crate) fn changes_of(program: i32, mut hear: impl FnMut(Change)) -> bool {
    while let Ok(Some(change)) = process::change_of(program) {
        hear(change);
        if matches!(change, Change::Exited(_) | Change::Killed(_)) {
            return true;
        }
    }
    false
}

/// What a keeper must have besides.
pub(crate) struct Keeper {
    pub(crate) errand: Errand,
    /// The process group that the program belongs in: the front's.
    pub(crate) group: i32,
}

impl Keeper {
    /// Forks a keeper, which forks the program. Returns in the engine only, with its end of the socket to the keeper. `ends` are the
    /// engine's of other sockets: a copy of them would hide that it has ended.
    pub(crate) fn fork(self, census: &Census, ends: &[BorrowedFd]) -> io::Result<OwnedFd> {
        let (to_keeper, engine) = vswap_sys::scm::pair()?;
        match birth::fork()? {
            Fork::Parent(_) => Ok(to_keeper),
            Fork::Child => {
                drop(to_keeper);
                process::close_copies(ends);
                match birth::fork() {
                    Ok(Fork::Child) => {
                        let _ = process::set_group(0, self.group);
                        become_program(&self.errand)
                    }
                    Ok(Fork::Parent(pid)) => keep(pid, &engine, census, self.errand.front.as_fd()),
                    Err(_) => process::leave(1),
                }
            }
        }
    }
}

fn keep(program: i32, engine: &OwnedFd, census: &Census, front: BorrowedFd) -> ! {
    crate::engine::keep_from_signals();
    let changes = Signals::take(&[SIGCHLD]);
    let heard = changes.as_ref().map_or(engine.as_fd(), |changes| changes.as_fd());
    let _ = process::keep_only(&[engine.as_fd(), front, heard]);
    let (Ok(changes), Ok(poll)) = (changes, Epoll::new()) else { process::leave(1) };
    if poll.add(changes.as_fd(), 0).is_err() || poll.add_hangup(engine.as_fd(), 1).is_err() {
        process::leave(1);
    }
    let _ = Message::Keeps(program).send(front);
    loop {
        let ended = changes_of(program, |change| {
            // The engine first: when the front has ended it must know that the program had.
            let _ = Message::Changed(change).send(engine.as_fd());
            let _ = Message::Changed(change).send(front);
        });
        if ended {
            process::leave(0);
        }
        let mut tokens = [0; EVENTS];
        let n = poll.wait(&mut tokens, -1).unwrap_or(0);
        if tokens[..n].contains(&1) {
            let _ = process::kill(program, signal::SIGKILL);
            census.kill_all();
            process::leave(1);
        }
        while changes.next().is_some() {}
    }
}
