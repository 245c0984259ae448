//! Processes that have a store are killed, one after the other, and the store is looked at each time: the test `kills`, for as long as it is wanted.
//!
//!     cargo xtask deaths --of stores --n 1000

use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

#[path = "../tests/it/kills/mod.rs"]
mod kills;

#[derive(Parser)]
struct Options {
    /// What moments and operations come from
    #[arg(long)]
    seed: u64,
    /// How many processes
    #[arg(long, default_value_t = 200)]
    times: u64,
    /// Be the process that is killed, with the store in this directory
    #[arg(long, hide = true)]
    victim: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(dir) = options.victim {
        kills::victim(&dir, options.seed);
    }
    let myself = match std::env::current_exe() {
        Ok(myself) => myself,
        Err(error) => {
            eprintln!("cannot find this program: {error}");
            return ExitCode::FAILURE;
        }
    };
    let start = |dir: &Path, seed: u64| {
        let mut command = Command::new(&myself);
        command.arg("--victim").arg(dir).args(["--seed", &seed.to_string()]);
        command
    };
    match kills::play(options.seed, options.times, &start) {
        Ok(figures) => {
            println!("seed {}: {figures}; all right", options.seed);
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}
