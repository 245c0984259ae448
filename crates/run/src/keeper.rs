//! The program's parent, and the program until it is executed.
//!
//! The keeper is a process of its own, below the engine, so that the engine's tracing of the program can never take
//! the news of its end or stop from whoever waits for it: a tracer that is also the parent gets both mixed up. It
//! does nothing but report the program's changes, to the engine and then to the front, and ends the tree if the engine
//! goes away.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vswap_sys::birth::{self, Arguments, Fork};
use vswap_sys::inherited;
use vswap_sys::poll::{EVENTS, Epoll};
use vswap_sys::process::{self, Change};
use vswap_sys::seccomp::Filter;
use vswap_sys::signal::{self, SIGCHLD, Signals};

use crate::census::Census;
use crate::message::Message;

/// What keeper and program need.
pub(crate) struct Errand<'a> {
    pub(crate) program: &'a Arguments,
    pub(crate) filter: &'a Filter,
    /// The process group that the program belongs in: the front's.
    pub(crate) group: i32,
    pub(crate) census: Census,
    /// Where the front hears of the program.
    pub(crate) news: OwnedFd,
}

/// Forks the keeper, which forks the program. Returns in the engine only, with the engine's ends of the sockets to
/// the keeper and to the program.
pub(crate) fn fork(errand: &Errand) -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (to_keeper, keeper_end) = vswap_sys::scm::pair()?;
    let (to_program, program_end) = vswap_sys::scm::pair()?;
    match birth::fork()? {
        Fork::Parent(_) => Ok((to_keeper, to_program)),
        Fork::Child => {
            drop((to_keeper, to_program));
            let life = || become_program(errand, program_end.as_fd());
            match birth::fork_to_execute(life) {
                Ok(pid) => {
                    drop(program_end);
                    keep(pid, &keeper_end, errand)
                }
                Err(_) => process::leave(1),
            }
        }
    }
}

/// Between fork and exec, in the keeper's memory: joins the front's group, puts itself under the filter, executes. Allocates
/// nothing.
fn become_program(errand: &Errand, socket: BorrowedFd) -> Infallible {
    let _ = process::set_group(0, errand.group);
    let listener = match errand.filter.install() {
        Ok(listener) => listener,
        Err(error) => {
            let _ = Message::NotInstalled(error.raw_os_error().unwrap_or(0)).send(socket);
            process::leave(127)
        }
    };
    let installed = Message::Installed(process::own_pid()).send_with(socket, listener.as_fd());
    drop(listener);
    if installed.is_err() {
        process::leave(127);
    }
    // This call is notified: it waits until the engine is ready, or fails if the engine never is.
    inherited::restore_for_exec();
    let error = birth::execute(errand.program);
    let message = Message::NotExecuted(error.raw_os_error().unwrap_or(0));
    let _ = message.send(socket);
    let _ = message.send(errand.news.as_fd());
    process::leave(127)
}

fn keep(program: i32, engine: &OwnedFd, errand: &Errand) -> ! {
    let changes = Signals::take(&[SIGCHLD]);
    let heard = changes.as_ref().map_or(engine.as_fd(), |changes| changes.as_fd());
    let _ = process::keep_only(&[engine.as_fd(), errand.news.as_fd(), heard]);
    let (Ok(changes), Ok(poll)) = (changes, Epoll::new()) else { process::leave(1) };
    if poll.add(changes.as_fd(), 0).is_err() || poll.add_hangup(engine.as_fd(), 1).is_err() {
        process::leave(1);
    }
    loop {
        while let Ok(Some(change)) = process::change_of(program) {
            // The engine first: when the front has ended it must know that the program had.
            let _ = Message::Changed(change).send(engine.as_fd());
            let _ = Message::Changed(change).send(errand.news.as_fd());
            if matches!(change, Change::Exited(_) | Change::Killed(_)) {
                process::leave(0);
            }
        }
        let mut tokens = [0; EVENTS];
        let n = poll.wait(&mut tokens, -1).unwrap_or(0);
        if tokens[..n].contains(&1) {
            let _ = process::kill(program, signal::SIGKILL);
            errand.census.kill_all();
            process::leave(1);
        }
        while changes.next().is_some() {}
    }
}
