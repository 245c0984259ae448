//! The gate of an address space: events are read *and applied* under its write side; pages are installed under its read side.
//!
//! So no install straddles an event: the kernel lets the program's discard go on only after the event was read, and an install is
//! either before that (and its page is discarded with the rest) or sees the event applied. (The discard goes on a moment after that, and may drop what has come in
//! between: see `BlockState::may_be_dropped`.)
//!
//! Whether there is an event or just another fault only the read tells, so every fault begins with the write side. Either side is
//! held for the microsecond that a system call takes, so who meets another spins for about as long before it sleeps: giving
//! up the CPU means to get it back after somebody's whole turn. For the same reason nobody is woken while it is held.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Looks at the gate before sleeping: a few microseconds' worth.
const SPINS: u32 = 100;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gate(RwLock<()>);

impl Gate {
    /// Shared with others who install.
    pub fn read(&self) -> RwLockReadGuard<'_, ()> {
        spin(|| self.0.try_read()).unwrap_or_else(|| self.0.read())
    }

    /// Alone, to read events.
    pub fn write(&self) -> RwLockWriteGuard<'_, ()> {
        spin(|| self.0.try_write()).unwrap_or_else(|| self.0.write())
    }
}

fn spin<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    (0..SPINS).find_map(|_| {
        attempt().or_else(|| {
            std::hint::spin_loop();
            None
        })
    })
}
