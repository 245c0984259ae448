//! The supervisor of vswap run: seccomp notifications, stubs, exec, fork, exit.

mod config;
mod inject;

pub use config::{
    Codec, DiskRoom, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_VSWAP, ExitOutcome, Full, RunConfig,
};
pub use inject::{Gifts, InjectError, Stub, inject};
