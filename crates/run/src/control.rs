//! What can be looked at and changed from outside while programs run (`vswap status`, `vswap tier ...`).

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use parking_lot::Mutex;
use vswap_control::protocol::{Status, Tier};
use vswap_control::{Controlled, Server};
use vswap_core::ByteCount;
use vswap_engine::{Engine, TierId, Unreadable};

use crate::config::RunConfig;
use crate::supervisor::Supervisor;

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
    pub(crate) fn open(&self, controls: Controls) {
        let mut state = self.0.lock();
        if !state.closed {
            let pid = controls.pid;
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
    /// The front's.
    pid: i32,
    program: String,
    started: Instant,
    peak: Arc<AtomicU64>,
}

impl Controls {
    /// To be made while the front is the parent.
    pub(crate) fn new(
        config: &RunConfig,
        supervisor: Arc<Supervisor>,
        started: Instant,
        peak: Arc<AtomicU64>,
    ) -> Self {
        let program = config.program.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
        let program = program.to_string_lossy().into_owned();
        let pid = std::os::unix::process::parent_id() as i32;
        Self { supervisor, pid, program, started, peak }
    }

    fn engine(&self) -> &Engine {
        self.supervisor.pager().engine()
    }
}

fn tier(tier: vswap_engine::Tier) -> Tier {
    Tier {
        tier: tier.id.get(),
        // What is no Unicode is shown as well as can be.
        path: tier.path.map(|path| path.to_string_lossy().into_owned().into()),
        kind: "file".into(),
        size: tier.size.get(),
        used: tier.used.get(),
        live: tier.live.get(),
        priority: tier.priority,
        state: tier.state.name().into(),
    }
}

impl Controlled for Controls {
    fn status(&self) -> Status {
        let pager = self.supervisor.pager().stats();
        let engine = self.engine().stats();
        Status {
            pid: self.pid,
            program: self.program.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            elapsed_ms: self.started.elapsed().as_millis() as u64,
            limit: pager.limit,
            used: pager.used,
            peak: pager.peak.max(self.peak.load(Relaxed)),
            resident: pager.resident,
            pool: engine.pool_bytes.get(),
            pooled: engine.pool_pages.get() * 4096,
            swapped: engine.segment_pages.get() * 4096,
            swapped_out: engine.written_pages.get(),
            swapped_in: engine.loaded_segment,
            written: engine.written_bytes.get(),
            read: engine.read_bytes.get(),
            lost: pager.poisoned.max(engine.lost),
            tiers: self.engine().tiers().into_iter().map(tier).collect(),
        }
    }

    fn add_tier(&self, path: &Path, size: Option<u64>, priority: i16) -> Result<u8, String> {
        if !path.is_absolute() {
            return Err(format!("{} is not an absolute path", path.display()));
        }
        let config = crate::disk::tier(path, size.map(ByteCount::new), priority)?;
        self.engine().add_tier(&config).map(TierId::get).map_err(|error| error.to_string())
    }

    fn remove_tier(
        &self,
        tier: u8,
        lose: bool,
        watch: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(u64, u64, u64), String> {
        let unreadable = if lose { Unreadable::Lose } else { Unreadable::Keep };
        let mut watch = |now: vswap_engine::Emptying| watch(now.moved.get(), now.left.get());
        let removed = self.engine().remove_tier(TierId::new(tier), unreadable, &mut watch);
        removed.map(|done| (done.segments, done.bytes.get(), done.lost)).map_err(|error| error.to_string())
    }

    fn reopen_tier(&self, tier: u8) -> Result<(), String> {
        self.engine().reopen_tier(TierId::new(tier)).map_err(|error| error.to_string())
    }
}
