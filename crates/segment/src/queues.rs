//! [`Queues`]: a queue of writes for each tier that is written to, made when it is first needed.

use crate::extents::TierId;
use crate::storage::{Storage, WriteQueue};
use crate::{AlignedBuf, SegmentStore, WriteDone};
use std::io;
use std::sync::Arc;

/// A tier's storage and the writes to it.
type Queue = (Arc<dyn Storage>, Box<dyn WriteQueue>);

/// Queues by the number of their tier.
pub(crate) struct Queues {
    depth: usize,
    queues: Vec<Option<Queue>>,
}

impl Queues {
    /// `depth` writes in flight to each tier.
    pub(crate) fn new(depth: usize) -> Self {
        Self { depth, queues: Vec::new() }
    }

    /// The tier's queue. A number may be another tier's by now; nothing can be in flight to the former one then, since it would not have
    /// been removed.
    fn of(&mut self, store: &SegmentStore, tier: TierId) -> io::Result<&mut dyn WriteQueue> {
        let storage = store.storage(tier).ok_or_else(|| io::Error::other(format!("{tier} is not there")))?;
        let at = usize::from(tier.0);
        if self.queues.len() <= at {
            self.queues.resize_with(at + 1, || None);
        }
        let present = &mut self.queues[at];
        if !present.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, &storage)) {
            let queue = Arc::clone(&storage).write_queue(self.depth);
            *present = Some((storage, queue));
        }
        Ok(present.as_mut().expect("it was just put there").1.as_mut())
    }

    /// Starts a write. As many are waited for as must be, so that it fits the queue: `done` gets those, and this one if it cannot even be tried.
    ///
    /// # Errors
    /// If the queue itself is broken.
    pub(crate) fn submit(
        &mut self,
        store: &SegmentStore,
        (tier, offset): (TierId, u64),
        buf: AlignedBuf,
        len: usize,
        tag: u64,
        mut done: impl FnMut(WriteDone),
    ) -> io::Result<()> {
        let queue = match self.of(store, tier) {
            Ok(queue) => queue,
            Err(error) => {
                done(WriteDone { tag, buf, result: Err(error) });
                return Ok(());
            }
        };
        while queue.is_full() {
            match queue.wait()? {
                Some(write) => done(write),
                None => break,
            }
        }
        if let Err((error, buf)) = queue.submit(offset, buf, len, tag) {
            done(WriteDone { tag, buf, result: Err(error) });
        }
        Ok(())
    }

    /// Waits for a write to this tier; `None` when none is out.
    ///
    /// # Errors
    /// If the queue itself is broken.
    pub(crate) fn wait(&mut self, tier: TierId) -> io::Result<Option<WriteDone>> {
        match self.queues.get_mut(usize::from(tier.0)) {
            Some(Some((_, queue))) => queue.wait(),
            _ => Ok(None),
        }
    }

    /// Lets go of the storage of tiers that have been removed.
    pub(crate) fn forget_removed(&mut self, store: &SegmentStore) {
        for (at, queue) in self.queues.iter_mut().enumerate() {
            let present = store.storage(TierId(at as u8));
            let kept =
                |(known, _): &Queue| present.as_ref().is_some_and(|storage| Arc::ptr_eq(known, storage));
            if !queue.as_ref().is_some_and(kept) {
                *queue = None;
            }
        }
    }
}
