//! What holds for every report, wherever it is made.

use std::path::PathBuf;

use vswap_doctor::{Report, Request, Verdict, examine};

fn report_on(dir: &str) -> Report {
    examine(&Request { disk_path: Some(PathBuf::from(dir)) })
}

#[test]
fn whatever_fails_names_a_remedy_and_whatever_is_odd_says_what_it_means() {
    let report = examine(&Request::default());
    for check in &report.checks {
        assert!(check.verdict != Verdict::Fails || check.remedy.is_some(), "{check:?}");
        assert!(check.verdict == Verdict::Good || !check.meaning.is_empty(), "{check:?}");
    }
    assert_eq!(report.run_works(), report.with(Verdict::Fails).next().is_none());
}

#[test]
fn no_two_checks_share_a_name() {
    let mut names: Vec<_> = examine(&Request::default()).checks.iter().map(|check| check.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}

#[test]
fn a_probe_leaves_neither_child_nor_filter_behind() {
    let before = std::fs::read_to_string("/proc/self/status").expect("status");
    examine(&Request::default());
    let after = std::fs::read_to_string("/proc/self/status").expect("status");
    for key in ["Seccomp:", "NoNewPrivs:", "TracerPid:"] {
        let line = |text: &str| text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
        assert_eq!(line(&before), line(&after));
    }
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    assert_eq!(children, "", "children left");
}

#[test]
fn a_directory_in_memory_is_refused_for_the_segment_file() {
    let report = report_on("/dev/shm");
    let disk = report.find("disk").expect("looked at");
    assert_eq!(disk.verdict, Verdict::Fails);
    assert!(disk.found.contains("tmpfs"), "{disk:?}");
    assert!(disk.remedy.as_deref().is_some_and(|remedy| remedy.contains("--disk-path")), "{disk:?}");
    assert!(!report.run_works());
}

#[test]
fn a_directory_that_is_missing_or_no_directory_is_named() {
    for dir in ["/no/such/dir", "/proc/self/status"] {
        let report = report_on(dir);
        let disk = report.find("disk").expect("looked at");
        assert_eq!(disk.verdict, Verdict::Fails);
        assert!(disk.found.contains(dir), "{disk:?}");
    }
}

#[test]
fn json_is_json_and_says_the_same() {
    let report = report_on("/no/such/\"dir\"\\with\nodd\u{1}bytes");
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("valid JSON");
    assert_eq!(json["run_works"], report.run_works());
    let checks = json["checks"].as_array().expect("a list");
    assert_eq!(checks.len(), report.checks.len());
    for (value, check) in checks.iter().zip(&report.checks) {
        assert_eq!(value["name"], check.name);
        assert_eq!(value["verdict"], check.verdict.word());
        assert_eq!(value["found"], check.found);
        assert_eq!(value["meaning"], check.meaning);
        assert_eq!(value["remedy"].as_str(), check.remedy.as_deref());
    }
}

#[test]
fn the_table_has_a_line_for_each_check_and_a_verdict_at_the_end() {
    let report = examine(&Request::default());
    let table = report.to_table(80);
    for check in &report.checks {
        let line =
            table.lines().find(|line| line.starts_with(check.verdict.word()) && line.contains(check.name));
        assert!(line.is_some(), "{check:?}");
    }
    let last = table.lines().last().expect("not empty");
    assert_eq!(last.starts_with("vswap run works here"), report.run_works(), "{last}");
}
