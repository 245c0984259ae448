//! [`Contestant`]: what keeps objects by number.

use anyhow::Result;

/// What a contestant may take.
#[derive(Clone, Copy)]
pub struct Budget {
    /// Memory, bytes.
    pub memory: usize,
    /// Room on the disk, bytes.
    pub disk: u64,
}

/// Whether there is something already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Nothing: it is made.
    Fresh,
    /// What was closed before.
    Found,
}

/// Where gets found objects, so far; in gets, or parts of them.
#[derive(Clone, Copy, Default)]
pub struct Found {
    pub memory: f64,
    pub disk: f64,
}

/// Objects by number, one client.
pub trait Contestant {
    /// An object's bytes as they are got.
    type Got<'c>: AsRef<[u8]>
    where
        Self: 'c;

    /// Keeps an object that is not there.
    fn put(&mut self, number: u64, bytes: &[u8]) -> Result<()>;

    /// What was put is on the disk, as far as the contestant can say so.
    fn sync(&mut self) -> Result<()>;

    /// An object of `size` bytes, if it is there.
    fn get(&mut self, number: u64, size: usize) -> Result<Option<Self::Got<'_>>>;

    /// Of `gets` gets of `size` bytes that were found since it was opened.
    fn found(&self, gets: u64, size: usize) -> Result<Found>;

    /// Ends it in an orderly way.
    fn close(self) -> Result<()>;
}
