//! Calls that make private memory: `mmap`, `brk`, `mremap`.
//!
//! A small process is left alone until it has [`Supervisor::threshold`] mapped; then it gets a stub and is managed. In
//! a managed process the stub makes the mapping, so that it is registered, or granted to the kernel while there is room,
//! before the program knows of it.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use vswap_core::ByteCount;
use vswap_sys::{call, process};

use crate::supervisor::{Call, Supervisor};
use crate::tree::{Managed, Memory, Process, UNKNOWN};

const PAGE: u64 = 4096;
/// `include/uapi/linux/mman.h`.
const MREMAP_DONTUNMAP: u64 = 4;

/// What a small process has asked for since it was looked at, until it is again.
const LOOK_EVERY: u64 = 512 << 10;
/// A small process goes on after so long even if the limit is exceeded.
const ROOM_COMES_WITHIN: Duration = Duration::from_millis(50);
/// Above this a mapping that was found is not just a thread's stack: most of it will be touched, if any.
const LARGER_THAN_STACKS: u64 = 16 << 20;

fn pages(len: u64) -> u64 {
    len.saturating_add(PAGE - 1) & !(PAGE - 1)
}

/// Parts of `range` that none of `holes` covers.
fn without(range: Range<u64>, holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut parts = vec![range];
    for hole in holes {
        parts = parts
            .into_iter()
            .flat_map(|part| [part.start..part.end.min(hole.start), part.start.max(hole.end)..part.end])
            .filter(|part| part.start < part.end)
            .collect();
    }
    parts
}

/// What of a process can be managed; `own` is the stub's.
pub(crate) fn manageable_ranges(pid: i32, own: &[Range<u64>]) -> io::Result<Vec<Range<u64>>> {
    let maps = process::maps(pid)?;
    Ok(maps
        .into_iter()
        .filter(process::MapEntry::is_manageable)
        .flat_map(|map| without(map.range, own))
        .collect())
}

impl Managed {
    pub(crate) fn own(&self) -> [Range<u64>; 2] {
        [self.stub.own.clone(), self.stub.staging_range()]
    }

    /// Its stub was sent away: nothing is moved out, nothing new is managed.
    pub(crate) fn is_left(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Manages, or grants to the kernel, what there is and is neither yet.
    pub(crate) fn look(&self, memory: &Memory) -> io::Result<()> {
        memory.unseen.store(0, Relaxed);
        if self.is_left() {
            return Ok(());
        }
        for range in manageable_ranges(self.space.pid(), &self.own())? {
            let huge = range.end - range.start > LARGER_THAN_STACKS;
            if let Err(error) = self.space.cover(range.clone(), huge) {
                // The program may have taken it away meanwhile, or serves its faults itself.
                tracing::debug!(?range, %error, "not managed");
            }
        }
        Ok(())
    }
}

impl Supervisor {
    /// Counts what a small process has come to use since somebody looked. The sampler comes by ten times a second: a few
    /// children that start meanwhile can be tens of megabytes.
    ///
    /// If that leaves no room, the call waits a while for eviction to make some.
    fn count_growth(self: &Arc<Self>, process: &Process, memory: &Memory, more: u64) {
        if memory.asked.fetch_add(more, Relaxed) + more < LOOK_EVERY {
            return;
        }
        memory.asked.store(0, Relaxed);
        let Ok(size) = process.statm.read() else { return };
        let now = size.resident.saturating_sub(size.shared);
        let before = memory.counted.load(Relaxed);
        if before == UNKNOWN {
            // It may share all of that with its parent.
            memory.counted.store(now, Relaxed);
            return;
        }
        // What it gave back is for the sampler to see: it may take and give many times.
        let growth = now.saturating_sub(before);
        if growth > 0 {
            memory.counted.store(now, Relaxed);
            memory.grown.fetch_add(growth, Relaxed);
            self.grown.fetch_add(growth, Relaxed);
            self.pager().add_unmanaged(ByteCount::new(growth));
            if self.pager().is_short() {
                self.let_another_read();
                self.pager().wait_for_room(ROOM_COMES_WITHIN);
            }
        }
    }

    /// A process has ended: its growth since the sampler looked counts no more.
    pub(crate) fn forget_growth(&self, memory: &Memory) {
        let growth = memory.grown.swap(0, Relaxed);
        if growth > 0 {
            let less = |grown: u64| Some(grown.saturating_sub(growth));
            let _ = self.grown.fetch_update(Relaxed, Relaxed, less);
            self.pager().take_unmanaged(ByteCount::new(growth));
        }
    }

    /// Counts `more` bytes about to be mapped. Tells whether the process is too big to be left alone.
    fn outgrows(&self, process: &Process, memory: &Memory, more: u64) -> bool {
        let bound = memory.bound.fetch_add(more, Relaxed).saturating_add(more);
        if bound <= self.threshold || memory.hopeless.load(Relaxed) {
            return false;
        }
        let Ok(size) = process.statm.read() else { return false };
        let known = size.private_mapped + memory.reserved.load(Relaxed);
        memory.bound.store(known + more, Relaxed);
        known + more > self.threshold
    }
}

impl Call<'_> {
    /// `mmap` of anonymous private memory.
    ///
    /// In a managed process the stub makes it, however small: evictions and new mappings are then in one order, so that
    /// none takes pages from a mapping that it was not meant for.
    pub(crate) fn map(&self) {
        const PROT_NONE: u64 = 0;
        let [address, len, rights, flags, _, offset] = self.notification.args;
        let Some(managed) = self.memory.managed() else {
            if rights == PROT_NONE {
                self.memory.reserved.fetch_add(pages(len), Relaxed);
            }
            return self.grow_unmanaged(pages(len));
        };
        let work = self.work();
        self.await_evictions(&managed);
        if flags & call::MAP_UNUSUAL != 0 || managed.is_left() {
            self.memory.unseen.fetch_add(pages(len), Relaxed);
            return self.proceed();
        }
        let flags = flags & !call::MAP_POPULATE;
        let made = self.through_stub(
            &managed,
            call::MMAP,
            [address, len, rights, flags, self.supervisor.mark, offset],
        );
        if let Ok(at) = made {
            let range = at as u64..at as u64 + pages(len);
            if rights == PROT_NONE || flags & call::MAP_NORESERVE != 0 {
                // It says itself that it may need little of it.
                self.manage(&managed, range);
            } else {
                self.take(&managed, range, flags & call::MAP_STACK == 0);
            }
        }
        drop(work);
        self.answer_with(made);
    }

    fn take(&self, managed: &Managed, range: Range<u64>, huge: bool) {
        if let Err(error) = managed.space.take(range.clone(), huge) {
            tracing::debug!(?range, %error, "a new mapping is not managed");
        }
    }

    fn manage(&self, managed: &Managed, range: Range<u64>) {
        managed.space.forget_grants(&range);
        if let Err(error) = managed.space.manage(range.clone()) {
            tracing::debug!(?range, %error, "a new mapping is not managed");
        }
    }

    /// `madvise` with `MADV_WIPEONFORK` or `MADV_FREE`.
    ///
    /// `MADV_FREE` leaves pages in the page table that the program may write without a fault, after the same event as a
    /// discard: who takes them for gone loses what is written. Giving them up at once is one of the things that it
    /// allows the kernel to do.
    pub(crate) fn advise(&self) {
        let advice = self.arg(2);
        if advice == call::WIPEONFORK {
            self.memory.wipes.store(true, Relaxed);
        }
        match self.memory.managed() {
            Some(managed) if advice == call::FREE && !managed.is_left() => {
                let _work = self.work();
                let args = [self.arg(0), self.arg(1), call::DONTNEED, 0, 0, self.supervisor.mark];
                let made = self.through_stub(&managed, call::MADVISE, args);
                self.answer_with(made);
            }
            _ => self.proceed(),
        }
    }

    /// The manageable parts of `whole`.
    fn mapped_within(&self, managed: &Managed, whole: &Range<u64>) -> Vec<Range<u64>> {
        let ranges = manageable_ranges(managed.space.pid(), &managed.own()).unwrap_or_default();
        let clipped = ranges.into_iter().map(|range| range.start.max(whole.start)..range.end.min(whole.end));
        clipped.filter(|range| !range.is_empty()).collect()
    }

    fn take_what_is_mapped(&self, managed: &Managed, whole: Range<u64>) {
        for range in self.mapped_within(managed, &whole) {
            self.take(managed, range, true);
        }
    }

    fn grow_unmanaged(&self, more: u64) {
        self.supervisor.count_growth(&self.process, &self.memory, more);
        if self.supervisor.outgrows(&self.process, &self.memory, more) {
            self.proceed_and_manage();
        } else {
            self.proceed();
        }
    }

    /// `brk`.
    pub(crate) fn set_break(&self) {
        let Some(managed) = self.memory.managed() else {
            let before = self.memory.heap_end.swap(self.arg(0), Relaxed);
            if before == 0 {
                self.memory.bound.store(UNKNOWN, Relaxed);
            }
            let more = if before == 0 { 0 } else { self.arg(0).saturating_sub(before) };
            return self.grow_unmanaged(pages(more));
        };
        let _work = self.work();
        self.await_evictions(&managed);
        if managed.is_left() {
            return self.proceed();
        }
        let mark = self.supervisor.mark;
        let mut before = self.memory.heap_end.load(Relaxed);
        let wanted = self.arg(0);
        // A grant needs nothing of the stub. Should the kernel refuse to move the break, what was granted is not there.
        if before != 0
            && wanted > before
            && managed.space.granted_in(&(pages(before)..pages(wanted))) == 0
            && managed.space.grant(&(pages(before)..pages(wanted))).is_ok_and(|granted| granted)
        {
            self.memory.heap_end.store(wanted, Relaxed);
            return self.proceed();
        }
        if before == 0 {
            before = self.through_stub(&managed, call::BRK, [0, 0, 0, 0, 0, mark]).unwrap_or(0) as u64;
        }
        let made = self.through_stub(&managed, call::BRK, [self.arg(0), 0, 0, 0, 0, mark]);
        if let Ok(now) = made {
            let now = now as u64;
            self.memory.heap_end.store(now, Relaxed);
            if before != 0 && pages(now) > pages(before) {
                self.take(&managed, pages(before)..pages(now), true);
            } else if before != 0 {
                managed.space.forget_grants(&(pages(now)..pages(before).max(pages(now))));
            }
        }
        self.answer_with(made);
    }

    /// `mremap`.
    pub(crate) fn remap(&self) {
        let [old, old_len, new_len, flags, new, _] = self.notification.args;
        let Some(managed) = self.memory.managed() else {
            return self.grow_unmanaged(pages(new_len).saturating_sub(pages(old_len)));
        };
        // What the kernel refuses whatever is there.
        let Some(end) = old.checked_add(pages(old_len)).filter(|_| old.is_multiple_of(PAGE)) else {
            return self.proceed();
        };
        let from = old..end;
        let _work = self.work();
        // Nothing may be in flight or staged while pages change their addresses: neither what moves, nor what was where it
        // moves to.
        self.supervisor.let_another_read();
        let _hold = managed.space.hold();
        self.await_evictions(&managed);
        if managed.is_left() {
            return self.proceed();
        }
        // What is granted moves as the kernel pleases.
        let granted = managed.space.release_grant(&from);
        if !granted && managed.space.granted_in(&from) > 0 {
            managed.space.call_in();
        }
        let args = [old, old_len, new_len, flags, new, self.supervisor.mark];
        let made = self.through_stub(&managed, call::MREMAP, args);
        if let Ok(at) = made {
            self.take_what_is_mapped(&managed, at as u64..at as u64 + pages(new_len));
        }
        if granted && (made.is_err() || flags & MREMAP_DONTUNMAP != 0) {
            self.take_what_is_mapped(&managed, from);
        } else if flags & MREMAP_DONTUNMAP != 0 && made.is_ok() {
            // The old addresses stay mapped and registered, empty.
            for range in self.mapped_within(&managed, &from) {
                self.manage(&managed, range);
            }
        }
        self.answer_with(made);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn holes_are_cut_out_of_a_range() {
        assert_eq!(without(0..10, &[3..5, 8..20]), [0..3, 5..8]);
        assert_eq!(without(0..10, &[0..10]), []);
        assert_eq!(without(0..10, &[20..30]), [0..10]);
    }
}
