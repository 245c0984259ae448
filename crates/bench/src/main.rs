//! One contestant's part of `cargo xtask cache`, in a process of its own, so that its memory can be told. Prints one JSON object.
//!
//! - [`contestant::Contestant`] is what is compared: put, get, sync. [`store`], [`files`] and, with the feature of that name, `foyer` are them.
//! - [`phases`] is what they do: put and get hot, get cold, read through.
//! - [`many`] and [`sequential`] have what is measured of the store alone, and of the device.

mod contestant;
mod device;
mod files;
#[cfg(feature = "foyer")]
mod foyer;
mod latency;
mod many;
mod payload;
mod phases;
mod process;
mod sequential;
mod store;
mod zipf;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use contestant::{Budget, Open};
use files::Durability;
use serde_json::Value;

#[derive(Parser)]
struct Command {
    #[command(subcommand)]
    part: Part,
}

#[derive(Clone, Copy, ValueEnum)]
enum Who {
    Store,
    /// One file for each object; a batch is synced with one call for the whole file system.
    Files,
    /// The same; each file of a batch is synced by itself.
    FilesEach,
    #[cfg(feature = "foyer")]
    Foyer,
}

#[derive(clap::Args)]
struct Contest {
    /// Who it is.
    who: Who,
    /// Where its bytes are.
    dir: PathBuf,
    /// Bytes of an object.
    #[arg(long)]
    size: usize,
    /// Memory that it may have, bytes.
    #[arg(long)]
    memory: usize,
    /// Bytes of all objects together.
    #[arg(long)]
    data: u64,
    /// The most gets.
    #[arg(long)]
    gets: usize,
    /// The most time that they may take.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

#[derive(Subcommand)]
enum Part {
    /// Puts objects, then gets some of them again and again.
    Put(Contest),
    /// Opens what `put` has left and gets each once.
    Cold(Contest),
    /// Gets by Zipf's law; what is not there is made and put.
    Through(Contest),
    /// A store of very many objects.
    #[command(subcommand)]
    Many(many::Act),
    /// One long object, and a file beside it.
    #[command(subcommand)]
    Long(sequential::Act),
    /// The device by itself.
    Device { dir: PathBuf, bytes: u64 },
}

fn main() -> Result<()> {
    let said = match Command::parse().part {
        Part::Put(contest) => contend(&contest, Step::Put)?,
        Part::Cold(contest) => contend(&contest, Step::Cold)?,
        Part::Through(contest) => contend(&contest, Step::Through)?,
        Part::Many(act) => many::run(&act)?,
        Part::Long(act) => sequential::run(&act)?,
        Part::Device { dir, bytes } => device::measure(&dir, bytes)?,
    };
    println!("{}", process::with_memory(said)?);
    Ok(())
}

#[derive(Clone, Copy)]
enum Step {
    Put,
    Cold,
    Through,
}

fn contend(contest: &Contest, step: Step) -> Result<Value> {
    let objects = contest.data / contest.size as u64;
    let budget = Budget { memory: contest.memory, disk: contest.data * 2 + (256 << 20) };
    let fresh = !matches!(step, Step::Cold);
    match contest.who {
        Who::Store => step.of(contest, objects, |how| store::Objects::open(&contest.dir, budget, how), fresh),
        Who::Files => {
            let open = |how| files::Files::open(&contest.dir, Durability::Batch, how);
            step.of(contest, objects, open, fresh)
        }
        Who::FilesEach => {
            let open = |how| files::Files::open(&contest.dir, Durability::Each, how);
            step.of(contest, objects, open, fresh)
        }
        #[cfg(feature = "foyer")]
        Who::Foyer => step.of(contest, objects, |_| foyer::Foyer::open(&contest.dir, budget), fresh),
    }
}

impl Step {
    fn of<C: contestant::Contestant>(
        self,
        contest: &Contest,
        objects: u64,
        open: impl FnOnce(Open) -> Result<C>,
        fresh: bool,
    ) -> Result<Value> {
        let begin = std::time::Instant::now();
        let contestant = open(if fresh { Open::Fresh } else { Open::Found })?;
        let opened = begin.elapsed();
        let limit = phases::Limit { gets: contest.gets, seconds: contest.seconds };
        match self {
            Step::Put => phases::put_and_hot(contestant, contest.size, objects, contest.memory, limit),
            Step::Cold => phases::cold(contestant, contest.size, objects, opened, limit),
            Step::Through => phases::through(contestant, contest.size, objects, limit),
        }
    }
}
