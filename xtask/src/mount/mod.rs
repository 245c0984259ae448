//! `cargo xtask mount`: programs in a directory that `vswap cache mount` shows say what they say in a plain one, and leave the same; how fast that is.
//!
//! Each program works in a plain directory and in a mount, and is asked again what it finds: in both, in the mount after the page cache was dropped and after
//! another mount, and in the source itself. With `--figures` times are measured instead, beside the file system below and a source of so many milliseconds a call.

mod figures;
mod place;
mod posix;
mod programs;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::dist;
use crate::host::interrupt;

/// What it takes.
#[derive(Args)]
pub struct Options {
    /// Only programs or figures whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Measure, and write the report there as mount.md and mount.json.
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
    /// How often each figure is measured, in turn with the others.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// What is to be said above the table, of the circumstances.
    #[arg(long)]
    note: Option<String>,
    /// The `vswap` to test.
    #[arg(long)]
    vswap: Option<PathBuf>,
    /// More options for `vswap cache mount`, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    options: String,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    fn words(&self) -> Vec<&str> {
        self.options.split_whitespace().collect()
    }
}

/// Runs it; an error when one program finds something else than in a plain directory.
pub fn run(options: &Options) -> Result<()> {
    let vswap = dist::vswap(options.vswap.as_deref())?;
    if let Some(out) = &options.figures {
        return figures::run(options, &vswap, out);
    }
    let (mut bad, mut ran) = (Vec::new(), 0);
    for name in programs::NAMES.iter().chain([&posix::NAME]).filter(|name| options.wants(name)) {
        interrupt::check()?;
        let found = match *name {
            posix::NAME => posix::differences(&vswap, &options.words()),
            name => programs::differences(&vswap, name, &options.words()),
        };
        let found = found?;
        println!("{name:<10} {}", if found.is_empty() { "same" } else { "DIFFERS" });
        for difference in &found {
            println!("    {}", difference.replace('\n', "\n    "));
        }
        ran += 1;
        if !found.is_empty() {
            bad.push(*name);
        }
    }
    if !bad.is_empty() {
        bail!("{} of {ran} differ from a plain directory: {}", bad.len(), bad.join(", "));
    }
    println!("{ran} programs: the same as in a plain directory");
    Ok(())
}
