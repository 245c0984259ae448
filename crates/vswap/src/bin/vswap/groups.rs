//! `vswap groups`, `vswap set`: share out memory among the processes of running ones.

use std::process::ExitCode;

use serde_json::json;
use vswap_control::protocol::{Answer, Group, Request, Share};
use vswap_control::{Client, ClientError, Run};

use crate::args::{Column, GroupAction, GroupColumn, GroupsArgs, SetArgs};
use crate::control::{Outcome, exit, print, print_json, running, wanted_runs};
use crate::table::{Style, Table};

/// Runs `vswap groups`.
pub fn groups(args: &GroupsArgs) -> ExitCode {
    exit(match &args.action {
        None => show(args),
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

fn show(args: &GroupsArgs) -> Outcome {
    let (mut tables, mut values) = (Vec::new(), Vec::new());
    let (style, columns) = (Style::from(&args.table), args.table.columns());
    for run in &wanted_runs(&args.ask)? {
        let groups = groups_of(run)?;
        tables.push((run.to_string(), table(run, &groups, &columns, style)));
        values.push(json!({ "pid": run.status.pid, "program": run.status.program, "groups": groups }));
    }
    match args.ask.json {
        true => print_json(&values.into()),
        false => print(&style.join(tables.into_iter())),
    }
    Ok(())
}

fn table(run: &Run, groups: &[Group], columns: &[GroupColumn], style: Style) -> String {
    let tiers = limited_tiers(groups);
    let headings = |column: &GroupColumn| match column {
        GroupColumn::Tiers => {
            tiers.iter().flat_map(|tier| [format!("TIER-{tier}"), format!("TIER-{tier}-MAX")]).collect()
        }
        column => vec![column.name()],
    };
    let mut table = Table::new(
        columns.iter().flat_map(|column| headings(column).into_iter().map(|name| (name, column.is_figure()))),
    );
    for group in groups {
        table.add(columns.iter().flat_map(|column| cells(run, group, *column, &tiers, style)).collect());
    }
    table.text(style)
}

fn cells(run: &Run, group: &Group, column: GroupColumn, tiers: &[u8], style: Style) -> Vec<String> {
    let one = match column {
        GroupColumn::Tiers => return tiers.iter().flat_map(|tier| tier_cells(group, *tier, style)).collect(),
        GroupColumn::Run => run.status.pid.to_string(),
        GroupColumn::Program => run.status.program.clone(),
        // What others say of themselves is shown on a terminal.
        GroupColumn::Group => group.path.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        GroupColumn::Procs => group.processes.len().to_string(),
        GroupColumn::Memory => style.size(group.memory),
        GroupColumn::MemoryMax => limit(group.memory_max, style),
        GroupColumn::MemoryPeak => style.size(group.memory_peak),
        GroupColumn::Zswap => style.size(group.zswap),
        GroupColumn::ZswapMax => limit(group.zswap_max, style),
        GroupColumn::Swap => style.size(group.swap),
        GroupColumn::SwapMax => limit(group.swap_max, style),
    };
    vec![one]
}

fn limit(limit: Option<u64>, style: Style) -> String {
    limit.map_or_else(|| "max".into(), |limit| style.size(limit))
}

/// What a group has and may have of a tier.
fn tier_cells(group: &Group, tier: u8, style: Style) -> [String; 2] {
    let share = group.tiers.iter().find(|share| share.tier == tier);
    [
        share.map_or_else(|| "-".into(), |share| style.size(share.current)),
        limit(share.and_then(|share| share.max), style),
    ]
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
