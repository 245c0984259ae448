//! A published suite of what POSIX wants of a file system (pjdfstest), in a plain directory and in a mount: what only fails in the mount counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::place::Place;
use crate::host::programs::pjdfstest;

/// What it is called.
pub const NAME: &str = "posix";
/// Two users that Debian has.
const CONFIG: &str = "[features]\nposix_fallocate = {}\nutime_now = {}\nutimensat = {}\n[settings]\nnaptime = 0.02\n\
    [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"games\", \"games\"]]\n";
/// Left out where the file system names no limit of links, which FUSE does not.
const KNOWN: &[&str] = &["link::link_count_max"];

/// Tests that fail in the mount and not in a plain directory, or the other way round.
pub fn differences(vswap: &Path, more: &[&str]) -> Result<Vec<String>> {
    let (place, suite) = (Place::new(vswap, "mount-posix", "1G")?, pjdfstest()?);
    fs::write(place.at("tmp/config.toml"), CONFIG)?;
    let plain = verdicts(&place, &suite, "plain")?;
    // It asks as other users, too.
    let shown = place.mount("source", &[more, &["--allow-other", "--ttl", "0"]].concat())?;
    let mount = verdicts(&place, &suite, "point")?;
    shown.unmount()?;
    ensure!(plain.len() > 100 && plain.len() == mount.len(), "{} tests and {}", plain.len(), mount.len());
    let passed = |of: &BTreeMap<String, String>| of.values().filter(|verdict| *verdict == "ok").count();
    println!(
        "posix: {} tests, {} pass in a plain directory, {} in the mount",
        plain.len(),
        passed(&plain),
        passed(&mount)
    );
    let differ = plain
        .iter()
        .filter(|(name, verdict)| mount.get(*name) != Some(verdict) && !KNOWN.contains(&name.as_str()));
    Ok(differ
        .map(|(name, verdict)| format!("{name}: {verdict} plain, {:?} mounted", mount.get(name)))
        .collect())
}

/// What each test says.
fn verdicts(place: &Place, suite: &Path, dir: &str) -> Result<BTreeMap<String, String>> {
    let mut command = Command::new(suite);
    command.arg("-c").arg(place.at("tmp/config.toml")).arg("-p").arg(place.at(dir)).stdin(Stdio::null());
    // It ends with an error when any fails.
    let said = command.env("NO_COLOR", "1").output().with_context(|| format!("cannot start {command:?}"))?;
    fs::write(place.at(&format!("tmp/{dir}.said")), &said.stdout)?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let verdict = |line: &str| {
        let (name, verdict) = line.trim().rsplit_once(char::is_whitespace)?;
        let known = ["ok", "FAILED", "skipped"].contains(&verdict) && name.contains("::");
        known.then(|| (name.trim().to_owned(), verdict.to_owned()))
    };
    Ok(text.lines().filter_map(verdict).collect())
}
