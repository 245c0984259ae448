//! `vswap run`: the options become a [`RunConfig`], the outcome an exit code or a death by the same signal.

use std::process::ExitCode;

use vswap_core::ByteCount;
use vswap_run::{Codec, DiskRoom, ExitOutcome, Full, RunConfig};

use crate::args::{self, RunArgs};

/// The configuration that the options ask for.
fn config(args: RunArgs) -> RunConfig {
    RunConfig {
        memory: ByteCount::new(args.memory),
        disk: match args.disk {
            None => DiskRoom::Spare,
            Some(args::Disk::None) => DiskRoom::Nothing,
            Some(args::Disk::Bytes(bytes)) => DiskRoom::AtMost(ByteCount::new(bytes)),
        },
        disk_path: args.disk_path,
        codec: match args.codec {
            args::Codec::Auto => Codec::Auto,
            args::Codec::Lz4 => Codec::Lz4,
            args::Codec::Zstd => Codec::Zstd,
        },
        full: match args.full {
            args::Full::Grow => Full::Grow,
            args::Full::Kill => Full::Kill,
        },
        stats: args.stats,
        stats_json: args.stats_json,
        wait_all: args.wait_all,
        program: args.program,
    }
}

/// Runs the command.
pub fn run(args: RunArgs) -> ExitCode {
    match vswap_run::run(&config(args)) {
        ExitOutcome::Code(code) => ExitCode::from(code),
        ExitOutcome::Signal(signal) => vswap_sys::inherited::end_by_signal(signal),
    }
}
