//! Ctrl-C, SIGTERM and SIGHUP as a flag that the tasks look at, so that machine settings are restored by ordinary drops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on the signals only set the flag.
pub fn catch() -> Result<()> {
    let flag = FLAG.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag)).context("cannot catch signals")?;
    }
    Ok(())
}

/// Whether somebody wants us to stop. Relaxed: nothing else is published by the flag.
pub fn asked() -> bool {
    FLAG.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// An error once somebody wants us to stop.
pub fn check() -> Result<()> {
    if asked() {
        bail!("interrupted; every setting is being restored");
    }
    Ok(())
}
