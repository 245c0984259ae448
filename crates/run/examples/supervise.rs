//! Runs a program within a limit, without a command line to speak of: `supervise MIB [OPTIONS] -- PROGRAM ARGS`; options
//! are `disk`, `disk=MIB`, `disk-path=DIR`, `huge`, `keeper`, `kill`, `stats`, `wait-all`.

use vswap_core::ByteCount;
use vswap_run::{Codec, DiskRoom, ExitOutcome, Full, HugePages, RunConfig, run};

fn main() {
    let mut words = std::env::args_os().skip(1);
    let mib: u64 = words.next().and_then(|word| word.to_str()?.parse().ok()).expect("a number of MiB");
    let options: Vec<_> = words.by_ref().take_while(|word| word != "--").collect();
    let has = |name: &str| options.iter().any(|option| option == name);
    let disk = options.iter().find_map(|option| option.to_str()?.strip_prefix("disk=")?.parse::<u64>().ok());
    let outcome = run(&RunConfig {
        memory: ByteCount::new(mib << 20),
        disk: match disk {
            Some(mib) => DiskRoom::AtMost(ByteCount::new(mib << 20)),
            None if has("disk") => DiskRoom::Spare,
            None => DiskRoom::Nothing,
        },
        disk_path: options
            .iter()
            .find_map(|option| option.to_str()?.strip_prefix("disk-path="))
            .map(Into::into),
        tiers: Vec::new(),
        encrypt: true,
        codec: Codec::Auto,
        huge_pages: if has("huge") { HugePages::On } else { HugePages::Auto },
        full: if has("kill") { Full::Kill } else { Full::Grow },
        stats: has("stats"),
        stats_json: None,
        reclaim: 0,
        reclaim_turn: None,
        record: None,
        wait_all: has("wait-all"),
        keeper: has("keeper"),
        program: words.collect(),
    });
    match outcome {
        ExitOutcome::Code(code) => std::process::exit(i32::from(code)),
        ExitOutcome::Signal(signal) => vswap_sys::inherited::end_by_signal(signal),
    }
}
