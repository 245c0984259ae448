//! The machine under the tasks: memory cgroups, child processes, temporary files, interruption.
//!
//! Whatever a task changes on the machine is held by a value whose `Drop` undoes it. Ctrl-C does not end this process: it ends
//! the running child (see [`interrupt`]), the task returns an error, and the values drop in the usual order.

pub mod cgroup;
pub mod interrupt;
pub mod job;
pub mod loop_device;
pub mod machine;
pub mod programs;
pub mod scratch;

use std::path::PathBuf;

/// The workspace's root.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or(manifest.clone(), PathBuf::from)
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Bytes as people read them.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
