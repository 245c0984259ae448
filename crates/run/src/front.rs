//! The process that the user started: it looks like the program to whoever waits for it.
//!
//! It stops when the program stops, passes on signals that were sent to it (what a terminal sends reaches the program
//! by itself, being in the same group), ends as the program ends, and ends the tree if the engine dies. What becomes of the
//! program it hears from the keeper, without a detour over the engine.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use vswap_sys::poll::{EVENTS, Epoll};
use vswap_sys::process::{self, Change};
use vswap_sys::scm;
use vswap_sys::signal::{self, Signals};

use crate::census::Census;
use crate::config::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_VSWAP, ExitOutcome, RunConfig};
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
    stats_json: Option<PathBuf>,
    program: Option<i32>,
    /// Signals that came before there was a program.
    early: Vec<i32>,
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

/// Mirrors the program until it ends. `news` is where the keeper, and the program before it is executed, speak of it.
pub(crate) fn mirror(config: &RunConfig, engine: OwnedFd, news: OwnedFd, census: &Census) -> ExitOutcome {
    let ready = Signals::take(&signal::FOR_PROGRAMS).and_then(|signals| {
        let poll = Epoll::new()?;
        poll.add(signals.as_fd(), SIGNALS)?;
        poll.add(engine.as_fd(), ENGINE)?;
        poll.add(news.as_fd(), NEWS)?;
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
        stats_json: config.stats_json.clone(),
        program: None,
        early: Vec::new(),
        outcome: None,
        awaits_report: config.stats || config.stats_json.is_some(),
        failed: false,
    };
    loop {
        let mut tokens = [0; EVENTS];
        let n = poll.wait(&mut tokens, -1).unwrap_or(0);
        if tokens[..n].contains(&SIGNALS) {
            while let Some(arrived) = signals.next() {
                front.pass_on(arrived);
            }
        }
        if tokens[..n].contains(&NEWS) {
            match Message::receive(news.as_fd()) {
                Ok(Some((message, _))) => front.hear(message),
                // The keeper has gone. The engine sees to it.
                Ok(None) | Err(_) => drop(poll.remove(news.as_fd())),
            }
        }
        if tokens[..n].contains(&ENGINE) {
            match Message::receive(engine.as_fd()) {
                Ok(Some((message, _))) => front.hear(message),
                Ok(None) | Err(_) => {
                    front.hear_the_last(news.as_fd());
                    break;
                }
            }
        }
        if front.is_done() {
            // What the engine said before is not lost.
            while let Some(message) = Message::receive_if_there(engine.as_fd()) {
                front.hear(message);
            }
            break;
        }
    }
    front.outcome.unwrap_or_else(|| {
        census.kill_all();
        say("the engine ended unexpectedly, so the program was ended too");
        ExitOutcome::Code(EXIT_VSWAP)
    })
}

impl Front<'_> {
    /// Whether there is nothing more to wait for. The keeper's news can be faster than the engine's: that vswap itself
    /// failed counts more than how the program's process ended then.
    fn is_done(&self) -> bool {
        let known = self.outcome.is_some() && self.program.is_some();
        self.failed || known && !self.awaits_report && !self.config.wait_all
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

    fn pass_on(&mut self, arrived: signal::Arrived) {
        if arrived.by_kernel || self.outcome.is_some() {
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
                self.outcome = Some(ExitOutcome::Code(EXIT_VSWAP));
            }
            Message::NotExecuted(errno) => {
                self.awaits_report = false;
                self.outcome = Some(self.not_executed(errno));
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
