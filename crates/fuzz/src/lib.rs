//! What is done with bytes that nobody has written: every format that is read back, as functions from bytes to nothing that panic when
//! something does not hold.
//!
//! The targets in `fuzz/` call these and do nothing else; `tests/it` calls the same with every file of `fuzz/corpus`, on the stable
//! compiler. So what was found once is tried in each run of the tests.
//!
//! - [`segment`]: a real segment whose bytes were changed gives each page as it was written, or an error; [`segment_bytes`]: anything, its
//!   checksums made right.
//! - [`area`], [`signatures`]: what is on a file or device before it is used.
//! - [`codec`]: encoded pages. [`control`]: the socket's lines. [`sizes`]: what people type. [`maps`]: `/proc/PID/maps`.
//! - [`hello`], [`ring`], [`link`]: what stub and supervisor tell each other. [`message`]: what the processes of a run do.
//! - [`lines`]: a store's index. [`listing`]: what a mount keeps of directories and beside files. [`recording`]: recorded faults.
//! - [`setup_state`]: what `vswap setup --undo` goes by.
//!
//! Invariant: a target does the same for the same bytes each time, except that keys, for encryption and of a store's checksums, are random.
#![forbid(unsafe_code)]

mod codecs;
mod input;
mod segments;
mod stubs;
mod tier;
mod words;

pub use codecs::codec;
pub use segments::{segment, segment_bytes};
pub use stubs::{hello, link, ring};
pub use tier::{area, signatures};
pub use vswap_mount::fuzz::kept as listing;
pub use vswap_objects::fuzz::lines;
pub use words::{control, maps, message, recording, setup_state, sizes};

/// What is done with bytes, and by which name.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of the target and of its corpus.
    pub name: &'static str,
    /// Panics when something does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with, made from what is really written.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "area", run: area, seeds: tier::area_seeds },
    Target { name: "codec", run: codec, seeds: codecs::seeds },
    Target { name: "control", run: control, seeds: words::control_seeds },
    Target { name: "hello", run: hello, seeds: stubs::hello_seeds },
    Target { name: "lines", run: lines, seeds: vswap_objects::fuzz::seeds },
    Target { name: "link", run: link, seeds: stubs::link_seeds },
    Target { name: "listing", run: listing, seeds: vswap_mount::fuzz::seeds },
    Target { name: "maps", run: maps, seeds: words::maps_seeds },
    Target { name: "message", run: message, seeds: vswap_run::fuzz::messages },
    Target { name: "recording", run: recording, seeds: words::recording_seeds },
    Target { name: "ring", run: ring, seeds: stubs::ring_seeds },
    Target { name: "segment", run: segment, seeds: segments::seeds },
    Target { name: "segment_bytes", run: segment_bytes, seeds: segments::bytes_seeds },
    Target { name: "setup_state", run: setup_state, seeds: words::setup_state_seeds },
    Target { name: "signatures", run: signatures, seeds: tier::signatures_seeds },
    Target { name: "sizes", run: sizes, seeds: words::sizes_seeds },
];
