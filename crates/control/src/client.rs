//! [`Client`]: the side of whoever asks.

use crate::place::{self, Socket};
use crate::protocol::{Answer, LONGEST_ANSWER, Request, Status};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing of ours runs.
    #[error("no vswap of yours is running (vswap run makes itself known a moment after its start)")]
    NoneRuns,
    /// None that is meant.
    #[error("no running vswap has the number or program {wanted:?}; there are: {there}")]
    NotFound {
        /// What was looked for.
        wanted: String,
        /// What there is.
        there: String,
    },
    /// More than one.
    #[error("several are running: {there}; say which one by its number, or by its name if that is its own")]
    Several {
        /// What there is.
        there: String,
    },
    /// It refused.
    #[error("{0}")]
    Refused(String),
    /// It cannot be talked to.
    #[error("talking to {path}: {source}", path = path.display())]
    Io {
        /// Its socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It says something that this version does not know.
    #[error("{path} answered {found:?}, which this vswap does not understand", path = path.display())]
    Nonsense {
        /// Its socket.
        path: PathBuf,
        /// What it said.
        found: String,
    },
}

/// A running vswap. What it says of itself may hold any characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Its socket.
    pub path: PathBuf,
    /// Whose it is.
    pub owner: u32,
    /// How it was just now.
    pub status: Status,
}

/// How long one that is stopped, or says nothing, is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// A move waits for room, as long as there comes some.
const MOVE_PATIENCE: Duration = Duration::from_secs(30);
/// A removal tells how far it is before each 2 MiB.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(300);

/// The running ones that this user may ask, and why others could not be asked. Sockets of one's own that nobody listens to any more are removed.
#[must_use]
pub fn find() -> (Vec<Run>, Vec<ClientError>) {
    let (mut runs, mut errors) = (Vec::new(), Vec::new());
    for Socket { path, owner, .. } in place::sockets() {
        match Client::connect(&path, owner).and_then(|mut client| client.status()) {
            Ok(status) => runs.push(Run { path, owner, status }),
            Err(ClientError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(ClientError::Io { source, .. }) if source.kind() == io::ErrorKind::ConnectionRefused => {
                if owner == geteuid().as_raw() {
                    let _ = std::fs::remove_file(path);
                }
            }
            Err(error) => errors.push(error),
        }
    }
    (runs, errors)
}

impl Run {
    /// Chooses by number or program; the only one if nothing is said.
    ///
    /// # Errors
    /// When there is none, or more than one, that is meant.
    pub fn choose(mut runs: Vec<Self>, wanted: Option<&str>) -> Result<Self, ClientError> {
        if runs.is_empty() {
            return Err(ClientError::NoneRuns);
        }
        let there = runs.iter().map(Self::to_string).collect::<Vec<_>>().join(", ");
        if let Some(wanted) = wanted {
            let is_number = |run: &Self| wanted.parse() == Ok(run.status.pid);
            let by_number = runs.iter().any(is_number);
            runs.retain(|run| if by_number { is_number(run) } else { run.status.program == wanted });
            if runs.is_empty() {
                return Err(ClientError::NotFound { wanted: wanted.into(), there });
            }
        }
        if runs.len() > 1 { Err(ClientError::Several { there }) } else { Ok(runs.swap_remove(0)) }
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.status.pid, self.status.program)
    }
}

/// A connection to a running vswap.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    lines: BufReader<UnixStream>,
}

impl Client {
    /// Calls the one that listens at `path`, which must be `owner`'s: nobody else is believed.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn connect(path: &Path, owner: u32) -> Result<Self, ClientError> {
        let called = UnixStream::connect(path).and_then(|stream| {
            let who = socket_peercred(&stream)?.uid;
            if who.as_raw() != owner && !who.is_root() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user answers"));
            }
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let stream = called.map_err(|source| ClientError::Io { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), lines: BufReader::new(stream) })
    }

    /// How it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        match self.ask(&Request::Status, &mut |_, _| {})? {
            Answer::Status(status) => Ok(*status),
            other => Err(self.nonsense(format!("{other:?}"))),
        }
    }

    /// Asks, and waits for the last answer; `watch` hears bytes moved and left of a removal.
    ///
    /// # Errors
    /// See [`ClientError`]; a refusal is one.
    pub fn ask(&mut self, request: &Request, watch: &mut dyn FnMut(u64, u64)) -> Result<Answer, ClientError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ClientError::Io { path, source }
        };
        let mut line = serde_json::to_vec(request).map_err(|error| io(&self.path)(error.into()))?;
        line.push(b'\n');
        let patience = match request {
            Request::RemoveTier { .. } => REMOVAL_PATIENCE,
            Request::MoveProcess { .. } => MOVE_PATIENCE,
            _ => PATIENCE,
        };
        self.lines.get_ref().set_read_timeout(Some(patience)).map_err(io(&self.path))?;
        self.lines.get_mut().write_all(&line).map_err(io(&self.path))?;
        loop {
            let mut line = String::new();
            let mut answer = self.lines.by_ref().take(LONGEST_ANSWER as u64);
            let read = answer.read_line(&mut line).map_err(io(&self.path))?;
            if read == 0 {
                return Err(io(&self.path)(io::ErrorKind::UnexpectedEof.into()));
            }
            match serde_json::from_str(&line) {
                Ok(Answer::Emptying { moved, left }) => watch(moved, left),
                Ok(Answer::Refused { why }) => return Err(ClientError::Refused(why)),
                Ok(answer) => return Ok(answer),
                Err(_) => return Err(self.nonsense(line)),
            }
        }
    }

    fn nonsense(&self, found: String) -> ClientError {
        ClientError::Nonsense { path: self.path.clone(), found: found.chars().take(200).collect() }
    }
}
