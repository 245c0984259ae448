//! Runs that cannot be: 125, a message that names the remedy, and the program is not started.

use crate::run_like_plain::{run, works};
use crate::vswap::{Said, said};

fn refused(options: &[&str]) -> Said {
    let under = said(run(options, &["echo", "started"]).output().expect("starts"));
    assert_eq!((under.code, under.out.as_str()), (Some(125), ""), "{under:?}");
    assert!(under.all_prefixed(), "{under:?}");
    under
}

#[test]
fn a_directory_that_cannot_hold_the_file_is_named() {
    if !works() {
        return;
    }
    for directory in ["/no/such/directory", "/etc/passwd", "/dev/shm", "/proc"] {
        let under = refused(&["--disk-path", directory]);
        assert!(under.err.contains(directory) && under.err.contains("--disk-path"), "{under:?}");
    }
}

#[test]
fn figures_that_could_not_be_written_are_refused_before_the_run() {
    if !works() {
        return;
    }
    let under = refused(&["--stats-json", "/no/such/directory/figures.json"]);
    assert!(under.err.contains("/no/such/directory/figures.json"), "{under:?}");
}

#[test]
fn a_run_inside_a_run_is_refused_and_the_outer_one_goes_on() {
    if !works() {
        return;
    }
    let inner = format!("{} run --memory 64M -- echo inner; echo code $?", env!("CARGO_BIN_EXE_vswap"));
    let under = said(run(&[], &["/bin/sh", "-c", &inner]).output().expect("starts"));
    assert_eq!((under.code, under.out.as_str()), (Some(0), "code 125\n"), "{under:?}");
    assert!(under.err.contains("vswap run"), "{under:?}");
}
