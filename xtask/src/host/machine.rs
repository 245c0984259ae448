//! What machine this is, for the head of every table.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn after(text: &str, key: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(key));
    line.and_then(|l| l.split_once(':')).map_or_else(|| "unknown".into(), |(_, v)| v.trim().to_owned())
}

/// The first line that a command prints.
pub fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// Processor, kernel, memory, date and the settings that matter to swapping.
pub fn describe() -> Value {
    let cpuinfo = file("/proc/cpuinfo");
    json!({
        "processor": after(&cpuinfo, "model name"),
        "cpus": cpuinfo.lines().filter(|l| l.starts_with("processor")).count(),
        "kernel": file("/proc/sys/kernel/osrelease"),
        "memory": after(&file("/proc/meminfo"), "MemTotal"),
        "date": first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        "commit": first_line("git", &["-C", &super::root().display().to_string(), "rev-parse", "--short", "HEAD"]),
        "transparent_hugepage": file("/sys/kernel/mm/transparent_hugepage/enabled"),
        "swappiness": file("/proc/sys/vm/swappiness"),
        "page_cluster": file("/proc/sys/vm/page-cluster"),
        "zswap_compressor": file("/sys/module/zswap/parameters/compressor"),
        "file_system_of_var_tmp": first_line("stat", &["-f", "-c", "%T", "/var/tmp"]),
    })
}

/// One line of it for people.
pub fn headline(machine: &Value) -> String {
    let get = |key: &str| machine[key].as_str().unwrap_or("?").to_owned();
    format!(
        "{} x {}, {} memory, Linux {}, {}; commit {}; huge pages {}; page-cluster {}",
        machine["cpus"],
        get("processor"),
        get("memory"),
        get("kernel"),
        get("date"),
        get("commit"),
        get("transparent_hugepage"),
        get("page_cluster"),
    )
}
