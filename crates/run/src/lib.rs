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

use vswap_sys::process::{self, Fork};

/// Runs a program and tells how it ended. The calling process must have one thread; it is changed (signals blocked)
/// and should end as it is told.
pub fn run(config: &RunConfig) -> ExitOutcome {
    let failed = |what: &str, error: std::io::Error| {
        front::say(&format!("{what}: {error}"));
        ExitOutcome::Code(EXIT_VSWAP)
    };
    let census = match census::Census::new() {
        Ok(census) => census,
        Err(error) => return failed("shared memory", error),
    };
    let (front_end, engine_end) = match vswap_sys::scm::pair() {
        Ok(pair) => pair,
        Err(error) => return failed("a socket", error),
    };
    let group = process::group();
    match process::fork() {
        Ok(Fork::Child) => {
            drop(front_end);
            engine::run(config, engine_end, census, group)
        }
        Ok(Fork::Parent(_)) => {
            drop(engine_end);
            front::mirror(config, front_end, &census)
        }
        Err(error) => failed("starting the engine", error),
    }
}
