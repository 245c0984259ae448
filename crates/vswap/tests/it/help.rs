//! Help, version and manual pages.

use crate::vswap::{line, vswap};

#[test]
fn help_and_version_go_to_standard_output_and_succeed() {
    for words in ["--help", "-h", "help", "help run", "run --help", "run -h", "help doctor", "help setup"] {
        let said = line(words);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{words}");
        assert!(said.out.contains("Usage:"), "{words}: {said:?}");
    }
    let version = line("--version");
    assert_eq!(version.out, format!("vswap {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_of_run_has_examples_exit_status_and_environment() {
    let said = line("help run");
    for part in
        ["Examples:", "Exit status:", "Environment:", "Sizes:", "TMPDIR", "125", "126", "127", "1.5GiB"]
    {
        assert!(said.out.contains(part), "{part} is missing");
    }
}

#[test]
fn what_changes_a_tier_can_answer_in_json_and_its_help_says_so() {
    for command in ["add", "remove", "reopen"] {
        let said = line(&format!("tier {command} --help"));
        assert!(said.code == Some(0) && said.out.contains("--json"), "{command}: {said:?}");
    }
    let said = line("tier --help");
    assert!(said.out.contains("segments and bytes"), "{said:?}");
}

/// As swapon and zramctl list theirs.
#[test]
fn the_help_of_what_shows_a_table_lists_its_columns() {
    for (command, columns) in [("tiers", ["PRIO", "LIVE"]), ("groups", ["ZSWAP-MAX", "MEMORY-PEAK"])] {
        let said = line(&format!("{command} --help"));
        let options = ["--bytes", "--noheadings", "--raw", "--output <COLUMN,...>", "--output-all"];
        for part in options.iter().chain(&columns) {
            assert!(said.out.contains(part), "{command}: {part} is missing in {}", said.out);
        }
        for words in [["--output", "FOO"], ["--raw", "--json"]] {
            let said = vswap([command].iter().chain(&words));
            assert!(said.code == Some(125) && said.all_prefixed(), "{words:?}: {said:?}");
        }
    }
    assert!(line("status --help").out.contains("--bytes"));
}

#[test]
fn no_words_at_all_show_the_help_as_an_error() {
    let said = vswap::<[&str; 0], _>([]);
    assert_eq!(said.code, Some(125));
    assert!(said.err.contains("Usage:"), "{said:?}");
}

#[test]
fn a_manual_page_is_made_for_each_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let said = vswap(["man".as_ref(), directory.path().as_os_str()]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for page in ["vswap.1", "vswap-run.1", "vswap-doctor.1", "vswap-setup.1"] {
        let text = std::fs::read_to_string(directory.path().join(page)).expect(page);
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(!directory.path().join("vswap-man.1").exists(), "a hidden command has none");
}
