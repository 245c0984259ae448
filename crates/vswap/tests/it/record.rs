//! `vswap run --record`.

use vswap_core::recording::{Coder, MAGIC, Recorded, Why};

use crate::run_like_plain::works;
use crate::vswap::{command, said};

/// Fills so many pages, reads them again, and reads some of them for a third time.
const PROGRAM: &str = r#"
import mmap
pages = 12000
memory = mmap.mmap(-1, pages * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for i in range(pages): memory[i * 4096] = i % 251
wrong = sum(memory[i * 4096] != i % 251 for i in range(pages))
wrong += sum(memory[i * 4096] != i % 251 for i in range(0, pages, 7))
print(wrong)
"#;

fn read(file: &[u8]) -> Vec<Recorded> {
    let mut rest = file.strip_prefix(&MAGIC).expect("it begins so");
    let (mut coder, mut faults) = (Coder::default(), Vec::new());
    while !rest.is_empty() {
        let (fault, len) = coder.read(rest).expect("a record");
        faults.push(fault);
        rest = &rest[len..];
    }
    faults
}

#[test]
fn every_page_that_is_touched_is_recorded_in_the_order_in_which_that_happens() {
    if !works() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("faults");
    let mut command = command();
    command.args(["run", "--memory", "16M", "--disk", "none", "--record"]).arg(&file);
    command.args(["--", "/usr/bin/python3", "-c", PROGRAM]);
    let said = said(command.output().expect("starts"));
    assert_eq!((said.code, said.out.trim(), said.err.as_str()), (Some(0), "0", ""));
    let faults = read(&std::fs::read(&file).expect("a file"));
    // The longest run of first touches, page by page upwards, is the filling.
    let firsts: Vec<u64> =
        faults.iter().filter(|fault| fault.why == Why::First).map(|fault| fault.page).collect();
    let filling = firsts.chunk_by(|a, b| a + 1 == *b).max_by_key(|run| run.len()).expect("there are some");
    assert!(filling.len() >= 10_000, "{} of {}", filling.len(), firsts.len());
    // Most of them were out when they were read again, and came back upwards as well, one by one: nothing was read ahead.
    let area = filling[0]..filling[filling.len() - 1];
    let back: Vec<u64> = faults
        .iter()
        .filter(|fault| fault.why == Why::Out && area.contains(&fault.page))
        .map(|fault| fault.page)
        .collect();
    assert!(back.len() > 9_000, "{}", back.len());
    let upwards = back.windows(2).filter(|two| two[1] == two[0] + 1).count();
    assert!(upwards > back.len() / 2, "{upwards} of {}", back.len());
}

#[test]
fn a_record_that_cannot_be_written_is_refused_before_the_program_starts() {
    if !works() {
        return;
    }
    let mut command = command();
    command.args(["run", "--memory", "16M", "--record", "/nowhere/faults", "--", "/bin/echo", "ran"]);
    let said = said(command.output().expect("starts"));
    assert_eq!((said.code, said.out.as_str()), (Some(125), ""));
    assert!(said.err.contains("--record /nowhere/faults"), "{said:?}");
}

/// A FIFO without a reader held up the start, and one whose reader stood still the end, for as long as that lasted.
#[test]
fn a_record_that_somebody_would_have_to_read_is_refused() {
    if !works() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (fifo, socket) = (directory.path().join("fifo"), directory.path().join("socket"));
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("starts");
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    for file in [fifo, socket] {
        let mut command = command();
        command.args(["run", "--memory", "16M", "--record"]).arg(&file).args(["--", "/bin/echo", "ran"]);
        let said = said(command.output().expect("starts"));
        assert_eq!((said.code, said.out.as_str()), (Some(125), ""), "{said:?}");
        assert!(said.err.contains("neither a regular file nor a device"), "{said:?}");
    }
    let mut command = command();
    command.args(["run", "--memory", "16M", "--record", "/dev/null", "--", "/bin/echo", "ran"]);
    let said = said(command.output().expect("starts"));
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "ran\n", ""));
}

/// What an earlier run recorded is not before it.
#[test]
fn a_record_begins_anew() {
    if !works() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("faults");
    std::fs::write(&file, [b'x'; 1 << 20]).expect("a file");
    let mut command = command();
    command.args(["run", "--memory", "16M", "--record"]).arg(&file).args(["--", "/bin/echo", "ran"]);
    let said = said(command.output().expect("starts"));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let file = std::fs::read(&file).expect("a file");
    assert!(file.len() < 1 << 20);
    read(&file);
}
