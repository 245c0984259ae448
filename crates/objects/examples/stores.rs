//! Stores of named objects on disks that lose power, against a map of bytes: the model of the tests, for as long as it is wanted.
//!
//!     cargo xtask sim --of stores --ops 1000000
//!
//! Each episode begins with an empty store; one that fails is named, and `--episode` plays it alone.

use clap::Parser;
use std::panic::catch_unwind;
use std::process::ExitCode;

#[path = "../tests/it/power.rs"]
mod power;

/// Operations of an episode.
const STEPS: usize = 2000;

#[derive(Parser)]
struct Options {
    /// Together with an episode's number it tells what happens in it
    #[arg(long)]
    seed: u64,
    /// Operations in all
    #[arg(long)]
    ops: u64,
    /// This episode only
    #[arg(long)]
    episode: Option<u64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let many = options.ops.div_ceil(STEPS as u64);
    let episodes = options.episode.map_or(0..many, |one| one..one + 1);
    let (mut commits, mut cuts) = (0, 0);
    for episode in episodes.clone() {
        match catch_unwind(|| power::play(options.seed << 32 | episode, STEPS)) {
            Ok(done) => (commits, cuts) = (commits + done.0, cuts + done.1),
            Err(_) => {
                eprintln!(
                    "seed {}, episode {episode} failed: --episode {episode} plays it alone",
                    options.seed
                );
                return ExitCode::FAILURE;
            }
        }
    }
    let steps = (episodes.end - episodes.start) * STEPS as u64;
    println!(
        "seed {}: {steps} operations on stores, {commits} commits, {cuts} losses of power, all right",
        options.seed
    );
    ExitCode::SUCCESS
}
