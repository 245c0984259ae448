//! How fast it is: what is kept beside the file system below, and beside a source of five milliseconds a call that is used directly.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Options;
use super::place::{Place, Shown};
use crate::dist;
use crate::host::{machine, root, target_dir};

/// Milliseconds of a call of the slow source.
const DELAY: u64 = 5;
/// Bytes of the file that is read from its beginning to its end.
const LONG: usize = 256 << 20;
/// Longer than names and attributes are believed if nothing else is said.
const PAST_TTL: Duration = Duration::from_millis(1200);
const LONG_AGO: Duration = Duration::from_secs(86_400);
/// As long as a plain copy of the file may take.
const COPY: Duration = Duration::from_secs(4);
const READ_ONLY: &[&str] = &["--read-only"];
const BELIEVING: &[&str] = &["--ttl", "60"];

/// One thing that is done everywhere.
struct Figure {
    name: &'static str,
    /// Options of the mount.
    mount: &'static [&'static str],
    /// What the kernel has is dropped before, and if not, whether it is to ask again.
    cold: bool,
    stale: bool,
    /// There is to be time for a plain copy of what was read.
    copied: bool,
    /// How many times as long as natively, and the part of the slow source's time, at the most.
    goals: (f64, f64),
    act: fn(&Place, &str) -> Result<()>,
}

const READ: (f64, f64) = (1.25, 0.1);
const WORK: (f64, f64) = (1.3, 0.1);
const FIGURES: &[Figure] = &[
    Figure {
        name: "read a file, page cache dropped",
        mount: &[],
        cold: true,
        stale: false,
        copied: false,
        goals: READ,
        act: read,
    },
    Figure {
        name: "read it again",
        mount: &[],
        cold: false,
        stale: false,
        copied: false,
        goals: READ,
        act: read,
    },
    Figure {
        name: "read it, --read-only, page cache dropped",
        mount: READ_ONLY,
        cold: true,
        stale: false,
        copied: true,
        goals: READ,
        act: read,
    },
    Figure {
        name: "read it again, --read-only",
        mount: READ_ONLY,
        cold: false,
        stale: false,
        copied: true,
        goals: READ,
        act: read,
    },
    Figure {
        name: "git status, past the ttl of 1 s",
        mount: &[],
        cold: false,
        stale: true,
        copied: false,
        goals: WORK,
        act: status,
    },
    Figure {
        name: "git status, ttl 60 s",
        mount: BELIEVING,
        cold: false,
        stale: true,
        copied: false,
        goals: WORK,
        act: status,
    },
    Figure {
        name: "git status, ttl 60 s, all dropped",
        mount: BELIEVING,
        cold: true,
        stale: false,
        copied: false,
        goals: WORK,
        act: status,
    },
    Figure {
        name: "make, objects elsewhere, ttl 1 s",
        mount: &[],
        cold: false,
        stale: true,
        copied: false,
        goals: WORK,
        act: make,
    },
    Figure {
        name: "make, objects elsewhere, ttl 60 s",
        mount: BELIEVING,
        cold: false,
        stale: true,
        copied: false,
        goals: WORK,
        act: make,
    },
    Figure {
        name: "make, objects in the tree, ttl 60 s",
        mount: BELIEVING,
        cold: false,
        stale: true,
        copied: false,
        goals: WORK,
        act: make_there,
    },
];

/// Where it is done: the name in the report, the directory of the place, and what is mounted over which.
const WHERE: [(&str, &str); 4] =
    [("native", "source"), ("mount", "point"), ("slow", "slow"), ("mount over slow", "point")];

/// Measures and writes the report.
pub fn run(options: &Options, vswap: &Path, out: &Path) -> Result<()> {
    let slow = slow()?;
    let (near, far) = (Place::new(vswap, "mount-near", "3G")?, Place::new(vswap, "mount-far", "3G")?);
    for place in [&near, &far] {
        fill(place)?;
    }
    let _slow = far.slowly(&slow, DELAY)?;
    let mut found: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    for round in 0..options.rounds {
        for figure in FIGURES.iter().filter(|figure| options.wants(figure.name)) {
            for (who, dir) in WHERE {
                let place = if who.contains("slow") { &far } else { &near };
                let more = [figure.mount, &options.words()].concat();
                let mount = |source| place.mount(source, &more);
                let shown = match who {
                    "mount" => Some(mount("source")?),
                    "mount over slow" => Some(mount("slow")?),
                    _ => None,
                };
                let seconds = measure(figure, place, dir, who != "slow" || round == 0)?;
                shown.map_or(Ok(()), Shown::unmount)?;
                eprintln!("xtask: round {round}, {}, {who}: {seconds:.3} s", figure.name);
                found.entry(figure.name).or_default().entry(who).or_default().push(seconds);
            }
        }
    }
    let text = report(options, &found);
    println!("{text}");
    fs::create_dir_all(out)?;
    fs::write(out.join("mount.md"), &text)?;
    let all = json!({ "machine": machine::describe(), "note": options.note, "options": options.options, "seconds": found });
    fs::write(out.join("mount.json"), serde_json::to_string_pretty(&all)? + "\n")?;
    Ok(())
}

fn measure(figure: &Figure, place: &Place, dir: &str, before: bool) -> Result<f64> {
    // So that it is kept.
    if before {
        (figure.act)(place, dir)?;
    }
    if figure.copied && dir == "point" {
        std::thread::sleep(COPY);
        // Nobody but the kernel is asked from here on.
        (figure.act)(place, dir)?;
    }
    if figure.cold {
        ensure!(Command::new("sync").status()?.success(), "sync failed");
        fs::write("/proc/sys/vm/drop_caches", "3")
            .context("cannot drop the page cache: this task needs root")?;
    }
    if figure.stale {
        std::thread::sleep(PAST_TTL);
    }
    let begun = Instant::now();
    (figure.act)(place, dir)?;
    Ok(begun.elapsed().as_secs_f64())
}

/// The source of so many milliseconds a call.
fn slow() -> Result<std::path::PathBuf> {
    // For the target of the release, so that all that it needs is there.
    let words =
        ["build", "--release", "--quiet", "-p", "vswap-mount", "--example", "slow", "--target", dist::TARGET];
    let built = Command::new("cargo").current_dir(root()).args(words).status()?;
    ensure!(built.success(), "cargo {} ended with {built}", words.join(" "));
    Ok(target_dir().join(dist::TARGET).join("release/examples/slow"))
}

/// A long file, a repository and a small program in the source.
fn fill(place: &Place) -> Result<()> {
    let mut long = vec![0; LONG];
    File::open("/dev/urandom")?.read_exact(&mut long)?;
    // Half of it compresses, as most files do.
    long.chunks_mut(4096).for_each(|page| page[2048..].fill(b'x'));
    let path = place.at("source").join("long");
    fs::write(&path, long)?;
    // No log, of which no plain copy would be made.
    File::options().write(true).open(&path)?.set_modified(SystemTime::now() - LONG_AGO)?;
    let script = root().join("suite/mount/trees.sh");
    place.run("sh", &[script.as_os_str()], "source")?;
    // What has just been changed is looked at twice.
    std::thread::sleep(Duration::from_secs(4));
    place.run("git", &words(&["-C", "repository", "status", "--porcelain"]), "source")?;
    Ok(())
}

fn words<'a>(words: &[&'a str]) -> Vec<&'a std::ffi::OsStr> {
    words.iter().map(|word| (*word).as_ref()).collect()
}

fn read(place: &Place, dir: &str) -> Result<()> {
    let (mut file, mut buf) = (File::open(place.at(dir).join("long"))?, vec![0; 1 << 20]);
    let mut total = 0;
    loop {
        match file.read(&mut buf)? {
            0 => break,
            read => total += read,
        }
    }
    ensure!(total == LONG, "{total} bytes were read");
    Ok(())
}

fn status(place: &Place, dir: &str) -> Result<()> {
    let git = ["-C", "repository", "-c", "safe.directory=*", "--no-optional-locks", "status", "--porcelain"];
    let said = place.run("git", &words(&git), dir)?;
    ensure!(said.is_empty(), "git status says {said}");
    Ok(())
}

fn make(place: &Place, dir: &str) -> Result<()> {
    let to = place.at("tmp").join(dir);
    let to = format!("TO={}", to.display());
    place.run("make", &words(&["-s", "-B", "-j2", "-C", "program", &to]), dir).map(drop)
}

fn make_there(place: &Place, dir: &str) -> Result<()> {
    place.run("make", &words(&["-s", "-B", "-j2", "-C", "program", "TO=out"]), dir).map(drop)
}

fn median(all: &[f64]) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    match all.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => all[length / 2],
        length => f64::midpoint(all[length / 2 - 1], all[length / 2]),
    }
}

fn report(options: &Options, found: &BTreeMap<&str, BTreeMap<&str, Vec<f64>>>) -> String {
    let mut text = format!(
        "# A directory shown through a store\n\n{}\n\n{}Medians of {} runs in turn (least-most), seconds. *native*: the file system below; *mount*: it through a store that has all of it; *slow*: the same files with {DELAY} ms a \
         call, whose names and attributes the kernel believes for a second; *mount over slow*: that through a store that has all of it. The file is of {} MiB, half of which compresses; the repository has 2000 files in \
         100 directories; the program is of 60 files in C and 40 headers. `cargo xtask mount --figures DIR`.\n\n\
         | | native | mount | x native | goal | slow | mount over slow | slow / it | goal |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        machine::headline(&machine::describe()),
        options.note.as_ref().map(|note| format!("{note}\n\n")).unwrap_or_default(),
        options.rounds,
        LONG >> 20,
    );
    for figure in FIGURES {
        let Some(found) = found.get(figure.name) else { continue };
        let of = |who: &str| found.get(who).map_or(&[][..], Vec::as_slice);
        let [native, mount, slow, over] = WHERE.map(|(who, _)| of(who));
        text += &format!(
            "| {} | {} | {} | {:.2} | {} | {} | {} | {:.1} | {} |\n",
            figure.name,
            said(native),
            said(mount),
            median(mount) / median(native),
            figure.goals.0,
            said(slow),
            said(over),
            median(slow) / median(over),
            1.0 / figure.goals.1,
        );
    }
    text
}

fn said(all: &[f64]) -> String {
    let (least, most) =
        all.iter().fold((f64::MAX, f64::MIN), |(least, most), at| (at.min(least), at.max(most)));
    format!("{:.3} ({least:.3}-{most:.3})", median(all))
}

#[cfg(test)]
mod tests {
    use super::{median, said};

    #[test]
    fn a_median_is_the_middle_one_or_between_the_middle_two() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[1.0, 4.0, 2.0, 3.0])), (2.0, 2.5));
        assert_eq!(said(&[2.0, 1.0, 3.0]), "2.000 (1.000-3.000)");
    }
}
