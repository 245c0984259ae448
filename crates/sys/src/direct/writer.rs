//! [`DirectWriter`]: a few large writes in flight at once.
//!
//! One writer belongs to one thread at a time (`&mut self`); it holds no lock while it waits. Every
//! write that io_uring does not finish exactly (an error, a short count) is finished with `pwrite`,
//! whose answer is the definitive one, so both ways fail alike.
//!
//! # Safety
//! An io_uring entry names a buffer and a descriptor that must outlive it. Both are owned by the
//! writer until the entry's completion was taken from the queue; `Drop` waits for those still out,
//! and leaks them if it cannot.
#![allow(unsafe_code)]

use super::{AlignedBuf, DirectFile, is_block_multiple};
use io_uring::{IoUring, opcode, types};
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

#[derive(Debug)]
struct Pending {
    tag: u64,
    offset: u64,
    len: u32,
    buf: AlignedBuf,
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
        Self { ring, pending, done: VecDeque::with_capacity(depth), in_flight: 0, file }
    }

    /// Whether writes go through io_uring.
    #[must_use]
    pub fn uses_io_uring(&self) -> bool {
        self.ring.get_or_init(|| working_ring(self.pending.len() as u32)).is_some()
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
        let pending = Pending { tag, offset, len, buf };
        let Some(place) = self.pending.iter().position(Option::is_none) else {
            return Err((
                io::Error::new(io::ErrorKind::WouldBlock, "no place for another write"),
                pending.buf,
            ));
        };
        if self.uses_io_uring() {
            let pending = self.pending[place].insert(pending);
            let fd = types::Fd(self.file.as_fd().as_raw_fd());
            let entry = opcode::Write::new(fd, pending.buf.as_ptr(), pending.len)
                .offset(pending.offset)
                .build()
                .user_data(place as u64);
            let ring = self.ring.get_mut().and_then(Option::as_mut).expect("checked above");
            // SAFETY: (1) the buffer is readable for `len` bytes (checked above) and stays in
            // `self.pending[place]`, unmoved and unwritten on the heap, until its completion is taken
            // (`finish`) or leaked (`Drop`); (2) the descriptor is kept open by `self.file` as long;
            // (3) the entry is a plain write, which touches nothing else.
            if unsafe { ring.submission().push(&entry) }.is_ok() {
                self.in_flight += 1;
                // An error here leaves the entry queued; `wait` submits again.
                let _ = ring.submit();
                return Ok(());
            }
            let pending = self.pending[place].take().expect("put there above");
            self.finish(pending, None);
            return Ok(());
        }
        self.finish(pending, None);
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
            let place = usize::try_from(cqe.user_data()).unwrap_or(usize::MAX);
            if let Some(pending) = self.pending.get_mut(place).and_then(Option::take) {
                self.in_flight -= 1;
                self.finish(pending, Some(cqe.result()));
            }
        }
        Ok(())
    }

    fn finish(&mut self, pending: Pending, result: Option<i32>) {
        let Pending { tag, offset, len, buf } = pending;
        let whole = &buf[..len as usize];
        let written = result.and_then(|n| usize::try_from(n).ok()).unwrap_or(0).min(whole.len());
        let result = self.file.write_rest(offset, whole, written);
        self.file.written(offset, u64::from(len));
        self.done.push_back(WriteDone { tag, buf, result });
    }
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
