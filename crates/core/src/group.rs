//! Groups: limit domains in a tree. A cluster is charged to one group and so to all above it.
//!
//! Invariant: a group's usage is at least the sum of its children's; a charge that any ancestor refuses
//! changes nothing (seen after it returned). Orderings are relaxed: a charge guards no memory, only a number,
//! and each change of it is one read-modify-write.

use crate::sync::{AtomicU64, Ordering};
use crate::units::{GroupId, PageCount};

/// One group.
#[derive(Debug)]
pub struct Group {
    /// The parent's number plus one; 0 for the root and for lines not in use.
    parent: AtomicU64,
    usage: AtomicU64,
    limit: AtomicU64,
}

impl Default for Group {
    fn default() -> Self {
        Self { parent: AtomicU64::new(0), usage: AtomicU64::new(0), limit: AtomicU64::new(u64::MAX) }
    }
}

/// Why a charge was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ChargeError {
    /// A group would pass its limit.
    OverLimit {
        /// Which.
        group: GroupId,
        /// What it has.
        usage: PageCount,
        /// What it may have.
        limit: PageCount,
    },
    /// No such group.
    Unknown {
        /// Which.
        group: GroupId,
    },
}

/// All groups; number 0 is the root. The memory is the caller's, since the core allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a>(&'a [Group]);

impl<'a> Groups<'a> {
    /// The groups in these lines.
    pub const fn new(lines: &'a [Group]) -> Self {
        Self(lines)
    }

    /// Makes an unused line a group below `parent`. Parents have lower numbers, so the tree has no circle.
    ///
    /// # Errors
    /// When the line is in use, there is no such line, or the parent is not a group made before it.
    pub fn make(self, group: GroupId, parent: GroupId, limit: PageCount) -> Result<(), ChargeError> {
        let unknown = ChargeError::Unknown { group };
        if parent >= group || !self.exists(parent) {
            return Err(unknown);
        }
        let line = self.line(group).ok_or(unknown)?;
        line.limit.store(limit.get(), Ordering::Relaxed);
        let up = u64::from(parent.get()) + 1;
        let made = line.parent.compare_exchange(0, up, Ordering::Relaxed, Ordering::Relaxed);
        made.map(|_| ()).map_err(|_| unknown)
    }

    /// Whether there is such a group.
    pub fn exists(self, group: GroupId) -> bool {
        let Some(line) = self.line(group) else { return false };
        group == GroupId::ROOT || line.parent.load(Ordering::Relaxed) != 0
    }

    /// Pages charged to a group and those below it.
    pub fn usage(self, group: GroupId) -> PageCount {
        self.line(group).map_or(PageCount::ZERO, |line| PageCount::new(line.usage.load(Ordering::Relaxed)))
    }

    /// Charges pages to a group and all above it.
    ///
    /// # Errors
    /// When one of them would pass its limit (nothing is charged then), or there is no such group.
    pub fn charge(self, group: GroupId, pages: PageCount) -> Result<(), ChargeError> {
        if !self.exists(group) {
            return Err(ChargeError::Unknown { group });
        }
        let mut at = Some(group);
        while let Some(id) = at {
            if let Err(error) = self.charge_one(id, pages) {
                self.uncharge_until(group, id, pages);
                return Err(error);
            }
            at = self.parent(id);
        }
        Ok(())
    }

    /// Takes a charge back from a group and all above it.
    pub fn uncharge(self, group: GroupId, pages: PageCount) {
        let mut at = Some(group);
        while let Some(id) = at {
            self.uncharge_one(id, pages);
            at = self.parent(id);
        }
    }

    fn uncharge_until(self, from: GroupId, end: GroupId, pages: PageCount) {
        let mut at = from;
        while at != end {
            self.uncharge_one(at, pages);
            let Some(up) = self.parent(at) else { return };
            at = up;
        }
    }

    fn charge_one(self, group: GroupId, pages: PageCount) -> Result<(), ChargeError> {
        let line = self.line(group).ok_or(ChargeError::Unknown { group })?;
        let mut usage = line.usage.load(Ordering::Relaxed);
        loop {
            let limit = line.limit.load(Ordering::Relaxed);
            let after = usage.saturating_add(pages.get());
            if after > limit {
                let (usage, limit) = (PageCount::new(usage), PageCount::new(limit));
                return Err(ChargeError::OverLimit { group, usage, limit });
            }
            match line.usage.compare_exchange(usage, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => usage = now,
            }
        }
    }

    fn uncharge_one(self, group: GroupId, pages: PageCount) {
        if let Some(line) = self.line(group) {
            let before = line.usage.fetch_sub(pages.get(), Ordering::Relaxed);
            debug_assert!(before >= pages.get(), "group {} gives back more than it has", group.get());
        }
    }

    fn parent(self, group: GroupId) -> Option<GroupId> {
        let up = self.line(group)?.parent.load(Ordering::Relaxed);
        u32::try_from(up.checked_sub(1)?).ok().map(GroupId::new)
    }

    fn line(self, group: GroupId) -> Option<&'a Group> {
        self.0.get(group.get() as usize)
    }
}
