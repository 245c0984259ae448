//! The report as a table for people.

use std::fmt::Write;

use crate::check::{Check, Report, Verdict};
use crate::checks::LEAST_KERNEL;

/// Columns of text below a check.
const INDENT: &str = "      ";

impl Report {
    /// The table, what each shortcoming means, and a last line that says whether `vswap run` would work.
    ///
    /// `width` is that of the terminal; long explanations are wrapped to it, commands never are.
    pub fn to_table(&self, width: usize) -> String {
        let width = width.clamp(40, 110);
        let name_width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        let mut out = String::new();
        for check in &self.checks {
            let _ = writeln!(out, "{:<4}  {:<name_width$}  {}", check.verdict, check.name, check.found);
            explain(&mut out, check, width);
        }
        out.push('\n');
        out.push_str(&self.conclusion());
        out
    }

    fn conclusion(&self) -> String {
        let fails = self.with(Verdict::Fails).count();
        let warns = self.with(Verdict::Warns).count();
        match (fails, warns) {
            (0, 0) => "vswap run works here.\n".to_owned(),
            (0, n) => format!("vswap run works here, with {n} warning{}.\n", plural(n)),
            (n, _) => {
                format!(
                    "vswap run does not work here: {n} thing{} to mend (marked FAIL). Least kernel: {LEAST_KERNEL}.\n",
                    plural(n)
                )
            }
        }
    }
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn explain(out: &mut String, check: &Check, width: usize) {
    for line in wrap(&check.meaning, width - INDENT.len()) {
        let _ = writeln!(out, "{INDENT}{line}");
    }
    if let Some(remedy) = &check.remedy {
        for (index, line) in remedy.lines().enumerate() {
            let _ = writeln!(out, "{INDENT}{} {line}", if index == 0 { "->" } else { "  " });
        }
    }
}

/// Breaks `text` between words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
