//! [`DirectWriter`]: a few large writes in flight at once.
//!
//! One writer belongs to one thread at a time (`&mut self`); it holds no lock while it waits. Every
//! write that io_uring does not finish exactly (an error, a short count) is finished with `pwrite`,
//! whose answer is the definitive one, so both ways fail alike.
//!
//! A device works off what it was given in whatever order it likes: a read that comes behind two writes of 2 MiB waits for both, fifty times
//! as long as alone. So where the file was read since the last write was begun, a write is given piece by piece: linked entries, of
//! which the kernel starts each when the one before has ended. Where nobody reads it goes as a whole, which is faster.
//!
//! # Safety
//! An io_uring entry names a buffer and a descriptor that must outlive it. Both are owned by the
//! writer until the entry's completion was taken from the queue; `Drop` waits for those still out,
//! and leaks them if it cannot.
#![allow(unsafe_code)]

use super::{AlignedBuf, BLOCK, DirectFile, is_block_multiple};
use io_uring::{IoUring, opcode, squeue, types};
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// A write that has ended: the buffer comes back, with the result.
#[derive(Debug)]
pub struct WriteDone {
    /// What the submitter called it.
    pub tag: u64,
    /// The buffer, as it was given.
    pub buf: AlignedBuf,
    /// Whether all of it was written.
    pub result: io::Result<()>,
}

/// What is given to the device at a time where others wait for their reads.
const PIECE: usize = 256 << 10;
/// Pieces of one write at the most: longer writes have longer pieces.
const MOST_PIECES: usize = 8;

#[derive(Debug)]
struct Pending {
    tag: u64,
    offset: u64,
    len: u32,
    buf: AlignedBuf,
    pieces: Pieces,
}

/// How a write was divided, and what the kernel has said of the pieces.
#[derive(Clone, Copy, Debug)]
struct Pieces {
    /// Bytes of each but the last.
    size: usize,
    /// Pieces under way.
    left: usize,
    results: [i32; MOST_PIECES],
}

impl Pieces {
    fn whole(len: usize) -> Pieces {
        Pieces::of(len, len)
    }

    /// Pieces of [`PIECE`] bytes, or longer ones.
    fn small(len: usize) -> Pieces {
        Pieces::of(len, PIECE.max(len.div_ceil(MOST_PIECES).next_multiple_of(BLOCK)))
    }

    fn of(len: usize, size: usize) -> Pieces {
        Pieces { size, left: len.div_ceil(size.max(1)).max(1), results: [0; MOST_PIECES] }
    }

    /// Bytes from the start that are written.
    fn written(&self, len: usize) -> usize {
        let mut done = 0;
        for result in self.results {
            let piece = self.size.min(len - done);
            let written = usize::try_from(result).unwrap_or(0).min(piece);
            done += written;
            if written < piece || done == len {
                break;
            }
        }
        done
    }
}

/// Writes large aligned buffers with up to `depth` in flight.
pub struct DirectWriter {
    // Declared before `file`: the ring is unmapped before the descriptor that its entries name closes.
    /// Made when it is asked for: a start pays for nothing that it does not need.
    ring: OnceCell<Option<IoUring>>,
    pending: Vec<Option<Pending>>,
    done: VecDeque<WriteDone>,
    in_flight: usize,
    file: Arc<DirectFile>,
    /// Reads of the file when the last write was begun.
    reads: u64,
    /// Writes that were given in pieces.
    divided: u64,
}

impl DirectWriter {
    /// A writer to `file` with `depth` writes in flight (1 to 64). Falls back to `pwrite` where
    /// io_uring is refused.
    #[must_use]
    pub fn new(file: Arc<DirectFile>, depth: usize) -> Self {
        let depth = depth.clamp(1, 64);
        // Buffered writes through io_uring only go to kernel workers: no gain, so not used there.
        let ring = if file.is_direct() { OnceCell::new() } else { OnceCell::from(None) };
        Self::with_ring(file, depth, ring)
    }

    /// A writer that never uses io_uring, for comparison and for tests of the fallback.
    #[must_use]
    pub fn without_io_uring(file: Arc<DirectFile>, depth: usize) -> Self {
        Self::with_ring(file, depth.clamp(1, 64), OnceCell::from(None))
    }

    fn with_ring(file: Arc<DirectFile>, depth: usize, ring: OnceCell<Option<IoUring>>) -> Self {
        let pending = (0..depth).map(|_| None).collect();
        let reads = file.reads();
        Self { ring, pending, done: VecDeque::with_capacity(depth), in_flight: 0, file, reads, divided: 0 }
    }

    /// Whether writes go through io_uring.
    #[must_use]
    pub fn uses_io_uring(&self) -> bool {
        self.ring.get_or_init(|| working_ring((self.pending.len() * MOST_PIECES) as u32)).is_some()
    }

    /// Writes that went in pieces so far, because others were reading.
    #[must_use]
    pub fn divided(&self) -> u64 {
        self.divided
    }

    /// Writes submitted and not yet taken by [`wait`](Self::wait).
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.in_flight + self.done.len()
    }

    /// Whether [`submit`](Self::submit) would have to wait for a completion first.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.outstanding() >= self.pending.len()
    }

    /// Starts writing the first `len` bytes of `buf` at `offset`. The result, even an immediate
    /// failure, comes from [`wait`](Self::wait).
    ///
    /// # Errors
    /// Gives the buffer back, nothing started: `InvalidInput` if offset or length are not whole
    /// blocks or past the buffer; `WouldBlock` if [`is_full`](Self::is_full).
    pub fn submit(
        &mut self,
        offset: u64,
        buf: AlignedBuf,
        len: usize,
        tag: u64,
    ) -> Result<(), (io::Error, AlignedBuf)> {
        if !is_block_multiple(offset) || !is_block_multiple(len as u64) || len > buf.len() {
            let text = "a direct write needs whole blocks inside its buffer";
            return Err((io::Error::new(io::ErrorKind::InvalidInput, text), buf));
        }
        let (Ok(len), false) = (u32::try_from(len), self.is_full()) else {
            return Err((
                io::Error::new(io::ErrorKind::WouldBlock, "as many writes in flight as allowed"),
                buf,
            ));
        };
        let reads = self.file.reads();
        let others_read = std::mem::replace(&mut self.reads, reads) != reads;
        let pieces = if others_read { Pieces::small(len as usize) } else { Pieces::whole(len as usize) };
        let pending = Pending { tag, offset, len, buf, pieces };
        let Some(place) = self.pending.iter().position(Option::is_none) else {
            return Err((
                io::Error::new(io::ErrorKind::WouldBlock, "no place for another write"),
                pending.buf,
            ));
        };
        if !self.uses_io_uring() {
            self.finish(pending);
            return Ok(());
        }
        let pending = self.pending[place].insert(pending);
        let entries = entries(pending, place, types::Fd(self.file.as_fd().as_raw_fd()));
        let ring = self.ring.get_mut().and_then(Option::as_mut).expect("checked above");
        // SAFETY: (1) the buffer is readable for `len` bytes (checked above), of which each entry names a part, and stays in
        // `self.pending[place]`, unmoved and unwritten on the heap, until the completions of all of them are taken
        // (`reap`) or it is leaked (`Drop`); (2) the descriptor is kept open by `self.file` as long;
        // (3) the entries are plain writes, which touch nothing else.
        if unsafe { ring.submission().push_multiple(&entries[..pending.pieces.left]) }.is_ok() {
            self.in_flight += 1;
            self.divided += u64::from(pending.pieces.left > 1);
            // An error here leaves the entries queued; `wait` submits again.
            let _ = ring.submit();
            return Ok(());
        }
        let pending = self.pending[place].take().expect("put there above");
        self.finish(pending);
        Ok(())
    }

    /// Waits for one write to end; `None` when none is outstanding.
    ///
    /// # Errors
    /// If the ring itself fails; the writes in flight stay outstanding.
    pub fn wait(&mut self) -> io::Result<Option<WriteDone>> {
        loop {
            if let Some(done) = self.done.pop_front() {
                return Ok(Some(done));
            }
            if self.in_flight == 0 {
                return Ok(None);
            }
            self.reap()?;
        }
    }

    /// Waits for at least one completion and finishes all that are there.
    fn reap(&mut self) -> io::Result<()> {
        let Some(Some(ring)) = self.ring.get_mut() else { return Ok(()) };
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
            Err(e) => return Err(e),
        }
        while let Some(cqe) =
            self.ring.get_mut().and_then(Option::as_mut).and_then(|ring| ring.completion().next())
        {
            let (place, piece) =
                (cqe.user_data() as usize / MOST_PIECES, cqe.user_data() as usize % MOST_PIECES);
            let Some(slot) = self.pending.get_mut(place) else { continue };
            let Some(pending) = slot else { continue };
            pending.pieces.results[piece] = cqe.result();
            pending.pieces.left -= 1;
            if pending.pieces.left == 0
                && let Some(pending) = slot.take()
            {
                self.in_flight -= 1;
                self.finish(pending);
            }
        }
        Ok(())
    }

    /// Writes what is not written yet.
    fn finish(&mut self, pending: Pending) {
        let Pending { tag, offset, len, buf, pieces } = pending;
        let whole = &buf[..len as usize];
        let result = self.file.write_rest(offset, whole, pieces.written(whole.len()));
        self.file.written(offset, u64::from(len));
        self.done.push_back(WriteDone { tag, buf, result });
    }
}

/// The entries of a write, each linked to the next: an error or a short count cancels those after it.
fn entries(pending: &Pending, place: usize, fd: types::Fd) -> [squeue::Entry; MOST_PIECES] {
    let (whole, size) = (&pending.buf[..pending.len as usize], pending.pieces.size);
    std::array::from_fn(|piece| {
        let from = (piece * size).min(whole.len());
        let part = &whole[from..(from + size).min(whole.len())];
        let entry = opcode::Write::new(fd, part.as_ptr(), part.len() as u32)
            .offset(pending.offset + from as u64)
            .build()
            .user_data((place * MOST_PIECES + piece) as u64);
        let last = piece + 1 >= pending.pieces.left;
        if last { entry } else { entry.flags(squeue::Flags::IO_LINK) }
    })
}

/// A ring that has done something: a seccomp filter may allow the set-up and refuse the use.
fn working_ring(depth: u32) -> Option<IoUring> {
    let mut ring = IoUring::new(depth).ok()?;
    let entry = opcode::Nop::new().build().user_data(u64::MAX);
    // SAFETY: a no-op refers to no memory and no descriptor.
    unsafe { ring.submission().push(&entry) }.ok()?;
    loop {
        match ring.submit_and_wait(1) {
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
            result => {
                result.ok()?;
                break;
            }
        }
    }
    let worked = ring.completion().next().is_some_and(|done| done.result() == 0);
    worked.then_some(ring)
}

impl Drop for DirectWriter {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if self.reap().is_err() {
                // The kernel may still read them: leak rather than free under it.
                for pending in self.pending.drain(..) {
                    std::mem::forget(pending);
                }
                std::mem::forget(Arc::clone(&self.file));
                return;
            }
        }
    }
}

impl std::fmt::Debug for DirectWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectWriter")
            .field("io_uring", &self.ring.get().map(Option::is_some))
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_ends_at_the_first_piece_that_is_not_whole() {
        let len = 2 * PIECE + 4096;
        let mut pieces = Pieces::small(len);
        assert_eq!((pieces.size, pieces.left), (PIECE, 3));
        let whole = PIECE as i32;
        for (results, written) in [
            ([whole, whole, 4096], len),
            ([whole, 512, -125], PIECE + 512),
            ([whole, -5, -125], PIECE),
            // Never linked so, and never believed.
            ([-5, whole, 4096], 0),
            ([i32::MAX, whole, i32::MAX], len),
        ] {
            pieces.results[..3].copy_from_slice(&results);
            assert_eq!(pieces.written(len), written, "{results:?}");
        }
    }

    /// The kernel cuts a write short at the greatest length that a file may have here, and does not begin the pieces behind it. They are written once the
    /// write is taken back.
    #[test]
    fn what_the_kernel_leaves_of_a_write_in_pieces_is_written_when_it_is_taken_back() {
        const LEN: usize = 6 * PIECE;
        // The process's, so what else runs in it is to write less; as under `cargo nextest`, where that is nothing.
        fn longest_file(bytes: libc::rlim_t) {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: it reads one `rlimit`, a live local.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
        }
        let file = Arc::new(DirectFile::create(std::path::Path::new("/var/tmp")).unwrap());
        let mut writer = DirectWriter::new(Arc::clone(&file), 2);
        if !writer.uses_io_uring() {
            return eprintln!("skipped: no io_uring");
        }
        let mut block = AlignedBuf::zeroed(BLOCK);
        file.write_at(0, &block).unwrap();
        file.read_at(0, &mut block).unwrap();
        let mut buf = AlignedBuf::zeroed(LEN);
        for (at, word) in buf.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            *word = (at as u64 + 1).to_le_bytes();
        }
        longest_file((2 * PIECE + 2 * BLOCK) as libc::rlim_t);
        writer.submit(0, buf, LEN, 7).unwrap();
        // All of its pieces have ended, and nobody has looked yet.
        writer.ring.get_mut().and_then(Option::as_mut).unwrap().submit_and_wait(6).unwrap();
        let mut back = AlignedBuf::zeroed(LEN);
        assert_eq!(file.read_at(0, &mut back).unwrap(), 2 * PIECE + 2 * BLOCK, "not cut short");
        longest_file(libc::RLIM_INFINITY);
        let done = writer.wait().unwrap().unwrap();
        done.result.unwrap();
        assert_eq!(file.read_at(0, &mut back).unwrap(), LEN);
        assert!(back[..] == done.buf[..], "not what was written");
    }

    #[test]
    fn a_write_has_no_more_pieces_than_there_are_entries() {
        for len in [4096, PIECE, PIECE + 4096, 8 * PIECE, 8 * PIECE + 4096, 64 * PIECE + 4096] {
            for pieces in [Pieces::small(len), Pieces::whole(len)] {
                assert!(pieces.left <= MOST_PIECES && pieces.size.is_multiple_of(BLOCK), "{len}: {pieces:?}");
                assert!((pieces.left - 1) * pieces.size < len && len <= pieces.left * pieces.size);
            }
        }
    }
}
