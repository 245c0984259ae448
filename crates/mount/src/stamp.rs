//! [`Stamp`]: what tells whether the source's file is still the one whose bytes are kept; [`Mark`]: that, beside the bytes.
//!
//! Two changes within one tick of the source's clock leave the same times, so bytes that were fetched soon after a change may be of before the
//! next one. They are good as long as the change is young: then they are not *settled*, and fetched once more later (git calls such a file racily clean).

use crate::attr::{Identity, Time};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The form of what is kept.
const FORM: u8 = 1;
/// Seconds after which a change is told from the next one by its time: file systems that count every other second are the coarsest.
const YOUNG: i64 = 2;

/// What changes with every change of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stamp {
    pub identity: Identity,
    pub size: u64,
    pub mtime: Time,
    pub ctime: Time,
}

impl Stamp {
    /// Whether the next change will have another time.
    pub fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
        // One that lies ahead was set by hand, or by another clock: then the other time tells.
        let mtime = Some(self.mtime.0).filter(|mtime| *mtime <= now.saturating_add(YOUNG));
        mtime.unwrap_or(i64::MIN).max(self.ctime.0).saturating_add(YOUNG) < now
    }

    /// Whether its content was changed longer ago than that, as far as its times tell.
    pub fn is_older_than(&self, age: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
        self.mtime.0.saturating_add(age.as_secs() as i64) < now
    }

    /// Whether the kernel's own pages cannot tell that it is another: they know length and time of change.
    pub fn looks_like(&self, other: &Self) -> bool {
        (self.size, self.mtime) == (other.size, other.mtime)
    }
}

/// What is kept beside a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    pub stamp: Stamp,
    /// No byte was fetched while the stamp was young.
    pub settled: bool,
}

impl Mark {
    /// Whether bytes of this mark are those of a file that has this stamp now.
    pub fn holds(&self, now: &Stamp) -> bool {
        self.stamp == *now && (self.settled || !now.is_settled())
    }

    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(&(FORM, self)).unwrap_or_default()
    }

    /// `None` also for what is being written: see `content.rs`.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (form, mark) = postcard::from_bytes::<(u8, Self)>(bytes).ok()?;
        (form == FORM).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::{Mark, Stamp};
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn what_was_fetched_soon_after_a_change_does_not_hold_for_long() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let of = |ctime| Stamp { identity: (0, 7), size: 3, mtime: (5, 0), ctime: (ctime, 0) };
        let (old, young) = (of(now - 100), of(now));
        assert!(
            Mark { stamp: old, settled: true }.holds(&old)
                && !Mark { stamp: old, settled: false }.holds(&old)
        );
        assert!(Mark { stamp: young, settled: false }.holds(&young));
        assert!(!Mark { stamp: young, settled: true }.holds(&old));
        let mark = Mark { stamp: young, settled: true };
        assert_eq!(Mark::decode(&mark.encode()), Some(mark));
        assert_eq!((Mark::decode(b""), Mark::decode(b"\x02")), (None, None));
    }
}
