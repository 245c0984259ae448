//! `vswap doctor`: the report to standard output, the verdict as exit code.

use std::io::Write;
use std::process::ExitCode;

use vswap_doctor::{Request, examine};

use crate::args::DoctorArgs;

/// Width of the report where standard output is no terminal.
const PLAIN_WIDTH: usize = 100;

/// Runs the command.
pub fn doctor(args: DoctorArgs) -> ExitCode {
    let report = examine(&Request { disk_path: args.disk_path });
    let width = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(PLAIN_WIDTH);
    let text = if args.json { report.to_json() } else { report.to_table(width) };
    // A reader that went away is no error; the exit code says the same as the text.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if report.run_works() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
