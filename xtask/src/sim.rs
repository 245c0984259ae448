//! `cargo xtask sim`: the simulation of the whole engine (`crates/engine/examples/sim`), or of stores on disks that lose power (`crates/objects/examples/stores.rs`), on several processors.

use std::process::{Child, Command, Stdio};

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::host::root;

/// What is simulated.
#[derive(Clone, Copy, ValueEnum)]
enum Of {
    /// The engine.
    Engine,
    /// Stores of named objects.
    Stores,
}

/// What `cargo xtask sim` takes.
#[derive(Args)]
pub struct Options {
    /// What is simulated.
    #[arg(long, value_enum, default_value_t = Of::Engine)]
    of: Of,
    /// The first seed; each process has one of its own.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Operations, of all processes together.
    #[arg(long, default_value_t = 10_000_000)]
    ops: u64,
    /// Processes.
    #[arg(long, default_value_t = 2)]
    processes: u64,
    /// One episode of the seed only: what a failure says.
    #[arg(long)]
    episode: Option<u64>,
}

/// Builds it and runs it.
pub fn run(options: &Options) -> Result<()> {
    let (package, example) = match options.of {
        Of::Engine => ("vswap-engine", "sim"),
        Of::Stores => ("vswap-objects", "stores"),
    };
    let build = ["build", "--quiet", "--profile", "sim", "--package", package, "--example", example];
    let built = Command::new("cargo").current_dir(root()).args(build).status()?;
    ensure!(built.success(), "the simulation does not build");
    let metadata = cargo_metadata::MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let program = metadata.target_directory.join("sim/examples").join(example);
    let processes = if options.episode.is_some() { 1 } else { options.processes.max(1) };
    let start = |number: u64| -> Result<(u64, Child)> {
        let seed = options.seed + number;
        let mut command = Command::new(&program);
        command.args(["--seed", &seed.to_string(), "--ops", &(options.ops / processes).to_string()]);
        if let Some(episode) = options.episode {
            command.args(["--episode", &episode.to_string()]);
        }
        Ok((seed, command.stdin(Stdio::null()).spawn()?))
    };
    let running: Vec<_> = (0..processes).map(start).collect::<Result<_>>()?;
    let mut failed = Vec::new();
    for (seed, mut child) in running {
        if !child.wait()?.success() {
            failed.push(seed.to_string());
        }
    }
    if !failed.is_empty() {
        bail!("the simulation failed, of seed {}", failed.join(", "));
    }
    Ok(())
}
