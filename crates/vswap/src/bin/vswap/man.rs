//! `vswap man DIR`: the manual pages, made from the same texts as `--help`.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::args::Cli;
use crate::say;

/// Runs the command.
pub fn man(directory: &Path) -> ExitCode {
    match write_pages(directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::say(format_args!("cannot write manual pages to {}: {error}", directory.display()));
            ExitCode::from(crate::EXIT_OWN_ERROR)
        }
    }
}

fn write_pages(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    for sub in shown {
        let name = format!("vswap-{}", sub.get_name());
        render(sub.clone().name(leak(&name)).bin_name(name.replacen('-', " ", 1)), &name, directory)?;
    }
    render(command, "vswap", directory)
}

fn render(command: clap::Command, name: &str, directory: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    fs::write(directory.join(format!("{name}.1")), page)
}

/// clap takes names that live for ever; there are as many as there are pages.
fn leak(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}
