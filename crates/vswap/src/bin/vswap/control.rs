//! `vswap status`, `vswap tiers`, `vswap tier`: talk to running ones through their sockets.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use vswap_control::protocol::{Answer, NewTier, Removed, Request, Status, Tier};
use vswap_control::{Client, ClientError, Run, find};

use crate::args::{AskArgs, Column, StatusArgs, TierAction, TierColumn, TiersArgs};
use crate::say;
use crate::table::{Style, Table};

/// What was asked for is not there, or was refused.
const EXIT_REFUSED: u8 = 1;

pub(crate) type Outcome = Result<(), ClientError>;

pub(crate) fn exit(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::say(error);
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

/// A reader that went away is no error.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Runs `vswap status`.
pub fn status(args: &StatusArgs) -> ExitCode {
    exit(wanted(&args.ask).map(|runs| {
        if args.ask.json {
            return print_json(&json!(runs));
        }
        let style = Style { bytes: args.bytes, ..Style::default() };
        print(&runs.iter().map(|status| show(status, style)).collect::<Vec<_>>().join("\n"));
    }))
}

/// Runs `vswap tiers`.
pub fn tiers(args: &TiersArgs) -> ExitCode {
    exit(wanted(&args.ask).map(|runs| {
        if args.ask.json {
            let of = |run: &Status| {
                let pool = json!({ "size": run.pool_size, "used": run.pool, "live": run.pool_live });
                json!({ "pid": run.pid, "program": run.program, "pool": pool, "tiers": run.tiers })
            };
            return print_json(&runs.iter().map(of).collect());
        }
        let (style, columns) = (Style::from(&args.table), args.table.columns());
        let of = |run: &Status| (format!("{} ({})", run.pid, run.program), tier_table(run, &columns, style));
        print(&style.join(runs.iter().map(of)));
    }))
}

/// Runs `vswap tier`.
pub fn tier(action: &TierAction) -> ExitCode {
    exit(match action {
        TierAction::Add { path, kind, size, priority, force, run, json } => {
            let kind = kind.map(|kind| kind.tier().name().to_owned());
            let path = path.clone().unwrap_or_default();
            let new = NewTier { path, kind, size: *size, priority: *priority, force: *force };
            add(new, run.as_deref(), *json)
        }
        TierAction::Remove { tier, run, lose_unreadable, json } => {
            remove(tier, *lose_unreadable, run.as_deref(), *json)
        }
        TierAction::Reopen { tier, run, json } => reopen(tier, run.as_deref(), *json),
    })
}

pub(crate) fn print_json(value: &Value) {
    print(&format!(
        "{value:#}
"
    ));
}

/// The running ones; those that could not be asked are named.
pub(crate) fn running() -> Vec<Run> {
    let (runs, errors) = find();
    errors.into_iter().for_each(say::say);
    runs.into_iter().map(harmless).collect()
}

/// What others say of themselves is shown on a terminal: without control characters.
fn harmless(mut run: Run) -> Run {
    let clean = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    run.status.program = clean(&run.status.program);
    let clean_path = |path: &mut Option<PathBuf>| {
        *path = path.take().map(|path| clean(&path.to_string_lossy()).into());
    };
    for tier in &mut run.status.tiers {
        (tier.kind, tier.state) = (clean(&tier.kind), clean(&tier.state));
        clean_path(&mut tier.path);
    }
    for page in &mut run.status.lost_pages {
        page.reason = clean(&page.reason);
        clean_path(&mut page.path);
    }
    run
}

fn wanted(args: &AskArgs) -> Result<Vec<Status>, ClientError> {
    Ok(wanted_runs(args)?.into_iter().map(|run| run.status).collect())
}

pub(crate) fn wanted_runs(args: &AskArgs) -> Result<Vec<Run>, ClientError> {
    let runs = running();
    match &args.run {
        None if runs.is_empty() => Err(ClientError::NoneRuns),
        None => Ok(runs),
        some => Ok(vec![Run::choose(runs, some.as_deref())?]),
    }
}

/// What was done to a tier of a run, with further figures.
fn tier_json(run: &Run, tier: u8, figures: Value) -> Value {
    let mut told = json!({ "pid": run.status.pid, "program": run.status.program, "tier": tier });
    if let (Some(told), Value::Object(figures)) = (told.as_object_mut(), figures) {
        told.extend(figures);
    }
    told
}

fn add(mut new: NewTier, run: Option<&str>, json: bool) -> Outcome {
    let run = Run::choose(running(), run)?;
    // A ghost is nowhere.
    if new.path != Path::new("") {
        let path = std::path::absolute(&new.path);
        new.path = path.map_err(|source| ClientError::Io { path: new.path.clone(), source })?;
    }
    let answer = Client::connect(&run.path, run.owner)?.ask(&Request::AddTier(new), &mut |_, _| {})?;
    match answer {
        Answer::Added { tier } if json => print_json(&tier_json(&run, tier, json!({}))),
        Answer::Added { tier } => print(&format!("tier {tier} added to {run}\n")),
        _ => {}
    }
    Ok(())
}

/// The tier that is meant by a number or by where it is.
fn on_tier(wanted: &str, run: Option<&str>) -> Result<(Client, Run, Tier), ClientError> {
    let run = Run::choose(running(), run)?;
    let by_path = std::path::absolute(wanted).ok();
    let meant: Vec<&Tier> = match wanted.parse::<u8>() {
        Ok(number) => run.status.tiers.iter().filter(|tier| tier.tier == number).collect(),
        Err(_) => {
            run.status.tiers.iter().filter(|tier| tier.path.is_some() && tier.path == by_path).collect()
        }
    };
    match meant[..] {
        [tier] => {
            let tier = tier.clone();
            Ok((Client::connect(&run.path, run.owner)?, run, tier))
        }
        [] => {
            Err(ClientError::Refused(format!("{run} has no tier {wanted}; vswap tiers shows what there is")))
        }
        _ => Err(ClientError::Refused(format!(
            "{run} has several tiers at {wanted}; say which one by its number"
        ))),
    }
}

fn reopen(tier: &str, run: Option<&str>, json: bool) -> Outcome {
    let (mut client, run, tier) = on_tier(tier, run)?;
    client.ask(&Request::ReopenTier { tier: tier.tier }, &mut |_, _| {})?;
    if json {
        print_json(&tier_json(&run, tier.tier, json!({})));
    }
    Ok(())
}

fn remove(tier: &str, lose: bool, run: Option<&str>, json: bool) -> Outcome {
    let (mut client, run, tier) = on_tier(tier, run)?;
    let since = Instant::now();
    let bar = ProgressBar::with_draw_target(Some(tier.used.max(1)), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(
        "{bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
    );
    if let Ok(style) = style {
        bar.set_style(style);
    }
    if std::io::stderr().is_terminal() {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    let request = Request::RemoveTier { tier: tier.tier, lose };
    let answer = client.ask(&request, &mut |_, left| bar.set_position(tier.used.saturating_sub(left)));
    bar.finish_and_clear();
    if let Answer::Removed(Removed { segments, bytes, pooled, lost }) = answer? {
        if json {
            let seconds = since.elapsed().as_millis() as f64 / 1e3;
            let figures = json!({ "segments": segments, "bytes": bytes, "pooled": pooled, "lost": lost, "seconds": seconds });
            print_json(&tier_json(&run, tier.tier, figures));
            return Ok(());
        }
        let lost = if lost > 0 { format!(", {lost} pages lost") } else { String::new() };
        let pooled = if pooled > 0 { format!(", {pooled} pages to memory") } else { String::new() };
        print(&format!(
            "tier {} removed: {segments} segments, {} moved{pooled}{lost}\n",
            tier.tier,
            BinaryBytes(bytes)
        ));
    }
    Ok(())
}

fn tier_table(status: &Status, columns: &[TierColumn], style: Style) -> String {
    let mut table = Table::new(columns.iter().map(|column| (column.name(), column.is_figure())));
    let tiers = status.tiers.iter().map(Some);
    for tier in std::iter::once(None).chain(tiers) {
        table.add(columns.iter().map(|column| tier_cell(status, tier, *column, style)).collect());
    }
    table.text(style)
}

/// Of a tier, or of the pool.
fn tier_cell(status: &Status, tier: Option<&Tier>, column: TierColumn, style: Style) -> String {
    match (column, tier) {
        (TierColumn::Run, _) => status.pid.to_string(),
        (TierColumn::Program, _) => status.program.clone(),
        (TierColumn::Tier, tier) => or_dash(tier.map(|tier| tier.tier)),
        (TierColumn::Name, tier) => path_or_dash(tier.and_then(|tier| tier.path.as_deref())),
        (TierColumn::Type, tier) => tier.map_or("pool", |tier| &tier.kind).to_owned(),
        (TierColumn::Size, tier) => style.size(tier.map_or(status.pool_size, |tier| tier.size)),
        (TierColumn::Used, tier) => style.size(tier.map_or(status.pool, |tier| tier.used)),
        (TierColumn::Live, tier) => style.size(tier.map_or(status.pool_live, |tier| tier.live)),
        (TierColumn::Prio, tier) => tier.map_or("first".into(), |tier| tier.priority.to_string()),
        (TierColumn::State, tier) => tier.map_or("open", |tier| &tier.state).to_owned(),
    }
}

fn or_dash(known: Option<impl ToString>) -> String {
    known.map_or("-".into(), |known| known.to_string())
}

fn path_or_dash(path: Option<&Path>) -> String {
    or_dash(path.map(Path::display))
}

fn lost_table(status: &Status) -> String {
    let headings = ["LOST AT", "PROCESS", "ADDRESS", "TIER", "NAME", "OFFSET", "REASON"];
    let mut table =
        Table::new(headings.iter().enumerate().map(|(at, heading)| ((*heading).to_owned(), at < 2)));
    for page in &status.lost_pages {
        table.add(vec![
            format!("{:.1} s", page.elapsed_ms as f64 / 1e3),
            page.pid.to_string(),
            format!("{:#x}", page.address),
            or_dash(page.tier),
            path_or_dash(page.path.as_deref()),
            or_dash(page.offset.map(|offset| format!("{offset:#x}"))),
            page.reason.clone(),
        ]);
    }
    table.text(Style::default())
}

fn show(status: &Status, style: Style) -> String {
    let bytes = |count: u64| style.size(count);
    let ratio = |from: u64, to: u64| if to == 0 { 0.0 } else { from as f64 / to as f64 };
    let pages = |pages: u64, moved: u64| format!("{pages} pages, {}", bytes(moved));
    let mut lines = vec![
        ("run", format!("{} ({}), for {} s", status.pid, status.program, status.elapsed_ms / 1000)),
        (
            "memory",
            format!("{} of {}, at most {}", bytes(status.used), bytes(status.limit), bytes(status.peak)),
        ),
        ("resident", bytes(status.resident)),
        (
            "compressed",
            format!(
                "{} in {}, {:.1} : 1",
                bytes(status.pooled),
                bytes(status.pool),
                ratio(status.pooled, status.pool)
            ),
        ),
        (
            "on tiers",
            match status.ghosts {
                0 => bytes(status.swapped),
                ghosts => format!("{}, ghosts take {} of memory", bytes(status.swapped), bytes(ghosts)),
            },
        ),
        ("written to tiers", pages(status.swapped_out, status.written)),
        ("read from tiers", pages(status.swapped_in, status.read)),
    ];
    if status.reclaim_target > 0 || status.reclaimed > 0 {
        let percent = |millionths: u64| millionths as f64 / 1e4;
        let target = match status.reclaim_target {
            0 => "off".to_owned(),
            target => format!(
                "while waits are below {:.2} % (now {:.2} %)",
                percent(target),
                percent(status.reclaim_pressure)
            ),
        };
        let (reclaimed, written) = (bytes(status.reclaimed * 4096), bytes(status.reclaim_written * 4096));
        lines.push(("reclaim", format!("{target}; {reclaimed} moved out, {written} written to tiers")));
    }
    if status.lost > 0 {
        lines.push(("pages lost", status.lost.to_string()));
    }
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<17} {value}\n")).collect();
    text += "\n";
    if !status.lost_pages.is_empty() {
        text += &lost_table(status);
        text += "\n";
    }
    text + &tier_table(status, &TierColumn::usual(), style)
}
