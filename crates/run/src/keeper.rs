//! The program's parent, and the program until it is executed.
//!
//! The keeper is a process of its own, below the engine, so that the engine's tracing of the program can never take
//! the news of its end or stop from whoever waits for it: a tracer that is also the parent gets both mixed up. It
//! does nothing but report the program's changes, and ends the tree if the engine goes away.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vswap_sys::inherited;
use vswap_sys::poll::{EVENTS, Epoll};
use vswap_sys::process::{self, Arguments, Change, Fork};
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
    pub(crate) census: &'a Census,
}

/// Forks the keeper, which forks the program. Returns in the engine only, with the engine's ends of the sockets to
/// the keeper and to the program.
pub(crate) fn fork(errand: &Errand) -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (to_keeper, keeper_end) = vswap_sys::scm::pair()?;
    let (to_program, program_end) = vswap_sys::scm::pair()?;
    match process::fork()? {
        Fork::Parent(_) => Ok((to_keeper, to_program)),
        Fork::Child => {
            drop((to_keeper, to_program));
            match process::fork() {
                Ok(Fork::Child) => become_program(errand, program_end.as_fd()),
                Ok(Fork::Parent(pid)) => {
                    drop(program_end);
                    keep(pid, &keeper_end, errand.census)
                }
                Err(_) => process::leave(1),
            }
        }
    }
}

/// Between fork and exec: joins the front's group, puts itself under the filter, waits for the word.
fn become_program(errand: &Errand, socket: BorrowedFd) -> ! {
    let _ = process::set_group(0, errand.group);
    let leave_with = |message: Message| -> ! {
        let _ = message.send(socket);
        process::leave(127)
    };
    let listener = match errand.filter.install() {
        Ok(listener) => listener,
        Err(error) => leave_with(Message::NotInstalled(error.raw_os_error().unwrap_or(0))),
    };
    let installed = Message::Installed(process::own_pid()).send_with(socket, listener.as_fd());
    drop(listener);
    if installed.is_err() {
        process::leave(127);
    }
    // This call is notified: it waits until the engine is ready, or fails if the engine never is.
    inherited::restore_for_exec();
    let error = process::execute(errand.program);
    leave_with(Message::NotExecuted(error.raw_os_error().unwrap_or(0)))
}

fn keep(program: i32, engine: &OwnedFd, census: &Census) -> ! {
    let news = Signals::take(&[SIGCHLD]);
    let _ = process::keep_only(&[engine.as_fd(), news.as_ref().map_or(engine.as_fd(), |n| n.as_fd())]);
    let (Ok(news), Ok(poll)) = (news, Epoll::new()) else { process::leave(1) };
    if poll.add(news.as_fd(), 0).is_err() || poll.add_hangup(engine.as_fd(), 1).is_err() {
        process::leave(1);
    }
    loop {
        while let Ok(Some(change)) = process::change_of(program) {
            let _ = Message::Changed(change).send(engine.as_fd());
            if matches!(change, Change::Exited(_) | Change::Killed(_)) {
                process::leave(0);
            }
        }
        let mut tokens = [0; EVENTS];
        let n = poll.wait(&mut tokens, -1).unwrap_or(0);
        if tokens[..n].contains(&1) {
            let _ = process::kill(program, signal::SIGKILL);
            census.kill_all();
            process::leave(1);
        }
        while news.next().is_some() {}
    }
}
