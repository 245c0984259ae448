//! What the injector leaves on the stub's stack, and the names of the steps of its beginning.

/// At the stack pointer of a stub when it starts.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The run's mark: what the seccomp filter knows the stub's calls by.
    pub mark: u64,
    /// The stub's end of the socket to the supervisor.
    pub socket: u64,
}

/// Values of [`crate::protocol::Hello::step`].
pub mod step {
    /// Receiving the descriptors.
    pub const RECEIVE: u64 = 1;
    /// Mapping the ring.
    pub const RING: u64 = 2;
    /// Opening a userfaultfd.
    pub const USERFAULTFD: u64 = 3;
    /// Agreeing on its features.
    pub const FEATURES: u64 = 4;
    /// Mapping the staging area.
    pub const STAGING: u64 = 5;
    /// Registering it.
    pub const REGISTER: u64 = 6;
}
