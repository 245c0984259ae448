//! [`Open`]: the objects that are in memory, by number and by name. Those that nobody uses stay for a while: the next who wants them need not ask the index.

use crate::store::named::Known;
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes that an object in memory is taken to have beside its key, what is kept beside it, and its slots.
const OBJECT_BYTES: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Open {
    /// With the bytes that it had when it came.
    by_id: HashMap<u64, (Arc<Known>, usize)>,
    bytes: usize,
    by_name: HashMap<u32, HashMap<Box<[u8]>, u64>>,
    /// So many bytes may be in memory before those are let out that nobody uses and nobody has wanted for long.
    idle: usize,
    most: usize,
}

impl Open {
    /// About so many bytes are kept of those that nobody uses.
    pub(super) fn new(idle: usize) -> Self {
        Self { idle, most: idle, ..Self::default() }
    }

    pub(super) fn get(&self, id: u64) -> Option<&Arc<Known>> {
        self.by_id.get(&id).map(|(known, _)| known)
    }

    /// The number of one that is in memory.
    pub(super) fn named(&self, volume: u32, key: &[u8]) -> Option<u64> {
        self.by_name.get(&volume)?.get(key).copied()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.by_id.values().map(|(known, _)| known)
    }

    pub(super) fn insert(&mut self, id: u64, known: &Arc<Known>) {
        let (volume, key) = known.name();
        let bytes = OBJECT_BYTES + 2 * key.len() + known.aux_bytes();
        self.by_name.entry(volume).or_default().insert(key.into(), id);
        self.by_id.insert(id, (Arc::clone(known), bytes));
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, id: u64) {
        if let Some((known, bytes)) = self.by_id.remove(&id) {
            self.bytes -= bytes;
            forget(&mut self.by_name, &known, id);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.most
    }

    /// Lets those out that nobody uses or has wanted since the last time, and that the index has as they are (not `changed`); if that leaves too many, also those that somebody has wanted.
    pub(super) fn let_idle_out(&mut self, changed: impl Fn(u64) -> bool) {
        for _ in 0..2 {
            let (by_name, all) = (&mut self.by_name, &mut self.bytes);
            self.by_id.retain(|id, (known, bytes)| {
                let stays = Arc::strong_count(known) > 1 || changed(*id) || known.was_wanted();
                if !stays {
                    *all -= *bytes;
                    forget(by_name, known, *id);
                }
                stays
            });
            if self.bytes < self.most {
                break;
            }
        }
        self.most = self.idle.max(self.bytes + self.idle / 2);
    }
}

fn forget(by_name: &mut HashMap<u32, HashMap<Box<[u8]>, u64>>, known: &Known, id: u64) {
    let (volume, key) = known.name();
    let Some(keys) = by_name.get_mut(&volume) else { return };
    // A newer version may have the name.
    if keys.get(key.as_slice()) == Some(&id) {
        keys.remove(key.as_slice());
    }
    if keys.is_empty() {
        by_name.remove(&volume);
    }
}
