//! The process that the user started: it looks like the program to whoever waits for it.
//!
//! It stops when the program stops, passes on signals that were sent to it (what a terminal sends reaches the program
//! by itself, being in the same group), ends as the program ends, and ends the tree if the engine dies. It is the program's
//! parent, or hears of it from the keeper.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use vswap_sys::poll::{EVENTS, Epoll};
use vswap_sys::process::{self, Change};
use vswap_sys::scm;
use vswap_sys::signal::{self, Arrived, Signals};

use crate::census::Census;
use crate::config::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_VSWAP, ExitOutcome, RunConfig};
use crate::keeper;
use crate::message::Message;

/// Prints a line of vswap's own.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(out, "vswap: {line}");
    }
}

/// What the front listens to.
pub(crate) struct Ears {
    pub(crate) engine: OwnedFd,
    /// What the program says that could not be executed, and the keeper.
    pub(crate) news: OwnedFd,
    pub(crate) signals: Signals,
}

impl Ears {
    /// Signals that the front hears of from now on: what is sent to it, and of children.
    ///
    /// # Errors
    /// `EMFILE` and its kin.
    pub(crate) fn signals() -> io::Result<Signals> {
        let mut signals = signal::FOR_PROGRAMS.to_vec();
        signals.push(signal::SIGCHLD);
        Signals::take(&signals)
    }
}

/// Mirrors the program until it ends. `child` is the program, if it is the front's child.
///
/// # Errors
/// `EMFILE` and its kin.
pub(crate) fn mirror(
    config: &RunConfig,
    census: &Census,
    ears: Ears,
    child: Option<i32>,
) -> io::Result<ExitOutcome> {
    let poll = Epoll::new()?;
    poll.add(ears.signals.as_fd(), SIGNALS)?;
    poll.add(ears.engine.as_fd(), ENGINE)?;
    poll.add(ears.news.as_fd(), NEWS)?;
    let mut front = Front {
        census,
        config,
        ears,
        child,
        kept: None,
        program: None,
        early: Vec::new(),
        refused: None,
        outcome: None,
        awaits_report: config.wants_report(),
        engine: State::Works,
    };
    while !front.is_done() && front.engine == State::Works {
        let mut tokens = [0; EVENTS];
        let n = poll.wait(&mut tokens, -1).unwrap_or(0);
        if tokens[..n].contains(&SIGNALS) {
            front.hear_signals();
        }
        if tokens[..n].contains(&NEWS) && !front.hear_news() {
            let _ = poll.remove(front.ears.news.as_fd());
        }
        if tokens[..n].contains(&ENGINE) {
            front.hear_engine();
        }
    }
    front.hear_the_last();
    Ok(front.conclude())
}

const SIGNALS: u64 = 0;
const ENGINE: u64 = 1;
const NEWS: u64 = 2;

/// The engine ends when nobody lives any more; whoever was the last is heard of within so long.
const LAST_IS_HEARD_WITHIN: Duration = Duration::from_secs(2);
/// One who was killed takes a while to end.
const KILLED_TOGETHER_WITHIN: Duration = Duration::from_millis(500);
/// One that is on its way out, on a machine that has much else to do.
const ENDED_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks whether it is.
const A_MOMENT: Duration = Duration::from_millis(10);
/// Messages that the engine may still send to one that is about to end.
const LAST_MESSAGES: usize = 1000;

/// How the engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Works,
    /// It said that nobody is left.
    Over,
    /// It said that it cannot go on, and why.
    Failed,
    /// It has ended without a word.
    Gone,
}

struct Front<'a> {
    census: &'a Census,
    config: &'a RunConfig,
    ears: Ears,
    /// The program, while it is our child.
    child: Option<i32>,
    /// The program, if it is a keeper's child.
    kept: Option<i32>,
    /// The program, once the engine has taken it on.
    program: Option<i32>,
    /// Signals that came before a keeper's program was known.
    early: Vec<i32>,
    /// Why the program could not be executed (errno).
    refused: Option<i32>,
    /// How the program ended.
    outcome: Option<ExitOutcome>,
    /// Figures are wanted at the end, and have not come.
    awaits_report: bool,
    engine: State,
}

/// Whether the engine is on its way out: of our children the program has been waited for by then.
fn engine_is_ending() -> bool {
    let children = process::children(process::own_pid()).unwrap_or_default();
    children.into_iter().any(process::is_ending)
}

impl Front<'_> {
    /// Whether there is nothing more to wait for. News of the program can be faster than the engine's: that vswap itself failed
    /// counts more than how the program's process ended then.
    fn is_done(&self) -> bool {
        let known = self.is_ended() && self.program.is_some();
        known && !self.awaits_report && !self.config.wait_all
    }

    fn is_ended(&self) -> bool {
        self.outcome.is_some() || self.refused.is_some()
    }

    /// How this ends. A program whose engine has gone ends by itself, too, or cannot be executed: then that says nothing.
    fn conclude(&mut self) -> ExitOutcome {
        match (self.engine, self.refused, self.outcome) {
            (State::Works | State::Over, Some(errno), _) => return self.not_executed(errno),
            (State::Works | State::Over, None, Some(outcome)) => {
                self.tidy_after(outcome);
                return outcome;
            }
            (State::Failed, ..) => {}
            _ => {
                say("the engine ended unexpectedly, so the program was ended too");
                vswap_control::place::forget(process::own_pid());
            }
        }
        self.census.kill_all();
        if let Some(child) = self.child {
            let _ = process::kill(child, signal::SIGKILL);
            let since = Instant::now();
            while self.child.is_some() && since.elapsed() < LAST_IS_HEARD_WITHIN {
                std::thread::sleep(Duration::from_millis(1));
                self.look_at_child();
            }
        }
        ExitOutcome::Code(EXIT_VSWAP)
    }

    /// Whoever killed the program may have killed the engine with it, and then its socket is left to us.
    fn tidy_after(&mut self, outcome: ExitOutcome) {
        let since = Instant::now();
        while outcome == ExitOutcome::Signal(signal::SIGKILL) && self.engine == State::Works {
            let left = KILLED_TOGETHER_WITHIN.saturating_sub(since.elapsed());
            let wait = left.max(A_MOMENT).as_millis() as i32;
            if scm::wait_readable(self.ears.engine.as_fd(), wait) {
                self.hear_engine();
            } else if since.elapsed() > ENDED_WITHIN || !engine_is_ending() {
                return;
            }
        }
        if self.engine == State::Gone {
            vswap_control::place::forget(process::own_pid());
        }
    }

    /// Hears what has been said already. An engine that has ended because nobody lives any more knows that before we do.
    fn hear_the_last(&mut self) {
        let since = Instant::now();
        while self.engine == State::Over && !self.is_ended() && since.elapsed() < LAST_IS_HEARD_WITHIN {
            self.hear_news();
            self.look_at_child();
            std::thread::sleep(Duration::from_millis(1));
        }
        for _ in 0..LAST_MESSAGES {
            if self.engine != State::Works || !scm::wait_readable(self.ears.engine.as_fd(), 0) {
                return;
            }
            self.hear_engine();
        }
    }

    fn hear_engine(&mut self) {
        match Message::receive(self.ears.engine.as_fd()) {
            Ok(Some((message, _))) => self.hear(message),
            Ok(None) | Err(_) => self.engine = State::Gone,
        }
    }

    /// Hears what the program or the keeper has said. `false` if there will be no more.
    fn hear_news(&mut self) -> bool {
        while scm::wait_readable(self.ears.news.as_fd(), 0) {
            match Message::receive(self.ears.news.as_fd()) {
                Ok(Some((message, _))) => self.hear(message),
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }

    fn hear_signals(&mut self) {
        while let Some(arrived) = self.ears.signals.next() {
            self.pass_on(arrived);
        }
        self.look_at_child();
        // Orphans come to us if we are the first process of a container, or whoever started us wanted them.
        process::reap_but(self.child.unwrap_or(-1));
    }

    /// Takes note of how the program has changed, if it is our child.
    fn look_at_child(&mut self) {
        let Some(pid) = self.child else { return };
        // It says that it could not be executed before it ends.
        self.hear_news();
        let ended = keeper::changes_of(pid, |change| {
            // When we have ended, the engine must know that the program had.
            let _ = Message::Changed(change).send(self.ears.engine.as_fd());
            self.hear(Message::Changed(change));
        });
        if ended {
            self.child = None;
        }
    }

    /// Passes a signal on that was sent to us alone: what the kernel sends for a terminal the program gets itself.
    fn pass_on(&mut self, arrived: Arrived) {
        let shared = arrived.by_kernel && arrived.signal != signal::SIGALRM;
        if arrived.signal == signal::SIGCHLD || shared || self.outcome.is_some() {
            return;
        }
        if arrived.signal == signal::SIGCONT {
            // As the kernel does with stops that have not happened yet.
            self.early.retain(|early| !signal::STOPS.contains(early));
        }
        match self.program.or(self.child) {
            Some(pid) => {
                let _ = process::kill(pid, arrived.signal);
            }
            None => self.early.push(arrived.signal),
        }
    }

    /// Whether the program is known to run, to wait for something, or to be gone.
    fn program_goes_on(&self) -> bool {
        let state = |pid: i32| process::thread_state(pid, pid);
        self.child.or(self.kept).is_some_and(|pid| state(pid).map_or(true, |state| b"RSDI".contains(&state)))
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
                if self.refused.is_none() {
                    self.show(&table, &json);
                }
            }
            Message::KillAll => self.census.kill_all(),
            Message::Failed => self.engine = State::Failed,
            Message::Over => self.engine = State::Over,
            Message::NotExecuted(errno) => {
                self.awaits_report = false;
                self.refused = Some(errno);
            }
            Message::Changed(Change::Exited(code)) => {
                self.outcome.get_or_insert(ExitOutcome::Code(code));
            }
            Message::Changed(Change::Killed(signal)) => {
                self.outcome.get_or_insert(ExitOutcome::Signal(signal));
            }
            Message::Changed(Change::Stopped(_)) => {
                // The shell waits for us, not for the program. SIGCONT to the group wakes both; one that was sent before we hear this,
                // from a keeper that did not get its CPU, will not wake us.
                if !self.program_goes_on() {
                    let _ = process::kill(process::own_pid(), signal::SIGSTOP);
                }
            }
            Message::Keeps(pid) => self.kept = Some(pid),
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
        if let Some(path) = &self.config.stats_json
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
