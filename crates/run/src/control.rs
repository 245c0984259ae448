//! What can be looked at and changed from outside while programs run (`vswap status`, `vswap tier ...`).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vswap_control::{Controlled, Server};
use vswap_core::GroupId;
use vswap_desk::{Desk, Served};
use vswap_pager::{Leaving, Pager};

use crate::config::RunConfig;
use crate::supervisor::Supervisor;

/// How long a move waits for what else is done to an address space: less than whoever asks waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long it waits for room for a second copy of what is shared, while there comes none, and in all.
const PATIENCE_FOR_ROOM: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

/// Opened a moment after the start, so that short programs do not pay for it; closed before the end.
#[derive(Default)]
pub(crate) struct Door(Mutex<State>);

#[derive(Default)]
struct State {
    server: Option<Server>,
    closed: bool,
}

impl Door {
    /// Listens from now on, unless the run has ended. That there is no place for a socket is no reason not to run.
    pub(crate) fn open(&self, controls: Desk<Controls>) {
        let mut state = self.0.lock();
        if !state.closed {
            let pid = controls.pid();
            let controlled: Arc<dyn Controlled> = Arc::new(controls);
            match Server::start(pid, &controlled) {
                Ok(server) => state.server = Some(server),
                Err(error) => tracing::warn!(%error, "nobody can ask: no socket"),
            }
        }
    }

    /// The socket is gone, for good.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.server = None;
    }
}

/// A run as seen from outside.
pub(crate) struct Controls {
    supervisor: Arc<Supervisor>,
    peak: Arc<AtomicU64>,
}

impl Controls {
    /// To be made while the front is the parent: the run is known by its number.
    pub(crate) fn of_run(
        config: &RunConfig,
        supervisor: Arc<Supervisor>,
        started: Instant,
        peak: Arc<AtomicU64>,
    ) -> Desk<Self> {
        let program = config.program.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
        let pid = std::os::unix::process::parent_id() as i32;
        Desk::new(Self { supervisor, peak }, pid, program.to_string_lossy(), started)
    }
}

impl Served for Controls {
    fn pager(&self) -> &Pager {
        self.supervisor.pager()
    }

    fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    fn processes(&self) -> Vec<(i32, GroupId)> {
        let all = self.supervisor.tree.all();
        all.iter().map(|process| (process.pid, process.group())).collect()
    }

    fn move_process(&self, pid: i32, group: GroupId) -> Result<(), String> {
        let Some(process) = self.supervisor.tree.get(pid) else {
            return Err(format!("no process {pid} in this run"));
        };
        let began = Instant::now();
        let mut got_on = began;
        loop {
            if process.lender().is_some() {
                // Until it executes something it has no memory of its own.
                process.set_group(group);
                return Ok(());
            }
            let memory = process.memory();
            // What is put under management, or forked, is so under this too: it is of the group that its process is of.
            let Some(work) = memory.work.try_lock_for(PATIENCE) else {
                return Err(format!(
                    "process {} is just forking or mapping memory, and does not get on; try again",
                    process.pid
                ));
            };
            if let Some(managed) = memory.managed() {
                let leaving = self.pager().leave_if_room(&managed.space, group);
                if leaving == Leaving::GetsOn {
                    got_on = Instant::now();
                }
                let (none, all) = PATIENCE_FOR_ROOM;
                if leaving != Leaving::Over && got_on.elapsed() < none && began.elapsed() < all {
                    // It may fork and map memory while the evictors make room.
                    drop(work);
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
            }
            let before = process.group();
            process.set_group(group);
            if !Arc::ptr_eq(&memory, &process.memory()) {
                // It has executed something: its new memory may have been managed before this.
                process.set_group(before);
                continue;
            }
            let Some(managed) = memory.managed() else { return Ok(()) };
            let moved = self.pager().move_to_group(&managed.space, group);
            // If there is no such group any more, perhaps half-way.
            process.set_group(managed.space.group());
            return moved.map_err(|error| error.to_string());
        }
    }
}
