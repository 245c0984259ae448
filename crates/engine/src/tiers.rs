//! Tiers from outside: which there are, another one, one that works again.

use crate::config::TierConfig;
use crate::engine::Engine;
use crate::error::EngineError;
use std::path::PathBuf;
use std::sync::Arc;
use vswap_core::ByteCount;
use vswap_segment::{
    Area, AreaConfig, FileStorage, Ghost, Loan, MAX_TIERS, Storage, TierError, TierId, TierKind, TierState,
};

/// A tier at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Tier {
    /// Its number.
    pub id: TierId,
    /// What it is.
    pub kind: TierKind,
    /// Where it is: the directory of its file, or the file or device. `None` for what has no name.
    pub path: Option<PathBuf>,
    /// The highest that has room is written first.
    pub priority: i16,
    /// What it does.
    pub state: TierState,
    /// Bytes that it may hold as things stand.
    pub size: ByteCount,
    /// Bytes of the segments on it.
    pub used: ByteCount,
    /// Bytes of the compressed pages in them that somebody still wants.
    pub live: ByteCount,
}

impl Engine {
    /// Adds a tier while everything runs; what is written from now on may go there. Capacities add up.
    ///
    /// # Errors
    /// When its file cannot be made, the file or device is in use or holds what is not ours, or there are too many tiers.
    pub fn add_tier(&self, config: &TierConfig) -> Result<TierId, EngineError> {
        let TierConfig { kind, ref path, size, priority, force } = *config;
        // Before anything is made or overwritten for it.
        let _adding = self.disk.adding.lock();
        if self.disk.store().tiers().len() >= MAX_TIERS {
            return Err(TierError::TooMany { most: MAX_TIERS }.into());
        }
        let size = size.map(ByteCount::get);
        let area = || AreaConfig { path: path.clone(), size, force };
        let storage: Arc<dyn Storage> = match (kind, size) {
            (TierKind::Directory, Some(size)) => Arc::new(FileStorage::create(path, size)?),
            (TierKind::Directory, None) => Arc::new(FileStorage::create_elastic(path)?),
            (TierKind::Ghost, size) => {
                Arc::new(Ghost::new(size.unwrap_or(u64::MAX), Arc::clone(&self.disk.ghosts)))
            }
            (TierKind::File, _) => Arc::new(Area::file(&area())?),
            (TierKind::Device, _) => Arc::new(Area::device(&area())?),
            (TierKind::Store, size) => Arc::new(Loan::of_store(path, size)?),
        };
        Ok(self.disk.store().add_tier(storage, priority)?)
    }

    /// As [`Engine::add_tier`], over any storage.
    ///
    /// # Errors
    /// When there are too many tiers.
    pub fn add_storage(&self, storage: Arc<dyn Storage>, priority: i16) -> Result<TierId, TierError> {
        let _adding = self.disk.adding.lock();
        self.disk.store().add_tier(storage, priority)
    }

    /// All tiers, by number. Looks at every segment: some milliseconds for a terabyte.
    pub fn tiers(&self) -> Vec<Tier> {
        let store = self.disk.store();
        let of = |status: vswap_segment::TierStatus| Tier {
            id: status.tier,
            kind: store.kind(status.tier).unwrap_or(TierKind::Directory),
            path: store.path(status.tier),
            priority: status.priority,
            state: status.state,
            size: ByteCount::new(status.capacity),
            used: ByteCount::new(status.used),
            live: ByteCount::new(status.live),
        };
        store.tiers().into_iter().map(of).collect()
    }

    /// Lets a tier that failed take segments again: somebody has seen to its device.
    ///
    /// # Errors
    /// When there is no such tier, or it is being emptied.
    pub fn reopen_tier(&self, tier: TierId) -> Result<(), TierError> {
        self.disk.store().reopen_tier(tier)
    }
}
