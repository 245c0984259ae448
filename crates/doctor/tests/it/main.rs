//! The doctor on the machine at hand, whatever that is.

mod report;
mod setup;
