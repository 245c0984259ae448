//! Waiting for many descriptors (epoll), and waking a waiter (eventfd).
//!
//! # Safety
//! Plain calls on descriptors owned by the values here; the only buffers are live local arrays.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A set of descriptors to wait for, each with a token.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// Tokens returned at a time.
pub const EVENTS: usize = 16;

impl Epoll {
    /// Makes an empty set, closed on exec.
    ///
    /// # Errors
    /// `EMFILE` and its kin.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers; the result is checked and owned here.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn control(&self, what: i32, fd: BorrowedFd, events: i32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: `event` is live; both descriptors are open for the call.
        let n = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), what, fd.as_raw_fd(), &raw mut event) };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Adds `fd`: [`Epoll::wait`] gives `token` whenever it can be read or has hung up.
    ///
    /// # Errors
    /// `EEXIST` if it is there already, `ENOMEM`, `ENOSPC`.
    pub fn add(&self, fd: BorrowedFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, token)
    }

    /// Adds `fd`: [`Epoll::wait`] gives `token` once it has hung up, not when it can be read.
    ///
    /// # Errors
    /// As [`Epoll::add`].
    pub fn add_hangup(&self, fd: BorrowedFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, 0, token)
    }

    /// Takes `fd` out.
    ///
    /// # Errors
    /// `ENOENT` if it is not in the set.
    pub fn remove(&self, fd: BorrowedFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Waits up to `timeout_ms` (for ever if negative) and fills `tokens`; returns how many.
    ///
    /// # Errors
    /// What the kernel says; an interrupting signal is 0 tokens.
    pub fn wait(&self, tokens: &mut [u64; EVENTS], timeout_ms: i32) -> io::Result<usize> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // SAFETY: `events` is live and of the length given.
        let n =
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), EVENTS as i32, timeout_ms) };
        if n < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) };
        }
        for (token, event) in tokens.iter_mut().zip(&events[..n as usize]) {
            *token = event.u64;
        }
        Ok(n as usize)
    }
}

/// A counter to wake a poller with.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    /// Makes one, non-blocking and closed on exec.
    ///
    /// # Errors
    /// `EMFILE` and its kin.
    pub fn new() -> io::Result<Event> {
        // SAFETY: no pointers; the result is checked and owned here.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made.
        Ok(Event(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes pollers see it, until [`Event::clear`].
    pub fn set(&self) {
        let one = 1u64;
        // SAFETY: eight live bytes are written, as an eventfd asks.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Takes the signal back.
    pub fn clear(&self) {
        let mut value = 0u64;
        // SAFETY: eight live bytes are read into.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut value).cast(), 8) };
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
