//! vswap's own words: to standard error, each line prefixed, so that they are told from the program's.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::EXIT_OWN_ERROR;

const EXAMPLE: &str = "example: vswap run --memory 512M -- python3 analyse.py";

/// Says each line of `message`. A standard error that is closed or full is no reason to fail.
pub fn say(message: impl Display) {
    let text: String = message
        .to_string()
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| format!("vswap: {line}\n"))
        .collect();
    // One write: lines of vswap and of the program do not mix within a line.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Says `error` with all its causes, and gives vswap's own exit code.
pub fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Many errors show their cause already.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    say(text);
    ExitCode::from(EXIT_OWN_ERROR)
}

/// Help and version go to standard output and succeed; bad usage goes to standard error and is vswap's own error.
pub fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that went away (`vswap help run | head`) is no error.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            return ExitCode::from(EXIT_OWN_ERROR);
        }
        _ => {}
    }
    let rendered = error.render().to_string();
    say(rendered.strip_prefix("error: ").unwrap_or(&rendered));
    if error.kind() == ErrorKind::MissingRequiredArgument {
        say(EXAMPLE);
    }
    ExitCode::from(EXIT_OWN_ERROR)
}
