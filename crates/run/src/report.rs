//! Figures for people (`--stats`) and programs (`--stats-json`).

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use vswap_pager::{FaultStats, Pager};

use crate::config::RunConfig;

/// What a report is made of beside the pager's figures.
#[derive(Debug)]
pub(crate) struct Report {
    limit: u64,
    started: Instant,
    peak: Arc<AtomicU64>,
}

/// Says that nothing more can be moved out.
pub(crate) fn full(full: &vswap_pager::Full, kill: bool) -> String {
    let disk = if full.disk_full { "no disk takes more" } else { "nothing more can be evicted" };
    if let Some(group) = &full.group {
        return format!(
            "{group}: {disk}, of {} in memory, and its limit is {}; {}",
            bytes(full.resident),
            bytes(full.limit),
            if kill { "ending its processes (--full kill)" } else { "it grows past that (--full grow)" },
        );
    }
    format!(
        "{disk}: {} in use ({} resident, {} compressed) of {}; {}",
        bytes(full.used),
        bytes(full.resident),
        bytes(full.pool),
        bytes(full.limit),
        if kill { "ending the program (--full kill)" } else { "growing past the limit (--full grow)" },
    )
}

/// Says that a tier takes no more.
pub(crate) fn failed_write(error: &vswap_engine::WritebackError) -> String {
    format!(
        "{error}; the tier is only read from now on: vswap tiers shows it, vswap tier reopen has it used again"
    )
}

/// A number of bytes as people read it.
pub(crate) fn bytes(count: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| count >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", count as f64 / *unit as f64),
        None => format!("{count} B"),
    }
}

impl Report {
    pub(crate) fn new(config: &RunConfig, started: Instant) -> Report {
        Report { limit: config.memory.get(), started, peak: Arc::new(AtomicU64::new(0)) }
    }

    /// Where the sampler keeps the peak.
    pub(crate) fn peak(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.peak)
    }

    /// The table and the JSON.
    pub(crate) fn make(&self, pager: &Pager) -> (String, String) {
        let stats = pager.stats();
        let engine = pager.engine().stats();
        let peak = stats.peak.max(self.peak.load(Relaxed));
        let stored = engine.stored_compressed + engine.stored_raw;
        let ratio = (engine.stored_bytes.get() > 0)
            .then(|| stored as f64 * 4096.0 / engine.stored_bytes.get() as f64);
        let mut table = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(table, "{name:<20} {value}");
        };
        line("peak memory", format!("{} of {}", bytes(peak), bytes(self.limit)));
        for fault in stats.faults.iter().filter(|fault| fault.count > 0) {
            line(fault.name, fault_line(fault));
        }
        line("evicted", format!("{} pages, {} of them clean", stats.evicted, stats.evicted_clean));
        line("compression", ratio.map_or_else(|| "nothing compressed".into(), |r| format!("{r:.2} : 1")));
        line("written to disk", bytes(engine.written_bytes.get()));
        line("read from disk", bytes(engine.read_bytes.get()));
        if engine.demoted_bytes.get() > 0 {
            line("to slower tiers", bytes(engine.demoted_bytes.get()));
        }
        if stats.reclaim_target > 0 || stats.reclaimed > 0 {
            let (reclaimed, written) = (stats.reclaimed, stats.reclaim_written);
            line("reclaimed", format!("{reclaimed} pages ahead of need; {written} went on to a tier"));
        }
        if stats.grown {
            line("limit", "exceeded".into());
        }
        if stats.poisoned > 0 {
            line("pages lost", stats.poisoned.to_string());
        }
        (table, self.json(&stats, &engine, peak, ratio))
    }

    fn json(
        &self,
        stats: &vswap_pager::PagerStats,
        engine: &vswap_engine::EngineStats,
        peak: u64,
        ratio: Option<f64>,
    ) -> String {
        let faults: Vec<String> = stats
            .faults
            .iter()
            .map(|fault| {
                format!(
                    "    {{\"kind\": \"{}\", \"count\": {}, \"p50_ns\": {}, \"p99_ns\": {}}}",
                    fault.name,
                    fault.count,
                    fault.p50.as_nanos(),
                    fault.p99.as_nanos()
                )
            })
            .collect();
        let numbers = [
            ("limit_bytes", self.limit),
            ("peak_bytes", peak),
            ("used_bytes", stats.used),
            ("elapsed_ms", self.started.elapsed().as_millis() as u64),
            ("evicted_pages", stats.evicted),
            ("evicted_clean_pages", stats.evicted_clean),
            ("read_ahead_pages", stats.read_ahead),
            ("zero_ahead_pages", stats.zero_ahead),
            ("granted_pages", stats.granted),
            ("adopted_pages", stats.adopted),
            ("stuck_pages", stats.stuck),
            ("workingset_refault_anon", stats.refaulted),
            ("workingset_activate_anon", stats.activated),
            ("promoted_pages", stats.promoted),
            ("demoted_bytes", engine.demoted_bytes.get()),
            ("waited_faults", stats.waited),
            ("stalled_us", stats.stalled.as_micros() as u64),
            ("pressure_avg10_millionths", stats.pressure),
            ("reclaim_target_millionths", stats.reclaim_target),
            ("reclaim_pressure_millionths", stats.reclaim_pressure),
            ("reclaim_looked_pages", stats.reclaim_looked),
            ("reclaimed_pages", stats.reclaimed),
            ("reclaim_written_pages", stats.reclaim_written),
            ("lost_pages", stats.poisoned),
            ("stored_fill_pages", engine.stored_fill),
            ("stored_compressed_pages", engine.stored_compressed),
            ("stored_raw_pages", engine.stored_raw),
            ("stored_bytes", engine.stored_bytes.get()),
            ("written_bytes", engine.written_bytes.get()),
            ("read_bytes", engine.read_bytes.get()),
            ("pool_bytes", engine.pool_bytes.get()),
            ("ghost_bytes", engine.ghost_bytes.get()),
            ("metadata_bytes", engine.metadata_bytes.get()),
        ];
        let mut text = String::from("{\n");
        for (name, value) in numbers {
            let _ = writeln!(text, "  \"{name}\": {value},");
        }
        let _ = writeln!(text, "  \"ratio\": {},", ratio.map_or("null".into(), |r| format!("{r:.3}")));
        let _ = writeln!(text, "  \"grown\": {},", stats.grown);
        let _ = writeln!(text, "  \"faults\": [\n{}\n  ]\n}}", faults.join(",\n"));
        text
    }
}

fn fault_line(fault: &FaultStats) -> String {
    let us = |time: std::time::Duration| time.as_nanos() as f64 / 1000.0;
    format!("{} faults, p50 {:.1} us, p99 {:.1} us", fault.count, us(fault.p50), us(fault.p99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        assert_eq!(bytes(17), "17 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
    }
}
