//! Direct I/O to a file or device: where sealed segments live on a disk.
//!
//! - [`AlignedBuf`]: page-aligned memory that owns itself, seen as a plain slice.
//! - [`DirectFile`]: a file without a name (it is gone when its last descriptor is), opened with
//!   `O_DIRECT` where the file system takes it; reads and writes at offsets, from any thread.
//! - [`DirectWriter`]: large sequential writes through io_uring, with a few in flight; where io_uring
//!   is refused (seccomp, `kernel.io_uring_disabled`, an old kernel) the same calls use `pwrite`.
//! - [`Named`]: a regular file or block device with a name, which nobody else has meanwhile.
//! - [`place`]: which directory to use, how much room it has, and why it was refused.
//!
//! # Invariants
//! - A file on tmpfs, ramfs or hugetlbfs is refused: "disk" there would be the memory we try to save.
//! - Offsets, lengths and addresses handed to the kernel are multiples of [`BLOCK`]; the safe calls
//!   check it and say `InvalidInput`.
//! - A buffer given to the kernel by [`DirectWriter::submit`] is owned by the writer until its
//!   completion was seen, so no safe code can touch or free it meanwhile.
//!
//! # Safety
//! The `unsafe` of direct I/O is in `direct/*` only: allocation of aligned memory, a handful of libc
//! calls on descriptors and C strings that this module owns, and the submission of io_uring entries
//! whose buffers this module owns. No unsafe function is exported.

mod aligned;
mod file;
mod locks;
mod loops;
mod named;
pub mod place;
mod writer;

pub use aligned::AlignedBuf;
pub use file::DirectFile;
pub use locks::LockHolder;
pub use named::{NameKind, Named, NamedError};
pub use place::PlaceError;
pub use writer::{DirectWriter, WriteDone};

/// The alignment of all direct I/O, in bytes: one page.
///
/// Devices ask for 512 or 4096; a file system that wants more is used without `O_DIRECT`.
pub const BLOCK: usize = 4096;

/// Whether `value` is a multiple of [`BLOCK`].
#[must_use]
pub(crate) const fn is_block_multiple(value: u64) -> bool {
    value.is_multiple_of(BLOCK as u64)
}
