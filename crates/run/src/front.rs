//! The process that the user started: it looks like the program to whoever waits for it.
//!
//! It stops when the program stops, passes on signals that were sent to it (what a terminal sends reaches the program
//! by itself, being in the same group), ends as the program ends, and ends the tree if the engine dies. It is the program's
//! parent, or hears of it from the keeper.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use vswap_sys::poll::{EVENTS, Epoll};
use vswap_sys::process::{self, Change};
use vswap_sys::scm;
use vswap_sys::signal::{self, Signals};

use crate::census::Census;
use crate::config::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_VSWAP, ExitOutcome, RunConfig};
use crate::keeper::{self, Born};
use crate::message::Message;

/// Prints a line of vswap's own.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(out, "vswap: {line}");
    }
}

struct Front<'a> {
    census: &'a Census,
    config: &'a RunConfig,
    engine: OwnedFd,
    /// The program, while it is our child.
    child: Option<i32>,
    stats_json: Option<PathBuf>,
    program: Option<i32>,
    /// Signals that came before there was a program.
    early: Vec<i32>,
    /// Why the program could not be executed (errno).
    refused: Option<i32>,
    /// How the program ended.
    outcome: Option<ExitOutcome>,
    /// Figures are wanted at the end, and have not come.
    awaits_report: bool,
    /// The engine has given up.
    failed: bool,
}

/// The keeper outlives the engine by moments.
const KEEPER_ENDS_WITHIN_MS: i32 = 2000;

const SIGNALS: u64 = 0;
const ENGINE: u64 = 1;
const NEWS: u64 = 2;

/// Who the program's parent is.
pub(crate) enum Parent {
    /// The front itself.
    Front(Born),
    /// A keeper, which tells of it by this socket.
    Keeper(OwnedFd),
}

/// Mirrors the program until it ends.
pub(crate) fn mirror(config: &RunConfig, engine: OwnedFd, parent: Parent, census: &Census) -> ExitOutcome {
    let (child, news) = match parent {
        Parent::Front(born) => (Some(born), None),
        Parent::Keeper(news) => (None, Some(news)),
    };
    let mut heard = signal::FOR_PROGRAMS.to_vec();
    heard.extend(child.map(|_| signal::SIGCHLD));
    let ready = Signals::take(&heard).and_then(|signals| {
        let poll = Epoll::new()?;
        poll.add(signals.as_fd(), SIGNALS)?;
        poll.add(engine.as_fd(), ENGINE)?;
        if let Some(news) = &news {
            poll.add(news.as_fd(), NEWS)?;
        }
        Ok((signals, poll))
    });
    let (signals, poll) = match ready {
        Ok(ready) => ready,
        Err(error) => {
            say(&format!("cannot watch signals: {error}"));
            return ExitOutcome::Code(EXIT_VSWAP);
        }
    };
    let mut front = Front {
        census,
        config,
        engine,
        child: child.map(|born| born.pid),
        stats_json: config.stats_json.clone(),
        program: None,
        early: Vec::new(),
        refused: None,
        outcome: None,
        awaits_report: config.stats || config.stats_json.is_some(),
        failed: false,
    };
    if let Some(error) = child.and_then(|born| born.refused) {
        front.hear(Message::NotExecuted(error));
    }
    // What happened before signals were taken.
    front.look_at_child();
    while !front.is_done() {
        let mut tokens = [0; EVENTS];
        let n = poll.wait(&mut tokens, -1).unwrap_or(0);
        if tokens[..n].contains(&SIGNALS) {
            while let Some(arrived) = signals.next() {
                front.pass_on(arrived);
            }
            front.look_at_child();
        }
        if let Some(news) = news.as_ref().filter(|_| tokens[..n].contains(&NEWS)) {
            match Message::receive(news.as_fd()) {
                Ok(Some((message, _))) => front.hear(message),
                // The keeper has gone. The engine sees to it.
                Ok(None) | Err(_) => drop(poll.remove(news.as_fd())),
            }
        }
        if tokens[..n].contains(&ENGINE) {
            match Message::receive(front.engine.as_fd()) {
                Ok(Some((message, _))) => front.hear(message),
                Ok(None) | Err(_) => {
                    front.look_at_child();
                    if let Some(news) = &news {
                        front.hear_the_last(news.as_fd());
                    }
                    break;
                }
            }
        }
    }
    // What the engine said before is not lost.
    while let Some(message) = Message::receive_if_there(front.engine.as_fd()) {
        front.hear(message);
    }
    front.conclude()
}

impl Front<'_> {
    /// Whether there is nothing more to wait for. The keeper's news can be faster than the engine's: that vswap itself
    /// failed counts more than how the program's process ended then.
    fn is_done(&self) -> bool {
        let ended = self.outcome.is_some() || self.refused.is_some();
        let known = ended && self.program.is_some();
        self.failed || known && !self.awaits_report && !self.config.wait_all
    }

    /// How this ends. Without an engine an exec fails, too: only if there was one does it say something of the program.
    fn conclude(&self) -> ExitOutcome {
        match (self.failed, self.program, self.refused, self.outcome) {
            (true, ..) => ExitOutcome::Code(EXIT_VSWAP),
            (_, Some(_), Some(errno), _) => self.not_executed(errno),
            (_, Some(_), None, Some(outcome)) => outcome,
            _ => {
                self.census.kill_all();
                if let Some(child) = self.child {
                    let _ = process::kill(child, signal::SIGKILL);
                }
                say("the engine ended unexpectedly, so the program was ended too");
                ExitOutcome::Code(EXIT_VSWAP)
            }
        }
    }

    /// The engine has gone. If that was because nobody lives any more, the keeper has told so or does now, and goes too.
    fn hear_the_last(&mut self, news: BorrowedFd) {
        while self.outcome.is_none() && scm::wait_readable(news, KEEPER_ENDS_WITHIN_MS) {
            match Message::receive(news) {
                Ok(Some((message, _))) => self.hear(message),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Takes note of how the program has changed, if it is our child.
    fn look_at_child(&mut self) {
        let Some(pid) = self.child else { return };
        let ended = keeper::changes_of(pid, |change| {
            // When we have ended, the engine must know that the program had.
            let _ = Message::Changed(change).send(self.engine.as_fd());
            self.hear(Message::Changed(change));
        });
        if ended {
            self.child = None;
        }
    }

    fn pass_on(&mut self, arrived: signal::Arrived) {
        if arrived.signal == signal::SIGCHLD || arrived.by_kernel || self.outcome.is_some() {
            return;
        }
        match self.program {
            Some(pid) => {
                let _ = process::kill(pid, arrived.signal);
            }
            None => self.early.push(arrived.signal),
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Program(pid) => {
                self.program = Some(pid);
                for signal in self.early.drain(..) {
                    let _ = process::kill(pid, signal);
                }
            }
            Message::Say(text) => say(&text),
            Message::Stats(table, json) => {
                self.awaits_report = false;
                self.show(&table, &json);
            }
            Message::KillAll => self.census.kill_all(),
            Message::Failed => {
                self.failed = true;
            }
            Message::NotExecuted(errno) => {
                self.awaits_report = false;
                self.refused = Some(errno);
            }
            Message::Changed(Change::Exited(code)) => {
                // After a failed exec only the first answer counts.
                self.outcome.get_or_insert(ExitOutcome::Code(code));
            }
            Message::Changed(Change::Killed(signal)) => {
                self.outcome.get_or_insert(ExitOutcome::Signal(signal));
            }
            Message::Changed(Change::Stopped(_)) => {
                // The shell waits for us, not for the program. SIGCONT to the group wakes both.
                let _ = process::kill(process::own_pid(), signal::SIGSTOP);
            }
            Message::Changed(Change::Continued) => {}
            Message::Installed(_) | Message::NotInstalled(_) => {}
        }
    }

    fn not_executed(&self, errno: i32) -> ExitOutcome {
        let error = std::io::Error::from_raw_os_error(errno);
        let program = self.config.program[0].to_string_lossy().into_owned();
        say(&format!("cannot execute '{program}': {}", plain(&error)));
        let not_found = error.kind() == std::io::ErrorKind::NotFound;
        ExitOutcome::Code(if not_found { EXIT_NOT_FOUND } else { EXIT_NOT_EXECUTABLE })
    }

    fn show(&self, table: &str, json: &str) {
        if self.config.stats {
            say(table);
        }
        if let Some(path) = &self.stats_json
            && let Err(error) = std::fs::write(path, json)
        {
            say(&format!("cannot write {}: {}", path.display(), plain(&error)));
        }
    }
}

/// The system's words for an error, without the number.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
