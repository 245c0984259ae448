//! The supervisor of vswap run: seccomp notifications, stubs, exec, fork, exit.
//!
//! # Processes
//! What the user starts is the *front*, which looks like the program to its shell. It forks the *engine*, where pages
//! are kept and calls are attended to; the engine forks the *keeper*, the parent of the *program*. The program and all
//! that it starts live under a seccomp filter that has the engine asked before some of their calls, and those that grow
//! have a stub, a thread of ours inside.
//!
//! Whoever of them dies, nothing is left: stubs end their programs when the engine is gone, keeper and front end what
//! the census lists, the engine ends the tree when the front is gone.
//!
//! - [`run`]: a whole run.
//! - [`inject`]: a stub in a standing program, by itself.

mod adopt;
mod births;
mod census;
mod config;
mod disk;
mod engine;
mod front;
mod grow;
mod inject;
mod keeper;
mod log;
mod message;
mod report;
mod rouse;
mod rules;
mod sample;
mod supervisor;
mod threads;
mod tree;

pub use config::{
    Codec, DiskRoom, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_VSWAP, ExitOutcome, Full, HugePages, RunConfig,
};
pub use inject::{Gifts, InjectError, Stub, inject};

use std::io;

use vswap_sys::birth::{self, Arguments, Fork};
use vswap_sys::{process, scm};

use keeper::Errand;

/// Runs a program and tells how it ended. The calling process must have one thread; it is changed (signals blocked)
/// and should end as it is told.
pub fn run(config: &RunConfig) -> ExitOutcome {
    match start(config) {
        Ok(outcome) => outcome,
        Err(Failure(what, error)) => {
            front::say(&format!("{what}: {error}"));
            ExitOutcome::Code(EXIT_VSWAP)
        }
    }
}

/// What could not be done, before there was an engine.
struct Failure(&'static str, io::Error);

fn start(config: &RunConfig) -> Result<ExitOutcome, Failure> {
    let failed = |what: &'static str| move |error: io::Error| Failure(what, error);
    let census = census::Census::new().map_err(failed("shared memory"))?;
    let (engine, engine_end) = scm::pair().map_err(failed("a socket"))?;
    let (news, news_end) = scm::pair().map_err(failed("a socket"))?;
    let mark = process::random().map_err(failed("getrandom"))?;
    // Made before there are three processes, each of which has to get its pages again.
    let filter = rules::filter(mark);
    let program = Arguments::new(&config.program).map_err(failed("the program's arguments"))?;
    match birth::fork().map_err(failed("starting the engine"))? {
        Fork::Child => {
            drop((engine, news));
            let errand = Errand {
                program: &program,
                filter: &filter,
                group: process::group(),
                census,
                news: news_end,
            };
            engine::run(config, engine_end, mark, errand)
        }
        Fork::Parent(_) => {
            drop((engine_end, news_end));
            Ok(front::mirror(config, engine, news, &census))
        }
    }
}
