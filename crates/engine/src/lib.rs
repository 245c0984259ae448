//! Space, slots and backings: where the bytes are, under a stable slot.
//!
//! - [`Engine`] keeps the virtual swap space and moves pages between backings.
//! - [`OwnerBlock`] is what an owner remembers for 2 MiB of itself.
//! - [`Scratch`] holds one thread's buffers and codec contexts.

mod config;
mod error;
mod owner;
mod simple;
mod stats;

pub use config::{CodecChoice, DiskConfig, EngineConfig};
pub use error::{EngineError, LoadError, StoreError, WritebackError};
pub use owner::OwnerBlock;
pub use simple::{Engine, Scratch};
pub use stats::{BackingKind, EngineStats, LoadedFrom, StoredAs, WritebackReport};
