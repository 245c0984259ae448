//! A virtual swap space in user space: regions larger than memory for Rust programs.
//!
//! [`Region`] is memory of any length of which only so much is in RAM at a time as its limit says; the rest is
//! compressed, or in a file. To the program it is a slice. The engine and pager are those of `vswap run`.
//!
//! ```no_run
//! let mut region = vswap::Region::builder(8 << 30).limit(1 << 30).build()?;
//! let numbers: &mut [u64] = region.as_mut_slice_of();
//! numbers[123_456_789] = 42;
//! assert_eq!(numbers[123_456_789], 42);
//! # Ok::<(), vswap::RegionError>(())
//! ```
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!(
    "vswap needs Linux on x86-64: it stands on userfaultfd with UFFDIO_MOVE and on ptrace of that machine"
);

/// Objects: bytes by offset in the swap space, anonymous or with names that outlive the program. With the feature `async`, for programs with tasks too.
///
/// ```
/// use vswap::objects::{Engine, EngineConfig, GroupId, Objects};
///
/// let engine = Engine::new(EngineConfig::default())?;
/// let object = Objects::new(engine, GroupId::ROOT)?.create();
/// object.write(1 << 30, b"far away")?;
/// let mut bytes = [0; 8];
/// object.read(1 << 30, &mut bytes)?;
/// assert_eq!(&bytes, b"far away");
/// assert_eq!(object.missing(0..1 << 30), [0..1 << 30]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(feature = "objects")]
pub use vswap_objects as objects;

mod region;
#[cfg(feature = "control")]
mod visible;

pub use region::{Builder, Region, RegionError, RegionStats};
pub use vswap_engine::{CodecChoice, Encryption};
