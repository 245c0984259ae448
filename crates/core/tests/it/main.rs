//! Integration tests of the core: everything against a simple model.
#[cfg(not(loom))]
mod age;
#[cfg(not(loom))]
mod bitmap;
#[cfg(loom)]
mod bytes;
#[cfg(loom)]
mod charges;
#[cfg(not(loom))]
mod group;
#[cfg(not(loom))]
mod matrix;
#[cfg(loom)]
mod owners;
#[cfg(loom)]
mod pairs;
#[cfg(loom)]
mod races;
#[cfg(not(loom))]
mod recording;
#[cfg(loom)]
mod seen;
#[cfg(not(loom))]
mod slot;
mod transitions;

/// How many cases a property is tried on: few under Miri, which is slow.
#[cfg(not(loom))]
fn cases(count: u32) -> proptest::prelude::ProptestConfig {
    proptest::prelude::ProptestConfig {
        failure_persistence: None,
        ..proptest::prelude::ProptestConfig::with_cases(if cfg!(miri) { 2 } else { count })
    }
}
