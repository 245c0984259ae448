//! `vswap cache`: stores of named objects.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use vswap::objects::{ByteCount, Holder, MAX_AUX, MAX_LEN, NamedObject, Store, StoreConfig};

use crate::args::{CacheAction, Column, Key, ObjectArgs, ObjectColumn};
use crate::control::{print, print_json};
use crate::say;
use crate::table::{Style, Table};

/// Not there, or refused.
const EXIT_REFUSED: u8 = 1;
/// Bytes that are read or written at once.
const PIECE: usize = 1 << 20;

type Failure = Box<dyn std::error::Error>;
type Outcome = Result<(), Failure>;

/// Runs `vswap cache`.
pub fn cache(action: &CacheAction) -> ExitCode {
    let done = match action {
        CacheAction::Init { store, size } => {
            Store::create(store, *size, &StoreConfig::default()).map(drop).map_err(Failure::from)
        }
        CacheAction::Ls { store, prefix, volume, json, table } => {
            let columns = (!json).then(|| table.columns());
            list(store, prefix, volume.as_ref(), columns.as_deref(), Style::from(table))
        }
        CacheAction::Stat { object, json } => stat(object, *json),
        CacheAction::Put { object, file, version, aux } => {
            put(object, file.as_deref(), *version, aux.as_deref())
        }
        CacheAction::Get { object } => get(object),
        #[cfg(feature = "mount")]
        CacheAction::Pin { object, tree: true, .. } => crate::mount::pin_tree(object, true),
        #[cfg(feature = "mount")]
        CacheAction::Unpin { object, tree: true, .. } => crate::mount::pin_tree(object, false),
        CacheAction::Pin { object, prefix, .. } => pin(object, *prefix, true),
        CacheAction::Unpin { object, prefix, .. } => pin(object, *prefix, false),
        CacheAction::Cull { store, size, json } => cull(store, *size, *json),
        CacheAction::Invalidate { object, prefix } => invalidate(object, *prefix),
        CacheAction::Df { store, json, bytes } => df(store, *json, *bytes),
        #[cfg(feature = "mount")]
        CacheAction::Mount(args) => crate::mount::mount(args),
        CacheAction::Check { store, repair, json } => check(store, *repair, *json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::say(error);
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

pub(crate) fn open(store: &Path) -> Result<Arc<Store>, Failure> {
    Ok(Store::open(store, &StoreConfig::default())?)
}

fn find(store: &Arc<Store>, object: &ObjectArgs) -> Result<NamedObject, Failure> {
    let found = store.find(&object.volume.0, &object.key.0)?;
    let (volume, key) = (shown(&object.volume.0), shown(&object.key.0));
    found.ok_or_else(|| {
        format!("there is no object {key:?} in volume {volume:?} of {}", object.store.display()).into()
    })
}

/// A key as it may be written on a command line.
fn shown(key: &[u8]) -> String {
    let plain = |text: &str| -> String {
        text.chars()
            .map(|c| match c {
                '\\' => r"\\".to_owned(),
                c if c.is_control() || c.is_whitespace() => {
                    c.to_string().bytes().map(|byte| format!("\\x{byte:02x}")).collect()
                }
                c => c.to_string(),
            })
            .collect()
    };
    let part = |chunk: std::str::Utf8Chunk<'_>| {
        let invalid: String = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")).collect();
        plain(chunk.valid()) + &invalid
    };
    key.utf8_chunks().map(part).collect()
}

fn list(
    store: &Path,
    prefix: &Key,
    volume: Option<&Key>,
    columns: Option<&[ObjectColumn]>,
    style: Style,
) -> Outcome {
    let store = open(store)?;
    let volumes = volume.map_or_else(|| store.volumes(), |volume| vec![volume.0.clone()]);
    let named = columns.unwrap_or_default();
    let mut table = Table::new(named.iter().map(|column| (column.name(), column.is_figure())));
    let mut values = Vec::new();
    for volume in volumes {
        store.list(&volume, &prefix.0, |listed| {
            let states = [(listed.damaged, "damaged"), (listed.dirty, "dirty"), (listed.pinned, "pinned")];
            let states: Vec<_> = states.into_iter().filter_map(|(is, state)| is.then_some(state)).collect();
            let state = if states.is_empty() { "clean".to_owned() } else { states.join(",") };
            let cell = |column: &ObjectColumn| match column {
                ObjectColumn::Volume => shown(&volume),
                ObjectColumn::Key => shown(&listed.key),
                ObjectColumn::Version => listed.version.to_string(),
                ObjectColumn::Size => style.size(listed.len.get()),
                ObjectColumn::State => state.clone(),
            };
            match columns {
                Some(columns) => table.add(columns.iter().map(cell).collect()),
                None => values.push(json!({
                    "volume": shown(&volume), "key": shown(&listed.key), "version": listed.version,
                    "size": listed.len.get(), "state": state,
                })),
            }
            true
        })?;
    }
    match columns {
        Some(_) => print(&table.text(style)),
        None => print_json(&values.into()),
    }
    Ok(())
}

fn stat(args: &ObjectArgs, as_json: bool) -> Outcome {
    let store = open(&args.store)?;
    let object = find(&store, args)?;
    let all = 0..object.len();
    let present: Vec<_> = object.present(all.clone());
    let dirty: Vec<_> = object.dirty().iter().map(|dirty| dirty.range()).collect();
    let extents = object.extents(all);
    let holder = |holder: Holder| match holder {
        Holder::Pattern => "pattern".to_owned(),
        Holder::Memory => "memory".to_owned(),
        Holder::Tier { tier, block, blocks } => format!("tier {} block {block} + {blocks}", tier.get()),
        _ => "lost".to_owned(),
    };
    if as_json {
        let ranges = |ranges: &[std::ops::Range<u64>]| -> Value {
            ranges.iter().map(|range| json!([range.start, range.end])).collect()
        };
        let extents: Value = extents
            .iter()
            .map(|extent| json!({ "start": extent.range.start, "end": extent.range.end, "holder": holder(extent.holder) }))
            .collect();
        print_json(&json!({
            "volume": shown(&args.volume.0), "key": shown(object.key()), "version": object.version(),
            "size": object.len(), "aux": object.aux().len(), "present": ranges(&present), "dirty": ranges(&dirty),
            "extents": extents,
        }));
        return Ok(());
    }
    let there: u64 = present.iter().map(|range| range.end - range.start).sum();
    let mut text = format!(
        "volume   {}\nkey      {}\nversion  {}\nsize     {}\nthere    {there} in {} ranges\ndirty    {} ranges\naux      {}\n",
        shown(&args.volume.0),
        shown(object.key()),
        object.version(),
        object.len(),
        present.len(),
        dirty.len(),
        object.aux().len()
    );
    for extent in extents {
        text +=
            &format!("extent   {}..{}  {}\n", extent.range.start, extent.range.end, holder(extent.holder));
    }
    print(&text);
    Ok(())
}

fn put(args: &ObjectArgs, file: Option<&Path>, version: u64, aux: Option<&Path>) -> Outcome {
    let named = |path: &Path, error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let (mut from, bytes): (Box<dyn Read>, Option<u64>) = match file {
        Some(path) => {
            let file = File::open(path).map_err(|error| named(path, error))?;
            let bytes = file.metadata().map(|found| found.len()).ok();
            (Box::new(file), bytes)
        }
        None => (Box::new(std::io::stdin()), None),
    };
    let aux = match aux {
        Some(path) => {
            let mut bytes = Vec::new();
            // One byte more than may be, so that too many are refused and not cut off.
            let read =
                File::open(path).and_then(|file| file.take(MAX_AUX as u64 + 1).read_to_end(&mut bytes));
            read.map_err(|error| named(path, error))?;
            Some(bytes)
        }
        None => None,
    };
    let store = open(&args.store)?;
    let object = store.object(&args.volume.0, &args.key.0, version)?;
    object.set_len(0)?;
    // A commit that makes room for what follows may be what a crash finds: then bytes are missing, and `get` refuses it.
    object.set_len(bytes.filter(|bytes| *bytes > 0).unwrap_or(MAX_LEN))?;
    let bar = bar(bytes);
    let (mut buf, mut at) = (vec![0; PIECE], 0);
    loop {
        let read = match from.read(&mut buf) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(named(file.unwrap_or(Path::new("standard input")), error).into()),
        };
        object.write(at, &buf[..read])?;
        at += read as u64;
        bar.inc(read as u64);
    }
    object.set_len(at)?;
    // To make room for its end its beginning may have been given up.
    if !object.missing(0..at).is_empty() {
        return Err(format!("{} has no room for {at} bytes", args.store.display()).into());
    }
    if let Some(aux) = aux {
        object.set_aux(&aux)?;
    }
    store.sync()?;
    bar.finish_and_clear();
    Ok(())
}

fn get(args: &ObjectArgs) -> Outcome {
    let store = open(&args.store)?;
    let object = find(&store, args)?;
    if let Some(first) = object.missing(0..object.len()).first() {
        return Err(format!("bytes {} to {} of the object are missing", first.start, first.end).into());
    }
    let bar = bar(Some(object.len()));
    let mut out = std::io::stdout().lock();
    let (mut buf, mut at) = (vec![0; PIECE], 0);
    loop {
        let read = object.read(at, &mut buf)?;
        if read.len == 0 {
            break;
        }
        out.write_all(&buf[..read.len])
            .map_err(|error| format!("cannot write to standard output: {error}"))?;
        at += read.len as u64;
        bar.inc(read.len as u64);
    }
    bar.finish_and_clear();
    Ok(out.flush()?)
}

/// Does something with an object, or with all whose keys begin so.
fn each(
    store: &Arc<Store>,
    args: &ObjectArgs,
    prefix: bool,
    mut each: impl FnMut(NamedObject) -> Outcome,
) -> Outcome {
    if !prefix {
        return each(find(store, args)?);
    }
    let mut keys = Vec::new();
    store.list(&args.volume.0, &args.key.0, |listed| {
        keys.push(listed.key);
        true
    })?;
    for key in keys {
        store.find(&args.volume.0, &key)?.map_or(Ok(()), &mut each)?;
    }
    Ok(())
}

fn pin(args: &ObjectArgs, prefix: bool, is: bool) -> Outcome {
    let store = open(&args.store)?;
    each(&store, args, prefix, |object| {
        match is {
            true => object.pin()?,
            false => object.unpin(),
        }
        Ok(())
    })?;
    Ok(store.sync()?)
}

fn cull(path: &Path, size: Option<u64>, as_json: bool) -> Outcome {
    let store = open(path)?;
    let given = store.reclaim(ByteCount::new(size.unwrap_or(u64::MAX)))?.get();
    match as_json {
        true => print_json(&json!({ "store": path.display().to_string(), "freed": given })),
        false => print(&format!("{} freed\n", Style::default().size(given))),
    }
    Ok(())
}

fn invalidate(args: &ObjectArgs, prefix: bool) -> Outcome {
    let store = open(&args.store)?;
    if prefix {
        store.invalidate(&args.volume.0, &args.key.0)?;
    } else {
        drop(find(&store, args)?);
        store.remove(&args.volume.0, &args.key.0)?;
    }
    Ok(store.sync()?)
}

fn df(path: &Path, as_json: bool, bytes: bool) -> Outcome {
    let store = open(path)?;
    let Some(tier) = store.engine().tiers().into_iter().next() else { return Ok(()) };
    let room = store.engine().durable_room().get();
    let (size, used, live) = (tier.size.get(), tier.used.get(), tier.live.get());
    let pinned = store.pinned().0.get();
    if as_json {
        let path = path.display().to_string();
        let figures = json!({
            "store": path, "size": size, "used": used, "live": live, "available": room, "pinned": pinned,
        });
        print_json(&figures);
        return Ok(());
    }
    let style = Style { bytes, ..Style::default() };
    let headings =
        [("STORE", false), ("SIZE", true), ("USED", true), ("LIVE", true), ("AVAIL", true), ("PINNED", true)];
    let mut table = Table::new(headings.map(|(name, figure)| (name.to_owned(), figure)));
    let figures = [size, used, live, room, pinned].map(|figure| style.size(figure));
    table.add([vec![path.display().to_string()], figures.to_vec()].concat());
    print(&table.text(style));
    Ok(())
}

fn check(path: &Path, repair: bool, as_json: bool) -> Outcome {
    let store = open(path)?;
    let (mut objects, mut bytes, mut damaged) = (0_u64, 0_u64, Vec::new());
    let mut buf = vec![0; PIECE];
    for volume in store.volumes() {
        let mut keys = Vec::new();
        store.list(&volume, b"", |listed| {
            keys.push(listed.key);
            true
        })?;
        let bar = bar(None);
        for key in keys {
            let found = match store.find(&volume, &key) {
                Ok(None) => continue,
                Ok(Some(object)) => read_all(&object, &mut buf, &mut bytes),
                Err(error) => Err(error.to_string()),
            };
            objects += 1;
            bar.set_message(format!("{objects} objects, {} damaged", damaged.len()));
            bar.tick();
            if let Err(fault) = found {
                if !as_json {
                    say::say(format!("{} in volume {}: {fault}", shown(&key), shown(&volume)));
                }
                damaged.push(json!({ "volume": shown(&volume), "key": shown(&key), "fault": fault }));
                if repair {
                    store.remove(&volume, &key)?;
                }
            }
        }
        bar.finish_and_clear();
    }
    if repair {
        // Without these objects first.
        store.sync()?;
        store.free_lost()?;
        store.sync()?;
    }
    let found = damaged.len();
    if as_json {
        print_json(&json!({ "objects": objects, "bytes": bytes, "damaged": damaged, "repaired": repair }));
    } else {
        print(&format!("{objects} objects, {bytes} bytes read, {found} damaged\n"));
    }
    match found > 0 && !repair {
        true => Err(format!("{found} of {objects} objects are damaged: --repair ends them").into()),
        false => Ok(()),
    }
}

fn read_all(object: &NamedObject, buf: &mut [u8], bytes: &mut u64) -> Result<(), String> {
    object.audit()?;
    for range in object.present(0..object.len()) {
        let mut at = range.start;
        while at < range.end {
            let piece = (range.end - at).min(buf.len() as u64) as usize;
            let read = object.read(at, &mut buf[..piece]).map_err(|error| error.to_string())?;
            *bytes += read.len as u64;
            at += piece as u64;
        }
    }
    Ok(())
}

/// On a terminal only.
fn bar(bytes: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (template, bar) = match bytes {
        Some(bytes) => (
            "{bar:30} {binary_bytes} of {binary_total_bytes} {binary_bytes_per_sec} {eta}",
            ProgressBar::new(bytes),
        ),
        None => ("{spinner} {binary_bytes} {msg}", ProgressBar::no_length()),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
