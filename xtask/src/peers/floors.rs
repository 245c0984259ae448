//! What the kernel's own calls cost, with nothing of vswap around them: no pager or supervisor of this kind can be faster.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::table::{Series, short};
use crate::host::{interrupt, programs};

/// Runs `bench/floors.c` a few times.
pub fn measure(repeats: usize) -> Result<(String, Value)> {
    let program = programs::floors()?;
    let mut floors: BTreeMap<(String, String), Series> = BTreeMap::new();
    for _ in 0..repeats.max(5) {
        interrupt::check()?;
        let ran =
            Command::new(&program).output().with_context(|| format!("cannot start {}", program.display()))?;
        ensure!(ran.status.success(), "floors: {}", String::from_utf8_lossy(&ran.stderr));
        for line in String::from_utf8_lossy(&ran.stdout).lines() {
            let figure: Value =
                serde_json::from_str(line).with_context(|| format!("floors said {line:?}"))?;
            let (Some(name), Some(unit), Some(value)) =
                (figure["name"].as_str(), figure["unit"].as_str(), figure["value"].as_f64())
            else {
                bail!("floors said {line:?}");
            };
            floors.entry((name.into(), unit.into())).or_default().push(value);
        }
    }
    let mut out = String::from("\n## What the kernel's own calls cost\n\n| | | |\n| --- | ---: | --- |\n");
    let mut data = json!({});
    for ((name, unit), series) in &floors {
        let (least, most) = series.spread();
        out +=
            &format!("| {name} | {} ({}-{}) | {unit} |\n", short(series.median()), short(least), short(most));
        data[name] = json!(series.median());
    }
    Ok((out, data))
}
