//! `vswap setup`: shows the plan, asks, does it.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use vswap_doctor::setup::{Plan, SetupError, Wish, plan, plan_undo};

use crate::EXIT_OWN_ERROR;
use crate::args::SetupArgs;
use crate::say;

/// Runs the command.
pub fn setup(args: SetupArgs) -> ExitCode {
    let user = args.user.clone().or_else(calling_user);
    let plan = match make_plan(&args, user.clone()) {
        Ok(plan) => plan,
        Err(error) => return say::fail(&error),
    };
    if plan.steps().is_empty() {
        println!("Nothing to do: the group {} has access to /dev/userfaultfd already.", args.group);
        return ExitCode::SUCCESS;
    }
    print!("vswap setup will{}:\n{plan}", if args.undo { ", to undo what it did" } else { "" });
    if args.dry_run {
        return ExitCode::SUCCESS;
    }
    if !args.yes {
        match agreed() {
            Some(true) => {}
            Some(false) => {
                println!("Nothing was done.");
                return ExitCode::FAILURE;
            }
            None => {
                say::say(
                    "standard input is no terminal, so nobody can be asked: look at the plan, then add --yes",
                );
                return ExitCode::from(EXIT_OWN_ERROR);
            }
        }
    }
    if let Err(error) = plan.apply() {
        return say::fail(&error);
    }
    report(&args, user.as_deref());
    ExitCode::SUCCESS
}

fn make_plan(args: &SetupArgs, user: Option<String>) -> Result<Plan, SetupError> {
    let root = args.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    match args.undo {
        true => plan_undo(&root),
        false => plan(&Wish { root, group: args.group.clone(), user }),
    }
}

/// Who called sudo (or doas): the one for whom this is done.
fn calling_user() -> Option<String> {
    ["SUDO_USER", "DOAS_USER"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .filter(|user| !user.is_empty())
}

/// `None` where there is no terminal to ask at.
fn agreed() -> Option<bool> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return None;
    }
    print!("Go on? [y/N] ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let _ = input.lock().read_line(&mut answer);
    Some(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn report(args: &SetupArgs, user: Option<&str>) {
    if args.undo {
        println!("Done: all is as it was before the first `vswap setup`.");
        return;
    }
    let group = &args.group;
    match user.filter(|user| *user != "root") {
        Some(user) => {
            println!(
                "Done. {user} must log in again, or in a shell that is open: newgrp {group}. Then: vswap doctor"
            );
        }
        None => println!(
            "Done. Put users into the group {group} (usermod -aG {group} USER); they must log in again. Then: vswap doctor"
        ),
    }
}
