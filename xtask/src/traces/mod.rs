//! `cargo xtask traces`: how many touches of traces find their page in memory, by vswap's order and by others.

mod generate;
mod own;
mod peers;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};

use crate::host::root;
use generate::{PAGES, Trace};
use own::Own;
use peers::{Clock, Lru, Optimum, Order, S3Fifo};

/// Percent of the pages of a trace for which there is memory.
const PERCENT: [usize; 4] = [10, 25, 50, 75];
const INTRODUCTION: &str = "# Hit ratios on traces

Written by `cargo xtask traces`; the same everywhere, since the traces are made and nothing is timed.

Percent of all touches that find their page in memory, with memory for so many percent of the pages of the trace; the first touch of each page counts as a
miss. LRU, CLOCK, S3-FIFO and the optimum (Belady's, which knows the future) see every touch. vswap sees faults alone: its column is the
code of the pager (`vswap_core::heat`) on blocks of 512 pages, with what is staged to be taken back (which counts as a hit, though it costs a
fault) and a 64th of the memory kept free. Not modelled: reading ahead, several evictors, the pool.

";

#[derive(clap::Args)]
pub struct Options {
    /// Print the table and leave docs/traces.md as it is
    #[arg(long)]
    dry: bool,
}

/// Hit ratios in percent.
struct Row {
    percent: usize,
    lru: f64,
    clock: f64,
    s3fifo: f64,
    own: f64,
    optimum: f64,
}

/// Replays all and writes the table.
pub fn run(options: &Options) -> Result<()> {
    let mut text = String::from(INTRODUCTION);
    text += "| trace | memory | LRU | CLOCK | S3-FIFO | vswap | optimum |\n| --- | --: | --: | --: | --: | --: | --: |\n";
    let traces = generate::all();
    for trace in &traces {
        for row in rows(trace) {
            let Row { percent, lru, clock, s3fifo, own, optimum } = row;
            writeln!(
                text,
                "| {} | {percent} % | {lru:.1} | {clock:.1} | {s3fifo:.1} | {own:.1} | {optimum:.1} |",
                trace.name
            )?;
        }
    }
    text += "\n";
    for trace in &traces {
        let (touches, pages) = (trace.touches.len(), trace.footprint());
        writeln!(text, "- *{}*: {}; {touches} touches of {pages} pages.", trace.name, trace.what)?;
    }
    print!("{text}");
    if options.dry {
        return Ok(());
    }
    let path = root().join("docs/traces.md");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn rows(trace: &Trace) -> Vec<Row> {
    let footprint = trace.footprint();
    let row = |percent| {
        let room = footprint * percent / 100;
        let ratio = |mut order: Box<dyn Order>| {
            let hits = trace.touches.iter().filter(|page| order.hits(**page)).count();
            hits as f64 * 100.0 / trace.touches.len() as f64
        };
        Row {
            percent,
            lru: ratio(Box::new(Lru::new(room))),
            clock: ratio(Box::new(Clock::new(room))),
            s3fifo: ratio(Box::new(S3Fifo::new(room))),
            own: ratio(Box::new(Own::new(room, PAGES))),
            optimum: ratio(Box::new(Optimum::new(room, &trace.touches))),
        }
    };
    PERCENT.into_iter().map(row).collect()
}
