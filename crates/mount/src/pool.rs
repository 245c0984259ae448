//! [`Serve`]: the threads that answer the kernel.

use crate::view::View;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

/// Threads that answer: so many operations of the source may be under way at once.
const THREADS: usize = 32;

type Work = Box<dyn FnOnce(&View) + Send>;

/// The file system as `fuser` calls it. Its own threads answer what they know without waiting for anything, and hand on the rest.
#[derive(Debug)]
pub struct Serve {
    pub view: Arc<View>,
    work: Sender<Work>,
}

impl Serve {
    pub fn new(view: &Arc<View>) -> Self {
        let (work, wanted) = channel::<Work>();
        let wanted = Arc::new(Mutex::new(wanted));
        for _ in 0..THREADS {
            let (view, wanted) = (Arc::clone(view), Arc::clone(&wanted));
            std::thread::spawn(move || {
                loop {
                    // One of them waits here, the others for its turn; the lock is let go before it works.
                    let work = wanted.lock().recv();
                    let Ok(work) = work else { break };
                    work(&view);
                }
            });
        }
        Self { view: Arc::clone(view), work }
    }

    pub fn run(&self, work: impl FnOnce(&View) + Send + 'static) {
        // The threads are there as long as this is; a reply that is dropped says EIO.
        let _ = self.work.send(Box::new(work));
    }
}
