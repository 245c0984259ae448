//! One file for each object, in directories two levels deep as ccache has them; written under another name and renamed.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::contestant::{Contestant, Found, Open};
use crate::process;

/// How what was put since the last sync is synced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The whole file system once (`syncfs`).
    Batch,
    /// File by file, then their directories.
    Each,
}

pub struct Files {
    dir: PathBuf,
    durability: Durability,
    /// Numbers that were put since the last sync.
    unsynced: Vec<u64>,
    bytes: Vec<u8>,
    /// Of the process when it was opened.
    read_before: u64,
}

impl Files {
    pub fn open(dir: &Path, durability: Durability, how: Open) -> Result<Self> {
        if how == Open::Fresh {
            for number in 0..256 {
                fs::create_dir_all(folder(dir, number))?;
            }
        }
        let read_before = process::read_bytes()?;
        Ok(Self { dir: dir.to_owned(), durability, unsynced: Vec::new(), bytes: Vec::new(), read_before })
    }

    fn path(&self, number: u64) -> PathBuf {
        folder(&self.dir, number).join(format!("{number:016x}"))
    }
}

/// By the last two digits.
fn folder(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{:x}", number >> 4 & 15)).join(format!("{:x}", number & 15))
}

impl Contestant for Files {
    type Got<'c> = &'c [u8];

    fn put(&mut self, number: u64, bytes: &[u8]) -> Result<()> {
        let path = self.path(number);
        let half = path.with_extension("half");
        File::create(&half)?.write_all(bytes)?;
        fs::rename(&half, &path)?;
        self.unsynced.push(number);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if self.durability == Durability::Batch {
            rustix::fs::syncfs(File::open(&self.dir)?).context("cannot sync the file system")?;
        } else {
            for number in &self.unsynced {
                File::open(self.path(*number))?.sync_all()?;
            }
            let mut folders: Vec<_> = self.unsynced.iter().map(|number| number & 255).collect();
            folders.sort_unstable();
            folders.dedup();
            for number in folders {
                File::open(folder(&self.dir, number))?.sync_all()?;
            }
        }
        self.unsynced.clear();
        Ok(())
    }

    fn get(&mut self, number: u64, size: usize) -> Result<Option<&[u8]>> {
        let mut file = match File::open(self.path(number)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        self.bytes.resize(size, 0);
        file.read_exact(&mut self.bytes)?;
        Ok(Some(&self.bytes))
    }

    /// What the device gave is all that is known; what it gave ahead of need or for directories counts too.
    fn found(&self, gets: u64, size: usize) -> Result<Found> {
        let disk = (process::read_bytes()? - self.read_before) as f64 / size as f64;
        let disk = disk.min(gets as f64);
        Ok(Found { memory: gets as f64 - disk, disk })
    }

    fn close(mut self) -> Result<()> {
        self.sync()
    }
}
