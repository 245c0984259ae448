//! Every dependency may be passed on under MIT or Apache-2.0. The same list as in `deny.toml`, without needing its tool.

use std::fs;

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;

use crate::host::root;

/// Fails with every package whose licence is not among the allowed.
pub fn run() -> Result<()> {
    let deny = fs::read_to_string(root().join("deny.toml")).context("cannot read deny.toml")?;
    let allowed = allowed(&deny).context("deny.toml has no `allow = [..]` line")?;
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).exec()?;
    let refused: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| !package.license.as_deref().is_some_and(|license| satisfied(license, &allowed)))
        .map(|package| {
            format!(
                "{} {}: {}",
                package.name,
                package.version,
                package.license.as_deref().unwrap_or("no licence")
            )
        })
        .collect();
    if !refused.is_empty() {
        bail!("{} licences that deny.toml does not allow:\n  {}", refused.len(), refused.join("\n  "));
    }
    println!("licences: {} packages, all of them allowed", metadata.packages.len());
    Ok(())
}

fn allowed(deny: &str) -> Option<Vec<String>> {
    let list = deny.lines().find_map(|line| line.strip_prefix("allow = ["))?;
    Some(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Whether an SPDX expression holds with these licences. `/` is the old way to write OR.
fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace('/', " OR ");
    let conjunction = |part: &str| {
        let terms = part.split(" AND ").map(|term| term.trim().trim_matches(['(', ')']).trim());
        terms.into_iter().all(|term| allowed.iter().any(|known| known == term))
    };
    // `(A OR B) AND C` is C and one of A, B; the plain split by OR would take A alone for enough.
    if let Some((choice, rest)) = expression.strip_prefix('(').and_then(|e| e.split_once(") AND ")) {
        return satisfied(choice, allowed) && satisfied(rest, allowed);
    }
    expression.split(" OR ").any(conjunction)
}

#[cfg(test)]
mod tests {
    use super::satisfied;

    #[test]
    fn one_allowed_choice_is_enough_and_a_conjunction_needs_all() {
        let allowed = ["MIT".to_owned(), "Unicode-3.0".to_owned()];
        assert!(satisfied("GPL-2.0 OR MIT", &allowed));
        assert!(satisfied("Apache-2.0/MIT", &allowed));
        assert!(satisfied("(MIT OR Apache-2.0) AND Unicode-3.0", &allowed));
        assert!(!satisfied("MIT AND GPL-2.0", &allowed));
        assert!(!satisfied("(MIT OR Apache-2.0) AND GPL-2.0", &allowed));
        assert!(!satisfied("GPL-2.0", &allowed));
    }
}
