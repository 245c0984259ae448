//! Programs with a stub, and whole runs. Each test is named for what went wrong, or would.

mod endings;
mod forks;
mod inject;
mod leftovers;
mod namespaces;
mod ordinary;
mod programs;
mod refusals;
mod signals;
mod traps;
