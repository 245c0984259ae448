//! Automation, as `cargo xtask TASK`: everything that CI, a release or a measurement does, in one place.
//!
//! Nothing here imports the product but `traces`, which replays the core's policy: tasks run programs and look at them from outside.

mod cache;
mod churn;
mod deaths;
mod dist;
mod family;
mod fuzz;
mod host;
mod layers;
mod licences;
mod mount;
mod numbers;
mod peers;
mod reclaim;
mod setup;
mod sim;
mod suite;
mod swapoff;
mod test;
mod tidy;
mod traces;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Automation for vswap")]
struct Command {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Prove the layer table, the habits of the tree and the licences of what it uses.
    Layers,
    /// Install what a bare Debian machine needs.
    SetupMachine(setup::Options),
    /// Everything that must pass: unit tests, documentation tests, the suite and the page checker, bounded.
    Test(test::Options),
    /// Run programs in a quarter of the memory that they need and compare with a plain run.
    Suite(suite::Options),
    /// Run the page checker under vswap.
    Checker(test::CheckerOptions),
    /// Simulate the whole engine against a map, with faults; a seed replays exactly.
    Sim(sim::Options),
    /// Look for inputs that a format's reader does not stand, for so many seconds a target.
    Fuzz(fuzz::Options),
    /// Kill program and supervisor, or whoever has a store of named objects, at random moments.
    Deaths(deaths::Options),
    /// Measure beside the kernel's own swap.
    Peers(peers::Options),
    /// Measure how long it takes to empty a tier, beside the kernel's swapoff.
    Swapoff(swapoff::Options),
    /// Measure a parent with many children beside the kernel's own swap, and count the copies of its pages.
    Family(family::Options),
    /// Measure what proactive reclaim gives back and what it costs.
    Reclaim(reclaim::Options),
    /// Replay traces of page touches by vswap's order of eviction and by others.
    Traces(traces::Options),
    /// Measure memory, operations, write amplification, demotion and scale.
    Numbers(numbers::Options),
    /// Measure stores of named objects beside files and foyer.
    Cache(cache::Options),
    /// Run programs in a directory that `vswap cache mount` shows and compare with a plain one; measure it.
    Mount(mount::Options),
    /// Build the static release.
    Dist,
}

fn main() -> ExitCode {
    match perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform() -> Result<()> {
    host::interrupt::catch()?;
    match Command::parse().task {
        Task::Layers => layers::run().and_then(|()| tidy::run()).and_then(|()| licences::run()),
        Task::SetupMachine(options) => setup::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Suite(options) => suite::run(&options),
        Task::Checker(options) => test::checker(&options),
        Task::Sim(options) => sim::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Deaths(options) => deaths::run(&options),
        Task::Peers(options) => peers::run(&options),
        Task::Swapoff(options) => swapoff::run(&options),
        Task::Family(options) => family::run(&options),
        Task::Reclaim(options) => reclaim::run(&options),
        Task::Traces(options) => traces::run(&options),
        Task::Numbers(options) => numbers::run(&options),
        Task::Cache(options) => cache::run(&options),
        Task::Mount(options) => mount::run(&options),
        Task::Dist => dist::run(),
    }
}
