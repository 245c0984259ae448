//! A simulation of the whole engine against a map of what every page must be:
//! `cargo xtask sim --seed S --ops N`. See `world.rs`.
//!
//! Acts come in episodes, each with an engine of its own; a seed gives the same acts, faults and interleavings each time. When one
//! fails, acts are left out for as long as it still fails, and the line that replays it is printed.

mod acts;
mod deeds;
mod disk;
mod episode;
mod random;
mod table;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut seed = 1;
    let mut ops = 1_000_000;
    let mut only = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse::<u64>().ok());
        match (name.as_str(), value) {
            ("--seed", Some(value)) => seed = value,
            ("--ops", Some(value)) => ops = value,
            ("--episode", Some(value)) => only = Some(value),
            _ => {
                eprintln!("usage: sim [--seed S] [--ops N] [--episode E]");
                return ExitCode::from(2);
            }
        }
    }
    match episode::run(seed, ops, only) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
