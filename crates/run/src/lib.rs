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
//! - [`open_record`]: whether it could be recorded, asked before it.
//! - [`inject`]: a stub in a standing program, by itself.

mod adopt;
mod births;
mod census;
mod config;
mod control;
mod disk;
mod engine;
mod front;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod grow;
mod inject;
mod keeper;
mod log;
mod message;
mod record;
mod report;
mod rouse;
mod rules;
mod sample;
mod supervisor;
mod threads;
mod tree;

pub use config::{
    Codec, DiskRoom, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_VSWAP, ExitOutcome, Full, HugePages,
    RunConfig, TierPlace,
};
pub use inject::{Gifts, InjectError, Stub, inject};
pub use record::open_record;
pub use vswap_engine::TierKind;

use std::io;

use vswap_sys::birth::{self, Arguments, Fork};
use vswap_sys::{process, scm, signal};

use census::Census;
use engine::Ends;
use front::Ears;
use keeper::{Errand, Keeper};

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
    let census = Census::new().map_err(failed("shared memory"))?;
    let ((engine, front_end), (program_end, listener), (news, told)) = (pair()?, pair()?, pair()?);
    let mark = process::random().map_err(failed("getrandom"))?;
    // Made before there are several processes, each of which has to get its pages again.
    let program = Arguments::new(&config.program).map_err(failed("the program's arguments"))?;
    let errand = Errand { program, filter: rules::filter(mark), engine: listener, front: told };
    // Whoever is the program's parent wants to hear of its end, even if it was started by somebody who did not.
    signal::reset(signal::SIGCHLD);
    let has_keeper = config.keeper || keeper::is_needed();
    let ends = Ends { front: front_end, program: program_end };
    let group = process::group();
    // What is sent to us from here on is passed on. Nothing that is meant for all of our group stops an engine that leaves it.
    let signals = Ears::signals().map_err(failed("watching signals"))?;
    match birth::fork().map_err(failed("starting the engine"))? {
        Fork::Child => {
            drop((engine, news, signals));
            let keeper = has_keeper.then_some(Keeper { errand, group });
            engine::run(config, ends, mark, census, keeper)
        }
        Fork::Parent(_) => drop(ends),
    }
    let child = if has_keeper {
        None
    } else {
        match birth::fork().map_err(failed("starting a process"))? {
            Fork::Child => {
                drop((engine, news, signals));
                keeper::become_program(&errand)
            }
            Fork::Parent(pid) => Some(pid),
        }
    };
    drop(errand);
    front::mirror(config, &census, Ears { engine, news, signals }, child).map_err(failed("watching signals"))
}
