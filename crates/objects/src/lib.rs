//! Objects: bytes by offset in the virtual swap space.
//!
//! An [`Object`] is sparse: it has a length, and each of its bytes is there or not. What is there lies where the engine has it, page by page, and
//! moves between fill patterns, the pool and the tiers like the pages of any other owner; [`Object::extents`] tells where. *Anonymous* objects
//! end with whoever holds them; *named* ones, of a [`Store`], are found again by whoever opens it next.
//!
//! - [`Objects`] makes them, all in one group of one engine.
//! - [`Object::read`] gives what is there and says what is not; [`Object::write`], [`Object::set_len`] and [`Object::punch`] change it;
//!   [`Object::present`] and [`Object::missing`] tell which bytes are there.
//! - [`Object::read_through`] and [`Object::fetch`] have what is missing brought from elsewhere, once however many ask.
//! - [`Object::write_dirty`], [`Object::dirty`], [`Object::cleaned`]: what is to be stored elsewhere.
//! - [`Object::snapshot`] makes a second object of the same bytes, which are kept once until one of the two changes them.
//! - [`Store::object`] finds or makes the [`NamedObject`] of a volume, a key and a version; [`Store::sync`] commits.
//! - With the feature `async`, `AsyncStore`, `AsyncNamedObject` and `AsyncObject` are the same for programs with tasks, on whichever runtime.
//!
//! ```
//! use std::sync::Arc;
//! use vswap_core::GroupId;
//! use vswap_engine::{Engine, EngineConfig};
//! use vswap_objects::Objects;
//!
//! let engine = Engine::new(EngineConfig::default())?;
//! let object = Objects::new(Arc::clone(&engine), GroupId::ROOT)?.create();
//! object.set_len(10_000)?;
//! object.write(4000, b"here")?;
//! let mut buf = [1; 8];
//! let read = object.read(3998, &mut buf)?;
//! assert_eq!((read.len, &buf), (8, b"\0\0here\0\0"));
//! assert_eq!(read.missing, [3998..4000, 4004..4006]);
//! // Whoever has the rest brings it, once, however many ask.
//! let from_elsewhere = |_offset: u64, buf: &mut [u8]| {
//!     buf.fill(b'.');
//!     Ok::<_, std::io::Error>(())
//! };
//! object.read_through(3998, &mut buf, from_elsewhere)?;
//! assert_eq!(&buf, b"..here..");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ```
//! use vswap_objects::{Store, StoreConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir_in("/var/tmp")?;
//! # let dir = dir.path();
//! let store = Store::create(dir, 64 << 20, &StoreConfig::default())?;
//! let photo = store.object(b"server/share", b"photo.jpg", 3)?;
//! photo.write(0, b"what the server has")?;
//! photo.set_aux(b"mtime and size, or what else tells whether it is still that")?;
//! store.sync()?;
//! drop((photo, store));
//!
//! let store = Store::open(dir, &StoreConfig::default())?;
//! let photo = store.find(b"server/share", b"photo.jpg")?.expect("it was synced");
//! let mut buf = [0; 4];
//! photo.read(5, &mut buf)?;
//! assert_eq!((photo.version(), &buf), (3, b"the "));
//! // The server has a newer one: what is of version 3 is gone.
//! let photo = store.object(b"server/share", b"photo.jpg", 4)?;
//! assert!(photo.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//! - A byte that was never written, or was punched or cut off since, is not there, whatever its page holds.
//! - A write that fails leaves every byte that it did not report as written as it was.
//! - What is fetched never takes the place of what was written, and is thrown away if its range was punched, cut off or given up meanwhile.
//! - A read gives the bytes that were written last, or an error that says where; what is not there reads as zeroes and is named.
//!
//! # Lock order
//! An object's lock, then that of its flights, or whatever the engine takes. Nobody holds two objects' locks. A store's are in `store.rs`.
#![forbid(unsafe_code)]

#[cfg(feature = "async")]
mod asynchronous;
mod content;
mod dirty;
mod error;
mod extents;
mod fetch;
mod hands;
mod object;
mod presence;
mod slots;
mod store;

#[cfg(feature = "async")]
pub use asynchronous::{AsyncNamedObject, AsyncObject, AsyncStore};
pub use dirty::Dirty;
pub use error::{FetchError, ObjectError};
pub use extents::{Extent, Holder};
pub use object::{MAX_LEN, Object, Objects, Read};
pub use store::error::{NamedError, NamedFetchError};
#[cfg(feature = "fuzz")]
pub use store::fuzz;
pub use store::list::Listed;
pub use store::named::NamedObject;
pub use store::reclaim::Marks;
pub use store::{MAX_AUX, MAX_KEY, Store, StoreConfig};
pub use vswap_core::{ByteCount, GroupId};
pub use vswap_engine::{CodecChoice, Engine, EngineConfig, TierConfig};
pub use vswap_segment::Lending;
