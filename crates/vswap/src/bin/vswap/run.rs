//! `vswap run`: the options become a [`RunConfig`], the outcome an exit code or a death by the same signal.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use vswap_core::ByteCount;
use vswap_run::{Codec, DiskRoom, ExitOutcome, Full, HugePages, RunConfig, TierPlace};

use crate::EXIT_OWN_ERROR;
use crate::args::{self, RunArgs};
use crate::say;

/// What would only show in the middle of the run, or after it: said before anything is started.
fn cannot_begin(args: &RunArgs) -> Option<String> {
    if let Some(lack) = vswap_doctor::lack_of_access() {
        let remedy = lack.remedy.unwrap_or_default();
        return Some(format!(
            "no access to userfaultfd ({}), without which nothing can be evicted; what helps:\n{remedy}\n\
             vswap doctor says more",
            lack.found
        ));
    }
    // Neither truncated nor written yet: what an earlier run wrote stays if this one comes to nothing.
    let open: fn(&Path) -> io::Result<File> =
        |file| std::fs::OpenOptions::new().append(true).create(true).open(file);
    let files =
        [("--stats-json", &args.stats_json, open), ("--record", &args.record, vswap_run::open_record)];
    files.into_iter().find_map(|(option, file, open)| {
        let file = file.as_ref()?;
        let error = open(file).err()?;
        Some(format!("cannot write {option} {}: {error}; name a file that you may write", file.display()))
    })
}

fn place(tier: args::TierSpec) -> TierPlace {
    let args::TierSpec { path, kind, size, priority, force } = tier;
    let kind = kind.map(args::Kind::tier);
    TierPlace { path, kind, size: size.map(ByteCount::new), priority, force }
}

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
        tiers: args.tiers.into_iter().map(place).collect(),
        encrypt: args.encrypt == args::Encrypt::On,
        codec: match args.codec {
            args::Codec::Auto => Codec::Auto,
            args::Codec::Lz4 => Codec::Lz4,
            args::Codec::Zstd => Codec::Zstd,
        },
        huge_pages: match args.huge_pages {
            args::HugePages::Auto => HugePages::Auto,
            args::HugePages::On => HugePages::On,
            args::HugePages::Off => HugePages::Off,
        },
        full: match args.full {
            args::Full::Grow => Full::Grow,
            args::Full::Kill => Full::Kill,
        },
        stats: args.stats,
        stats_json: args.stats_json,
        reclaim: args.reclaim,
        reclaim_turn: args.reclaim_turn.map(|seconds| Duration::from_secs(seconds.into())),
        record: args.record,
        wait_all: args.wait_all,
        keeper: false,
        program: args.program,
    }
}

/// Runs the command.
pub fn run(args: RunArgs) -> ExitCode {
    if let Some(words) = cannot_begin(&args) {
        say::say(words);
        return ExitCode::from(EXIT_OWN_ERROR);
    }
    match vswap_run::run(&config(args)) {
        ExitOutcome::Code(code) => ExitCode::from(code),
        ExitOutcome::Signal(signal) => vswap_sys::inherited::end_by_signal(signal),
    }
}
