//! Programs that are particular about their files: `suite/mount`, each as `work` and then as `check`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::place::Place;
use crate::host::programs::fsx;
use crate::host::root;

/// All of them.
pub const NAMES: &[&str] = &["fio", "fsx", "git", "sqlite", "tar", "make", "cargo"];

/// In what a program finds something else than in a plain directory.
pub fn differences(vswap: &Path, name: &str, more: &[&str]) -> Result<Vec<String>> {
    let place = Place::new(vswap, &format!("mount-{name}"), "2G")?;
    let script = root().join(format!("suite/mount/{name}.sh"));
    if name == "fsx" {
        // Where it is found.
        std::os::unix::fs::symlink(fsx()?, place.at("tmp").join("fsx"))?;
    }
    let path = format!("{}:{}", place.at("tmp").display(), std::env::var("PATH").unwrap_or_default());
    let ask = |act: &str, dir: &str| -> Result<String> {
        let words = ["-c", "PATH=$1 exec sh \"$2\" \"$3\"", "sh", &path];
        let words: Vec<_> =
            words.iter().map(|word| word.as_ref()).chain([script.as_os_str(), act.as_ref()]).collect();
        place.run("sh", &words, dir)
    };
    let wanted = ask("work", "plain")?;
    let mut found = Vec::new();
    let mut compare = |what: &str, wanted: &str, said: Result<String>| match said {
        Ok(said) if said == wanted => {}
        Ok(said) => found.push(format!("{what}:\n{}", difference(wanted, &said))),
        Err(error) => found.push(format!("{what}: {error:#}")),
    };
    let shown = place.mount("source", more)?;
    compare("what it says in the mount", &wanted, ask("work", "point"));
    let wanted = ask("check", "plain")?;
    compare("what it finds in the mount", &wanted, ask("check", "point"));
    drop_caches()?;
    compare("what it finds once the page cache is dropped", &wanted, ask("check", "point"));
    compare("the trees", "", trees(&place));
    shown.unmount()?;
    compare("what it finds in the source", &wanted, ask("check", "source"));
    drop_caches()?;
    let shown = place.mount("source", more)?;
    compare("what it finds after another mount", &wanted, ask("check", "point"));
    compare("the trees after another mount", "", trees(&place));
    shown.unmount()?;
    Ok(found)
}

/// How the mount and its source differ.
fn trees(place: &Place) -> Result<String> {
    let mut diff = Command::new("diff");
    diff.args(["-r", "--no-dereference"]).args([place.at("source"), place.at("point")]);
    let done = diff.output().context("cannot start diff")?;
    Ok(String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
}

/// What is in the page cache and not dirty goes, names and attributes too.
fn drop_caches() -> Result<()> {
    ensure!(Command::new("sync").status()?.success(), "sync failed");
    std::fs::write("/proc/sys/vm/drop_caches", "3")
        .context("cannot drop the page cache: this task needs root")
}

/// The first lines in which two texts differ.
pub fn difference(wanted: &str, said: &str) -> String {
    let (mut wanted, mut said) = (wanted.lines(), said.lines());
    let mut lines = Vec::new();
    loop {
        match (wanted.next(), said.next()) {
            (None, None) => break,
            (one, other) if one == other => {}
            (one, other) => {
                lines.extend(one.map(|line| format!("plain: {line}")));
                lines.extend(other.map(|line| format!("mount: {line}")));
            }
        }
    }
    lines.truncate(12);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn a_difference_names_both_sides_and_no_line_that_is_the_same() {
        assert_eq!(difference("a\nb\nc", "a\nx"), "plain: b\nmount: x\nplain: c");
        assert_eq!(difference("a", "a"), "");
    }
}
