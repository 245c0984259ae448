//! The command as its users call it: the built binary, its words and its exit codes.

mod bad_usage;
mod cache;
mod control_of_a_region;
mod doctor;
mod encrypt;
mod groups;
mod help;
mod lost;
mod mount;
mod reclaim;
mod record;
mod region;
mod run_like_plain;
mod run_refused;
mod setup;
mod shared;
mod snapshot;
mod tiers;
mod vswap;
