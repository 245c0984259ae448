//! What makes an object one that is kept, and the gate for whoever changes such objects.

use crate::object::Object;
use crate::slots::Claim;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Who changes objects that are kept.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Shut while it is seen what there is to commit.
    pub(super) gate: RwLock<()>,
    pub(super) changed: Mutex<BTreeSet<u64>>,
}

/// What makes an object one that is kept.
#[derive(Debug)]
pub(crate) struct Keeping {
    pub(crate) claim: Claim,
    pub(super) changes: Arc<Changes>,
}

impl Keeping {
    /// The object is about to be changed. Until the guard is dropped, no commit begins.
    pub(crate) fn changing(&self) -> RwLockReadGuard<'_, ()> {
        let guard = self.changes.gate.read();
        if !self.is_gone() {
            self.changes.changed.lock().insert(self.claim.id);
        }
        guard
    }

    /// Nobody finds it any more: its bytes end with its last user.
    pub(crate) fn is_gone(&self) -> bool {
        self.claim.is_gone()
    }
}

/// What is to be changed of an object that is kept.
pub(crate) fn changing(object: &Object) -> Option<RwLockReadGuard<'_, ()>> {
    object.keeping().map(Keeping::changing)
}
