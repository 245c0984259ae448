//! What a command does, without knowing how a system call is made.

#[cfg(feature = "fuzz")]
pub mod fuzz;

use crate::protocol::{Command, PAGE_BYTES, Ring, WINDOW_BYTES, WINDOW_PAGES, op};
use core::sync::atomic::Ordering::Relaxed;

/// The kernel as the stub sees it.
pub trait Kernel {
    /// Makes the system call `nr`; returns what the kernel returns, a negative errno on failure.
    fn syscall(&mut self, nr: usize, args: [usize; 6]) -> isize;
}

/// `struct uffdio_move` of `include/uapi/linux/userfaultfd.h`.
#[repr(C)]
struct UffdioMove {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    moved: i64,
}

const SYS_IOCTL: usize = 16;
const SYS_SCHED_YIELD: usize = 24;
const SYS_MADVISE: usize = 28;
const UFFDIO_MOVE: usize = 0xc028_aa05;
const ALLOW_SRC_HOLES: u64 = 2;
const SYS_GETPID: usize = 39;
const SYS_PROCESS_VM_READV: usize = 310;
const MADV_DONTNEED: usize = 4;
const MADV_POPULATE_WRITE: usize = 23;
const EAGAIN: i64 = 11;
const EBUSY: i64 = 16;
const EINVAL: i64 = 22;
/// How often the kernel may say "again" without any page moved before the rest of a window is given up.
const AGAIN_LIMIT: u32 = 200;
/// Pages that are unshared at once.
const UNSHARED_AT_ONCE: usize = 64;

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy)]
struct IoVec {
    base: usize,
    len: usize,
}

/// Executes one command, leaving its answer in it. Returns `false` for [`op::QUIT`].
pub fn execute<K: Kernel>(kernel: &mut K, ring: &Ring, command: &Command) -> bool {
    let arg = |i: usize| command.args[i].load(Relaxed);
    let result = match command.op.load(Relaxed) {
        op::SYSCALL => {
            let args = core::array::from_fn(|i| arg(i) as usize);
            kernel.syscall(command.nr.load(Relaxed) as usize, args) as i64
        }
        op::EVICT => {
            let want = load(&command.want);
            let avoid = load(&command.avoid);
            let staging_fd = ring.staging_fd.load(Relaxed);
            let failed = evict(kernel, staging_fd, arg(0), arg(1), &want, &avoid);
            let mut count = 0;
            for (cell, word) in command.failed.iter().zip(failed) {
                cell.store(word, Relaxed);
                count += i64::from(word.count_ones());
            }
            count
        }
        op::DISCARD => discard(kernel, arg(0)),
        op::QUIT => return false,
        _ => 0,
    };
    command.result.store(result, Relaxed);
    true
}

fn load(words: &[core::sync::atomic::AtomicU64; 8]) -> [u64; 8] {
    core::array::from_fn(|i| words[i].load(Relaxed))
}

/// Frees the pages of the staging window at `window`. Returns 0 or a negative errno.
///
/// In two halves: a discard of a whole 2 MiB also frees the page table under it (`CONFIG_PT_RECLAIM`, Linux 6.14), late
/// and by the thousand, only for the next eviction to make it again.
pub fn discard<K: Kernel>(kernel: &mut K, window: u64) -> i64 {
    let half = WINDOW_BYTES as usize / 2;
    let mut discard =
        |start: usize| kernel.syscall(SYS_MADVISE, [start, half, MADV_DONTNEED, 0, 0, 0]) as i64;
    discard(window as usize).min(discard(window as usize + half))
}

/// Moves the pages `want` of the window at `src` to the staging window at `dst`, sparing `avoid`.
///
/// Runs between pages to avoid are moved by one call each, holes allowed, since a call costs more than the
/// holes in it. Returns the wanted pages that could not be moved. A page shared after a fork says `EBUSY` until it is made
/// the owner's own. To read it by `process_vm_readv` does that and leaves it write-protected (the kernel unshares what it
/// pins for reading, Linux 5.19); where that is refused, it is populated for writing. What is still busy then
/// is pinned by the kernel and stays.
pub fn evict<K: Kernel>(
    kernel: &mut K,
    staging_fd: u32,
    src: u64,
    dst: u64,
    want: &[u64; 8],
    avoid: &[u64; 8],
) -> [u64; 8] {
    let mut failed = [0u64; 8];
    let mut mover = Mover { kernel, staging_fd, src, dst, want, failed: &mut failed };
    let mut start = 0;
    while start < WINDOW_PAGES {
        if test(avoid, start) || !test(want, start) {
            start += 1;
            continue;
        }
        let mut end = start + 1;
        let mut scan = end;
        while scan < WINDOW_PAGES && !test(avoid, scan) {
            if test(want, scan) {
                end = scan + 1;
            }
            scan += 1;
        }
        mover.span(start, end);
        start = scan;
    }
    failed
}

fn test(words: &[u64; 8], page: usize) -> bool {
    words[page / 64] >> (page % 64) & 1 == 1
}

struct Mover<'a, K> {
    kernel: &'a mut K,
    staging_fd: u32,
    src: u64,
    dst: u64,
    want: &'a [u64; 8],
    failed: &'a mut [u64; 8],
}

impl<K: Kernel> Mover<'_, K> {
    /// Moves pages `start..end`. A range that crosses mappings is refused whole by the kernel, so it is
    /// halved until what is left moves or is a single page that cannot.
    fn span(&mut self, mut start: usize, end: usize) {
        let mut length = end - start;
        let mut again = 0;
        // Where sharing was met last, and how often it was tried there to end it.
        let (mut shared_at, mut tries) = (usize::MAX, 0);
        while start < end {
            length = length.min(end - start);
            let (moved, errno) = self.move_pages(start, length);
            start += moved;
            if moved > 0 {
                again = 0;
                if errno == 0 {
                    length = end - start;
                }
                continue;
            }
            match errno {
                0 => break,
                EAGAIN if again < AGAIN_LIMIT => {
                    again += 1;
                    self.kernel.syscall(SYS_SCHED_YIELD, [0; 6]);
                }
                EAGAIN => {
                    (start..end).for_each(|page| self.fail(page));
                    break;
                }
                EBUSY if shared_at != start || tries < 2 => {
                    tries = if shared_at == start { tries + 1 } else { 1 };
                    shared_at = start;
                    self.unshare(start, end, tries > 1);
                }
                EINVAL if length > 1 => length = length.div_ceil(2),
                _ => {
                    self.fail(start);
                    start += 1;
                    length = end - start;
                }
            }
        }
    }

    fn fail(&mut self, page: usize) {
        self.failed[page / 64] |= (1 << (page % 64)) & self.want[page / 64];
    }

    /// One `UFFDIO_MOVE`. Returns the pages passed (holes included) and an errno, 0 if all went.
    fn move_pages(&mut self, start: usize, length: usize) -> (usize, i64) {
        let offset = start as u64 * PAGE_BYTES;
        let mut request = UffdioMove {
            dst: self.dst + offset,
            src: self.src + offset,
            len: length as u64 * PAGE_BYTES,
            mode: ALLOW_SRC_HOLES,
            moved: 0,
        };
        let pointer = &raw mut request as usize;
        let returned =
            self.kernel.syscall(SYS_IOCTL, [self.staging_fd as usize, UFFDIO_MOVE, pointer, 0, 0, 0]);
        if returned == 0 {
            return (length, 0);
        }
        let moved = request.moved.max(0) as u64 / PAGE_BYTES;
        ((moved as usize).min(length), -(returned as i64))
    }

    /// Makes the run of wanted pages at `start` the owner's own after a fork, 64 at most.
    fn unshare(&mut self, start: usize, end: usize, by_writing: bool) {
        let mut stop = start + 1;
        while stop < end && stop < start + UNSHARED_AT_ONCE && test(self.want, stop) {
            stop += 1;
        }
        let address = (self.src + start as u64 * PAGE_BYTES) as usize;
        let count = stop - start;
        if by_writing {
            let length = count * PAGE_BYTES as usize;
            self.kernel.syscall(SYS_MADVISE, [address, length, MADV_POPULATE_WRITE, 0, 0, 0]);
            return;
        }
        // A byte of each.
        let mut bytes = [0u8; UNSHARED_AT_ONCE];
        let mut pages = [IoVec { base: 0, len: 1 }; UNSHARED_AT_ONCE];
        for (i, page) in pages[..count].iter_mut().enumerate() {
            page.base = address + i * PAGE_BYTES as usize;
        }
        let into = IoVec { base: bytes.as_mut_ptr() as usize, len: count };
        let (into, from) = (&raw const into as usize, pages.as_ptr() as usize);
        let own = self.kernel.syscall(SYS_GETPID, [0; 6]) as usize;
        self.kernel.syscall(SYS_PROCESS_VM_READV, [own, into, 1, from, count, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel of one window: which pages are present, where mappings end, what is shared or pinned.
    struct Fake {
        present: [bool; 512],
        staged: [bool; 512],
        shared: [bool; 512],
        pinned: [bool; 512],
        mapping_ends: Vec<usize>,
        read_only: std::ops::Range<usize>,
        unreadable: bool,
        calls: usize,
    }

    impl Fake {
        fn new() -> Self {
            Fake {
                present: [true; 512],
                staged: [false; 512],
                shared: [false; 512],
                pinned: [false; 512],
                mapping_ends: vec![512],
                read_only: 0..0,
                unreadable: false,
                calls: 0,
            }
        }
    }

    const SRC: u64 = 0x10_0000_0000;
    const DST: u64 = 0x20_0000_0000;

    impl Kernel for Fake {
        #[allow(unsafe_code)]
        fn syscall(&mut self, nr: usize, args: [usize; 6]) -> isize {
            self.calls += 1;
            if nr == SYS_MADVISE {
                let start = (args[0] - SRC as usize) / 4096;
                self.shared[start..start + args[1] / 4096].fill(false);
                return 0;
            }
            if nr == SYS_PROCESS_VM_READV && !self.unreadable {
                // SAFETY: `unshare` passes the address and number of its own live ranges.
                let pages = unsafe { core::slice::from_raw_parts(args[3] as *const IoVec, args[4]) };
                for page in pages {
                    self.shared[(page.base - SRC as usize) / 4096] = false;
                }
                return pages.len() as isize;
            }
            if nr != SYS_IOCTL {
                return 0;
            }
            // SAFETY: `move_pages` passes the address of its own live `UffdioMove`.
            let request = unsafe { &mut *(args[2] as *mut UffdioMove) };
            let start = ((request.src - SRC) / 4096) as usize;
            let end = start + (request.len / 4096) as usize;
            assert_eq!(request.dst - DST, request.src - SRC);
            let mapping_end = *self.mapping_ends.iter().find(|&&e| e > start).unwrap();
            if end > mapping_end || self.read_only.contains(&start) {
                return -(EINVAL as isize);
            }
            for page in start..end {
                if self.present[page] && (self.shared[page] || self.pinned[page]) {
                    let moved = (page - start) as i64 * 4096;
                    request.moved = if moved > 0 { moved } else { -EBUSY };
                    return if moved > 0 { -(EAGAIN as isize) } else { -(EBUSY as isize) };
                }
                if self.present[page] {
                    self.present[page] = false;
                    self.staged[page] = true;
                }
            }
            0
        }
    }

    fn bits(pages: impl IntoIterator<Item = usize>) -> [u64; 8] {
        let mut words = [0; 8];
        for page in pages {
            words[page / 64] |= 1 << (page % 64);
        }
        words
    }

    fn staged(fake: &Fake) -> Vec<usize> {
        (0..512).filter(|&p| fake.staged[p]).collect()
    }

    #[test]
    fn a_whole_window_moves_by_one_call() {
        let mut fake = Fake::new();
        let failed = evict(&mut fake, 3, SRC, DST, &[u64::MAX; 8], &[0; 8]);
        assert_eq!(failed, [0; 8]);
        assert_eq!(fake.calls, 1);
        assert!(fake.staged.iter().all(|&s| s));
    }

    #[test]
    fn pages_to_avoid_stay_and_wanted_ones_round_them_move() {
        let mut fake = Fake::new();
        let avoid = bits([0, 7, 8, 100, 511]);
        let failed = evict(&mut fake, 3, SRC, DST, &[u64::MAX; 8], &avoid);
        assert_eq!(failed, [0; 8]);
        let expected: Vec<usize> = (0..512).filter(|p| ![0, 7, 8, 100, 511].contains(p)).collect();
        assert_eq!(staged(&fake), expected);
    }

    #[test]
    fn a_pinned_page_fails_alone() {
        let mut fake = Fake::new();
        fake.pinned[33] = true;
        let failed = evict(&mut fake, 3, SRC, DST, &[u64::MAX; 8], &[0; 8]);
        assert_eq!(failed, bits([33]));
        assert_eq!(staged(&fake).len(), 511);
    }

    #[test]
    fn pages_shared_after_a_fork_are_made_own_and_move() {
        let mut fake = Fake::new();
        fake.shared[10..300].fill(true);
        let failed = evict(&mut fake, 3, SRC, DST, &[u64::MAX; 8], &[0; 8]);
        assert_eq!(failed, [0; 8]);
        assert_eq!(staged(&fake).len(), 512);
    }

    #[test]
    fn shared_pages_that_may_not_be_read_are_populated() {
        let mut fake = Fake::new();
        fake.shared[10..300].fill(true);
        fake.unreadable = true;
        let failed = evict(&mut fake, 3, SRC, DST, &[u64::MAX; 8], &[0; 8]);
        assert_eq!(failed, [0; 8]);
        assert_eq!(staged(&fake).len(), 512);
    }

    #[test]
    fn a_window_of_several_mappings_moves_whole() {
        let mut fake = Fake::new();
        fake.mapping_ends = vec![1, 37, 200, 512];
        let failed = evict(&mut fake, 3, SRC, DST, &[u64::MAX; 8], &[0; 8]);
        assert_eq!(failed, [0; 8]);
        assert_eq!(staged(&fake).len(), 512);
    }

    #[test]
    fn read_only_pages_fail_and_the_rest_moves() {
        let mut fake = Fake::new();
        fake.mapping_ends = vec![100, 110, 512];
        fake.read_only = 100..110;
        let failed = evict(&mut fake, 3, SRC, DST, &[u64::MAX; 8], &[0; 8]);
        assert_eq!(failed, bits(100..110));
        assert_eq!(staged(&fake).len(), 502);
    }

    #[test]
    fn unwanted_pages_at_the_ends_are_left() {
        let mut fake = Fake::new();
        let failed = evict(&mut fake, 3, SRC, DST, &bits(5..9), &[0; 8]);
        assert_eq!(failed, [0; 8]);
        assert_eq!(staged(&fake), [5, 6, 7, 8]);
    }
}
