//! Faults noted for whoever writes them down: [`Recorder`].
//!
//! A note is put into a buffer that never grows, under a lock that is held for a moment; whoever writes takes the full buffer and
//! leaves an empty one. A note that finds no place is dropped, and counted: no fault waits for a writer.

use crate::stats::FaultKind;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use vswap_core::recording::{Recorded, Why};

/// Notes that there is room for: a few tenths of a second of nothing but faults, in half a MiB.
const ROOM: usize = 32 << 10;

/// Where the pager notes faults (`PagerConfig::record`).
#[derive(Debug)]
pub struct Recorder {
    notes: Mutex<Vec<Recorded>>,
    dropped: AtomicU64,
    over: AtomicBool,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder {
            notes: Mutex::new(Recorder::buffer()),
            dropped: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }
}

impl Recorder {
    /// An empty buffer for [`Recorder::take`].
    pub fn buffer() -> Vec<Recorded> {
        Vec::with_capacity(ROOM)
    }

    /// Whether faults are noted. As long as they are, each page that is touched is to be seen.
    pub fn is_on(&self) -> bool {
        !self.over.load(Relaxed)
    }

    /// Nothing is noted from now on, but for what is just being noted, and memory is left to the kernel and brought in ahead again.
    pub fn end(&self) {
        self.over.store(true, Relaxed);
    }

    /// Notes a fault. The order of the notes is the order in which the faults were answered.
    pub(crate) fn note(&self, space: u64, page: u64, kind: FaultKind) {
        if !self.is_on() {
            return;
        }
        let why = match kind {
            FaultKind::First => Why::First,
            FaultKind::Second => Why::Staged,
            FaultKind::Fill | FaultKind::Pool | FaultKind::Segment => Why::Out,
            FaultKind::Write => Why::Write,
        };
        let mut notes = self.notes.lock();
        if notes.len() < notes.capacity() {
            notes.push(Recorded { page, space: space as u32, why });
        } else {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Exchanges what was noted since the last time for `buffer`, which is emptied and must be one of [`Recorder::buffer`].
    pub fn take(&self, buffer: &mut Vec<Recorded>) {
        buffer.clear();
        std::mem::swap(&mut *self.notes.lock(), buffer);
    }

    /// Notes that found no place.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_beyond_the_room_are_counted_and_the_buffer_does_not_grow() {
        let recorder = Recorder::default();
        let (mut buffer, room) = (Recorder::buffer(), Recorder::buffer().capacity());
        for page in 0..room as u64 + 3 {
            recorder.note(1, page, FaultKind::Pool);
        }
        recorder.take(&mut buffer);
        assert_eq!((buffer.len(), buffer.capacity(), recorder.dropped()), (room, room, 3));
        assert_eq!(buffer[7], Recorded { page: 7, space: 1, why: Why::Out });
        recorder.note(2, 9, FaultKind::Write);
        recorder.take(&mut buffer);
        assert_eq!(buffer, [Recorded { page: 9, space: 2, why: Why::Write }]);
        recorder.end();
        recorder.note(2, 10, FaultKind::Write);
        recorder.take(&mut buffer);
        assert_eq!((buffer.len(), recorder.dropped(), recorder.is_on()), (0, 3, false));
    }
}
