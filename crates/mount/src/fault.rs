//! [`Fault`]: what an operation on the source answers in place of a result, and whether the source answered at all.

use rustix::io::Errno;

/// Why something could not be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The source does not answer: what is in the store takes its place where it can.
    Gone(Errno),
    /// The source's answer.
    Says(Errno),
}

/// What the source gives, or why not.
pub type Res<T> = Result<T, Fault>;

/// What a file system says that has lost its server or its device.
const GONE: &[Errno] = &[
    Errno::IO,
    Errno::NOTCONN,
    Errno::STALE,
    Errno::TIMEDOUT,
    Errno::HOSTDOWN,
    Errno::HOSTUNREACH,
    Errno::NETDOWN,
    Errno::NETUNREACH,
    Errno::CONNABORTED,
    Errno::CONNRESET,
    Errno::NODEV,
    Errno::SHUTDOWN,
];

/// What says nothing of the source: this program, or the machine, has come to an end of what it may have.
const OURS: [Errno; 3] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];

impl Fault {
    /// As the kernel is told.
    pub fn errno(self) -> fuser::Errno {
        fuser::Errno::from_i32(self.raw().raw_os_error())
    }

    pub fn raw(self) -> Errno {
        let (Self::Gone(errno) | Self::Says(errno)) = self;
        errno
    }

    pub fn is_gone(self) -> bool {
        matches!(self, Self::Gone(_))
    }

    /// Of the source's own directory: without it there is nothing to ask, and what it says of itself says nothing of what is in it.
    pub fn of_root(errno: Errno) -> Self {
        if OURS.contains(&errno) {
            return Self::Says(errno);
        }
        Self::Gone(if GONE.contains(&errno) { errno } else { Errno::IO })
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        if GONE.contains(&errno) { Self::Gone(errno) } else { Self::Says(errno) }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Errno::from_io_error(&error).unwrap_or(Errno::IO).into()
    }
}

#[cfg(test)]
mod tests {
    use super::Fault;
    use rustix::io::Errno;

    #[test]
    fn a_source_that_is_gone_is_told_from_one_that_refuses() {
        assert!(Fault::from(Errno::NOTCONN).is_gone() && Fault::from(Errno::STALE).is_gone());
        assert!(!Fault::from(Errno::NOENT).is_gone() && !Fault::from(Errno::NOSPC).is_gone());
        assert_eq!(Fault::of_root(Errno::NOENT), Fault::Gone(Errno::IO));
        assert!(!Fault::of_root(Errno::MFILE).is_gone());
    }
}
