//! Sockets between related processes, and descriptors sent over them (`SCM_RIGHTS`).
//!
//! # Safety
//! Message headers point at live local arrays of the lengths stated; received descriptors are owned at once.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Descriptors in a message at most.
pub const FDS: usize = 4;

/// Makes a pair of connected sockets that keep messages apart, closed on exec.
///
/// # Errors
/// `EMFILE` and its kin.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: two live integers, as asked.
    let n = unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
    };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just made.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

const CONTROL_BYTES: usize = 16 + FDS * 4;

/// Room for one `cmsghdr` with [`FDS`] descriptors, aligned as it must be.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

fn header(iov: *mut libc::iovec, control: &mut Control, control_len: usize) -> libc::msghdr {
    // SAFETY: an all-zero `msghdr` is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = iov;
    message.msg_iovlen = 1;
    if control_len > 0 {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control_len as _;
    }
    message
}

/// Sends `bytes` as one message, with `fds`. Never raises `SIGPIPE`, allocates nothing.
///
/// # Errors
/// `EPIPE` if the other end is closed; `InvalidInput` for more than [`FDS`] descriptors.
pub fn send(socket: BorrowedFd, bytes: &[u8], fds: &[BorrowedFd]) -> io::Result<()> {
    if fds.len() > FDS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control = Control([0; CONTROL_BYTES]);
    let len = 16 + 4 * fds.len();
    control.0[..8].copy_from_slice(&len.to_ne_bytes());
    control.0[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    control.0[12..16].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
    for (i, fd) in fds.iter().enumerate() {
        control.0[16 + 4 * i..20 + 4 * i].copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
    }
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let message = header(&raw mut iov, &mut control, if fds.is_empty() { 0 } else { len });
    loop {
        // SAFETY: `message` points at live locals; the kernel only reads them.
        let n = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        let error = io::Error::last_os_error();
        match n {
            0.. => return Ok(()),
            _ if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

/// Receives one message: how many bytes (0: the other end is closed) and the descriptors with it.
///
/// # Errors
/// What `recvmsg` says.
pub fn receive(socket: BorrowedFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut message = header(&raw mut iov, &mut control, CONTROL_BYTES);
    let n = loop {
        // SAFETY: `message` points at live, exclusively borrowed buffers of the lengths stated.
        let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        let error = io::Error::last_os_error();
        match n {
            0.. => break n as usize,
            _ if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    };
    let mut fds = Vec::new();
    let int = |at: usize| i32::from_ne_bytes(control.0[at..at + 4].try_into().unwrap_or_default());
    if message.msg_controllen >= 20 && int(8) == libc::SOL_SOCKET && int(12) == libc::SCM_RIGHTS {
        let len = (int(0) as usize).min(CONTROL_BYTES);
        // SAFETY: the kernel has just made each of these descriptors for us.
        fds.extend((16..len).step_by(4).map(|at| unsafe { OwnedFd::from_raw_fd(int(at)) }));
    }
    Ok((n, fds))
}

/// Waits until something can be received (or the other end is closed), `timeout_ms` at most; tells whether it can.
pub fn wait_readable(socket: BorrowedFd, timeout_ms: i32) -> bool {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live `pollfd`.
    unsafe { libc::poll(&raw mut poll, 1, timeout_ms) == 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_sent_is_the_same_file() {
        let (a, b) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(a.as_fd(), b"hello", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut bytes = [0; 16];
        let (n, mut fds) = receive(b.as_fd(), &mut bytes).unwrap();
        assert_eq!((&bytes[..n], fds.len()), (&b"hello"[..], 1));
        std::fs::File::from(fds.pop().unwrap()).write_all(b"x").unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn a_closed_end_reads_as_nothing() {
        let (a, b) = pair().unwrap();
        drop(a);
        assert_eq!(receive(b.as_fd(), &mut [0; 8]).unwrap().0, 0);
    }
}
