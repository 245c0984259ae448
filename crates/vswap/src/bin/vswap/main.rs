//! The `vswap` command.
//!
//! This package's binary only reads the command line, calls the crates that do the work, and turns their answers into
//! words and exit codes. Exit codes are those of `env`: 125 for an error of vswap itself, bad usage included; 126 and
//! 127 for a program that cannot be executed or found; else the program's. vswap's own words go to standard error,
//! each line with the prefix `vswap: `.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!(
    "vswap run needs Linux on x86-64: it speaks userfaultfd, seccomp and ptrace, and its stub is x86-64 code. \
     Build the library alone with --no-default-features."
);

mod args;
mod cache;
mod control;
mod doctor;
mod groups;
mod man;
#[cfg(feature = "mount")]
mod mount;
mod run;
mod say;
mod setup;
mod size;
mod table;

use std::process::ExitCode;

use clap::Parser;
use dlmalloc::GlobalDlmalloc;
use vswap_sys::large::Large;

use args::{Cli, Command};

/// vswap's own errors, as `env` has them.
pub const EXIT_OWN_ERROR: u8 = 125;

/// The C library's maps and unmaps each size by itself, a fifth of the time that a small program is held up (musl); dlmalloc fills with zeroes what is zeroed, so large buffers of which little is used are not its.
#[global_allocator]
static ALLOCATOR: Large<GlobalDlmalloc> = Large(GlobalDlmalloc);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return say::usage(&error),
    };
    match cli.command {
        Command::Doctor(args) => doctor::doctor(args),
        Command::Man { directory } => man::man(&directory),
        Command::Setup(args) => setup::setup(args),
        Command::Run(args) => run::run(args),
        Command::Status(args) => control::status(&args),
        Command::Tier(args) => match args.check() {
            Ok(()) => control::tier(&args.action),
            Err(error) => say::usage(&error),
        },
        Command::Tiers(args) => control::tiers(&args),
        Command::Groups(args) => groups::groups(&args),
        Command::Cache(args) => cache::cache(&args.action),
        Command::Set(args) => groups::set(&args),
    }
}
