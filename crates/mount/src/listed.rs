//! [`Listed`]: what the kernel has of a directory's names.
//!
//! The kernel keeps the names that it is told, each behind the one before it, whoever asks. An open directory tells those of the moment at which it was read, so names of two moments must not come together: one would be
//! left out that was there all along. So one open directory at a time tells the kernel what it keeps, until it has told all; others that are open meanwhile are told without its keeping anything.

use fuser::FopenFlags;
use std::time::{Duration, Instant};

/// Of one directory.
#[derive(Debug, Default)]
pub struct Listed {
    /// The open directory that tells.
    teller: Option<u64>,
    /// When what it tells was read from the source; `None` also if it was not.
    read: Option<Instant>,
    /// The kernel has been told all.
    whole: bool,
}

impl Listed {
    /// A directory is opened; what the kernel is to do with the names that it is told, and with those that it has, which are good for `ttl`.
    pub fn opened(&mut self, by: u64, ttl: Duration) -> FopenFlags {
        let is_fresh = self.read.is_some_and(|read| read.elapsed() < ttl);
        match self.teller {
            _ if ttl.is_zero() => FopenFlags::empty(),
            None if is_fresh && self.whole => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
            None => {
                *self = Self { teller: Some(by), ..Self::default() };
                FopenFlags::FOPEN_CACHE_DIR
            }
            Some(_) => FopenFlags::FOPEN_KEEP_CACHE,
        }
    }

    /// It has been read from its beginning, from the source or not, for one of those that tell.
    pub fn read(&mut self, by: u64, begun: Option<Instant>) {
        *self = Self { teller: Some(by), read: begun, whole: false };
    }

    /// All has been told.
    pub fn told_all(&mut self, by: u64) {
        if self.teller == Some(by) {
            (self.teller, self.whole) = (None, true);
        }
    }

    pub fn closed(&mut self, by: u64) {
        if self.teller == Some(by) {
            self.teller = None;
        }
    }
}
