//! A kernel that answers all that it may, for `crates/fuzz`: it watches that a command touches nothing that is not its business.
//!
//! # Safety
//! The two addresses that are followed are those that [`evict`](super::evict) passes of its own live records; they are followed for
//! [`op::EVICT`] only, since the words of [`op::SYSCALL`] may be anything.
#![allow(unsafe_code)]

use super::{
    EAGAIN, EBUSY, EINVAL, IoVec, Kernel, SYS_IOCTL, SYS_MADVISE, SYS_PROCESS_VM_READV, UFFDIO_MOVE,
    UffdioMove, execute, test,
};
use crate::protocol::{Command, PAGE_BYTES, RING_LEN, RING_MAGIC, Ring, WINDOW_BYTES, WINDOW_PAGES, op};
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

const SRC: u64 = 0x10_0000_0000;
const DST: u64 = 0x20_0000_0000;
const EPERM: isize = 1;
const ENOENT: isize = 2;
const ENOMEM: isize = 12;
/// Calls that no window needs: each page may say "again" as often as it is asked, and a few things beside.
const TOO_MANY: usize = WINDOW_PAGES * 2 * (super::AGAIN_LIMIT as usize + 10);

/// What is in a window: one bit a page.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// There.
    pub present: [u64; 8],
    /// Somebody else's too, since a fork.
    pub shared: [u64; 8],
    /// In use by the kernel.
    pub pinned: [u64; 8],
}

/// The kernel of one window.
pub struct FakeKernel<'a> {
    window: Window,
    moved: [u64; 8],
    avoid: [u64; 8],
    /// How it answers, a byte a call; at the end it only does what it is asked.
    moods: &'a [u8],
    evicting: bool,
    calls: usize,
}

impl<'a> FakeKernel<'a> {
    /// A kernel with these pages and moods.
    pub fn new(window: Window, moods: &'a [u8]) -> Self {
        Self { window, moved: [0; 8], avoid: [0; 8], moods, evicting: false, calls: 0 }
    }

    /// The pages that went to staging.
    pub fn moved(&self) -> [u64; 8] {
        self.moved
    }

    /// The pages that are where they were.
    pub fn present(&self) -> [u64; 8] {
        self.window.present
    }

    /// Carries out one command; gives whether there is more to come, the pages that failed, and the result.
    ///
    /// # Panics
    /// When the command touches what it is not to, or does not end.
    pub fn carry_out(&mut self, code: u32, want: [u64; 8], avoid: [u64; 8]) -> (bool, [u64; 8], i64) {
        (self.evicting, self.avoid) = (code == op::EVICT, avoid);
        let ring = Ring {
            magic: AtomicU32::new(RING_MAGIC),
            staging_fd: AtomicU32::new(3),
            posted: AtomicU32::new(1),
            done: AtomicU32::new(0),
            stub_sleeps: AtomicU32::new(0),
            client_sleeps: AtomicU32::new(0),
            commands: [const { empty() }; RING_LEN as usize],
        };
        let command = &ring.commands[0];
        command.op.store(code, Relaxed);
        for (cell, value) in command.args.iter().zip([SRC, DST]) {
            cell.store(value, Relaxed);
        }
        for at in 0..8 {
            command.want[at].store(want[at], Relaxed);
            command.avoid[at].store(avoid[at], Relaxed);
        }
        let going = execute(self, &ring, command);
        let failed = core::array::from_fn(|at| command.failed[at].load(Relaxed));
        (going, failed, command.result.load(Relaxed))
    }

    fn mood(&mut self) -> u8 {
        let Some((first, rest)) = self.moods.split_first() else { return 0 };
        self.moods = rest;
        *first
    }

    /// `UFFDIO_MOVE` as the kernel does it, up to `most` pages.
    fn move_pages(&mut self, request: &mut UffdioMove, most: usize) -> isize {
        assert_eq!(request.dst - DST, request.src - SRC, "to another place");
        assert!(request.len > 0 && (request.src | request.len).is_multiple_of(PAGE_BYTES), "no pages");
        let start = ((request.src - SRC) / PAGE_BYTES) as usize;
        let end = start + (request.len / PAGE_BYTES) as usize;
        assert!(end <= WINDOW_PAGES, "beyond the window");
        for page in start..end {
            assert!(!test(&self.avoid, page), "page {page} is to stay");
        }
        for page in start..end {
            let stuck = test(&self.window.shared, page) || test(&self.window.pinned, page);
            let (busy, full) = (test(&self.window.present, page) && stuck, page - start >= most);
            if busy || full {
                let moved = (page - start) as i64 * PAGE_BYTES as i64;
                let errno = if busy { EBUSY } else { EAGAIN };
                request.moved = if moved > 0 { moved } else { -errno };
                return if moved > 0 { -(EAGAIN as isize) } else { -(errno as isize) };
            }
            let bit = self.window.present[page / 64] & 1 << (page % 64);
            self.window.present[page / 64] &= !bit;
            self.moved[page / 64] |= bit;
        }
        0
    }

    fn unshare(&mut self, base: usize, len: usize) {
        let start = base.checked_sub(SRC as usize).expect("below the window") / PAGE_BYTES as usize;
        let pages = len.div_ceil(PAGE_BYTES as usize);
        assert!(start + pages <= WINDOW_PAGES, "beyond the window");
        for page in start..start + pages {
            self.window.shared[page / 64] &= !(1 << (page % 64));
        }
    }
}

const fn empty() -> Command {
    Command {
        op: AtomicU32::new(0),
        nr: AtomicU32::new(0),
        result: AtomicI64::new(0),
        args: [const { AtomicU64::new(0) }; 6],
        want: [const { AtomicU64::new(0) }; 8],
        avoid: [const { AtomicU64::new(0) }; 8],
        failed: [const { AtomicU64::new(0) }; 8],
    }
}

impl Kernel for FakeKernel<'_> {
    fn syscall(&mut self, nr: usize, args: [usize; 6]) -> isize {
        self.calls += 1;
        assert!(self.calls < TOO_MANY, "it does not end");
        let mood = self.mood();
        if !self.evicting {
            let window = SRC as usize..=(SRC + WINDOW_BYTES) as usize;
            let inside = window.contains(&args[0]) && window.contains(&(args[0].wrapping_add(args[1])));
            assert!(nr != SYS_MADVISE || inside, "another place is discarded");
            return isize::from(mood as i8);
        }
        match nr {
            SYS_IOCTL if args[1] == UFFDIO_MOVE => {
                // SAFETY: in an eviction this is the address of `move_pages`' own live `UffdioMove`, which nothing else uses meanwhile.
                let request = unsafe { &mut *(args[2] as *mut UffdioMove) };
                match mood % 8 {
                    1 => -(EAGAIN as isize),
                    2 => -(EINVAL as isize),
                    3 => -ENOENT,
                    4 => -ENOMEM,
                    5 => -(EBUSY as isize),
                    6 => self.move_pages(request, usize::from(mood / 8)),
                    _ => self.move_pages(request, WINDOW_PAGES),
                }
            }
            SYS_MADVISE if mood.is_multiple_of(2) => {
                self.unshare(args[0], args[1]);
                0
            }
            SYS_PROCESS_VM_READV if mood.is_multiple_of(2) => {
                // SAFETY: in an eviction these are address and length of `unshare`'s own live ranges.
                let pages = unsafe { core::slice::from_raw_parts(args[3] as *const IoVec, args[4]) };
                for page in pages {
                    self.unshare(page.base, page.len);
                }
                pages.len() as isize
            }
            SYS_MADVISE | SYS_PROCESS_VM_READV => -EPERM,
            _ => 0,
        }
    }
}
