//! [`Desk`]: what a caller at the control socket sees and changes of a pager and its engine.
//!
//! The same for `vswap run` and for a program that uses the library: each says who it is and which pager it has ([`Served`]).
//!
//! Neighbours: above the pager and the engine, which know of no socket, and `vswap-control`, which knows of no pages.
#![forbid(unsafe_code)]

mod groups;
pub mod room;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use vswap_control::Controlled;
use vswap_control::protocol::{Group, LostPage, NewTier, Removed, Status, Tier};
use vswap_core::{ByteCount, GroupId};
use vswap_engine::{Engine, Removing, TierId, TierKind, Unreadable};
use vswap_pager::Pager;
use vswap_sys::signal;

/// How long a removal waits for the limit to be kept again, before each piece that goes to a tier in memory,
const FOR_GHOSTS: Duration = Duration::from_millis(100);
/// and before each that comes back to the pool: if it is not by then, that is the end of it.
const FOR_MEMORY: Duration = Duration::from_millis(200);

/// Who has a pager to show.
pub trait Served: Send + Sync + 'static {
    /// The pager.
    fn pager(&self) -> &Pager;

    /// The most bytes that were used, if more is known of it than the pager knows.
    fn peak(&self) -> u64 {
        0
    }

    /// Its processes and the group of each, one that was removed perhaps.
    fn processes(&self) -> Vec<(i32, GroupId)> {
        Vec::new()
    }

    /// Moves a process and its memory to a group.
    ///
    /// # Errors
    /// A sentence for the user: why not.
    fn move_process(&self, pid: i32, group: GroupId) -> Result<(), String>;
}

/// A pager as seen from outside.
#[derive(Debug)]
pub struct Desk<S> {
    served: S,
    pid: i32,
    program: String,
    started: Instant,
}

impl<S: Served> Desk<S> {
    /// Shows `served` as process `pid`, called `program`, that has been there since `started`.
    pub fn new(served: S, pid: i32, program: impl Into<String>, started: Instant) -> Self {
        Self { served, pid, program: program.into(), started }
    }

    /// The process that it is shown as.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    fn engine(&self) -> &Engine {
        self.served.pager().engine()
    }

    /// How much the pool may grow by for what is on a tier: what that takes of memory itself goes as it comes, and what other ghosts could still take is the same
    /// memory.
    fn memory_for(&self, tier: TierId) -> ByteCount {
        let ghosts = self.engine().tiers().into_iter().filter(|tier| tier.kind == TierKind::Ghost);
        let (its_own, others): (Vec<_>, Vec<_>) = ghosts.partition(|ghost| ghost.id == tier);
        let sum = |bytes: &mut dyn Iterator<Item = ByteCount>| {
            bytes.fold(ByteCount::ZERO, ByteCount::saturating_add)
        };
        let taken = sum(&mut others.iter().map(|ghost| ghost.size.saturating_sub(ghost.used)));
        let comes = sum(&mut its_own.iter().map(|ghost| ghost.live));
        self.served.pager().room_for_compressed().saturating_sub(taken).saturating_add(comes)
    }
}

fn tier(tier: vswap_engine::Tier) -> Tier {
    Tier {
        tier: tier.id.get(),
        // What is no Unicode is shown as well as can be.
        path: tier.path.map(|path| path.to_string_lossy().into_owned().into()),
        kind: tier.kind.name().into(),
        size: tier.size.get(),
        used: tier.used.get(),
        live: tier.live.get(),
        priority: tier.priority,
        state: tier.state.name().into(),
    }
}

fn lost_page(page: vswap_pager::LostPage, started: Instant) -> LostPage {
    let place = page.lost.place;
    let name = place.as_ref().and_then(|place| place.name.as_deref());
    LostPage {
        pid: page.pid,
        address: page.address,
        tier: place.as_ref().map(|place| place.tier.get()),
        path: name.map(|name| name.to_string_lossy().into_owned().into()),
        offset: place.as_ref().map(|place| place.offset),
        reason: page.lost.reason.to_string(),
        elapsed_ms: page.at.saturating_duration_since(started).as_millis() as u64,
    }
}

impl<S: Served> Controlled for Desk<S> {
    fn status(&self) -> Status {
        let pager = self.served.pager().stats();
        let engine = self.engine().stats();
        let lost_pages = self.served.pager().lost_pages();
        let lost_pages = lost_pages.into_iter().map(|page| lost_page(page, self.started)).collect();
        Status {
            pid: self.pid,
            program: self.program.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            elapsed_ms: self.started.elapsed().as_millis() as u64,
            limit: pager.limit,
            used: pager.used,
            peak: pager.peak.max(self.served.peak()),
            resident: pager.resident,
            pool: engine.pool_bytes.get(),
            pool_size: pager.pool_share,
            pool_live: engine.pool_payload.get(),
            ghosts: engine.ghost_bytes.get(),
            pooled: engine.pool_pages.get() * 4096,
            swapped: engine.segment_pages.get() * 4096,
            swapped_out: engine.written_pages.get(),
            swapped_in: engine.loaded_segment,
            written: engine.written_bytes.get(),
            read: engine.read_bytes.get(),
            lost: pager.poisoned.max(engine.lost),
            lost_pages,
            reclaim_target: pager.reclaim_target,
            reclaim_pressure: pager.reclaim_pressure,
            reclaimed: pager.reclaimed,
            reclaim_written: pager.reclaim_written,
            tiers: self.engine().tiers().into_iter().map(tier).collect(),
        }
    }

    fn add_tier(&self, new: &NewTier) -> Result<u8, String> {
        // This thread is ours: a file longer than this process may have is an error, and not the end of a program that uses the library.
        signal::block(&signal::OF_LIMITS);
        let NewTier { path, size, priority, force, .. } = new;
        let named = |name: &String| {
            TierKind::of_name(name).ok_or_else(|| format!("this vswap knows no tiers of kind {name:?}"))
        };
        let kind = new.kind.as_ref().map(named).transpose()?;
        if kind != Some(TierKind::Ghost) && !path.is_absolute() {
            return Err(format!("{} is not an absolute path", path.display()));
        }
        let size = size.map(ByteCount::new);
        let config = room::tier(&room::Wanted { path, kind, size, priority: *priority, force: *force })?;
        self.engine().add_tier(&config).map(TierId::get).map_err(|error| error.to_string())
    }

    fn remove_tier(
        &self,
        tier: u8,
        lose: bool,
        watch: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Removed, String> {
        signal::block(&signal::OF_LIMITS);
        let unreadable = if lose { Unreadable::Lose } else { Unreadable::Keep };
        let mut watch = |now: vswap_engine::Emptying| {
            if now.to_memory || self.engine().ghost_bytes() > ByteCount::ZERO {
                let most = if now.to_memory { FOR_MEMORY } else { FOR_GHOSTS };
                self.served.pager().keep_pace(most);
            }
            watch(now.moved.get(), now.left.get())
        };
        let tier = TierId::new(tier);
        let removing = Removing { unreadable, memory: &|| self.memory_for(tier) };
        let removed = self.engine().remove_tier(tier, removing, &mut watch);
        let told = |done: vswap_engine::Emptied| Removed {
            segments: done.segments,
            bytes: done.bytes.get(),
            pooled: done.came_back,
            lost: done.lost,
        };
        removed.map(told).map_err(|error| error.to_string())
    }

    fn reopen_tier(&self, tier: u8) -> Result<(), String> {
        self.engine().reopen_tier(TierId::new(tier)).map_err(|error| error.to_string())
    }

    fn groups(&self) -> Vec<Group> {
        groups::groups(self.served.pager(), &self.served.processes())
    }

    fn add_group(&self, path: &str) -> Result<(), String> {
        self.served.pager().add_group(path).map(drop).map_err(|error| error.to_string())
    }

    fn remove_group(&self, path: &str) -> Result<(), String> {
        self.served.pager().remove_group(path).map_err(|error| error.to_string())
    }

    fn move_process(&self, pid: i32, path: &str) -> Result<(), String> {
        let group = self.served.pager().group(path).map_err(|error| error.to_string())?;
        self.served.move_process(pid, group)
    }

    fn set_group(&self, path: &str, limits: &BTreeMap<String, Option<u64>>) -> Result<(), String> {
        groups::set(self.served.pager(), path, limits)
    }
}
