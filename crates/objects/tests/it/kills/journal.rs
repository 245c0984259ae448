//! What a process does with a store, as it tells before and after: one line for each, by a pipe, which has it also when the process is killed.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;

/// Threads of the process; each has names of its own.
pub const THREADS: u8 = 2;
/// Keys of each volume that a thread has.
pub const KEYS: u8 = 8;
/// Keys whose second byte is the same.
const TOGETHER: u8 = 4;
const MARK: &str = "J ";

/// An object's name, of a thread's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct Name {
    /// In the volume that all threads have, or in the thread's own.
    pub shared: bool,
    pub key: u8,
}

/// What may be done with an object of that key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Whatever is written is dirty, until it is cleaned.
    Dirty,
    /// Pinned before anything is written to it.
    Pinned,
    /// Anything of it may be given up.
    Plain,
}

impl Name {
    pub fn all() -> impl Iterator<Item = Self> {
        [false, true].into_iter().flat_map(|shared| (0..KEYS).map(move |key| Self { shared, key }))
    }

    pub fn class(self) -> Class {
        match self.key % 4 {
            0 => Class::Dirty,
            1 => Class::Pinned,
            _ => Class::Plain,
        }
    }

    pub fn key_of(self, thread: u8) -> Vec<u8> {
        let mut key = vec![thread, self.key / TOGETHER, self.key];
        key.resize(3 + usize::from(self.key) * 40, b'k');
        key
    }
}

pub fn volume(shared: bool, thread: u8) -> Vec<u8> {
    if shared { b"shared".to_vec() } else { format!("of {thread}").into_bytes() }
}

/// Which of a thread's names an invalidation ends: all of a volume's, or those of some keys.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Below {
    pub shared: bool,
    pub some: Option<u8>,
}

impl Below {
    /// In the volume that others have too, what it ends has the thread's prefix.
    pub fn prefix(self, thread: u8) -> Vec<u8> {
        match self.some {
            Some(some) => vec![thread, some],
            None if self.shared => vec![thread],
            None => Vec::new(),
        }
    }

    pub fn covers(self, name: Name) -> bool {
        self.shared == name.shared && self.some.is_none_or(|some| name.key / TOGETHER == some)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Op {
    Open { name: Name, version: u64 },
    Write { name: Name, offset: u64, len: u64, noise: u64 },
    Punch { name: Name, from: u64, to: u64 },
    SetLen { name: Name, len: u64 },
    SetAux { name: Name, aux: u64 },
    Pin { name: Name },
    Unpin { name: Name },
    Clean { name: Name },
    Remove { name: Name },
    Invalidate { below: Below },
    Reclaim { bytes: u64 },
    Sync,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Outcome {
    Done,
    /// Nothing has changed.
    Refused,
    /// The object as it was found or made.
    Opened {
        len: u64,
        aux: u64,
    },
    /// What must not happen.
    Failed(String),
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum What {
    /// The store is open.
    Ready,
    Begin(Op),
    End(Outcome),
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Line {
    pub thread: u8,
    pub what: What,
}

impl Line {
    /// One of ours, or what a test's harness says besides.
    pub fn decode(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(MARK)?;
        let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
        postcard::from_bytes(&bytes?).ok()
    }

    fn encode(&self) -> String {
        let bytes = postcard::to_allocvec(self).expect("it goes into memory");
        bytes.iter().fold(MARK.to_owned(), |text, byte| text + &format!("{byte:02x}")) + "\n"
    }
}

/// Standard output, past the buffer of the standard library.
pub struct Journal(File);

impl Journal {
    pub fn open() -> Self {
        let mut out =
            OpenOptions::new().write(true).open("/proc/self/fd/1").expect("standard output is a pipe");
        // A test's harness leaves its line open.
        out.write_all(b"\n").expect("somebody reads it");
        Self(out)
    }

    /// With one write, which a pipe takes whole. Ends the process if nobody reads it any more.
    pub fn say(&self, thread: u8, what: What) {
        let line = Line { thread, what }.encode();
        if (&self.0).write_all(line.as_bytes()).is_err() {
            std::process::exit(1);
        }
    }
}
