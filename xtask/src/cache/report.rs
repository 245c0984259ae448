//! The report: medians with their spread, and how they compare.

use serde_json::Value;

use super::{SIZES, THROUGH_DATA};
use crate::host::machine;

/// A line of a table: part, figure, what it is called, by what it is multiplied.
type Line = (&'static str, &'static str, &'static str, f64);

const MIB: f64 = 1.0 / 1_048_576.0;
const LINES: &[Line] = &[
    ("put", "objects_per_s", "put, objects/s", 1.0),
    ("put", "mb_per_s", "put, MB/s", 1.0),
    ("hot", "gets_per_s", "get hot, objects/s", 1.0),
    ("hot", "mb_per_s", "get hot, MB/s", 1.0),
    ("hot", "p50_us", "get hot, us, p50", 1.0),
    ("hot", "p99_us", "get hot, us, p99", 1.0),
    ("hot", "memory_part", "get hot, % found in memory", 100.0),
    ("cold", "open_ms", "open, ms", 1.0),
    ("cold", "gets_per_s", "get cold, objects/s", 1.0),
    ("cold", "mb_per_s", "get cold, MB/s", 1.0),
    ("cold", "p50_us", "get cold, us, p50", 1.0),
    ("cold", "p99_us", "get cold, us, p99", 1.0),
    ("cold", "missing", "get cold, objects that are not there", 1.0),
    ("through", "ops_per_s", "read-through, operations/s", 1.0),
    ("through", "p50_us", "read-through, get, us, p50", 1.0),
    ("through", "p99_us", "read-through, get, us, p99", 1.0),
    ("through", "memory_part", "read-through, % found in memory", 100.0),
    ("through", "disk_part", "read-through, % found on the disk", 100.0),
    ("through", "miss_part", "read-through, % not found", 100.0),
    ("", "resident_peak", "resident, peak, MiB", MIB),
    ("", "cache_peak", "page cache, peak, MiB", MIB),
];

/// Figures of one kind.
struct Figures(Vec<f64>);

impl Figures {
    fn new(mut all: Vec<f64>) -> Self {
        all.retain(|figure| figure.is_finite());
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    fn median(&self) -> f64 {
        let (all, middle) = (&self.0, self.0.len() / 2);
        match all.len() {
            0 => f64::NAN,
            count if count.is_multiple_of(2) => (all[middle - 1] + all[middle]) / 2.0,
            _ => all[middle],
        }
    }

    /// The median, and the least and the largest if there are several.
    fn say(&self) -> String {
        match self.0.as_slice() {
            [] => "-".into(),
            [only] => short(*only),
            [least, .., most] => format!("{} ({}-{})", short(self.median()), short(*least), short(*most)),
        }
    }
}

/// Three digits.
fn short(number: f64) -> String {
    match number.abs() {
        large if large >= 100.0 => format!("{number:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        0.0 => "0".into(),
        small if small >= 0.1 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

/// How many times the peer's the store's is; nothing where that says nothing.
fn ratio(store: f64, peer: f64) -> String {
    let ratio = store / peer;
    if ratio.is_finite() && ratio > 0.0 { format!("{}x", short(ratio)) } else { String::new() }
}

/// The whole report.
pub fn text(circumstances: &Value, found: &Value) -> String {
    let number = |key: &str| circumstances[key].as_f64().unwrap_or(f64::NAN);
    let mut text = format!(
        "# Stores of named objects beside files and foyer\n\n{}; file system {}; load at the end {}\n\n",
        machine::headline(&circumstances["machine"]),
        circumstances["file_system"].as_str().unwrap_or("?"),
        circumstances["load_at_the_end"].as_str().unwrap_or("?"),
    );
    text += &format!(
        "`cargo xtask cache`{}: medians of {} rounds (least-largest), contestants in turn, in one run; each part in a process of its own. **x** is the store's figure / the peer's. \
         Each has {} MiB of memory.\n\n",
        if circumstances["quick"] == true { " `--quick`" } else { "" },
        circumstances["rounds"],
        short(number("memory") * MIB),
    );
    if let Some(note) = circumstances["note"].as_str() {
        text += &format!("{note}\n\n");
    }
    text += CONTESTANTS;
    if circumstances["foyer"] != true {
        text += "foyer was left out: `cargo xtask cache --foyer` builds it.\n\n";
    }
    text += &format!(
        "Of each 4 KiB of an object half is noise and half the same words again and again; every byte that was got was compared. *put*: {} MiB, a sync every 8 MiB, all of \
         it timed. *get hot*: of a set of a quarter of the memory that was read once, at random. *get cold*: after the store was closed and opened by another process and the page cache \
         dropped, each object once, at random. *read-through*: by Zipf's law, exponent 0.99, of {THROUGH_DATA} times the memory, from nothing; what is not found is made and put; operations/s with puts and syncs.\n\n",
        short(number("data") * MIB),
    );
    text += &device(&found["device"]);
    for size in SIZES {
        text += &contest(size, &found["contest"]);
    }
    text + &many(&found["many"]) + &long(&found["long"])
}

const CONTESTANTS: &str = "- *store*: an eighth of the memory for the index, as much for the pool, the rest for pages that are read often. What the engine knows of its slots comes on top, and shows in the resident peak. Data are \
    read and written with direct I/O; the index goes through the page cache, which is not bounded.\n\
    - *files*: one for each object, two levels of 16 directories, written under another name and renamed; one `syncfs` at each sync, which is much faster than an fsync of each file. In a memory cgroup with that \
    limit, which bounds page cache, inodes and the process together. Found on the disk is what the device gave: directories and inodes count too, so that it is less than that.\n\
    - *foyer*: its memory tier has that much, by bytes of the values; buffers come on top. Block engine on files, direct I/O, lz4, written on insertion, one shard, LRU. A sync waits until its queue is empty; it never syncs \
    a file, so it promises less than the others. A hit in memory is a reference: nothing is copied, where the others fill a buffer.\n\n";

fn figures(found: &[&Value], part: &str, key: &str, by: f64) -> Figures {
    let of = |run: &&Value| if part.is_empty() { run[key].as_f64() } else { run[part][key].as_f64() };
    Figures::new(found.iter().filter_map(of).map(|figure| figure * by).collect())
}

fn runs(list: &Value) -> Vec<&Value> {
    list.as_array().map_or(Vec::new(), |list| list.iter().collect())
}

fn contest(size: u64, found: &Value) -> String {
    let of = |who: &str| -> Vec<&Value> {
        runs(found).into_iter().filter(|run| run["who"] == who && run["size"] == size).collect()
    };
    let peers: Vec<_> = ["files", "foyer"].into_iter().filter(|who| !of(who).is_empty()).collect();
    let store = of("store");
    if store.is_empty() {
        return String::new();
    }
    let mut text = format!("## Objects of {} KiB\n\n| | store |", size >> 10);
    peers.iter().for_each(|peer| text += &format!(" {peer} | x |"));
    text += &format!("\n| --- | ---: |{}\n", " ---: | ---: |".repeat(peers.len()));
    for (part, key, name, by) in LINES {
        let ours = figures(&store, part, key, *by);
        text += &format!("| {name} | {} |", ours.say());
        for peer in &peers {
            let theirs = figures(&of(peer), part, key, *by);
            text += &format!(" {} | {} |", theirs.say(), ratio(ours.median(), theirs.median()));
        }
        text += "\n";
    }
    text + "\n"
}

fn device(found: &Value) -> String {
    let of = |key: &str| figures(&runs(found), "", key, 1.0).say();
    format!(
        "The device by itself, direct I/O on a plain file, one at a time: write {} MB/s, read {} MB/s (1 MiB each); read 4 KiB {} /s, p50 {} us, p99 {} us; write 4 KiB and sync, p50 {} us.\n\n",
        of("write_mb_per_s"),
        of("read_mb_per_s"),
        of("read_4k_per_s"),
        of("read_4k_p50_us"),
        of("read_4k_p99_us"),
        of("write_4k_sync_us")
    )
}

fn many(found: &Value) -> String {
    let Some(objects) = found["objects"].as_f64() else { return String::new() };
    let figure = |part: &str, key: &str| found[part][key].as_f64().unwrap_or(f64::NAN);
    let each = |part: &str, key: &str| (figure(part, key) - figure("empty", key)) / objects;
    let bytes = |key: &str| found[key].as_f64().unwrap_or(f64::NAN) / objects;
    format!(
        "## A store of {objects} objects of one page\n\nOnce. *Resident*: just after the opening, less that of an empty store. Opened with nothing in the page cache; default configuration.\n\n| | |\n| --- | ---: |\n\
         | create, with a sync every 4096, s | {} |\n| open after a clean end, s | {} |\n| open after kill -9, s | {} |\n| resident, bytes an object | {} |\n| of these the engine's slots, bytes an object | {} |\n\
         | resident peak of the creation, MiB | {} |\n| resident peak of an opening, MiB | {} |\n| index on the disk, bytes an object | {} |\n| data on the disk, bytes an object | {} |\n\
         | invalidate them all, the call, ms | {} |\n| the sync after it, s | {} |\n| until all is given up: more syncs | {} |\n| these take, s | {} |\n\n",
        short(figure("create", "create_s")),
        short(figure("open", "open_s")),
        short(figure("after_kill", "open_s")),
        short(each("open", "resident")),
        short(each("open", "metadata")),
        short(figure("create", "resident_peak") * MIB),
        short(figure("open", "resident_peak") * MIB),
        short(bytes("index_bytes")),
        short(bytes("data_bytes")),
        short(figure("invalidate", "call_ms")),
        short(figure("invalidate", "sync_s")),
        short(figure("invalidate", "syncs") - 1.0),
        short(figure("invalidate", "rest_s")),
    )
}

fn long(found: &Value) -> String {
    let runs = runs(found);
    if runs.is_empty() {
        return String::new();
    }
    let mut text = "## A long object, from its beginning to its end\n\nMB/s, 1 MiB at a time, read after the page cache was dropped; beside a plain file with direct I/O. The store writes and reads \
        compressed pages, so that it may have more than the device.\n\n| | store | file | x |\n| --- | ---: | ---: | ---: |\n"
        .to_owned();
    for (key, name) in [("write", "write, to the last sync"), ("read", "read, cold")] {
        let (store, file) = (figures(&runs, "store", key, 1.0), figures(&runs, "file", key, 1.0));
        text += &format!(
            "| {name} | {} | {} | {} |\n",
            store.say(),
            file.say(),
            ratio(store.median(), file.median())
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Figures, contest, many, ratio, short};
    use serde_json::json;

    #[test]
    fn medians_are_of_what_was_measured_and_of_the_middle_two() {
        let median = |all: &[f64]| Figures::new(all.to_vec()).median();
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, f64::NAN, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(Figures::new(vec![3.0, 1.0, 2.0]).say(), "2.00 (1.00-3.00)");
        assert_eq!(Figures::new(vec![]).say(), "-");
    }

    #[test]
    fn three_digits_are_shown() {
        assert_eq!(
            [123_456.0, 12.34, 1.234, 0.012, 0.0].map(short),
            ["123456", "12.3", "1.23", "0.012", "0"]
        );
    }

    #[test]
    fn a_ratio_with_nothing_is_not_shown() {
        assert_eq!(ratio(1.0, 2.0), "0.50x");
        assert_eq!((ratio(0.0, 0.0), ratio(1.0, 0.0), ratio(f64::NAN, 1.0)), Default::default());
    }

    #[test]
    fn a_table_has_the_peers_that_ran_and_the_ratio_of_medians() {
        let run =
            |who: &str, rate: f64| json!({ "who": who, "size": 4096, "put": { "objects_per_s": rate } });
        let found = json!([run("store", 10.0), run("files", 20.0), run("store", 30.0), run("store", 40.0)]);
        let text = contest(4096, &found);
        assert!(text.contains("| put, objects/s | 30.0 (10.0-40.0) | 20.0 | 1.50x |"), "{text}");
        assert!(!text.contains("foyer"));
        assert_eq!(contest(1 << 20, &found), "");
    }

    #[test]
    fn memory_of_an_object_is_what_an_empty_store_has_not() {
        let found =
            json!({ "objects": 1000, "empty": { "resident": 5000 }, "open": { "resident": 4_101_000 } });
        assert!(many(&found).contains("| resident, bytes an object | 4096 |"));
    }
}
