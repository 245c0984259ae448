//! The ring in shared memory between supervisor (client) and stub (server).
//!
//! The client fills the command `posted % RING_LEN`, publishes it by raising `posted`, and wakes `posted` as a
//! futex if `stub_sleeps` is set. The stub executes commands strictly in order, raises `done` after each one
//! and wakes it as a futex if `client_sleeps` is set. Invariant: `done <= posted <= done + RING_LEN` (wrapping).
//!
//! Everything is an atomic, so that both sides may look at it at any time: the program that hosts the stub could
//! scribble on the ring, and must not be able to do more to the supervisor than to fail its own commands.

use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

/// Marks a ring of this version.
pub const RING_MAGIC: u32 = 0x7673_0001;
/// Commands in flight at most: a power of two, so that places stay in order when the counters wrap.
pub const RING_LEN: u32 = 8;
/// Bytes of the shared mapping: the ring's page, then the stub's stack.
pub const RING_BYTES: usize = 4096 + STACK_BYTES;
/// Bytes of the stub's stack, at the end of the shared mapping.
pub const STACK_BYTES: usize = 16 * 1024;
/// Bytes of one staging window: one cluster, so that a huge page moves whole.
pub const WINDOW_BYTES: u64 = 2 << 20;
/// Staging windows in an address space.
pub const STAGING_WINDOWS: u32 = 16;
/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// Where the addresses of programs end.
pub const USER_SPACE_END: u64 = 1 << 47;
/// Pages of a window.
pub const WINDOW_PAGES: usize = 512;

/// What a command asks for, in [`Command::op`].
pub mod op {
    /// Do nothing.
    pub const NOP: u32 = 0;
    /// Execute the system call `nr` with `args`; `result` is what the kernel returned (negative errno on failure).
    pub const SYSCALL: u32 = 1;
    /// Move the pages of the window at `args[0]` that are set in `want` to the staging window at `args[1]`; pages
    /// set in `avoid` are not touched, others may move if they turn up. `result` is the number of failed pages,
    /// which are set in `failed`.
    pub const EVICT: u32 = 2;
    /// Discard the staging window at `args[0]`. `result` as of `madvise`.
    pub const DISCARD: u32 = 3;
    /// End this thread.
    pub const QUIT: u32 = 4;
}

/// One command and its answer.
#[repr(C, align(64))]
pub struct Command {
    /// One of [`op`].
    pub op: AtomicU32,
    /// System call number, for [`op::SYSCALL`].
    pub nr: AtomicU32,
    /// The answer, valid once `done` has passed this command.
    pub result: AtomicI64,
    /// Arguments.
    pub args: [AtomicU64; 6],
    /// Pages asked for, for [`op::EVICT`].
    pub want: [AtomicU64; 8],
    /// Pages that must stay.
    pub avoid: [AtomicU64; 8],
    /// Answer: wanted pages that could not be moved (pinned, not writable, gone).
    pub failed: [AtomicU64; 8],
}

/// The ring. One page.
#[repr(C, align(4096))]
pub struct Ring {
    /// [`RING_MAGIC`].
    pub magic: AtomicU32,
    /// The stub's descriptor of the staging userfaultfd, set by the stub before its hello.
    pub staging_fd: AtomicU32,
    /// Commands posted so far (wrapping). Futex word of the stub.
    pub posted: AtomicU32,
    /// Commands done so far (wrapping). Futex word of the client.
    pub done: AtomicU32,
    /// The stub is about to sleep, or sleeps, on `posted`.
    pub stub_sleeps: AtomicU32,
    /// Clients that sleep, or are about to, on `done`.
    pub client_sleeps: AtomicU32,
    /// Commands.
    pub commands: [Command; RING_LEN as usize],
}

const _: () = assert!(core::mem::size_of::<Command>() == 256);
const _: () = assert!(core::mem::size_of::<Ring>() == 4096);

/// What the stub sends on its socket when it is ready, with the main userfaultfd as `SCM_RIGHTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Hello {
    /// [`RING_MAGIC`].
    pub magic: u64,
    /// Address of the first staging window, a multiple of [`WINDOW_BYTES`].
    pub staging: u64,
    /// Negative errno of the step that failed, or 0.
    pub error: i64,
    /// The step that failed (1 receive, 2 ring, 3 userfaultfd, 4 its features, 5 staging, 6 register).
    pub step: u64,
}

impl Hello {
    /// What these bytes say, if they are a hello of this version. Whether the stub is ready is in `error`.
    pub fn parse(bytes: &[u8]) -> Option<Hello> {
        let bytes: &[u8; core::mem::size_of::<Hello>()] = bytes.try_into().ok()?;
        let (words, _) = bytes.as_chunks::<8>();
        let word = |at: usize| u64::from_le_bytes(words[at]);
        let hello = Hello { magic: word(0), staging: word(1), error: word(2) as i64, step: word(3) };
        // The program could say anything: windows that are none would be counted with all the same.
        let windows = WINDOW_BYTES * STAGING_WINDOWS as u64;
        let fits = hello.staging.is_multiple_of(WINDOW_BYTES) && hello.staging <= USER_SPACE_END - windows;
        (hello.magic == RING_MAGIC as u64 && (hello.error != 0 || fits)).then_some(hello)
    }
}

/// Features of the main userfaultfd (`include/uapi/linux/userfaultfd.h`): write protection, the events of
/// `mremap`, discards and unmaps, the faulting thread's number, poison, move.
pub const MAIN_FEATURES: u64 = (1 << 0) | (1 << 2) | (1 << 3) | (1 << 6) | (1 << 8) | (1 << 14) | (1 << 16);
/// Features of the staging userfaultfd: `SIGBUS` (a reader from outside gets an error, not a hang) and move.
pub const STAGING_FEATURES: u64 = (1 << 7) | (1 << 16);

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(staging: u64, error: i64) -> [u8; 32] {
        let words = [u64::from(RING_MAGIC), staging, error as u64, 0].map(u64::to_le_bytes);
        words.as_flattened().try_into().unwrap()
    }

    /// The windows' addresses are counted on from the first: past the end that would not come out.
    #[test]
    fn a_hello_whose_windows_cannot_be_is_none() {
        let last = USER_SPACE_END - u64::from(STAGING_WINDOWS) * WINDOW_BYTES;
        for staging in [0, WINDOW_BYTES, last] {
            assert_eq!(Hello::parse(&bytes(staging, 0)).unwrap().staging, staging);
        }
        for staging in [1, 4096, last + WINDOW_BYTES, u64::MAX - (WINDOW_BYTES - 1)] {
            assert!(Hello::parse(&bytes(staging, 0)).is_none(), "{staging:#x}");
            // It has none to speak of.
            assert!(Hello::parse(&bytes(staging, -12)).is_some(), "{staging:#x}");
        }
        assert!(Hello::parse(&bytes(0, 0)[..31]).is_none());
    }
}
