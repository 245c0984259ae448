//! The one crate with kernel-ABI unsafe: userfaultfd, seccomp, ptrace, pidfd, mappings, direct I/O.
//!
//! **Architecture invariant:** nothing above this crate (but the freestanding stub) contains `unsafe`; nothing here
//! knows of slots, pages' owners or limits.

pub mod atomics;
pub mod birth;
pub mod call;
pub mod direct;
pub mod futex;
pub mod inherited;
pub mod large;
pub mod locked;
pub mod mapping;
pub mod pagemap;
pub mod pidfd;
pub mod poll;
pub mod probe;
pub mod process;
pub mod procvm;
pub mod ptrace;
pub mod sched;
pub mod scm;
pub mod seccomp;
pub mod signal;
pub mod staging;
pub mod uffd;
