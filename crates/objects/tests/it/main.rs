//! Integration tests of objects: against a map of bytes, where there is no room, on tiers.
#[cfg(feature = "async")]
mod asynchronous;
mod damage;
mod fetch;
mod giving;
mod kills;
mod lending;
mod model;
mod named;
mod power;
mod room;
mod tiers;

use std::sync::Arc;
use vswap_core::GroupId;
use vswap_engine::{Engine, EngineConfig};
use vswap_objects::Objects;

/// Bytes by a number: noise, or a pattern, or a bit of both.
pub fn bytes(number: u64, length: usize) -> Vec<u8> {
    let mut state = number;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    match number % 4 {
        0 => vec![number as u8; length],
        1 => (0..length).map(|at| (at / 64) as u8).collect(),
        _ => (0..length).map(|_| next()).collect(),
    }
}

/// An engine, and objects in it.
pub fn objects(config: EngineConfig) -> (Arc<Engine>, Arc<Objects>) {
    let engine = Engine::new(EngineConfig { lean: true, ..config }).unwrap();
    (Arc::clone(&engine), Objects::new(engine, GroupId::ROOT).unwrap())
}

/// Nobody has anything any more.
pub fn finish(engine: &Engine, objects: Arc<Objects>) {
    drop(objects);
    let stats = engine.stats();
    assert_eq!((stats.pool_pages.get(), stats.segment_pages.get(), stats.clusters), (0, 0, 0));
    engine.audit_groups().and(engine.audit_tiers()).unwrap();
}
