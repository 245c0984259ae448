//! The stub: the one hand of vswap inside a managed program.
//!
//! Moving pages out of an address space (`UFFDIO_MOVE`) and discarding them (`MADV_DONTNEED`) can only
//! be done from within it. So a thread with its own descriptor table lives in each managed program and does
//! what the supervisor writes into a ring in shared memory, in order, one command at a time.
//!
//! - [`protocol`]: the ring and its commands, shared by both sides.
//! - [`image`]: the stub as machine code, and where it starts. Its root, `image/main.rs`, is compiled by the build
//!   script; [`start`] is what the injector leaves for it.
//! - [`logic`]: what a command does, over a [`logic::Kernel`] that a test can replace.
//!
//! **Architecture invariant:** the stub keeps no state worth keeping. It decides nothing; what it found is in the
//! result of the command, and what really lies in staging is read by the supervisor from the page map.
#![cfg_attr(not(test), no_std)]

pub mod image;
pub mod logic;
pub mod protocol;
pub mod start;
