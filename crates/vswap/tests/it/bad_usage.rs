//! Bad command lines: refused before anything is started, with 125, the bad text, and a right one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::vswap::{line, vswap};

#[test]
fn sizes_that_are_none_are_quoted_and_a_right_one_is_shown() {
    for bad in
        ["", "x", "12Q", "-5M", "1,5G", "50%", "1e9", "1.5", "99999999999999999999T", "0x800000", "8 M x"]
    {
        let said = vswap(["run", "--memory", bad, "--", "true"]);
        assert_eq!(said.code, Some(125), "{bad:?}: {said:?}");
        assert!(said.err.contains(&format!("{bad:?}")) || bad.is_empty(), "{bad:?}: {said:?}");
        assert!(said.err.contains("512M"), "{bad:?}: {said:?}");
        assert!(said.all_prefixed(), "{said:?}");
    }
}

#[test]
fn a_limit_below_the_least_or_above_the_address_space_is_refused() {
    for bad in ["0", "1", "8388607", "8MB", "4M"] {
        let said = vswap(["run", "--memory", bad, "true"]);
        assert_eq!(said.code, Some(125), "{said:?}");
        assert!(said.err.contains("8M (8388608 bytes)"), "{said:?}");
    }
    let said = vswap(["run", "--memory", "1E", "true"]);
    assert_eq!(said.code, Some(125));
    assert!(said.err.contains("128T"), "{said:?}");
}

#[test]
fn a_disk_size_is_a_size_of_at_least_a_segment_or_none() {
    for bad in ["5%", "lots", "1M", "0"] {
        let said = vswap(["run", "--memory", "512M", "--disk", bad, "true"]);
        assert_eq!(said.code, Some(125), "{said:?}");
        assert!(said.err.contains("none"), "{said:?}");
    }
}

#[test]
fn a_missing_limit_or_program_is_named_with_an_example() {
    for words in ["run", "run true", "run --memory 512M", "run --memory 512M --"] {
        let said = line(words);
        assert_eq!(said.code, Some(125), "{said:?}");
        assert!(said.err.contains("example: vswap run --memory 512M -- "), "{said:?}");
        assert!(said.all_prefixed(), "{said:?}");
    }
    assert!(line("run true").err.contains("--memory"), "the missing option is named");
}

#[test]
fn unknown_words_are_named() {
    for (words, named) in [
        ("run --memory 512M --bogus true", "--bogus"),
        ("run --memory 512M --codec gzip true", "gzip"),
        ("run --memory 512M --huge-pages some true", "some"),
        ("run --memory 512M --full maybe true", "maybe"),
        ("run --memory 512M --memory 1G true", "--memory"),
        ("walk", "walk"),
        ("doctor --bogus", "--bogus"),
        ("setup --undo --group x", "--group"),
    ] {
        let said = line(words);
        assert_eq!(said.code, Some(125), "{said:?}");
        assert!(said.err.contains(named) && said.all_prefixed(), "{said:?}");
        assert_eq!(said.out, "");
    }
}

#[test]
fn words_that_are_not_utf8_do_not_make_it_panic() {
    let odd = OsStr::from_bytes(b"5\xffM");
    let said = vswap([OsStr::new("run"), OsStr::new("--memory"), odd, OsStr::new("true")]);
    assert_eq!(said.code, Some(125), "{said:?}");
    assert!(!said.err.contains("panicked"), "{said:?}");
}
