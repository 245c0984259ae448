//! Pages whose bytes cannot be had: where they were and why, for whoever has to tell their reader.
//!
//! A slot's word says only that its page is lost. Who finds that out is often not who wants the page: the reader ahead, another owner since a
//! fork, the removal of a tier. So what was known then is kept for the last few.

use crate::engine::Engine;
use crate::error::LoadError;
use parking_lot::Mutex;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use vswap_core::{Last, SlotId};
use vswap_segment::{EntryAddr, FormatError, ReadError, TierId};

/// Losses that are remembered.
const REMEMBERED: usize = 64;

/// Why a page's bytes cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// What is in their place is not what was written.
    Damaged(FormatError),
    /// The device did not give them; its error number, if it has one.
    Device(Option<i32>),
    /// The address is out of date: a fault of this program.
    Astray,
    /// They are those that were written, and do not give a page: a fault of this program or of the machine's memory.
    Undecodable,
    /// They were given up when their tier was removed.
    GivenUp,
    /// They could not be taken along when their mapping was moved.
    LeftBehind,
    /// They are neither in memory nor stored.
    Nowhere,
    /// A former run has left no entry for them.
    Unlisted,
    /// They were found lost before, too long ago to know more.
    Forgotten,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged(fault) => fault.what(),
            Self::Device(Some(errno)) => {
                return write!(f, "device error: {}", std::io::Error::from_raw_os_error(*errno));
            }
            Self::Device(None) => "device error",
            Self::Astray => "nothing is stored in its place",
            Self::Undecodable => "does not decompress",
            Self::GivenUp => "given up with its tier (--lose-unreadable)",
            Self::LeftBehind => "could not be taken along in an mremap",
            Self::Nowhere => "neither in memory nor stored",
            Self::Unlisted => "a former run has left nothing for it",
            Self::Forgotten => "was found lost before",
        })
    }
}

/// Where a page was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// On which tier.
    pub tier: TierId,
    /// Where that is; `None` for what has no name.
    pub name: Option<Arc<Path>>,
    /// Where its entry begins in the tier's file or device, in bytes.
    pub offset: u64,
}

/// What is known of a page whose bytes cannot be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// Where it was, if that is known, and if it was on a tier.
    pub place: Option<Place>,
    /// Why.
    pub reason: Reason,
}

impl From<Reason> for Lost {
    fn from(reason: Reason) -> Self {
        Self { place: None, reason }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(Place { tier, name: Some(name), offset }) => {
                write!(f, "{tier} ({}), offset {offset:#x}: ", name.display())?;
            }
            Some(Place { tier, name: None, offset }) => write!(f, "{tier}, offset {offset:#x}: ")?,
            None => f.write_str("on no tier: ")?,
        }
        self.reason.fmt(f)
    }
}

/// The last losses. The newest of a slot is that of its present loss, if its word says that it is lost. A leaf of the locks.
#[derive(Debug, Default)]
pub(crate) struct Losses(Mutex<Last<(SlotId, Lost), REMEMBERED>>);

impl Losses {
    /// Allocates nothing.
    pub(crate) fn remember(&self, slot: SlotId, lost: Lost) {
        self.0.lock().push((slot, lost));
    }

    fn of(&self, slot: SlotId) -> Option<Lost> {
        self.0.lock().newest_first().find(|(other, _)| *other == slot).map(|(_, lost)| lost.clone())
    }
}

impl Engine {
    /// What is known of a page that could not be loaded. Allocates nothing.
    pub fn lost(&self, error: &LoadError) -> Lost {
        match error {
            LoadError::Corrupt { source, .. } | LoadError::Io { source, .. } => self.lost_by(source),
            LoadError::Poisoned { slot } => self.losses.of(*slot).unwrap_or(Reason::Forgotten.into()),
            LoadError::Damaged { slot } => self.losses.of(*slot).unwrap_or(Reason::Undecodable.into()),
            LoadError::NoSlot { .. } => Reason::Nowhere.into(),
        }
    }

    pub(crate) fn lost_by(&self, error: &ReadError) -> Lost {
        let reason = match error {
            ReadError::Damaged { fault, .. } => Reason::Damaged(*fault),
            ReadError::Io { source, .. } => Reason::Device(source.raw_os_error()),
            _ => Reason::Astray,
        };
        let place = error.tier().zip(error.file_offset()).map(|(tier, offset)| self.place(tier, offset));
        Lost { place, reason }
    }

    /// A page that is lost for this reason, where its entry is now.
    pub(crate) fn lost_at(&self, addr: Option<EntryAddr>, reason: Reason) -> Lost {
        let at = addr.and_then(|addr| self.disk.store().whereabouts(addr));
        Lost { place: at.map(|(tier, offset)| self.place(tier, offset)), reason }
    }

    fn place(&self, tier: TierId, offset: u64) -> Place {
        Place { tier, name: self.disk.store().name(tier), offset }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lost, Place, Reason};
    use std::path::Path;
    use vswap_segment::{FormatError, TierId};

    #[test]
    fn a_loss_says_where_and_why_in_one_line() {
        let place = |name: Option<&str>| Place {
            tier: TierId::new(3),
            name: name.map(|name| Path::new(name).into()),
            offset: 0x12000,
        };
        let seal = Reason::Damaged(FormatError::Checksum { offset: 0x2000 });
        let lost = Lost { place: Some(place(Some("/var/tmp"))), reason: seal };
        assert_eq!(lost.to_string(), "tier 3 (/var/tmp), offset 0x12000: checksum does not match");
        let lost = Lost { place: Some(place(None)), reason: Reason::Device(Some(5)) };
        assert_eq!(lost.to_string(), "tier 3, offset 0x12000: device error: Input/output error (os error 5)");
        assert_eq!(Lost::from(Reason::Nowhere).to_string(), "on no tier: neither in memory nor stored");
    }
}
