//! Segments against a storage that breaks in every way, against a reference model, and on a real disk.

mod classes;
mod corruption;
mod disk;
mod encrypted;
mod faults;
mod loan;
mod model;
mod races;
mod round_trip;
mod support;
mod tiers;

/// Those of the tests whose pages are in the clear. `encrypted` has its own, and runs the same files.
fn keys() -> vswap_segment::Keys {
    support::KEY.into()
}
