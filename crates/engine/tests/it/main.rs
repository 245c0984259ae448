//! Integration tests of the engine: against a map, and under concurrent writeback.
mod comeback;
mod demotion;
mod durable;
mod flaky;
mod groups;
mod kinds;
mod limits;
mod model;
mod pages;
mod raw;
mod rig;
mod segments;
mod stress;
mod tiers;
