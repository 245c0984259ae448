//! Who lives: processes of the tree in memory that front, engine and keeper share, so that whichever of them
//! outlives the engine can end what it left.
//!
//! A process is named by number and start time, never by number alone.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use vswap_sys::mapping::SharedMemory;
use vswap_sys::process;
use vswap_sys::signal::SIGKILL;

/// Processes listed at most; a tree that has more is only ended by its stubs and its failing calls.
const PLACES: usize = 8192;

/// The list. Its pages appear as they are used.
#[derive(Debug)]
pub(crate) struct Census(SharedMemory);

impl Census {
    pub(crate) fn new() -> io::Result<Census> {
        SharedMemory::new(c"vswap-census", PLACES * 16).map(Census)
    }

    fn places(&self) -> &[AtomicU64; PLACES * 2] {
        self.0.view()
    }

    /// Enters a process, if it is not there. Only the engine does, one thread at a time.
    pub(crate) fn enter(&self, pid: i32) {
        let Ok(start) = process::start_time(pid) else { return };
        let entry = [pid as u64, start];
        if self
            .places()
            .chunks_exact(2)
            .any(|place| [place[0].load(Relaxed), place[1].load(Relaxed)] == entry)
        {
            return;
        }
        if let Some(place) = self.places().chunks_exact(2).find(|place| place[0].load(Relaxed) == 0) {
            // Relaxed: readers check the start time against the kernel's before they act.
            place[1].store(start, Relaxed);
            place[0].store(pid as u64, Relaxed);
        }
    }

    /// Strikes a process out.
    pub(crate) fn strike(&self, pid: i32) {
        for place in self.places().chunks_exact(2).filter(|place| place[0].load(Relaxed) == pid as u64) {
            place[0].store(0, Relaxed);
        }
    }

    /// Kills all that are listed, with the children that they have, until none is left.
    pub(crate) fn kill_all(&self) {
        for _ in 0..20 {
            let mut found = false;
            for place in self.places().chunks_exact(2) {
                let (pid, start) = (place[0].load(Relaxed) as i32, place[1].load(Relaxed));
                if pid > 0 && process::start_time(pid).is_ok_and(|now| now == start) {
                    found |= kill_below(pid);
                }
            }
            if !found {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// Kills a process and its descendants. `false` if it was dead already.
fn kill_below(pid: i32) -> bool {
    let children = process::children(pid).unwrap_or_default();
    let alive = process::kill(pid, SIGKILL).is_ok();
    for child in children {
        kill_below(child);
    }
    alive && process::status(pid).is_ok_and(|status| status.threads > 0)
}
