//! Regions that `vswap status`, `vswap tiers` and `vswap tier` see, through a socket as a `vswap run` has.

use std::io;
use std::sync::Arc;
use std::time::Instant;
use vswap_control::{Controlled, Server};
use vswap_core::GroupId;
use vswap_desk::{Desk, Served};
use vswap_pager::Pager;

struct OfRegions(Arc<Pager>);

impl Served for OfRegions {
    fn pager(&self) -> &Pager {
        &self.0
    }

    fn move_process(&self, pid: i32, group: GroupId) -> Result<(), String> {
        match pid as u32 == std::process::id() {
            true => self.0.move_all_to_group(group).map_err(|error| error.to_string()),
            false => Err(format!("these are regions of process {}", std::process::id())),
        }
    }
}

/// Shows the regions of `pager` under `name` until the server is dropped.
pub(crate) fn show(pager: &Arc<Pager>, name: String) -> io::Result<Server> {
    let pid = std::process::id() as i32;
    let desk: Arc<dyn Controlled> =
        Arc::new(Desk::new(OfRegions(Arc::clone(pager)), pid, name, Instant::now()));
    Server::start_one_of_several(&desk)
}
