//! Stub.
use anyhow::Result;
/// Options.
#[derive(clap::Args)]
pub struct Options {}
/// Run.
pub fn run(_: &Options) -> Result<()> {
    Ok(())
}
