//! `cargo xtask traces`: how many touches of traces, made and recorded, find their page in memory, by vswap's order and by others.

mod generate;
mod own;
mod peers;
mod recorded;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::host::root;
use generate::Trace;
use own::Own;
use peers::{Clock, Fifo, Lru, Optimum, Order, S3Fifo};

/// Percent of the pages of a trace for which there is memory.
const PERCENT: [usize; 4] = [10, 25, 50, 75];
const INTRODUCTION: &str = "# Hit ratios on traces

Written by `cargo xtask traces`; the same everywhere, since nothing is timed: the traces are made, or were recorded once.

Percent of all touches that find their page in memory, with memory for so many percent of the pages of the trace; the first touch of each page counts as a
miss. LRU, CLOCK, S3-FIFO and the optimum (Belady's, which knows the future) see every touch. FIFO needs none, and vswap sees faults alone: its column is the
code of the pager (`vswap_core::heat`, `insertion` and `trail`) on blocks of 512 pages, with what is staged to be taken back (which counts as a hit, though it costs a
fault) and a 64th of the memory kept free. Not modelled: reading ahead, several evictors, the pool.

What a program reads on through, page after page, passes by: it goes again before anything else, but for one block in 32. So a scan does not flush the working set
(*scan* and *mixed*, with memory for a quarter and more), and of a loop over more than the memory much of what fits stays. Where what was there is dead the pages that are read through must push it out (*turns*): while they come back and
what had to go does not, all of them are kept. Without that *turns* would hit 34 % with memory for a quarter, and 51 % with memory for half; with memory for three quarters it is 5 points below LRU all the same, and sqlite
2 below what it was when nothing passed by. All that passes by in a block goes at once here; the pager takes no more than a 64th of the memory from a block at a time, so with less than 128 MiB a little more of the rest goes in between.

";

const RECORDED: &str = "
## Recorded from real programs

What `vswap run --record` saw of real programs (`cargo xtask traces record` makes them anew; bench/traces). **Such a trace is filtered by the memory that it was recorded
with**: a touch of a page that was in memory then is no fault and is not there. So the limits were as tight as the programs could bear; a hit here is a touch that missed
in that little memory and would have found its page in more of it, the ratios are lower than those of all touches would be, and where memory is hardly more than
was there at the recording (mostly the line of 10 %) they say little. What was out of memory then was chosen by vswap's own order, which may help or harm any of these. Pages that a program
gives back are not in the record: a page touched for the first time again counts as any other touch, for every order.

With memory for half and more vswap lies between FIFO and CLOCK on most of these, as it does on Zipf: within 2.6 points of CLOCK, but 4.5 below it on redis and 3.4 on sqlite. With memory for a quarter it is up to 5 above CLOCK (sort,
sqlite) and up to 7 below (compile, redis). What is missing is what only an accessed bit tells, that a page is still in use before it goes. With memory for a tenth S3-FIFO is 7 to 21 points above vswap, CLOCK and LRU alike: most of what
comes in is not asked for again there, and it lets that go first. Its like here, that a page which comes back late is not spared once (`Back::Late` in `heat.rs`), was tried on all of these: with memory for a tenth it wins 5 points
on redis and sort, 4 on python and 1.3 on Zipf; it loses up to 1 on phases and compile, and 1 to 5 on turns. But real Zipf touches took 1.04 as long with it and random reads 1.04 (medians of 7 pairs of runs; 0.91 to 1.97 and 0.63 to 1.13). Other numbers of
passes, two ranks at once or other lengths of a term change little. So the order was left as it is.

";

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print the table and leave docs/traces.md as it is
    #[arg(long)]
    dry: bool,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Record the faults of real programs anew, to bench/traces
    Record {
        /// Programs to record: python, compile, sort, redis, sqlite [default: all]
        programs: Vec<String>,
        /// The `vswap` to record with [default: a release of this tree]
        #[arg(long)]
        vswap: Option<PathBuf>,
    },
}

/// Hit ratios in percent.
struct Row {
    percent: usize,
    fifo: f64,
    lru: f64,
    clock: f64,
    s3fifo: f64,
    own: f64,
    optimum: f64,
}

/// Records, or replays all and writes the tables.
pub fn run(options: &Options) -> Result<()> {
    if let Some(Action::Record { programs, vswap }) = &options.action {
        return recorded::record(programs, vswap.as_deref());
    }
    let mut text = String::from(INTRODUCTION);
    table(&mut text, &generate::all())?;
    text += RECORDED;
    table(&mut text, &recorded::all()?)?;
    print!("{text}");
    if options.dry {
        return Ok(());
    }
    let path = root().join("docs/traces.md");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn table(text: &mut String, traces: &[Trace]) -> Result<()> {
    *text += "| trace | memory | FIFO | LRU | CLOCK | S3-FIFO | vswap | optimum |\n| --- | --: | --: | --: | --: | --: | --: | --: |\n";
    for trace in traces {
        for row in rows(trace) {
            let Row { percent, fifo, lru, clock, s3fifo, own, optimum } = row;
            writeln!(
                text,
                "| {} | {percent} % | {fifo:.1} | {lru:.1} | {clock:.1} | {s3fifo:.1} | {own:.1} | {optimum:.1} |",
                trace.name
            )?;
        }
    }
    *text += "\n";
    for trace in traces {
        let (touches, pages) = (trace.touches.len(), trace.footprint());
        writeln!(text, "- *{}*: {}; {touches} touches of {pages} pages.", trace.name, trace.what)?;
    }
    Ok(())
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
            fifo: ratio(Box::new(Fifo::new(room))),
            lru: ratio(Box::new(Lru::new(room))),
            clock: ratio(Box::new(Clock::new(room))),
            s3fifo: ratio(Box::new(S3Fifo::new(room))),
            own: ratio(Box::new(Own::new(room, trace.pages))),
            optimum: ratio(Box::new(Optimum::new(room, &trace.touches))),
        }
    };
    PERCENT.into_iter().map(row).collect()
}
