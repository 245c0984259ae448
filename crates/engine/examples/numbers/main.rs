//! The figures of docs/numbers.md, one part at a time: `cargo run --release -p vswap-engine --example numbers -- PART [ARGUMENTS]`.
//! Prints a line of JSON for each measurement. `cargo xtask numbers` runs all parts, each in a process of its own.
mod churn;
mod common;
mod demotion;
mod memory;
mod operations;
mod scale;

use common::Failure;
use std::path::Path;

const USAGE: &str = "usage: numbers PART
  memory space 0 0               what 1 TiB that nobody uses costs
  memory disk|pool COUNT NOISE   what so many slots on a tier or pages in the pool cost, of NOISE bytes that do not compress
  operations SECONDS             look-up, store and load at 1 and 2 threads
  churn uniform|zipf FULL SEGMENTS PART
                                 write amplification with FULL percent of a tier alive, below a pool of a PART-th of it
  demotion DIR MIB               writeback and removal of a tier beside the device, faults meanwhile
  scale SLOTS SECONDS            policy on so many slots";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["memory", what, count, noise] => memory::run(what, count.parse()?, noise.parse()?),
        ["operations", seconds] => operations::run(seconds.parse()?),
        ["churn", how, full, segments, part] => {
            churn::run(how, full.parse()?, segments.parse()?, part.parse()?)
        }
        ["demotion", dir, mib] => demotion::run(Path::new(dir), mib.parse()?),
        ["scale", slots, seconds] => scale::run(slots.parse()?, seconds.parse()?),
        _ => Err(USAGE.into()),
    }
}
