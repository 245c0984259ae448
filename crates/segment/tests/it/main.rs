//! Segments against a storage that breaks in every way, against a reference model, and on a real disk.

mod corruption;
mod disk;
mod faults;
mod model;
mod races;
mod round_trip;
mod support;
mod tiers;
