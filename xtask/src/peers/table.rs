//! Medians, spreads, and the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Contender;

/// All repeats of one figure.
#[derive(Clone, Default)]
pub struct Series(Vec<f64>);

impl Series {
    /// One more repeat.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The median.
    pub fn median(&self) -> f64 {
        let (n, half) = (self.0.len(), self.0.len() / 2);
        match n {
            0 => f64::NAN,
            n if n % 2 == 1 => self.0[half],
            _ => f64::midpoint(self.0[half - 1], self.0[half]),
        }
    }

    /// The least and the largest.
    pub fn spread(&self) -> (f64, f64) {
        (self.0.first().copied().unwrap_or(f64::NAN), self.0.last().copied().unwrap_or(f64::NAN))
    }

    fn json(&self) -> Value {
        json!({ "median": self.median(), "min": self.spread().0, "max": self.spread().1, "all": self.0 })
    }
}

/// A number with three significant digits.
pub fn short(value: f64) -> String {
    match value {
        v if v.is_nan() => "-".into(),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// Figures of one work by contender.
#[derive(Default)]
pub struct Results {
    /// (figure, contender) -> repeats.
    pub figures: BTreeMap<(String, usize), Series>,
    /// contender -> peak of all memory, bytes.
    pub totals: BTreeMap<usize, Series>,
    /// contender -> peak of rss + shmem, bytes.
    pub residents: BTreeMap<usize, Series>,
    /// contender -> its cgroup limit.
    pub limits: BTreeMap<usize, u64>,
    /// contender -> what kept it from finishing.
    pub failures: BTreeMap<usize, String>,
    /// What `vswap run --stats-json` said last.
    pub stats: Value,
}

impl Results {
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.figures.keys().map(|(name, _)| name.as_str()).collect();
        names.dedup();
        names
    }

    /// A table: a row for each figure, a column for each contender, `x` = how many times the first contender's time it takes.
    pub fn markdown(&self, contenders: &[Contender]) -> String {
        let mut out = String::from("| |");
        for contender in contenders {
            let _ = write!(out, " {} |", contender.title());
        }
        out += "\n| --- |";
        out += &" ---: |".repeat(contenders.len());
        for name in self.names() {
            let _ = write!(out, "\n| {name} |");
            let ours = self.figures.get(&(name.to_owned(), 0)).map_or(f64::NAN, Series::median);
            for index in 0..contenders.len() {
                out += &match self.figures.get(&(name.to_owned(), index)) {
                    None => " - |".into(),
                    Some(series) => {
                        let (low, high) = series.spread();
                        let ratio = if index == 0 || ours.is_nan() {
                            String::new()
                        } else {
                            format!(" **{}x**", short(series.median() / ours))
                        };
                        format!(" {}{ratio} ({}-{}) |", short(series.median()), short(low), short(high))
                    }
                };
            }
        }
        self.memory_rows(&mut out, contenders.len());
        for (index, why) in &self.failures {
            let _ = write!(out, "\n\n{}: {}", contenders[*index].title(), why.replace('\n', " / "));
        }
        out + "\n"
    }

    fn memory_rows(&self, out: &mut String, columns: usize) {
        let mib = |bytes: f64| short(bytes / f64::from(1 << 20));
        let rows = [("memory in total, peak (MiB)", &self.totals), ("resident, peak (MiB)", &self.residents)];
        for (title, series) in rows {
            let _ = write!(out, "\n| {title} |");
            for index in 0..columns {
                let _ = write!(out, " {} |", series.get(&index).map_or("-".into(), |s| mib(s.median())));
            }
        }
        let _ = write!(out, "\n| cgroup limit (MiB) |");
        for index in 0..columns {
            let _ = write!(
                out,
                " {} |",
                self.limits.get(&index).map_or("none".into(), |&limit| mib(limit as f64))
            );
        }
    }

    /// The same for machines.
    pub fn json(&self, contenders: &[Contender]) -> Value {
        let of = |index: usize| {
            let figures: BTreeMap<_, _> = self
                .figures
                .iter()
                .filter(|((_, i), _)| *i == index)
                .map(|((name, _), s)| (name.clone(), s.json()))
                .collect();
            json!({
                "contender": contenders[index].title(),
                "figures": figures,
                "total_bytes": self.totals.get(&index).map(Series::json),
                "resident_bytes": self.residents.get(&index).map(Series::json),
                "cgroup_limit": self.limits.get(&index),
                "failure": self.failures.get(&index),
            })
        };
        json!({ "contenders": (0..contenders.len()).map(of).collect::<Vec<_>>(), "vswap_stats": self.stats })
    }

    /// Median of a figure.
    pub fn median(&self, figure: &str, contender: usize) -> Option<f64> {
        self.figures.get(&(figure.to_owned(), contender)).map(Series::median)
    }
}

#[cfg(test)]
mod tests {
    use super::Series;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        let mut series = Series::default();
        for value in [9.0, 1.0, 4.0, 2.0] {
            series.push(value);
        }
        assert!((series.median() - 3.0).abs() < 1e-9);
        assert_eq!(series.spread(), (1.0, 9.0));
    }
}
