//! What this machine allows, and the one-time remedy for what it does not.
//!
//! [`examine`] tries everything that `vswap run` uses and gives a [`Report`] of [`Check`]s, which prints itself as a
//! table or as JSON. [`setup`] is the one remedy that needs root: access to `/dev/userfaultfd` for a group.
//!
//! **Invariants:** features are tried, versions are only shown; a check that is not [`Verdict::Good`] says what it
//! means; one that is [`Verdict::Fails`] also names a remedy; `run` works exactly if nothing fails
//! ([`Report::run_works`]). Nothing here needs root, and nothing is changed but by [`setup`].

mod check;
mod checks;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod json;
pub mod setup;
mod table;

pub use check::{Check, Report, Verdict};
pub use checks::{LEAST_KERNEL, Request, examine, lack_of_access};
