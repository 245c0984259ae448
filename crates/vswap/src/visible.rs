//! Regions that `vswap status`, `vswap tiers` and `vswap tier` see, through a socket as a `vswap run` has.

use parking_lot::RwLock;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vswap_control::{Controlled, Server};
use vswap_core::GroupId;
use vswap_desk::{Desk, Served};
use vswap_pager::Pager;

/// How long a move waits for snapshots that are being made: less than whoever asks waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keeps apart snapshots that are being made (readers) and a move of all regions to another group: each has one group or the other, with all that it shares.
pub(crate) type Moves = Arc<RwLock<()>>;

struct OfRegions {
    pager: Arc<Pager>,
    moves: Moves,
}

impl Served for OfRegions {
    fn pager(&self) -> &Pager {
        &self.pager
    }

    fn move_process(&self, pid: i32, group: GroupId) -> Result<(), String> {
        if pid as u32 != std::process::id() {
            return Err(format!("these are regions of process {}", std::process::id()));
        }
        let Some(_move) = self.moves.try_write_for(PATIENCE) else {
            return Err("a snapshot is just being made, which takes long; try again".into());
        };
        self.pager.move_all_to_group(group).map_err(|error| error.to_string())
    }
}

/// Shows the regions of `pager` under `name` until the server is dropped.
pub(crate) fn show(pager: &Arc<Pager>, moves: &Moves, name: String) -> io::Result<Server> {
    let pid = std::process::id() as i32;
    let regions = OfRegions { pager: Arc::clone(pager), moves: Arc::clone(moves) };
    let desk: Arc<dyn Controlled> = Arc::new(Desk::new(regions, pid, name, Instant::now()));
    Server::start_one_of_several(&desk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswap_core::ByteCount;
    use vswap_engine::{Engine, EngineConfig};
    use vswap_pager::PagerConfig;

    /// A copy with the former group that was entered after all regions were looked up stayed behind.
    #[test]
    fn a_move_waits_for_a_snapshot_that_is_being_made_and_says_so_if_it_takes_long() {
        let engine = Engine::new(EngineConfig::default()).unwrap();
        let pager = Pager::new(PagerConfig::new(ByteCount::mib(16)), engine).unwrap();
        let group = pager.add_group("/a").unwrap();
        let regions = OfRegions { pager: Arc::new(pager), moves: Moves::default() };
        let pid = std::process::id() as i32;
        let snapshot = regions.moves.read();
        assert!(regions.move_process(pid, group).unwrap_err().contains("snapshot"));
        std::thread::scope(|scope| {
            let moved = scope.spawn(|| regions.move_process(pid, group));
            std::thread::sleep(Duration::from_millis(100));
            assert!(!moved.is_finished());
            drop(snapshot);
            moved.join().unwrap().unwrap();
        });
    }
}
