//! `vswap groups`, `vswap set`: share out memory among the processes of running ones.

use std::process::ExitCode;

use indicatif::BinaryBytes;
use serde_json::json;
use vswap_control::protocol::{Answer, Group, Request, Share};
use vswap_control::{Client, ClientError, Run};

use crate::args::{AskArgs, GroupAction, GroupsArgs, SetArgs};
use crate::control::{Outcome, exit, plain_table, print, print_json, running, text_of, wanted_runs};

/// Runs `vswap groups`.
pub fn groups(args: &GroupsArgs) -> ExitCode {
    exit(match &args.action {
        None => show(&args.ask),
        Some(GroupAction::Add { run, path }) => ask(run, &Request::AddGroup { path: path.clone() }),
        Some(GroupAction::Remove { run, path }) => ask(run, &Request::RemoveGroup { path: path.clone() }),
        Some(GroupAction::Move { run, pid, path }) => {
            ask(run, &Request::MoveProcess { pid: *pid, path: path.clone() })
        }
    })
}

/// Runs `vswap set`.
pub fn set(args: &SetArgs) -> ExitCode {
    let limits = args.limits.iter().cloned().collect();
    exit(ask(&args.run, &Request::SetGroup { path: args.path.clone(), limits }))
}

fn ask(run: &str, request: &Request) -> Outcome {
    let run = Run::choose(running(), Some(run))?;
    Client::connect(&run.path, run.owner)?.ask(request, &mut |_, _| {}).map(drop)
}

fn groups_of(run: &Run) -> Result<Vec<Group>, ClientError> {
    match Client::connect(&run.path, run.owner)?.ask(&Request::Groups, &mut |_, _| {})? {
        Answer::Groups { groups } => Ok(groups),
        other => Err(ClientError::Nonsense { path: run.path.clone(), found: format!("{other:?}") }),
    }
}

fn show(args: &AskArgs) -> Outcome {
    let runs = wanted_runs(args)?;
    let several = runs.len() > 1;
    let (mut texts, mut values) = (Vec::new(), Vec::new());
    for run in &runs {
        let groups = groups_of(run)?;
        let head = if several { format!("{run}\n") } else { String::new() };
        texts.push(head + &table(&groups));
        values.push(json!({ "pid": run.status.pid, "program": run.status.program, "groups": groups }));
    }
    match args.json {
        true => print_json(&values.into()),
        false => print(&texts.join("\n")),
    }
    Ok(())
}

fn table(groups: &[Group]) -> String {
    let mut header: Vec<String> =
        ["GROUP", "PROCS", "MEMORY", "MAX", "ZSWAP", "MAX", "SWAP", "MAX"].map(str::to_owned).into();
    let tiers = limited_tiers(groups);
    header.extend(tiers.iter().flat_map(|tier| [format!("TIER {tier}"), "MAX".to_owned()]));
    let columns = header.len();
    let mut table = plain_table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for group in groups {
        let bytes = |count: u64| BinaryBytes(count).to_string();
        let limit = |limit: Option<u64>| limit.map_or_else(|| "max".into(), bytes);
        // What others say of themselves is shown on a terminal.
        let path = group.path.chars().map(|c| if c.is_control() { '?' } else { c });
        let mut row = vec![
            path.collect::<String>(),
            group.processes.len().to_string(),
            bytes(group.memory),
            limit(group.memory_max),
            bytes(group.zswap),
            limit(group.zswap_max),
            bytes(group.swap),
            limit(group.swap_max),
        ];
        for tier in &tiers {
            let share = group.tiers.iter().find(|share| share.tier == *tier);
            row.push(share.map_or_else(|| "-".into(), |share| bytes(share.current)));
            row.push(share.map_or_else(|| "max".into(), |share| limit(share.max)));
        }
        table.add_row(row);
    }
    text_of(table, 1..columns)
}

/// Tiers of which a group may not have all.
fn limited_tiers(groups: &[Group]) -> Vec<u8> {
    let limited = |share: &&Share| share.max.is_some();
    let shares = groups.iter().flat_map(|group| group.tiers.iter().filter(limited));
    let mut tiers: Vec<u8> = shares.map(|share| share.tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    tiers
}
