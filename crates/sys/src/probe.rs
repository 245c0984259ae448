//! Trying out what the kernel allows, on scratch pages and scratch processes: what `vswap doctor` stands on.
//!
//! Each probe does the thing itself rather than ask for a version, in a forked child with a time limit, because a
//! probe that goes wrong hangs (a fault that nobody answers) or leaves a filter behind. Key types: [`Trial`], what
//! was tried and how it ended; [`Obstacle`], why it did not work.
//!
//! **Invariants:** the calling process is changed by no probe; no child outlives its probe; a child makes system
//! calls on memory of its own (and at most allocates a path), so forking is harmless even where other threads run.
//!
//! # Safety
//! The `unsafe` of the probes is in `probe/*`: `fork` (`probe/child.rs`), and single calls with live structures.

mod child;
mod faults;
mod notify;
mod peers;
mod process;

pub use child::{Obstacle, can_fork};
pub use faults::{Access, FaultTrial, userfaultfd_access, userfaultfd_by_call};
pub use notify::NotifyTrial;
pub use peers::PeerTrial;
pub use process::{OpenFiles, UNLIMITED, effective_capabilities, effective_user, kernel_release, open_files};

/// Something that can be tried.
pub trait Trial: Copy {
    /// Does it once, in a child, and says why it did not work.
    ///
    /// # Errors
    /// The [`Obstacle`].
    fn attempt(self) -> Result<(), Obstacle>;
}
