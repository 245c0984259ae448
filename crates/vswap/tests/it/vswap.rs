//! Calling the built command.

use std::ffi::OsStr;
use std::process::{Command, Output};

/// What a call gave.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// The command, not yet started.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vswap"));
    command.env_remove("SUDO_USER").env_remove("TMPDIR");
    command
}

/// Calls it with these words.
pub fn vswap<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(words: I) -> Said {
    said(command().args(words).output().expect("the binary starts"))
}

/// Calls it with the words of a line, split at spaces.
pub fn line(words: &str) -> Said {
    vswap(words.split_whitespace())
}

pub fn said(output: Output) -> Said {
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Said {
    /// Every line on standard error is vswap's own and says so.
    pub fn all_prefixed(&self) -> bool {
        !self.err.is_empty() && self.err.lines().all(|line| line.starts_with("vswap: "))
    }
}
