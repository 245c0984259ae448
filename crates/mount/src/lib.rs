//! A slow directory, shown by way of a store of named objects: a FUSE file system.
//!
//! [`serve`] mounts a *source* (a network mount, a spinning disk) somewhere else. What is read there is fetched block by block, and kept; what is written goes to the
//! source and into the store; every other operation is passed on. While the source answers, nothing is shown that it has changed longer than the *ttl* ago; while it
//! does not, what is in the store is shown.
//!
//! - `source.rs` walks paths below the source's directory; `fault.rs` tells a source that refuses from one that is gone.
//! - `inodes.rs`: what the kernel knows, and where it was seen; `handles.rs`: what programs have open.
//! - `stamp.rs` and `content.rs`: which bytes are still the file's; `reading.rs`: reads; `listing.rs` and `listings.rs`: names and attributes, also for when the source is gone; `belief.rs`: how long what was seen is told without asking; `ahead.rs`: several looks at once.
//! - `lines.rs`: names in the order in which they are told; `notices.rs`: what the kernel is told to forget; `plain.rs`: files that it reads by itself.
//! - `files.rs`, `attributes.rs`, `names.rs`, `dirs.rs`: the operations; `kernel.rs`: the same as the kernel asks for them; `session.rs`: beginning and end.
//!
//! # Invariants
//! - Bytes that are kept are shown only for a file of the stamp that is beside them: identity, length, time of the last change of content and of anything.
//! - What was seen longer than the ttl ago is not told, and what was seen before a change through the mount ended not at all (`belief.rs`).
//! - What is written is in the source before it is in the store; an object that is being changed has no stamp, so a crash leaves none that is wrong.
//! - A store that is full or fails makes things slower, never wrong, and no operation fail.
//!
//! # Lock order
//! An inode's state, then the table of inodes, an inode's places, the map of listings, a listing, the table of plain copies; the store's come last. No lock but an inode's state is held while the source is asked. Those of snapshots of listings, of what the kernel was told of a directory, and of a copy's parts are held alone, but for a copy's stamp: see `plain.rs`.
#![forbid(unsafe_code)]

mod ahead;
mod attr;
mod attributes;
mod belief;
mod content;
mod dirs;
mod error;
mod fault;
mod files;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod handles;
mod inodes;
mod kernel;
mod lines;
mod listing;
mod listings;
mod names;
mod notices;
mod plain;
mod reading;
mod session;
mod source;
mod stamp;
mod tree;
mod view;

pub use error::MountError;
pub use session::{MountConfig, serve};
pub use tree::{TreeObjects, objects_of_tree};
