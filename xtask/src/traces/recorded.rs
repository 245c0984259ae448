//! Traces of real programs: the faults that `vswap run --record` saw, kept small under `bench/traces/`, made anew by
//! `cargo xtask traces record`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use vswap_core::PAGES_PER_CLUSTER;
use vswap_core::recording::{Coder, LONGEST, MAGIC, RecordError, Recorded, Why};

use super::generate::Trace;
use crate::dist;
use crate::host::programs::{self, PYTHON, source};
use crate::host::root;
use crate::host::scratch::Scratch;

/// Faults that are kept of a program at the most: the middle ones.
const MOST: usize = 150_000;
const LEVEL: i32 = 19;

/// What to record.
pub struct Program {
    name: &'static str,
    what: &'static str,
    /// The limit that it is recorded with.
    memory: &'static str,
    argv: fn() -> Result<Vec<OsString>>,
}

fn argv(program: &str, args: &[&str]) -> Vec<OsString> {
    std::iter::once(program).chain(args.iter().copied()).map(OsString::from).collect()
}

fn script(name: &str, args: &[&Path]) -> Vec<OsString> {
    let mut argv = argv("/bin/sh", &[]);
    argv.push(source(name).into());
    argv.extend(args.iter().map(|arg| arg.into()));
    argv
}

/// Small programs: so many faults are to see most of what they do.
const PROGRAMS: [Program; 5] = [
    Program {
        name: "python",
        what: "Python builds a dictionary of 120,000 strings and looks up 20,000 at random (`suite/programs/dictionary.py`)",
        memory: "10M",
        argv: || Ok(argv(PYTHON, &[&source("dictionary.py").to_string_lossy(), "120000", "20000"])),
    },
    Program {
        name: "compile",
        what: "g++ compiles a file of templates (`suite/programs/templates.py`): driver, cc1plus, as",
        memory: "12M",
        argv: || {
            let file = programs::printed(&source("templates.py"), &["1"], "templates-1.cc")?;
            Ok(script("compile.sh", &[&file, Path::new("out.o")]))
        },
    },
    Program {
        name: "sort",
        what: "GNU sort with two threads, all 8 MiB of lines in memory",
        memory: "12M",
        argv: || {
            let file = programs::printed(&source("lines.py"), &["8"], "lines-8")?;
            Ok(script("sort.sh", &[&file, Path::new("200M")]))
        },
    },
    Program {
        name: "redis",
        what: "Redis takes 60,000 strings, then 20,000 reads and as many appends at random (`suite/programs/redis_bench.sh`)",
        memory: "10M",
        argv: || {
            let file = programs::printed(&source("redis_load.py"), &["60000"], "redis-load-60000")?;
            Ok(script("redis_bench.sh", &[&file, Path::new("60000"), Path::new("20000")]))
        },
    },
    Program {
        name: "sqlite",
        what: "SQLite in memory: a table of 100,000 rows, two indices, scans, a join, updates, deletions (`suite/programs/sqlite.sql`)",
        memory: "10M",
        argv: || {
            let file = programs::cache()?.join("sqlite-100000.sql");
            fs::write(&file, fs::read_to_string(source("sqlite.sql"))?.replace("ROWS", "100000"))?;
            Ok(argv("sqlite3", &[":memory:", &format!(".read {}", file.display())]))
        },
    },
];

fn directory() -> PathBuf {
    root().join("bench/traces")
}

/// Records them anew, or those that are named.
pub fn record(only: &[String], vswap: Option<&Path>) -> Result<()> {
    let known = |name: &String| PROGRAMS.iter().any(|program| program.name == name);
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        bail!("no program {unknown:?} is recorded");
    }
    let vswap = dist::vswap(vswap)?;
    let scratch = Scratch::new("record")?;
    fs::create_dir_all(directory())?;
    for program in PROGRAMS.iter().filter(|program| only.is_empty() || only.contains(&program.name.into())) {
        let file = scratch.path().join(program.name);
        let mut command = Command::new(&vswap);
        command
            .args(["run", "--memory", program.memory, "--record"])
            .arg(&file)
            .arg("--")
            .args((program.argv)()?);
        command.current_dir(scratch.path()).env("TMPDIR", scratch.path()).env("LC_ALL", "C");
        // A word of vswap's would be of faults that are missing.
        let ran = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
        let ran = ran.with_context(|| format!("cannot start {}", vswap.display()))?;
        let said = String::from_utf8_lossy(&ran.stderr);
        ensure!(
            ran.status.success() && !said.contains("vswap: "),
            "{}: {}: {said}",
            program.name,
            ran.status
        );
        let faults = read(&fs::read(&file)?)?;
        let from = faults.len().saturating_sub(MOST) / 2;
        let kept = &faults[from..(from + MOST).min(faults.len())];
        let bytes = compressed(&written(kept))?;
        let part = match kept.len() == faults.len() {
            true => format!("all {} faults", faults.len()),
            false => format!("{} faults from the middle of {}", kept.len(), faults.len()),
        };
        let what = format!("{}; with {}, {part}", program.what, program.memory);
        println!("{}: {what}: {} bytes", program.name, bytes.len());
        fs::write(directory().join(format!("{}.zst", program.name)), bytes)?;
        fs::write(directory().join(format!("{}.txt", program.name)), what + "\n")?;
    }
    Ok(())
}

/// The recorded traces that there are.
pub fn all() -> Result<Vec<Trace>> {
    let trace = |program: &Program| {
        let path = directory().join(format!("{}.zst", program.name));
        let packed = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let faults = read(&decompressed(&packed)?)?;
        let what = fs::read_to_string(path.with_extension("txt"))?;
        Ok(trace_of(program.name, what.trim_end(), &faults))
    };
    PROGRAMS.iter().map(trace).collect()
}

/// Blocks of all spaces get numbers in the order in which they come up. A page that is asked for again at once, mostly to be written after it was
/// read, is one touch.
fn trace_of(name: &str, what: &str, faults: &[Recorded]) -> Trace {
    let mut numbers: HashMap<(u32, u64), u32> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    let (mut touches, mut again): (Vec<u32>, usize) = (Vec::new(), 0);
    for fault in faults {
        let block = fault.page / PAGES_PER_CLUSTER as u64;
        let next = numbers.len() as u32;
        let number = *numbers.entry((fault.space, block)).or_insert(next);
        let page = number * PAGES_PER_CLUSTER as u32 + (fault.page % PAGES_PER_CLUSTER as u64) as u32;
        again += usize::from(!seen.insert(page) && fault.why == Why::First);
        if touches.last() != Some(&page) {
            touches.push(page);
        }
    }
    let pages = numbers.len() as u32 * PAGES_PER_CLUSTER as u32;
    let what = match again {
        0 => what.to_owned(),
        again => format!("{what}, {again} of them first touches of what had been given back meanwhile"),
    };
    Trace { name: name.into(), what, touches, pages }
}

fn read(file: &[u8]) -> Result<Vec<Recorded>> {
    let mut rest = file.strip_prefix(&MAGIC).context("not a recording of faults")?;
    let (mut coder, mut faults) = (Coder::default(), Vec::new());
    while !rest.is_empty() {
        match coder.read(rest) {
            Ok((fault, len)) => {
                faults.push(fault);
                rest = &rest[len..];
            }
            // Its writer was killed.
            Err(RecordError::Cut) => break,
            Err(error) => bail!("fault {}: {error}", faults.len()),
        }
    }
    Ok(faults)
}

fn written(faults: &[Recorded]) -> Vec<u8> {
    let (mut coder, mut file) = (Coder::default(), MAGIC.to_vec());
    for fault in faults {
        let mut bytes = [0; LONGEST];
        let len = coder.write(*fault, &mut bytes);
        file.extend_from_slice(&bytes[..len]);
    }
    file
}

fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = vec![0; zstd_safe::compress_bound(bytes.len())];
    let length = zstd_safe::compress(&mut packed[..], bytes, LEVEL).map_err(refused)?;
    packed.truncate(length);
    Ok(packed)
}

fn decompressed(packed: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = vec![0; MOST * LONGEST];
    let length = zstd_safe::decompress(&mut bytes[..], packed).map_err(refused)?;
    bytes.truncate(length);
    Ok(bytes)
}

fn refused(code: usize) -> anyhow::Error {
    anyhow::anyhow!("zstd: {}", zstd_safe::get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_read_as_it_was_written_packed_and_cut() {
        let fault = |page, space, why| Recorded { page, space, why };
        let faults = [fault(512, 1, Why::First), fault(513, 1, Why::Out), fault(7, 2, Why::Write)];
        let file = decompressed(&compressed(&written(&faults)).unwrap()).unwrap();
        assert_eq!(read(&file).unwrap(), faults);
        assert_eq!(read(&file[..file.len() - 1]).unwrap(), faults[..2]);
        assert!(read(b"something else").is_err());
    }

    #[test]
    fn blocks_of_different_spaces_are_different_and_a_page_asked_for_again_at_once_is_one_touch() {
        let fault = |page, space, why| Recorded { page, space, why };
        let faults = [
            fault(512 * 9 + 3, 1, Why::Out),
            fault(512 * 9 + 3, 1, Why::Write),
            fault(512 * 9 + 3, 2, Why::First),
            fault(512 * 9 + 4, 1, Why::Out),
            fault(512 * 9 + 3, 2, Why::First),
        ];
        let trace = trace_of("x", "y", &faults);
        assert_eq!((trace.touches, trace.pages), (vec![3, 512 + 3, 4, 512 + 3], 1024));
        assert!(trace.what.contains("1 of them"), "{}", trace.what);
    }

    #[test]
    fn what_is_kept_in_the_tree_is_small_and_can_be_read() {
        let mut sum = 0;
        for program in &PROGRAMS {
            let bytes = fs::metadata(directory().join(format!("{}.zst", program.name))).unwrap().len();
            assert!(bytes <= 320 << 10, "{}: {bytes} bytes", program.name);
            sum += bytes;
        }
        assert!(sum <= 3 << 19, "{sum} bytes");
        for trace in all().unwrap() {
            assert!(trace.touches.len() > 10_000, "{}", trace.name);
            assert!(trace.touches.iter().all(|page| *page < trace.pages), "{}", trace.name);
        }
    }
}
