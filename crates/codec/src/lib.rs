//! Page codecs: raw, lz4, zstd, zstd with a dictionary of the workload's own pages.
//!
//! - [`Compressor`] and [`Decompressor`]: one thread's contexts, reused for every page; no allocation a page.
//! - [`Chooser`]: lz4 while zstd saves less than a tenth of a page, zstd otherwise.
//! - [`CodecTag`]: how an encoded page is encoded. It travels with the bytes and their length, so that
//!   nothing is ever inferred from a length: 4096 bytes of lz4 and 4096 raw bytes have different tags.
//! - [`Dictionary`] and [`Dictionaries`]: trained once enough pages were seen; each entry names its own, so
//!   an old one stays readable for as long as the engine lives.
//!
//! Which page becomes a fill pattern is the core's business ([`vswap_core::FillPattern`]); it is asked first.
//!
//! Choices, measured on heap pages (see `examples/codecs.rs`): lz4 is `lz4_flex` with a reused table, as fast
//! as the C library and without a C build; zstd's contexts are made for 4 KiB sources (window 2^12, hash
//! 2^12) in the magicless format without content size or dictionary id, which saves 7 to 11 bytes a page and
//! keeps the tables in the first-level cache. A dictionary makes zstd *faster* as well: its prepared tables
//! are attached, not cleared.
#![forbid(unsafe_code)]

mod chooser;
mod compress;
mod decompress;
mod dictionary;
mod tag;
mod zstd;

pub use chooser::Chooser;
pub use compress::{Compressor, Encoded, Method};
pub use decompress::Decompressor;
pub use dictionary::{Dictionaries, Dictionary, TrainError};
pub use tag::{Algorithm, CodecTag, DecodeError, DictionaryId};
