//! One thing that was looked at, and all of them together.

use std::fmt;

/// How it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing; nothing is wrong.
    Note,
    /// `run` works, but less well or not for every program.
    Warns,
    /// `run` does not work.
    Fails,
}

impl Verdict {
    /// The word in the table and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Warns => "warn",
            Verdict::Fails => "FAIL",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Short name, stable, for scripts: `userfaultfd.move`.
    pub name: &'static str,
    /// How it looks.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What that means for `vswap run`; empty where all is well.
    pub meaning: String,
    /// What to do, as commands where there are some.
    pub remedy: Option<String>,
}

impl Check {
    /// All is well.
    pub(crate) fn good(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, verdict: Verdict::Good, found: found.into(), meaning: String::new(), remedy: None }
    }

    /// Worth knowing.
    pub(crate) fn note(name: &'static str, found: impl Into<String>, meaning: impl Into<String>) -> Check {
        Check { verdict: Verdict::Note, meaning: meaning.into(), ..Check::good(name, found) }
    }

    /// Works, but.
    pub(crate) fn warns(name: &'static str, found: impl Into<String>, meaning: impl Into<String>) -> Check {
        Check { verdict: Verdict::Warns, meaning: meaning.into(), ..Check::good(name, found) }
    }

    /// Does not work, and what helps.
    pub(crate) fn fails(
        name: &'static str,
        found: impl Into<String>,
        meaning: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Check {
        Check {
            verdict: Verdict::Fails,
            meaning: meaning.into(),
            remedy: Some(remedy.into()),
            ..Check::good(name, found)
        }
    }

    /// The same with a remedy.
    pub(crate) fn remedy(self, remedy: impl Into<String>) -> Check {
        Check { remedy: Some(remedy.into()), ..self }
    }
}

/// All that was looked at, in the order in which it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether `vswap run` would work here: nothing fails.
    pub fn run_works(&self) -> bool {
        self.with(Verdict::Fails).next().is_none()
    }

    /// The checks with this verdict.
    pub fn with(&self, verdict: Verdict) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |check| check.verdict == verdict)
    }

    /// The check with this name.
    pub fn find(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }
}
