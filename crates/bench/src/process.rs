//! What the kernel says of this process.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

fn field(file: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{file} has no {key}"))
}

/// Bytes that came from devices for it.
pub fn read_bytes() -> Result<u64> {
    field("/proc/self/io", "read_bytes")
}

/// Bytes that are resident now.
pub fn resident() -> Result<u64> {
    Ok(field("/proc/self/status", "VmRSS")? << 10)
}

/// Adds the most that was ever resident.
pub fn with_memory(mut said: Value) -> Result<Value> {
    said["resident_peak"] = json!(field("/proc/self/status", "VmHWM")? << 10);
    Ok(said)
}
