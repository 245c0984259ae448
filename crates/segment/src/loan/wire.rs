//! What lender and borrower say to each other: messages of numbers of 32 bits, on a `SOCK_SEQPACKET` socket in the store's directory.
//!
//! The borrower begins with [`HELLO`], the lender answers with the same, the segments of the whole file, and the file's descriptor. Then the borrower asks:
//!
//! | borrower | lender |
//! | --- | --- |
//! | `BORROW`, how many at most | `BORROW`, the number of each |
//! | `SPARE` | `SPARE`, how many it could still lend, as things stand |
//! | `BACK`, the number of each | nothing |
//!
//! An answer may come late, and then is the last question's: no other is asked before. Each side looks who is at the other end.

use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustix::process::{Uid, geteuid};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use vswap_sys::scm;

/// The first message: "vswr", and the version of all this.
pub(super) const HELLO: [u32; 2] = [0x7277_7376, 1];
pub(super) const BORROW: u32 = 1;
pub(super) const SPARE: u32 = 2;
pub(super) const BACK: u32 = 3;

/// The most segments in one message.
pub(super) const MOST: usize = 64;
/// The most numbers of a message.
const NUMBERS: usize = MOST + 1;

/// The socket's name in the store's directory.
pub(super) const NAME: &str = ".vswap-room";

/// Whether this user or root lends, or has lent and was killed, room of a store in a directory.
#[must_use]
pub fn is_lent(dir: &Path) -> bool {
    let found = std::fs::symlink_metadata(dir.join(NAME));
    found.is_ok_and(|found| found.file_type().is_socket() && is_ours(Uid::from_raw(found.uid())))
}

fn is_ours(uid: Uid) -> bool {
    uid == geteuid() || uid.is_root()
}

/// Whether at the other end is this user or root.
pub(super) fn is_trusted(socket: &OwnedFd) -> bool {
    socket_peercred(socket).is_ok_and(|peer| is_ours(peer.uid))
}

/// A socket, and the address of one in `dir`: by the directory's descriptor, since an address has room for 107 bytes and a path may be longer. The descriptor is to be kept while the address is used.
pub(super) fn address(dir: &Path) -> io::Result<(OwnedFd, SocketAddrUnix, OwnedFd)> {
    let opened = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{NAME}", opened.as_raw_fd()))?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((socket, address, opened))
}

pub(super) fn send(socket: &OwnedFd, numbers: &[u32], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    scm::send(socket.as_fd(), &bytes, file.as_slice())
}

/// One message; `None` when the other end is closed. What is longer than any message may be is cut.
pub(super) fn receive(socket: &OwnedFd) -> io::Result<Option<(Vec<u32>, Option<OwnedFd>)>> {
    let mut bytes = [0; NUMBERS * 4];
    let (many, fds) = scm::receive(socket.as_fd(), &mut bytes)?;
    if many == 0 {
        return Ok(None);
    }
    let numbers = bytes[..many].as_chunks().0.iter().map(|number| u32::from_le_bytes(*number)).collect();
    Ok(Some((numbers, fds.into_iter().next())))
}
