//! The report as JSON: one object, written by hand because it is this small.

use std::fmt::Write;

use crate::check::Report;
use crate::checks::LEAST_KERNEL;

impl Report {
    /// `{"run_works":..,"least_kernel":..,"checks":[{"name","verdict","found","meaning","remedy"}..]}` and a newline.
    pub fn to_json(&self) -> String {
        let mut out = format!("{{\n  \"run_works\": {},\n  \"least_kernel\": ", self.run_works());
        string(&mut out, LEAST_KERNEL);
        out.push_str(",\n  \"checks\": [");
        for (index, check) in self.checks.iter().enumerate() {
            out.push_str(if index == 0 { "\n    {" } else { ",\n    {" });
            for (key, value) in [
                ("name", check.name),
                ("verdict", check.verdict.word()),
                ("found", &check.found),
                ("meaning", &check.meaning),
            ] {
                let _ = write!(out, "\"{key}\": ");
                string(&mut out, value);
                out.push_str(", ");
            }
            out.push_str("\"remedy\": ");
            match &check.remedy {
                Some(remedy) => string(&mut out, remedy),
                None => out.push_str("null"),
            }
            out.push('}');
        }
        out.push_str("\n  ]\n}\n");
        out
    }
}

/// Appends `text` as a JSON string (RFC 8259, section 7).
fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
