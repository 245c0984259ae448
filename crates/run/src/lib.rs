//! The supervisor of vswap run: seccomp notifications, stubs, exec, fork, exit.
//!
//! # Processes
//! What the user starts is the *front*, which looks like the program to its shell. It forks the *engine*, where pages
//! are kept and calls are attended to, and the *program* (where tracing is restricted, a *keeper* below the engine does). The
//! program and all that it starts live under a seccomp filter that has the engine asked before some of their calls, and those
//! that grow have a stub, a thread of ours inside.
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
use std::os::fd::AsFd;

use vswap_sys::birth::{self, Arguments, Fork};
use vswap_sys::{process, scm, signal};

use census::Census;
use engine::Ends;
use front::Parent;
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
    let pair = || scm::pair().map_err(failed("a socket"));
    let census = census::Census::new().map_err(failed("shared memory"))?;
    let (engine, engine_end) = pair()?;
    let (listener, listener_end) = pair()?;
    let mark = process::random().map_err(failed("getrandom"))?;
    // Made before there are several processes, each of which has to get its pages again.
    let errand = Errand {
        program: Arguments::new(&config.program).map_err(failed("the program's arguments"))?,
        filter: rules::filter(mark),
        group: process::group(),
        engine: listener_end,
    };
    // Whoever is the program's parent wants to hear of its end, even if it was started by somebody who did not.
    signal::reset(signal::SIGCHLD);
    if config.keeper || keeper::is_needed() {
        let (news, news_end) = pair()?;
        return match birth::fork().map_err(failed("starting the engine"))? {
            Fork::Child => {
                drop((engine, news));
                let start = |census: &Census| keeper::fork(&errand, census, news_end.as_fd());
                engine::run(config, Ends { front: engine_end, program: listener }, mark, census, Some(&start))
            }
            Fork::Parent(_) => {
                drop((engine_end, news_end, listener, errand));
                Ok(front::mirror(config, engine, Parent::Keeper(news), &census))
            }
        };
    }
    match birth::fork().map_err(failed("starting the engine"))? {
        Fork::Child => {
            drop((engine, errand));
            engine::run(config, Ends { front: engine_end, program: listener }, mark, census, None)
        }
        Fork::Parent(_) => {
            drop((engine_end, listener));
            let born = keeper::start(&errand).map_err(failed("starting a process"))?;
            drop(errand);
            Ok(front::mirror(config, engine, Parent::Front(born), &census))
        }
    }
}
